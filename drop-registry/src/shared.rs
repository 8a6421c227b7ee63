//! A counted pointer, each of whose counts is in some task's ledger, in a slot or in a channel.
#![expect(unsafe_code, reason = "counts references to heap memory")]

#[cfg(test)]
mod tests;

use core::alloc::Layout;
use core::fmt;
use core::marker::PhantomData;
use core::ops::Deref;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering, compiler_fence};

use crate::arch;
use crate::hand_over::sealed::Sealed;
use crate::operations::Marked;
use crate::owned_block::{BlockOf, OwnedBlock};
use crate::{
    AllocError, CurrentLedger, DropAfterTear, Entry, Extent, Ledger, LedgerFull, Operations,
    Outcome, OwnLedger, ResourceKind, TrackedHeap,
};

/// The heap block: the count first, for the windows.
#[repr(C)]
pub(crate) struct Counted<T> {
    pub(crate) count: AtomicU64,
    /// How the last share to go destroys the value: chosen where it was made.
    pub(crate) destroy: &'static Operations,
    /// Whether the value may be dropped even if it is torn.
    droppable: bool,
    /// Whether a task died that had a share, so that the value may be torn.
    holder_died: AtomicBool,
    value: T,
}

type Block<T, L> = OwnedBlock<Counted<T>, L>;

impl<T> Counted<T> {
    /// The value, to be changed: it may be torn from now on if the task dies, so that it is not to
    /// be dropped for it.
    fn lend<L: TrackedHeap>(&mut self) -> &mut T {
        if self.droppable && !planted!(DroppedThoughLent) {
            (self.droppable, self.destroy) = (false, Block::<T, L>::whole(false));
            // The compiler is not to write to the value before that.
            compiler_fence(Ordering::SeqCst);
        }
        &mut self.value
    }
}

// SAFETY: the value is a field of the block.
unsafe impl<T> BlockOf for Counted<T> {
    const KIND: ResourceKind = ResourceKind::Share;
    type Block = Self;
    type Value = T;

    fn value(block: *mut Self) -> *mut T {
        // SAFETY: the block is there, by the contract of whoever asks; nothing is read.
        unsafe { &raw mut (*block).value }
    }
}

/// A share of a value on the heap, which is dropped when the last share goes.
///
/// A task may die inside a lock that the value contains. Once a task that had a share has died, a
/// value with drop glue is dropped by its last holder only if its type promises [`DropAfterTear`];
/// otherwise its memory is left alone.
///
/// Like `alloc::sync::Arc`, but each share stands in the ledger of the task that holds it, so that
/// a death takes exactly that share away. It is therefore not `Send`; a share moves to another
/// owner through a [`Slot`](crate::Slot), so that there is no instant at which nobody has it, or
/// two do.
///
/// There is no weak pointer to it: that would be a second count to settle beside this one, in the
/// same instruction. Who only wants to find a value again keeps a share in a slot.
///
/// A task that has a share takes more of them without touching the count: its first keeps the value
/// alive for all.
pub struct Shared<T, L: TrackedHeap> {
    block: NonNull<Counted<T>>,
    context: PhantomData<(fn() -> L, T)>,
}

impl<T: Send + Sync, L: TrackedHeap> Shared<T, L> {
    /// Moves `value` to the heap, with one share.
    ///
    /// If the last share is a dead task's, the memory is freed; a value with drop glue cannot be
    /// dropped then, since it may be torn, and is quarantined. See [`Shared::new_droppable`].
    ///
    /// # Errors
    /// If there is no block for it, or the task's ledger is full. The value is dropped.
    #[inline(always)]
    pub fn new(value: T) -> Result<Self, AllocError> {
        Self::allocate(value, false, arch::frame_address())
    }

    /// As [`Shared::new`], for a value that may be dropped even if its last share was a dead
    /// task's, as long as it has not been borrowed [mutably](Shared::get_mut): from then on it is
    /// one of [`Shared::new`].
    ///
    /// The keeper drops it at any time after the death, so it borrows nothing that can go before:
    /// a handle can be forgotten, and then what its value borrows is free to go.
    ///
    /// # Errors
    /// As [`Shared::new`].
    #[inline(always)]
    pub fn new_droppable(value: T) -> Result<Self, AllocError>
    where
        T: DropAfterTear + 'static,
    {
        Self::allocate(value, true, arch::frame_address())
    }

