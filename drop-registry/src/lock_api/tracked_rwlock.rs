//! Somebody else's read-write lock, with one of ours in front of it.
#![expect(unsafe_code, reason = "implements a lock")]

use core::fmt;
use core::mem::ManuallyDrop;

use ::lock_api::{GuardNoSend, RwLock, RwLockWriteGuard};
use spin::relax::Spin;

use super::RawRwLock;
use crate::no_unwind::{refuse, without_unwinding};
use crate::owner_died::sealed::Sealed;
use crate::{CurrentLedger, LockResult, WaitStrategy};

/// Any [`lock_api::RawRwLock`](::lock_api::RawRwLock) `M`, tracked: for a raw lock that does more
/// than exclude, or is looked at by others. Who only wants a tracked lock takes [`RawRwLock`].
///
/// `M` counts its readers, and a count has no owner: from outside nothing can tell whether a task
/// that died inside `M` had been counted. So a lock of ours comes first, and that knows at every
/// instruction who reads and who writes; `M` is taken and released only by whoever is in. The
/// settlement never calls `M`'s code. What a dead task leaves in `M` stays there until nobody who
/// lives can have a part in it: until the next writer, who is alone behind the lock of ours.
///
/// **What it can promise**, whatever `M` is:
/// - Readers and writers exclude each other by the lock of ours, and are told of a death by it,
///   whatever happens to `M`: exactly as with [`RawRwLock`].
/// - `M` is never released twice for one task, nor from under a living reader or writer.
/// - Nobody *waits* in `M`. Behind the lock of ours there is nothing to wait for, so `M` is only
///   ever tried (`try_lock_shared`, `try_lock_exclusive`, which do not wait, says `lock_api`). One
///   that refuses there is in the way of a task that died: that is refused in turn, by `false` and
///   by the panic. Only a task that is inside of `M`'s own functions, while another dies there, is
///   in `M`'s hands.
///
/// **What depends on `M`.** If it promises [`Clear`], a writer who was told of a death recovers the
/// lock by [`write_tracked`]; and with [`new_untorn`](Self::new_untorn) a dead reader is nothing to
/// the others, for the next writer clears what it left. For any other `M`, writers are refused for
/// good after a reader's death, and all are after a writer's.
///
/// **What it cannot.** `M` shows a dead reader until the next writer comes. Nothing is tracked for
/// those who reach `M` in other ways, and to clear it would release it for them.
#[repr(C)]
pub struct TrackedRawRwLock<M, L: CurrentLedger, R: WaitStrategy<L> = Spin> {
    ours: RawRwLock<L, R>,
    theirs: M,
    /// Clears theirs, if dead readers may have left something there and nobody is told.
    clear: Option<unsafe fn(&M)>,
}

/// A raw read-write lock that can be freed of what dead tasks left in it.
///
/// # Safety
/// [`clear`](Self::clear) does what it says. Nothing comes with holding the lock but the lock: no
/// interrupts masked, no place in a queue. And each value of the type is a lock of its own.
///
/// For a promise that is worth it, readers do not mind the dead: as long as nobody has locked it
/// exclusively, `try_lock_shared` succeeds, even if another task died in any of its functions.
pub unsafe trait Clear: ::lock_api::RawRwLock {
    /// Frees the lock. It may be in any state that tasks have left who died anywhere inside of its
    /// functions, this one included.
    ///
    /// # Safety
    /// Nobody who lives holds the lock or is inside of its functions, nor comes to it until this
    /// returns.
    unsafe fn clear(&self);
}

// SAFETY: all of the lock is one word, which each of its functions changes by one instruction at a
// time: by one reader more or less, or by the writer.
unsafe impl<S: spin::relax::RelaxStrategy> Clear for spin::rwlock::RwLock<(), S> {
    unsafe fn clear(&self) {
        while self.reader_count() > 0 {
            // SAFETY: a reader is counted, who does not live, by this function's contract.
            unsafe { self.force_read_decrement() };
        }
        if self.writer_count() > 0 {
            // SAFETY: likewise the writer; and nobody reads any more.
            unsafe { self.force_write_unlock() };
        }
    }
}

