//! What one task holds: its entries, in the order of acquisition.
#![expect(unsafe_code, reason = "entries are trusted by settle, so writing one is unsafe")]

mod gaps;
mod oldest_lock;
#[cfg(test)]
mod tests;

use core::fmt;
use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering, compiler_fence};

use crate::entry::Place;
use crate::{Entry, Operations};

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
/// Entries lie in the order of acquisition. The owner pushes and pops at the end; an entry that
/// is released out of order is erased in place, and its room comes back when the entries above it
/// are gone, or when a push finds no room and closes the gaps. Entries beyond the last are null, so
/// that a guard can see whether its entry is the last without a look at the depth, which has just
/// been stored: on the way of a load behind such a store lies all that a release costs.
///
/// The atomics are for the reader's sake: every access is a plain `mov`. Within the task, program
/// order is what the keeper sees, since it looks only after the freeze.
#[repr(C, align(64))]
pub struct Ledger {
    /// Bytes from the ledger's start to the first free entry.
    pub(crate) depth: AtomicU64,
    /// The entry that `close_gaps` is moving, as `from << 32 | to`, in entry numbers from 1; and
    /// [`gaps::MOVED`], as long as an entry may not be where it was written.
    moving: AtomicU64,
    /// What the task is waiting for, on the contended path alone; null otherwise.
    waiting: AtomicPtr<()>,
    /// How far the settling of the task's last window has come: see `settle`.
    pub(crate) resolution: AtomicU64,
    entries: [Entry; Ledger::CAPACITY],
    /// What comes after the last of them: null for ever.
    beyond: Entry,
}

/// The `resolution` of a ledger that nobody may write: no task's window is ever resolved to it.
const FORBIDDEN: u64 = u64::MAX;

/// What the windows' assembly knows about the layout.
pub(crate) const HEADER_BYTES: u64 = 32;
pub(crate) const ENTRY_BYTES: u64 = 24;
pub(crate) const LEDGER_BYTES: u64 = 512;
/// The depth of a ledger without room.
const FULL: u64 = HEADER_BYTES + ENTRY_BYTES * Ledger::CAPACITY as u64;

