//! A block of the heap with a value that is to be destroyed once: a box's, or that of a last share.
//!
//! By its owner, or after the owner's death by the keeper, if the value's type bears that.
#![expect(unsafe_code, reason = "drops values in heap memory, and frees that")]

use core::alloc::Layout;
use core::marker::PhantomData;
use core::ptr::{self, NonNull};

use crate::{
    Entry, Extent, Heap, Ledger, Operations, Outcome, OwnLedger, ResourceKind, TrackedHeap,
};

/// What a kind of block is like.
///
/// # Safety
/// `value` is the address of a value within a block that is there.
pub(crate) unsafe trait BlockOf {
    /// What its owner's entry lists.
    const KIND: ResourceKind;
    /// All of it.
    type Block;
    /// What is in it, and may have to be dropped.
    type Value;

    /// Where in the block the value is.
    fn value(block: *mut Self::Block) -> *mut Self::Value;
}

/// A block without any other owner than a task.
pub(crate) struct OwnedBlock<B, L>(PhantomData<(B, L)>);

impl<B: BlockOf, L: TrackedHeap> OwnedBlock<B, L> {
    const LAYOUT: Layout = Layout::new::<B::Block>();

    const fn operations(
        release: unsafe fn(&Ledger, &Entry) -> Outcome,
        reclaim: unsafe fn(&Entry) -> Outcome,
    ) -> Operations {
        Operations::releasing(B::KIND, Extent::NOTHING, release)
            .reclaiming(Self::LAYOUT.size(), reclaim)
    }

    /// It has no value, or one without drop glue.
    pub(crate) const FREE: &'static Operations =
        &Self::operations(free::<B, L>, quarantine::<B, L>);

    /// The value may be dropped from outside.
    pub(crate) const DROP_AND_FREE: &'static Operations =
        &Self::operations(orphan::<B, L>, drop_and_free::<B, L>);

    /// The value may be dropped by its owner alone; or that is going on.
    pub(crate) const QUARANTINE: &'static Operations =
        &Self::operations(orphan::<B, L>, quarantine::<B, L>);

    /// What is right while the value is whole.
    pub(crate) const fn whole(droppable: bool) -> &'static Operations {
        match droppable {
            true => Self::DROP_AND_FREE,
            false if core::mem::needs_drop::<B::Value>() => Self::QUARANTINE,
            false => Self::FREE,
        }
    }

    /// Counts a block whose value nobody may drop.
    pub(crate) fn note_quarantined() {
        L::heap().note_quarantined(Self::LAYOUT);
    }

    /// The block that `entry` lists, if the heap has given out one of this size there.
    pub(crate) fn of(entry: &Entry) -> Option<NonNull<B::Block>> {
        let block = Heap::block_of(entry);
        if L::heap().has_given_out(block, Self::LAYOUT) { NonNull::new(block.cast()) } else { None }
    }

    /// Drops the value and frees the block, for the owner.
    ///
    /// # Safety
    /// The ledger lists `block` as `resource`. The task is the only owner, and the value is whole.
    pub(crate) unsafe fn destroy(
        block: *mut B::Block,
        resource: *mut (),
        ledger: OwnLedger<'_, L>,
    ) {
        let mut entry = ledger.own(resource);
        if core::mem::needs_drop::<B::Value>() {
            // From here on the value is half dropped if the task dies, and nobody's to look at.
            if !planted!(DropAgain) {
                entry.convert(Self::QUARANTINE);
            }
            // SAFETY: this function's contract.
            unsafe { ptr::drop_in_place(B::value(block)) };
            // Looked up again: the destructor may have made the ledger close its gaps.
            entry = ledger.own(resource);
            entry.convert(Self::FREE);
        }
        // SAFETY: the entry lists the block, whose value is gone.
        unsafe { L::heap().release(entry) };
        ledger.trim();
    }
}

/// Frees the block; the heap has no lock, so this may be done in the fault path.
unsafe fn free<B: BlockOf, L: TrackedHeap>(_: &Ledger, entry: &Entry) -> Outcome {
    // SAFETY: `Operations::release`: the owner is gone, and the entry lists its block.
    unsafe { L::heap().release_for_dead(entry, OwnedBlock::<B, L>::LAYOUT) }
}

/// Nothing to do in the fault path: a destructor is somebody else's code.
unsafe fn orphan<B: BlockOf, L: TrackedHeap>(_: &Ledger, entry: &Entry) -> Outcome {
    if OwnedBlock::<B, L>::of(entry).is_none() {
        entry.erase();
        return Outcome::Disowned;
    }
    Outcome::Orphaned
}

unsafe fn drop_and_free<B: BlockOf, L: TrackedHeap>(entry: &Entry) -> Outcome {
    // Another entry may have listed the same block, and its value be gone.
    let Some(block) = OwnedBlock::<B, L>::of(entry) else { return Outcome::Disowned };
    if planted!(QuarantineAlways) {
        return Outcome::Quarantined;
    }
    // Should this die in the destructor, the value is not dropped again.
    entry.convert(OwnedBlock::<B, L>::QUARANTINE);
    // SAFETY: `Operations::reclaim`: the owner is gone, and this runs once. The value's type is
    // `DropAfterTear`, so that it may be dropped even if it is torn.
    unsafe {
        ptr::drop_in_place(B::value(block.as_ptr()));
        L::heap().release(entry);
    }
    Outcome::Reclaimed
}

unsafe fn quarantine<B: BlockOf, L: TrackedHeap>(_: &Entry) -> Outcome {
    OwnedBlock::<B, L>::note_quarantined();
    Outcome::Quarantined
}
