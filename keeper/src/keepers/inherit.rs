//! What becomes of what a dead keeper had in hand.
#![expect(unsafe_code, reason = "takes over what a stopped keeper was settling")]

use core::sync::atomic::{Ordering, compiler_fence};

use drop_registry::take_over;

use super::Keepers;
use crate::docket::OpenCase;
use crate::{KeeperId, Platform, Report, Stopped, Verdict};

impl<P: Platform> Keepers<P> {
    /// Takes over what the task had in hand, if it served a keeper.
    #[cold]
    pub(super) fn inherit_from(
        &self,
        keeper: KeeperId,
        stopped: &Stopped<'_>,
        report: &mut Report,
    ) {
        if let Some(dead) = self.served_by(report.task) {
            report.mark();
            self.inherit(dead, keeper, stopped, &mut report.lost_cases);
        }
    }

    /// Takes over what a keeper that is dead had in hand, so that it waits for `heir`; and notes
    /// first whether there is anything, for whoever inherits from that.
    ///
    /// Until a case is the heir's, whoever inherits from *that* does this again, from the same
    /// registers; and nobody goes on settling before. So what the dead keeper did last is set right
    /// once, or twice with nothing in between.
    fn inherit(
        &self,
        dead: KeeperId,
        heir: KeeperId,
        keeper_task: &Stopped<'_>,
        lost_cases: &mut bool,
    ) {
        // It may have died between letting a case wait and saying so.
        self.docket.announce();
        for open in self.docket.left_by(dead) {
            *lost_cases = true;
            compiler_fence(Ordering::SeqCst);
            // What is to be resumed has not been settled, and may have been resumed; and what
            // recovered may have come to another fault. SAFETY: as in `leave_case`; the reference
            // is gone at once.
            let faults = unsafe { open.record() }.faults;
            let runs = |task| match open.verdict() {
                Some(Verdict::Resume) => true,
                Some(Verdict::Recover) => self.inbox.faults(task) != faults,
                _ => false,
            };
            if !open.task().is_some_and(runs)
                && let Some(task) = open.task()
                && let Ok(stopped) = self.platform.seize(task)
            {
                // SAFETY: the settler is stopped for good: it is not resumed once it has lost a
                // case (`Refusal::CaseLost`). It was the last to have the case.
                unsafe { take_over(&keeper_task.task, stopped.ledger, &self.domain) };
            }
            self.leave_case(open, heir);
        }
        self.docket.announce();
    }

    /// Gives the case of a keeper that does no more about it to `heir`.
    pub(super) fn leave_case(&self, open: OpenCase<'_>, heir: KeeperId) {
        if open.task().is_none() {
            // Its notice is posted still.
            self.close(open);
            return;
        }
        // SAFETY: the keeper that had it is frozen, or has come out of it, and the case is given to
        // nobody else before `leave_to`: one keeper alone inherits from another.
        let report = unsafe { open.record() };
        report.inherited();
        if report.keepers.is_empty() && open.verdict().is_none() {
            // It may have died before it took the notice away that it opened the case for; and
            // since nobody has been asked, this is no later one.
            self.inbox.done(report.task, report.cause, heir);
        }
        open.leave_to(heir);
    }
}
