//! A channel's ring.

use loom::sync::Arc;
use loom::sync::atomic::Ordering;
use loom::thread;
use orderings::{Ring, Strength};

use crate::Value;

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

/// It may see the old end, and the new cell, for ever, and never gets on.
#[test]
#[should_panic = "maximum number of branches"]
fn a_relaxed_look_at_the_end_of_a_ring_is_missed() {
    channel(Strength { end: Ordering::Relaxed, ..Strength::REAL }, false, false);
}

/// As above.
#[test]
#[should_panic = "maximum number of branches"]
fn an_end_of_a_ring_that_is_taken_on_by_a_relaxed_exchange_is_missed() {
    channel(Strength { advance: Ordering::Relaxed, ..Strength::REAL }, false, false);
}

#[test]
#[should_panic = "there is room"]
fn a_relaxed_look_at_the_number_of_a_cell_is_missed() {
    channel(Strength { number: Ordering::Relaxed, ..Strength::REAL }, false, false);
}
