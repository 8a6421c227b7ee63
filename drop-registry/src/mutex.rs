//! A lock whose next owner is told when its owner died.
#![expect(unsafe_code, reason = "a lock hands out references to its interior")]

use core::cell::UnsafeCell;
use core::fmt;
use core::marker::PhantomData;
use core::mem::ManuallyDrop;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::{AtomicU64, Ordering};

use spin::relax::Spin;

use crate::arch;
use crate::{CurrentLedger, Ledger, LedgerFull, OwnerDied, WaitStrategy};

/// Nobody holds it.
pub(crate) const FREE: u64 = 0;
/// A holder died, and the value has not been marked consistent since. Alone, or beside an owner.
pub(crate) const OWNER_DIED: u64 = 1;
/// Somebody who was told gave up. For good.
const NOT_RECOVERABLE: u64 = 2;
/// The rest of the word: the address of the owner's ledger.
pub(crate) const OWNER: u64 = !(Ledger::ALIGNMENT - 1);

/// A mutual exclusion lock that survives the death of its owner.
///
/// It is taken and released like `spin::Mutex`, and what it costs beyond that is the entry in the
/// task's ledger. Waiting is by `R`: one of spin's relax strategies, or [`Park`](crate::Park) to
/// sleep.
///
/// When a task dies holding it, [`settle`](crate::settle) frees it and marks it. The next to lock
/// it gets [`LockError::OwnerDied`], which holds the lock but shows the value only as far as its
/// type allows, because the write that was going on may have stopped half-way. The protocol is
/// that of POSIX robust mutexes (`pthread_mutex_consistent(3p)`), with `ENOTRECOVERABLE` as
/// [`LockError::NotRecoverable`].
///
/// ```
/// # use core::ptr::NonNull;
/// # use drop_registry::{CurrentLedger, Ledger, LockError, Mutex};
/// # struct Kernel;
/// # static LEDGER: Ledger = Ledger::new();
/// # // SAFETY: one task, one ledger.
/// # unsafe impl CurrentLedger for Kernel {
/// #     fn current() -> NonNull<Ledger> { NonNull::from(&LEDGER) }
/// # }
/// static BALANCE: Mutex<u64, Kernel> = Mutex::new(100);
///
/// match BALANCE.lock() {
///     Ok(mut balance) => *balance += 1,
///     // Nobody knows what the dead task left there: start again from what is known.
///     Err(LockError::OwnerDied(died)) => drop(died.replace(100)),
///     Err(error) => panic!("{error}"),
/// }
/// ```
#[repr(C)]
pub struct Mutex<T: ?Sized, L: CurrentLedger, R: WaitStrategy<L> = Spin> {
    /// The owner's ledger, and the two marks.
    pub(crate) word: AtomicU64,
    pub(crate) waiters: R::Waiters,
    context: PhantomData<fn() -> (L, R)>,
    /// Dropped by `Drop` alone, which knows whether it is whole.
    value: UnsafeCell<ManuallyDrop<T>>,
}

// SAFETY: the lock hands the value to one task at a time, so it needs to be `Send` alone.
unsafe impl<T: ?Sized + Send, L: CurrentLedger, R: WaitStrategy<L>> Sync for Mutex<T, L, R> {}
// SAFETY: it owns the value.
unsafe impl<T: ?Sized + Send, L: CurrentLedger, R: WaitStrategy<L>> Send for Mutex<T, L, R> {}

/// Why [`Mutex::lock`] did not return a plain guard.
pub enum LockError<'a, T: ?Sized, L: CurrentLedger, R: WaitStrategy<L>> {
    /// The lock is held now, but its last owner died holding it and the value may be torn.
    OwnerDied(OwnerDied<'a, T, L, R>),
    /// Somebody was told that the owner died, and unlocked without making the value consistent.
    /// The lock is not held, and never will be.
    NotRecoverable,
    /// The lock is not held: the calling task holds it already.
    Recursive,
    /// The lock is not held: the calling task's ledger has no room to say that it is.
    LedgerFull,
}

/// Why [`Mutex::try_lock`] did not return a plain guard.
pub enum TryLockError<'a, T: ?Sized, L: CurrentLedger, R: WaitStrategy<L>> {
    /// Another task holds it.
    WouldBlock,
    /// As [`Mutex::lock`].
    Lock(LockError<'a, T, L, R>),
}

