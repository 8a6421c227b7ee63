//! A lock whose next owner is told when its owner died.
#![expect(unsafe_code, reason = "a lock hands out references to its interior")]

use core::cell::UnsafeCell;
use core::fmt;
use core::mem::ManuallyDrop;
use core::ops::{Deref, DerefMut};

use spin::relax::Spin;

use crate::arch;
use crate::owner_died::sealed::Sealed;
use crate::owner_word::{FREE, NOT_RECOVERABLE, OWNER_DIED, State};
use crate::raw_lock::{OnDeath, RawLock};
use crate::{
    CurrentLedger, Entry, LockResult, MaybeTorn, Operations, Outcome, OwnLedger, Place,
    ResourceKind, TryLockError, TryLockResult, WaitStrategy,
};

/// A mutual exclusion lock that survives the death of its owner.
///
/// It is taken and released like `spin::Mutex`, and what it costs beyond that is the entry in the
/// task's ledger. Waiting is by `R`: one of spin's relax strategies, or [`Park`](crate::Park) to
/// sleep.
///
/// When a task dies holding it, [`settle`](crate::settle) frees it and marks it. The next to lock
/// it gets [`LockError::OwnerDied`](crate::LockError::OwnerDied), which holds the lock but shows
/// the value only as far as its type allows, because the write that was going on may have stopped
/// half-way. The protocol is that of POSIX robust mutexes (`pthread_mutex_consistent(3p)`), with
/// `ENOTRECOVERABLE` as [`LockError::NotRecoverable`](crate::LockError::NotRecoverable).
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
    pub(crate) raw: RawLock<L, R>,
    /// Dropped by `Drop` alone, which knows whether it is whole.
    value: UnsafeCell<ManuallyDrop<T>>,
}

/// The next owner is told that the value may be torn.
pub(crate) enum TellNext {}

impl OnDeath for TellNext {
    const KIND: ResourceKind = ResourceKind::Mutex;
    const OUTCOME: Outcome = Outcome::OwnerDied;

    fn word_after(_: u64) -> u64 {
        if planted!(SilentRelease) { FREE } else { OWNER_DIED }
    }
}

// SAFETY: the lock hands the value to one task at a time, so it needs to be `Send` alone.
unsafe impl<T: ?Sized + Send, L: CurrentLedger, R: WaitStrategy<L>> Sync for Mutex<T, L, R> {}
// SAFETY: it owns the value.
unsafe impl<T: ?Sized + Send, L: CurrentLedger, R: WaitStrategy<L>> Send for Mutex<T, L, R> {}

impl<T, L: CurrentLedger, R: WaitStrategy<L>> Mutex<T, L, R> {
    /// A free lock around `value`.
    pub const fn new(value: T) -> Self {
        Self { raw: RawLock::new(), value: UnsafeCell::new(ManuallyDrop::new(value)) }
    }

    /// Where the word is that an entry lists.
    pub(crate) const WORD_OFFSET: usize = core::mem::offset_of!(Self, raw);
}

impl<T: ?Sized, L: CurrentLedger, R: WaitStrategy<L>> Mutex<T, L, R> {
    /// Takes the lock, waiting for it if need be.
    ///
    /// # Errors
    /// [`LockError`](crate::LockError) says each; of these
    /// [`LockError::OwnerDied`](crate::LockError::OwnerDied) holds the lock.
    #[inline(always)]
    pub fn lock(&self) -> LockResult<MutexGuard<'_, T, L, R>> {
        self.lock_as::<TellNext>()
    }

    /// Takes the lock if nobody holds it.
    ///
    /// # Errors
    /// [`TryLockError::WouldBlock`] if somebody does; else as [`Mutex::lock`].
    #[inline(always)]
    pub fn try_lock(&self) -> TryLockResult<MutexGuard<'_, T, L, R>> {
        self.try_lock_as::<TellNext>()
    }

    /// What the death of the calling task, which holds the lock, means for it.
    pub(crate) fn listed_as(&self) -> *const Operations {
        self.own_entry().operations()
    }

    /// Sets that.
    pub(crate) fn list_as(&self, operations: *const Operations) {
        self.own_entry().convert_to(operations.cast_mut());
    }

    fn own_entry(&self) -> &Entry {
        OwnLedger::<L>::current().own(self.raw.word.as_resource())
    }

    /// As [`Mutex::lock`], with `D` for what the owner's death means.
    #[inline(always)]
    pub(crate) fn lock_as<D: OnDeath>(&self) -> LockResult<MutexGuard<'_, T, L, R>> {
        // SAFETY: whoever comes next is told if this task dies, or finds the value mended.
        unsafe { self.raw.lock::<D, _>(|place| MutexGuard::new(self, place)) }
    }

    /// As [`Mutex::try_lock`], with `D` for what the owner's death means.
    #[inline(always)]
    pub(crate) fn try_lock_as<D: OnDeath>(&self) -> TryLockResult<MutexGuard<'_, T, L, R>> {
        let ledger = OwnLedger::<L>::current();
        // SAFETY: as in `lock_as`.
        let (taken, place) = unsafe { self.raw.try_take::<D>(ledger, arch::frame_address()) }?;
        taken.tell(MutexGuard::new(self, place)).map_err(TryLockError::Lock)
    }

    /// Whether somebody holds it: of use to a check or a report, and stale at once.
    pub fn is_locked(&self) -> bool {
        self.raw.word.is_owned()
    }

    /// What its word says: stale at once.
    pub(crate) fn state(&self) -> State {
        self.raw.word.state()
    }

    /// The value, through an exclusive reference to the lock: no locking needed.
    ///
    /// # Errors
    /// If its last owner died, or it was given up: the value may be torn.
    pub fn get_mut(&mut self) -> Result<&mut T, MaybeTorn> {
        if self.raw.word.is_whole() { Ok(self.value.get_mut()) } else { Err(MaybeTorn) }
    }
}

