//! What a policy may do about tasks other than the one before it.

use core::fmt;

use drop_registry::Ledger;
use task_model::{FrozenTask, TaskId};

use crate::docket::OpenCase;
use crate::{PostError, Report, Token, TooLate, Verdict};

/// What a policy may have its keeper do about any task.
#[derive(Clone, Copy)]
pub struct Orders<'k>(&'k dyn Desk);

/// What a keeper does for a policy.
pub(crate) trait Desk {
    fn settle(&self, task: &FrozenTask<'_>, ledger: &Ledger, report: &mut Report);
    fn take_token(&self, open: &mut OpenCase<'_>) -> Option<Token>;
    fn keep_open(&self, open: &mut OpenCase<'_>) -> bool;
    fn answer(&self, task: TaskId, verdict: Verdict) -> Result<(), TooLate>;
    fn recall(&self, task: TaskId, ticks: u64) -> bool;
    fn kill(&self, task: TaskId) -> Result<(), PostError>;
    fn withdraw_kill(&self, task: TaskId);
    fn now(&self) -> u64;
}

impl<'k> Orders<'k> {
    pub(crate) const fn new(desk: &'k dyn Desk) -> Self {
        Self(desk)
    }

    /// The time, in the platform's ticks.
    pub fn now(&self) -> u64 {
        self.0.now()
    }

    /// Ends a task: see [`Keepers::kill`](crate::Keepers::kill).
    ///
    /// # Errors
    /// If there is no room for a task with that number.
    pub fn kill(&self, task: TaskId) -> Result<(), PostError> {
        self.0.kill(task)
    }

    /// Takes back a kill of the task that is posted, and to which its keeper has not come; one that
    /// is put off to a safepoint stays until it is due. For a policy that has the task before it
    /// anyway, since that died by itself before it was killed: what it rules now is not to be
    /// overruled by a kill that is over.
    pub fn withdraw_kill(&self, task: TaskId) {
        self.0.withdraw_kill(task);
    }

    /// Rules on a case that was [kept open](crate::Case::keep_open), or whose verdict was
    /// [deferred](crate::Case::defer); then the token comes too late.
    ///
    /// # Errors
    /// If there is no such case: the time is up, or somebody has ruled.
    pub fn answer(&self, task: TaskId, verdict: Verdict) -> Result<(), TooLate> {
        self.0.answer(task, verdict)
    }

    /// Takes back a [`RestartAfter`](Verdict::RestartAfter) whose time has not come: the case is
    /// [kept open](crate::Case::keep_open) instead, for so many ticks from now. Returns whether
    /// there was one.
    pub fn recall(&self, task: TaskId, ticks: u64) -> bool {
        self.0.recall(task, ticks)
    }
}

impl fmt::Debug for Orders<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Orders")
    }
}
