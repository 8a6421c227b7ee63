//! Round robin by class.

use core::sync::atomic::Ordering;

use task_model::{RegisterFile, TaskState};
use x86_64::instructions::hlt;

use super::{Class, Spawn, Task, table};
use crate::cpu::Cpu;

/// Picks the task to run next and makes it the CPU's; returns the registers to restore.
///
/// For the end of a trap. The task that ran is ready again if it still runs, and comes last of
/// its class.
pub(crate) fn switch(cpu: &Cpu) -> *mut RegisterFile {
    let current = cpu.task();
    if let Some(task) = current
        && task.state() == TaskState::Running
    {
        task.become_state(TaskState::Ready).expect("a running task may become ready");
    }
    let first = current.map_or(0, |task| task.id().index as usize + 1);
    let next = [Class::Urgent, Class::Normal, Class::Idle]
        .into_iter()
        .find_map(|class| next_ready(class, first))
        .expect("the idle task is always ready");
    cpu.set_task(next);
    next.registers().as_ptr()
}

/// The first ready task of `class` from slot `first` on, now running.
fn next_ready(class: Class, first: usize) -> Option<&'static Task> {
    let (before, after) = table::slots().split_at(first);
    after.iter().chain(before).find(|task| {
        task.state() == TaskState::Ready
            && task.life().is_some_and(|life| life.class == class)
            && task.become_state(TaskState::Running).is_ok()
    })
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
