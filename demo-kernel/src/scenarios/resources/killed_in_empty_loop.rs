//! The seed's `foo`: takes a global mutex and enters a loop without a call in it.

use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use drop_registry::LockError;

use crate::scenarios::{Scenario, Stage};
use crate::tasks;
use crate::tracked::Mutex;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "killed-in-empty-loop",
    summary: "a task takes GLOBAL_MUTEX and loops for ever; another kills it",
    ..Scenario::kept(run)
};

static GLOBAL_MUTEX: Mutex<u32> = Mutex::new(7);
static LOOPING: AtomicBool = AtomicBool::new(false);
static SEEN: AtomicU32 = AtomicU32::new(0);

fn looping(_: usize) {
    let Ok(_held) = GLOBAL_MUTEX.lock() else { return };
    LOOPING.store(true, Ordering::Release);
    #[expect(clippy::empty_loop, reason = "the case in point: no safepoint, no landing pad")]
    loop {}
}

/// Waits for the lock while the other task loops.
fn waiting(_: usize) {
    if let Err(LockError::OwnerDied(died)) = GLOBAL_MUTEX.lock() {
        SEEN.store(*died.peek(), Ordering::Relaxed);
        drop(died.mark_consistent());
    }
}

fn run(stage: &mut Stage) {
    let victim = stage.spawn("looping", looping);
    stage.wait_for("the task loops", || LOOPING.load(Ordering::Acquire));
    let waiter = stage.spawn("waiting", waiting);
    tasks::sleep_ticks(5);
    stage.check("until then another task waits", tasks::state(waiter).is_ok());
    stage.check("the kill is accepted", tasks::kill(victim).is_ok());
    stage.report_on(victim);
    stage.wait_for_end_of(waiter);
    stage.check("the waiter got the lock, and was told", SEEN.load(Ordering::Relaxed) == 7);
    stage.check("the lock is free", GLOBAL_MUTEX.lock().is_ok());
}
