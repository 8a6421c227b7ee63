//! Keepers that keep each other: who is asked, in which order, and what cannot be registered.

use std::sync::atomic::{AtomicU32, Ordering};

use keeper::hosted::{Kernel, yield_now};
use keeper::{Case, KeeperId, Policy, RegisterError, Verdict, policy};
use task_model::{TaskId, TaskState};

use crate::{faults, kernel};

/// Counts how often it is asked, and declines.
#[derive(Debug)]
struct Declines(AtomicU32);

impl Policy for Declines {
    fn rule(&self, case: &mut Case<'_>) -> Verdict {
        self.0.fetch_add(1, Ordering::Relaxed);
        case.settle();
        Verdict::TryNext
    }
}

#[test]
fn what_a_keeper_declines_goes_to_its_parent_up_to_the_root() {
    static LOWEST: Declines = Declines(AtomicU32::new(0));
    static MIDDLE: Declines = Declines(AtomicU32::new(0));
    let kernel = kernel().with_default_policy(&policy::Restart { at_most: 1 });
    let middle = kernel.register(KeeperId::ROOT, &MIDDLE, u64::MAX).unwrap();
    let lowest = kernel.register(middle, &LOWEST, u64::MAX).unwrap();
    let task = kernel.spawn(faults::invalid_opcode);
    kernel.keepers().keep(task, lowest).unwrap();
    let reports = kernel.run();
    let verdicts: Vec<_> = reports.iter().map(|report| report.verdict).collect();
    assert_eq!(verdicts, [Some(Verdict::Restart), Some(Verdict::Exit)]);
    for report in &reports {
        assert_eq!(report.keepers[..], [lowest, middle, KeeperId::ROOT]);
    }
    assert_eq!((LOWEST.0.load(Ordering::Relaxed), MIDDLE.0.load(Ordering::Relaxed)), (2, 2));
    assert!(reports[0].to_string().contains("asked: keeper 2 keeper 1 root"), "{}", reports[0]);
}

#[test]
fn a_tasks_own_policy_is_asked_instead_of_its_keepers() {
    let kernel = kernel().with_default_policy(&policy::Panic);
    let keeper = kernel.register(KeeperId::ROOT, &policy::Panic, u64::MAX).unwrap();
    let task = kernel.spawn_with_policy(&policy::Hold, faults::invalid_opcode);
    kernel.keepers().keep(task, keeper).unwrap();
    let report = kernel.run().pop().unwrap();
    assert_eq!((report.verdict, &report.keepers[..]), (Some(Verdict::Hold), &[keeper][..]));
}

#[test]
fn one_keeper_keeps_many_tasks_in_turn() {
    let kernel = kernel();
    let keeper = kernel.register(KeeperId::ROOT, &policy::Hold, u64::MAX).unwrap();
    let tasks: Vec<_> = (0..100).map(|_| kernel.spawn(faults::invalid_opcode)).collect();
    for task in &tasks {
        kernel.keepers().keep(*task, keeper).unwrap();
    }
    assert_eq!(kernel.run().len(), 100);
    assert!(tasks.iter().all(|task| kernel.state(*task) == TaskState::Held));
}

#[test]
fn what_would_be_a_circle_cannot_be_registered() {
    let kernel = kernel();
    let keepers = kernel.keepers();
    let parent = keepers.register(KeeperId::ROOT, &policy::Exit, u64::MAX).unwrap();
    let child = keepers.register(parent, &policy::Exit, u64::MAX).unwrap();
    let (of_parent, of_child) = (kernel.spawn(yield_now), kernel.spawn(yield_now));
    let _parent_seat = keepers.sit(parent, Some(of_parent)).unwrap();
    let _child_seat = keepers.sit(child, Some(of_child)).unwrap();

    // By itself, or by one that it keeps itself.
    let cycle = RegisterError::Cycle { task: of_parent, serves: parent };
    assert_eq!(keepers.keep(of_parent, parent), Err(cycle));
    assert_eq!(keepers.keep(of_parent, child), Err(cycle));
    // By somebody else than the parent.
    assert_eq!(keepers.keep(of_child, KeeperId::ROOT), Err(RegisterError::Serves(child)));
}

#[test]
fn nothing_is_registered_twice_or_for_nobody() {
    let kernel = kernel();
    let keepers = kernel.keepers();
    let nobody = KeeperId::from_number(9);
    let no_such = RegisterError::NoSuchKeeper(nobody);
    assert_eq!(keepers.register(nobody, &policy::Exit, u64::MAX), Err(no_such));
    let task = kernel.spawn(yield_now);
    assert_eq!(keepers.keep(task, nobody), Err(no_such));
    let beyond = TaskId::first(Kernel::MAX_TASKS as u32);
    assert_eq!(keepers.keep(beyond, KeeperId::ROOT), Err(RegisterError::NoSuchTask(beyond)));

    let keeper = keepers.register(KeeperId::ROOT, &policy::Exit, u64::MAX).unwrap();
    let other = keepers.register(KeeperId::ROOT, &policy::Exit, u64::MAX).unwrap();
    let seat = keepers.sit(keeper, Some(task)).unwrap();
    let another = kernel.spawn(yield_now);
    let served = RegisterError::Served(Some(task));
    assert_eq!(keepers.sit(keeper, Some(another)).unwrap_err(), served);
    assert_eq!(keepers.sit(other, Some(task)).unwrap_err(), RegisterError::Serves(keeper));
    assert_eq!(keepers.sit(nobody, Some(another)).unwrap_err(), no_such);
    drop(seat);
    assert!(keepers.sit(keeper, Some(another)).is_ok());

    for _ in 3..KeeperId::MAX {
        keepers.register(KeeperId::ROOT, &policy::Exit, u64::MAX).unwrap();
    }
    let full = keepers.register(KeeperId::ROOT, &policy::Exit, u64::MAX);
    assert_eq!(full, Err(RegisterError::TooManyKeepers));
}

#[test]
fn a_keeper_that_nobody_serves_is_served_from_above() {
    let kernel = kernel().with_default_policy(&policy::Hold);
    // Registered, and never sat down.
    let keeper = kernel.keepers().register(KeeperId::ROOT, &policy::Exit, u64::MAX).unwrap();
    let task = kernel.spawn(faults::invalid_opcode);
    kernel.keepers().keep(task, keeper).unwrap();
    assert_eq!(kernel.run().pop().unwrap().verdict, Some(Verdict::Hold));
}
