//! A task that forgets a guard, and ends by returning.

use drop_registry::LockError;
use task_model::FaultKind;

use crate::scenarios::{Scenario, Stage};
use crate::tracked::Mutex;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "returns-holding-lock",
    summary: "a task forgets its guard and returns; the lock comes free all the same",
    ..Scenario::kept(run)
};

static LOCK: Mutex<u32> = Mutex::new(3);

fn forgetting(_: usize) {
    if let Ok(guard) = LOCK.lock() {
        core::mem::forget(guard);
    }
}

fn run(stage: &mut Stage) {
    let task = stage.spawn("forgetting", forgetting);
    let kind = stage.report_on(task).map(|report| report.fault.kind);
    stage.check("it was caught on its way out", kind == Some(FaultKind::LeftHolding));
    let seen = match LOCK.lock() {
        Err(LockError::OwnerDied(died)) => *died.mark_consistent(),
        _ => 0,
    };
    stage.check("the next owner was told", seen == 3);
    stage.check("the lock is as any other", LOCK.lock().is_ok());
}
