//! Our read-write lock as a raw lock.
#![expect(unsafe_code, reason = "implements a lock")]

use core::fmt;

use ::lock_api::GuardNoSend;
use spin::relax::Spin;

use super::{destroyed_while_torn, refuse};
use crate::{CurrentLedger, LockError, RwLock, TryLockError, WaitStrategy};

/// [`RwLock`] as a [`lock_api::RawRwLock`](::lock_api::RawRwLock): exact at every instruction.
///
/// After a *writer's* death the lock is refused for good, and after a *reader's* death to writers: to
/// mend the value, use [`RwLock`] itself. `lock_api` keeps the value apart from the lock, so nothing
/// says here that no reader can tear it, but [`new_untorn`](Self::new_untorn). See the
/// [module](super).
pub struct RawRwLock<L: CurrentLedger, R: WaitStrategy<L> = Spin>(RwLock<(), L, R>);

impl<L: CurrentLedger, R: WaitStrategy<L>> RawRwLock<L, R> {
    /// A lock for a value that no reader can tear, so that a reader's death is nothing to the others:
    /// to be given to [`lock_api::RwLock::from_raw`](::lock_api::RwLock::from_raw).
    ///
    /// # Safety
    /// The value behind it is of a type that can promise [`UntornByReaders`](crate::UntornByReaders).
    pub const unsafe fn new_untorn() -> Self {
        Self(RwLock::new_untorn(()))
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
        match self.0.read() {
            Ok(guard) => core::mem::forget(guard),
            Err(why) => refuse(&format_args!("{why}")),
        }
    }

    #[inline(always)]
    fn try_lock_shared(&self) -> bool {
        self.0.try_read().map(core::mem::forget).is_ok()
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
        match self.0.write() {
            Ok(guard) => core::mem::forget(guard),
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
                core::mem::forget(guard);
                true
            }
            Err(TryLockError::Lock(LockError::OwnerDied(died))) => {
                core::mem::forget(died);
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
