#![expect(unsafe_code, reason = "takes words by hand, and has a task that could sleep")]

use super::*;
use crate::Outcome;
use crate::owner_word::FREE;
use crate::testing::{TestTask, kill, on_fresh_ledger};
use crate::{LockError, OwnLedger, TryLockError};
use std::boxed::Box;

type TestLock<T> = RwLock<T, TestTask>;

/// For a lock that is still held when its test ends.
fn forever<T>(value: T) -> &'static TestLock<T> {
    Box::leak(Box::new(TestLock::new(value)))
}

#[test]
fn readers_share_and_writers_do_not() {
    let lock = TestLock::new(1);
    on_fresh_ledger(|ledger| {
        let (one, two) = (lock.read().unwrap(), lock.read().unwrap());
        assert_eq!((*one + *two, lock.reader_count(), ledger.len()), (2, 2, 2));
        on_fresh_ledger(|ledger| {
            assert_eq!(*lock.read().unwrap(), 1);
            assert!(matches!(lock.try_write(), Err(TryLockError::WouldBlock)));
            assert!(ledger.is_empty() && !lock.is_write_locked());
        });
        drop((one, two));
        let mut writer = lock.write().unwrap();
        *writer = 2;
        on_fresh_ledger(|ledger| {
            assert_eq!(lock.try_read().err(), Some(TryReadError::WouldBlock));
            assert!(matches!(lock.try_write(), Err(TryLockError::WouldBlock)));
            assert!(ledger.is_empty());
        });
        drop(writer);
        assert_eq!(*lock.read().unwrap(), 2);
        assert_eq!(lock.reader_count(), 0);
    });
}

#[test]
fn a_writer_does_not_read_on_the_strength_of_a_guard_that_was_forgotten() {
    let mut lock = TestLock::new(1);
    on_fresh_ledger(|_| {
        core::mem::forget(lock.read().unwrap());
        // Another lock in the same place, and the ledger still lists that.
        core::mem::forget(core::mem::replace(&mut lock, TestLock::new(2)));
        let writes = lock.write().unwrap();
        assert_eq!(lock.read().err(), Some(ReadError::Recursive));
        drop(writes);
    });
}

#[test]
fn guards_may_be_dropped_in_any_order() {
    on_fresh_ledger(|ledger| {
        let locks = [const { TestLock::new(0) }; 3];
        let one = locks[0].read().unwrap();
        let two = locks[1].write().unwrap();
        let three = locks[2].read().unwrap();
        let again = locks[0].read().unwrap();
        drop(two);
        drop(one);
        assert_eq!(locks.each_ref().map(RwLock::reader_count), [1, 0, 1]);
        drop(again);
        drop(three);
        assert!(locks.iter().all(|lock| lock.reader_count() == 0 && !lock.is_write_locked()));
        assert!(ledger.is_empty());
    });
}

#[test]
fn after_a_reader_s_death_the_next_writer_is_told_and_readers_read_on() {
    let mut lock = TestLock::new(5);
    on_fresh_ledger(|ledger| {
        let mine = lock.read().unwrap();
        let outcomes = kill(|| core::mem::forget((lock.read().unwrap(), lock.read().unwrap())));
        assert_eq!(outcomes, [Outcome::OwnerDied; 2]);
        assert_eq!((*mine, lock.reader_count()), (5, 1));
        assert_eq!(*lock.read().unwrap(), 5);
        // A writer that waits in vain leaves the mark where it is.
        on_fresh_ledger(|_| assert!(matches!(lock.try_write(), Err(TryLockError::WouldBlock))));
        drop(mine);
        let Err(TryLockError::Lock(LockError::OwnerDied(died))) = lock.try_write() else {
            panic!("not told")
        };
        drop(died.replace(6));
        assert_eq!(*lock.write().unwrap(), 6);
        assert!(ledger.is_empty());
    });
    assert_eq!(lock.get_mut(), Ok(&mut 6));
}

