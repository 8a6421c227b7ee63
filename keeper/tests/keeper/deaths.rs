//! Every way to die while holding a lock: the lock is free, its next owner is told, the others go
//! on, and the frames have names.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};

use drop_registry::{LockError, Mutex, Outcome, ResourceKind};
use keeper::hosted::{Current, Stop, yield_now};
use keeper::unwind::WalkEnd;
use keeper::{Report, Verdict, policy};
use task_model::{FaultKind, TaskState};

use crate::{faults, kernel};

/// What one death is about: a lock, who waits for it, and somebody who has nothing to do with it.
struct Scene {
    lock: Mutex<u64, Current>,
    told: AtomicU64,
    others_turns: AtomicU64,
}

impl Scene {
    const fn new() -> Self {
        Self { lock: Mutex::new(1), told: AtomicU64::new(0), others_turns: AtomicU64::new(0) }
    }

    /// A task locks, writes, and comes to its `end`; it is killed if it goes on for ever.
    fn play(&'static self, end: fn()) -> Report {
        let kernel = kernel();
        let victim = kernel.spawn(move || {
            let mut guard = self.lock.lock().unwrap();
            *guard = 2;
            yield_now();
            end();
            std::mem::forget(guard);
        });
        // Waits by spinning, from before the death on.
        let waiter = kernel.spawn(|| match self.lock.lock() {
            Err(LockError::OwnerDied(died)) => {
                assert_eq!(*died.peek(), 2, "a number shows what the dead task left");
                self.told.fetch_add(1, Ordering::Relaxed);
                drop(died.replace(3));
            }
            _ => panic!("not told"),
        });
        let bystander = kernel.spawn(|| {
            for _ in 0..20 {
                self.others_turns.fetch_add(1, Ordering::Relaxed);
                yield_now();
            }
        });
        // Up to where it holds the lock.
        assert_eq!(kernel.step(victim, 1_000_000), Stop::Yielded);
        assert!(self.lock.is_locked());
        let mut reports = kernel.run_turns(5);
        if reports.is_empty() {
            assert!(self.lock.is_locked());
            let turns = self.others_turns.load(Ordering::Relaxed);
            assert!(
                (1..20).contains(&turns),
                "the spinning task does not keep others from running"
            );
            kernel.kill(victim);
        }
        reports.append(&mut kernel.run());

        assert_eq!(reports.len(), 1, "{reports:#?}");
        assert!(!self.lock.is_locked());
        assert_eq!(self.told.load(Ordering::Relaxed), 1);
        assert_eq!(self.others_turns.load(Ordering::Relaxed), 20);
        for task in [victim, waiter, bystander] {
            assert_eq!(kernel.state(task), TaskState::Dead);
        }
        // Whoever comes next finds it as if nothing had happened.
        kernel.spawn(|| assert_eq!(*self.lock.lock().unwrap(), 3));
        assert!(kernel.run().is_empty());

        let report = reports.remove(0);
        assert_eq!((report.task, report.verdict), (victim, Some(Verdict::Exit)));
        let [resource] = &report.resources[..] else { panic!("{report}") };
        assert_eq!((resource.kind, resource.outcome), (ResourceKind::Mutex, Outcome::OwnerDied));
        let lock = (&raw const self.lock).addr() as u64;
        assert_eq!(resource.address, lock);
        report
    }

    /// As [`Scene::play`], for ends at which the frame that locked is still there.
    fn play_in_frame(&'static self, end: fn()) -> Report {
        let report = self.play(end);
        assert_eq!(report.walk_end, WalkEnd::Complete, "{report}");
        let [resource] = &report.resources[..] else { panic!("{report}") };
        assert!(!resource.escaped);
        let depth = resource.frame.expect("the frame that locked is found");
        assert!(depth < report.frames.len() || report.fault.kind == FaultKind::StackOverflow);
        report
    }
}

#[test]
fn a_write_to_nowhere() {
    static SCENE: Scene = Scene::new();
    let report = SCENE.play_in_frame(faults::write_to_nowhere);
    assert_eq!(report.fault.kind, FaultKind::PageFault);
    assert_eq!(report.fault.address, Some(faults::NOWHERE));
}

#[test]
fn an_invalid_opcode() {
    static SCENE: Scene = Scene::new();
    let report = SCENE.play_in_frame(faults::invalid_opcode);
    assert_eq!(report.fault.kind, FaultKind::InvalidOpcode);
}