/// Drops the value if it is whole: if the lock is free and no death has left a mark on it.
///
/// # Panics
/// If the lock is held by another task, or has been moved since it was locked; both are possible
/// only if the guard was forgotten. The panic does not unwind.
impl<T: ?Sized, L: CurrentLedger, R: WaitStrategy<L>> Drop for Mutex<T, L, R> {
    fn drop(&mut self) {
        if self.raw.word.retire::<L>() {
            // SAFETY: dropped once, here; nobody has a guard, since it would borrow the lock.
            unsafe { ManuallyDrop::drop(self.value.get_mut()) };
        }
    }
}

impl<T: Default, L: CurrentLedger, R: WaitStrategy<L>> Default for Mutex<T, L, R> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T: ?Sized, L: CurrentLedger, R: WaitStrategy<L>> fmt::Debug for Mutex<T, L, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.raw.describe("Mutex", f)
    }
}

/// A held [`Mutex`]; dropping it unlocks.
///
/// Not `Send`: the ledger that says who holds the lock is the locking task's own.
#[must_use = "the lock is released when the guard is dropped"]
pub struct MutexGuard<'a, T: ?Sized, L: CurrentLedger, R: WaitStrategy<L> = Spin> {
    lock: &'a Mutex<T, L, R>,
    place: Place,
}

// SAFETY: a shared guard gives shared access to the value alone.
unsafe impl<T: ?Sized + Sync, L: CurrentLedger, R: WaitStrategy<L>> Sync
    for MutexGuard<'_, T, L, R>
{
}

impl<'a, T: ?Sized, L: CurrentLedger, R: WaitStrategy<L>> MutexGuard<'a, T, L, R> {
    #[inline(always)]
    fn new(lock: &'a Mutex<T, L, R>, place: Place) -> Self {
        Self { lock, place }
    }

    pub(crate) fn lock_of(&self) -> &'a Mutex<T, L, R> {
        self.lock
    }

    #[inline(always)]
    fn unlock(&self, word: u64) {
        // SAFETY: this guard holds the lock, and it is not `Send`, so this is the task that does.
        unsafe { self.lock.raw.release(word, self.place) };
    }
}

impl<T: ?Sized, L: CurrentLedger, R: WaitStrategy<L>> Sealed for MutexGuard<'_, T, L, R> {
    type Value = T;

    fn value_ptr(&self) -> *mut T {
        // A `ManuallyDrop` has the layout of what is in it.
        self.lock.value.get() as *mut T
    }

    fn clear_mark(&self) {
        self.lock.raw.word.clear_mark();
    }

    fn give_up(self) {
        let guard = ManuallyDrop::new(self);
        guard.unlock(NOT_RECOVERABLE);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{TestTask, kill, on_fresh_ledger};
    use crate::{Ledger, LockError};
    use core::sync::atomic::{AtomicU64, Ordering};

    const HELD: &Operations = RawLock::<TestTask, Spin>::held::<TellNext>();

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
                OwnLedger::<TestTask>::current().record(lock.raw.word.as_resource(), HELD, 0)
            }
            .unwrap();
        });
        assert_eq!(outcomes, [Outcome::Disowned]);
        assert!(lock.is_locked());
        assert_eq!(living.len(), 1);
    }
}
