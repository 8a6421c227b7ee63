//! Two tasks and a settler, in every order; and each ordering weakened, to see that it is missed.
#![expect(unsafe_code, reason = "values behind locks that are a model")]

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread;
use orderings::{Blocks, Count, Lock, Place, Queue, ReadWriteLock, Strength, Taken};

/// A value that one thread at a time may change. loom complains if two do.
struct Value(UnsafeCell<u64>);

// SAFETY: loom watches every access.
unsafe impl Sync for Value {}

impl Value {
    fn new() -> Self {
        Self(UnsafeCell::new(0))
    }

    fn change(&self) {
        // SAFETY: loom watches it.
        self.0.with_mut(|value| unsafe { *value += 1 });
    }

    fn read(&self) -> u64 {
        // SAFETY: loom watches it.
        self.0.with(|value| unsafe { *value })
    }
}

const ONE: u64 = 64;
const TWO: u64 = 128;

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
        if shared.0.try_write(ONE) {
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

/// Two holders and a dead one, which a third thread settles; the last of the three destroys.
fn count(strength: Strength) {
    loom::model(move || {
        let shared = Arc::new((Count::new(3, strength), Value::new()));
        let destroy = |shared: &(Count, Value), last: Option<bool>| {
            if let Some(holder_died) = last {
                assert!(holder_died, "the last holder does not know of the death");
                shared.1.change();
            }
            u32::from(last.is_some())
        };
        let tasks = [false, true].map(|dies| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                shared.1.read();
                let last = if dies { shared.0.settle() } else { shared.0.drop_share() };
                destroy(&shared, last)
            })
        });
        shared.1.read();
        let mut destroyed = destroy(&shared, shared.0.drop_share());
        destroyed += tasks.map(|task| task.join().unwrap()).iter().sum::<u32>();
        assert_eq!(destroyed, 1);
    });
}

#[test]
fn the_last_share_destroys_once_after_all_have_looked_and_knows_of_a_death() {
    count(Strength::REAL);
}

#[test]
#[should_panic]
fn a_relaxed_decrement_is_missed() {
    count(Strength::RELAXED_LOCKED);
}

fn hand_over(strength: Strength) {
    loom::model(move || {
        let shared = Arc::new((Place::new(strength), Value::new()));
        let other = Arc::clone(&shared);
        let puts = thread::spawn(move || {
            other.1.change();
            assert!(other.0.put(64));
        });
        if shared.0.look() != 0 {
            assert_eq!(shared.1.read(), 1);
        }
        puts.join().unwrap();
    });
}

#[test]
fn what_is_found_in_a_slot_is_all_there() {
    hand_over(Strength::REAL);
}

#[test]
#[should_panic = "Causality violation"]
fn a_relaxed_look_into_a_slot_is_missed() {
    hand_over(Strength { load: Ordering::Relaxed, ..Strength::REAL });
}

/// A waiter, and a waker that may die as soon as it has made true what the waiter waits for; its
/// settler gives the wake-up then.
fn wake_up(strength: Strength, waker_dies: bool) {
    loom::model(move || {
        let shared = Arc::new((Queue::new(strength), AtomicBool::new(false)));
        let other = Arc::clone(&shared);
        let waits = thread::spawn(move || {
            let (queue, ready) = &*other;
            queue.enrol();
            if ready.load(Ordering::Relaxed) {
                queue.leave();
                return false;
            }
            // It sleeps, unless it has been woken meanwhile, and looks again.
            !(queue.take_wake_up() && ready.load(Ordering::Relaxed))
        });
        let (queue, ready) = &*shared;
        ready.store(true, Ordering::Relaxed);
        // (The settler comes after the acknowledged freeze: it is this thread, too.)
        let unparks = if waker_dies { queue.pass_on() } else { queue.notify_one() };
        let sleeps = waits.join().unwrap();
        assert!(unparks || !sleeps, "a wake-up was lost");
    });
}

#[test]
fn no_wake_up_is_lost() {
    wake_up(Strength::REAL, false);
}

#[test]
fn no_wake_up_of_a_dead_waker_is_lost() {
    wake_up(Strength::REAL, true);
}

#[test]
#[should_panic = "a wake-up was lost"]
fn a_waker_without_its_barrier_is_missed() {
    wake_up(Strength { waker_fence: false, ..Strength::REAL }, false);
}

#[test]
#[should_panic = "a wake-up was lost"]
fn a_waiter_without_its_barrier_is_missed() {
    wake_up(Strength { waiter_fence: false, ..Strength::REAL }, false);
}

fn heap(strength: Strength) {
    loom::model(move || {
        let shared = Arc::new((Blocks::new(strength), [Value::new(), Value::new()]));
        let work = |shared: &(Blocks, [Value; 2])| {
            if let Some(block) = shared.0.claim() {
                shared.1[block].change();
                shared.0.release(block);
            }
        };
        let other = Arc::clone(&shared);
        let task = thread::spawn(move || work(&other));
        work(&shared);
        task.join().unwrap();
    });
}

#[test]
fn a_block_has_one_owner_and_the_next_sees_what_it_did() {
    heap(Strength::REAL);
}

#[test]
#[should_panic = "Causality violation"]
fn a_relaxed_release_of_a_block_is_missed() {
    heap(Strength::RELAXED_LOCKED);
}
