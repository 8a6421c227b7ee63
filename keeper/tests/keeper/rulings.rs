//! What a policy can rule besides the end of a task, and what becomes of rulings that cannot be
//! carried out.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex as StdMutex;
use std::sync::atomic::{AtomicU32, Ordering};

use drop_registry::{LockError, Mutex};
use keeper::hosted::{Current, yield_now};
use keeper::{Capacity, Case, NoSuchTask, Policy, Refusal, Token, TooLate, Verdict, policy};
use task_model::{FaultKind, TaskState};

use crate::faults;
use crate::{kernel, kernel_with};

/// Rules always the same; after settling, if so.
#[derive(Debug)]
struct Always(Verdict, bool);

impl Policy for Always {
    fn rule(&self, case: &mut Case<'_>) -> Verdict {
        if self.1 {
            case.settle();
        }
        self.0
    }
}

/// Skips the two bytes of a `ud2`.
#[derive(Debug)]
struct SkipUd2;

impl Policy for SkipUd2 {
    fn rule(&self, case: &mut Case<'_>) -> Verdict {
        assert_eq!(case.fault().kind, FaultKind::InvalidOpcode);
        case.frozen().registers_mut().rip += 2;
        Verdict::Resume
    }
}

#[test]
fn a_task_is_resumed_behind_its_fault_and_still_holds_what_it_held() {
    static LOCK: Mutex<u32, Current> = Mutex::new(0);
    let kernel = kernel();
    let task = kernel.spawn_with_policy(&SkipUd2, || {
        let mut guard = LOCK.lock().unwrap();
        for _ in 0..1000 {
            *guard += 1;
            faults::invalid_opcode();
        }
    });
    let reports = kernel.run();
    assert_eq!(reports.len(), 1000);
    assert!(
        reports.iter().all(|report| report.verdict == Some(Verdict::Resume) && !report.settled)
    );
    assert_eq!(kernel.state(task), TaskState::Dead);
    kernel.spawn(|| assert_eq!(*LOCK.lock().unwrap(), 1000, "nobody was told of a death"));
    assert!(kernel.run().is_empty());
}

#[test]
fn resuming_for_ever_at_one_instruction_is_noticed() {
    let kernel = kernel();
    kernel.spawn_with_policy(&Always(Verdict::Resume, false), faults::invalid_opcode);
    let reports = kernel.run();
    let (last, others) = reports.split_last().unwrap();
    assert_eq!(others.len(), 16);
    assert_eq!(last.refusal, Some(Refusal::SameInstruction));
    assert_eq!(last.verdict, Some(Verdict::Exit), "the root is the last to be asked");
}

#[test]
fn what_has_been_settled_is_not_resumed() {
    static LOCK: Mutex<u32, Current> = Mutex::new(0);
    let kernel = kernel();
    let task = kernel.spawn_with_policy(&Always(Verdict::Resume, true), || {
        let _guard = LOCK.lock().unwrap();
        faults::breakpoint();
    });
    let report = kernel.run().pop().unwrap();
    assert_eq!((report.refusal, report.verdict), (Some(Refusal::Settled), Some(Verdict::Exit)));
    assert_eq!(kernel.state(task), TaskState::Dead);
    assert!(!LOCK.is_locked());
}

#[test]
fn a_corpse_too_many_is_not_kept() {
    let capacity = Capacity { corpses: 1, ..Capacity::tasks(4) };
    let kernel = kernel_with(capacity).with_default_policy(&policy::Hold);
    let tasks = [kernel.spawn(faults::invalid_opcode), kernel.spawn(faults::invalid_opcode)];
    let refusals: Vec<_> = kernel.run().iter().map(|report| report.refusal).collect();
    assert_eq!(refusals, [None, Some(Refusal::TooManyCorpses)]);
    assert_eq!(tasks.map(|task| kernel.state(task)), [TaskState::Held, TaskState::Dead]);
    // Room for another one, once that is gone.
    kernel.release(tasks[0]);
    assert_eq!(kernel.serve().len(), 1);
    let third = kernel.spawn(faults::invalid_opcode);
    kernel.run();
    assert_eq!(kernel.state(third), TaskState::Held);
}

