//! A ledger as its own task writes it.
#![expect(unsafe_code, reason = "entries are trusted by settle, so writing one is unsafe")]

use core::fmt;
use core::marker::PhantomData;
use core::ops::Deref;
use core::sync::atomic::{Ordering, compiler_fence};

use super::{Cursor, FULL, HEADER_BYTES, LEDGER_BYTES, Ledger, LedgerFull};
use crate::{CurrentLedger, Entry, Operations};

/// The ledger of the task that runs. What a task does to the ledger of another one, which does not
/// run, is in [`Ledger`] itself.
///
/// Not `Send`.
pub struct OwnLedger<'l, L> {
    ledger: &'l Ledger,
    context: PhantomData<*const L>,
}

impl<L> Clone for OwnLedger<'_, L> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}

impl<L> Copy for OwnLedger<'_, L> {}

impl<L> fmt::Debug for OwnLedger<'_, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.ledger.fmt(f)
    }
}

impl<L> Deref for OwnLedger<'_, L> {
    type Target = Ledger;

    #[inline(always)]
    fn deref(&self) -> &Ledger {
        self.ledger
    }
}

impl<'l, L: CurrentLedger> OwnLedger<'l, L> {
    /// That of the task that calls.
    #[inline(always)]
    pub(crate) fn current() -> Self {
        // SAFETY: `CurrentLedger`: the ledger is this task's and lives as long as it. Nobody has
        // this for longer than the task runs.
        Self { ledger: unsafe { L::current().as_ref() }, context: PhantomData }
    }

