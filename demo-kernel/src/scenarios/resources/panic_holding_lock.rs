//! A panic, with nobody to unwind it: a fault like others, with what the task said.

use drop_registry::LockError;
use task_model::FaultKind;

use crate::scenarios::{Scenario, Stage};
use crate::tracked::Mutex;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "panic-holding-lock",
    summary: "a task panics in a critical section; the report says what it said, and where",
    ..Scenario::kept(run)
};

static ACCOUNT: Mutex<u64> = Mutex::new(100);

fn overdrawing(withdrawn: usize) {
    let Ok(mut account) = ACCOUNT.lock() else { return };
    let balance = *account;
    *account = balance
        .checked_sub(withdrawn as u64)
        .unwrap_or_else(|| panic!("{balance} is less than {withdrawn}"));
}

fn run(stage: &mut Stage) {
    let task = stage.spawn_with("overdrawing", overdrawing, 150);
    let Some(report) = stage.report_on(task) else { return };
    let kind = report.fault.kind;
    let said = report.message.starts_with("100 is less than 150");
    let placed = report.message.contains(file!());
    stage.check("it panicked", kind == FaultKind::Panicked);
    stage.check("the report says what it said", said);
    stage.check("and where", placed);
    let told = match ACCOUNT.lock() {
        Err(LockError::OwnerDied(died)) => Some(*died.mark_consistent()),
        _ => None,
    };
    stage
        .check("its lock is free, and the next owner told; nothing was written", told == Some(100));
}
