//! Where something is put, and found.

use loom::sync::Arc;
use loom::sync::atomic::Ordering;
use loom::thread;
use orderings::{Blocks, Place, Strength};

use crate::Value;

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
