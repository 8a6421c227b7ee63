//! What one task holds: its entries, in the order of acquisition.
#![expect(unsafe_code, reason = "entries are trusted by settle, so writing one is unsafe")]

mod cursor;
mod gaps;
mod oldest_lock;
mod own;
mod place;
#[cfg(test)]
mod tests;

use core::fmt;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering, compiler_fence};

use crate::Entry;

pub use cursor::Cursor;
pub(crate) use own::OwnLedger;
pub(crate) use place::Place;

/// There is no room in the task's ledger for another entry: [`Ledger::CAPACITY`] things are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LedgerFull;

impl fmt::Display for LedgerFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the task's ledger is full ({} entries)", Ledger::CAPACITY)
    }
}

impl core::error::Error for LedgerFull {}

/// What one task holds: a fixed array, written by that task alone, and read by its keeper when the
/// task is frozen. (A meter marks the entries that it has seen, in the timer's trap of the task
/// itself; and whoever looks for deadlocks reads while tasks run, and looks again when they do not.)
///
/// Entries lie in the order of acquisition. The owner pushes and pops at its [`Cursor`]; an entry
/// that is released out of order is erased in place, and its room comes back when the entries above
/// it are gone, or when a push finds no room and closes the gaps. Which entries count, they say
/// themselves: the cursor is the owner's alone. Those beyond the last are null, so that a guard can
/// see whether its entry is the last without a look at the cursor, which has just been stored: on
/// the way of a load behind such a store lies all that a release costs.
///
/// The atomics are for the reader's sake: every access is a plain `mov`. Within the task, program
/// order is what the keeper sees, since it looks only after the freeze.
#[repr(C, align(64))]
pub struct Ledger {
    /// The owner's cursor, as bytes from the ledger's start, if its context leaves that to the
    /// ledger.
    cursor: AtomicU64,
    /// The entry that `close_gaps` is moving, as `from << 32 | to`, in entry numbers from 1; and
    /// [`gaps::MOVED`], as long as an entry may not be where it was written.
    moving: AtomicU64,
    /// What the task is waiting for, on the contended path alone; null otherwise.
    waiting: AtomicPtr<()>,
    /// Whether the task's last window has been completed from outside: see `settle`.
    pub(crate) resolution: AtomicU64,
    entries: [Entry; Ledger::CAPACITY],
    /// What comes after the last of them: null for ever.
    beyond: Entry,
}

/// The `resolution` of a ledger that nobody may write: no task's window is ever resolved to it.
const FORBIDDEN: u64 = u64::MAX;

/// The layout. That of an entry is known to the windows' assembly, too.
const HEADER_BYTES: u64 = 32;
pub(crate) const ENTRY_BYTES: u64 = 24;
const LEDGER_BYTES: u64 = 512;
/// The cursor of a ledger without room.
const FULL: u64 = HEADER_BYTES + ENTRY_BYTES * Ledger::CAPACITY as u64;

const _: () = {
    assert!(size_of::<Entry>() == ENTRY_BYTES as usize);
    assert!(size_of::<Ledger>() == LEDGER_BYTES as usize);
    assert!(core::mem::offset_of!(Ledger, entries) == HEADER_BYTES as usize);
    assert!(FULL + ENTRY_BYTES == LEDGER_BYTES);
};

impl Ledger {
    /// How many things a task can hold at once.
    pub const CAPACITY: usize = 19;

    /// The alignment of a ledger, which leaves the low six bits of its address to lock words.
    pub(crate) const ALIGNMENT: u64 = 64;

    /// An empty ledger.
    pub const fn new() -> Self {
        Self {
            cursor: AtomicU64::new(HEADER_BYTES),
            waiting: AtomicPtr::new(ptr::null_mut()),
            moving: AtomicU64::new(0),
            resolution: AtomicU64::new(0),
            entries: [const { Entry::empty() }; Self::CAPACITY],
            beyond: Entry::empty(),
        }
    }

    /// A ledger for what is no task and may interrupt one: for the current ledger of a trap
    /// handler. Whoever acquires a tracked resource with it panics.
    pub const fn forbidden() -> Self {
        let mut ledger = Self::new();
        // Full, so that only who finds no room looks further.
        ledger.cursor = AtomicU64::new(FULL);
        ledger.resolution = AtomicU64::new(FORBIDDEN);
        ledger
    }

    /// Whether it is a [forbidden](Self::forbidden) one.
    pub(crate) fn is_forbidden(&self) -> bool {
        self.resolution.load(Ordering::Relaxed) == FORBIDDEN
    }