const _: () = {
    assert!(size_of::<Entry>() == ENTRY_BYTES as usize);
    assert!(size_of::<Ledger>() == LEDGER_BYTES as usize);
    assert!(core::mem::offset_of!(Ledger, depth) == 0);
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
            depth: AtomicU64::new(HEADER_BYTES),
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
        ledger.depth = AtomicU64::new(FULL);
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
        self.used()
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

    /// Writes down that the task waits for `resource`, until what this returns is dropped.
    ///
    /// As long as it stands, the task lets go of no lock or permit: see [`crate::WaitForGraph`].
    #[must_use]
    pub(crate) fn wait_for(&self, resource: *mut ()) -> Waiting<'_> {
        let outer = self.waiting.load(Ordering::Relaxed);
        self.waiting.store(resource, Ordering::Relaxed);
        Waiting { ledger: self, outer }
    }

    /// Empties the ledger for the next life of its task slot.
    ///
    /// # Safety
    /// The task is gone for good and has been settled, so that no entry is still needed.
    pub unsafe fn reset(&self) {
        self.depth.store(HEADER_BYTES, Ordering::Relaxed);
        for entry in &self.entries {
            entry.empty_out();
        }
        self.waiting.store(ptr::null_mut(), Ordering::Relaxed);
        self.moving.store(0, Ordering::Relaxed);
        self.resolution.store(0, Ordering::Relaxed);
    }

    /// Makes the ledger that of a running task again, from outside: with `len` entries, of which
    /// the last is held, and nothing above it; waiting for `waiting`, and in no window.
    ///
    /// It may be stopped at any instruction and called again.
    pub(crate) fn go_on_with(&self, len: usize, waiting: *mut ()) {
        self.set_used_len(len);
        // What a task was writing there when it stopped, too.
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

    /// The entries below the depth, as far as the depth makes sense.
    pub(crate) fn used(&self) -> &[Entry] {
        &self.entries[..self.used_len()]
    }

    fn used_len(&self) -> usize {
        let bytes = self.depth.load(Ordering::Relaxed).saturating_sub(HEADER_BYTES);
        ((bytes / ENTRY_BYTES) as usize).min(Self::CAPACITY)
    }

    fn set_used_len(&self, len: usize) {
        self.set_depth(HEADER_BYTES + ENTRY_BYTES * len as u64);
    }

    #[inline(always)]
    fn set_depth(&self, depth: u64) {
        compiler_fence(Ordering::SeqCst);
        self.depth.store(depth, Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
    }

    /// The offset of the next free entry: what a window that records takes as `depth`.
    ///
    /// # Errors
    /// If there is no room, even after the gaps have been closed.
    #[inline(always)]
    pub(crate) fn room(&self) -> Result<u64, LedgerFull> {
        let depth = self.depth.load(Ordering::Relaxed);
        if depth < FULL { Ok(depth) } else { self.make_room() }
    }

    #[cold]
    #[inline(never)]
    fn make_room(&self) -> Result<u64, LedgerFull> {
        assert!(
            !self.is_forbidden(),
            "a tracked resource was acquired in a trap handler, which has no ledger",
        );
        self.close_gaps();
        let depth = self.depth.load(Ordering::Relaxed);
        if depth < FULL { Ok(depth) } else { Err(LedgerFull) }
    }

    /// The entry at `place`, where a guard has written it for `resource`, if it is this ledger's
    /// last and has not been moved since: as it is if guards are dropped in order.
    ///
    /// All that it loads has not been stored for a while, and no load has to wait for another.
    ///
    /// # Safety
    /// The ledger of `place` is still there.
    #[inline(always)]
    pub(crate) unsafe fn last_at(&self, place: Place, resource: *const ()) -> Option<&Entry> {
        // SAFETY: by the contract; whoever makes a `Place` has written an entry there, and there is
        // always one more after it.
        let (entry, next) = unsafe { (place.0.as_ref(), place.0.add(1).as_ref()) };
        let other = next.resource().addr() as u64 | self.moving.load(Ordering::Relaxed);
        let last = (other == 0 && self.contains(place)).then_some(entry);
        debug_assert!(
            last.is_none_or(|last| ptr::eq(last, self.used().last().unwrap_or(&self.beyond))),
            "an entry above another that is in use is null",
        );
        debug_assert!(
            last.is_none_or(|last| last.resource().cast_const() == resource),
            "the entry where a guard was written lists something else",
        );
        last
    }

    /// Takes the last entry's room back, which is empty.
    #[inline(always)]
    pub(crate) fn drop_last(&self, last: &Entry) {
        self.set_depth((ptr::from_ref(last).addr() - ptr::from_ref(self).addr()) as u64);
    }

    #[inline(always)]
    fn contains(&self, place: Place) -> bool {
        place.0.addr().get().wrapping_sub(ptr::from_ref(self).addr()) < LEDGER_BYTES as usize
    }

    /// The last entry, if it lists `resource`: what a handle that is dropped in order finds.
    #[inline(always)]
    pub(crate) fn top(&self, resource: *const ()) -> Option<&Entry> {
        let depth = self.depth.load(Ordering::Relaxed);
        // SAFETY: only this task writes `depth`, so it is `HEADER_BYTES` plus a whole number of
        // entries. With no entry in use, `moving` stands where the resource would be. In a task
        // that runs it is 0, or `MOVED` if the last entry has been dropped in order since entries
        // were moved; neither is where a resource lies, nor the mark of one, so it matches nothing.
        let last = unsafe { self.at(depth - ENTRY_BYTES) };
        (last.resource().cast_const() == resource).then_some(last)
    }

    /// The innermost entry that lists `resource`: for what is dropped out of order.
    #[cold]
    #[inline(never)]
    pub(crate) fn find(&self, resource: *const ()) -> Option<&Entry> {
        self.held().find(|entry| entry.resource().cast_const() == resource)
    }

    /// The entry that lists what the calling handle owns: at the top, if handles are dropped in
    /// order.
    ///
    /// # Panics
    /// If there is none: the handle is not this task's.
    #[inline(always)]
    pub(crate) fn own(&self, resource: *const ()) -> &Entry {
        self.top(resource)
            .or_else(|| self.find(resource))
            .expect("a tracked handle is dropped by the task that has it")
    }

    /// As [`Ledger::own`], for a guard of a resource that the task may hold several times: the
    /// entry at `place`, where the guard has written it, unless entries have been moved.
    ///
    /// # Panics
    /// As [`Ledger::own`].
    pub(crate) fn own_at(&self, place: Place, resource: *const ()) -> &Entry {
        let unmoved = !self.has_moved();
        self.index_of(place.0.as_ptr())
            .and_then(|index| self.entry(index))
            .filter(|entry| unmoved && entry.resource().cast_const() == resource)
            .unwrap_or_else(|| self.own(resource))
    }

    /// Writes an entry down, outside any window: for a resource that nobody else can see yet.
    ///
    /// # Errors
    /// If there is no room.
    ///
    /// # Safety
    /// The caller is the ledger's task, and holds `resource` in the sense of `operations` until it
    /// erases the entry.
    #[inline(always)]
    pub(crate) unsafe fn record(
        &self,
        resource: *mut (),
        operations: &'static Operations,
        frame: u64,
    ) -> Result<&Entry, LedgerFull> {
        let depth = self.room()?;
        // SAFETY: `room` gives the offset of an entry that is free.
        let entry = unsafe { self.at(depth) };
        entry.write(resource, ptr::from_ref(operations).cast_mut(), frame);
        // The store that counts comes last; its fences keep the compiler to that.
        self.set_depth(depth + ENTRY_BYTES);
        Ok(entry)
    }

    /// Takes this entry away, the last, by one store.
    #[inline(always)]
    pub(crate) fn pop(&self, last: &Entry) {
        last.empty_out();
        self.drop_last(last);
    }

    /// # Safety
    /// `offset` is [`HEADER_BYTES`] plus a whole number of entries, below [`FULL`]; or one
    /// entry less than that, for the header read as an entry.
    #[inline(always)]
    unsafe fn at(&self, offset: u64) -> &Entry {
        // SAFETY: by the contract, 24 bytes of the ledger lie there, of words that may be shared.
        unsafe { &*ptr::from_ref(self).byte_add(offset as usize).cast::<Entry>() }
    }

    /// Completes, from outside, what a window that records had begun: idempotent.
    pub(crate) fn complete(
        &self,
        index: usize,
        resource: *mut (),
        operations: *mut Operations,
        frame: u64,
    ) {
        let Some(entry) = self.entries.get(index) else { return };
        entry.write(resource, operations, frame);
        self.set_used_len(index + 1);
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