impl<M: Clear, L: CurrentLedger, R: WaitStrategy<L>> TrackedRawRwLock<M, L, R> {
    /// As [`RawRwLock::new_untorn`]: a reader's death is nothing to the others. The next writer
    /// clears what it has left in `M`.
    ///
    /// # Safety
    /// As [`RawRwLock::new_untorn`].
    pub const unsafe fn new_untorn() -> Self {
        // SAFETY: this function's contract.
        let ours = unsafe { RawRwLock::new_untorn() };
        Self { ours, theirs: M::INIT, clear: Some(M::clear) }
    }
}

impl<M: ::lock_api::RawRwLock, L: CurrentLedger, R: WaitStrategy<L>> TrackedRawRwLock<M, L, R> {
    /// The foreign lock.
    ///
    /// # Safety
    /// It is looked at, and neither locked nor unlocked.
    pub unsafe fn theirs(&self) -> &M {
        &self.theirs
    }

    /// Takes theirs exclusively, without waiting.
    ///
    /// # Safety
    /// The calling task writes, as far as ours goes.
    #[inline(always)]
    unsafe fn take_theirs(&self, clear: Option<unsafe fn(&M)>) -> bool {
        self.theirs.try_lock_exclusive()
            || clear.filter(|_| !planted!(LeftoversStay)).is_some_and(|clear| {
                // SAFETY: whoever lives releases theirs before ours, and nobody but the caller has
                // ours. What the last of them did to theirs has been seen with ours, whose release
                // it came before.
                unsafe { clear(&self.theirs) };
                self.theirs.try_lock_exclusive()
            })
    }
}

/// Why `lock_api`'s infallible functions do not return, if the foreign lock is in the way.
const DIED_INSIDE: &str = "a task died in the foreign lock, which lets nobody in since";

// SAFETY: ours has one writer at a time, or readers; and it is held by whoever holds this.
unsafe impl<M: ::lock_api::RawRwLock, L: CurrentLedger, R: WaitStrategy<L>> ::lock_api::RawRwLock
    for TrackedRawRwLock<M, L, R>
{
    const INIT: Self = Self { ours: RawRwLock::INIT, theirs: M::INIT, clear: None };

    /// The ledger that lists the lock is the locking task's own.
    type GuardMarker = GuardNoSend;

    /// # Panics
    /// As [`RawRwLock`]'s; or if a task died in the foreign lock, which refuses readers since.
    #[inline(always)]
    fn lock_shared(&self) {
        self.ours.lock_shared();
        if !without_unwinding(|| self.theirs.try_lock_shared()) {
            // SAFETY: this task has just locked it.
            unsafe { self.ours.unlock_shared() };
            refuse(&format_args!("{DIED_INSIDE}"));
        }
    }

    #[inline(always)]
    fn try_lock_shared(&self) -> bool {
        if !self.ours.try_lock_shared() {
            return false;
        }
        let taken = self.theirs.try_lock_shared();
        if !taken {
            // SAFETY: as in `lock_shared`.
            unsafe { self.ours.unlock_shared() };
        }
        taken
    }

    /// # Panics
    /// If the task does not read.
    #[inline(always)]
    unsafe fn unlock_shared(&self) {
        // SAFETY: this function's contract. Theirs first: whoever is alone behind ours takes it
        // that nobody who lives has theirs.
        unsafe {
            if planted!(OursFirst) {
                self.ours.unlock_shared();
            }
            self.theirs.unlock_shared();
            if !planted!(OursFirst) {
                self.ours.unlock_shared();
            }
        }
    }

    /// # Panics
    /// As [`RawRwLock`]'s.
    #[inline(always)]
    fn lock_exclusive(&self) {
        self.ours.lock_exclusive();
        // SAFETY: this task writes, so nobody else is behind ours.
        if !without_unwinding(|| unsafe { self.take_theirs(self.clear) }) {
            // SAFETY: this task has just locked it.
            unsafe { self.ours.unlock_exclusive() };
            refuse(&format_args!("{DIED_INSIDE}"));
        }
    }

    #[inline(always)]
    fn try_lock_exclusive(&self) -> bool {
        if !self.ours.try_lock_exclusive() {
            return false;
        }
        // SAFETY: as in `lock_exclusive`.
        let taken = unsafe { self.take_theirs(self.clear) };
        if !taken {
            // SAFETY: as in `lock_exclusive`.
            unsafe { self.ours.unlock_exclusive() };
        }
        taken
    }

    /// # Panics
    /// If the task does not write.
    #[inline(always)]
    unsafe fn unlock_exclusive(&self) {
        // SAFETY: this function's contract. Theirs first, as in `unlock_shared`.
        unsafe {
            if planted!(OursFirst) {
                self.ours.unlock_exclusive();
            }
            self.theirs.unlock_exclusive();
            if !planted!(OursFirst) {
                self.ours.unlock_exclusive();
            }
        }
    }

    fn is_locked(&self) -> bool {
        self.ours.is_locked()
    }

    fn is_locked_exclusive(&self) -> bool {
        self.ours.is_locked_exclusive()
    }
}