#[test]
fn a_writer_that_is_told_of_a_reader_may_give_the_value_up_or_die() {
    let (given_up, written) = (TestLock::new(5), TestLock::new(5));
    for lock in [&given_up, &written] {
        kill(|| core::mem::forget(lock.read().unwrap()));
    }
    on_fresh_ledger(|_| {
        drop(given_up.write().unwrap_err());
        assert!(matches!(given_up.write(), Err(LockError::NotRecoverable)));
        assert_eq!(given_up.read().err(), Some(ReadError::NotRecoverable));
    });
    assert_eq!(kill(|| core::mem::forget(written.write().unwrap_err())), [Outcome::OwnerDied]);
    on_fresh_ledger(|_| {
        assert_eq!(written.read().err(), Some(ReadError::OwnerDied));
        let Err(LockError::OwnerDied(died)) = written.write() else { panic!("not told") };
        drop(died.replace(6));
        assert!(written.write().is_ok());
    });
}

#[test]
fn of_a_value_that_no_reader_can_tear_nobody_is_told() {
    let mut lock = RwLock::<_, TestTask>::new_untorn([5]);
    assert_eq!(kill(|| core::mem::forget(lock.read().unwrap())), [Outcome::Released]);
    assert!(lock.get_mut().is_ok());
    on_fresh_ledger(|_| assert!(lock.write().is_ok()));
}

/// Two halves that are equal unless somebody stopped between writing them; and a destructor that
/// must never see that.
struct Halves([u32; 2]);

impl Drop for Halves {
    fn drop(&mut self) {
        assert_eq!(self.0[0], self.0[1], "a torn value was dropped");
    }
}

#[test]
fn what_a_reader_tore_behind_a_foreign_lock_is_neither_handed_out_nor_dropped() {
    let mut lock = TestLock::new(spin::Mutex::<_>::new(Halves([1, 1])));
    kill(|| {
        let reader = lock.read().unwrap();
        let mut halves = reader.lock();
        halves.0[0] = 2;
        core::mem::forget(halves);
        core::mem::forget(reader);
    });
    // The foreign lock keeps other readers out of it, but not who has it for himself.
    on_fresh_ledger(|_| assert!(lock.read().unwrap().try_lock().is_none()));
    assert_eq!(lock.get_mut().err(), Some(MaybeTorn));
    drop(lock);
}

#[test]
fn a_full_ledger_does_not_keep_a_sleeping_writer_from_being_told() {
    let lock = RwLock::<_, TestTask, crate::Park>::new(5);
    assert_eq!(kill(|| core::mem::forget(lock.read().unwrap())), [Outcome::OwnerDied]);
    on_fresh_ledger(|_| {
        let others = [const { TestLock::new(0) }; Ledger::CAPACITY - 1];
        let _guards = others.each_ref().map(|other| other.read().unwrap());
        let Err(LockError::OwnerDied(died)) = lock.write() else { panic!("not told") };
        drop(died.replace(6));
    });
}

#[test]
fn after_a_dead_writer_reading_is_refused_until_a_writer_has_put_it_right() {
    let lock = TestLock::new(5);
    assert_eq!(kill(|| core::mem::forget(lock.write().unwrap())), [Outcome::OwnerDied]);
    on_fresh_ledger(|_| {
        assert_eq!(lock.read().err(), Some(ReadError::OwnerDied));
        let Err(LockError::OwnerDied(died)) = lock.write() else { panic!("not told") };
        drop(died.replace(6));
        assert_eq!(*lock.read().unwrap(), 6);
    });
}

#[test]
fn a_value_that_nobody_put_right_is_given_up_for_readers_too() {
    let lock = TestLock::new(5);
    kill(|| core::mem::forget(lock.write().unwrap()));
    on_fresh_ledger(|ledger| {
        drop(lock.write().unwrap_err());
        assert_eq!(lock.read().err(), Some(ReadError::NotRecoverable));
        assert!(matches!(lock.write(), Err(LockError::NotRecoverable)));
        assert!(ledger.is_empty() && lock.reader_count() == 0);
    });
}

