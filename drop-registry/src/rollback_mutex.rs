//! A lock whose value is again what it was when its owner dies.
//!
//! There are two copies of the value, and a bit of the lock word says which of them counts. The
//! owner reads that one and writes the other:
//!
//! ```text
//!  word                  first copy        second copy
//!  ──────────────────    ──────────────    ──────────────────────────────────────────────
//!  free                  counts
//!  owner                 counts
//!  owner                 counts            a copy of the first, made at the first write
//!  owner                 counts            half written: if the owner dies here, it is free,
//!                                          and the first still counts
//!  free | second                           counts: the store that unlocks is what says so
//! ```
//!
//! So the settlement has nothing to do but to free the lock, and nothing is ever copied back. An
//! undo copy, taken when the lock is and put back after a death, costs as much copying while all
//! goes well, and beyond that a mark, a store that sets it before the first write, and somebody to
//! do the putting back.
#![expect(unsafe_code, reason = "a lock hands out references to its interior")]

use core::cell::UnsafeCell;
use core::fmt;
use core::ops::{Deref, DerefMut};
use core::ptr;
use core::sync::atomic::Ordering;

use spin::relax::Spin;

use crate::arch;
use crate::owner_word::SECOND;
use crate::raw_lock::{OnDeath, RawLock};
use crate::{
    CurrentLedger, Outcome, OwnLedger, Place, ResourceKind, TryWaitError, WaitError, WaitStrategy,
};

/// A mutual exclusion lock whose value its owner's death puts back.
///
/// The owner's changes become the value in the instant that it unlocks, all of them, in one
/// instruction. If it dies before that, wherever, none of them ever were: the next owner gets the
/// value as the dead one got it, and need not be told. It is the lock to choose for a value that
/// may be copied.
///
/// It costs a copy of the value for each critical section that writes, made at its first write;
/// one that only reads costs no more than with a [`Mutex`](crate::Mutex). It takes twice the room.
///
/// `T` is [`Copy`]: an abandoned copy of a value that owns something could be neither dropped nor
/// forgotten, and one that can be changed through a shared reference would be changed in place.
///
/// ```
/// # use core::ptr::NonNull;
/// # use drop_registry::{CurrentLedger, Ledger, RollbackMutex};
/// # struct Kernel;
/// # static LEDGER: Ledger = Ledger::new();
/// # // SAFETY: one task, one ledger.
/// # unsafe impl CurrentLedger for Kernel {
/// #     fn current() -> NonNull<Ledger> { NonNull::from(&LEDGER) }
/// # }
/// #[derive(Clone, Copy)]
/// struct Transfer { debited: u64, credited: u64 }
///
/// static TRANSFER: RollbackMutex<Transfer, Kernel> =
///     RollbackMutex::new(Transfer { debited: 0, credited: 0 });
///
/// let mut transfer = TRANSFER.lock().expect("not held, and room in the ledger");
/// transfer.debited += 10;
/// // Whoever dies here has not debited anything.
/// transfer.credited += 10;
/// drop(transfer);
///
/// let mut transfer = TRANSFER.lock().unwrap();
/// transfer.debited += 1;
/// transfer.roll_back();
/// assert_eq!((transfer.debited, transfer.credited), (10, 10));
/// ```
#[repr(C)]
pub struct RollbackMutex<T: Copy, L: CurrentLedger, R: WaitStrategy<L> = Spin> {
    raw: RawLock<L, R>,
    copies: [UnsafeCell<T>; 2],
}

// SAFETY: the lock hands the value to one task at a time, so it needs to be `Send` alone.
unsafe impl<T: Copy + Send, L: CurrentLedger, R: WaitStrategy<L>> Sync for RollbackMutex<T, L, R> {}
// SAFETY: it owns the value.
unsafe impl<T: Copy + Send, L: CurrentLedger, R: WaitStrategy<L>> Send for RollbackMutex<T, L, R> {}

/// The copy that counted goes on to count.
enum RollBack {}

impl OnDeath for RollBack {
    const KIND: ResourceKind = ResourceKind::Mutex;
    const OUTCOME: Outcome = Outcome::RolledBack;