#[test]
fn a_division_by_zero() {
    static SCENE: Scene = Scene::new();
    let report = SCENE.play_in_frame(faults::divide_by_zero);
    assert_eq!(report.fault.kind, FaultKind::DivideError);
}

#[test]
fn a_breakpoint() {
    static SCENE: Scene = Scene::new();
    let report = SCENE.play_in_frame(faults::breakpoint);
    assert_eq!(report.fault.kind, FaultKind::Breakpoint);
}

#[test]
fn an_empty_loop_that_is_killed() {
    static SCENE: Scene = Scene::new();
    #[expect(clippy::empty_loop, reason = "there is no call in it, which is the point")]
    let report = SCENE.play_in_frame(|| loop {});
    assert_eq!(report.fault.kind, FaultKind::Killed);
}

#[test]
fn a_stack_that_runs_over_its_guard_page() {
    static SCENE: Scene = Scene::new();
    fn deeper(n: u64) -> u64 {
        let room = black_box([n; 64]);
        if room[0] == u64::MAX { 0 } else { deeper(n + 1) + room[1] }
    }
    let report = SCENE.play_in_frame(|| {
        black_box(deeper(0));
    });
    assert_eq!(report.fault.kind, FaultKind::StackOverflow);
}

#[test]
fn a_task_that_returns_and_has_not_unlocked() {
    static SCENE: Scene = Scene::new();
    let report = SCENE.play(|| ());
    assert_eq!(report.fault.kind, FaultKind::LeftHolding);
    assert!(report.resources[0].escaped, "the frame that locked has returned");
}

#[test]
fn a_killed_task_that_sleeps() {
    use drop_registry::Park;
    static LOCK: Mutex<u64, Current, Park> = Mutex::new(0);
    static WANTED: Mutex<u64, Current, Park> = Mutex::new(0);
    let kernel = kernel();
    let owner = kernel.spawn(|| {
        let guard = WANTED.lock().unwrap();
        yield_now();
        yield_now();
        drop(guard);
    });
    let sleeper = kernel.spawn(|| {
        let _held = LOCK.lock().unwrap();
        let _never = WANTED.lock();
    });
    assert_eq!(kernel.step(owner, 1_000_000), Stop::Yielded);
    assert_eq!(kernel.step(sleeper, 1_000_000), Stop::Parked);
    kernel.kill(sleeper);
    let report = kernel.serve().pop().unwrap();
    assert_eq!(report.fault.kind, FaultKind::Killed);
    assert_eq!(report.walk_end, WalkEnd::Complete);
    assert!(!LOCK.is_locked() && WANTED.is_locked());
    // The owner finds nobody to wake, and goes its way.
    assert!(kernel.run().is_empty());
    assert!(!WANTED.is_locked());
    kernel.spawn(|| {
        assert!(matches!(LOCK.lock(), Err(LockError::OwnerDied(_))));
        assert!(WANTED.lock().is_ok());
    });
    assert!(kernel.run().is_empty());
}

#[test]
fn a_panic_unwinds_its_own_task_and_goes_to_the_keeper() {
    static LOCK: Mutex<u64, Current> = Mutex::new(0);
    let kernel = kernel();
    let task = kernel.spawn(|| {
        let _guard = LOCK.lock().unwrap();
        // Without the message that a panic prints.
        std::panic::resume_unwind(Box::new(()));
    });
    let report = kernel.run().pop().unwrap();
    assert_eq!((report.task, report.fault.kind), (task, FaultKind::Panicked));
    assert!(report.resources.is_empty(), "its frames have let go themselves");
    assert!(!LOCK.is_locked());
}

#[test]
fn a_report_of_a_panic_has_its_message_and_its_place() {
    let kernel = kernel();
    let line = line!() + 2;
    let task =
        kernel.spawn_with_policy(&policy::Restart { at_most: 1 }, || panic!("the disk is gone"));
    let expected = format!("the disk is gone ({}:{line}:", file!());
    let said: Vec<_> = kernel.run().into_iter().map(|report| report.message).collect();
    assert_eq!(said.len(), 2, "{task} has two lives");
    assert!(said.iter().all(|said| said.starts_with(&expected)), "{said:?}");
    // Another task's is not this one's.
    kernel.spawn(|| std::panic::resume_unwind(Box::new(())));
    assert!(kernel.run().pop().unwrap().message.is_empty());
}
