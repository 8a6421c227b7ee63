//! Who sleeps, and who is woken.

use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread;
use orderings::{Queue, Strength};

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
