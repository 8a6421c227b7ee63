//! What has one owner at a time.

use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread;
use orderings::{Copies, Lock, Made, ReadWriteLock, Strength, Taken};

use crate::{ONE, TWO, Value};

fn mutex(strength: Strength) {
    loom::model(move || {
        let shared = Arc::new((Lock::new(strength), Value::new()));
        let tasks = [ONE, TWO].map(|me| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                if shared.0.try_lock(me).is_some() {
                    shared.1.change();
                    shared.0.unlock();
                }
            })
        });
        tasks.into_iter().for_each(|task| task.join().unwrap());
    });
}

#[test]
fn a_mutex_lets_one_in_and_the_next_sees_what_it_did() {
    mutex(Strength::REAL);
}

#[test]
#[should_panic = "Causality violation"]
fn a_relaxed_unlock_is_missed() {
    mutex(Strength { store: Ordering::Relaxed, ..Strength::REAL });
}

/// One task dies with the lock, another one wants it, and a third settles the first.
fn mutex_settled(strength: Strength, acknowledged: Ordering) {
    loom::model(move || {
        let shared = Arc::new((Lock::new(strength), Value::new(), AtomicBool::new(false)));
        let other = Arc::clone(&shared);
        let dies = thread::spawn(move || {
            if other.0.try_lock(ONE).is_some() {
                other.1.change();
            }
            // The freeze is acknowledged.
            other.2.store(true, acknowledged);
        });
        let other = Arc::clone(&shared);
        let next = thread::spawn(move || match other.0.try_lock(TWO) {
            Some(Taken::OwnerDied) => {
                assert_eq!(other.1.read(), 1);
                other.1.change();
            }
            Some(Taken::Whole) => {
                other.1.change();
                other.0.unlock();
            }
            None => {}
        });
        // The settler. It is not the one to wait for the freeze.
        if shared.2.load(Ordering::Acquire) {
            shared.0.settle(ONE);
            assert!(!shared.0.settle(ONE), "settled twice");
        }
        dies.join().unwrap();
        next.join().unwrap();
    });
}

#[test]
fn who_is_told_of_a_death_sees_what_the_dead_one_wrote() {
    mutex_settled(Strength::REAL, Ordering::Release);
}

#[test]
#[should_panic = "Causality violation"]
fn a_freeze_that_is_not_acknowledged_is_missed() {
    // The settler's own exchange would order nothing either then.
    mutex_settled(Strength::RELAXED_LOCKED, Ordering::Relaxed);
}

fn read_write(strength: Strength) {
    loom::model(move || {
        let shared = Arc::new((ReadWriteLock::new(strength), Value::new()));
        let other = Arc::clone(&shared);
        let reads = thread::spawn(move || {
            if other.0.try_read() {
                other.1.read();
                other.0.leave();
            }
        });
        if shared.0.try_write(ONE).is_some() {
            shared.1.change();
            shared.0.unlock_write();
        }
        reads.join().unwrap();
    });
}

#[test]
fn nobody_reads_while_somebody_writes() {
    read_write(Strength::REAL);
}

#[test]
#[should_panic = "Causality violation"]
fn a_locked_instruction_that_is_no_barrier_lets_a_reader_in_beside_a_writer() {
    read_write(Strength { locked_is_barrier: false, ..Strength::REAL });
}

/// One task has died while it read, and is settled; another one wants to write.
fn reader_settled(strength: Strength, marked_first: bool) {
    loom::model(move || {
        let shared = Arc::new((ReadWriteLock::new(strength), Value::new()));
        // What a reader changes, behind a lock or an atomic inside the value.
        assert!(shared.0.try_read());
        shared.1.change();
        let other = Arc::clone(&shared);
        let settles = thread::spawn(move || other.0.settle_reader(marked_first));
        match shared.0.try_write(ONE) {
            Some(Taken::OwnerDied) => assert_eq!(shared.1.read(), 1),
            Some(Taken::Whole) => panic!("a reader's death was not told"),
            None => {}
        }
        settles.join().unwrap();
    });
}

#[test]
fn who_writes_after_a_dead_reader_is_told() {
    reader_settled(Strength::REAL, true);
    // It is one word that both change, so that nothing else is needed.
    reader_settled(Strength::RELAXED_LOCKED, true);
}

#[test]
#[should_panic = "a reader's death was not told"]
fn a_dead_reader_that_is_marked_after_the_decrement_is_missed() {
    reader_settled(Strength::REAL, false);
}

