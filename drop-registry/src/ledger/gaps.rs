//! What becomes of the room of entries that were erased: it is given back at the end, or closed.

use core::sync::atomic::{Ordering, compiler_fence};

use super::Ledger;

/// Set in `moving` when an entry has been moved, until
/// [`OwnLedger::trim`](super::OwnLedger::trim) finds that the ledger is empty.
pub(super) const MOVED: u64 = 1 << 63;

impl Ledger {
    /// Says that all entries are where they were written: there are none.
    pub(super) fn forget_that_any_moved(&self) {
        self.moving.store(0, Ordering::Relaxed);
    }

    /// Whether an entry may not be where it was written.
    #[inline(always)]
    pub(super) fn has_moved(&self) -> bool {
        self.moving.load(Ordering::Relaxed) & MOVED != 0
    }

    /// Moves the entries down over the erased ones.
    ///
    /// For an instant an entry stands in two places. `moving` tells the keeper which of the two
    /// does not count: the lower one until its resource is written, the upper one after.
    pub(super) fn close_gaps(&self) {
        let mut to = 0;
        for from in 0..Self::CAPACITY {
            let (source, target) = (&self.entries[from], &self.entries[to]);
            if source.is_vacant() {
                continue;
            }
            if from != to {
                target
                    .operations
                    .store(source.operations.load(Ordering::Relaxed), Ordering::Relaxed);
                target.frame.store(source.frame.load(Ordering::Relaxed), Ordering::Relaxed);
                compiler_fence(Ordering::SeqCst);
                let pair = (from as u64 + 1) << 32 | (to as u64 + 1);
                self.moving.store(MOVED | pair, Ordering::Relaxed);
                compiler_fence(Ordering::SeqCst);
                target.resource.store(source.resource(), Ordering::Relaxed);
                source.erase();
                self.moving.store(MOVED, Ordering::Relaxed);
                compiler_fence(Ordering::SeqCst);
            }
            to += 1;
        }
    }

    /// Says that no entry is being moved, for a task that stopped inside `close_gaps` and comes
    /// back outside. Its copy has been erased.
    pub(super) fn forget_move(&self) {
        let moved = self.moving.load(Ordering::Relaxed) & MOVED;
        self.moving.store(moved, Ordering::Relaxed);
    }

    /// The entry that is a stale copy, because the task stopped inside `close_gaps`.
    pub(crate) fn moved_entry(&self) -> Option<usize> {
        let moving = self.moving.load(Ordering::Relaxed) & !MOVED;
        let from = (moving >> 32) as usize;
        let to = (moving & 0xffff_ffff) as usize;
        let (from, to) = (from.checked_sub(1)?, to.checked_sub(1)?);
        let (source, target) = (self.entries.get(from)?, self.entries.get(to)?);
        // A copy: what else stands in `moving` was not written by `close_gaps`.
        (source.resource() == target.resource() && from != to).then_some(from)
    }
}
