//! A task that goes on behind its fault, with the lock that it took before.
#![expect(unsafe_code, reason = "calls what may be cut off")]

use core::sync::atomic::{AtomicBool, Ordering};

use drop_registry::{Fault, LockError, Outcome, TrackedBox, TryLockError, catch_fault};
use keeper::{Verdict, policy};
use task_model::{FaultKind, TaskState};

use crate::scenarios::{Scenario, Stage, deaths};
use crate::tasks;
use crate::tracked::{Kernel, Mutex};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "caught-by-recovery-point",
    summary: "a task faults inside a recovery point, and goes on with the lock that it held before",
    ..Scenario::kept(run)
};

static OUTER: Mutex<u64> = Mutex::new(1);
static INNER: Mutex<u64> = Mutex::new(1);
static CAUGHT: [AtomicBool; 2] = [const { AtomicBool::new(false) }; 2];
static GO_ON: AtomicBool = AtomicBool::new(false);

fn catching(_: usize) {
    let Ok(mut outer) = OUTER.lock() else { return };
    // SAFETY: the body writes to what its own lock protects; guard and box stay in it, and nothing
    // of its stack is lent to anybody. The same goes for the second one, which acquires nothing.
    let first = unsafe {
        catch_fault::<Kernel, _>(|| {
            let Ok(mut inner) = INNER.lock() else { return };
            let boxed = TrackedBox::<_, Kernel>::new([7u64; 16]);
            *inner = 2;
            deaths::page_fault();
            drop(boxed);
        })
    };
    CAUGHT[0].store(is(&first, FaultKind::PageFault), Ordering::Relaxed);
    while !GO_ON.load(Ordering::Relaxed) {
        tasks::sleep_ticks(1);
    }
    // SAFETY: see above.
    let second = unsafe { catch_fault::<Kernel, ()>(|| panic!("caught, too")) };
    CAUGHT[1].store(is(&second, FaultKind::Panicked), Ordering::Relaxed);
    *outer += 10;
}

fn is<T>(caught: &Result<T, Fault>, kind: FaultKind) -> bool {
    matches!(caught, Err(Fault::Stopped(fault)) if fault.kind == kind)
}

fn run(stage: &mut Stage) {
    let task = stage.spawn_under(&policy::Recover, "catching", catching);
    if let Some(report) = stage.report_on(task) {
        let recovered = report.verdict == Some(Verdict::Recover);
        let given_up = report.resources.len() == 2
            && report.count(Outcome::OwnerDied) == 1
            && report.count(Outcome::Reclaimed) == 1;
        stage.check("it is recovered, and only the inner lock and the box are given up", {
            recovered && given_up
        });
    }
    stage.wait_for("the task is told of a page fault", || CAUGHT[0].load(Ordering::Relaxed));
    let held = matches!(OUTER.try_lock(), Err(TryLockError::WouldBlock));
    stage.check("the outer lock is still its own", held);
    let told = match INNER.lock() {
        Err(LockError::OwnerDied(died)) => *died.mark_consistent() == 2,
        _ => false,
    };
    stage.check("who takes the inner lock next is told that its owner was cut off", told);
    let alive = tasks::state(task).is_ok_and(|state| state != TaskState::Dead);
    stage.check("the task lives", alive);
    GO_ON.store(true, Ordering::Relaxed);
    stage.wait_for_end_of(task);
    stage.check("it was told of its panic, too", CAUGHT[1].load(Ordering::Relaxed));
    let value = OUTER.lock().map(|value| *value).ok();
    stage.check("it unlocked the outer lock itself, after it had written", value == Some(11));
}
