//! Our mutex as a raw lock.
#![expect(unsafe_code, reason = "implements a lock")]

use core::fmt;
use core::mem::ManuallyDrop;

use ::lock_api::{GuardNoSend, Mutex, MutexGuard};
use spin::relax::Spin;

use super::destroyed_while_torn;
use crate::mutex::TellNext;
use crate::no_unwind::{refuse, without_unwinding};
use crate::owner_died::sealed::Sealed;
use crate::owner_word::{FREE, NOT_RECOVERABLE, OWNER_DIED, State};
use crate::raw_lock::RawLock;
use crate::{CurrentLedger, LockError, LockResult, OwnLedger, WaitStrategy};

/// What [`Mutex`](crate::Mutex) is made of, as a [`lock_api::RawMutex`](::lock_api::RawMutex):
/// exact at every instruction.
///
/// See the [module](super) for what becomes of it when its owner dies.
pub struct RawMutex<L: CurrentLedger, R: WaitStrategy<L> = Spin>(pub(super) RawLock<L, R>);

impl<L: CurrentLedger, R: WaitStrategy<L>> RawMutex<L, R> {
    /// Takes the lock. A guard for the type's sake alone: `guard` makes what is returned.
    #[inline(always)]
    pub(super) fn take<G: crate::Exclusive>(&self, guard: impl FnOnce() -> G) -> LockResult<G> {
        // SAFETY: whoever comes next is told if this task dies.
        unsafe { self.0.lock::<TellNext, _>(|_| guard()) }
    }

    /// Takes the lock if it is free, and no death has left a mark on it.
    #[inline(always)]
    fn try_take_whole(&self) -> bool {
        if self.0.word.state() != State::Free {
            return false;
        }
        // SAFETY: whoever comes next is told if this task dies.
        let taken = unsafe { self.0.take_from::<TellNext>(FREE, OwnLedger::current()) };
        taken.is_ok_and(|place| place.is_some())
    }
}

// SAFETY: the word has one owner at a time.
unsafe impl<L: CurrentLedger, R: WaitStrategy<L>> ::lock_api::RawMutex for RawMutex<L, R> {
    const INIT: Self = Self(RawLock::new());

    /// The ledger that lists the lock is the locking task's own.
    type GuardMarker = GuardNoSend;

    /// # Panics
    /// If the lock's last owner died, or it was given up after that; if the task holds it already;
    /// or if the task's ledger is full.
    #[inline(always)]
    fn lock(&self) {
        match without_unwinding(|| self.take(|| Held(self))) {
            Ok(Held(_)) => {}
            Err(why) => {
                if let LockError::OwnerDied(_) = why {
                    // SAFETY: this task has just taken it. The next one is told again.
                    unsafe { self.0.release_found(OWNER_DIED) };
                }
                refuse(&format_args!("{why}"))
            }
        }
    }

    #[inline(always)]
    fn try_lock(&self) -> bool {
        self.try_take_whole()
    }

    /// # Panics
    /// If the task does not hold the lock.
    #[inline(always)]
    unsafe fn unlock(&self) {
        // SAFETY: this function's contract.
        unsafe { self.0.release_found(FREE) };
    }

    fn is_locked(&self) -> bool {
        self.0.word.is_owned()
    }
}

impl<L: CurrentLedger, R: WaitStrategy<L>> Drop for RawMutex<L, R> {
    /// # Panics
    /// If another task holds it, as [`Mutex`](crate::Mutex); or if its last owner died and nobody
    /// has recovered the value, which would be dropped now. The panic does not unwind.
    fn drop(&mut self) {
        if self.0.word.is_marked() {
            destroyed_while_torn();
        }
        self.0.word.retire::<L>();
    }
}

impl<L: CurrentLedger, R: WaitStrategy<L>> fmt::Debug for RawMutex<L, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.describe("RawMutex", f)
    }
}

/// The lock itself, held, without a value.
pub(super) struct Held<'a, L: CurrentLedger, R: WaitStrategy<L>>(&'a RawMutex<L, R>);

impl<L: CurrentLedger, R: WaitStrategy<L>> Sealed for Held<'_, L, R> {
    type Value = ();

    fn value_ptr(&self) -> *mut () {
        core::ptr::NonNull::dangling().as_ptr()
    }

    fn clear_mark(&self) {
        self.0.0.word.clear_mark();
    }

    fn give_up(self) {
        // SAFETY: the lock is held.
        unsafe { self.0.0.release_found(NOT_RECOVERABLE) };
    }
}

impl<T: ?Sized, L: CurrentLedger, R: WaitStrategy<L>> Sealed for MutexGuard<'_, RawMutex<L, R>, T> {
    type Value = T;

    fn value_ptr(&self) -> *mut T {
        MutexGuard::mutex(self).data_ptr()
    }

    fn clear_mark(&self) {
        // SAFETY: the raw lock is not unlocked.
        unsafe { MutexGuard::mutex(self).raw() }.0.word.clear_mark();
    }

    fn give_up(self) {
        let guard = ManuallyDrop::new(self);
        // SAFETY: the lock is held by this guard, which is not used or dropped any more.
        unsafe { MutexGuard::mutex(&guard).raw().0.release_found(NOT_RECOVERABLE) };
    }
}

/// Locks `mutex` with the protocol of [`Mutex::lock`](crate::Mutex::lock): a death is told of.
///
/// # Errors
/// [`LockError`] says each; of these [`LockError::OwnerDied`] holds the lock.
#[inline(always)]
pub fn lock<T: ?Sized, L: CurrentLedger, R: WaitStrategy<L>>(
    mutex: &Mutex<RawMutex<L, R>, T>,
) -> LockResult<MutexGuard<'_, RawMutex<L, R>, T>> {
    // SAFETY: the raw lock is not unlocked here; and what has been taken is a guard's.
    unsafe { mutex.raw().take(|| mutex.make_guard_unchecked()) }
}