impl<T: ?Sized, L: CurrentLedger, R: WaitStrategy<L>> fmt::Display for LockError<'_, T, L, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OwnerDied(_) => f.write_str("the lock's last owner died holding it"),
            Self::NotRecoverable => f.write_str("the lock's value was given up after a death"),
            Self::Recursive => f.write_str("the task holds this lock already"),
            Self::LedgerFull => LedgerFull.fmt(f),
        }
    }
}

impl<T: ?Sized, L: CurrentLedger, R: WaitStrategy<L>> fmt::Display for TryLockError<'_, T, L, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WouldBlock => f.write_str("another task holds the lock"),
            Self::Lock(error) => error.fmt(f),
        }
    }
}

/// As [`Display`](fmt::Display): a value that may be torn is not shown.
impl<T: ?Sized, L: CurrentLedger, R: WaitStrategy<L>> fmt::Debug for LockError<'_, T, L, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// As [`Display`](fmt::Display).
impl<T: ?Sized, L: CurrentLedger, R: WaitStrategy<L>> fmt::Debug for TryLockError<'_, T, L, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<T: ?Sized, L: CurrentLedger, R: WaitStrategy<L>> core::error::Error
    for LockError<'_, T, L, R>
{
}
impl<T: ?Sized, L: CurrentLedger, R: WaitStrategy<L>> core::error::Error
    for TryLockError<'_, T, L, R>
{
}

impl<T: ?Sized, L: CurrentLedger, R: WaitStrategy<L>> From<LedgerFull> for LockError<'_, T, L, R> {
    fn from(_: LedgerFull) -> Self {
        Self::LedgerFull
    }
}

impl<T, L: CurrentLedger, R: WaitStrategy<L>> Mutex<T, L, R> {
    /// A free lock around `value`.
    pub const fn new(value: T) -> Self {
        Self {
            word: AtomicU64::new(FREE),
            waiters: R::NOBODY,
            context: PhantomData,
            value: UnsafeCell::new(ManuallyDrop::new(value)),
        }
    }
}

impl<T: ?Sized, L: CurrentLedger, R: WaitStrategy<L>> Mutex<T, L, R> {
    /// Takes the lock, waiting for it if need be.
    ///
    /// # Errors
    /// [`LockError`] says each; of these [`LockError::OwnerDied`] holds the lock.
    #[inline(always)]
    pub fn lock(&self) -> Result<MutexGuard<'_, T, L, R>, LockError<'_, T, L, R>> {
        // SAFETY: `CurrentLedger`: the ledger is this task's and lives as long as it.
        let ledger = unsafe { L::current().as_ref() };
        let depth = ledger.room()?;
        // SAFETY: taking the word from `FREE` to the owner is what `R::HELD` means.
        if unsafe { arch::acquire(&self.word, FREE, owner(ledger), R::HELD, ledger, depth) } {
            return Ok(MutexGuard::new(self));
        }
        self.lock_contended(ledger, arch::frame_address())
    }

    /// Takes the lock if nobody holds it.
    ///
    /// # Errors
    /// [`TryLockError::WouldBlock`] if somebody does; else as [`Mutex::lock`].
    #[inline(always)]
    pub fn try_lock(&self) -> Result<MutexGuard<'_, T, L, R>, TryLockError<'_, T, L, R>> {
        // SAFETY: as in `lock`.
        let ledger = unsafe { L::current().as_ref() };
        self.attempt(ledger, arch::frame_address())
    }

    /// Whether somebody holds it: of use to a check or a report, and stale at once.
    pub fn is_locked(&self) -> bool {
        self.word.load(Ordering::Relaxed) & OWNER != 0
    }

    #[cold]
    #[inline(never)]
    fn lock_contended(
        &self,
        ledger: &Ledger,
        frame: u64,
    ) -> Result<MutexGuard<'_, T, L, R>, LockError<'_, T, L, R>> {
        ledger.set_waiting(self.word.as_ptr().cast());
        let result = R::wait_until(&self.waiters, frame, || match self.attempt(ledger, frame) {
            Ok(guard) => Some(Ok(guard)),
            Err(TryLockError::Lock(error)) => Some(Err(error)),
            Err(TryLockError::WouldBlock) => None,
        });
        ledger.set_waiting(core::ptr::null_mut());
        result
    }

