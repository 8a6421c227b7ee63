//! A ledger as its own task writes it.
#![expect(unsafe_code, reason = "entries are trusted by settle, so writing one is unsafe")]

use core::fmt;
use core::marker::PhantomData;
use core::ops::Deref;
use core::ptr::NonNull;
use core::sync::atomic::{Ordering, compiler_fence};

use super::{Cursor, FULL, HEADER_BYTES, LEDGER_BYTES, Ledger, LedgerFull, Place};
use crate::{CurrentLedger, Entry, Operations};

/// The ledger of the task that runs, with all that moves its cursor. What can be done to the ledger
/// of any task is in [`Ledger`].
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

    /// As that of any task.
    pub(crate) fn as_ledger(self) -> &'l Ledger {
        self.ledger
    }

    /// The place at the cursor.
    #[inline(always)]
    fn end(self) -> Place {
        L::cursor().0
    }

    /// Puts the cursor to this place.
    ///
    /// # Safety
    /// It is in this ledger, and every place from it on is null.
    #[inline(always)]
    unsafe fn end_at(self, place: Place) {
        compiler_fence(Ordering::SeqCst);
        // SAFETY: this function's contract.
        unsafe { L::set_cursor(Cursor(place)) };
        compiler_fence(Ordering::SeqCst);
    }

    /// Where the next entry goes.
    ///
    /// # Errors
    /// If there is no room, even after the gaps have been closed.
    #[inline(always)]
    pub(crate) fn room(self) -> Result<Place, LedgerFull> {
        let end = self.end();
        if self.offset_of(end) >= FULL {
            return self.make_room();
        }
        debug_assert!(
            // SAFETY: it is in this ledger.
            unsafe { end.entry() }.resource().is_null(),
            "the cursor is not where the context had it set",
        );
        Ok(end)
    }

    #[cold]
    #[inline(never)]
    fn make_room(self) -> Result<Place, LedgerFull> {
        self.refuse_trap_handlers();
        self.close_gaps();
        self.trim();
        let end = self.end();
        if self.offset_of(end) < FULL { Ok(end) } else { Err(LedgerFull) }
    }

    /// Has an entry written by `window`, which does so in the place that it is given, or does
    /// nothing and says so. Returns where it is.
    ///
    /// # Errors
    /// If there is no room; nothing has happened then.
    ///
    /// # Safety
    /// `window` returns whether it has written the entry, and changes nothing else of the ledger.
    #[inline(always)]
    pub(crate) unsafe fn record_by(
        self,
        window: impl FnOnce(Place) -> bool,
    ) -> Result<Option<Place>, LedgerFull> {
        let place = self.room()?;
        let recorded = window(place);
        if recorded {
            // SAFETY: by the contract.
            unsafe { self.pass_over(place) };
        }
        Ok(recorded.then_some(place))
    }

    /// Goes on behind the entry that has been written at the cursor.
    ///
    /// The entry counts from its own last store on; this is for the next one's sake alone.
    ///
    /// # Safety
    /// It has been written at `place`, which is from [`OwnLedger::room`], and nothing else of the
    /// ledger has changed since.
    #[inline(always)]
    pub(crate) unsafe fn pass_over(self, place: Place) {
        if !planted!(CursorStays) {
            // SAFETY: there was room for one, and everything from the cursor on was null.
            unsafe { self.end_at(place.next()) };
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
        // SAFETY: it has been written there, and nothing else.
        unsafe { self.pass_over(place) };
        Ok(entry)
    }

    /// The entry at `at`, where a guard has written it for `resource`, if it is the last one and has
    /// not been moved since: as it is if guards are dropped in order.
    ///
    /// All that it loads has not been stored for a while, and no load has to wait for another.
    ///
    /// # Safety
    /// An entry has been written at `at`, in a ledger that is still there.
    #[inline(always)]
    pub(crate) unsafe fn last_at(self, at: Place, resource: *const ()) -> Option<&'l Entry> {
        // SAFETY: by the contract; and there is always one more after an entry.
        let (entry, next): (&Entry, &Entry) = unsafe { (at.entry(), at.next().entry()) };
        let other = next.resource().addr() as u64 | self.moving.load(Ordering::Relaxed);
        let last = (other == 0 && self.offset_of(at) < LEDGER_BYTES).then_some(entry);
        debug_assert!(
            // SAFETY: as above.
            last.is_none() || self.end() == unsafe { at.next() },
            "an entry above another that is in use is null",
        );
        debug_assert!(
            last.is_none_or(|last| last.resource().cast_const() == resource),
            "the entry where a guard was written lists something else",
        );
        last
    }

    /// Where the last entry is, if it lists `resource`: what a handle that is dropped in order finds.
    #[inline(always)]
    pub(crate) fn top(self, resource: *const ()) -> Option<Place> {
        // SAFETY: there is one before the cursor; or, with no entry in use, the header, in which
        // `moving` stands where the resource would be. In a task that runs it is 0, or `MOVED` if the
        // last entry has been dropped in order since entries were moved; neither is where a resource
        // lies, nor the mark of one, so it matches nothing.
        let (last, entry): (_, &Entry) = unsafe {
            let last = self.end().previous();
            (last, last.entry())
        };
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
            Some(last) => unsafe { last.entry() },
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
    pub(crate) fn own_at(self, at: Place, resource: *const ()) -> &'l Entry {
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
    pub(crate) fn place_of_own(self, resource: *const ()) -> Place {
        self.place_of(self.own(resource))
    }

    fn place_of(self, entry: &Entry) -> Place {
        // The pointer is the ledger's, since it goes from one entry to the next.
        Place(NonNull::from(self.ledger).cast().with_addr(NonNull::from(entry).addr()))
    }

    /// Takes the last entry's room back.
    ///
    /// # Safety
    /// It is at this place, and is null by now.
    #[inline(always)]
    pub(crate) unsafe fn drop_last(self, last: Place) {
        // SAFETY: by the contract, and since everything behind the last entry is null.
        unsafe { self.end_at(last) };
    }

    /// Takes the last entry away.
    ///
    /// # Safety
    /// It is at this place, and nothing is owed for it.
    #[inline(always)]
    pub(crate) unsafe fn pop(self, last: Place) {
        // SAFETY: by the contract, it is in this ledger.
        unsafe {
            last.entry().empty_out();
            self.drop_last(last);
        }
    }

    /// Takes this entry away, behind which everything is null, wherever the cursor is: after a
    /// recovery it is where the task was stopped, behind the entry, or still at it.
    pub(crate) fn cut_at(self, last: &Entry) {
        // No gap, for the cursor may be here.
        last.empty_out();
        self.trim();
    }

    /// Gives back the room of erased entries at the end.
    pub(crate) fn trim(self) {
        let before = self.end();
        let mut end = before;
        while self.offset_of(end) > HEADER_BYTES {
            // SAFETY: there is an entry before it in this ledger.
            let (place, last): (_, &Entry) = unsafe {
                let place = end.previous();
                (place, place.entry())
            };
            if !last.is_vacant() {
                break;
            }
            last.empty_out();
            end = place;
        }
        debug_assert!(
            self.entries
                .iter()
                .take_while(|entry| core::ptr::from_ref(*entry) < end.as_ptr().cast_const())
                .all(|entry| !entry.resource().is_null()),
            "an entry below another that is held is null, and not a gap",
        );
        if end != before {
            // SAFETY: what was not null from there on is by now.
            unsafe { self.end_at(end) };
        }
        if self.offset_of(end) == HEADER_BYTES {
            self.forget_that_any_moved();
        }
    }
}
