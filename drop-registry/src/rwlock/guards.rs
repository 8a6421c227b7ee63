//! Held read-write locks.

use core::fmt;
use core::mem::ManuallyDrop;
use core::ops::{Deref, DerefMut};

use super::RwLock;
use crate::arch;
use crate::owner_died::sealed::Sealed;
use crate::owner_word::{FREE, NOT_RECOVERABLE};
use crate::{CurrentLedger, OwnLedger, Place, WaitStrategy};

#[cfg(feature = "lock_api")]
impl<T: ?Sized, L: CurrentLedger, R: WaitStrategy<L>> RwLock<T, L, R> {
    /// Whether a death has left a mark.
    pub(crate) fn is_marked(&mut self) -> bool {
        self.word.is_marked() || self.readers.are_marked()
    }

    /// Takes the marks of a death off, for the writer.
    pub(crate) fn clear_marks(&self) {
        self.word.clear_mark();
        self.readers.clear_mark();
    }

    /// Unlocks for a guard that was forgotten.
    ///
    /// # Safety
    /// The calling task reads.
    pub(crate) unsafe fn unlock_read_found(&self) {
        let ledger = OwnLedger::<L>::current();
        drop(ReadGuard::new(self, ledger.place_of_own(self.as_read_resource())));
    }

    /// As [`RwLock::unlock_read_found`]. The marks of a death stay, if there are any.
    ///
    /// # Safety
    /// The calling task writes.
    pub(crate) unsafe fn unlock_write_found(&self) {
        // SAFETY: this function's contract.
        unsafe { self.write_guard_found() }.unlock(self.word.marks());
    }

    /// As [`RwLock::unlock_read_found`], for good.
    ///
    /// # Safety
    /// The calling task writes.
    pub(crate) unsafe fn give_up_found(&self) {
        // SAFETY: this function's contract.
        unsafe { self.write_guard_found() }.unlock(NOT_RECOVERABLE);
    }

    /// The guard that was forgotten.
    ///
    /// # Safety
    /// The calling task writes.
    unsafe fn write_guard_found(&self) -> ManuallyDrop<WriteGuard<'_, T, L, R>> {
        let ledger = OwnLedger::<L>::current();
        let place = ledger.place_of_own(self.word.as_resource());
        ManuallyDrop::new(WriteGuard::new(self, place))
    }
}

/// A [`RwLock`] held for reading; dropping it unlocks.
///
/// Not `Send`: the ledger that says who reads is the reading task's own.
#[must_use = "the lock is released when the guard is dropped"]
pub struct ReadGuard<'a, T: ?Sized, L: CurrentLedger, R: WaitStrategy<L>> {
    lock: &'a RwLock<T, L, R>,
    place: Place,
}

// SAFETY: a shared guard gives shared access to the value alone.
unsafe impl<T: ?Sized + Sync, L: CurrentLedger, R: WaitStrategy<L>> Sync
    for ReadGuard<'_, T, L, R>
{
}

impl<'a, T: ?Sized, L: CurrentLedger, R: WaitStrategy<L>> ReadGuard<'a, T, L, R> {
    #[inline(always)]
    pub(super) fn new(lock: &'a RwLock<T, L, R>, place: Place) -> Self {
        Self { lock, place }
    }
}

impl<T: ?Sized, L: CurrentLedger, R: WaitStrategy<L>> Drop for ReadGuard<'_, T, L, R> {
    #[inline]
    fn drop(&mut self) {
        let ledger = OwnLedger::<L>::current();
        if R::SLEEPS {
            return self.lock.stop_reading(ledger);
        }
        // SAFETY: the place is in the ledger of the task that took the lock.
        let last = unsafe { ledger.last_at(self.place, self.lock.as_read_resource()) };
        let Some(entry) = last else {
            return self.lock.stop_reading_out_of_order(ledger, self.place);
        };
        // SAFETY: this guard is a reader, which the last entry lists; and that is null then.
        unsafe {
            arch::leave_last(self.lock.readers.get(), entry);
            ledger.drop_last(self.place);
        }
    }
}

impl<T: ?Sized, L: CurrentLedger, R: WaitStrategy<L>> Deref for ReadGuard<'_, T, L, R> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: nobody writes while the guard is counted, and a guard is handed out only for a
        // value that is whole.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T: ?Sized + fmt::Debug, L: CurrentLedger, R: WaitStrategy<L>> fmt::Debug
    for ReadGuard<'_, T, L, R>
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// A [`RwLock`] held for writing; dropping it unlocks.
///
/// Not `Send`: the ledger that says who writes is the writing task's own.
#[must_use = "the lock is released when the guard is dropped"]
pub struct WriteGuard<'a, T: ?Sized, L: CurrentLedger, R: WaitStrategy<L>> {
    lock: &'a RwLock<T, L, R>,
    place: Place,
}

// SAFETY: a shared guard gives shared access to the value alone.
unsafe impl<T: ?Sized + Sync, L: CurrentLedger, R: WaitStrategy<L>> Sync
    for WriteGuard<'_, T, L, R>
{
}

impl<'a, T: ?Sized, L: CurrentLedger, R: WaitStrategy<L>> WriteGuard<'a, T, L, R> {
    pub(super) fn new(lock: &'a RwLock<T, L, R>, place: Place) -> Self {
        Self { lock, place }
    }

    #[inline(always)]
    fn unlock(&self, word: u64) {
        let ledger = OwnLedger::<L>::current();
        // SAFETY: this guard holds the word.
        unsafe { self.lock.unlock_write(word, ledger, self.place) };
    }
}

impl<T: ?Sized, L: CurrentLedger, R: WaitStrategy<L>> Sealed for WriteGuard<'_, T, L, R> {
    type Value = T;

    fn value_ptr(&self) -> *mut T {
        // A `ManuallyDrop` has the layout of what is in it.
        self.lock.value.get() as *mut T
    }

    fn clear_mark(&self) {
        self.lock.word.clear_mark();
        self.lock.readers.clear_mark();
    }

    fn give_up(self) {
        let guard = ManuallyDrop::new(self);
        guard.unlock(NOT_RECOVERABLE);
    }
}

impl<T: ?Sized, L: CurrentLedger, R: WaitStrategy<L>> Drop for WriteGuard<'_, T, L, R> {
    #[inline]
    fn drop(&mut self) {
        self.unlock(FREE);
    }
}

impl<T: ?Sized, L: CurrentLedger, R: WaitStrategy<L>> Deref for WriteGuard<'_, T, L, R> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the guard holds the lock, nobody reads, and a plain guard exists only for a
        // value that is whole: `OwnerDied` keeps it back until then.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T: ?Sized, L: CurrentLedger, R: WaitStrategy<L>> DerefMut for WriteGuard<'_, T, L, R> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as in `deref`, and `&mut self` makes it exclusive.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T: ?Sized + fmt::Debug, L: CurrentLedger, R: WaitStrategy<L>> fmt::Debug
    for WriteGuard<'_, T, L, R>
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
