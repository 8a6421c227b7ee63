//! A heap block that its task's death frees.
#![expect(unsafe_code, reason = "owns heap memory")]

use core::alloc::Layout;
use core::fmt;
use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};
use core::ptr::{self, NonNull};

use crate::arch;
use crate::hand_over::sealed::Sealed;
use crate::operations::Marked;
use crate::owned_block::{BlockOf, OwnedBlock};
use crate::{AllocError, DropAfterTear, Entry, Operations, OwnLedger, ResourceKind, TrackedHeap};

/// A value on the heap that stands in its task's ledger.
///
/// Where `alloc::boxed::Box` needs a landing pad to be freed, this is freed by the keeper, also
/// from a frame that has none. The block and its entry come and go in one window, so there is no
/// instant at which a death would leak it or free it twice.
pub struct TrackedBox<T, L: TrackedHeap> {
    value: NonNull<T>,
    /// Whether the value may be dropped from outside.
    droppable: bool,
    context: PhantomData<(fn() -> L, T)>,
}

type Block<T, L> = OwnedBlock<Boxed<T>, L>;

/// The block is the value.
struct Boxed<T>(PhantomData<T>);

// SAFETY: it is the same address.
unsafe impl<T> BlockOf for Boxed<T> {
    const KIND: ResourceKind = ResourceKind::Box;
    type Block = T;
    type Value = T;

    fn value(block: *mut T) -> *mut T {
        block
    }
}

/// In the word of a box that is handed over, beside the address of its block.
const DROPPABLE: u64 = 1;

impl<T, L: TrackedHeap> TrackedBox<T, L> {
    /// Moves `value` to the heap.
    ///
    /// If the task dies, the memory is freed; a value with drop glue cannot be dropped then, since
    /// it may be torn, and is quarantined. See [`TrackedBox::new_droppable`].
    ///
    /// # Errors
    /// If there is no block for it, or the task's ledger is full. The value is dropped.
    #[inline(always)]
    pub fn new(value: T) -> Result<Self, AllocError> {
        Self::allocate(value, false, arch::frame_address())
    }

    /// As [`TrackedBox::new`], for a value that the keeper may drop, as long as it has not been
    /// borrowed mutably: from then on the box is one of [`TrackedBox::new`].
    ///
    /// The keeper drops it at any time after the death, so it borrows nothing that can go before:
    /// a handle can be forgotten, and then what its value borrows is free to go.
    ///
    /// # Errors
    /// As [`TrackedBox::new`].
    #[inline(always)]
    pub fn new_droppable(value: T) -> Result<Self, AllocError>
    where
        T: DropAfterTear + 'static,
    {
        Self::allocate(value, true, arch::frame_address())
    }

    #[inline(always)]
    fn allocate(value: T, droppable: bool, frame: u64) -> Result<Self, AllocError> {
        let ledger = OwnLedger::<L>::current();
        // SAFETY: until the value is there, the block needs nothing but to be freed.
        let (block, entry) = unsafe {
            L::heap().claim(Layout::new::<T>(), Block::<T, L>::FREE, Marked::BOX, ledger, frame)
        }?;
        let block = block.cast::<T>();
        // SAFETY: the block is new and fits `T`.
        unsafe { block.write(value) };
        entry.convert(Block::<T, L>::whole(droppable));
        Ok(Self { value: block, droppable, context: PhantomData })
    }

    /// Says that the value may be torn if the task dies, before it can be.
    #[cold]
    fn forbid_drop(&mut self) {
        let ledger = OwnLedger::<L>::current();
        let entry = ledger.own(Marked::BOX.mark(self.value.as_ptr()));
        if !planted!(DroppedThoughLent) {
            entry.convert(Block::<T, L>::whole(false));
        }
        self.droppable = false;
    }
}

// SAFETY: a box with a value that is `Send` may be used and dropped by any task. Blocks are aligned
// to 16 bytes, so the word has room to say whether the value may be dropped from outside.
unsafe impl<T: Send, L: TrackedHeap> Sealed for TrackedBox<T, L> {
    type Context = L;

    fn listed<'l>(&self, ledger: OwnLedger<'l, L>) -> (&'l Entry, u64) {
        let address = self.value.as_ptr().expose_provenance() as u64;
        (ledger.own(Marked::BOX.mark(self.value.as_ptr())), address | u64::from(self.droppable))
    }

    #[inline(always)]
    fn under(word: u64) -> (*mut (), &'static Operations) {
        let block = ptr::with_exposed_provenance_mut::<T>((word & !DROPPABLE) as usize);
        (Marked::BOX.mark(block), Block::<T, L>::whole(word & DROPPABLE != 0))
    }

    #[inline(always)]
    unsafe fn from_word(word: u64, _: &'static Operations) -> Self {
        let block = ptr::with_exposed_provenance_mut((word & !DROPPABLE) as usize);
        // SAFETY: a word of `listed` has the address of a block.
        let value = unsafe { NonNull::new_unchecked(block) };
        Self { value, droppable: word & DROPPABLE != 0, context: PhantomData }
    }
}

impl<T, L: TrackedHeap> Drop for TrackedBox<T, L> {
    fn drop(&mut self) {
        let ledger = OwnLedger::<L>::current();
        let resource = Marked::BOX.mark(self.value.as_ptr());
        // SAFETY: the box owns the value, and its task's ledger lists it so.
        unsafe { Block::<T, L>::destroy(self.value.as_ptr(), resource, ledger) };
    }
}

