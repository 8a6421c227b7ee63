//! What a policy sees of a stopped task, and what it may do before it rules.

use core::fmt;

use drop_registry::Ledger;
use task_model::{FaultInfo, FrozenTask, TaskId};

use crate::docket::OpenCase;
use crate::orders::Desk;
use crate::{KeeperId, Orders, PostError, Report, Token};

/// A stopped task before its keeper.
///
/// Nothing that the task holds has been given up yet. As long as that is so, the task can be mended
/// and [resumed](crate::Verdict::Resume). Whoever knows that it is dead calls
/// [`settle`](Self::settle), and sees then its frames and what became of what they held; if it is
/// not called, it is done after the verdict.
///
/// ```
/// use keeper::{Case, Policy, Verdict};
/// use task_model::FaultKind;
///
/// /// Maps what is missing, and restarts whom that does not help.
/// #[derive(Debug)]
/// struct Pager;
///
/// impl Policy for Pager {
///     fn rule(&self, case: &mut Case<'_>) -> Verdict {
///         match (case.fault().kind, case.fault().address) {
///             (FaultKind::PageFault, Some(address)) if map(address) => Verdict::Resume,
///             _ if case.settle().resources.is_empty() => Verdict::Exit,
///             _ => Verdict::Restart,
///         }
///     }
/// }
/// # fn map(_: u64) -> bool { false }
/// ```
pub struct Case<'c> {
    pub(crate) task: FrozenTask<'c>,
    pub(crate) ledger: &'c Ledger,
    pub(crate) restarts: u32,
    pub(crate) report: &'c mut Report,
    pub(crate) open: OpenCase<'c>,
    /// How long the token may be used, if one was taken.
    pub(crate) deferred_for: Option<u64>,
    pub(crate) desk: &'c dyn Desk,
}

impl<'c> Case<'c> {
    /// The task.
    #[inline]
    pub fn task(&self) -> TaskId {
        self.report.task
    }

    /// Why it stopped.
    #[inline]
    pub fn fault(&self) -> &FaultInfo {
        &self.report.fault
    }

    /// How often it has been restarted.
    pub fn restarts(&self) -> u32 {
        self.restarts
    }

    /// The keeper that asks.
    pub fn keeper(&self) -> KeeperId {
        self.open.keeper()
    }

    /// The time, in the platform's ticks.
    pub fn now(&self) -> u64 {
        self.desk.now()
    }

    /// The task itself: its registers and its stack, to be read and changed.
    #[inline]
    pub fn frozen(&mut self) -> &mut FrozenTask<'c> {
        &mut self.task
    }

    /// What has been written of the report: before the task is [settled](Self::settle), the fault
    /// alone.
    pub fn report(&self) -> &Report {
        self.report
    }

    /// Gives up what the task holds, so that whoever waits for it waits no longer, and names its
    /// frames. After this the task cannot be resumed.
    ///
    /// Another time it does nothing but show the report.
    pub fn settle(&mut self) -> &Report {
        self.desk.settle(&self.task, self.ledger, self.report);
        self.report
    }

    /// Takes out the token of this case, by which the verdict can be given later, by anybody,
    /// within so many ticks. The policy then returns
    /// [`Verdict::Deferred`](crate::Verdict::Deferred).
    ///
    /// `None` if it has been taken out before, or if as many cases are deferred as there was to be
    /// room for.
    pub fn defer(&mut self, ticks: u64) -> Option<Token> {
        let token = self.desk.take_token(&mut self.open)?;
        self.deferred_for = Some(ticks);
        Some(token)
    }

    /// As [`defer`](Self::defer), for a policy that means to answer by itself, with
    /// [`Orders::answer`], when it rules on another task, or is told of one's end. Returns whether
    /// it may.
    pub fn keep_open(&mut self, ticks: u64) -> bool {
        let deferring = self.desk.keep_open(&mut self.open);
        if deferring {
            self.deferred_for = Some(ticks);
        }
        deferring
    }

    /// What can be done about other tasks.
    pub fn orders(&self) -> Orders<'c> {
        Orders::new(self.desk)
    }

    /// Ends another task: see [`Keepers::kill`](crate::Keepers::kill).
    ///
    /// # Errors
    /// If there is no room for a task with that number.
    pub fn kill(&self, task: TaskId) -> Result<(), PostError> {
        self.desk.kill(task)
    }
}

impl fmt::Debug for Case<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Case").field("task", &self.task()).finish_non_exhaustive()
    }
}
