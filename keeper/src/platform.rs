//! What an embedder provides.
#![expect(unsafe_code, reason = "declares an unsafe trait")]

use core::fmt;

use drop_registry::Ledger;
use task_model::{FrozenTask, TaskId};

use crate::{Policy, Report};

/// A task in the keeper's hands: stopped, and with everything that is needed to rule on it.
#[derive(Debug)]
pub struct Stopped<'a> {
    /// Its registers and its stack.
    pub task: FrozenTask<'a>,
    /// What it holds.
    pub ledger: &'a Ledger,
    /// Who rules on it; `None` for the keeper's default. A task whose policy
    /// [rules on exits](Policy::rules_on_exits) is stopped and posted when its entry returns, too.
    pub policy: Option<&'static dyn Policy>,
    /// How often it has been restarted.
    pub restarts: u32,
}

impl Stopped<'_> {
    /// The same, for the platform: whoever gives this away uses the original no more.
    #[inline]
    pub(crate) const fn reborrow(&mut self) -> Stopped<'_> {
        Stopped { task: self.task.reborrow(), ..*self }
    }
}

/// There is no such task: the id is stale, or its task has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoSuchTask(pub TaskId);

impl fmt::Display for NoSuchTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "there is no task {}", self.0)
    }
}

impl core::error::Error for NoSuchTask {}

/// The task cannot be restarted: it comes back, to be retired.
#[derive(Debug)]
pub struct CannotRestart<'a>(pub Stopped<'a>);

/// The kernel as its keeper sees it.
///
/// Keepers call these from their own tasks, on their own stacks; `wake` and `now` are called in
/// traps, too. `seize`, `resume`, `pull_kill_switch`, `wake` and `now` are in the fault path: they
/// must not allocate, take a lock that a kept task can hold, or wait for a kept task to do anything
/// but stop. The others may do what the kernel's own task management does. A keeper may die in any
/// of them, and the one above it starts over with `seize`: so each must have happened or not, to
/// whoever looks at it from outside.
///
/// Of a task that ends by itself while it holds nothing, and so is not posted, the platform
/// [tells](crate::Keepers::finished).
///
/// # Safety
/// - A task that `seize` has returned executes no instruction until it is given back to `resume` or
///   `restart`, or, as the keeper has declined to rule, is seized again; one that is given to
///   `retire` or `hold` executes none ever again. `seize` returns only after the freeze is
///   acknowledged: the task's writes are visible to the caller, and its registers are all in its
///   register file.
/// - [`Stopped::task`] meets the contract of [`FrozenTask::new`] if no other [`Stopped`] of that
///   task is used any more, and [`Stopped::ledger`] is the ledger that `CurrentLedger` gives to
///   that very task. (Keepers see to it that one of them has a task at a time, as long as the
///   platform seizes tasks for nobody else.)
/// - `retire` and `restart` unmap or reuse the stack only once nothing that was lent from it can
///   be reached, and [reset](Ledger::reset) the ledger before another task gets it.
pub unsafe trait Platform {
    /// The time, in ticks of the platform's choice: the unit of all times in a
    /// [`Report`](crate::Report).
    fn now(&self) -> u64;

    /// Stops `task`, wherever it is, and takes hold of it; one that has stopped already, by a
    /// fault or because it is held, is taken hold of as it is.
    ///
    /// # Errors
    /// If there is no such task.
    fn seize(&self, task: TaskId) -> Result<Stopped<'_>, NoSuchTask>;

    /// Lets the task go on with the registers that it has now.
    fn resume(&self, stopped: Stopped<'_>);

    /// Ends the task for good. Its slot may be used again, under the next generation.
    fn retire(&self, stopped: Stopped<'_>);

    /// Begins the task again from its entry, on a fresh stack, under the next generation.
    ///
    /// # Errors
    /// If it cannot be: it comes back as it was.
    fn restart<'a>(&'a self, stopped: Stopped<'a>) -> Result<TaskId, CannotRestart<'a>>;

    /// Keeps the task as a corpse, to be looked at, until it is seized again.
    fn hold(&self, stopped: Stopped<'_>);

    /// What `task`, which has stopped because it panicked, said, and where. It is for the report:
    /// without it, that has the frames alone.
    fn panic_message(&self, task: TaskId) -> Option<&str> {
        let _ = task;
        None
    }

    /// Has `task` stop at its next [safepoint](drop_registry::safepoint): makes
    /// [`KillSwitch::is_pulled`](drop_registry::KillSwitch::is_pulled) true for that life of it. If
    /// a platform has no such thing, it does nothing, and the kill waits until it is due.
    fn pull_kill_switch(&self, task: TaskId) {
        let _ = task;
    }

    /// Makes a keeper's task run soon, if it sleeps because it had nothing to
    /// [serve](crate::Seat::serve); or a task that [watches](crate::Keepers::monitor) another one,
    /// if it sleeps. A wake-up that comes before it sleeps must not be lost.
    fn wake(&self, task: TaskId);

    /// Ends the kernel, because of what is reported.
    fn panic(&self, report: &Report) -> !;
}
