//! Waiting for what a lock protects.

use drop_registry::hosted::{Hosted, Machine, Stop};
use drop_registry::{Condvar, Mutex, Park};

static JOBS: Mutex<u32, Hosted, Park> = Mutex::new(0);
static POSTED: Condvar<Hosted> = Condvar::new();

#[test]
fn both_kinds_of_wait_sleep_until_they_are_notified_one_by_one() {
    let machine = Machine::new();
    let by_condition = machine.spawn(|| {
        POSTED.wait_until(&JOBS, |jobs| jobs.checked_sub(1).map(|left| *jobs = left)).unwrap();
    });
    let by_hand = machine.spawn(|| {
        let mut jobs = JOBS.lock().unwrap();
        while *jobs == 0 {
            jobs = POSTED.wait(jobs).unwrap();
        }
        *jobs -= 1;
    });
    for waiter in [by_condition, by_hand] {
        assert_eq!(machine.run(waiter, None), Stop::Parked);
    }
    for waiter in [by_condition, by_hand] {
        assert!(!POSTED.is_idle());
        assert!(machine.is_asleep(waiter));
        let posts =
            machine.spawn(|| POSTED.notify_one_after(|| *JOBS.lock().unwrap() += 1).unwrap());
        assert_eq!(machine.run(posts, None), Stop::Finished);
        assert_eq!(machine.run(waiter, None), Stop::Finished);
    }
    assert!(POSTED.is_idle());
}