    /// As an ordinary one.
    pub(crate) fn get(self) -> &'l Ledger {
        self.ledger
    }

    #[inline(always)]
    fn set_cursor(self, cursor: Cursor) {
        compiler_fence(Ordering::SeqCst);
        // SAFETY: `CurrentLedger`: this is the task's own, and everything behind it lists nothing.
        unsafe { L::set_cursor(cursor) };
        compiler_fence(Ordering::SeqCst);
    }

    /// Where the next entry goes.
    ///
    /// # Errors
    /// If there is no room, even after the gaps have been closed.
    #[inline(always)]
    pub(crate) fn room(self) -> Result<Cursor, LedgerFull> {
        let cursor = L::cursor();
        if self.offset_of(cursor) >= FULL {
            return self.make_room();
        }
        debug_assert!(
            // SAFETY: it is in this ledger.
            unsafe { cursor.entry() }.resource().is_null(),
            "the cursor is not where the context had it set",
        );
        Ok(cursor)
    }

    #[cold]
    #[inline(never)]
    fn make_room(self) -> Result<Cursor, LedgerFull> {
        assert!(
            !self.is_forbidden(),
            "a tracked resource was acquired in a trap handler, which has no ledger",
        );
        self.close_gaps();
        self.trim();
        let cursor = L::cursor();
        if self.offset_of(cursor) < FULL { Ok(cursor) } else { Err(LedgerFull) }
    }

    /// Has an entry written by `window`, which does so in the place that it is given, or does
    /// nothing and says so. Returns where it is.
    ///
    /// # Errors
    /// If there is no room; nothing has happened then.
    ///
    /// # Safety
    /// `window` returns whether it has written the entry.
    #[inline(always)]
    pub(crate) unsafe fn record_by(
        self,
        window: impl FnOnce(Cursor) -> bool,
    ) -> Result<Option<Cursor>, LedgerFull> {
        let place = self.room()?;
        let recorded = window(place);
        if recorded {
            self.pass_over(place);
        }
        Ok(recorded.then_some(place))
    }

    /// Goes on behind the entry that a window has written at the cursor.
    ///
    /// The entry counts from its own last store on; this is for the next one's sake alone.
    #[inline(always)]
    pub(crate) fn pass_over(self, place: Cursor) {
        if !planted!(CursorStays) {
            self.set_cursor(place.next());
        }
    }

    /// Writes an entry down, outside any window: for a resource that nobody else can see yet.
    ///
    /// # Errors
    /// If there is no room.
    ///
    /// # Safety
    /// The task holds `resource` in the sense of `operations` until it erases the entry.
    #[inline(always)]
    pub(crate) unsafe fn record(
        self,
        resource: *mut (),
        operations: &'static Operations,
        frame: u64,
    ) -> Result<&'l Entry, LedgerFull> {
        let place = self.room()?;
        // SAFETY: it is in this ledger.
        let entry = unsafe { place.entry() };
        entry.write(resource, core::ptr::from_ref(operations).cast_mut(), frame);
        self.pass_over(place);
        Ok(entry)
    }

    /// The entry at `at`, where a guard has written it for `resource`, if it is the last one and has
    /// not been moved since: as it is if guards are dropped in order.
    ///
    /// All that it loads has not been stored for a while, and no load has to wait for another.
    ///
    /// # Safety
    /// The ledger that `at` is in is still there.
    #[inline(always)]
    pub(crate) unsafe fn last_at(self, at: Cursor, resource: *const ()) -> Option<&'l Entry> {
        // SAFETY: by the contract; and there is always one more after an entry.
        let (entry, next): (&Entry, &Entry) = unsafe { (at.entry(), at.next().entry()) };
        let other = next.resource().addr() as u64 | self.moving.load(Ordering::Relaxed);
        let last = (other == 0 && self.offset_of(at) < LEDGER_BYTES).then_some(entry);
        debug_assert!(last.is_none() || L::cursor() == at.next(), "an entry above another is null");
        debug_assert!(
            last.is_none_or(|last| last.resource().cast_const() == resource),
            "the entry where a guard was written lists something else",
        );
        last
    }

    /// The last entry, if it lists `resource`: what a handle that is dropped in order finds.
    #[inline(always)]
    pub(crate) fn top(self, resource: *const ()) -> Option<Cursor> {
        let last = L::cursor().previous();
        // SAFETY: it is in this ledger. With no entry in use, `moving` stands where the resource
        // would be. In a task that runs it is 0, or `MOVED` if the last entry has been dropped in
        // order since entries were moved; neither is where a resource lies, nor the mark of one, so
        // it matches nothing.
        let entry: &Entry = unsafe { last.entry() };
        (entry.resource().cast_const() == resource).then_some(last)
    }

    /// The entry that lists what the calling handle owns: at the top, if handles are dropped in
    /// order.
    ///
    /// # Panics
    /// If there is none: the handle is not this task's.
    #[inline(always)]
    pub(crate) fn own(self, resource: *const ()) -> &'l Entry {
        match self.top(resource) {
            // SAFETY: it is in this ledger.
            Some(top) => unsafe { top.entry() },
            None => self
                .ledger
                .find(resource)
                .expect("a tracked handle is dropped by the task that has it"),
        }
    }

    /// As [`OwnLedger::own`], for a guard of a resource that the task may hold several times: the
    /// entry at `at`, where the guard has written it, unless entries have been moved.
    ///
    /// # Panics
    /// As [`OwnLedger::own`].
    pub(crate) fn own_at(self, at: Cursor, resource: *const ()) -> &'l Entry {
        let unmoved = !self.has_moved();
        self.ledger
            .index_of(at.as_ptr())
            .and_then(|index| self.ledger.entry(index))
            .filter(|entry| unmoved && entry.resource().cast_const() == resource)
            .unwrap_or_else(|| self.own(resource))
    }

    /// Where the entry is that lists what the calling handle owns.
    ///
    /// # Panics
    /// As [`OwnLedger::own`].
    pub(crate) fn place_of_own(self, resource: *const ()) -> Cursor {
        let offset = core::ptr::from_ref(self.own(resource)).addr() - self.address();
        self.at(offset as u64)
    }

    /// Takes the last entry's room back, which lists nothing any more.
    #[inline(always)]
    pub(crate) fn drop_last(self, last: Cursor) {
        self.set_cursor(last);
    }

    /// Takes this entry away, the last.
    #[inline(always)]
    pub(crate) fn pop(self, last: Cursor) {
        // SAFETY: it is in this ledger.
        unsafe { last.entry() }.empty_out();
        self.drop_last(last);
    }

    /// Gives back the room of erased entries at the end.
    pub(crate) fn trim(self) {
        let mut end = L::cursor();
        while self.offset_of(end) > HEADER_BYTES {
            // SAFETY: it is in this ledger, and not its first.
            let last: &Entry = unsafe { end.previous().entry() };
            if !last.is_vacant() {
                break;
            }
            end = end.previous();
            self.set_cursor(end);
            last.empty_out();
        }
        if self.offset_of(end) == HEADER_BYTES {
            self.forget_that_any_moved();
        }
    }
}
