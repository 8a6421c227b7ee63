//! A place that keeps something beyond the task that put it there.
#![expect(unsafe_code, reason = "owns what is handed over")]

use core::fmt;
use core::marker::PhantomData;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};

use crate::hand_over::{self, HandOver};
use crate::{LedgerFull, Shared, TrackedHeap, arch};

/// A place, in a structure or a static, that can own one `H`: a [`Shared`], a
/// [`TrackedBox`](crate::TrackedBox) or an [`Obligation`](crate::Obligation).
///
/// The hand-over is one instruction in a window: whenever the task stops, either it owns the
/// thing or the slot does. A slot in shared memory stands behind a lock, as any value does; it is
/// one word, so that it cannot be torn.
///
/// ```
/// # use core::ptr::NonNull;
/// # use drop_registry::{CurrentLedger, Heap, HeapMemory, Ledger, Slot, TrackedBox, TrackedHeap};
/// # struct Kernel;
/// # static LEDGER: Ledger = Ledger::new();
/// # // SAFETY: one task, one ledger.
/// # unsafe impl CurrentLedger for Kernel {
/// #     fn current() -> NonNull<Ledger> { NonNull::from(&LEDGER) }
/// # }
/// # static MEMORY: HeapMemory<4> = HeapMemory::new();
/// # static HEAP: Heap = Heap::new(&MEMORY);
/// # impl TrackedHeap for Kernel { fn heap() -> &'static Heap { &HEAP } }
/// struct Device {
///     buffer: Slot<TrackedBox<[u8; 64], Kernel>>,
/// }
///
/// let mut device = Device { buffer: Slot::new() };
/// // From here on the buffer is the device's, and the death of its giver does not free it.
/// device.buffer.put(TrackedBox::new([7; 64]).unwrap()).expect("an empty slot");
/// let taken = device.buffer.take().unwrap().expect("the buffer");
/// assert_eq!(taken[3], 7);
/// ```
pub struct Slot<H: HandOver> {
    /// What `HandOver` makes of it, or 0. `Send` and `Sync` as a number is: what is handed over
    /// may be any task's.
    word: AtomicU64,
    /// Invariant in `H`: what is put in by a borrow of the slot comes out as what the slot is of.
    context: PhantomData<fn(H) -> H>,
}

// SAFETY: every change through a shared reference is a single store of one word, and an empty slot
// is valid.
unsafe impl<H: HandOver> crate::DropAfterTear for Slot<H> {}

impl<H: HandOver> Slot<H> {
    /// An empty slot.
    pub const fn new() -> Self {
        Self { word: AtomicU64::new(0), context: PhantomData }
    }

    /// Hands `item` over to the slot.
    ///
    /// # Errors
    /// If the slot owns one already; the item comes back.
    ///
    /// # Panics
    /// If the item is a share of a value that has 2^63 of them.
    pub fn put(&self, item: H) -> Result<(), H> {
        // SAFETY: once the slot holds the word it owns the item, and the task does not. The
        // locked exchange publishes the item to whoever reads the slot with Acquire.
        hand_over::give(item, |word, entry| unsafe { arch::exchange(&self.word, 0, word, entry) })
    }

    /// Takes out what the slot owns.
    ///
    /// # Errors
    /// If the task's ledger is full; the slot keeps it then.
    #[inline(always)]
    pub fn take(&mut self) -> Result<Option<H>, LedgerFull> {
        let frame = arch::frame_address();
        let word = *self.word.get_mut();
        if word == 0 {
            return Ok(None);
        }
        let place: *mut *mut () = self.word.as_ptr().cast();
        // SAFETY: `&mut self` is the only way to the slot, which owns the item of this word; after
        // the window the task does, and its ledger says so.
        unsafe {
            hand_over::take(word, |resource, operations, at| {
                arch::adopt(place, resource, operations, at, frame);
                true
            })
        }
    }

    /// Whether the slot owns nothing: stale at once, unless the slot is the caller's alone.
    pub fn is_empty(&self) -> bool {
        self.word.load(Ordering::Relaxed) == 0
    }
}

impl<T: Send + Sync, L: TrackedHeap> Slot<Shared<T, L>> {
    /// Another share of what the slot owns.
    ///
    /// # Errors
    /// If the task's ledger is full.
    #[inline(always)]
    pub fn share(&self) -> Result<Option<Shared<T, L>>, LedgerFull> {
        // Acquire pairs with the exchange in `put`. The word of a share is the block's address.
        let address = self.word.load(Ordering::Acquire) as usize;
        let Some(block) = NonNull::new(core::ptr::with_exposed_provenance_mut(address)) else {
            return Ok(None);
        };
        // SAFETY: the slot owns a share, and taking it out needs `&mut self`.
        unsafe { Shared::share_of(block) }.map(Some)
    }
}

