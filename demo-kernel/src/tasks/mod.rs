//! Tasks: the table, the scheduler, and what a task may ask of them.
//!
//! Each operation on another task is short and runs with interrupts off, which on one CPU makes
//! it a single step to every other task. A [`TaskId`] whose life is over is refused.

mod park_and_sleep;
pub(crate) mod scheduler;
mod spawn;
mod table;
mod task;

use core::fmt;

use task_model::{FaultInfo, FrozenTask, TaskId, TaskState};
use x86_64::instructions::interrupts::without_interrupts;

use crate::{cpu, faults, traps};

pub(crate) use park_and_sleep::{park, sleep_ticks, unpark};
pub(crate) use spawn::{SpawnError, spawn, spawn_in_class};
pub(crate) use table::CAPACITY;
pub(crate) use task::{Class, PanicNote, Task};
pub(crate) use traps::{exit as exit_current, yield_now};

/// Why an operation on another task was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TaskError {
    /// The id names no life, or one that is over.
    Stale,
    /// The task is in a state from which this cannot be done.
    State(TaskState),
}

impl fmt::Display for TaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stale => write!(f, "no such task any more"),
            Self::State(state) => write!(f, "not possible for a task that is {state:?}"),
        }
    }
}

impl core::error::Error for TaskError {}

/// Runs `operation` on the task that `id` names, as one step.
fn with_task<R>(
    id: TaskId,
    operation: impl FnOnce(&'static Task) -> Result<R, TaskError>,
) -> Result<R, TaskError> {
    without_interrupts(|| operation(table::lookup(id).ok_or(TaskError::Stale)?))
}

/// The task that calls; none at boot.
pub(crate) fn current() -> Option<TaskId> {
    cpu::current_task().map(Task::id)
}

/// Where the task is in its life.
///
/// # Errors
/// [`TaskError::Stale`]
pub(crate) fn state(id: TaskId) -> Result<TaskState, TaskError> {
    with_task(id, |task| Ok(task.state()))
}

/// Why the task stopped, if it did.
///
/// # Errors
/// [`TaskError::Stale`]
pub(crate) fn fault(id: TaskId) -> Result<Option<FaultInfo>, TaskError> {
    with_task(id, |task| Ok(task.fault()))
}

/// What the task said when it panicked, if it did.
///
/// # Errors
/// [`TaskError::Stale`]
pub(crate) fn panic_note(id: TaskId) -> Result<Option<PanicNote>, TaskError> {
    with_task(id, |task| Ok(task.panic_note()))
}

/// Stops the task where it is, as a fault of kind [`Killed`](task_model::FaultKind::Killed).
///
/// A task that kills itself does not come back from this, unless it is resumed.
///
/// # Errors
/// If the task is gone, or stopped already.
pub(crate) fn kill(id: TaskId) -> Result<(), TaskError> {
    if current() == Some(id) {
        traps::killed();
        return Ok(());
    }
    with_task(id, |task| {
        let fault = FaultInfo::killed(task.saved_instruction_pointer());
        task.freeze(fault)?;
        faults::task_faulted(id, fault);
        Ok(())
    })
}

/// Lets a frozen task go on with the registers in its record.
///
/// # Errors
/// If the task is gone or not frozen.
pub(crate) fn resume(id: TaskId) -> Result<(), TaskError> {
    with_task(id, Task::resume)
}

/// Ends the life of a stopped task: its stack and its slot are free for others.
///
/// # Errors
/// If the task is gone or not stopped.
pub(crate) fn retire(id: TaskId) -> Result<(), TaskError> {
    with_task(id, |task| match task.state() {
        TaskState::Frozen | TaskState::Held => task.retire(),
        state => Err(TaskError::State(state)),
    })
}

/// The handle for reading and changing a frozen task.
///
/// # Errors
/// If the task is gone or not frozen.
///
/// # Safety
/// Until the handle is gone, nobody else gets one for the same task, resumes it or retires it.
#[expect(unsafe_code, reason = "hands on the contract of `FrozenTask::new`")]
pub(crate) unsafe fn frozen(id: TaskId) -> Result<FrozenTask<'static>, TaskError> {
    with_task(id, |task| match task.state() {
        // SAFETY: a frozen task does not run and its registers are in its record, both of which
        // last (by this function's contract) as long as the handle; its stack stays mapped.
        TaskState::Frozen => Ok(unsafe { FrozenTask::new(id, task.registers(), task.stack()) }),
        state => Err(TaskError::State(state)),
    })
}

/// Hands the CPU to the tasks spawned so far. The boot code ends here.
pub(crate) fn start() -> ! {
    scheduler::spawn_idle();
    yield_now();
    unreachable!("boot code is no task, so no switch comes back to it");
}
