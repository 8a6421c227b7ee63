//! A lock that knows how to mend its value.
#![expect(unsafe_code, reason = "finds the lock of an entry")]

use core::fmt;
use core::marker::PhantomData;
use core::mem::offset_of;

use spin::relax::Spin;

use crate::mutex::TellNext;
use crate::owner_word::OWNER_DIED;
use crate::raw_lock::{OnDeath, RawLock};
use crate::{
    CurrentLedger, Entry, Extent, Ledger, LockError, LockResult, Mutex, MutexGuard, Operations,
    Outcome, OwnerDied, ResourceKind, TryLockError, TryLockResult, WaitStrategy,
};

/// How a value is mended after its owner's death: see [`RepairMutex`].
///
/// Returns the guard that [`OwnerDied::replace`] or another of its methods gives; `None`, with the
/// other one dropped, gives the value up for good. The guard of another lock mends nothing: it is
/// dropped, and the value counts as given up.
pub type Repair<T, L, R = Spin> =
    fn(OwnerDied<MutexGuard<'static, T, L, R>>) -> Option<MutexGuard<'static, T, L, R>>;

/// A [`Mutex`] with a routine that the keeper runs after a death.
///
/// The lock comes free in the fault path, as that of any mutex, and with the same mark. After that,
/// in [`reclaim`](crate::reclaim) and so in its own time, the keeper tries to take the lock: it
/// never waits for it. If nobody has been told yet, it runs the routine, and the next owner finds
/// the lock as if nobody had died.
///
/// Whoever comes before the keeper does not wait for it either, but is told, as with a mutex: for
/// a keeper may take its time, or hold the dead task for a debugger. It can run the routine
/// itself, by [`lock_repaired`](Self::lock_repaired).
///
/// The routine has the lock, and stands in the ledger of whoever runs it: if it dies half-way, the
/// next owner is told, and nobody runs it again unasked. (A routine that always faults would
/// else end one keeper after the other.) It may take other locks if no task holds one of them while
/// it waits for the keeper.
///
/// It is for locks that are there for ever: the dead task's entry stands until the keeper has come
/// to it, while the lock is already free to be taken, and so must not be freed or moved.
///
/// ```
/// # use core::ptr::NonNull;
/// # use drop_registry::{CurrentLedger, Ledger, RepairMutex};
/// # struct Kernel;
/// # static LEDGER: Ledger = Ledger::new();
/// # // SAFETY: one task, one ledger.
/// # unsafe impl CurrentLedger for Kernel {
/// #     fn current() -> NonNull<Ledger> { NonNull::from(&LEDGER) }
/// # }
/// /// The sum stands beside its parts.
/// static PARTS: RepairMutex<[u64; 3], Kernel> = RepairMutex::new([1, 2, 3], |mut died| {
///     let [first, second, sum] = died.update();
///     *sum = *first + *second;
///     Some(died.mark_consistent())
/// });
///
/// let mut parts = PARTS.lock_repaired().expect("not held, and room in the ledger");
/// parts[0] += 1;
/// parts[2] += 1;
/// ```
#[repr(C)]
pub struct RepairMutex<T, L: CurrentLedger, R: WaitStrategy<L> = Spin>
where
    T: 'static,
    L: 'static,
    R: 'static,
{
    mutex: Mutex<T, L, R>,
    repair: Repair<T, L, R>,
}

/// The next owner is told, unless the keeper has mended the value by then.
struct TellOrRepair<T, L, R>(PhantomData<(T, L, R)>);

impl<T: 'static, L: CurrentLedger + 'static, R: WaitStrategy<L> + 'static> OnDeath
    for TellOrRepair<T, L, R>
{
    const KIND: ResourceKind = ResourceKind::Mutex;
    const OUTCOME: Outcome = Outcome::OwnerDied;
    const RECLAIM: Option<unsafe fn(&Entry) -> Outcome> = Some(repair_in_place_of::<T, L, R>);
    const EXTENT: Option<Extent> =
        Some(Extent::around::<RepairMutex<T, L, R>>(RepairMutex::<T, L, R>::WORD_OFFSET));

    fn word_after(_: u64) -> u64 {
        OWNER_DIED
    }
}

/// The routine has been begun by somebody who died in it, or is on its way.
static BEGUN: Operations =
    Operations::releasing(ResourceKind::Mutex, Extent::NOTHING, nothing_to_release)
        .reclaiming(0, leave_to_the_next);

impl<T: 'static, L: CurrentLedger + 'static, R: WaitStrategy<L> + 'static> RepairMutex<T, L, R> {
    /// Where the word is that an entry lists.
    const WORD_OFFSET: usize = offset_of!(Self, mutex) + Mutex::<T, L, R>::WORD_OFFSET;

    /// A free lock around `value`, which `repair` can mend.
    pub const fn new(value: T, repair: Repair<T, L, R>) -> Self {
        Self { mutex: Mutex::new(value), repair }
    }

    /// Takes the lock, waiting for it if need be.
    ///
    /// # Errors
    /// As [`Mutex::lock`]: also [`LockError::OwnerDied`], if the keeper has not come to it yet, or
    /// the routine died.
    #[inline(always)]
    pub fn lock(&'static self) -> LockResult<MutexGuard<'static, T, L, R>> {
        self.mutex.lock_as::<TellOrRepair<T, L, R>>()
    }

    /// Takes the lock if nobody holds it.
    ///
    /// # Errors
    /// As [`Mutex::try_lock`], and see [`RepairMutex::lock`].
    #[inline(always)]
    pub fn try_lock(&'static self) -> TryLockResult<MutexGuard<'static, T, L, R>> {
        self.mutex.try_lock_as::<TellOrRepair<T, L, R>>()
    }

    /// Takes the lock, and runs the routine if its last owner died.
    ///
    /// # Errors
    /// As [`Mutex::lock`], but for [`LockError::OwnerDied`]; [`LockError::NotRecoverable`] if the
    /// routine gives up.
    ///
    /// # Panics
    /// If the routine returns the guard of another lock.
    pub fn lock_repaired(&'static self) -> LockResult<MutexGuard<'static, T, L, R>> {
        let died = match self.lock() {
            Err(LockError::OwnerDied(died)) => died,
            result => return result,
        };
        // As in `repair_in_place_of`: should this task die in the routine, the next owner is told.
        self.mutex.list_as(RawLock::<L, R>::held::<TellNext>());
        let Some(mended) = (self.repair)(died) else { return Err(LockError::NotRecoverable) };
        assert!(self.is_guarded_by(&mended), "a repair routine returned the guard of another lock");
        self.mutex.list_as(RawLock::<L, R>::held::<TellOrRepair<T, L, R>>());
        Ok(mended)
    }

    fn is_guarded_by(&self, guard: &MutexGuard<'static, T, L, R>) -> bool {
        core::ptr::eq(guard.lock_of(), &raw const self.mutex)
    }

    /// Whether somebody holds it: of use to a check or a report, and stale at once.
    pub fn is_locked(&self) -> bool {
        self.mutex.is_locked()
    }
}

impl<T, L: CurrentLedger, R: WaitStrategy<L>> fmt::Debug for RepairMutex<T, L, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RepairMutex").field(&self.mutex).finish()
    }
}

/// Mends what a dead task left, unless somebody else is at it.
unsafe fn repair_in_place_of<
    T: 'static,
    L: CurrentLedger + 'static,
    R: WaitStrategy<L> + 'static,
>(
    entry: &Entry,
) -> Outcome {
    let word = entry.resource().cast_const();
    let lock = word.wrapping_byte_sub(RepairMutex::<T, L, R>::WORD_OFFSET);
    // SAFETY: `Operations::reclaim`: the entry lists the word of a lock of this type, which was
    // locked through a `'static` reference, so it is still there.
    let lock = unsafe { &*lock.cast::<RepairMutex<T, L, R>>() };
    // As a plain mutex: should the keeper die, the next owner is told, and the keeper's keeper has
    // no routine to run.
    match lock.mutex.try_lock() {
        Err(TryLockError::Lock(LockError::OwnerDied(died))) => {
            // Should this die in the routine, it is not run again for this entry either.
            if !planted!(RepairedAgain) {
                entry.convert(&BEGUN);
            }
            match (lock.repair)(died) {
                Some(guard) if lock.is_guarded_by(&guard) => Outcome::Repaired,
                _ => Outcome::GivenUp,
            }
        }
        // Somebody was told before, and has put it right.
        Ok(_guard) => Outcome::OwnerDied,
        // Somebody was told and is at it, or has given up; or there is no room to say who mends it.
        Err(_) => Outcome::OwnerDied,
    }
}

unsafe fn nothing_to_release(_: &Ledger, _: &Entry) -> Outcome {
    Outcome::Orphaned
}

unsafe fn leave_to_the_next(_: &Entry) -> Outcome {
    Outcome::OwnerDied
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::owner_word::FREE;
    use crate::testing::{TestTask, domain, frozen, on_fresh_ledger};
    use crate::{Park, Settled, reclaim, settle};
    use core::sync::atomic::{AtomicBool, Ordering};
    use std::boxed::Box;
    use std::vec::Vec;
    use task_model::RegisterFile;

    type Lock = RepairMutex<[u32; 2], TestTask>;

    fn mend(
        mut died: OwnerDied<MutexGuard<'static, [u32; 2], TestTask>>,
    ) -> Option<MutexGuard<'static, [u32; 2], TestTask>> {
        let value = died.update();
        value[1] = value[0];
        Some(died.mark_consistent())
    }

    fn give_up(
        _: OwnerDied<MutexGuard<'static, [u32; 2], TestTask>>,
    ) -> Option<MutexGuard<'static, [u32; 2], TestTask>> {
        None
    }

    fn forever(repair: Repair<[u32; 2], TestTask>) -> &'static Lock {
        Box::leak(Box::new(Lock::new([1, 1], repair)))
    }

    /// Dies between two writes.
    fn torn_by(lock: &'static Lock) -> &'static Ledger {
        on_fresh_ledger(|_| {
            let mut guard = lock.lock().unwrap();
            guard[0] += 1;
            core::mem::forget(guard);
        })
    }

    fn settle_all(ledger: &Ledger) -> Vec<Outcome> {
        let (mut outcomes, mut registers) = (Vec::new(), RegisterFile::new());
        let each = |settled: Settled| outcomes.push(settled.outcome);
        // SAFETY: the task that had this ledger executes no more, and its locks are static.
        unsafe { settle(&frozen(&mut registers), ledger, &domain(), each) };
        outcomes
    }

    /// As a keeper, which has a ledger of its own.
    fn reclaim_all(ledger: &Ledger) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        let own = on_fresh_ledger(|_| {
            // SAFETY: the ledger has been settled.
            unsafe { reclaim(ledger, &domain(), |settled| outcomes.push(settled.outcome)) };
        });
        assert!(own.is_empty() && ledger.is_empty());
        outcomes
    }

    #[test]
    fn the_keeper_mends_the_value_and_nobody_is_told() {
        let lock = forever(mend);
        let dead = torn_by(lock);
        assert_eq!(settle_all(dead), [Outcome::Orphaned]);
        assert!(!lock.is_locked());
        assert_eq!(reclaim_all(dead), [Outcome::Repaired]);
        on_fresh_ledger(|_| assert_eq!(*lock.lock().unwrap(), [2, 2]));
    }

    #[test]
    fn who_dies_after_the_unlock_and_before_the_wake_up_did_not_die_with_the_lock() {
        type Sleeping = RepairMutex<[u32; 2], TestTask, Park>;
        let lock: &'static Sleeping =
            Box::leak(Box::new(Sleeping::new([1, 1], |_| panic!("there is nothing to mend"))));
        let word = lock.mutex.raw.word.get();
        let dead = on_fresh_ledger(|_| {
            core::mem::forget(lock.lock().unwrap());
            // What `unlock` begins with; its entry stands until it has woken who waits.
            word.store(FREE, Ordering::Release);
        });
        assert_eq!(settle_all(dead), [Outcome::Released]);
        assert_eq!(reclaim_all(dead), []);
        // One that did die with it.
        let dead = on_fresh_ledger(|_| core::mem::forget(lock.lock().unwrap()));
        assert_eq!(settle_all(dead), [Outcome::Orphaned]);
        // Settling again, as after a settler's death, is the same.
        assert_eq!(settle_all(dead), [Outcome::Orphaned]);
        on_fresh_ledger(|_| {
            let died = lock.try_lock().err();
            assert!(matches!(died, Some(TryLockError::Lock(LockError::OwnerDied(_)))));
        });
    }

    #[test]
    fn a_routine_that_gives_up_leaves_nothing_to_recover() {
        let lock = forever(give_up);
        let dead = torn_by(lock);
        settle_all(dead);
        assert_eq!(reclaim_all(dead), [Outcome::GivenUp]);
        on_fresh_ledger(|_| assert!(matches!(lock.lock(), Err(LockError::NotRecoverable))));
    }

    /// Not the lock that any test is about.
    static OTHER: Mutex<[u32; 2], TestTask> = Mutex::new([0, 0]);

    fn return_another_guard(
        _: OwnerDied<MutexGuard<'static, [u32; 2], TestTask>>,
    ) -> Option<MutexGuard<'static, [u32; 2], TestTask>> {
        OTHER.lock().ok()
    }

    #[test]
    fn a_routine_that_returns_another_lock_s_guard_has_mended_nothing() {
        let lock = forever(return_another_guard);
        let dead = torn_by(lock);
        settle_all(dead);
        assert_eq!(reclaim_all(dead), [Outcome::GivenUp]);
        assert!(!OTHER.is_locked());
        on_fresh_ledger(|_| assert!(matches!(lock.lock(), Err(LockError::NotRecoverable))));
    }

    #[test]
    #[should_panic(expected = "a repair routine returned the guard of another lock")]
    fn who_runs_such_a_routine_itself_is_told_so() {
        let lock = forever(return_another_guard);
        settle_all(torn_by(lock));
        on_fresh_ledger(|_| drop(lock.lock_repaired()));
    }

    #[test]
    fn whoever_comes_before_the_keeper_is_told_and_the_keeper_leaves_it_alone() {
        let lock = forever(mend);
        let dead = torn_by(lock);
        settle_all(dead);
        on_fresh_ledger(|_| {
            let Err(LockError::OwnerDied(died)) = lock.lock() else { panic!("not told") };
            // It holds the lock: the keeper does not wait for it.
            assert_eq!(reclaim_all(dead), [Outcome::OwnerDied]);
            drop(died.replace([7, 7]));
            assert_eq!(*lock.lock().unwrap(), [7, 7]);
        });
    }

    #[test]
    fn what_has_been_put_right_before_the_keeper_comes_is_left_alone() {
        let lock = forever(|_| panic!("there is nothing to mend"));
        let dead = torn_by(lock);
        settle_all(dead);
        on_fresh_ledger(|_| {
            let Err(LockError::OwnerDied(died)) = lock.lock() else { panic!("not told") };
            drop(died.replace([7, 7]));
        });
        assert_eq!(reclaim_all(dead), [Outcome::OwnerDied]);
        on_fresh_ledger(|_| assert_eq!(*lock.lock().unwrap(), [7, 7]));
    }

    #[test]
    fn the_next_owner_may_run_the_routine_itself() {
        let (lock, hopeless) = (forever(mend), forever(give_up));
        settle_all(torn_by(lock));
        settle_all(torn_by(hopeless));
        on_fresh_ledger(|ledger| {
            assert_eq!(*lock.lock_repaired().unwrap(), [2, 2]);
            assert_eq!(*lock.lock_repaired().unwrap(), [2, 2]);
            assert!(matches!(hopeless.lock_repaired(), Err(LockError::NotRecoverable)));
            assert!(ledger.is_empty());
        });
    }

    #[test]
    fn a_routine_that_dies_half_way_is_told_of_and_not_run_again() {
        let lock = forever(|mut died| {
            died.update()[1] = 9;
            // The keeper that runs it is never heard of again.
            core::mem::forget(died);
            std::panic::resume_unwind(Box::new(()))
        });
        let dead = torn_by(lock);
        settle_all(dead);
        let keeper = on_fresh_ledger(|_| {
            let died = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                // SAFETY: the ledger has been settled.
                unsafe { reclaim(dead, &domain(), |_| ()) };
            }));
            assert!(died.is_err());
        });
        assert_eq!(settle_all(keeper), [Outcome::OwnerDied]);
        // Its own keeper goes on where it stopped.
        assert_eq!(settle_all(dead), [Outcome::Orphaned]);
        assert_eq!(reclaim_all(dead), [Outcome::OwnerDied]);
        on_fresh_ledger(|_| {
            let Err(LockError::OwnerDied(died)) = lock.lock() else { panic!("not told") };
            assert_eq!(died.peek(), &[2, 9]);
            drop(died.replace([1, 1]));
            assert!(lock.lock().is_ok());
        });
    }

    #[test]
    fn a_next_owner_that_dies_in_the_routine_is_told_of_and_no_keeper_runs_it() {
        static DIES: AtomicBool = AtomicBool::new(true);
        let lock = forever(|died| {
            if DIES.load(Ordering::Relaxed) {
                core::mem::forget(died);
                std::panic::resume_unwind(Box::new(()));
            }
            mend(died)
        });
        settle_all(torn_by(lock));
        let next = on_fresh_ledger(|_| {
            let mends = std::panic::AssertUnwindSafe(|| drop(lock.lock_repaired()));
            assert!(std::panic::catch_unwind(mends).is_err());
        });
        assert_eq!(settle_all(next), [Outcome::OwnerDied]);
        DIES.store(false, Ordering::Relaxed);
        // Whose section after the routine is as any.
        let last = on_fresh_ledger(|_| core::mem::forget(lock.lock_repaired().unwrap()));
        assert_eq!(settle_all(last), [Outcome::Orphaned]);
        assert_eq!(reclaim_all(last), [Outcome::Repaired]);
    }

    #[test]
    fn a_keeper_whose_ledger_is_full_leaves_it_to_the_next_owner() {
        let lock = forever(mend);
        let dead = torn_by(lock);
        settle_all(dead);
        on_fresh_ledger(|_| {
            let locks = [const { Mutex::<(), TestTask>::new(()) }; Ledger::CAPACITY];
            let guards = locks.each_ref().map(|lock| lock.lock().unwrap());
            let mut outcomes = Vec::new();
            // SAFETY: the ledger has been settled.
            unsafe { reclaim(dead, &domain(), |settled| outcomes.push(settled.outcome)) };
            assert_eq!(outcomes, [Outcome::OwnerDied]);
            drop(guards);
            assert!(matches!(lock.try_lock(), Err(TryLockError::Lock(LockError::OwnerDied(_)))));
        });
    }
}