    /// What is held, innermost (last acquired) first.
    pub fn held(&self) -> impl Iterator<Item = &Entry> {
        let moved = self.moved_entry();
        self.entries
            .iter()
            .enumerate()
            .rev()
            .filter(move |(index, entry)| !entry.is_vacant() && Some(*index) != moved)
            .map(|(_, entry)| entry)
    }

    /// How many things are held.
    pub fn len(&self) -> usize {
        self.held().count()
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.held().next().is_none()
    }

    /// What the task waits for, if it is on the contended path of a lock, or waits for a wake-up:
    /// where that is, as the entries of those who hold it say it. Null if it does not wait.
    pub fn waiting(&self) -> *mut () {
        self.waiting.load(Ordering::Relaxed)
    }

    /// # Panics
    /// If it is a [forbidden](Self::forbidden) one.
    fn refuse_trap_handlers(&self) {
        assert!(
            !self.is_forbidden(),
            "a tracked resource was acquired in a trap handler, which has no ledger",
        );
    }

    /// Writes down that the task waits for `resource`, until what this returns is dropped.
    ///
    /// As long as it stands, the task lets go of no lock or permit: see [`crate::WaitForGraph`].
    ///
    /// # Panics
    /// If this is no task: it would wait for the one that it interrupts.
    #[must_use]
    pub(crate) fn wait_for(&self, resource: *mut ()) -> Waiting<'_> {
        self.refuse_trap_handlers();
        let outer = self.waiting.load(Ordering::Relaxed);
        self.waiting.store(resource, Ordering::Relaxed);
        Waiting { ledger: self, outer }
    }

    /// Empties the ledger for the next life of its task slot.
    ///
    /// # Safety
    /// The task is gone for good and has been settled, so that no entry is still needed.
    pub unsafe fn reset(&self) {
        self.cursor.store(HEADER_BYTES, Ordering::Relaxed);
        for entry in &self.entries {
            entry.empty_out();
        }
        self.waiting.store(ptr::null_mut(), Ordering::Relaxed);
        self.moving.store(0, Ordering::Relaxed);
        self.resolution.store(0, Ordering::Relaxed);
    }

    /// Makes the ledger that of a running task again, from outside: with `len` entries, of which
    /// the last is held, and nothing above it; waiting for `waiting`, and in no window. Where its
    /// cursor belongs, the task sees for itself.
    ///
    /// It may be stopped at any instruction and called again.
    pub(crate) fn go_on_with(&self, len: usize, waiting: *mut ()) {
        // What the task was writing there when it stopped, too.
        for entry in self.entries.iter().skip(len) {
            entry.empty_out();
        }
        self.forget_move();
        self.waiting.store(waiting, Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
        if !planted!(WatermarkStays) {
            self.resolution.store(0, Ordering::Relaxed);
        }
    }

    /// The number of the entry at `entry`, if it is one of this ledger's.
    pub(crate) fn index_of(&self, entry: *const Entry) -> Option<usize> {
        let offset = entry.addr().checked_sub(self.entries.as_ptr().addr())?;
        let index = offset / ENTRY_BYTES as usize;
        (offset.is_multiple_of(ENTRY_BYTES as usize) && index < Self::CAPACITY).then_some(index)
    }

    pub(crate) fn entry(&self, index: usize) -> Option<&Entry> {
        self.entries.get(index)
    }

    pub(crate) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The task's cursor, if its context leaves that to the ledger.
    #[inline(always)]
    pub(crate) fn cursor(&self) -> Cursor {
        Cursor(Place::at(NonNull::from(self), self.cursor.load(Ordering::Relaxed)))
    }

    /// Sets that.
    #[inline(always)]
    pub(crate) fn set_cursor(&self, cursor: Cursor) {
        self.cursor.store(self.offset_of(cursor.0), Ordering::Relaxed);
    }

    /// How far from the beginning a place is that is in this ledger.
    #[inline(always)]
    fn offset_of(&self, place: Place) -> u64 {
        place.0.addr().get().wrapping_sub(ptr::from_ref(self).addr()) as u64
    }

    /// The innermost entry that lists `resource`: for what is dropped out of order.
    #[cold]
    #[inline(never)]
    pub(crate) fn find(&self, resource: *const ()) -> Option<&Entry> {
        self.held().find(|entry| entry.resource().cast_const() == resource)
    }
}

/// That a task waits: see [`Ledger::wait_for`].
pub(crate) struct Waiting<'a> {
    ledger: &'a Ledger,
    /// What it waits for besides: a wait in a queue may have to take a lock to look again.
    outer: *mut (),
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.ledger.waiting.store(self.outer, Ordering::Relaxed);
    }
}

impl Default for Ledger {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.held()).finish()
    }
}
