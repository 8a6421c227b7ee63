//! A thousand tasks fault together.

use drop_registry::hosted::domain;
use keeper::hosted::unwind_tables;
use keeper::{Capacity, Case, KeeperId, Keepers, Policy, Refusal, Verdict};
use task_model::{FaultInfo, TaskState};

use crate::platform::{Fake, Task};

const TASKS: usize = 1000;

/// Leaves every verdict to itself, later.
#[derive(Debug)]
struct Later;

impl Policy for Later {
    fn rule(&self, case: &mut Case<'_>) -> Verdict {
        let rules_at_once = case.keeper() == KeeperId::ROOT || !case.keep_open(u64::MAX);
        if rules_at_once && case.keeper() == KeeperId::ROOT {
            Verdict::Exit
        } else {
            Verdict::Deferred
        }
    }
}

/// Has all of them fault at once, with room for so many deferred verdicts. Returns how many were
/// deferred, and how many were not for want of room.
fn storm(deferred: usize) -> (usize, usize) {
    let tasks = (0..TASKS as u32).map(Task::new).collect();
    let capacity = Capacity { tasks: TASKS, keepers: 2, deferred, corpses: 0 };
    let keepers = Keepers::new(Fake::new(tasks, 0), domain(), unwind_tables(), capacity)
        .with_default_policy(&Later);
    let fake = keepers.platform();
    let keeper = keepers.register(KeeperId::ROOT, &Later, u64::MAX).unwrap();
    let mut root = keepers.sit(KeeperId::ROOT, None).unwrap();
    let mut seat = keepers.sit(keeper, None).unwrap();
    for task in &fake.tasks {
        keepers.keep(task.id(), keeper).unwrap();
        task.state.set(TaskState::Frozen);
        // What a policy says is not looked at here, but what becomes of the task.
        task.ruled.set(Some(Verdict::Exit));
        keepers.post(task.id(), FaultInfo::panicked(1), 0).expect("the inbox has room for all");
    }
    let mut refused = 0;
    loop {
        let below = seat.serve(|_| {});
        let above = root.serve(|told| {
            refused += usize::from(told.unwrap().refusal == Some(Refusal::NoToken));
        });
        if !below && !above {
            break;
        }
    }
    let open = keepers.open_cases();
    // Whoever had its verdict deferred is ruled on in the end, too.
    for task in &fake.tasks {
        if task.state.get() == TaskState::Frozen {
            keepers.kill(task.id()).unwrap();
        }
    }
    while seat.serve(|_| {}) | root.serve(|_| {}) {}
    assert_eq!(keepers.open_cases(), 0);
    assert!(fake.tasks.iter().all(|task| task.state.get() == TaskState::Dead), "one is lost");
    (open, refused)
}

#[test]
fn a_thousand_faults_at_once_are_all_dealt_with() {
    assert_eq!(storm(TASKS), (TASKS, 0));
}

#[test]
fn where_there_is_no_room_for_their_verdicts_the_parent_rules_and_the_report_says_why() {
    assert_eq!(storm(3), (3, TASKS - 3));
    assert_eq!(storm(0), (0, TASKS));
}
