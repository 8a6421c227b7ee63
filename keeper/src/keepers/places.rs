//! Faults where no task can answer for them: with interrupts off, in a trap handler, at boot.

use task_model::{FaultInfo, Place};

use super::Keepers;
use crate::inbox::{Cause, Notice};
use crate::{KeeperId, Platform, Policy, Report, Stopped};

impl<P: Platform> Keepers<P> {
    /// Sets who rules on a task that faults with interrupts off: in the middle of something of the
    /// kernel's that nobody was to see half done. Its own policy is not asked. Without this, it is
    /// [`policy::Panic`](crate::policy::Panic).
    #[must_use]
    pub fn with_policy_for_interrupts_off(mut self, policy: &'static dyn Policy) -> Self {
        self.for_interrupts_off = policy;
        self
    }

    /// Who is asked first about a task that stopped in this place, instead of whom it names.
    pub(super) fn policy_for(&self, place: Place) -> Option<&'static dyn Policy> {
        (place != Place::Task).then_some(self.for_interrupts_off)
    }

    /// Ends the kernel, with a full report, because of a fault in a trap handler, in the scheduler
    /// or at boot: whatever was cut short there, no keeper's task can be switched to. `stopped` is
    /// what the trap interrupted, on whatever stack; what its ledger lists is left alone.
    ///
    /// For the trap of that fault. It takes no lock and allocates nothing, but some sixteen
    /// kilobytes of the stack.
    pub fn panic_at(&self, stopped: &Stopped<'_>, fault: &FaultInfo, at: u64) -> ! {
        let mut report = Report::empty();
        let notice = Notice { task: stopped.task.id(), cause: Cause::Fault, at };
        report.begin(&notice, fault, 0, None);
        self.walk(&stopped.task, &mut report);
        report.verdict = Some(crate::Verdict::Panic);
        report.gone_at = self.platform.now();
        // No keeper has this number.
        self.remember(KeeperId::MAX as u8, &report);
        self.platform.panic(&report)
    }
}