/// One task begins to make a value, and may die half-way; another one uses it if it is there, and
/// makes it if nobody does.
fn made_once(strength: Strength, maker_dies: bool) {
    loom::model(move || {
        let shared = Arc::new((Made::new(strength), Value::new(), AtomicBool::new(false)));
        let make = |shared: &(Made, Value, AtomicBool), me, dies: bool| {
            if shared.0.begin(me) {
                shared.1.change();
                if !dies {
                    shared.0.complete();
                }
            }
        };
        let other = Arc::clone(&shared);
        let makes = thread::spawn(move || {
            make(&other, ONE, maker_dies);
            // The freeze is acknowledged.
            other.2.store(true, Ordering::Release);
        });
        let other = Arc::clone(&shared);
        let next = thread::spawn(move || {
            make(&other, TWO, false);
            if other.0.is_completed() {
                other.1.read();
            }
        });
        if maker_dies && shared.2.load(Ordering::Acquire) {
            shared.0.settle(ONE);
            assert!(!shared.0.settle(ONE), "settled twice");
        }
        if shared.0.is_completed() {
            shared.1.read();
        }
        makes.join().unwrap();
        next.join().unwrap();
    });
}

#[test]
fn a_value_is_made_by_one_at_a_time_and_whole_when_it_is_seen() {
    made_once(Strength::REAL, false);
    made_once(Strength::REAL, true);
}

#[test]
#[should_panic = "Causality violation"]
fn a_settler_that_lets_the_next_begin_by_a_relaxed_exchange_is_missed() {
    made_once(Strength::RELAXED_LOCKED, true);
}

#[test]
#[should_panic = "Causality violation"]
fn a_value_that_is_done_by_a_relaxed_store_is_missed() {
    made_once(Strength { store: Ordering::Relaxed, ..Strength::REAL }, false);
}

#[test]
#[should_panic = "Causality violation"]
fn a_relaxed_look_whether_it_is_done_is_missed() {
    made_once(Strength { load: Ordering::Relaxed, ..Strength::REAL }, false);
}

/// Two tasks write the copy that does not count. One of them may die with it half-written, and is
/// settled. Whoever comes reads what was last committed.
fn rolled_back(strength: Strength, dies: bool) {
    loom::model(move || {
        let copies = [Value::new(), Value::new()];
        let shared = Arc::new((Copies::new(strength), copies, AtomicBool::new(false)));
        let write = |shared: &(Copies, [Value; 2], AtomicBool), me, commits: bool| {
            let counts = shared.0.take(me)?;
            let before = shared.1[counts].read();
            let other = &shared.1[1 - counts];
            while other.read() <= before {
                other.change();
            }
            if commits {
                shared.0.unlock(1 - counts);
            }
            Some(before)
        };
        let other = Arc::clone(&shared);
        let one = thread::spawn(move || {
            let before = write(&other, ONE, !dies);
            // The freeze is acknowledged.
            other.2.store(dies, Ordering::Release);
            before
        });
        let other = Arc::clone(&shared);
        let two = thread::spawn(move || write(&other, TWO, true));
        if dies && shared.2.load(Ordering::Acquire) {
            shared.0.settle(ONE);
            assert!(!shared.0.settle(ONE), "settled twice");
        }
        let (one, two) = (one.join().unwrap(), two.join().unwrap());
        if dies {
            shared.0.settle(ONE);
        }
        let committed = u64::from(two.is_some()) + u64::from(!dies && one.is_some());
        assert_eq!(write(&shared, ONE, true), Some(committed), "{one:?} {two:?}");
    });
}

#[test]
fn what_counts_is_what_was_committed_last() {
    rolled_back(Strength::REAL, false);
    rolled_back(Strength::REAL, true);
}

/// One task commits, goes on, and dies; another one comes when it has been settled.
#[test]
fn what_was_committed_counts_for_whoever_comes_after_a_death() {
    loom::model(|| {
        let copies = [Value::new(), Value::new()];
        let shared = Arc::new((Copies::new(Strength::REAL), copies, AtomicBool::new(false)));
        let other = Arc::clone(&shared);
        let dies = thread::spawn(move || {
            if let Some(counts) = other.0.take(ONE) {
                other.1[1 - counts].change();
                other.0.commit(ONE, counts);
                other.1[counts].change();
                other.2.store(true, Ordering::Release);
            }
        });
        if shared.2.load(Ordering::Acquire) {
            assert!(shared.0.settle(ONE));
        }
        if let Some(counts) = shared.0.take(TWO) {
            // Before the dead one came, or what it committed.
            assert_eq!(shared.1[counts].read(), counts as u64);
            shared.0.unlock(counts);
        }
        dies.join().unwrap();
    });
}

#[test]
#[should_panic = "Causality violation"]
fn a_relaxed_exchange_of_copies_is_missed() {
    rolled_back(Strength::RELAXED_LOCKED, false);
}

#[test]
#[should_panic = "Causality violation"]
fn a_copy_that_counts_by_a_relaxed_store_is_missed() {
    rolled_back(Strength { store: Ordering::Relaxed, ..Strength::REAL }, false);
}
