//! What a policy is told of ends, and what it may do about other tasks.

use std::sync::Mutex as StdMutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use keeper::hosted::yield_now;
use keeper::{Case, Orders, Policy, Refusal, Report, TooLate, Verdict, policy};
use task_model::{FaultKind, TaskId, TaskState};

use crate::{faults, kernel};

/// Rules on exits, too, and notes what it is told.
#[derive(Debug)]
struct Noting {
    verdict: Verdict,
    ends: StdMutex<Vec<(TaskId, FaultKind, Option<TaskId>)>>,
}

impl Noting {
    const fn ruling(verdict: Verdict) -> Self {
        Self { verdict, ends: StdMutex::new(Vec::new()) }
    }
}

impl Policy for Noting {
    fn rule(&self, _: &mut Case<'_>) -> Verdict {
        self.verdict
    }

    fn rules_on_exits(&self) -> bool {
        true
    }

    fn ended(&self, report: &Report, _: &Orders<'_>) {
        let end = (report.task, report.fault.kind, report.restarted_as);
        self.ends.lock().unwrap().push(end);
    }
}

#[test]
fn a_task_that_finishes_comes_before_a_policy_that_rules_on_exits() {
    static RESTARTS: Noting = Noting::ruling(Verdict::Restart);
    static LIVES: AtomicU64 = AtomicU64::new(0);
    let kernel = kernel();
    let task = kernel.spawn_with_policy(&RESTARTS, || {
        LIVES.fetch_add(1, Ordering::Relaxed);
    });
    // One that does not is none of its business.
    kernel.spawn_with_policy(&policy::Panic, || ());
    assert_eq!(kernel.run_turns(3).len(), 3);
    assert_eq!(LIVES.load(Ordering::Relaxed), 3);
    let told = RESTARTS.ends.lock().unwrap();
    let next = task.next_generation();
    assert_eq!(told[0], (task, FaultKind::Exited, Some(next)));
    assert_eq!(told[1], (next, FaultKind::Exited, Some(next.next_generation())));
}

#[test]
fn a_task_that_has_finished_is_not_resumed() {
    static RESUMES: Noting = Noting::ruling(Verdict::Resume);
    let kernel = kernel();
    let task = kernel.spawn_with_policy(&RESUMES, || ());
    let report = kernel.run().pop().unwrap();
    assert_eq!((report.refusal, report.verdict), (Some(Refusal::Finished), Some(Verdict::Exit)));
    assert_eq!(kernel.state(task), TaskState::Dead);
}

#[test]
fn a_policy_is_told_of_an_end_that_another_one_ruled() {
    static DECLINES: Noting = Noting::ruling(Verdict::TryNext);
    let kernel = kernel();
    let task = kernel.spawn_with_policy(&DECLINES, faults::invalid_opcode);
    kernel.run();
    assert_eq!(*DECLINES.ends.lock().unwrap(), [(task, FaultKind::InvalidOpcode, None)]);
}

#[test]
fn a_policy_is_told_that_a_restart_could_not_be() {
    static RESTARTS: Noting = Noting::ruling(Verdict::Restart);
    let kernel = kernel();
    let task = kernel.spawn_once_with_policy(&RESTARTS, faults::invalid_opcode);
    let report = kernel.run().pop().unwrap();
    assert_eq!((report.refusal, report.verdict), (Some(Refusal::NoEntry), Some(Verdict::Exit)));
    assert_eq!(*RESTARTS.ends.lock().unwrap(), [(task, FaultKind::InvalidOpcode, None)]);
}

/// Keeps the first case open, and answers it when the second one comes.
#[derive(Debug)]
struct Pairs {
    first: StdMutex<Option<TaskId>>,
}

impl Policy for Pairs {
    fn rule(&self, case: &mut Case<'_>) -> Verdict {
        let mut first = self.first.lock().unwrap();
        let Some(other) = first.take() else {
            *first = Some(case.task());
            assert!(case.keep_open(u64::MAX));
            assert!(!case.keep_open(u64::MAX), "it is kept open once");
            return Verdict::Deferred;
        };
        assert_eq!(case.orders().answer(case.task(), Verdict::Hold), Err(TooLate));
        case.orders().answer(other, Verdict::Restart).unwrap();
        assert_eq!(case.orders().answer(other, Verdict::Exit), Err(TooLate));
        Verdict::Exit
    }
}

#[test]
fn a_case_that_is_kept_open_is_answered_by_the_policy_itself() {
    static PAIRS: Pairs = Pairs { first: StdMutex::new(None) };
    let kernel = kernel();
    let tasks = [(); 2].map(|()| kernel.spawn_with_policy(&PAIRS, faults::invalid_opcode));
    kernel.step(tasks[0], 100_000);
    assert!(kernel.serve().is_empty());
    kernel.step(tasks[1], 100_000);
    let mut ends: Vec<_> = kernel.serve().iter().map(|it| (it.task, it.verdict)).collect();
    ends.sort_by_key(|end| end.0);
    assert_eq!(ends, [(tasks[0], Some(Verdict::Restart)), (tasks[1], Some(Verdict::Exit))]);
}

#[test]
fn a_kill_that_is_withdrawn_does_not_overrule() {
    #[derive(Debug)]
    struct Forgiving;
    impl Policy for Forgiving {
        fn rule(&self, case: &mut Case<'_>) -> Verdict {
            case.orders().withdraw_kill(case.task());
            Verdict::RestartAfter(1_000_000_000)
        }
    }
    let kernel = kernel();
    let task = kernel.spawn_with_policy(&Forgiving, || {
        yield_now();
        faults::invalid_opcode();
    });
    kernel.step(task, 1_000_000);
    kernel.step(task, 1_000_000);
    // It has faulted, and is killed before its keeper has looked.
    kernel.kill(task);
    assert!(kernel.serve().is_empty());
    kernel.pass(Duration::from_secs(1));
    assert_eq!(kernel.serve().pop().unwrap().verdict, Some(Verdict::Restart));
    assert_eq!(kernel.state(task.next_generation()), TaskState::Ready);
}
