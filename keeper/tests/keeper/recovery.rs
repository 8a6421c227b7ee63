//! Tasks that go on behind a fault, with what they held before it.

use std::hint::black_box;
use std::sync::Mutex as StdMutex;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use drop_registry::{
    DropAfterTear, Fault, LockError, Mutex, Outcome, Park, ResourceKind, Shared, TrackedBox,
    TryLockError, catch_fault,
};
use keeper::hosted::{Current, Kernel, Stop, yield_now};
use keeper::unwind::WalkEnd;
use keeper::{Case, KeeperId, Policy, Refusal, Report, Token, Verdict, policy};
use task_model::{FaultInfo, FaultKind, TaskId, TaskState};

use crate::{faults, kernel};

/// Recovers whatever happened, kills among it; after settling, if so.
#[derive(Debug)]
struct Always {
    settles: bool,
}

impl Policy for Always {
    fn rule(&self, case: &mut Case<'_>) -> Verdict {
        if self.settles {
            case.settle();
        }
        Verdict::Recover
    }
}

static ALWAYS: Always = Always { settles: false };

/// As `catch_fault`, and what it tells of.
fn caught(body: impl FnOnce()) -> Option<FaultInfo> {
    // SAFETY: the bodies of this file take what they use under tracked locks, whose guards they
    // keep to themselves, and lend nothing of their stacks to others.
    match unsafe { catch_fault::<Current, _>(body) } {
        Err(Fault::Stopped(fault)) => Some(fault),
        _ => None,
    }
}

/// One recovery: a lock that is held before, and one, a share and a box that are taken inside.
struct Scene {
    outer: Mutex<u64, Current>,
    inner: Mutex<u64, Current>,
    /// What `catch_fault` said.
    told: StdMutex<Option<FaultInfo>>,
    drops: AtomicU64,
}

