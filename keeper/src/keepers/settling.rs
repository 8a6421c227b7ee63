//! What is done for every task that dies: its locks and counts are freed, and its frames named.
#![expect(unsafe_code, reason = "settles tasks that the platform has stopped")]

use core::sync::atomic::{Ordering, compiler_fence};

use drop_registry::{Ledger, settle};
use task_model::{FaultKind, FrozenTask};

use super::Keepers;
use crate::unwind::{ImageRules, Walk};
use crate::{Platform, Report};

/// The most frames that are looked at to find whose a resource is.
const DEEPEST: usize = 4096;

impl<P: Platform> Keepers<P> {
    /// Frees locks and counts, tells the task's peers, and names the frames. In this order, since
    /// whoever waits for a lock need not wait for frames to be counted.
    pub(super) fn settle_and_walk(
        &self,
        task: &FrozenTask<'_>,
        ledger: &Ledger,
        report: &mut Report,
    ) {
        if !report.settled {
            report.mark();
            // SAFETY: `Platform::seize`: the task is stopped, the ledger is its own, and only the
            // keeper that has its case settles it; a settled task is not resumed, and every other
            // verdict ends this life of it. What it holds is alive: guards borrow their locks,
            // shares keep their blocks, boxes own theirs.
            unsafe {
                settle(task, ledger, &self.domain, |done| report.note_settled(done));
            }
            report.settled_at = self.platform.now();
            report.reclaimed_at = report.settled_at;
            // All that was done and told of is written before this, should the keeper die.
            compiler_fence(Ordering::SeqCst);
            report.settled = true;
            compiler_fence(Ordering::SeqCst);
        }
        if !report.peers_told {
            self.tell_peers_of(report.task, report.fault.kind);
            report.peers_told = true;
        }
        if !report.walked {
            if report.fault.kind == FaultKind::Panicked
                && let Some(message) = self.platform.panic_message(report.task)
            {
                report.note_message(message);
            }
            self.walk(task, report);
            report.walked = true;
        }
    }

    /// Names the frames, and the frame of each resource.
    pub(super) fn walk(&self, task: &FrozenTask<'_>, report: &mut Report) {
        report.registers = Some(task.registers().into());
        let mut rules = ImageRules::new(&self.images);
        let mut walk = Walk::new(task.registers(), task, &mut rules)
            .stopped_by(&report.fault)
            .max_frames(DEEPEST);
        // Frames beyond the report's room are walked all the same: a resource may be theirs.
        let mut depth = 0;
        report.walk_end = walk.run(|frame, _| {
            report.note_frame(depth, *frame, || self.images.landing(frame.address));
            depth += 1;
        });
    }
}