/// As a writer that waits for the readers to leave.
fn drain(lock: &TestLock<u32>) {
    let ledger = OwnLedger::<TestTask>::current();
    // SAFETY: to own the word is what `DRAINS` means.
    let taken = unsafe { lock.word.take_from(FREE, TestLock::<u32>::DRAINS, ledger) };
    assert!(taken.unwrap().is_some(), "the word is free");
}

#[test]
fn a_writer_that_dies_before_the_readers_have_left_has_torn_nothing() {
    let lock = forever(5);
    let readers = on_fresh_ledger(|_| core::mem::forget(lock.read().unwrap()));
    let outcomes = kill(|| {
        drain(lock);
    });
    assert_eq!((outcomes, readers.len()), (std::vec![Outcome::Released], 1));
    on_fresh_ledger(|_| assert_eq!(*lock.read().unwrap(), 5));
}

#[test]
fn a_task_that_reads_may_read_again_while_a_writer_waits_but_not_write() {
    let lock = forever(1);
    on_fresh_ledger(|ledger| {
        let first = lock.read().unwrap();
        on_fresh_ledger(|_| drain(lock));
        let second = lock.read().unwrap();
        assert_eq!(*first + *second, 2);
        assert!(matches!(lock.write(), Err(LockError::Recursive)));
        drop((first, second));
        assert!(ledger.is_empty() && lock.reader_count() == 0);
    });
}

#[test]
fn who_reads_may_not_write_and_who_writes_may_not_read() {
    let lock = TestLock::new(1);
    on_fresh_ledger(|ledger| {
        let reader = lock.read().unwrap();
        assert!(matches!(lock.write(), Err(LockError::Recursive)));
        assert!(matches!(lock.try_write(), Err(TryLockError::Lock(LockError::Recursive))));
        assert_eq!((ledger.len(), lock.is_write_locked()), (1, false));
        drop(reader);
        let writer = lock.write().unwrap();
        assert_eq!(lock.read().err(), Some(ReadError::Recursive));
        assert!(matches!(lock.write(), Err(LockError::Recursive)));
        assert_eq!((ledger.len(), lock.reader_count()), (1, 0));
        drop(writer);
        assert!(ledger.is_empty());
    });
}

#[test]
fn a_full_ledger_refuses_both_and_leaves_the_lock_free() {
    on_fresh_ledger(|ledger| {
        let full: std::vec::Vec<_> =
            (0..Ledger::CAPACITY).map(|_| Box::new(TestLock::new(0))).collect();
        let guards: std::vec::Vec<_> = full.iter().map(|lock| lock.read().unwrap()).collect();
        let lock = TestLock::new(0);
        assert_eq!(lock.read().err(), Some(ReadError::LedgerFull));
        assert!(matches!(lock.write(), Err(LockError::LedgerFull)));
        assert_eq!((lock.reader_count(), lock.is_write_locked()), (0, false));
        drop(guards);
        assert!(ledger.is_empty());
    });
}

#[test]
fn a_destroyed_lock_whose_guards_were_forgotten_is_not_listed_any_more() {
    on_fresh_ledger(|ledger| {
        // In a box, so that dropping it does not move it.
        let lock = Box::new(TestLock::new(1));
        core::mem::forget((lock.read().unwrap(), lock.read().unwrap()));
        assert_eq!(ledger.len(), 2);
        drop(lock);
        assert!(ledger.is_empty());
    });
}

#[test]
#[should_panic(expected = "more than 2^63 readers")]
fn a_count_of_readers_that_overflows_is_a_panic() {
    let lock = forever(1);
    lock.readers.get().store(u64::MAX >> 1, core::sync::atomic::Ordering::Relaxed);
    on_fresh_ledger(|_| drop(lock.read()));
}
