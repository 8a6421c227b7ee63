//! Where a task's next entry goes.

use core::ptr::NonNull;

use super::{FULL, HEADER_BYTES, Ledger, Place};
use crate::Entry;

/// Where a task's next entry goes: behind the last one in its ledger.
///
/// It is one word, so that a kernel can keep that of the task that runs where one instruction reads
/// or writes it: see [`CurrentLedger::cursor`](crate::CurrentLedger::cursor).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub struct Cursor(pub(super) Place);

impl Cursor {
    /// That of an empty ledger.
    pub const fn first(ledger: &'static Ledger) -> Self {
        Self(Place::at(NonNull::from_ref(ledger), HEADER_BYTES))
    }

    /// That of a ledger without room, and so of a [forbidden](Ledger::forbidden) one.
    pub const fn nowhere(ledger: &'static Ledger) -> Self {
        Self(Place::at(NonNull::from_ref(ledger), FULL))
    }

    /// The cursor as a pointer, for the block of a CPU or the record of a task.
    #[inline(always)]
    pub const fn as_ptr(self) -> *mut Entry {
        self.0.as_ptr()
    }

    /// The cursor of a pointer that is from [`Cursor::as_ptr`]; `None` for null.
    #[inline(always)]
    pub const fn from_ptr(pointer: *mut Entry) -> Option<Self> {
        match NonNull::new(pointer) {
            Some(place) => Some(Self(Place(place))),
            None => None,
        }
    }
}
