//! Somebody else's mutex, with one of ours in front of it.
#![expect(unsafe_code, reason = "implements a lock")]

use core::fmt;
use core::mem::ManuallyDrop;

use ::lock_api::{GuardNoSend, GuardSend, Mutex, MutexGuard};
use spin::relax::Spin;

use super::RawMutex;
use crate::no_unwind::without_unwinding;
use crate::owner_died::sealed::Sealed;
use crate::owner_word::NOT_RECOVERABLE;
use crate::{CurrentLedger, LockResult, WaitStrategy};

/// Any [`lock_api::RawMutex`](::lock_api::RawMutex) `M`, tracked: for a raw lock that does more
/// than exclude, or is looked at by others. Who only wants a tracked lock takes [`RawMutex`].
///
/// `M` knows no window. A task that stops inside its `lock` may have taken it or not, and nothing
/// outside can tell, if others may take it too. So none may: a lock of ours comes first, whose word
/// names its owner at every instruction, and `M` is taken and released only by whoever owns that.
///
/// **What it can promise.** Who held the lock is known exactly. The settlement never calls `M`'s
/// code, and never unlocks it: neither from under a living owner nor at all. The lock of ours says
/// that its owner died, and refuses all who do not ask for that (see the [module](super)).
///
/// **What it cannot.** After a death `M` may be locked or not. It stays so, until somebody recovers
/// the lock by [`lock_tracked`], which is for those `M` that promise [`Inherit`]; others stay as
/// they are for good. And waiting is by `R`, in front of the lock of ours: `M` is free whenever it
/// is taken, so how it would wait does not matter. Nothing is tracked for those who reach `M` in
/// other ways, say because all values of `M` are one lock: then `M`'s `lock` waits for them,
/// untold.
#[repr(C)]
pub struct TrackedRawMutex<M, L: CurrentLedger, R: WaitStrategy<L> = Spin> {
    ours: RawMutex<L, R>,
    theirs: M,
}

impl<M: ::lock_api::RawMutex, L: CurrentLedger, R: WaitStrategy<L>> TrackedRawMutex<M, L, R> {
    /// The foreign lock.
    ///
    /// # Safety
    /// It is looked at, and neither locked nor unlocked.
    pub unsafe fn theirs(&self) -> &M {
        &self.theirs
    }
}

/// A raw mutex that a task can take over from one that died anywhere inside of its functions.
///
/// # Safety
/// While one task at a time uses it, locking and unlocking each change it by one instruction, and
/// `is_locked` tells before which of them, and after which, it is. Nothing else comes with holding
/// it: no interrupts masked, no place in a queue. Another task than the one that locked may unlock
/// ([`GuardSend`]). And each value of the type is a lock of its own.
pub unsafe trait Inherit: ::lock_api::RawMutex<GuardMarker = GuardSend> {}

// SAFETY: a compare-exchange and a store of one flag, which is what `is_locked` reads.
unsafe impl<S: spin::relax::RelaxStrategy> Inherit for spin::mutex::SpinMutex<(), S> {}
// SAFETY: a `SpinMutex`; or, if a crate asks spin for that, a `TicketMutex`: it is locked by adding
// one to the tickets, which are served at once if one task at a time uses it, unlocked by adding
// one to those that were served, and locked while the two differ.
unsafe impl<S: spin::relax::RelaxStrategy> Inherit for spin::mutex::Mutex<(), S> {}

// SAFETY: ours has one owner at a time.
unsafe impl<M: ::lock_api::RawMutex, L: CurrentLedger, R: WaitStrategy<L>> ::lock_api::RawMutex
    for TrackedRawMutex<M, L, R>
{
    const INIT: Self = Self { ours: RawMutex::INIT, theirs: M::INIT };

    /// The ledger that lists the lock is the locking task's own.
    type GuardMarker = GuardNoSend;

    /// # Panics
    /// As [`RawMutex`]'s.
    #[inline(always)]
    fn lock(&self) {
        self.ours.lock();
        without_unwinding(|| self.theirs.lock());
    }

    #[inline(always)]
    fn try_lock(&self) -> bool {
        if !self.ours.try_lock() {
            return false;
        }
        let taken = self.theirs.try_lock();
        if !taken {
            // SAFETY: this task has just locked it.
            unsafe { self.ours.unlock() };
        }
        taken
    }

    /// # Panics
    /// If the task does not hold the lock.
    #[inline(always)]
    unsafe fn unlock(&self) {
        // SAFETY: this function's contract. Theirs first: it is used by the owner of ours alone.
        unsafe {
            if planted!(OursFirst) {
                self.ours.unlock();
            }
            self.theirs.unlock();
            if !planted!(OursFirst) {
                self.ours.unlock();
            }
        }
    }

    fn is_locked(&self) -> bool {
        self.ours.is_locked()
    }
}

impl<M: fmt::Debug, L: CurrentLedger, R: WaitStrategy<L>> fmt::Debug for TrackedRawMutex<M, L, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrackedRawMutex")
            .field("ours", &self.ours)
            .field("theirs", &self.theirs)
            .finish()
    }
}

impl<T: ?Sized, M: ::lock_api::RawMutex, L: CurrentLedger, R: WaitStrategy<L>> Sealed
    for MutexGuard<'_, TrackedRawMutex<M, L, R>, T>
{
    type Value = T;

    fn value_ptr(&self) -> *mut T {
        MutexGuard::mutex(self).data_ptr()
    }

    fn clear_mark(&self) {
        // SAFETY: the raw lock is not unlocked.
        unsafe { MutexGuard::mutex(self).raw() }.ours.0.word.clear_mark();
    }

    fn give_up(self) {
        let guard = ManuallyDrop::new(self);
        // SAFETY: the lock is held by this guard, which is not used or dropped any more. Theirs
        // stays locked, for nobody will take it again.
        unsafe { MutexGuard::mutex(&guard).raw().ours.0.release_found(NOT_RECOVERABLE) };
    }
}

/// Locks `mutex` with the protocol of [`Mutex::lock`](crate::Mutex::lock): a death is told of. If
/// the dead task left `M` locked, it is the caller's now.
///
/// # Errors
/// [`LockError`](crate::LockError) says each; of these
/// [`LockError::OwnerDied`](crate::LockError::OwnerDied) holds the lock.
#[inline(always)]
pub fn lock_tracked<T: ?Sized, M: Inherit, L: CurrentLedger, R: WaitStrategy<L>>(
    mutex: &Mutex<TrackedRawMutex<M, L, R>, T>,
) -> LockResult<MutexGuard<'_, TrackedRawMutex<M, L, R>, T>> {
    // SAFETY: the raw lock is not unlocked here.
    let raw = unsafe { mutex.raw() };
    raw.ours.take(|| {
        // Nobody but the owner of ours changes it: it is free, or it was the dead owner's.
        if !raw.theirs.is_locked() {
            raw.theirs.lock();
        }
        // SAFETY: both have been taken, for this guard.
        unsafe { mutex.make_guard_unchecked() }
    })
}
