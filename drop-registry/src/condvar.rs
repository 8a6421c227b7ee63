//! Waiting for what a lock protects.

use core::fmt;

use crate::arch;
use crate::{
    LedgerFull, LockError, LockResult, Mutex, MutexGuard, Parker, WaitQueue, WaitStrategy,
};

/// A condition variable: tasks that wait for a change of what a [`Mutex`] protects.
///
/// A notified task that is killed before it has acted on it does not take the notification with
/// it: another waiter gets that. What "acted" means depends on how it waits.
/// - In [`wait_until`](Self::wait_until) it is to have found what it waits for, and to have
///   unlocked again: whenever the task dies until then, another one is woken, and if the lock's
///   owner died by that, is told so. Use this one.
/// - In [`wait`](Self::wait), which is that of `std::sync::Condvar`, it is to have returned with
///   the lock. A task that is killed after that dies as the lock's owner, and whoever locks next
///   and is told of it should notify the others: this type no longer knows.
///
/// Notifying need not be done with the lock held. A task that is killed between its change and its
/// notification has notified nobody, unless it does both by
/// [`notify_one_after`](Self::notify_one_after). Spurious wake-ups are possible, after a death.
///
/// Nobody waits in one that is destroyed, as in a [`WaitQueue`].
///
/// ```
/// # use core::ptr::NonNull;
/// # use drop_registry::{Condvar, CurrentLedger, Ledger, LedgerFull, Mutex, Park, Parker};
/// # struct Kernel;
/// # static LEDGER: Ledger = Ledger::new();
/// # // SAFETY: one task, one ledger.
/// # unsafe impl CurrentLedger for Kernel {
/// #     fn current() -> NonNull<Ledger> { NonNull::from(&LEDGER) }
/// # }
/// # // SAFETY: one task, which is never unparked.
/// # unsafe impl Parker for Kernel {
/// #     const TASKS: usize = 1;
/// #     fn index(_: &Ledger) -> usize { 0 }
/// #     fn park() { unreachable!() }
/// #     fn unpark(_: usize) {}
/// # }
/// static JOBS: Mutex<u32, Kernel, Park> = Mutex::new(0);
/// static POSTED: Condvar<Kernel> = Condvar::new();
///
/// // One side:
/// POSTED
///     .notify_one_after(|| *JOBS.lock().expect("nobody died") += 1)
///     .expect("room in the ledger");
/// // The other:
/// let left = POSTED.wait_until(&JOBS, |jobs| {
///     *jobs = jobs.checked_sub(1)?;
///     Some(*jobs)
/// });
/// assert_eq!(left.expect("nobody died"), 0);
/// ```
pub struct Condvar<L, const WORDS: usize = 1> {
    waiters: WaitQueue<L, WORDS>,
}

impl<L: Parker, const WORDS: usize> Condvar<L, WORDS> {
    /// A condition variable that nobody waits for.
    pub const fn new() -> Self {
        Self { waiters: WaitQueue::new() }
    }

    /// Locks, and calls `look` with the value, until it returns something; in between the lock is
    /// free, and the task sleeps until it is notified.
    ///
    /// # Errors
    /// As [`Mutex::lock`], whenever it locks; of these [`LockError::OwnerDied`] holds the lock. The
    /// notification then goes to another waiter. Waiting takes one entry in the task's ledger
    /// beside the lock's, and another one to wait for a lock that sleeps.
    #[inline(always)]
    pub fn wait_until<'a, T: ?Sized, U, R: WaitStrategy<L>>(
        &self,
        lock: &'a Mutex<T, L, R>,
        mut look: impl FnMut(&mut T) -> Option<U>,
    ) -> Result<U, LockError<MutexGuard<'a, T, L, R>>> {
        let frame = arch::frame_address();
        let mut attempt = || match lock.lock() {
            Ok(mut value) => look(&mut value).map(Ok),
            Err(error) => Some(Err(error)),
        };
        // Who finds it at once need not queue.
        attempt().unwrap_or_else(|| self.waiters.wait_told(frame, attempt))
    }

    /// Unlocks, sleeps until it is notified, and locks again.
    ///
    /// A notification that comes after this has unlocked is not missed.
    ///
    /// # Errors
    /// As [`Mutex::lock`], and [`LockError::LedgerFull`] if there is no room to wait: of these only
    /// [`LockError::OwnerDied`] holds the lock. If the lock is not held, the notification goes to
    /// another waiter.
    #[inline(always)]
    pub fn wait<'a, T: ?Sized, R: WaitStrategy<L>>(
        &self,
        guard: MutexGuard<'a, T, L, R>,
    ) -> LockResult<MutexGuard<'a, T, L, R>> {
        self.wait_from(arch::frame_address(), guard)
    }

    fn wait_from<'a, T: ?Sized, R: WaitStrategy<L>>(
        &self,
        frame: u64,
        guard: MutexGuard<'a, T, L, R>,
    ) -> LockResult<MutexGuard<'a, T, L, R>> {
        let lock = guard.lock_of();
        let on_death = lock.listed_as();
        // Before the unlock, so that whoever makes the change under the lock finds this task here.
        let mut place = self.waiters.enrol(frame)?;
        drop(guard);
        let waiting = place.wait_for_wake_up();
        while !place.take_wake_up() {
            L::park();
        }
        drop(waiting);
        // The place is kept until the lock is held: a death on the way wakes another.
        let result = lock.lock();
        place.wake_up_used = matches!(result, Ok(_) | Err(LockError::OwnerDied(_)));
        if place.wake_up_used {
            lock.list_as(on_death);
        }
        result
    }

    /// Wakes one waiter, if there is one.
    ///
    /// # Errors
    /// If the task's ledger is full; nobody is woken.
    pub fn notify_one(&self) -> Result<(), LedgerFull> {
        self.waiters.wake_one()
    }

    /// Wakes all waiters.
    ///
    /// # Errors
    /// As [`Condvar::notify_one`].
    pub fn notify_all(&self) -> Result<(), LedgerFull> {
        self.waiters.wake_all()
    }

    /// Makes a change, typically under the lock, and wakes one waiter: also if the task dies as
    /// soon as it has made it.
    ///
    /// # Errors
    /// If the task's ledger is full; nothing has happened then.
    #[inline(always)]
    pub fn notify_one_after<T>(&self, change: impl FnOnce() -> T) -> Result<T, LedgerFull> {
        self.waiters.wake_one_after(change)
    }

    /// Makes a change, and wakes all waiters, as [`Condvar::notify_one_after`].
    ///
    /// # Errors
    /// As [`Condvar::notify_one_after`].
    #[inline(always)]
    pub fn notify_all_after<T>(&self, change: impl FnOnce() -> T) -> Result<T, LedgerFull> {
        self.waiters.wake_all_after(change)
    }

    /// Whether nobody waits: of use to a check or a report, and stale at once.
    pub fn is_idle(&self) -> bool {
        self.waiters.is_empty()
    }
}

impl<L: Parker, const WORDS: usize> Default for Condvar<L, WORDS> {
    fn default() -> Self {
        Self::new()
    }
}

impl<L, const WORDS: usize> fmt::Debug for Condvar<L, WORDS> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Condvar").field("waiters", &self.waiters).finish()
    }
}