    fn word_after(held: u64) -> u64 {
        if planted!(RestoredFromScratch) { held & SECOND ^ SECOND } else { held & SECOND }
    }
}

impl<T: Copy, L: CurrentLedger, R: WaitStrategy<L>> RollbackMutex<T, L, R> {
    /// A free lock around `value`.
    pub const fn new(value: T) -> Self {
        Self { raw: RawLock::new(), copies: [UnsafeCell::new(value), UnsafeCell::new(value)] }
    }

    /// Takes the lock, waiting for it if need be. Nobody ever needs to be told of a death.
    ///
    /// # Errors
    /// [`WaitError`] says each; none of them holds the lock.
    #[inline(always)]
    pub fn lock(&self) -> Result<RollbackGuard<'_, T, L, R>, WaitError> {
        let ledger = OwnLedger::<L>::current();
        // Relaxed: the exchange looks again.
        let marks = self.raw.word.get().load(Ordering::Relaxed) & SECOND;
        // SAFETY: the ledger is this task's, which writes the copy that does not count.
        if let Some(at) = unsafe { self.raw.take_from::<RollBack>(marks, ledger) }? {
            return Ok(RollbackGuard::new(self, marks, at));
        }
        // SAFETY: as above.
        let (taken, at) = unsafe { self.raw.take::<RollBack>(ledger, arch::frame_address()) }?;
        Ok(RollbackGuard::new(self, taken.marks(), at))
    }

    /// Takes the lock if nobody holds it.
    ///
    /// # Errors
    /// [`TryWaitError::WouldBlock`] if somebody does; else as [`RollbackMutex::lock`].
    #[inline(always)]
    pub fn try_lock(&self) -> Result<RollbackGuard<'_, T, L, R>, TryWaitError> {
        let ledger = OwnLedger::<L>::current();
        // SAFETY: as in `lock`.
        let (taken, at) = unsafe { self.raw.try_take::<RollBack>(ledger, arch::frame_address()) }?;
        Ok(RollbackGuard::new(self, taken.marks(), at))
    }

    /// Whether somebody holds it: of use to a check or a report, and stale at once.
    pub fn is_locked(&self) -> bool {
        self.raw.word.is_owned()
    }

    /// The value, through an exclusive reference to the lock: no locking needed, and no way back.
    pub fn get_mut(&mut self) -> &mut T {
        let marks = self.raw.word.get().load(Ordering::Relaxed) & SECOND;
        // SAFETY: nobody else has the lock, nor a guard, which would borrow it.
        unsafe { &mut *self.counting(marks) }
    }

    /// The copy that counts if the word has these marks.
    #[inline(always)]
    fn counting(&self, marks: u64) -> *mut T {
        self.copies[usize::from(marks & SECOND != 0)].get()
    }
}

/// # Panics
/// If the lock is held by another task, or has been moved since it was locked; both are possible
/// only if the guard was forgotten. The panic does not unwind.
impl<T: Copy, L: CurrentLedger, R: WaitStrategy<L>> Drop for RollbackMutex<T, L, R> {
    fn drop(&mut self) {
        // The value is whole in any case, and nothing need be done to drop it.
        self.raw.word.retire::<L>();
    }
}

impl<T: Copy + Default, L: CurrentLedger, R: WaitStrategy<L>> Default for RollbackMutex<T, L, R> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T: Copy, L: CurrentLedger, R: WaitStrategy<L>> fmt::Debug for RollbackMutex<T, L, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.raw.describe("RollbackMutex", f)
    }
}

/// A held [`RollbackMutex`]. Dropping it unlocks, and makes what was written the value: also while
/// a panic unwinds, which a task of its own can tell and [roll back](Self::roll_back).
///
/// Not `Send`: the ledger that says who holds the lock is the locking task's own.
#[must_use = "the lock is released when the guard is dropped"]
pub struct RollbackGuard<'a, T: Copy, L: CurrentLedger, R: WaitStrategy<L> = Spin> {
    lock: &'a RollbackMutex<T, L, R>,
    /// Which copy counts, as the word has it.
    marks: u64,
    /// Whether the other one is a copy of it, which may have been changed.
    changed: bool,
    place: Place,
}