impl<H: HandOver> Default for Slot<H> {
    fn default() -> Self {
        Self::new()
    }
}

impl<H: HandOver> Drop for Slot<H> {
    /// # Panics
    /// If the slot owns something and the task's ledger is full.
    fn drop(&mut self) {
        drop(self.take().expect("room in the ledger for what a dropped slot owns"));
    }
}

impl<H: HandOver> fmt::Debug for Slot<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot").field("is_empty", &self.is_empty()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{TestTask, kill, on_fresh_ledger};
    use crate::{DropAfterTear, Ledger, Obligation, Outcome, TrackedBox, Undo};
    use core::sync::atomic::{AtomicBool, AtomicU64};

    type Shares<T> = Slot<Shared<T, TestTask>>;
    type Boxes<T> = Slot<TrackedBox<T, TestTask>>;

    #[test]
    fn what_is_put_away_outlives_its_task() {
        let mut slot = Shares::<u32>::new();
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
            let slot = Shares::<u32>::new();
            slot.put(Shared::new(1).unwrap()).unwrap();
            let back = slot.put(Shared::new(2).unwrap()).unwrap_err();
            assert_eq!((*back, ledger.len()), (2, 1));
        });
    }

    #[test]
    fn a_clone_that_is_handed_over_is_counted() {
        on_fresh_ledger(|ledger| {
            let mut slot = Shares::<u32>::new();
            let first = Shared::new(1).unwrap();
            slot.put(first.try_clone().unwrap()).unwrap();
            assert_eq!((Shared::count(&first), ledger.len()), (2, 1));
            drop(first);
            assert_eq!(*slot.take().unwrap().unwrap(), 1);
            assert!(ledger.is_empty());
        });
    }

    /// Counts its drops, and promises to bear a tear.
    struct Counts(&'static AtomicU64);
    impl Drop for Counts {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    // SAFETY: one pointer, never reassigned.
    unsafe impl DropAfterTear for Counts {}

    #[test]
    fn a_box_keeps_its_promise_over_a_hand_over() {
        static DROPS: AtomicU64 = AtomicU64::new(0);
        let mut slot = Slot::<TrackedBox<Counts, TestTask>>::new();
        for (droppable, outcome) in [(true, Outcome::Reclaimed), (false, Outcome::Quarantined)] {
            let make = if droppable { TrackedBox::new_droppable } else { TrackedBox::new };
            let gone = kill(|| assert!(slot.put(make(Counts(&DROPS)).unwrap()).is_ok()));
            assert!(gone.is_empty());
            let gone = kill(|| core::mem::forget(slot.take().unwrap().unwrap()));
            assert_eq!(gone, [Outcome::Orphaned, outcome]);
        }
        assert_eq!(DROPS.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn what_a_dropped_slot_owns_is_dropped() {
        static DROPS: AtomicU64 = AtomicU64::new(0);
        on_fresh_ledger(|ledger| {
            let slot = Slot::<TrackedBox<Counts, TestTask>>::new();
            assert!(slot.put(TrackedBox::new(Counts(&DROPS)).unwrap()).is_ok());
            drop(slot);
            assert!(ledger.is_empty());
        });
        assert_eq!(DROPS.load(Ordering::Relaxed), 1);
    }

    /// A flag that is raised for a while.
    struct Flag(AtomicBool);
    // SAFETY: one store, however often.
    unsafe impl Undo for Flag {
        fn undo(&self) {
            self.0.store(false, Ordering::Relaxed);
        }
    }

    #[test]
    fn an_obligation_that_was_handed_over_is_met_by_its_last_owner_alone() {
        static FLAG: Flag = Flag(AtomicBool::new(true));
        let mut slot = Slot::<Obligation<Flag, TestTask>>::new();
        assert!(kill(|| slot.put(Obligation::new(&FLAG).unwrap()).unwrap()).is_empty());
        assert!(FLAG.0.load(Ordering::Relaxed), "met by the death of who gave it away");
        assert_eq!(kill(|| core::mem::forget(slot.take())), [Outcome::Released]);
        assert!(!FLAG.0.load(Ordering::Relaxed));
    }

    #[test]
    fn a_full_ledger_leaves_the_slot_what_it_has() {
        let mut slot = Boxes::<u64>::new();
        on_fresh_ledger(|_| slot.put(TrackedBox::new(5).unwrap()).unwrap());
        on_fresh_ledger(|ledger| {
            let most: std::vec::Vec<_> =
                core::iter::from_fn(|| TrackedBox::<u64, TestTask>::new(0).ok()).collect();
            assert_eq!(slot.take().unwrap_err(), LedgerFull);
            assert_eq!((slot.is_empty(), ledger.len()), (false, Ledger::CAPACITY));
            drop(most);
            assert_eq!(*slot.take().unwrap().unwrap(), 5);
        });
    }
}