#[test]
fn only_a_corpse_is_released() {
    let kernel = kernel();
    let task = kernel.spawn(yield_now);
    kernel.release(task);
    assert_eq!(kernel.serve_one().unwrap().unwrap_err(), NoSuchTask(task));
    assert_eq!(kernel.state(task), TaskState::Ready);
}

#[test]
fn a_corpse_that_is_killed_is_not_ruled_on_again() {
    let kernel = kernel();
    let task = kernel.spawn_with_policy(&policy::Hold, faults::invalid_opcode);
    kernel.run();
    kernel.kill(task);
    assert_eq!(kernel.serve().pop().unwrap().verdict, Some(Verdict::Exit));
    assert_eq!(kernel.state(task), TaskState::Dead);
}

#[test]
fn a_keeper_may_end_the_kernel() {
    let kernel = kernel().with_default_policy(&policy::Panic);
    kernel.spawn(faults::divide_by_zero);
    let panic = catch_unwind(AssertUnwindSafe(|| kernel.run())).unwrap_err();
    let said = panic.downcast_ref::<String>().unwrap();
    assert!(said.contains("divide error") && said.contains("walk complete"), "{said}");
}

#[test]
fn a_restart_waits_as_long_as_it_was_ruled() {
    static LIVES: AtomicU32 = AtomicU32::new(0);
    static LOCK: Mutex<u32, Current> = Mutex::new(0);
    const LATER: u64 = 20_000_000;
    let kernel = kernel();
    let task = kernel.spawn_with_policy(&Always(Verdict::RestartAfter(LATER), false), || {
        if LIVES.fetch_add(1, Ordering::Relaxed) == 0 {
            let _guard = LOCK.lock().unwrap();
            faults::invalid_opcode();
        }
    });
    assert!(kernel.run().is_empty());
    assert_eq!(kernel.state(task), TaskState::Frozen);
    assert!(!LOCK.is_locked(), "what it held is not kept as long");
    let report = loop {
        match kernel.serve().pop() {
            Some(report) => break report,
            None => std::hint::spin_loop(),
        }
    };
    assert_eq!(report.verdict, Some(Verdict::Restart));
    assert!(report.gone_at - report.settled_at >= LATER);
    assert_eq!(LIVES.load(Ordering::Relaxed), 1);
    kernel.run();
    assert_eq!(LIVES.load(Ordering::Relaxed), 2);
}

#[test]
fn a_task_whose_restart_is_due_later_can_be_killed_until_then() {
    let kernel = kernel();
    let later = &Always(Verdict::RestartAfter(u64::MAX), false);
    let task = kernel.spawn_with_policy(later, faults::invalid_opcode);
    assert!(kernel.run().is_empty());
    kernel.kill(task);
    assert_eq!(kernel.serve().pop().unwrap().verdict, Some(Verdict::Exit));
    assert_eq!(kernel.state(task), TaskState::Dead);
    assert_eq!(kernel.keepers().open_cases(), 0);
}

/// Leaves the verdict to whoever takes the token, for so many nanoseconds.
#[derive(Debug)]
struct Later {
    patience: u64,
    token: StdMutex<Option<Token>>,
}

impl Later {
    const fn new(patience: u64) -> Self {
        Self { patience, token: StdMutex::new(None) }
    }

    fn take(&self) -> Token {
        self.token.lock().unwrap().take().unwrap()
    }
}

impl Policy for Later {
    fn rule(&self, case: &mut Case<'_>) -> Verdict {
        *self.token.lock().unwrap() = case.defer(self.patience);
        assert!(case.defer(self.patience).is_none(), "there is one token");
        Verdict::Deferred
    }
}

