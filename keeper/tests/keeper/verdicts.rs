//! What becomes of a dead task under each policy.

use std::sync::atomic::{AtomicU32, Ordering};

use drop_registry::{DropAfterTear, Mutex, Outcome, TrackedBox};
use keeper::hosted::{Current, Kernel, Stop, yield_now};
use keeper::{NoSuchTask, Verdict, policy};
use task_model::{FaultInfo, FaultKind, TaskState};

use crate::{faults, kernel};

fn forever() {
    loop {
        yield_now();
    }
}

#[test]
fn a_restarted_task_runs_again_and_stale_ids_are_refused() {
    static LIVES: AtomicU32 = AtomicU32::new(0);
    let kernel = kernel();
    let task = kernel.spawn_with_policy(&policy::Restart { at_most: 1 }, || {
        LIVES.fetch_add(1, Ordering::Relaxed);
        forever();
    });
    kernel.run_turns(1);
    kernel.kill(task);
    let next = kernel.serve().pop().unwrap().restarted_as.unwrap();
    assert_eq!(next, task.next_generation());
    assert_eq!(LIVES.load(Ordering::Relaxed), 1);
    kernel.run_turns(1);
    assert_eq!(LIVES.load(Ordering::Relaxed), 2);

    kernel.kill(task);
    assert_eq!(kernel.serve_one().unwrap().unwrap_err(), NoSuchTask(task));
    assert_eq!(kernel.state(next), TaskState::Ready);
    kernel.kill(next);
    let report = kernel.serve().pop().unwrap();
    assert_eq!((report.verdict, report.restarted_as), (Some(Verdict::Exit), None));
    assert_eq!(kernel.state(next), TaskState::Dead);
    kernel.run_turns(1);
    assert_eq!(LIVES.load(Ordering::Relaxed), 2);
}

#[test]
fn a_task_that_can_run_only_once_exits_instead_of_restarting() {
    let kernel = kernel().with_default_policy(&policy::Restart { at_most: 9 });
    let owned = Box::new(7);
    let task = kernel.spawn_once(move || {
        drop(owned);
        faults::invalid_opcode();
    });
    let report = kernel.run().pop().unwrap();
    assert_eq!((report.verdict, report.restarted_as), (Some(Verdict::Exit), None));
    assert_eq!(kernel.state(task), TaskState::Dead);
}

struct Droppable(u64);

impl Drop for Droppable {
    fn drop(&mut self) {
        DROPS.fetch_add(self.0 as u32, Ordering::Relaxed);
    }
}

// SAFETY: its destructor looks at a number alone.
unsafe impl DropAfterTear for Droppable {}

static DROPS: AtomicU32 = AtomicU32::new(0);

#[test]
fn a_held_task_keeps_its_memory_until_it_is_released() {
    static LOCK: Mutex<u32, Current> = Mutex::new(1);
    let kernel = kernel();
    let task = kernel.spawn_with_policy(&policy::Hold, || {
        let _block = TrackedBox::<_, Current>::new_droppable(Droppable(7)).unwrap();
        let _guard = LOCK.lock().unwrap();
        faults::write_to_nowhere();
    });
    let report = kernel.run().pop().unwrap();
    assert_eq!(report.verdict, Some(Verdict::Hold));
    assert_eq!((report.count(Outcome::Orphaned), report.count(Outcome::OwnerDied)), (1, 1));
    assert!(!LOCK.is_locked());
    assert_eq!(kernel.state(task), TaskState::Held);
    assert_eq!(DROPS.load(Ordering::Relaxed), 0);

    kernel.release(task);
    let report = kernel.serve().pop().unwrap();
    assert_eq!(report.count(Outcome::Reclaimed), 1);
    assert_eq!(kernel.state(task), TaskState::Dead);
    assert_eq!(DROPS.load(Ordering::Relaxed), 7);
}

#[test]
fn a_default_policy_rules_on_tasks_that_name_none() {
    let kernel = kernel().with_default_policy(&policy::Hold);
    let task = kernel.spawn(faults::invalid_opcode);
    assert_eq!(kernel.run().pop().unwrap().verdict, Some(Verdict::Hold));
    assert_eq!(kernel.state(task), TaskState::Held);
}

#[test]
fn a_kill_is_a_fault_of_its_own_kind_where_the_task_stood() {
    let kernel = kernel();
    let task = kernel.spawn(forever);
    assert_eq!(kernel.step(task, 100_000), Stop::Yielded);
    kernel.kill(task);
    let report = kernel.serve().pop().unwrap();
    assert_eq!(report.fault, FaultInfo::killed(report.frames[0].frame.address.address()));
    let forever = forever as *const () as u64;
    assert!(report.frames.iter().any(|found| found.frame.function == Some(forever)), "{report}");
}

#[test]
fn a_task_can_be_killed_before_it_has_begun() {
    static RUNS: AtomicU32 = AtomicU32::new(0);
    let kernel = kernel();
    let task = kernel.spawn(|| {
        RUNS.fetch_add(1, Ordering::Relaxed);
    });
    kernel.kill(task);
    assert_eq!(kernel.run().len(), 1);
    assert_eq!(RUNS.load(Ordering::Relaxed), 0);
}

#[test]
fn however_often_a_task_is_killed_faults_of_others_find_room() {
    let kernel = kernel();
    let (spinner, faulty) = (kernel.spawn(forever), kernel.spawn(faults::divide_by_zero));
    for _ in 0..10 * Kernel::MAX_TASKS {
        kernel.keepers().kill(spinner).unwrap();
    }
    assert!(matches!(kernel.step(faulty, 100_000), Stop::Faulted(_)));
    let kinds: Vec<_> = kernel.serve().iter().map(|report| report.fault.kind).collect();
    assert_eq!(kinds, [FaultKind::Killed, FaultKind::DivideError]);
}

#[test]
fn the_report_reads_line_by_line() {
    static LOCK: Mutex<u32, Current> = Mutex::new(1);
    let kernel = kernel();
    kernel.spawn(|| {
        let _guard = LOCK.lock().unwrap();
        faults::write_to_nowhere();
    });
    let text = kernel.run().pop().unwrap().to_string();
    assert!(text.starts_with("task 0.0: page fault at 0x"), "{text}");
    assert!(text.contains(", accessing 0x40, error code 0x6"), "{text}");
    assert!(text.contains("mutex 0x") && text.contains("owner died"), "{text}");
    assert!(text.contains("walk complete"), "{text}");
    assert!(text.lines().all(|line| line.len() <= 100), "{text}");
}
