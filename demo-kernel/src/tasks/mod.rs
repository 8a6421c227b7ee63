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

use drop_registry::Ledger;
use keeper::{KeeperId, Stopped};
use task_model::{FaultInfo, TaskId, TaskState};

use crate::interrupts::without_interrupts;
use crate::{cpu, keeping, timer, traps};

pub(crate) use park_and_sleep::{park, sleep_ticks, unpark};
pub(crate) use spawn::{Spawn, SpawnError, restart};
pub(crate) use table::CAPACITY;
pub(crate) use task::{Class, PanicNote, Task};
pub(crate) use traps::{exit as exit_current, yield_now};

/// Why an operation on another task was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TaskError {
    /// The id names no life, or one that is over.
    Stale,
    /// It is the root keeper, whom nobody keeps.
    Root,
    /// The task is in a state from which this cannot be done.
    State(TaskState),
}

impl fmt::Display for TaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => write!(f, "the root keeper cannot be killed"),
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

/// Whether the task that calls runs before all normal ones.
pub(crate) fn is_urgent() -> bool {
    cpu::current_task().and_then(Task::life).is_some_and(|life| life.class == Class::Urgent)
}

/// The ledgers of all tasks that run, could run or wait. The ids are right for as long as none of
/// them ends.
pub(crate) fn ledgers() -> impl Iterator<Item = (TaskId, &'static Ledger)> {
    let lives = |state| matches!(state, TaskState::Ready | TaskState::Running | TaskState::Blocked);
    table::slots().iter().filter(move |task| lives(task.state())).map(Task::id_and_ledger)
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

/// Whether the task's ledger lists anything: stale at once, unless the task is stopped.
///
/// # Errors
/// [`TaskError::Stale`]
pub(crate) fn holds_anything(id: TaskId) -> Result<bool, TaskError> {
    with_task(id, |task| Ok(task.holds_anything()))
}

/// What the task said when it panicked, if it did.
///
/// # Errors
/// [`TaskError::Stale`]
pub(crate) fn panic_note(id: TaskId) -> Result<Option<&'static PanicNote>, TaskError> {
    with_task(id, |task| Ok(task.panic_note()))
}

/// Stops the task where it is, as a fault of kind [`Killed`](task_model::FaultKind::Killed).
///
/// A task that kills itself does not come back from this, unless it is resumed.
///
/// # Errors
/// If the task is gone, or stopped already.
pub(crate) fn kill(id: TaskId) -> Result<(), TaskError> {
    if keeping::served_by(id) == Some(KeeperId::ROOT) {
        return Err(TaskError::Root);
    }
    if current() == Some(id) {
        traps::killed();
        return Ok(());
    }
    with_task(id, |task| {
        let fault = FaultInfo::killed(task.saved_instruction_pointer());
        task.freeze(fault)?;
        keeping::task_faulted(id, fault, timer::now());
        Ok(())
    })?;
    // The keeper goes first: whoever waits for what the task held need not wait for a tick.
    yield_now();
    Ok(())
}

/// Has the task stop at its next safepoint.
///
/// # Errors
/// If it is gone.
pub(crate) fn pull_kill_switch(id: TaskId) -> Result<(), TaskError> {
    with_task(id, |task| {
        task.pull_kill_switch();
        Ok(())
    })
}

/// Stops a task where it stands, for a reason of its keeper's that `fault` makes a fault of.
///
/// # Errors
/// If the task is gone, or stopped already.
pub(crate) fn freeze_as(
    id: TaskId,
    fault: impl FnOnce(u64) -> FaultInfo,
) -> Result<FaultInfo, TaskError> {
    with_task(id, |task| {
        let fault = fault(task.saved_instruction_pointer());
        task.freeze(fault)?;
        Ok(fault)
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

/// Stops the task, if it has not stopped yet, for its keeper.
///
/// # Safety
/// Until the value is gone, nobody else seizes the same task, resumes it or retires it.
///
/// # Errors
/// If the task is gone.
#[expect(unsafe_code, reason = "hands on the contract of `Task::stopped`")]
pub(crate) unsafe fn seize(id: TaskId) -> Result<Stopped<'static>, TaskError> {
    with_task(id, |task| {
        if !task.is_stopped() {
            task.freeze(FaultInfo::killed(task.saved_instruction_pointer()))?;
        }
        // SAFETY: it is frozen or held now, and this function's contract keeps it so.
        unsafe { task.stopped() }.ok_or(TaskError::Stale)
    })
}

/// Keeps a frozen task as a corpse.
///
/// # Errors
/// If the task is gone or not frozen.
pub(crate) fn hold(id: TaskId) -> Result<(), TaskError> {
    with_task(id, |task| match task.state() {
        TaskState::Held => Ok(()),
        _ => task.become_state(TaskState::Held),
    })
}

/// Hands the CPU to the tasks spawned so far. The boot code ends here.
pub(crate) fn start() -> ! {
    scheduler::spawn_idle();
    yield_now();
    unreachable!("boot code is no task, so no switch comes back to it");
}
