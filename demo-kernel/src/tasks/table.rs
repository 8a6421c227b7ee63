//! The task table: a fixed number of slots.

use task_model::{TaskId, TaskState};

use super::Task;

/// How many tasks may live at a time.
pub(crate) const CAPACITY: usize = 32;

static TABLE: [Task; CAPACITY] = {
    let mut table = [const { Task::dead(0) }; CAPACITY];
    let mut n = 0;
    while n < CAPACITY {
        table[n] = Task::dead(n as u32);
        n += 1;
    }
    table
};

/// All slots, the dead ones too.
pub(super) fn slots() -> &'static [Task; CAPACITY] {
    &TABLE
}

/// The task that `id` names, if its life is not over.
pub(super) fn lookup(id: TaskId) -> Option<&'static Task> {
    let task = TABLE.get(id.index as usize)?;
    let generation = task.id().generation;
    (generation == id.generation && task.state() != TaskState::Dead).then_some(task)
}