#[test]
fn a_deferred_verdict_comes_by_its_token() {
    static LATER: Later = Later::new(u64::MAX);
    static LOCK: Mutex<u32, Current> = Mutex::new(0);
    static LIVES: AtomicU32 = AtomicU32::new(0);
    let kernel = kernel();
    let task = kernel.spawn_with_policy(&LATER, || {
        if LIVES.fetch_add(1, Ordering::Relaxed) == 0 {
            let _guard = LOCK.lock().unwrap();
            faults::invalid_opcode();
        }
    });
    assert!(kernel.run().is_empty());
    assert_eq!(kernel.state(task), TaskState::Frozen);
    assert!(LOCK.is_locked(), "it may still be resumed");
    // Others are kept meanwhile.
    kernel.spawn(faults::divide_by_zero);
    assert_eq!(kernel.run().len(), 1);

    kernel.keepers().answer(LATER.take(), Verdict::Restart).unwrap();
    let report = kernel.serve().pop().unwrap();
    assert_eq!((report.task, report.verdict), (task, Some(Verdict::Restart)));
    kernel.run();
    assert_eq!(LIVES.load(Ordering::Relaxed), 2);
    kernel.spawn(|| assert!(matches!(LOCK.lock(), Err(LockError::OwnerDied(_)))));
    assert!(kernel.run().is_empty());
}

#[test]
fn whoever_drops_the_token_has_declined() {
    static LATER: Later = Later::new(u64::MAX);
    let kernel = kernel();
    let task = kernel.spawn_with_policy(&LATER, faults::invalid_opcode);
    assert!(kernel.run().is_empty());
    drop(LATER.take());
    let report = kernel.serve().pop().unwrap();
    assert_eq!((report.task, report.verdict), (task, Some(Verdict::Exit)));
    assert_eq!(report.refusal, Some(Refusal::NoVerdict));
}

#[test]
fn a_late_answer_is_refused() {
    static LATER: Later = Later::new(0);
    let kernel = kernel();
    let task = kernel.spawn_with_policy(&LATER, faults::invalid_opcode);
    let report = kernel.run().pop().unwrap();
    assert_eq!((report.task, report.refusal), (task, Some(Refusal::NoVerdict)));
    assert_eq!(kernel.keepers().answer(LATER.take(), Verdict::Restart), Err(TooLate));
    assert!(kernel.serve().is_empty());
    assert_eq!(kernel.state(task), TaskState::Dead);
}

#[test]
fn a_verdict_for_a_task_that_was_killed_meanwhile_is_refused() {
    static LATER: Later = Later::new(u64::MAX);
    let kernel = kernel();
    let task = kernel.spawn_with_policy(&LATER, faults::invalid_opcode);
    assert!(kernel.run().is_empty());
    kernel.kill(task);
    assert_eq!(kernel.serve().pop().unwrap().verdict, Some(Verdict::Exit));
    assert_eq!(kernel.keepers().answer(LATER.take(), Verdict::Resume), Err(TooLate));
    assert_eq!(kernel.state(task), TaskState::Dead);
}

#[test]
fn deferred_without_a_token_is_declined() {
    let kernel = kernel();
    kernel.spawn_with_policy(&Always(Verdict::Deferred, false), faults::invalid_opcode);
    let report = kernel.run().pop().unwrap();
    assert_eq!((report.refusal, report.verdict), (Some(Refusal::NoToken), Some(Verdict::Exit)));
}

#[test]
fn there_are_no_more_tokens_than_there_is_room_for() {
    #[derive(Debug)]
    struct Refused;
    impl Policy for Refused {
        fn rule(&self, case: &mut Case<'_>) -> Verdict {
            if case.defer(1).is_none() { Verdict::Exit } else { Verdict::Panic }
        }
    }
    let kernel = kernel_with(Capacity::tasks(1)).with_default_policy(&Refused);
    kernel.spawn(faults::invalid_opcode);
    assert_eq!(kernel.run().pop().unwrap().verdict, Some(Verdict::Exit));
}
