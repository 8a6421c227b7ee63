//! Kills of tasks in every state, at once or where they allow it.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use drop_registry::{LockError, Mutex, NoKill, Park, safepoint};
use keeper::hosted::{Current, Stop, yield_now};
use keeper::{NoSuchTask, Verdict, policy};
use task_model::{FaultKind, TaskState};

use crate::{faults, kernel};

type Section = NoKill<Current>;

/// Longer than any test runs.
const LATER: u64 = 3_600_000_000_000;

#[test]
fn a_task_stops_at_its_next_safepoint_and_not_before() {
    static STEPS: AtomicU32 = AtomicU32::new(0);
    let kernel = kernel();
    let task = kernel.spawn(|| {
        for step in 1.. {
            STEPS.store(step, Ordering::Relaxed);
            yield_now();
            STEPS.store(step + 100, Ordering::Relaxed);
            safepoint::<Current>();
        }
    });
    kernel.run_turns(1);
    kernel.keepers().kill_at_safepoint(task, LATER).unwrap();
    assert!(kernel.serve().is_empty());
    assert_eq!(kernel.state(task), TaskState::Ready);
    let report = kernel.run().pop().unwrap();
    assert_eq!(report.fault.kind, FaultKind::Killed);
    assert_eq!(STEPS.load(Ordering::Relaxed), 101);
    assert_eq!(kernel.state(task), TaskState::Dead);
}

#[test]
fn a_task_that_comes_to_no_safepoint_is_killed_when_its_time_is_up() {
    let kernel = kernel();
    let task = kernel.spawn(|| {
        loop {
            yield_now();
        }
    });
    kernel.keepers().kill_at_safepoint(task, LATER).unwrap();
    assert!(kernel.run_turns(3).is_empty());
    kernel.pass(Duration::from_nanos(LATER));
    let report = kernel.run().pop().unwrap();
    assert_eq!((report.fault.kind, report.verdict), (FaultKind::Killed, Some(Verdict::Exit)));
    // And that is all there is of it.
    kernel.pass(Duration::from_nanos(LATER));
    assert!(kernel.serve_one().is_none());
}

#[test]
fn the_next_life_is_not_wanted_dead() {
    static LIVES: AtomicU32 = AtomicU32::new(0);
    let kernel = kernel();
    let task = kernel.spawn_with_policy(&policy::Restart { at_most: 1 }, || {
        LIVES.fetch_add(1, Ordering::Relaxed);
        safepoint::<Current>();
        yield_now();
        safepoint::<Current>();
    });
    kernel.keepers().kill_at_safepoint(task, LATER).unwrap();
    assert_eq!(kernel.run().len(), 1);
    assert_eq!(LIVES.load(Ordering::Relaxed), 2);
    kernel.pass(Duration::from_nanos(LATER));
    assert!(kernel.serve_one().is_none());
}

#[test]
fn a_kill_waits_for_the_end_of_a_section() {
    static LOCK: Mutex<u32, Current> = Mutex::new(0);
    static AFTER: AtomicU32 = AtomicU32::new(0);
    let kernel = kernel().configured(|keepers| keepers.with_longest_no_kill(LATER));
    let task = kernel.spawn(|| {
        let section = Section::enter().unwrap();
        let inner = Section::enter().unwrap();
        let mut guard = LOCK.lock().unwrap();
        yield_now();
        *guard += 1;
        drop(guard);
        drop(inner);
        yield_now();
        drop(section);
        AFTER.fetch_add(1, Ordering::Relaxed);
    });
    assert_eq!(kernel.step(task, 1_000_000), Stop::Yielded);
    kernel.kill(task);
    assert!(kernel.serve().is_empty(), "it is spared");
    assert_eq!(kernel.step(task, 1_000_000), Stop::Yielded);
    // Once more makes no difference.
    kernel.kill(task);
    assert!(kernel.serve().is_empty());
    let report = kernel.run().pop().unwrap();
    assert_eq!(report.fault.kind, FaultKind::Killed);
    assert_eq!(AFTER.load(Ordering::Relaxed), 0);
    kernel.spawn(|| assert_eq!(*LOCK.lock().unwrap(), 1));
    assert!(kernel.run().is_empty());
}

#[test]
fn a_section_does_not_hold_a_kill_up_for_ever() {
    static LOCK: Mutex<u32, Current> = Mutex::new(0);
    let kernel = kernel().configured(|keepers| keepers.with_longest_no_kill(LATER));
    let task = kernel.spawn(|| {
        let _section = Section::enter().unwrap();
        let _guard = LOCK.lock().unwrap();
        loop {
            yield_now();
        }
    });
    kernel.run_turns(1);
    kernel.kill(task);
    assert!(kernel.run_turns(3).is_empty());
    kernel.pass(Duration::from_nanos(LATER));
    let report = kernel.run().pop().unwrap();
    assert_eq!(report.fault.kind, FaultKind::Killed);
    kernel.spawn(|| assert!(matches!(LOCK.lock(), Err(LockError::OwnerDied(_)))));
    assert!(kernel.run().is_empty());
}

#[test]
fn a_fault_does_not_wait_for_the_end_of_a_section() {
    let kernel = kernel();
    kernel.spawn(|| {
        let _section = Section::enter().unwrap();
        faults::invalid_opcode();
    });
    let report = kernel.run().pop().unwrap();
    assert_eq!(report.fault.kind, FaultKind::InvalidOpcode);
    assert_eq!(report.resources.len(), 1);
}

#[test]
fn a_task_is_killed_in_every_state() {
    static LOCK: Mutex<u32, Current, Park> = Mutex::new(0);
    let kernel = kernel();
    let holder = kernel.spawn(|| {
        let _guard = LOCK.lock().unwrap();
        loop {
            yield_now();
        }
    });
    let blocked = kernel.spawn(|| {
        let _guard = LOCK.lock();
        unreachable!("it is killed where it waits");
    });
    assert_eq!(kernel.step(holder, 1_000_000), Stop::Yielded);
    assert_eq!(kernel.step(blocked, 1_000_000), Stop::Parked);
    let not_begun = kernel.spawn(|| unreachable!("it is killed before it begins"));
    let held = kernel.spawn_with_policy(&policy::Hold, faults::invalid_opcode);
    assert!(matches!(kernel.step(held, 1_000_000), Stop::Faulted(_)));
    assert_eq!(kernel.serve().len(), 1);
    for task in [blocked, not_begun, held, holder] {
        kernel.kill(task);
        assert_eq!(kernel.serve().pop().unwrap().verdict, Some(Verdict::Exit), "{task}");
        assert_eq!(kernel.state(task), TaskState::Dead);
        // A second time there is nobody.
        kernel.kill(task);
        assert_eq!(kernel.serve_one().unwrap().unwrap_err(), NoSuchTask(task));
    }
    assert!(!LOCK.is_locked());
}
