//! A heap block that its task's death frees.
#![expect(unsafe_code, reason = "owns heap memory")]

use alloc::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use core::fmt;
use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};
use core::ptr::{self, NonNull};

use crate::obligation::frame_address;
use crate::{
    CurrentLedger, DropAfterTear, Entry, Ledger, LedgerFull, Operations, Outcome, ResourceKind,
};

/// A value on the heap that stands in its task's ledger.
///
/// Where `alloc::boxed::Box` needs a landing pad to be freed, this is freed by the keeper, also
/// from a frame that has none.
pub struct TrackedBox<T, L: CurrentLedger> {
    value: NonNull<T>,
    context: PhantomData<(fn() -> L, T)>,
}

impl<T, L: CurrentLedger> TrackedBox<T, L> {
    const DROP_AND_FREE: &'static Operations = &Operations {
        kind: ResourceKind::Box,
        bytes: size_of::<T>(),
        release: orphan,
        reclaim: drop_and_free::<T>,
    };

    const QUARANTINE: &'static Operations = &Operations {
        kind: ResourceKind::Box,
        bytes: size_of::<T>(),
        release: orphan,
        reclaim: quarantine,
    };

    const NOT_EMPTY: () = assert!(size_of::<T>() > 0, "a tracked box owns memory");

    /// Moves `value` to the heap.
    ///
    /// If the task dies, the memory is freed; a value with drop glue cannot be dropped then, since
    /// it may be torn, and is quarantined. See [`TrackedBox::new_droppable`].
    ///
    /// # Errors
    /// If the task's ledger is full.
    pub fn new(value: T) -> Result<Self, LedgerFull> {
        let operations = const {
            if core::mem::needs_drop::<T>() { Self::QUARANTINE } else { Self::DROP_AND_FREE }
        };
        Self::allocate(value, operations)
    }

    /// As [`TrackedBox::new`], for a value that may be dropped even after a tear.
    ///
    /// # Errors
    /// If the task's ledger is full.
    pub fn new_droppable(value: T) -> Result<Self, LedgerFull>
    where
        T: DropAfterTear,
    {
        Self::allocate(value, Self::DROP_AND_FREE)
    }

    fn allocate(value: T, operations: &'static Operations) -> Result<Self, LedgerFull> {
        const { Self::NOT_EMPTY };
        // SAFETY: `CurrentLedger`: the ledger is this task's.
        let ledger = unsafe { L::current().as_ref() };
        ledger.room()?;
        let layout = Layout::new::<T>();
        // SAFETY: `NOT_EMPTY`.
        let Some(block) = NonNull::new(unsafe { alloc(layout) }.cast::<T>()) else {
            handle_alloc_error(layout)
        };
        // SAFETY: the block is new and fits `T`; from here on the ledger says whose it is.
        unsafe {
            block.write(value);
            ledger.record(block.as_ptr().cast(), operations, frame_address())?;
        }
        Ok(Self { value: block, context: PhantomData })
    }
}

impl<T, L: CurrentLedger> Drop for TrackedBox<T, L> {
    fn drop(&mut self) {
        // SAFETY: `CurrentLedger`, and the box is not `Send`.
        let ledger = unsafe { L::current().as_ref() };
        let entry =
            ledger.find(self.value.as_ptr().cast()).expect("a box is dropped by its own task");
        // From here on the value is half dropped if the task dies, and nobody's to look at.
        entry.convert(Self::QUARANTINE);
        // SAFETY: the box owns the value and the block, which came from `allocate`.
        unsafe {
            ptr::drop_in_place(self.value.as_ptr());
            entry.erase();
            dealloc(self.value.as_ptr().cast(), Layout::new::<T>());
        }
        ledger.trim();
    }
}

impl<T, L: CurrentLedger> Deref for TrackedBox<T, L> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the box owns a valid value.
        unsafe { self.value.as_ref() }
    }
}

impl<T, L: CurrentLedger> DerefMut for TrackedBox<T, L> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the box owns a valid value, and is borrowed exclusively.
        unsafe { self.value.as_mut() }
    }
}

impl<T: fmt::Debug, L: CurrentLedger> fmt::Debug for TrackedBox<T, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// Nothing to do in the fault path: freeing takes the heap's lock.
unsafe fn orphan(_: &Ledger, _: &Entry) -> Outcome {
    Outcome::Orphaned
}

unsafe fn drop_and_free<T>(entry: &Entry) -> Outcome {
    let value = entry.resource().cast::<T>();
    // SAFETY: `Operations::reclaim`: the owner is gone, and this runs once. `T` has no drop glue,
    // or it is `DropAfterTear`.
    unsafe {
        ptr::drop_in_place(value);
        dealloc(value.cast(), Layout::new::<T>());
    }
    Outcome::Reclaimed
}

unsafe fn quarantine(_: &Entry) -> Outcome {
    Outcome::Quarantined
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{TestTask, kill, on_fresh_ledger};
    use core::sync::atomic::{AtomicUsize, Ordering};
    use std::string::String;

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
        assert_eq!(outcomes, [Outcome::Orphaned, Outcome::Reclaimed]);
    }

    #[test]
    fn a_value_with_drop_glue_and_no_promise_is_quarantined() {
        let outcomes = kill(|| {
            core::mem::forget(TrackedBox::<_, TestTask>::new(String::from("torn?")).unwrap());
        });
        assert_eq!(outcomes, [Outcome::Orphaned, Outcome::Quarantined]);
    }
}