/// Counts when it is dropped.
struct Counts(&'static Scene);

#[expect(unsafe_code, reason = "promises that it can be dropped after a tear")]
// SAFETY: one reference, which is written before the box is anybody's.
unsafe impl DropAfterTear for Counts {}

impl Drop for Counts {
    fn drop(&mut self) {
        self.0.drops.fetch_add(1, Ordering::Relaxed);
    }
}

impl Scene {
    const fn new() -> Self {
        Self {
            outer: Mutex::new(1),
            inner: Mutex::new(1),
            told: StdMutex::new(None),
            drops: AtomicU64::new(0),
        }
    }

    /// The task comes to its `end` in the body; it is killed if it goes on for ever.
    fn play(&'static self, end: fn()) -> (FaultInfo, Report) {
        let kernel = kernel();
        let task = kernel.spawn_with_policy(&ALWAYS, move || {
            let mut outer = self.outer.lock().unwrap();
            let told = caught(|| {
                let mut inner = self.inner.lock().unwrap();
                let share = Shared::<_, Current>::new_droppable(Counts(self)).unwrap();
                let other = share.try_clone().unwrap();
                let boxed = TrackedBox::<_, Current>::new_droppable(Counts(self)).unwrap();
                *inner = 2;
                end();
                black_box((&share, &other, &boxed));
            });
            *self.told.lock().unwrap() = told;
            yield_now();
            *outer += 10;
        });
        let mut reports = kernel.run_turns(3);
        if reports.is_empty() {
            kernel.kill(task);
            reports.append(&mut kernel.serve());
        }
        let [report] = &reports[..] else { panic!("{reports:#?}") };
        // It lives, and goes on to its `yield_now` unless it has come there.
        kernel.spawn(|| {
            assert!(matches!(self.inner.lock(), Err(LockError::OwnerDied(_))), "not told");
            assert_eq!(self.drops.load(Ordering::Relaxed), 2, "the share's value and the box's");
        });
        assert!(kernel.run().is_empty(), "it ended, or held something at its end");
        assert_eq!(kernel.state(task), TaskState::Dead);
        kernel.spawn(|| assert_eq!(*self.outer.lock().unwrap(), 11, "nobody was told"));
        assert!(kernel.run().is_empty());
        (self.told.lock().unwrap().expect("the task was told"), report.clone())
    }

    fn recovers(&'static self, end: fn(), kind: FaultKind) -> FaultInfo {
        let (fault, report) = self.play(end);
        assert_eq!(fault, report.fault);
        assert_eq!(fault.kind, kind);
        assert_eq!(report.verdict, Some(Verdict::Recover));
        assert_eq!(report.refusal, None);
        assert_eq!(report.walk_end, WalkEnd::Complete, "{report}");
        let kinds: Vec<_> = report.resources.iter().map(|r| (r.kind, r.outcome)).collect();
        assert_eq!(
            kinds,
            [
                (ResourceKind::Box, Outcome::Reclaimed),
                (ResourceKind::Share, Outcome::Released),
                (ResourceKind::Share, Outcome::Reclaimed),
                (ResourceKind::Mutex, Outcome::OwnerDied),
            ],
            "{report}"
        );
        let cut = report.recovered_to.unwrap();
        assert!(report.resources.iter().all(|resource| resource.stack_pointer < cut), "{report}");
        fault
    }
}

#[test]
fn from_a_page_fault() {
    static SCENE: Scene = Scene::new();
    let fault = SCENE.recovers(faults::write_to_nowhere, FaultKind::PageFault);
    assert_eq!((fault.address, fault.vector), (Some(faults::NOWHERE), Some(14)));
    // A write, by user code, to a page that is not there.
    assert_eq!(fault.error_code, Some(6));
}

#[test]
fn from_an_invalid_opcode() {
    static SCENE: Scene = Scene::new();
    SCENE.recovers(faults::invalid_opcode, FaultKind::InvalidOpcode);
}

#[test]
fn from_a_division_by_zero() {
    static SCENE: Scene = Scene::new();
    SCENE.recovers(faults::divide_by_zero, FaultKind::DivideError);
}

#[test]
fn from_a_breakpoint() {
    static SCENE: Scene = Scene::new();
    SCENE.recovers(faults::breakpoint, FaultKind::Breakpoint);
}

#[test]
fn from_an_empty_loop_that_is_killed_if_the_policy_says_so() {
    static SCENE: Scene = Scene::new();
    #[expect(clippy::empty_loop, reason = "there is no call in it")]
    SCENE.recovers(|| loop {}, FaultKind::Killed);
}

#[test]
fn from_a_stack_overflow() {
    static SCENE: Scene = Scene::new();
    fn deeper(n: u64) -> u64 {
        let room = black_box([n; 64]);
        if room[0] == u64::MAX { 0 } else { deeper(n + 1) + room[1] }
    }
    SCENE.recovers(
        || {
            black_box(deeper(0));
        },
        FaultKind::StackOverflow,
    );
}

#[test]
fn from_a_panic_whose_frames_have_let_go_themselves() {
    static LOCK: Mutex<u64, Current> = Mutex::new(0);
    static TOLD: StdMutex<Option<FaultInfo>> = StdMutex::new(None);
    let kernel = kernel();
    kernel.spawn_with_policy(&policy::Recover, || {
        *TOLD.lock().unwrap() = caught(|| {
            let _guard = LOCK.lock().unwrap();
            // Without the message that a panic prints.
            std::panic::resume_unwind(Box::new(()));
        });
    });
    let report = kernel.run().pop().unwrap();
    assert_eq!((report.fault.kind, report.verdict), (FaultKind::Panicked, Some(Verdict::Recover)));
    assert!(report.resources.is_empty() && !LOCK.is_locked());
    assert_eq!(*TOLD.lock().unwrap(), Some(report.fault));
}

#[test]
fn from_its_sleep_if_it_is_killed_there() {
    static WANTED: Mutex<u64, Current, Park> = Mutex::new(0);
    static HELD: Mutex<u64, Current, Park> = Mutex::new(0);
    static WENT_ON: AtomicU32 = AtomicU32::new(0);
    let kernel = kernel();
    let owner = kernel.spawn(|| {
        let guard = WANTED.lock().unwrap();
        yield_now();
        yield_now();
        drop(guard);
    });
    let sleeper = kernel.spawn_with_policy(&ALWAYS, || {
        let told = caught(|| {
            let _held = HELD.lock().unwrap();
            let _never = WANTED.lock();
        });
        assert_eq!(told.map(|fault| fault.kind), Some(FaultKind::Killed));
        WENT_ON.fetch_add(1, Ordering::Relaxed);
        // It can sleep again, and be woken.
        assert!(WANTED.lock().is_ok());
        WENT_ON.fetch_add(1, Ordering::Relaxed);
    });
    assert_eq!(kernel.step(owner, 1_000_000), Stop::Yielded);
    assert_eq!(kernel.step(sleeper, 1_000_000), Stop::Parked);
    kernel.kill(sleeper);
    assert_eq!(kernel.serve().pop().unwrap().verdict, Some(Verdict::Recover));
    assert!(!HELD.is_locked() && WANTED.is_locked());
    kernel.with_wait_for_graph(|graph| assert_eq!(graph.waits().count(), 0, "it waits no more"));
    assert_eq!(kernel.step(sleeper, 1_000_000), Stop::Parked);
    assert_eq!(WENT_ON.load(Ordering::Relaxed), 1);
    assert!(kernel.run().is_empty());
    assert_eq!(WENT_ON.load(Ordering::Relaxed), 2);
}

#[test]
fn as_often_as_it_faults() {
    static LOCK: Mutex<u64, Current> = Mutex::new(0);
    static TOLD: AtomicU32 = AtomicU32::new(0);
    let kernel = kernel();
    let task = kernel.spawn_with_policy(&policy::Recover, || {
        for _ in 0..100 {
            let told = caught(|| {
                let _guard = match LOCK.lock() {
                    Ok(guard) => guard,
                    Err(LockError::OwnerDied(died)) => died.replace(0),
                    Err(_) => panic!("it is free"),
                };
                faults::invalid_opcode();
            });
            TOLD.fetch_add(u32::from(told.is_some()), Ordering::Relaxed);
        }
    });
    assert_eq!(kernel.run().len(), 100);
    assert_eq!(kernel.state(task), TaskState::Dead);
    assert_eq!(TOLD.load(Ordering::Relaxed), 100);
}

#[test]
fn points_nest() {
    static ORDER: StdMutex<Vec<&str>> = StdMutex::new(Vec::new());
    static LOCKS: [Mutex<u64, Current>; 3] = [const { Mutex::new(0) }; 3];
    let kernel = kernel();
    kernel.spawn_with_policy(&policy::Recover, || {
        let _outermost = LOCKS[0].lock().unwrap();
        let outer = caught(|| {
            let _middle = LOCKS[1].lock().unwrap();
            let inner = caught(|| {
                let _innermost = LOCKS[2].lock().unwrap();
                faults::invalid_opcode();
            });
            assert!(inner.is_some());
            let held = LOCKS.each_ref().map(|lock| lock.is_locked());
            assert_eq!(held, [true, true, false]);
            ORDER.lock().unwrap().push("inner");
            faults::divide_by_zero();
        });
        assert!(outer.is_some());
        let held = LOCKS.each_ref().map(|lock| lock.is_locked());
        assert_eq!(held, [true, false, false]);
        ORDER.lock().unwrap().push("outer");
    });
    assert_eq!(kernel.run().len(), 2);
    assert_eq!(*ORDER.lock().unwrap(), ["inner", "outer"]);
}

/// What becomes of a task without a recovery point, or with none that can be used.
fn refused(kernel: &Kernel, task: TaskId, refusal: Refusal) -> Report {
    let report = kernel.run().pop().unwrap();
    assert_eq!((report.refusal, report.verdict), (Some(refusal), Some(Verdict::Exit)));
    assert_eq!(kernel.state(task), TaskState::Dead);
    report
}

#[test]
fn without_a_point_the_parent_is_asked() {
    let kernel = kernel();
    let keeper = kernel.register(KeeperId::ROOT, &policy::Recover, u64::MAX).unwrap();
    let task = kernel.spawn(|| {
        assert!(caught(|| ()).is_none());
        faults::invalid_opcode();
    });
    kernel.keepers().keep(task, keeper).unwrap();
    let report = refused(&kernel, task, Refusal::NoRecoveryPoint);
    assert_eq!(report.keepers[..], [keeper, KeeperId::ROOT]);
}

#[test]
fn not_after_all_it_held_was_given_up() {
    static LOCK: Mutex<u64, Current> = Mutex::new(0);
    static SETTLES: Always = Always { settles: true };
    let kernel = kernel();
    let task = kernel.spawn_with_policy(&SETTLES, || {
        let _outer = LOCK.lock().unwrap();
        caught(faults::invalid_opcode);
    });
    refused(&kernel, task, Refusal::Settled);
    assert!(!LOCK.is_locked());
}

#[test]
fn not_where_the_stack_was_written_over() {
    static LOCK: Mutex<u64, Current> = Mutex::new(0);
    let kernel = kernel();
    let task = kernel.spawn_with_policy(&policy::Recover, || {
        let _outer = LOCK.lock().unwrap();
        let here = black_box(0u64);
        let up_to = &raw const here;
        caught(|| {
            // SAFETY: it is not: it writes over all frames up to here, that of `catch_fault` among
            // them, and comes back to none of them.
            unsafe {
                std::arch::asm!(
                    "mov rdi, rsp",
                    "sub rcx, rdi",
                    "shr rcx, 3",
                    "rep stosq",
                    "ud2",
                    in("rax") 0x4141u64,
                    in("rcx") up_to,
                    options(noreturn),
                )
            };
        });
    });
    refused(&kernel, task, Refusal::NoRecoveryPoint);
    assert!(!LOCK.is_locked(), "the ledger is not on the stack");
}

#[test]
fn a_killed_task_ends_unless_the_policy_says_otherwise() {
    let kernel = kernel();
    #[expect(clippy::empty_loop, reason = "there is no call in it")]
    let task = kernel.spawn_with_policy(&policy::Recover, || {
        caught(|| loop {});
    });
    kernel.run_turns(2);
    kernel.kill(task);
    let report = kernel.serve().pop().unwrap();
    assert_eq!((report.verdict, kernel.state(task)), (Some(Verdict::Exit), TaskState::Dead));
}

/// Leaves the verdict to whoever takes the token.
#[derive(Debug)]
struct Later(StdMutex<Option<Token>>);

impl Policy for Later {
    fn rule(&self, case: &mut Case<'_>) -> Verdict {
        *self.0.lock().unwrap() = case.defer(u64::MAX);
        Verdict::Deferred
    }
}

#[test]
fn later_by_a_token() {
    static LATER: Later = Later(StdMutex::new(None));
    static LOCKS: [Mutex<u64, Current>; 2] = [const { Mutex::new(0) }; 2];
    let kernel = kernel();
    let task = kernel.spawn_with_policy(&LATER, || {
        let _outer = LOCKS[0].lock().unwrap();
        caught(|| {
            let _inner = LOCKS[1].lock().unwrap();
            faults::invalid_opcode();
        });
        yield_now();
    });
    assert!(kernel.run().is_empty());
    assert!(LOCKS[1].is_locked(), "it may still be resumed");
    let token = LATER.0.lock().unwrap().take().unwrap();
    kernel.keepers().answer(token, Verdict::Recover).unwrap();
    assert_eq!(kernel.serve().pop().unwrap().verdict, Some(Verdict::Recover));
    assert!(!LOCKS[1].is_locked());
    assert!(matches!(LOCKS[0].try_lock(), Err(TryLockError::WouldBlock)), "it is the task's");
    assert!(kernel.run().is_empty());
    assert_eq!(kernel.state(task), TaskState::Dead);
}
