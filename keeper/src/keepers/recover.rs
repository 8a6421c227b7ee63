//! Bringing a task back to its innermost recovery point.
#![expect(unsafe_code, reason = "settles and changes tasks that the platform has stopped")]

use core::sync::atomic::{Ordering, compiler_fence};

use drop_registry::RecoveryPoint;

use super::Keepers;
use crate::report::Recovery;
use crate::{Platform, Refusal, Report, Stopped, Verdict};

impl<P: Platform> Keepers<P> {
    /// Why the task cannot be recovered, if it cannot.
    pub(super) fn refusal_to_recover(stopped: &Stopped<'_>, report: &Report) -> Option<Refusal> {
        if report.recovery == Recovery::Landed {
            // It has been, by a keeper that died then. It may be in no point any more.
            return None;
        }
        if report.settled {
            return Some(Refusal::Settled);
        }
        let point = RecoveryPoint::innermost(&stopped.task, stopped.ledger);
        point.is_err().then_some(Refusal::NoRecoveryPoint)
    }

    /// Gives up what the task acquired since its innermost recovery point, and has it go on there.
    ///
    /// A keeper that dies in the middle leaves a task that is still stopped, and whoever goes on
    /// with the case begins here again; after [`Recovery::Landing`] without the walk, since the
    /// registers tell of the fault no more, and after [`Recovery::Landed`] with nothing but the
    /// resume.
    pub(super) fn recover(&self, mut stopped: Stopped<'_>, report: &mut Report) {
        report.mark();
        // Whether there is one was asked before, and only this keeper has had the task since.
        // Should the point have been written over all the same, the task meets its fault again.
        if report.recovery != Recovery::Landed
            && let Ok(point) = RecoveryPoint::innermost(&stopped.task, stopped.ledger)
        {
            self.cut(&point, &stopped, report);
            // SAFETY: what is above the point has been given up, and nobody but this keeper has the
            // task until it is resumed.
            unsafe { point.land(&mut stopped.task, stopped.ledger, report.fault) };
            report.recovered_to = Some(point.stack_pointer());
            advance(report, Recovery::Landed);
        }
        report.verdict = Some(Verdict::Recover);
        self.platform.resume(stopped);
    }

    /// Gives up what is above the point, locks and counts first, and names the frames.
    fn cut(&self, point: &RecoveryPoint, stopped: &Stopped<'_>, report: &mut Report) {
        if report.recovery == Recovery::Landing {
            return;
        }
        let Stopped { task, ledger, .. } = stopped;
        // SAFETY: as in `settle_and_walk`, but that the task goes on: behind the point, after
        // `land`. Until then this keeper has it, or whoever inherits its case and begins again.
        unsafe { point.settle(task, ledger, &self.domain, |done| report.note_settled(done)) };
        report.settled_at = self.platform.now();
        self.walk(task, report);
        report.walked = true;
        // SAFETY: it has been settled, in this stop of the task.
        unsafe { point.reclaim(ledger, &self.domain, |done| report.note_reclaimed(done)) };
        report.reclaimed_at = self.platform.now();
        advance(report, Recovery::Landing);
    }
}

/// Notes how far it has come, after all that was written before, and before all that will be.
fn advance(report: &mut Report, recovery: Recovery) {
    compiler_fence(Ordering::SeqCst);
    report.recovery = recovery;
    compiler_fence(Ordering::SeqCst);
}
