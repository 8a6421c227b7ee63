//! Ending tasks: at once, or where they allow it.

use task_model::TaskId;

use super::Keepers;
use crate::inbox::Cause;
use crate::{Platform, PostError, Stopped};

impl<P: Platform> Keepers<P> {
    /// Sets how many ticks a [`NoKill`](drop_registry::NoKill) section may hold up a kill. Without
    /// this it is a hundred million: some thirty milliseconds of a time-stamp counter.
    #[must_use]
    pub fn with_longest_no_kill(mut self, ticks: u64) -> Self {
        self.longest_no_kill = ticks;
        self
    }

    /// Ends `task`, whatever it is doing: at whatever instruction it has come to when its keeper
    /// stops it. If that is inside of a [`NoKill`](drop_registry::NoKill) section, at the end of
    /// it, or as soon as the section has taken [too long](Self::with_longest_no_kill).
    ///
    /// # Errors
    /// As [`post`](Self::post). That the task is already gone shows only when its keeper
    /// [serves](crate::Seat::serve) the notice.
    pub fn kill(&self, task: TaskId) -> Result<(), PostError> {
        self.request(task, Cause::Kill)
    }

    /// Ends `task` at its next [safepoint](drop_registry::safepoint), or after so many ticks at
    /// whatever instruction it has come to then.
    ///
    /// # Errors
    /// As [`kill`](Self::kill).
    pub fn kill_at_safepoint(&self, task: TaskId, within: u64) -> Result<(), PostError> {
        self.keeper_for(task)?;
        let now = self.platform.now();
        self.inbox.put_off_kill(task, now, now.saturating_add(within));
        self.platform.pull_kill_switch(task);
        Ok(())
    }

    /// Lets go of a task that was [held](crate::Verdict::Hold): frees its memory and retires it.
    ///
    /// # Errors
    /// As [`kill`](Self::kill).
    pub fn release(&self, task: TaskId) -> Result<(), PostError> {
        self.request(task, Cause::Release)
    }

    fn request(&self, task: TaskId, cause: Cause) -> Result<(), PostError> {
        let keeper = self.keeper_for(task)?;
        self.inbox.ask(task, cause, self.platform.now(), keeper)?;
        self.announced(task, keeper);
        Ok(())
    }

    /// Kills those that were to die by now.
    pub(super) fn kill_overdue(&self, now: u64) {
        for task in self.inbox.due_kills(now) {
            if self.kill(task).is_err() {
                self.inbox.kill_is_over(task);
            }
        }
    }

    /// Gives a task back that is to be killed, if it is in a section where that must wait, and says
    /// whether it is.
    pub(super) fn spare(&self, stopped: &mut Stopped<'_>) -> bool {
        let task = stopped.task.id();
        let now = self.platform.now();
        let in_time = self.inbox.kill_due(task).is_none_or(|due| now < due);
        if stopped.ledger.no_kill_depth() == 0 || !in_time {
            return false;
        }
        self.inbox.put_off_kill(task, now, now.saturating_add(self.longest_no_kill));
        self.platform.pull_kill_switch(task);
        self.platform.resume(stopped.reborrow());
        true
    }
}