impl<M: fmt::Debug, L: CurrentLedger, R: WaitStrategy<L>> fmt::Debug for TrackedRawRwLock<M, L, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrackedRawRwLock")
            .field("ours", &self.ours)
            .field("theirs", &self.theirs)
            .finish()
    }
}

impl<T: ?Sized, M: ::lock_api::RawRwLock, L: CurrentLedger, R: WaitStrategy<L>> Sealed
    for RwLockWriteGuard<'_, TrackedRawRwLock<M, L, R>, T>
{
    type Value = T;

    fn value_ptr(&self) -> *mut T {
        RwLockWriteGuard::rwlock(self).data_ptr()
    }

    fn clear_mark(&self) {
        // SAFETY: the raw lock is not unlocked.
        unsafe { RwLockWriteGuard::rwlock(self).raw() }.ours.clear_marks();
    }

    fn give_up(self) {
        let guard = ManuallyDrop::new(self);
        // SAFETY: the lock is held by this guard, which is not used or dropped any more. Theirs
        // stays locked, for nobody will take it again.
        unsafe { RwLockWriteGuard::rwlock(&guard).raw().ours.give_up() };
    }
}

/// Locks `lock` for writing with the protocol of [`RwLock::write`](crate::RwLock::write): a death
/// is told of. What dead tasks have left in `M` is cleared.
///
/// # Errors
/// [`LockError`](crate::LockError) says each; of these
/// [`LockError::OwnerDied`](crate::LockError::OwnerDied) holds the lock.
///
/// # Panics
/// If `M` refuses after it has been [cleared](Clear). The panic does not unwind.
#[inline(always)]
pub fn write_tracked<T: ?Sized, M: Clear, L: CurrentLedger, R: WaitStrategy<L>>(
    lock: &RwLock<TrackedRawRwLock<M, L, R>, T>,
) -> LockResult<RwLockWriteGuard<'_, TrackedRawRwLock<M, L, R>, T>> {
    // SAFETY: the raw lock is not unlocked here.
    let raw = unsafe { lock.raw() };
    if planted!(ClearedInFront) {
        // SAFETY: none: readers may be in.
        unsafe { raw.theirs.clear() };
    }
    raw.ours.take(|| {
        // SAFETY: this task writes, so nobody else is behind ours.
        if !unsafe { raw.take_theirs(Some(M::clear)) } {
            refuse(&format_args!("{DIED_INSIDE}"));
        }
        // SAFETY: both have been taken, for this guard.
        unsafe { lock.make_write_guard_unchecked() }
    })
}
