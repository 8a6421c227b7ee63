//! Two tasks and a settler, in every order; and each ordering weakened, to see that it is missed.
#![expect(unsafe_code, reason = "values behind locks that are a model")]

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread;
use orderings::{Blocks, Count, Lock, Place, Queue, ReadWriteLock, Ring, Strength, Taken};

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

/// What the items of a ring stand for, by number from 1.
type Items = [Value; 3];

/// A ring of one cell has one item. One task sends another, may die as a sender when it has, and
/// receives; another one receives twice, or dies when it has once. Whatever they get, an item comes
/// out once, whole, and the ring works on.
fn channel(strength: Strength, sender_dies: bool, receiver_dies: bool) {
    loom::model(move || {
        let items: Items = [Value::new(), Value::new(), Value::new()];
        let shared = Arc::new((Ring::<1>::new(strength), items));
        let receive = |shared: &(Ring<1>, Items), dies| {
            let item = shared.0.pull(dies)?;
            assert_eq!(shared.1[item as usize - 1].read(), 1);
            shared.1[item as usize - 1].change();
            Some(item)
        };
        let send = |shared: &(Ring<1>, Items), item: u64, dies| {
            shared.1[item as usize - 1].change();
            shared.0.put(item, dies)
        };
        assert!(send(&shared, 1, false), "it is empty");
        let other = Arc::clone(&shared);
        let sends = thread::spawn(move || {
            let sent = send(&other, 2, sender_dies);
            (sent, receive(&other, false))
        });
        let mut received = Vec::from_iter(receive(&shared, receiver_dies));
        if !receiver_dies {
            received.extend(receive(&shared, false));
        }
        let (sent, by_sender) = sends.join().unwrap();
        received.extend(by_sender);
        while let Some(item) = receive(&shared, false) {
            received.push(item);
        }
        received.sort_unstable();
        assert_eq!(received, if sent { vec![1, 2] } else { vec![1] }, "an item was lost");
        assert!(send(&shared, 3, false), "there is room");
        assert_eq!(receive(&shared, false), Some(3), "it works on");
    });
}

#[test]
fn what_comes_out_of_a_ring_was_sent_once_and_is_all_there() {
    channel(Strength::REAL, false, false);
}

#[test]
fn whoever_dies_at_a_ring_leaves_it_to_the_others() {
    channel(Strength::REAL, true, false);
    channel(Strength::REAL, false, true);
    channel(Strength::REAL, true, true);
}

#[test]
#[should_panic = "Causality violation"]
fn a_relaxed_exchange_of_a_cell_is_missed() {
    channel(Strength::RELAXED_LOCKED, false, false);
}

#[test]
#[should_panic]
fn a_relaxed_look_at_the_end_of_a_ring_is_missed() {
    channel(Strength { end: Ordering::Relaxed, ..Strength::REAL }, false, false);
}

#[test]
#[should_panic]
fn an_end_of_a_ring_that_is_taken_on_by_a_relaxed_exchange_is_missed() {
    channel(Strength { advance: Ordering::Relaxed, ..Strength::REAL }, false, false);
}

#[test]
#[should_panic]
fn a_relaxed_look_at_the_number_of_a_cell_is_missed() {
    channel(Strength { number: Ordering::Relaxed, ..Strength::REAL }, false, false);
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
