//! Keepers that are tasks, and die like any other.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use drop_registry::{DropAfterTear, Outcome, TrackedBox};
use keeper::hosted::{Current, Kernel, yield_now};
use keeper::{Capacity, Case, KeeperId, NoSuchTask, Policy, Report, Verdict, policy};
use task_model::{FaultKind, TaskState};

use crate::{faults, kernel_with};

fn kernel() -> &'static Kernel {
    let capacity = Capacity { keepers: 4, deferred: 2, ..Capacity::tasks(32) };
    let kernel = kernel_with(capacity);
    Box::leak(Box::new(kernel.with_default_policy(&policy::Restart { at_most: 9 })))
}

fn nothing(_: Result<&Report, NoSuchTask>) {}

/// Faults the first time that it is asked, and then ends tasks.
#[derive(Debug, Default)]
struct Faulty(AtomicU32, bool);

impl Policy for Faulty {
    fn rule(&self, _: &mut Case<'_>) -> Verdict {
        if self.0.fetch_add(1, Ordering::Relaxed) == 0 {
            if self.1 { panic!("a keeper that panics") } else { faults::divide_by_zero() }
        }
        Verdict::Exit
    }
}

#[test]
fn a_keeper_that_is_a_task_serves_and_sleeps() {
    static TOLD: AtomicU32 = AtomicU32::new(0);
    let kernel = kernel();
    let keeper = kernel.keepers().register(KeeperId::ROOT, &policy::Hold, u64::MAX).unwrap();
    let server = kernel.spawn_keeper(keeper, |told| {
        TOLD.fetch_add(u32::from(told.is_ok()), Ordering::Relaxed);
    });
    kernel.run();
    let tasks = [kernel.spawn(faults::invalid_opcode), kernel.spawn(faults::invalid_opcode)];
    for task in tasks {
        kernel.keepers().keep(task, keeper).unwrap();
    }
    assert!(kernel.run().is_empty(), "the root was not asked");
    assert_eq!(tasks.map(|task| kernel.state(task)), [TaskState::Held; 2]);
    assert_eq!(TOLD.load(Ordering::Relaxed), 2);
    assert_eq!(kernel.state(server), TaskState::Ready);
}

#[test]
fn what_a_keeper_faults_over_is_ruled_on_above_and_it_serves_again() {
    static FAULTY: Faulty = Faulty(AtomicU32::new(0), false);
    let kernel = kernel();
    let keeper = kernel.keepers().register(KeeperId::ROOT, &FAULTY, u64::MAX).unwrap();
    let server = kernel.spawn_keeper(keeper, nothing);
    kernel.run();
    let task = kernel.spawn_once(faults::invalid_opcode);
    kernel.keepers().keep(task, keeper).unwrap();
    let reports = kernel.run();
    assert_eq!(reports.len(), 2);
    assert_eq!((reports[0].task, reports[0].verdict), (server, Some(Verdict::Restart)));
    assert_eq!((reports[1].task, reports[1].verdict), (task, Some(Verdict::Exit)));
    assert_eq!(reports[1].keepers[..], [keeper, KeeperId::ROOT]);
    // Its next life rules on the next one.
    let task = kernel.spawn(faults::invalid_opcode);
    kernel.keepers().keep(task, keeper).unwrap();
    assert!(kernel.run().is_empty());
    assert_eq!((FAULTY.0.load(Ordering::Relaxed), kernel.state(task)), (2, TaskState::Dead));
    assert_eq!(kernel.keepers().open_cases(), 0);
}

#[test]
fn a_keeper_whose_stack_is_unwound_leaves_its_case_to_its_parent() {
    static FAULTY: Faulty = Faulty(AtomicU32::new(0), true);
    let kernel = kernel();
    let keeper = kernel.keepers().register(KeeperId::ROOT, &FAULTY, u64::MAX).unwrap();
    let server = kernel.spawn_keeper(keeper, nothing);
    kernel.run();
    let once = |_| kernel.spawn_once(faults::invalid_opcode);
    let tasks = [0, 1].map(once);
    for task in tasks {
        kernel.keepers().keep(task, keeper).unwrap();
    }
    let reports = kernel.run();
    assert!(reports.iter().any(|it| it.task == server && it.fault.kind == FaultKind::Panicked));
    assert_eq!(kernel.keepers().open_cases(), 0);
    assert!(tasks.iter().all(|task| kernel.state(*task) == TaskState::Dead));
    assert_eq!(kernel.state(server.next_generation()), TaskState::Ready);
}

#[test]
fn a_keeper_that_comes_too_late_is_frozen_and_its_parent_rules() {
    /// Asked for its verdict, it lets all others go first.
    #[derive(Debug)]
    struct Dreamer;
    impl Policy for Dreamer {
        fn rule(&self, _: &mut Case<'_>) -> Verdict {
            loop {
                yield_now();
            }
        }
    }
    let kernel = kernel();
    let keeper = kernel.keepers().register(KeeperId::ROOT, &Dreamer, 1_000_000).unwrap();
    let server = kernel.spawn_keeper(keeper, nothing);
    kernel.run();
    let task = kernel.spawn_once(faults::invalid_opcode);
    kernel.keepers().keep(task, keeper).unwrap();
    let reports = kernel.run();
    let ends: Vec<_> = reports.iter().map(|it| (it.task, it.fault.kind, it.verdict)).collect();
    let of_server = (server, FaultKind::Overdue, Some(Verdict::Restart));
    assert_eq!(ends, [of_server, (task, FaultKind::InvalidOpcode, Some(Verdict::Exit))]);
}

/// A destructor that never comes to an end.
struct Endless(u32);

impl Drop for Endless {
    fn drop(&mut self) {
        DROPS.fetch_add(self.0, Ordering::Relaxed);
        loop {
            yield_now();
        }
    }
}

// SAFETY: it looks at a number alone.
unsafe impl DropAfterTear for Endless {}

static DROPS: AtomicU32 = AtomicU32::new(0);

#[test]
fn a_keeper_that_is_held_up_by_a_destructor_is_frozen_and_its_parent_goes_on() {
    const PATIENCE: u64 = 1_000_000_000;
    let kernel = kernel();
    let keeper = kernel.keepers().register(KeeperId::ROOT, &policy::Exit, PATIENCE).unwrap();
    let server = kernel.spawn_keeper(keeper, nothing);
    kernel.run();
    let task = kernel.spawn_once(|| {
        let _block = TrackedBox::<_, Current>::new_droppable(Endless(1)).unwrap();
        faults::invalid_opcode();
    });
    kernel.keepers().keep(task, keeper).unwrap();
    assert!(kernel.run_turns(3).is_empty());
    assert_eq!(DROPS.load(Ordering::Relaxed), 1);
    kernel.pass(Duration::from_nanos(2 * PATIENCE));
    let reports = kernel.run_turns(3);
    assert_eq!(reports.len(), 2, "{reports:?}");
    assert_eq!((reports[0].task, reports[0].fault.kind), (server, FaultKind::Overdue));
    assert_eq!((reports[1].task, reports[1].verdict), (task, Some(Verdict::Exit)));
    // Nobody drops what may be half dropped.
    assert_eq!(reports[1].count(Outcome::Quarantined), 1, "{}", reports[1]);
    assert_eq!(DROPS.load(Ordering::Relaxed), 1);
    assert_eq!(kernel.keepers().open_cases(), 0);
}
