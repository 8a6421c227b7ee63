//! Waiting for what a lock protects.

use drop_registry::hosted::{Hosted, Stop, yield_now};
use drop_registry::{Condvar, Mutex, Outcome, Park, RepairMutex};

use crate::machine;

static JOBS: Mutex<u32, Hosted, Park> = Mutex::new(0);
static POSTED: Condvar<Hosted> = Condvar::new();

#[test]
fn both_kinds_of_wait_sleep_until_they_are_notified_one_by_one() {
    let machine = machine();
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

static PARTS: RepairMutex<[u32; 2], Hosted, Park> =
    RepairMutex::new([0, 0], |died| Some(died.replace([7, 7])));
static CHANGED: Condvar<Hosted> = Condvar::new();

#[test]
fn a_lock_that_is_repaired_after_its_owner_s_death_is_so_when_it_has_been_waited_with() {
    let mut machine = machine();
    let waiter = machine.spawn(|| {
        let mut parts = CHANGED.wait(PARTS.lock().unwrap()).unwrap();
        parts[0] = 1;
        yield_now();
    });
    assert_eq!(machine.run(waiter, None), Stop::Parked);
    let notifies = machine.spawn(|| CHANGED.notify_one().unwrap());
    assert_eq!(machine.run(notifies, None), Stop::Finished);
    assert_eq!(machine.run(waiter, None), Stop::Yielded);
    let settled: Vec<_> = machine.kill(waiter).iter().map(|one| one.outcome).collect();
    assert_eq!(settled, [Outcome::Orphaned, Outcome::Repaired]);
    let next = machine.spawn(|| assert_eq!(*PARTS.lock().unwrap(), [7, 7]));
    assert_eq!(machine.run(next, None), Stop::Finished);
}
