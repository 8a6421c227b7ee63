//! Meters: a task that runs too much, and one that keeps others waiting.

use core::hint;
use core::sync::atomic::{AtomicBool, Ordering};

use drop_registry::LockError;
use keeper::{CpuBudget, HoldBudget, Meter};
use task_model::{FaultKind, TaskId};

use crate::keeping;
use crate::scenarios::{Scenario, Stage};
use crate::tasks;
use crate::tracked::Mutex;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "meters",
    summary: "a task runs for more than its share, another keeps a lock too long; both are faults",
    ..Scenario::kept(run)
};

/// In ticks of the timer.
const SHARE: Meter = Meter { cpu: Some(CpuBudget { ticks: 5, period: 100 }), hold: None };
const PROMPT: Meter =
    Meter { cpu: None, hold: Some(HoldBudget { ticks: 10, only_if_waited_for: true }) };

fn spinning(_: usize) {
    loop {
        hint::spin_loop();
    }
}

static LOCK: Mutex<u64> = Mutex::new(0);
static TOLD: AtomicBool = AtomicBool::new(false);

fn keeping_it(_: usize) {
    let _held = LOCK.lock();
    loop {
        tasks::sleep_ticks(1);
    }
}

fn waiting(_: usize) {
    let told = matches!(LOCK.lock(), Err(LockError::OwnerDied(_)));
    TOLD.store(told, Ordering::Release);
}

fn run(stage: &mut Stage) {
    let task = stage.spawn("spinning", spinning);
    stage.check("it has a share", keeping::set_meter(task, &SHARE).is_ok());
    let kind = kind_of_death(stage, task);
    stage.check("it ran out of time", kind == Some(FaultKind::OutOfTime));

    let task = stage.spawn("keeping it", keeping_it);
    stage.check("it is to be prompt", keeping::set_meter(task, &PROMPT).is_ok());
    stage.wait_for("it holds the lock", || LOCK.is_locked());
    tasks::sleep_ticks(30);
    stage.check("as long as nobody waits it may", tasks::state(task).is_ok());
    let waiter = stage.spawn("waiting", waiting);
    let kind = kind_of_death(stage, task);
    stage.check("it held the lock too long", kind == Some(FaultKind::HeldTooLong));
    stage.wait_for_end_of(waiter);
    stage.check("who waited has it, and was told", TOLD.load(Ordering::Acquire));
}

fn kind_of_death(stage: &mut Stage, task: TaskId) -> Option<FaultKind> {
    stage.report_on(task).map(|report| report.fault.kind)
}
