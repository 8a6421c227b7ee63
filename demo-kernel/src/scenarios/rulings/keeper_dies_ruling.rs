//! A keeper that faults in the middle of a case: its own keeper goes on with that.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use drop_registry::LockError;
use keeper::{Case, KeeperId, Policy, Verdict, policy};

use crate::keeping;
use crate::scenarios::{Scenario, Stage, deaths};
use crate::tasks::Spawn;
use crate::tracked::Mutex;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "keeper-dies-ruling",
    summary: "a keeper faults over a dead task that it has settled; the root goes on, and restarts it",
    ..Scenario::kept(run)
};

/// Faults the first time that it is asked, with a lock in its hand; then it ends tasks.
#[derive(Debug)]
struct Faulty;

static ASKED: AtomicU64 = AtomicU64::new(0);
static NOTES: Mutex<u64> = Mutex::new(0);

impl Policy for Faulty {
    fn rule(&self, case: &mut Case<'_>) -> Verdict {
        case.settle();
        if ASKED.fetch_add(1, Ordering::Relaxed) == 0 {
            let _notes = NOTES.lock();
            deaths::divide_error();
        }
        Verdict::Exit
    }
}

static SHARED: Mutex<u64> = Mutex::new(0);
static HELD: AtomicBool = AtomicBool::new(false);

fn faulting(_: usize) {
    let Ok(mut shared) = SHARED.lock() else { return };
    *shared += 1;
    HELD.store(true, Ordering::Release);
    deaths::page_fault();
}

fn run(stage: &mut Stage) {
    let keeper = keeping::register(KeeperId::ROOT, &policy::Exit, u64::MAX);
    let Ok(keeper) = keeper else { return stage.check("there is room for a keeper", false) };
    let kept = |name| Spawn::new(name, faulting).keeper(keeper).policy(&Faulty);
    let first = kept("faulting").start().expect("room for a task");
    let (of_task, of_keeper) = stage.two_reports(first);
    let of_keeper = of_keeper.as_ref();
    stage.check(
        "the keeper's death was ruled on by the root: a restart",
        of_keeper.is_some_and(|it| it.verdict == Some(Verdict::Restart)),
    );
    stage.check(
        "the root had the last word about the task",
        of_task.as_ref().is_some_and(|it| it.keepers[..] == [keeper, KeeperId::ROOT]),
    );
    stage.check("the task's fault is still the first one", HELD.load(Ordering::Acquire));
    let told = |lock: &Mutex<u64>| match lock.lock() {
        Err(LockError::OwnerDied(died)) => Some(*died.mark_consistent()),
        _ => None,
    };
    stage.check("the task's lock is free, and its next owner told once", told(&SHARED) == Some(1));
    stage.check("so is the keeper's own", told(&NOTES) == Some(0));
    stage.check("and once only", SHARED.lock().is_ok() && NOTES.lock().is_ok());

    // The keeper begins again, and does its work.
    let second = kept("faulting again").start().expect("room for a task");
    let served = stage.report_on(second).is_some_and(|it| it.keepers[..] == [keeper]);
    stage.check("the restarted keeper serves the next one itself", served);
    stage.check("whose lock is free, too", told(&SHARED) == Some(2));
}
