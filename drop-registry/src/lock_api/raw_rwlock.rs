//! Our read-write lock as a raw lock.
#![expect(unsafe_code, reason = "implements a lock")]

use core::fmt;
use core::mem::{self, ManuallyDrop};

use ::lock_api::{GuardNoSend, RwLockWriteGuard};
use spin::relax::Spin;

use super::destroyed_while_torn;
use crate::no_unwind::{refuse, without_unwinding};
use crate::owner_died::sealed::Sealed;
use crate::{
    CurrentLedger, Exclusive, LockError, LockResult, OwnerDied, RwLock, TryLockError, WaitStrategy,
};

/// [`RwLock`] as a [`lock_api::RawRwLock`](::lock_api::RawRwLock): exact at every instruction.
///
/// After a *writer's* death the lock is refused, and after a *reader's* death it is to writers,
/// until somebody recovers the value by [`write()`]. `lock_api` keeps the value apart from the
/// lock, so nothing says here that no reader can tear it, but [`new_untorn`](Self::new_untorn). See
/// the [module](super).
#[repr(transparent)]
pub struct RawRwLock<L: CurrentLedger, R: WaitStrategy<L> = Spin>(RwLock<(), L, R>);

impl<L: CurrentLedger, R: WaitStrategy<L>> RawRwLock<L, R> {
    /// A lock for a value that no reader can tear, so that a reader's death is nothing to the
    /// others: to be given to [`lock_api::RwLock::from_raw`](::lock_api::RwLock::from_raw).
    ///
    /// # Safety
    /// The value behind it is of a type that can promise
    /// [`UntornByReaders`](crate::UntornByReaders).
    pub const unsafe fn new_untorn() -> Self {
        Self(RwLock::new_untorn(()))
    }

    /// Takes the lock for writing; `guard` makes what is returned.
    #[inline(always)]
    pub(super) fn take<G: Exclusive>(&self, guard: impl FnOnce() -> G) -> LockResult<G> {
        match self.0.write() {
            Ok(held) => {
                mem::forget(held);
                Ok(guard())
            }
            Err(LockError::OwnerDied(died)) => {
                mem::forget(died);
                Err(LockError::OwnerDied(OwnerDied::new(guard())))
            }
            Err(LockError::NotRecoverable) => Err(LockError::NotRecoverable),
            Err(LockError::Recursive) => Err(LockError::Recursive),
            Err(LockError::LedgerFull) => Err(LockError::LedgerFull),
        }
    }

    /// Takes the marks of a death off, for the writer.
    pub(super) fn clear_marks(&self) {
        self.0.clear_marks();
    }

    /// Unlocks for good.
    ///
    /// # Safety
    /// The calling task writes.
    pub(super) unsafe fn give_up(&self) {
        // SAFETY: this function's contract.
        unsafe { self.0.give_up_found() };
    }
}

// SAFETY: `RwLock` has one writer at a time, or readers.
unsafe impl<L: CurrentLedger, R: WaitStrategy<L>> ::lock_api::RawRwLock for RawRwLock<L, R> {
    const INIT: Self = Self(RwLock::new(()));

    /// The ledger that lists the lock is the locking task's own.
    type GuardMarker = GuardNoSend;

    /// # Panics
    /// If a writer died; if the task writes; or if its ledger is full.
    #[inline(always)]
    fn lock_shared(&self) {
        match without_unwinding(|| self.0.read()) {
            Ok(guard) => mem::forget(guard),
            Err(why) => refuse(&format_args!("{why}")),
        }
    }

    #[inline(always)]
    fn try_lock_shared(&self) -> bool {
        self.0.try_read().map(mem::forget).is_ok()
    }

    /// # Panics
    /// If the task does not read.
    #[inline(always)]
    unsafe fn unlock_shared(&self) {
        // SAFETY: this function's contract.
        unsafe { self.0.unlock_read_found() };
    }

    /// # Panics
    /// If a writer or a reader died; if the task reads or writes; or if its ledger is full.
    #[inline(always)]
    fn lock_exclusive(&self) {
        match without_unwinding(|| self.0.write()) {
            Ok(guard) => mem::forget(guard),
            Err(why) => {
                if let LockError::OwnerDied(_) = why {
                    // SAFETY: this task has just taken it. The next one is told again.
                    unsafe { self.0.unlock_write_found() };
                }
                refuse(&format_args!("{why}"))
            }
        }
    }

    #[inline(always)]
    fn try_lock_exclusive(&self) -> bool {
        match self.0.try_write() {
            Ok(guard) => {
                mem::forget(guard);
                true
            }
            Err(TryLockError::Lock(LockError::OwnerDied(died))) => {
                mem::forget(died);
                // SAFETY: as in `lock_exclusive`.
                unsafe { self.0.unlock_write_found() };
                false
            }
            Err(_) => false,
        }
    }

    /// # Panics
    /// If the task does not write.
    #[inline(always)]
    unsafe fn unlock_exclusive(&self) {
        // SAFETY: this function's contract.
        unsafe { self.0.unlock_write_found() };
    }

    fn is_locked(&self) -> bool {
        self.0.is_write_locked() || self.0.reader_count() > 0
    }

    fn is_locked_exclusive(&self) -> bool {
        self.0.is_write_locked()
    }
}

impl<L: CurrentLedger, R: WaitStrategy<L>> Drop for RawRwLock<L, R> {
    /// # Panics
    /// As [`RawMutex`](super::RawMutex)'s.
    fn drop(&mut self) {
        if self.0.is_marked() {
            destroyed_while_torn();
        }
    }
}

impl<L: CurrentLedger, R: WaitStrategy<L>> fmt::Debug for RawRwLock<L, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RawRwLock").field(&self.0).finish()
    }
}

impl<T: ?Sized, L: CurrentLedger, R: WaitStrategy<L>> Sealed
    for RwLockWriteGuard<'_, RawRwLock<L, R>, T>
{
    type Value = T;

    fn value_ptr(&self) -> *mut T {
        RwLockWriteGuard::rwlock(self).data_ptr()
    }

    fn clear_mark(&self) {
        // SAFETY: the raw lock is not unlocked.
        unsafe { RwLockWriteGuard::rwlock(self).raw() }.clear_marks();
    }

    fn give_up(self) {
        let guard = ManuallyDrop::new(self);
        // SAFETY: the lock is held by this guard, which is not used or dropped any more.
        unsafe { RwLockWriteGuard::rwlock(&guard).raw().give_up() };
    }
}

/// Locks `lock` for writing with the protocol of [`RwLock::write`]: a death is told of.
///
/// # Errors
/// [`LockError`] says each; of these [`LockError::OwnerDied`] holds the lock.
#[inline(always)]
pub fn write<T: ?Sized, L: CurrentLedger, R: WaitStrategy<L>>(
    lock: &::lock_api::RwLock<RawRwLock<L, R>, T>,
) -> LockResult<RwLockWriteGuard<'_, RawRwLock<L, R>, T>> {
    // SAFETY: the raw lock is not unlocked here; and what has been taken is a guard's.
    unsafe { lock.raw().take(|| lock.make_write_guard_unchecked()) }
}
