//! Round robin by class.

use core::sync::atomic::{AtomicU32, Ordering};

use task_model::{RegisterFile, TaskState};
use x86_64::instructions::hlt;

use super::{Class, Spawn, Task, table};
use crate::cpu::Cpu;

/// The tasks that are ready, by class: a bit for each slot.
static READY: [AtomicU32; Class::COUNT] = [const { AtomicU32::new(0) }; Class::COUNT];
const _: () = assert!(table::CAPACITY <= u32::BITS as usize);

/// Notes that a task has become ready, or is so no more. It is called with interrupts off, by
/// whoever changes the task's state.
#[inline]
pub(super) fn note(index: u32, class: Class, is_ready: bool) {
    let ready = &READY[class as usize];
    // Relaxed: one CPU, in one step with the change of the state.
    let others = ready.load(Ordering::Relaxed) & !(1 << index);
    ready.store(others | u32::from(is_ready) << index, Ordering::Relaxed);
}

/// Picks the task to run next and makes it the CPU's; returns the registers to restore.
///
/// For the end of a trap. The task that ran is ready again if it still runs, and comes last of
/// its class.
pub(crate) fn switch(cpu: &Cpu) -> *mut RegisterFile {
    let current = cpu.task();
    if let Some(task) = current
        && task.state() == TaskState::Running
    {
        task.move_from(TaskState::Running, TaskState::Ready).expect("it runs");
    }
    let last = current.map_or(table::CAPACITY as u32 - 1, |task| task.id().index);
    let next = next_ready(last).expect("the idle task is always ready");
    next.move_from(TaskState::Ready, TaskState::Running).expect("a ready task may run");
    cpu.set_task(next);
    next.registers().as_ptr()
}

/// The first ready task after slot `last`, of the first class that has one.
fn next_ready(last: u32) -> Option<&'static Task> {
    let ready = READY.iter().map(|word| word.load(Ordering::Relaxed)).find(|word| *word != 0)?;
    let after = ready & (u32::MAX << 1 << last);
    let index = if after != 0 { after } else { ready }.trailing_zeros();
    table::slots().get(index as usize)
}

/// Ends the waits whose time has come, at tick `now`.
pub(crate) fn wake_sleepers(now: u64) {
    for task in table::slots() {
        // Relaxed: written by the task in a trap, on this CPU.
        if task.state() == TaskState::Blocked && task.wake_at().load(Ordering::Relaxed) <= now {
            task.wake();
        }
    }
}

/// Spawns the task that waits for interrupts.
///
/// # Panics
/// If there is no room for it.
pub(super) fn spawn_idle() {
    let idle = |_| {
        loop {
            hlt();
        }
    };
    Spawn::new("idle", idle).class(Class::Idle).start().expect("the first tasks leave room for it");
}