// SAFETY: a shared guard gives shared access to the value alone.
unsafe impl<T: Copy + Sync, L: CurrentLedger, R: WaitStrategy<L>> Sync
    for RollbackGuard<'_, T, L, R>
{
}

impl<'a, T: Copy, L: CurrentLedger, R: WaitStrategy<L>> RollbackGuard<'a, T, L, R> {
    #[inline(always)]
    fn new(lock: &'a RollbackMutex<T, L, R>, marks: u64, place: Place) -> Self {
        Self { lock, marks, changed: false, place }
    }

    /// Makes what was written so far the value, in one instruction, and goes on holding the lock:
    /// a death rolls back to here.
    pub fn commit(&mut self) {
        if self.changed {
            self.lock.raw.word.flip(SECOND);
            self.marks ^= SECOND;
            self.changed = false;
        }
    }

    /// Takes back what was written since the lock was taken, or since the last
    /// [`commit`](Self::commit), and goes on holding the lock.
    pub fn roll_back(&mut self) {
        self.changed = false;
    }

    /// The copy that a reader of this guard sees.
    #[inline(always)]
    fn seen(&self) -> *mut T {
        self.lock.counting(if self.changed { self.marks ^ SECOND } else { self.marks })
    }

    #[inline(always)]
    fn begin_to_change(&mut self) {
        let counting = self.lock.counting(self.marks);
        // SAFETY: the guard holds the lock, whose copies do not overlap. Nobody has a reference to
        // the other one: this guard would be borrowed.
        unsafe { ptr::copy_nonoverlapping(counting, self.lock.counting(self.marks ^ SECOND), 1) };
        if planted!(CommittedEarly) {
            self.lock.raw.word.flip(SECOND);
        }
        self.changed = true;
    }
}

impl<T: Copy, L: CurrentLedger, R: WaitStrategy<L>> Drop for RollbackGuard<'_, T, L, R> {
    #[inline]
    fn drop(&mut self) {
        let marks = if self.changed { self.marks ^ SECOND } else { self.marks };
        // SAFETY: this guard holds the lock, and it is not `Send`, so this is the task that does.
        // What it wrote comes before: the store that unlocks is a Release, for the next owner.
        unsafe { self.lock.raw.release(marks, self.place) };
    }
}

impl<T: Copy, L: CurrentLedger, R: WaitStrategy<L>> Deref for RollbackGuard<'_, T, L, R> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the guard holds the lock. The copy that counts is whole: it was either made so
        // by `new`, or its owner lived to say that it counts; and it is not written while it does.
        // The other one is seen only once this guard has made it a copy of that.
        unsafe { &*self.seen() }
    }
}

impl<T: Copy, L: CurrentLedger, R: WaitStrategy<L>> DerefMut for RollbackGuard<'_, T, L, R> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        if !self.changed {
            self.begin_to_change();
        }
        // SAFETY: as in `deref`, of the copy that does not count; `&mut self` makes it exclusive.
        unsafe { &mut *self.seen() }
    }
}

