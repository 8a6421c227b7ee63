//! A share of a counted value, in the frame of a task that dies.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use drop_registry::{DropAfterTear, Outcome, Shared, Slot};

use crate::scenarios::{Scenario, Stage, deaths};
use crate::tasks;
use crate::tracked::{Kernel, Mutex};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "refcount-held",
    summary: "the dead frame's count goes down exactly once; the value goes with the last holder",
    ..Scenario::kept(run)
};

struct Value;

static DROPS: AtomicU64 = AtomicU64::new(0);

impl Drop for Value {
    fn drop(&mut self) {
        DROPS.fetch_add(1, Ordering::Relaxed);
    }
}

// SAFETY: it has no fields that a tear could spoil.
#[expect(unsafe_code, reason = "promises that the destructor bears a tear")]
unsafe impl DropAfterTear for Value {}

/// Where the two tasks find the value.
static PUBLISHED: Mutex<Slot<Shared<Value, Kernel>>> = Mutex::new(Slot::new());

fn share() -> Option<Shared<Value, Kernel>> {
    PUBLISHED.lock().ok()?.share().ok()?
}

static LET_GO: AtomicBool = AtomicBool::new(false);
static COUNT_SEEN: AtomicU64 = AtomicU64::new(0);

fn holder(_: usize) {
    let Some(held) = share() else { return };
    while !LET_GO.load(Ordering::Acquire) {
        COUNT_SEEN.store(Shared::count(&held), Ordering::Relaxed);
        tasks::sleep_ticks(1);
    }
}

static FAULT_NOW: AtomicBool = AtomicBool::new(false);

fn dying(_: usize) {
    let Some(_held) = share() else { return };
    while !FAULT_NOW.load(Ordering::Acquire) {
        tasks::sleep_ticks(1);
    }
    deaths::page_fault();
}

fn count_is(expected: u64) -> impl FnMut() -> bool {
    move || COUNT_SEEN.load(Ordering::Relaxed) == expected
}

fn run(stage: &mut Stage) {
    let published = Shared::new_droppable(Value)
        .ok()
        .is_some_and(|value| PUBLISHED.lock().is_ok_and(|slot| slot.put(value).is_ok()));
    stage.check("the value is published", published);

    let holder = stage.spawn("holder", holder);
    let dying = stage.spawn("dying", dying);
    stage.wait_for("three hold it: the slot and two tasks", count_is(3));
    FAULT_NOW.store(true, Ordering::Release);
    let released = stage.report_on(dying).map_or(0, |report| report.count(Outcome::Released));
    stage.check("one share was released", released == 1);
    stage.wait_for("two hold it", count_is(2));
    tasks::sleep_ticks(3);
    stage.check("and no fewer later", COUNT_SEEN.load(Ordering::Relaxed) == 2);

    let taken = PUBLISHED.lock().is_ok_and(|mut slot| matches!(slot.take(), Ok(Some(_))));
    stage.check("the slot gives its share up", taken);
    stage.wait_for("one holds it", count_is(1));
    stage.check("the value is still there", DROPS.load(Ordering::Relaxed) == 0);
    LET_GO.store(true, Ordering::Release);
    stage.wait_for_end_of(holder);
    stage.check("it went with the last holder, once", DROPS.load(Ordering::Relaxed) == 1);
}