    fn attempt(
        &self,
        ledger: &Ledger,
        frame: u64,
    ) -> Result<MutexGuard<'_, T, L, R>, TryLockError<'_, T, L, R>> {
        let error = match self.word.load(Ordering::Relaxed) {
            NOT_RECOVERABLE => LockError::NotRecoverable,
            word if word & OWNER == owner(ledger) => LockError::Recursive,
            word if word & OWNER != 0 => return Err(TryLockError::WouldBlock),
            mark => {
                let depth = ledger.room().map_err(|full| TryLockError::Lock(full.into()))?;
                let desired = owner(ledger) | mark;
                let word = self.word.as_ptr().cast();
                // SAFETY: as in `lock`; the mark stays beside the owner.
                let taken = unsafe {
                    arch::claim(&self.word, mark, desired, word, R::HELD, ledger, depth, frame)
                };
                if !taken {
                    return Err(TryLockError::WouldBlock);
                }
                let guard = MutexGuard::new(self);
                if mark == FREE {
                    return Ok(guard);
                }
                LockError::OwnerDied(OwnerDied::new(guard))
            }
        };
        Err(TryLockError::Lock(error))
    }

    /// The value, through an exclusive reference to the lock: no locking needed.
    ///
    /// # Errors
    /// If its last owner died, or it was given up: the value may be torn.
    pub fn get_mut(&mut self) -> Result<&mut T, MaybeTorn> {
        if *self.word.get_mut() == FREE { Ok(self.value.get_mut()) } else { Err(MaybeTorn) }
    }
}

/// The value may be torn: its lock's last owner died, or still holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaybeTorn;

impl fmt::Display for MaybeTorn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the value may be torn")
    }
}

impl core::error::Error for MaybeTorn {}

/// Drops the value if it is whole: if the lock is free and no death has left a mark on it.
///
/// # Panics
/// If another task holds the lock, or this one does and the lock has been moved since; both are
/// possible only if the guard was forgotten. Some ledger lists a lock that is about to go, and
/// cannot be put right from here. The panic does not unwind.
impl<T: ?Sized, L: CurrentLedger, R: WaitStrategy<L>> Drop for Mutex<T, L, R> {
    fn drop(&mut self) {
        let word = *self.word.get_mut();
        if word == FREE {
            // SAFETY: dropped once, here; nobody has a guard, since it would borrow the lock.
            unsafe { ManuallyDrop::drop(self.value.get_mut()) };
        } else if word & OWNER != 0 {
            self.forget_holder(word);
        }
    }
}

impl<T: ?Sized, L: CurrentLedger, R: WaitStrategy<L>> Mutex<T, L, R> {
    /// Takes a lock whose guard was forgotten out of the ledger that lists it.
    #[cold]
    fn forget_holder(&self, word: u64) {
        // SAFETY: `CurrentLedger`: the ledger is this task's.
        let ledger = unsafe { L::current().as_ref() };
        match ledger.find(self.word.as_ptr().cast()) {
            Some(entry) if word & OWNER == owner(ledger) => {
                entry.erase();
                ledger.trim();
            }
            _ => destroyed_while_held(),
        }
    }
}

/// `extern "C"`, so that the panic cannot be caught and the lock's memory used again.
#[cold]
extern "C" fn destroyed_while_held() -> ! {
    panic!("a mutex was destroyed, or moved and destroyed, while a task held it");
}

impl<T: ?Sized, L: CurrentLedger, R: WaitStrategy<L>> fmt::Debug for Mutex<T, L, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = self.word.load(Ordering::Relaxed);
        f.debug_struct("Mutex")
            .field("held", &(word & OWNER != 0))
            .field("owner_died", &(word & OWNER_DIED != 0))
            .field("not_recoverable", &(word == NOT_RECOVERABLE))
            .field("waiters", &self.waiters)
            .finish()
    }
}

/// A held [`Mutex`]; dropping it unlocks.
///
/// Not `Send`: the ledger that says who holds the lock is the locking task's own.
#[must_use = "the lock is released when the guard is dropped"]
pub struct MutexGuard<'a, T: ?Sized, L: CurrentLedger, R: WaitStrategy<L> = Spin> {
    lock: &'a Mutex<T, L, R>,
    not_send: PhantomData<*mut ()>,
}

// SAFETY: a shared guard gives shared access to the value alone.
unsafe impl<T: ?Sized + Sync, L: CurrentLedger, R: WaitStrategy<L>> Sync
    for MutexGuard<'_, T, L, R>
{
}

