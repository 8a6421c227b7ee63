//! What several have at a time.

use loom::sync::Arc;
use loom::sync::atomic::{AtomicU64, Ordering};
use loom::thread;
use orderings::{Count, Permits, Strength};

use crate::Value;

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
#[should_panic = "Causality violation"]
fn a_relaxed_decrement_is_missed() {
    count(Strength::RELAXED_LOCKED);
}

/// One permit, which one task takes and dies with, and another takes and gives back; a third thread
/// settles the first.
fn permits(strength: Strength) {
    loom::model(move || {
        let shared = Arc::new((Permits::new(1, strength), Value::new(), AtomicU64::new(0)));
        let other = Arc::clone(&shared);
        let dies = thread::spawn(move || {
            let has = other.0.try_acquire();
            if has {
                other.1.change();
            }
            // The freeze is acknowledged: it has one, or none.
            other.2.store(1 + u64::from(has), Ordering::Release);
        });
        let other = Arc::clone(&shared);
        let next = thread::spawn(move || {
            if other.0.try_acquire() {
                other.1.change();
                other.0.give_back();
            }
        });
        let has = shared.2.load(Ordering::Acquire);
        if has == 2 {
            assert!(shared.0.settle(), "it had one");
        }
        dies.join().unwrap();
        next.join().unwrap();
        if has == 0 && shared.2.load(Ordering::Acquire) == 2 {
            assert!(shared.0.settle(), "it has one");
        }
        assert_eq!(shared.0.count(), (1, 0));
    });
}

#[test]
fn a_permit_is_with_one_task_and_the_next_sees_what_it_did() {
    permits(Strength::REAL);
}

#[test]
#[should_panic = "Causality violation"]
fn a_relaxed_exchange_of_permits_is_missed() {
    permits(Strength::RELAXED_LOCKED);
}
