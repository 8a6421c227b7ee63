//! A dead task's value whose destructor needs a lock that a living task holds.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use drop_registry::{DropAfterTear, TrackedBox};

use crate::scenarios::{Scenario, Stage, deaths};
use crate::tasks;
use crate::tracked::{Kernel, Mutex};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "destructor-takes-lock",
    summary: "the keeper drops a dead task's value, whose destructor waits for a living task",
    ..Scenario::kept(run)
};

static COUNTED: Mutex<u64> = Mutex::new(0);

struct CountsItself(#[expect(dead_code, reason = "a box owns memory")] u64);

impl Drop for CountsItself {
    fn drop(&mut self) {
        if let Ok(mut counted) = COUNTED.lock() {
            *counted += 1;
        }
    }
}

#[expect(unsafe_code, reason = "promises that the destructor bears a tear")]
// SAFETY: the destructor does not look at the value.
unsafe impl DropAfterTear for CountsItself {}

static HELD: AtomicBool = AtomicBool::new(false);
static LET_GO_AFTER: AtomicU64 = AtomicU64::new(0);

fn holding(_: usize) {
    let Ok(_held) = COUNTED.lock() else { return };
    HELD.store(true, Ordering::Release);
    // Without a sleep: it must get the CPU while the keeper waits for it.
    while LET_GO_AFTER.fetch_add(1, Ordering::Relaxed) < 100_000 {}
}

fn dying(_: usize) {
    let Ok(_boxed) = TrackedBox::<_, Kernel>::new_droppable(CountsItself(1)) else { return };
    deaths::page_fault();
}

fn run(stage: &mut Stage) {
    let holder = stage.spawn("holding", holding);
    stage.wait_for("a living task has the lock", || HELD.load(Ordering::Acquire));
    let dying = stage.spawn("dying", dying);
    tasks::yield_now();
    stage.report_on(dying);
    stage.wait_for_end_of(holder);
    let counted = COUNTED.lock().map_or(0, |counted| *counted);
    stage.check("the destructor ran, once", counted == 1);
}