impl<'a, T: ?Sized, L: CurrentLedger, R: WaitStrategy<L>> MutexGuard<'a, T, L, R> {
    fn new(lock: &'a Mutex<T, L, R>) -> Self {
        Self { lock, not_send: PhantomData }
    }

    pub(crate) fn lock_of(&self) -> &'a Mutex<T, L, R> {
        self.lock
    }

    /// Takes the mark of a death off the word, while the lock is held.
    pub(crate) fn clear_mark(&self) {
        // Relaxed: the word is this task's until the unlock, whose store publishes it.
        self.lock.word.fetch_and(!OWNER_DIED, Ordering::Relaxed);
    }

    /// The value, valid or not.
    pub(crate) fn value_ptr(&self) -> *mut T {
        // A `ManuallyDrop` has the layout of what is in it.
        self.lock.value.get() as *mut T
    }

    /// Unlocks for good: nobody will get the lock any more.
    pub(crate) fn give_up(self) {
        let guard = ManuallyDrop::new(self);
        guard.unlock(NOT_RECOVERABLE);
    }

    #[inline(always)]
    fn unlock(&self, word: u64) {
        // SAFETY: `CurrentLedger`: the ledger is this task's, and the guard is not `Send`, so it
        // is the one that the lock was recorded in.
        let ledger = unsafe { L::current().as_ref() };
        // SAFETY: this guard holds the lock, which was recorded as `R::HELD`.
        unsafe { R::unlock(&self.lock.word, word, &self.lock.waiters, ledger) };
    }
}

impl<T: ?Sized, L: CurrentLedger, R: WaitStrategy<L>> Drop for MutexGuard<'_, T, L, R> {
    #[inline]
    fn drop(&mut self) {
        self.unlock(FREE);
    }
}

