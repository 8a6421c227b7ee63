//! The control: the same fault as `page-fault-holding-lock`, and nobody to keep the task.

use core::sync::atomic::{AtomicBool, Ordering};

use crate::scenarios::{Scenario, Stage, deaths};
use crate::tasks;
use crate::tracked::Mutex;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "no-keeper",
    summary: "the control: without a keeper, whoever waits for a dead task's lock starves",
    keeper: false,
    ..Scenario::kept(run)
};

static ORPHANED: Mutex<u32> = Mutex::new(0);
static FAULTING: AtomicBool = AtomicBool::new(false);
static GOT_IT: AtomicBool = AtomicBool::new(false);

fn faulting(_: usize) {
    let Ok(_held) = ORPHANED.lock() else { return };
    FAULTING.store(true, Ordering::Release);
    deaths::page_fault();
}

fn waiting(_: usize) {
    // Any answer at all would show that the lock came free.
    let _answer = ORPHANED.lock();
    GOT_IT.store(true, Ordering::Release);
}

fn run(stage: &mut Stage) {
    let dying = stage.spawn("faulting", faulting);
    stage.wait_for("the task faults", || FAULTING.load(Ordering::Acquire));
    stage.wait_for("it is frozen", || tasks::state(dying) == Ok(task_model::TaskState::Frozen));
    if let Ok(Some(fault)) = tasks::fault(dying) {
        stage.died_of(fault.kind);
    }
    let waiter = stage.spawn("waiting", waiting);
    let before = stage.beats();
    // As long as any other scenario waits for anything.
    tasks::sleep_ticks(100);
    stage.check("the kernel went on meanwhile", stage.beats() > before + 50);
    stage.check("the waiter got nothing", !GOT_IT.load(Ordering::Acquire));
    stage.check("it waits still", tasks::state(waiter).is_ok());
    stage.check("the lock is held by nobody alive", ORPHANED.is_locked());
}