    fn allocate(value: T, droppable: bool, frame: u64) -> Result<Self, AllocError> {
        let ledger = OwnLedger::<L>::current();
        let layout = Layout::new::<Counted<T>>();
        // SAFETY: until the value is there, the block needs nothing but to be freed.
        let (block, entry) =
            unsafe { L::heap().claim(layout, Block::<T, L>::FREE, Marked::NOT, ledger, frame) }?;
        let block = block.cast::<Counted<T>>();
        // SAFETY: the block is new and fits the layout.
        unsafe {
            block.write(Counted {
                count: AtomicU64::new(1),
                destroy: Block::<T, L>::whole(droppable),
                droppable,
                holder_died: AtomicBool::new(false),
                value,
            });
        };
        entry.convert(Self::SHARE);
        Ok(Self { block, context: PhantomData })
    }
}

impl<T, L: TrackedHeap> Shared<T, L> {
    /// One share of a live value.
    pub(crate) const SHARE: &'static Operations =
        &Operations::releasing(ResourceKind::Share, Extent::NOTHING, release_share::<T, L>);

    /// Takes another share.
    ///
    /// # Errors
    /// If the task's ledger is full.
    #[inline(always)]
    pub fn try_clone(&self) -> Result<Self, LedgerFull> {
        let ledger = OwnLedger::<L>::current();
        let resource = self.block.as_ptr().cast();
        // SAFETY: to hold a share that is not counted takes no more than its entry, as long as a
        // counted one is below it: the handle is not `Send`, so it has one in this ledger.
        unsafe { ledger.record(resource, &ALSO, arch::frame_address()) }?;
        Ok(Self { block: self.block, context: PhantomData })
    }

    /// Takes a share of what somebody else holds.
    ///
    /// # Errors
    /// If the task's ledger is full.
    ///
    /// # Panics
    /// If the count is 2^63.
    ///
    /// # Safety
    /// The block is alive for the length of the call.
    #[inline(always)]
    pub(crate) unsafe fn share_of(block: NonNull<Counted<T>>) -> Result<Self, LedgerFull> {
        let ledger = OwnLedger::<L>::current();
        let frame = arch::frame_address();
        // SAFETY: the block is alive, and one more count is one more share.
        let counted = unsafe {
            let count = &block.as_ref().count;
            ledger.record_by(|at| arch::increment(count, Self::SHARE, at, frame))
        }?;
        assert!(counted.is_some(), "more than 2^63 shares of one value");
        Ok(Self { block, context: PhantomData })
    }

    /// The calling task's innermost entry for this value, which is counted from now on: to be
    /// handed over.
    ///
    /// # Panics
    /// If the count is 2^63.
    fn counted_entry<'l>(&self, ledger: OwnLedger<'l, L>) -> &'l Entry {
        let entry = ledger.own(self.block.as_ptr().cast());
        if entry.has(&ALSO) && !planted!(UncountedHandedOver) {
            // SAFETY: this handle is a share, so the block is alive; the entry is this task's.
            let counted =
                unsafe { arch::increment_listed(&self.block.as_ref().count, Self::SHARE, entry) };
            assert!(counted, "more than 2^63 shares of one value");
        }
        entry
    }

    /// How many shares are counted: those of slots and channels, and of each task that has any at
    /// least one. Of use to a check or a report, and stale at once.
    pub fn count(this: &Self) -> u64 {
        // SAFETY: this handle is a share, so the block is alive.
        unsafe { this.block.as_ref() }.count.load(Ordering::Relaxed)
    }

    /// The value, if this is the only share, and no task died that had another: such a task may
    /// have left the value torn, behind a lock inside it.
    pub fn get_mut(this: &mut Self) -> Option<&mut T> {
        // SAFETY: this handle is a share, so the block is alive.
        let Counted { count, holder_died, .. } = unsafe { this.block.as_ref() };
        let ledger = OwnLedger::<L>::current();
        let listed = ledger.held().filter(|entry| entry.resource() == this.block.as_ptr().cast());
        let sole = count.load(Ordering::Acquire) == 1
            && !holder_died.load(Ordering::Relaxed)
            && listed.count() == 1;
        // SAFETY: the only share is borrowed exclusively: the count is this task's, and its ledger
        // lists one handle. Acquire pairs with the decrement of whoever held the last other one.
        sole.then(|| unsafe { (*this.block.as_ptr()).lend::<L>() })
    }

    #[cold]
    #[inline(never)]
    fn destroy(&self, ledger: OwnLedger<'_, L>) {
        let resource = self.block.as_ptr().cast();
        // SAFETY: the block is there until its entry is released.
        let Counted { droppable, holder_died, .. } = unsafe { self.block.as_ref() };
        // Relaxed: the decrement that made this the last share came after the store, and is a full
        // barrier.
        if core::mem::needs_drop::<T>() && holder_died.load(Ordering::Relaxed) && !droppable {
            // Quarantine: the value may be torn behind a lock inside it.
            Block::<T, L>::note_quarantined();
            ledger.own(resource).erase();
            return ledger.trim();
        }
        // SAFETY: the last share is gone, and this task has converted its entry to the duty to
        // destroy the value, once.
        unsafe { Block::<T, L>::destroy(self.block.as_ptr(), resource, ledger) };
    }
}

