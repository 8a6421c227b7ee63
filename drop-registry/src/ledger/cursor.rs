//! Where a task's next entry goes.
#![expect(unsafe_code, reason = "goes from one entry of a ledger to the next")]

use core::ptr::NonNull;

use super::{ENTRY_BYTES, HEADER_BYTES, Ledger};
use crate::Entry;

/// Where a task's next entry goes: behind the last one in its ledger. Also where a guard's entry was
/// written; that a guard keeps it also makes the guard not `Send`.
///
/// It is one word, so that a kernel can keep that of the task that runs where one instruction reads
/// or writes it: see [`CurrentLedger::cursor`](crate::CurrentLedger::cursor).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub struct Cursor(pub(super) NonNull<Entry>);

impl Cursor {
    /// That of an empty ledger.
    pub const fn first(ledger: &'static Ledger) -> Self {
        // SAFETY: the entries come after the header.
        Self(unsafe { NonNull::from_ref(ledger).byte_add(HEADER_BYTES as usize).cast() })
    }

    /// The cursor as a pointer, for the block of a CPU.
    #[inline(always)]
    pub const fn as_ptr(self) -> *mut Entry {
        self.0.as_ptr()
    }

    /// # Safety
    /// The pointer is from [`Cursor::as_ptr`].
    #[inline(always)]
    pub const unsafe fn from_ptr(pointer: *mut Entry) -> Self {
        // SAFETY: by the contract, so it is not null.
        Self(unsafe { NonNull::new_unchecked(pointer) })
    }

    /// Behind the entry that is written here: there is room for one.
    #[inline(always)]
    pub(crate) fn next(self) -> Self {
        // SAFETY: by the caller's word; behind the last one is `beyond`.
        Self(unsafe { self.0.byte_add(ENTRY_BYTES as usize) })
    }

    /// Where the entry before this one is. In an empty ledger, the header read as an entry.
    #[inline(always)]
    pub(super) fn previous(self) -> Self {
        const { assert!(HEADER_BYTES >= ENTRY_BYTES) };
        // SAFETY: that many bytes of the ledger are before any entry.
        Self(unsafe { self.0.byte_sub(ENTRY_BYTES as usize) })
    }

    /// What is written here.
    ///
    /// # Safety
    /// The ledger is there for `'l`.
    #[inline(always)]
    pub(crate) unsafe fn entry<'l>(self) -> &'l Entry {
        // SAFETY: by the contract; a ledger is of words that may be shared.
        unsafe { self.0.as_ref() }
    }
}