impl<T: Copy + fmt::Debug, L: CurrentLedger, R: WaitStrategy<L>> fmt::Debug
    for RollbackGuard<'_, T, L, R>
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Ledger;
    use crate::testing::{TestTask, kill, on_fresh_ledger};

    type TestLock<T> = RollbackMutex<T, TestTask>;

    /// For a lock that is still held when its test ends.
    fn forever<T: Copy>(value: T) -> &'static TestLock<T> {
        std::boxed::Box::leak(std::boxed::Box::new(TestLock::new(value)))
    }

    fn value<T: Copy>(lock: &TestLock<T>) -> T {
        *lock.lock().unwrap()
    }

    #[test]
    fn what_was_written_is_the_value_after_the_unlock() {
        let ledger = on_fresh_ledger(|ledger| {
            let mut lock = TestLock::new([1, 2]);
            for turn in 0..3 {
                let mut guard = lock.lock().unwrap();
                assert_eq!((guard[0], ledger.len(), lock.is_locked()), (turn + 1, 1, true));
                guard[0] += 1;
                guard[1] += 1;
                assert_eq!(*guard, [turn + 2, turn + 3]);
            }
            // Reads alone change nothing.
            assert_eq!((value(&lock), value(&lock)), ([4, 5], [4, 5]));
            lock.get_mut()[0] = 9;
            assert_eq!(value(&lock), [9, 5]);
        });
        assert!(ledger.is_empty());
    }

    #[test]
    fn a_death_takes_everything_back_and_nobody_is_told() {
        let lock = TestLock::new([0, 0]);
        for (turn, last) in [7, 8, 9].into_iter().enumerate() {
            let outcomes = kill(|| {
                let mut guard = lock.lock().unwrap();
                guard[0] = 1000;
                core::mem::forget(guard);
            });
            assert_eq!(outcomes, [Outcome::RolledBack]);
            on_fresh_ledger(|_| {
                assert!(!lock.is_locked());
                assert_eq!(value(&lock), if turn == 0 { [0, 0] } else { [last - 1; 2] });
                *lock.lock().unwrap() = [last; 2];
            });
        }
    }

    #[test]
    fn a_death_goes_back_to_the_last_commit() {
        let lock = TestLock::new(0);
        kill(|| {
            let mut guard = lock.lock().unwrap();
            *guard = 1;
            guard.commit();
            // Nothing has been written since.
            guard.commit();
            assert_eq!(*guard, 1);
            *guard = 2;
            core::mem::forget(guard);
        });
        on_fresh_ledger(|_| assert_eq!(value(&lock), 1));
        kill(|| {
            let mut guard = lock.lock().unwrap();
            for now in 2..5 {
                *guard = now;
                guard.commit();
            }
            core::mem::forget(guard);
        });
        on_fresh_ledger(|_| assert_eq!(value(&lock), 4));
    }

    #[test]
    fn the_owner_itself_may_take_its_changes_back() {
        on_fresh_ledger(|_| {
            let lock = TestLock::new([1, 1]);
            let mut guard = lock.lock().unwrap();
            guard[0] = 2;
            guard.roll_back();
            assert_eq!(*guard, [1, 1]);
            guard[1] = 3;
            drop(guard);
            assert_eq!(value(&lock), [1, 3]);
        });
    }

    #[test]
    fn whoever_would_wait_for_itself_or_has_no_room_is_refused() {
        on_fresh_ledger(|ledger| {
            let lock = TestLock::new(1);
            let guard = lock.lock().unwrap();
            assert_eq!(lock.lock().unwrap_err(), WaitError::Recursive);
            assert_eq!(lock.try_lock().unwrap_err(), TryWaitError::Wait(WaitError::Recursive));
            drop(guard);
            let locks = [const { TestLock::new(0) }; Ledger::CAPACITY];
            let guards = locks.each_ref().map(|lock| lock.lock().unwrap());
            assert_eq!(lock.lock().unwrap_err(), WaitError::LedgerFull);
            assert!(!lock.is_locked());
            drop(guards);
            assert!(ledger.is_empty());
        });
    }

    #[test]
    fn a_lock_held_by_another_task_would_block() {
        let lock = forever(0);
        let other = on_fresh_ledger(|_| core::mem::forget(lock.lock().unwrap()));
        on_fresh_ledger(|_| assert_eq!(lock.try_lock().unwrap_err(), TryWaitError::WouldBlock));
        assert_eq!(other.len(), 1);
    }

    #[test]
    fn guards_may_be_dropped_in_any_order() {
        let ledger = on_fresh_ledger(|_| {
            let (a, b) = (TestLock::new(1), TestLock::new(2));
            let (mut held_a, mut held_b) = (a.lock().unwrap(), b.lock().unwrap());
            core::mem::swap(&mut *held_a, &mut *held_b);
            drop(held_a);
            drop(held_b);
            assert_eq!((value(&a), value(&b)), (2, 1));
        });
        assert!(ledger.is_empty());
    }

    #[test]
    fn a_destroyed_lock_whose_guard_was_forgotten_is_not_listed_any_more() {
        on_fresh_ledger(|ledger| {
            // In a box, so that dropping it does not move it.
            let lock = std::boxed::Box::new(TestLock::new(1));
            core::mem::forget(lock.lock().unwrap());
            assert_eq!(ledger.len(), 1);
            drop(lock);
            assert!(ledger.is_empty());
        });
    }
}
