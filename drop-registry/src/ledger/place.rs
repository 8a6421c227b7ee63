//! A place for an entry.
#![expect(unsafe_code, reason = "goes from one entry of a ledger to the next")]

use core::ptr::NonNull;

use super::{ENTRY_BYTES, FULL, HEADER_BYTES, Ledger};
use crate::Entry;

/// A place for an entry in a ledger. A guard keeps where its own was written, which also makes the
/// guard not `Send`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub struct Place(pub(super) NonNull<Entry>);

impl Place {
    /// `offset` bytes from the beginning of the ledger.
    pub(super) const fn at(ledger: NonNull<Ledger>, offset: u64) -> Self {
        debug_assert!(offset >= HEADER_BYTES && offset <= FULL, "a place in the ledger");
        // SAFETY: it is one: a constant of this module says so, or the ledger, into which nothing
        // else is stored as a cursor.
        Self(unsafe { ledger.byte_add(offset as usize).cast() })
    }

    /// For the windows.
    #[inline(always)]
    pub(crate) const fn as_ptr(self) -> *mut Entry {
        self.0.as_ptr()
    }

    /// Behind the entry that is written here.
    ///
    /// # Safety
    /// There is room for one.
    #[inline(always)]
    pub(super) unsafe fn next(self) -> Self {
        // SAFETY: by the contract; behind the last one is `beyond`.
        Self(unsafe { self.0.byte_add(ENTRY_BYTES as usize) })
    }

    /// Where the entry before this one is. In an empty ledger, the header read as an entry.
    ///
    /// # Safety
    /// This is not before the first entry.
    #[inline(always)]
    pub(super) unsafe fn previous(self) -> Self {
        const { assert!(HEADER_BYTES >= ENTRY_BYTES) };
        // SAFETY: that many bytes of the ledger are before its first entry.
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
