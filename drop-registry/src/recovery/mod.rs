//! Recovery points: a task that stops can go on behind the innermost of them, instead of dying.
//!
//! A point is an entry of the ledger, of which the release is nothing. Entries lie in the order of
//! acquisition, so what the frames below the point took is what lies above its entry, and points
//! nest. [`catch_fault`] is the task's side. [`RecoveryPoint`] is the keeper's: it gives up what
//! lies above, as [`settle`](crate::settle) and [`reclaim`](crate::reclaim) would, makes the
//! ledger that of a running task again, and puts the registers where `catch_fault` returns.
//!
//! ```text
//!   ledger                     stack, growing down
//!   ───────────────────        ───────────────────────────────────────────
//!   lock A                     … the caller, who holds A
//!   recovery point ──────────► catch_fault: callee-saved registers, RSP, …   stays
//!   ╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌        ╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌
//!   lock B, box C              the body's frames                             cut
//! ```
#![expect(unsafe_code, reason = "settles, and says where a task goes on")]

mod catch;
mod point;
#[cfg(all(test, target_os = "linux"))]
mod tests;

use core::fmt;
use core::sync::atomic::{Ordering, compiler_fence};

use task_model::{FaultInfo, FrozenTask};

use self::point::Intact;
use crate::settle::{reclaim_from, settle_from};
use crate::{Domain, Entry, Extent, Ledger, Operations, Outcome, ResourceKind, Settled, arch};

pub use catch::{Fault, catch_fault};

/// What an entry has that lists a recovery point.
static POINT: Operations =
    Operations::releasing(ResourceKind::RecoveryPoint, Extent::NOTHING, forget_point);

fn forget_point(_: &Ledger, entry: &Entry) -> Outcome {
    entry.erase();
    Outcome::Released
}

/// There is no recovery point for the task to go on behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoRecoveryPoint {
    /// It is in none.
    None,
    /// What stands on its stack for the innermost one has been written over, or does not lie above
    /// the stack pointer.
    Damaged,
}

impl fmt::Display for NoRecoveryPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "the task is in no recovery point",
            Self::Damaged => "the task's recovery point is damaged",
        })
    }
}

impl core::error::Error for NoRecoveryPoint {}

/// The innermost recovery point of a stopped task, found intact.
///
/// The three steps of a recovery are, in this order, [`settle`](Self::settle),
/// [`reclaim`](Self::reclaim) and [`land`](Self::land). Whoever takes them may die at any
/// instruction, before the task runs again: the next one [looks](Self::innermost) for the point
/// anew, after [`take_over`](crate::take_over), and takes all three from the beginning.
#[derive(Debug, Clone, Copy)]
pub struct RecoveryPoint {
    /// The number of its entry.
    entry: usize,
    point: Intact,
}

impl RecoveryPoint {
    /// Looks for the point.
    ///
    /// Of what stands on the stack nothing is believed that has been written over: then the task
    /// cannot go on. That an outer point may be intact is not looked at: the frames in between hold
    /// nothing that one could trust.
    ///
    /// # Errors
    /// If there is none, or it is damaged.
    pub fn innermost(task: &FrozenTask<'_>, ledger: &Ledger) -> Result<Self, NoRecoveryPoint> {
        let mut points = ledger.held().filter(|entry| entry.has(&POINT));
        let innermost = if planted!(OutermostCounts) { points.last() } else { points.next() };
        let entry = innermost.ok_or(NoRecoveryPoint::None)?;
        let index = ledger.index_of(entry).ok_or(NoRecoveryPoint::None)?;
        let point = Intact::read(task, entry.place().addr() as u64);
        Ok(Self { entry: index, point: point.ok_or(NoRecoveryPoint::Damaged)? })
    }

    /// The stack pointer with which the task will go on: the frames below it are cut.
    pub fn stack_pointer(&self) -> u64 {
        self.point.stack_pointer()
    }

    /// Gives up what the frames below the point hold: [`settle`](crate::settle) for the entries
    /// above its own.
    ///
    /// # Safety
    /// As [`settle`](crate::settle), but that the task may go on once it has been
    /// [landed](Self::land). This is its innermost point, as it is stopped now.
    pub unsafe fn settle(
        &self,
        task: &FrozenTask<'_>,
        ledger: &Ledger,
        domain: &Domain<'_>,
        each: impl FnMut(Settled),
    ) {
        let first = if planted!(CutTooDeep) { 0 } else { self.entry + 1 };
        // SAFETY: this function's contract. What the kept entries list is not touched.
        unsafe { settle_from(first, task, ledger, domain, each) };
    }

    /// Drops and frees what [`settle`](Self::settle) left orphaned: [`reclaim`](crate::reclaim) for
    /// the same entries.
    ///
    /// # Safety
    /// [`settle`](Self::settle) has returned, under the same conditions, which still hold.
    pub unsafe fn reclaim(&self, ledger: &Ledger, domain: &Domain<'_>, each: impl FnMut(Settled)) {
        // SAFETY: this function's contract.
        unsafe { reclaim_from(self.entry + 1, ledger, domain, each) };
    }

    /// Puts the task where its `catch_fault` returns `fault`, and makes its ledger that of a
    /// running task again. It may be resumed then.
    ///
    /// # Safety
    /// [`reclaim`](Self::reclaim) has returned, under the same conditions, which still hold. Until
    /// the task is resumed, it is settled no more but by another recovery, or for good.
    pub unsafe fn land(&self, task: &mut FrozenTask<'_>, ledger: &Ledger, fault: FaultInfo) {
        self.point.write_fault(task, fault);
        arch::land(task.registers_mut(), &self.point.saved, self.point.address());
        // From here on it stands in no window, so that the last one may be looked for again.
        compiler_fence(Ordering::SeqCst);
        let waiting = core::ptr::with_exposed_provenance_mut(self.point.waiting as usize);
        ledger.go_on_with(self.entry + 1, waiting);
    }
}