impl<T: ?Sized, L: CurrentLedger, R: WaitStrategy<L>> Deref for MutexGuard<'_, T, L, R> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the guard holds the lock, and a plain guard exists only for a value that is
        // whole: `OwnerDied` keeps it back until then.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T: ?Sized, L: CurrentLedger, R: WaitStrategy<L>> DerefMut for MutexGuard<'_, T, L, R> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as in `deref`, and `&mut self` makes it exclusive.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T: ?Sized + fmt::Debug, L: CurrentLedger, R: WaitStrategy<L>> fmt::Debug
    for MutexGuard<'_, T, L, R>
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// What the word of a lock says while the task of this ledger holds it.
pub(crate) fn owner(ledger: &Ledger) -> u64 {
    core::ptr::from_ref(ledger).addr() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Outcome;
    use crate::testing::{TestTask, kill, on_fresh_ledger};

    const HELD: &crate::Operations = <Spin as WaitStrategy<TestTask>>::HELD;

    type TestMutex<T> = Mutex<T, TestTask>;

    /// For a lock that is still held when its test ends.
    fn forever<T>(lock: T) -> &'static T {
        std::boxed::Box::leak(std::boxed::Box::new(lock))
    }

    #[test]
    fn a_held_lock_is_in_the_ledger_and_a_dropped_guard_is_not() {
        on_fresh_ledger(|ledger| {
            let lock = TestMutex::new(1);
            let mut guard = lock.lock().unwrap();
            *guard += 1;
            assert_eq!(ledger.len(), 1);
            assert!(lock.is_locked());
            drop(guard);
            assert!(ledger.is_empty());
            assert!(!lock.is_locked());
            assert_eq!(*lock.lock().unwrap(), 2);
        });
    }

    #[test]
    fn guards_may_be_dropped_in_any_order() {
        on_fresh_ledger(|ledger| {
            let (a, b, c) = (TestMutex::new(1), TestMutex::new(2), TestMutex::new(3));
            let (held_a, held_b, held_c) =
                (a.lock().unwrap(), b.lock().unwrap(), c.lock().unwrap());
            drop(held_a);
            assert!(!a.is_locked() && b.is_locked() && c.is_locked());
            assert_eq!(ledger.len(), 2);
            drop(held_c);
            drop(held_b);
            assert!(ledger.is_empty());
            assert!(!b.is_locked() && !c.is_locked());
        });
    }

    #[test]
    fn the_next_owner_is_told_of_a_death() {
        let lock = TestMutex::new(5);
        kill(|| core::mem::forget(lock.lock().unwrap()));
        on_fresh_ledger(|_| {
            let Err(LockError::OwnerDied(died)) = lock.lock() else { panic!("not told") };
            drop(died.replace(6));
            assert_eq!(*lock.lock().unwrap(), 6);
        });
    }

    #[test]
    fn a_value_that_nobody_made_consistent_is_given_up() {
        let lock = TestMutex::new(5);
        kill(|| core::mem::forget(lock.lock().unwrap()));
        on_fresh_ledger(|ledger| {
            drop(lock.lock().unwrap_err());
            assert!(matches!(lock.lock(), Err(LockError::NotRecoverable)));
            assert!(ledger.is_empty());
        });
    }

    #[test]
    fn a_death_during_recovery_is_told_again() {
        let lock = TestMutex::new(5);
        kill(|| core::mem::forget(lock.lock().unwrap()));
        kill(|| core::mem::forget(lock.lock().unwrap_err()));
        on_fresh_ledger(|_| assert!(matches!(lock.lock(), Err(LockError::OwnerDied(_)))));
    }

    #[test]
    fn a_second_lock_by_the_same_task_is_refused() {
        on_fresh_ledger(|ledger| {
            let lock = TestMutex::new(());
            let _held = lock.lock().unwrap();
            assert!(matches!(lock.lock(), Err(LockError::Recursive)));
            assert_eq!(ledger.len(), 1);
        });
    }

    #[test]
    fn a_lock_held_by_another_task_would_block() {
        let lock = forever(TestMutex::new(()));
        let other = on_fresh_ledger(|_| core::mem::forget(lock.lock().unwrap()));
        on_fresh_ledger(|_| assert!(matches!(lock.try_lock(), Err(TryLockError::WouldBlock))));
        assert_eq!(other.len(), 1);
    }

    #[test]
    fn a_full_ledger_refuses_the_lock_and_leaves_it_free() {
        on_fresh_ledger(|ledger| {
            let locks = [const { TestMutex::new(()) }; Ledger::CAPACITY];
            let guards = locks.each_ref().map(|lock| lock.lock().unwrap());
            let one_more = TestMutex::new(());
            assert!(matches!(one_more.lock(), Err(LockError::LedgerFull)));
            assert!(!one_more.is_locked());
            assert_eq!(ledger.len(), Ledger::CAPACITY);
            drop(guards);
            assert!(ledger.is_empty());
        });
    }

    /// A value that must not be dropped once it is torn.
    struct Watched {
        torn: bool,
        drops: &'static AtomicU64,
    }

    impl Drop for Watched {
        fn drop(&mut self) {
            assert!(!self.torn, "a torn value was dropped");
            self.drops.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_destroyed_lock_drops_a_whole_value_and_leaves_a_torn_one_alone() {
        static DROPS: AtomicU64 = AtomicU64::new(0);
        let value = || Watched { torn: false, drops: &DROPS };
        drop(TestMutex::new(value()));
        assert_eq!(DROPS.load(Ordering::Relaxed), 1);

        let lock = TestMutex::new(value());
        kill(|| {
            let mut guard = lock.lock().unwrap();
            guard.torn = true;
            core::mem::forget(guard);
        });
        drop(lock);
        assert_eq!(DROPS.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_destroyed_lock_whose_guard_was_forgotten_is_not_listed_any_more() {
        on_fresh_ledger(|ledger| {
            // In a box, so that dropping it does not move it.
            let lock = std::boxed::Box::new(TestMutex::new(1));
            core::mem::forget(lock.lock().unwrap());
            assert_eq!(ledger.len(), 1);
            drop(lock);
            assert!(ledger.is_empty());
        });
    }

    #[test]
    fn a_lock_that_names_another_owner_is_not_taken_from_it() {
        let lock = forever(TestMutex::new(()));
        let living = on_fresh_ledger(|_| core::mem::forget(lock.lock().unwrap()));
        let outcomes = kill(|| {
            // SAFETY: this task's own ledger; the entry claims what the task does not hold, which
            // is what the test is about.
            unsafe {
                TestTask::current().as_ref().record(lock.word.as_ptr().cast(), HELD, 0).unwrap();
            }
        });
        assert_eq!(outcomes, [Outcome::Disowned]);
        assert!(lock.is_locked());
        assert_eq!(living.len(), 1);
    }
}
