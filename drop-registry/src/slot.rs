//! A place that keeps a share beyond the task that put it there.
#![expect(unsafe_code, reason = "owns a counted pointer")]

use core::fmt;
use core::marker::PhantomData;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use crate::arch;
use crate::shared::Counted;
use crate::{LedgerFull, Shared, TrackedHeap};

/// A place, in a structure or a static, that can own one share of a [`Shared`].
///
/// The hand-over is one instruction in a window: whenever the task stops, either it owns the
/// share or the slot does. A slot in shared memory stands behind a lock, as any value does; it is
/// one word, so that it cannot be torn.
pub struct Slot<T, L: TrackedHeap> {
    block: AtomicPtr<Counted<T>>,
    context: PhantomData<(fn() -> L, T)>,
}

// SAFETY: what it owns may be used and dropped by any task, as for `Arc`.
unsafe impl<T: Send + Sync, L: TrackedHeap> Send for Slot<T, L> {}
// SAFETY: as above.
unsafe impl<T: Send + Sync, L: TrackedHeap> Sync for Slot<T, L> {}
// SAFETY: every change is a single store of one word, and an empty slot is valid.
unsafe impl<T: Send + Sync, L: TrackedHeap> crate::DropAfterTear for Slot<T, L> {}

impl<T, L: TrackedHeap> Slot<T, L> {
    /// An empty slot.
    pub const fn new() -> Self {
        Self { block: AtomicPtr::new(ptr::null_mut()), context: PhantomData }
    }

    /// Hands `share` over to the slot.
    ///
    /// # Errors
    /// If the slot owns one already; the share comes back.
    pub fn put(&self, share: Shared<T, L>) -> Result<(), Shared<T, L>> {
        // SAFETY: `CurrentLedger`, and the share is not `Send`.
        let ledger = unsafe { L::current().as_ref() };
        let block = Shared::block(&share);
        let entry = share.counted_entry(ledger);
        // SAFETY: the word of an `AtomicPtr`, seen as a number: same size, same alignment.
        let word = unsafe { AtomicU64::from_ptr(self.block.as_ptr().cast()) };
        let address = block.as_ptr().expose_provenance() as u64;
        // SAFETY: once the slot holds the pointer it owns the share, and the task does not. The
        // locked exchange publishes the block to whoever reads the slot with Acquire.
        if unsafe { arch::exchange(word, 0, address, entry) } {
            ledger.trim();
            core::mem::forget(share);
            Ok(())
        } else {
            Err(share)
        }
    }

    /// Takes the share out.
    ///
    /// # Errors
    /// If the task's ledger is full; the slot keeps its share then.
    #[inline(always)]
    pub fn take(&mut self) -> Result<Option<Shared<T, L>>, LedgerFull> {
        let Some(block) = NonNull::new(*self.block.get_mut()) else { return Ok(None) };
        // SAFETY: `CurrentLedger`: the ledger is this task's.
        let ledger = unsafe { L::current().as_ref() };
        let depth = ledger.room()?;
        let place: *mut *mut () = self.block.as_ptr().cast();
        // SAFETY: `&mut self` is the only way to the slot, which owns a share of the block; after
        // the window the task does, and its ledger says so.
        unsafe {
            arch::adopt(
                place,
                block.as_ptr().cast(),
                Shared::<T, L>::SHARE,
                ledger,
                depth,
                arch::frame_address(),
            );
            Ok(Some(Shared::from_recorded(block)))
        }
    }

    /// Another share of what the slot owns.
    ///
    /// # Errors
    /// If the task's ledger is full.
    #[inline(always)]
    pub fn share(&self) -> Result<Option<Shared<T, L>>, LedgerFull> {
        // Acquire pairs with the exchange in `put`.
        let Some(block) = NonNull::new(self.block.load(Ordering::Acquire)) else {
            return Ok(None);
        };
        // SAFETY: the slot owns a share, and taking it out needs `&mut self`.
        unsafe { Shared::share_of(block) }.map(Some)
    }
}

impl<T, L: TrackedHeap> Default for Slot<T, L> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T, L: TrackedHeap> Drop for Slot<T, L> {
    /// # Panics
    /// If the slot owns a share and the task's ledger is full.
    fn drop(&mut self) {
        drop(self.take().expect("room in the ledger for the share of a dropped slot"));
    }
}

impl<T, L: TrackedHeap> fmt::Debug for Slot<T, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Slot").field(&self.block.load(Ordering::Relaxed)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{TestTask, kill, on_fresh_ledger};

    #[test]
    fn what_is_put_away_outlives_its_task() {
        let mut slot = Slot::<u32, TestTask>::new();
        assert!(kill(|| slot.put(Shared::new(9).unwrap()).unwrap()).is_empty());
        on_fresh_ledger(|ledger| {
            let share = slot.share().unwrap().unwrap();
            assert_eq!((*share, Shared::count(&share)), (9, 2));
            let other = slot.take().unwrap().unwrap();
            assert_eq!((Shared::count(&other), ledger.len()), (2, 2));
            assert!(slot.take().unwrap().is_none());
        });
    }

    #[test]
    fn an_occupied_slot_gives_the_share_back() {
        on_fresh_ledger(|ledger| {
            let slot = Slot::<u32, TestTask>::new();
            slot.put(Shared::new(1).unwrap()).unwrap();
            let back = slot.put(Shared::new(2).unwrap()).unwrap_err();
            assert_eq!((*back, ledger.len()), (2, 1));
        });
    }
}
