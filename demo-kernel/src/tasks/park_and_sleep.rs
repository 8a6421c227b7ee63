//! Waiting, and being woken.

use core::sync::atomic::Ordering;

use task_model::{TaskId, TaskState};

use super::{Task, TaskError, with_task};
use crate::{cpu, timer, traps};

/// Waits until someone calls [`unpark`] for the calling task.
///
/// An unpark that came first is not lost: it makes the next `park` return at once. Several of
/// them count as one.
pub(crate) fn park() {
    if let Some(task) = cpu::current_task() {
        // Acquire pairs with the Release in `unpark`: what the waker wrote is seen.
        while !task.wake_token().swap(false, Ordering::Acquire) {
            traps::park();
        }
    }
}

/// Ends the task's `park`, or its next one.
///
/// # Errors
/// [`TaskError::Stale`]
pub(crate) fn unpark(id: TaskId) -> Result<(), TaskError> {
    with_task(id, |task| {
        // Release: see `park`.
        task.wake_token().store(true, Ordering::Release);
        task.wake();
        Ok(())
    })
}

/// Waits for `ticks` ticks of the timer; the first may be a short one.
pub(crate) fn sleep_ticks(ticks: u64) {
    let deadline = timer::ticks().saturating_add(ticks);
    while timer::ticks() < deadline {
        traps::sleep(deadline);
    }
}

impl Task {
    /// The trap of a `park`: blocks the running task unless there is a token for it to take.
    pub(crate) fn block_without_token(&self) {
        // In a trap, so no unpark comes between the look and the block, and none is lost.
        // Relaxed: the task takes the token itself, and sees then what it means.
        if !self.wake_token().load(Ordering::Relaxed) {
            self.block_until(u64::MAX);
        }
    }

    /// Blocks the running task until tick `deadline` or [`Task::wake`].
    pub(crate) fn block_until(&self, deadline: u64) {
        self.wake_at().store(deadline, Ordering::Relaxed);
        self.move_from(TaskState::Running, TaskState::Blocked).expect("the task runs");
    }

    /// Makes the task ready if it is blocked; a frozen one stays frozen.
    pub(super) fn wake(&self) {
        if self.move_from(TaskState::Blocked, TaskState::Ready).is_ok() {
            self.wake_at().store(u64::MAX, Ordering::Relaxed);
        }
    }
}