impl<T, L: TrackedHeap> Deref for TrackedBox<T, L> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the box owns a valid value.
        unsafe { self.value.as_ref() }
    }
}

impl<T, L: TrackedHeap> DerefMut for TrackedBox<T, L> {
    fn deref_mut(&mut self) -> &mut T {
        if self.droppable {
            self.forbid_drop();
        }
        // SAFETY: the box owns a valid value, and is borrowed exclusively.
        unsafe { self.value.as_mut() }
    }
}

impl<T: fmt::Debug, L: TrackedHeap> fmt::Debug for TrackedBox<T, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Ledger;
    use crate::testing::{TestTask, kill, on_fresh_ledger};
    use crate::{Mutex, Outcome};
    use core::sync::atomic::{AtomicUsize, Ordering};
    use std::string::String;
    use std::vec::Vec;

    #[test]
    fn a_dropped_box_drops_its_value_once() {
        static DROPS: AtomicUsize = AtomicUsize::new(0);
        struct Counts(#[expect(dead_code, reason = "a box owns memory")] u8);
        impl Drop for Counts {
            fn drop(&mut self) {
                DROPS.fetch_add(1, Ordering::Relaxed);
            }
        }
        let ledger = on_fresh_ledger(|ledger| {
            let boxed = TrackedBox::<_, TestTask>::new(Counts(0)).unwrap();
            assert_eq!(ledger.len(), 1);
            drop(boxed);
        });
        assert_eq!(DROPS.load(Ordering::Relaxed), 1);
        assert!(ledger.is_empty());
    }

    #[test]
    fn a_dead_task_s_box_is_freed() {
        let outcomes =
            kill(|| core::mem::forget(TrackedBox::<_, TestTask>::new([7u64; 4]).unwrap()));
        assert_eq!(outcomes, [Outcome::Reclaimed]);
    }

    #[test]
    fn a_value_that_promises_to_bear_it_is_dropped_once() {
        static DROPS: AtomicUsize = AtomicUsize::new(0);
        struct Counts(#[expect(dead_code, reason = "a box owns memory")] u8);
        impl Drop for Counts {
            fn drop(&mut self) {
                DROPS.fetch_add(1, Ordering::Relaxed);
            }
        }
        // SAFETY: its destructor does not look at it.
        unsafe impl DropAfterTear for Counts {}
        let outcomes = kill(|| {
            core::mem::forget(TrackedBox::<_, TestTask>::new_droppable(Counts(0)).unwrap());
        });
        assert_eq!(outcomes, [Outcome::Orphaned, Outcome::Reclaimed]);
        assert_eq!(DROPS.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_value_that_has_been_lent_mutably_is_quarantined_whatever_it_promises() {
        static DROPS: AtomicUsize = AtomicUsize::new(0);
        struct Counts(u8);
        impl Drop for Counts {
            fn drop(&mut self) {
                DROPS.fetch_add(1, Ordering::Relaxed);
            }
        }
        // SAFETY: its destructor does not look at it.
        unsafe impl DropAfterTear for Counts {}
        let quarantined = TestTask::heap().bytes_quarantined();
        let outcomes = kill(|| {
            let mut boxed = TrackedBox::<_, TestTask>::new_droppable(Counts(0)).unwrap();
            boxed.0 = 1;
            core::mem::forget(boxed);
        });
        assert_eq!(outcomes, [Outcome::Orphaned, Outcome::Quarantined]);
        assert_eq!(DROPS.load(Ordering::Relaxed), 0);
        assert!(TestTask::heap().bytes_quarantined() > quarantined);
    }

    #[test]
    fn a_destructor_that_moves_the_entries_frees_its_own_block() {
        static LOCK: Mutex<(), TestTask> = Mutex::new(());
        struct LocksInDrop(#[expect(dead_code, reason = "a box owns memory")] u64);
        impl Drop for LocksInDrop {
            fn drop(&mut self) {
                drop(LOCK.lock());
            }
        }
        on_fresh_ledger(|ledger| {
            let below = TrackedBox::<_, TestTask>::new([0u64; 64]).unwrap();
            let dropped = TrackedBox::<_, TestTask>::new(LocksInDrop(1)).unwrap();
            let above = TrackedBox::<_, TestTask>::new([7u64; 64]).unwrap();
            let rest: Vec<_> =
                core::iter::from_fn(|| TrackedBox::<_, TestTask>::new(1u64).ok()).collect();
            assert_eq!(ledger.len(), Ledger::CAPACITY);
            // Leaves a gap, so that the destructor's lock finds room by closing it.
            drop(below);
            drop(dropped);
            let taken = [(); 2].map(|()| TrackedBox::<_, TestTask>::new([9u64; 64]).unwrap());
            assert_eq!(above[0], 7, "a living box's block was given to another");
            drop((taken, above, rest));
        });
    }

    #[test]
    fn a_box_and_a_lock_at_its_beginning_have_entries_of_their_own() {
        let outcomes = kill(|| {
            let boxed = TrackedBox::<_, TestTask>::new(Mutex::<u64, TestTask>::new(1)).unwrap();
            core::mem::forget(boxed.lock().unwrap());
            // Takes the lock's entry away, too: the lock goes with its box.
            drop(boxed);
        });
        assert_eq!(outcomes, []);
    }

    #[test]
    fn a_value_with_drop_glue_and_no_promise_is_quarantined() {
        let outcomes = kill(|| {
            core::mem::forget(TrackedBox::<_, TestTask>::new(String::from("torn?")).unwrap());
        });
        assert_eq!(outcomes, [Outcome::Orphaned, Outcome::Quarantined]);
    }
}
