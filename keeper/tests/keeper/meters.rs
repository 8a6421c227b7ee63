//! Meters: expiry is a fault that the keeper rules on.

use std::hint;
use std::time::Duration;

use drop_registry::{LockError, Mutex};
use keeper::hosted::{Current, yield_now};
use keeper::{Case, CpuBudget, HoldBudget, Meter, Policy, Verdict};
use task_model::{FaultKind, TaskState};

use crate::kernel;

/// In nanoseconds.
const MILLISECOND: u64 = 1_000_000;
const HOUR: u64 = 3_600_000_000_000;

fn spin() {
    loop {
        hint::spin_loop();
    }
}

fn cpu(ticks: u64, period: u64) -> Meter {
    Meter { cpu: Some(CpuBudget { ticks, period }), hold: None }
}

fn hold(ticks: u64, only_if_waited_for: bool) -> Meter {
    Meter { cpu: None, hold: Some(HoldBudget { ticks, only_if_waited_for }) }
}

#[test]
fn a_task_that_has_used_up_its_processor_time_is_stopped() {
    let kernel = kernel();
    let metered = kernel.spawn(spin);
    let other = kernel.spawn(spin);
    kernel.keepers().set_meter(metered, &cpu(3 * MILLISECOND, HOUR)).unwrap();
    let mut reports = Vec::new();
    for _ in 0..100 {
        reports.append(&mut kernel.run_turns(1));
    }
    let [report] = &reports[..] else { panic!("{reports:?}") };
    assert_eq!((report.task, report.fault.kind), (metered, FaultKind::OutOfTime));
    assert_eq!(kernel.state(other), TaskState::Ready);
}

#[test]
fn a_new_period_begins_with_nothing_used() {
    let kernel = kernel();
    // Runs for as long as a slice, and then lets the period pass.
    let task = kernel.spawn(spin);
    kernel.keepers().set_meter(task, &cpu(HOUR, HOUR)).unwrap();
    for _ in 0..10 {
        assert!(kernel.run_turns(1).is_empty());
        kernel.pass(Duration::from_nanos(2 * HOUR));
    }
    // The same without the pauses: its time is up at the first tick.
    kernel.keepers().set_meter(task, &cpu(0, HOUR)).unwrap();
    assert_eq!(kernel.run_turns(1)[0].fault.kind, FaultKind::OutOfTime);
}

/// Gives more time, twice.
#[derive(Debug)]
struct Extends;

impl Policy for Extends {
    fn rule(&self, case: &mut Case<'_>) -> Verdict {
        if case.fault().kind == FaultKind::OutOfTime { Verdict::Resume } else { Verdict::Exit }
    }
}

#[test]
fn who_is_resumed_goes_on_and_is_stopped_again_at_the_next_tick() {
    let kernel = kernel();
    let task = kernel.spawn_with_policy(&Extends, spin);
    kernel.keepers().set_meter(task, &cpu(0, HOUR)).unwrap();
    let reports = kernel.run_turns(3);
    assert!(reports.iter().all(|it| it.verdict == Some(Verdict::Resume)), "{reports:?}");
    assert_eq!(reports.len(), 3);
    assert_eq!(kernel.state(task), TaskState::Ready);
}

#[test]
fn a_lock_that_is_held_too_long_is_taken_away() {
    static LOCK: Mutex<u32, Current> = Mutex::new(0);
    let kernel = kernel();
    let task = kernel.spawn(|| {
        let _guard = LOCK.lock().unwrap();
        loop {
            yield_now();
        }
    });
    kernel.keepers().set_meter(task, &hold(HOUR, false)).unwrap();
    assert!(kernel.run_turns(3).is_empty());
    kernel.pass(Duration::from_nanos(2 * HOUR));
    let report = kernel.run().pop().unwrap();
    assert_eq!(report.fault.kind, FaultKind::HeldTooLong);
    kernel.spawn(|| assert!(matches!(LOCK.lock(), Err(LockError::OwnerDied(_)))));
    assert!(kernel.run().is_empty());
}

#[test]
fn a_lock_that_is_released_and_taken_again_is_another_one() {
    static LOCK: Mutex<u32, Current> = Mutex::new(0);
    let kernel = kernel();
    let task = kernel.spawn(|| {
        for _ in 0..10 {
            let _guard = LOCK.lock().unwrap();
            yield_now();
        }
    });
    kernel.keepers().set_meter(task, &hold(HOUR, false)).unwrap();
    for _ in 0..20 {
        assert!(kernel.run_turns(1).is_empty());
        kernel.pass(Duration::from_nanos(2 * HOUR));
    }
    assert_eq!(kernel.state(task), TaskState::Dead);
}

#[test]
fn a_lock_that_nobody_waits_for_may_be_held_for_longer() {
    static LOCK: Mutex<u32, Current> = Mutex::new(0);
    let kernel = kernel();
    let holder = kernel.spawn(|| {
        let _guard = LOCK.lock().unwrap();
        loop {
            yield_now();
        }
    });
    kernel.keepers().set_meter(holder, &hold(HOUR, true)).unwrap();
    kernel.run_turns(1);
    kernel.pass(Duration::from_nanos(2 * HOUR));
    assert!(kernel.run_turns(3).is_empty());
    let waiter = kernel.spawn(|| assert!(matches!(LOCK.lock(), Err(LockError::OwnerDied(_)))));
    let report = kernel.run().pop().unwrap();
    assert_eq!((report.task, report.fault.kind), (holder, FaultKind::HeldTooLong));
    assert_eq!(kernel.state(waiter), TaskState::Dead);
}
