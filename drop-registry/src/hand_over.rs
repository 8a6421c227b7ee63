//! What can go from one owner to another, with no instant at which nobody has it, or two.
//!
//! ```text
//!  task's ledger        a place: one word        another task's ledger
//!  ─────────────        ─────────────────        ─────────────────────
//!  [ entry ]      ──►   [ word ]           ──►   [ entry ]
//!         one window:               one window:
//!         the word is set,          the word is cleared,
//!         the entry goes            the entry comes
//! ```
//!
//! The places are [`Slot`](crate::Slot) and [`Channel`](crate::Channel). What is in one belongs to
//! it, so a death of whoever put it there, or looks for it, changes nothing.
#![expect(unsafe_code, reason = "takes what a place owns, and records it")]

use crate::{CurrentLedger, Entry, LedgerFull, Operations, OwnLedger, Place};

/// What can be handed over to an owner that is no task, and taken from it by any task:
/// [`Shared`](crate::Shared), [`TrackedBox`](crate::TrackedBox) and
/// [`Obligation`](crate::Obligation), as far as what they own may go from task to task. Not for
/// implementing.
///
/// A lock's guard is none of them: the lock names its owner, in a word of its own, and no one
/// instruction changes that and the place.
pub trait HandOver: sealed::Sealed {}

impl<H: sealed::Sealed> HandOver for H {}

pub(crate) mod sealed {
    use super::*;

    /// How a handle stands in a ledger, and in a place.
    ///
    /// # Safety
    /// What is owned may be used, and disposed of, by any task. A word of `listed` is not 0, and
    /// stands for what the handle owns in `under` and `from_word`, in all tasks.
    pub unsafe trait Sealed: Sized {
        /// Whose ledgers it goes between.
        type Context: CurrentLedger;

        /// The entry that lists it in the task's own ledger, and which another owner can take over
        /// by itself; and what a place that owns it holds.
        fn listed<'l>(&self, ledger: OwnLedger<'l, Self::Context>) -> (&'l Entry, u64);

        /// What the entry of a task that takes it is to list, and under which operations.
        fn under(word: u64) -> (*mut (), &'static Operations);

        /// The handle of an entry under these operations.
        ///
        /// # Safety
        /// The current ledger lists it as this `under` of the word said, and nothing else answers
        /// for that entry.
        unsafe fn from_word(word: u64, operations: &'static Operations) -> Self;
    }
}

/// Hands `item` over by `window`, which sets a place from nothing to the word and erases the entry,
/// or does neither and says so; the item comes back then.
#[inline(always)]
pub(crate) fn give<H: HandOver>(
    item: H,
    window: impl FnOnce(u64, &Entry) -> bool,
) -> Result<(), H> {
    let ledger = OwnLedger::<H::Context>::current();
    let (entry, word) = item.listed(ledger);
    if !window(word, entry) {
        return Err(item);
    }
    if planted!(GapIsNull) {
        entry.empty_out();
    }
    ledger.trim();
    core::mem::forget(item);
    Ok(())
}

/// Takes what a place owns by `window`, which clears the place and records the resource under the
/// operations in the ledger, in a place, or does neither and says so.
///
/// # Errors
/// If the task's ledger is full.
///
/// # Safety
/// If the window succeeds, the place held `word`, from [`give`] of an `H`, and nobody else has
/// taken it.
#[inline(always)]
pub(crate) unsafe fn take<H: HandOver>(
    word: u64,
    window: impl FnOnce(*mut (), &'static Operations, Place) -> bool,
) -> Result<Option<H>, LedgerFull> {
    let ledger = OwnLedger::<H::Context>::current();
    let (resource, operations) = H::under(word);
    // SAFETY: this function's contract.
    let recorded = unsafe { ledger.record_by(|place| window(resource, operations, place)) }?;
    // SAFETY: the window has recorded it, once.
    Ok(recorded.map(|_| unsafe { H::from_word(word, operations) }))
}