// SAFETY: a share may be used and dropped by any task, as for `Arc`. Its word is the address of the
// block, which says by itself how it is to be destroyed.
unsafe impl<T: Send + Sync, L: TrackedHeap> Sealed for Shared<T, L> {
    type Context = L;

    fn listed<'l>(&self, ledger: OwnLedger<'l, L>) -> (&'l Entry, u64) {
        (self.counted_entry(ledger), self.block.as_ptr().expose_provenance() as u64)
    }

    #[inline(always)]
    fn under(word: u64) -> (*mut (), &'static Operations) {
        (ptr::with_exposed_provenance_mut(word as usize), Self::SHARE)
    }

    #[inline(always)]
    unsafe fn from_word(word: u64, _: &'static Operations) -> Self {
        let block = ptr::with_exposed_provenance_mut(word as usize);
        // SAFETY: a word of `listed` is the address of a block.
        Self { block: unsafe { NonNull::new_unchecked(block) }, context: PhantomData }
    }
}

impl<T, L: TrackedHeap> Drop for Shared<T, L> {
    #[inline]
    fn drop(&mut self) {
        let ledger = OwnLedger::<L>::current();
        // SAFETY: this handle is a share, so the block is alive until the decrement.
        let Counted { count, destroy, .. } = unsafe { self.block.as_ref() };
        let resource = self.block.as_ptr().cast();
        let last = match ledger.top(resource) {
            // SAFETY: it is in this ledger, its last; for one that is not counted nothing is owed.
            Some(at) if unsafe { at.entry() }.has(&ALSO) => return unsafe { ledger.pop(at) },
            // SAFETY: the last entry lists this share, and is null if that was not the last one.
            Some(at) => unsafe {
                let last = arch::decrement_last(count, at.entry(), destroy);
                if !last {
                    ledger.drop_last(at);
                }
                last
            },
            None => drop_out_of_order(count, destroy, ledger),
        };
        if last {
            self.destroy(ledger);
        }
    }
}

/// Takes a share away whose entry is not the last. Returns whether it was the last share.
#[cold]
#[inline(never)]
fn drop_out_of_order<L: CurrentLedger>(
    count: &AtomicU64,
    destroy: &'static Operations,
    ledger: OwnLedger<'_, L>,
) -> bool {
    let entry = ledger.find(count.as_ptr().cast()).expect("a share is dropped by its own task");
    let last = if entry.has(&ALSO) {
        entry.erase();
        false
    } else {
        // SAFETY: the entry lists this share.
        unsafe { arch::decrement(count, entry, destroy) }
    };
    ledger.trim();
    last
}

impl<T, L: TrackedHeap> Deref for Shared<T, L> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: this handle is a share, so the block is alive, and shared.
        unsafe { &self.block.as_ref().value }
    }
}

impl<T: fmt::Debug, L: TrackedHeap> fmt::Debug for Shared<T, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// One more share of a value of which the same ledger lists a counted one further down. So the
/// entry may come and go by itself, and nothing need be done about it when the task dies.
///
/// That there is a counted one below stays true because whoever lets go of a share takes away the
/// innermost entry for the value, whichever handle it was made for: those of one task are alike.
static ALSO: Operations =
    Operations::releasing(ResourceKind::Share, Extent::NOTHING, forget_uncounted);

unsafe fn forget_uncounted(_: &Ledger, entry: &Entry) -> Outcome {
    entry.erase();
    Outcome::Released
}

/// Takes a dead task's share away.
unsafe fn release_share<T, L: TrackedHeap>(_: &Ledger, entry: &Entry) -> Outcome {
    let Some(block) = Block::<T, L>::of(entry) else {
        entry.erase();
        return Outcome::Disowned;
    };
    // SAFETY: `Operations::release`: the entry lists a share of a live block. Field by field, and
    // the operations as an address: should the block be another one after all, what stands there
    // is seen by the domain before it is followed.
    let (count, destroy, holder_died) = unsafe {
        let block = block.as_ptr();
        let destroy = (&raw const (*block).destroy).cast::<*mut Operations>().read();
        (&(*block).count, destroy, &(*block).holder_died)
    };
    if count.load(Ordering::Relaxed) == 0 {
        entry.erase();
        return Outcome::Disowned;
    }
    // Before the decrement, so that whoever holds the last share sees it.
    holder_died.store(true, Ordering::Relaxed);
    // SAFETY: the entry is the dead task's, and nobody else changes it now.
    let last = unsafe { arch::decrement(count, entry, destroy) };
    // If it was the last one, the entry has taken on the operations that destroy the value.
    if last { Outcome::Orphaned } else { Outcome::Released }
}
