//! A lock that is older than the tasks.

use drop_registry::LockError;

use crate::scenarios::{Scenario, Stage, deaths};
use crate::tracked::Mutex;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "lock-before-tasking",
    summary: "a tracked mutex used at boot, before there are tasks, and later by one that dies",
    before_tasking: use_at_boot,
    ..Scenario::kept(run)
};

static DEVICES: Mutex<u32> = Mutex::new(0);

fn use_at_boot() {
    for _ in 0..3 {
        *DEVICES.lock().expect("nobody can have died yet") += 1;
    }
}

fn dying(_: usize) {
    let Ok(mut devices) = DEVICES.lock() else { return };
    *devices += 1;
    deaths::page_fault();
}

fn run(stage: &mut Stage) {
    stage.check("the boot ledger is empty again", crate::tracked::boot_ledger_is_empty());
    let at_boot = DEVICES.lock().map_or(0, |devices| *devices);
    stage.check("boot used the lock", at_boot == 3);
    let dying = stage.spawn("dying", dying);
    stage.report_on(dying);
    let told = match DEVICES.lock() {
        Err(LockError::OwnerDied(died)) => {
            let seen = *died.peek();
            drop(died.mark_consistent());
            seen
        }
        _ => 0,
    };
    stage.check("the next owner was told, and saw the write", told == 4);
    stage.check("the lock is as any other", DEVICES.lock().is_ok());
}
