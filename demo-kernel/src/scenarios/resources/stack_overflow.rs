//! A recursion into the guard page, with a lock held.

use core::hint::black_box;

use drop_registry::LockError;
use keeper::unwind::WalkEnd;
use task_model::FaultKind;

use crate::scenarios::{Scenario, Stage};
use crate::tracked::Mutex;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "stack-overflow",
    summary: "a task runs into its guard page while it holds a lock",
    ..Scenario::kept(run)
};

static COUNTER: Mutex<u64> = Mutex::new(0);

fn overflowing(_: usize) {
    let Ok(mut counter) = COUNTER.lock() else { return };
    *counter = 1;
    black_box(deeper(0));
    *counter = 2;
}

#[inline(never)]
fn deeper(depth: u64) -> u64 {
    let room = black_box([depth; 16]);
    if room[0] == u64::MAX { 0 } else { deeper(depth + 1) + room[1] }
}

fn run(stage: &mut Stage) {
    let dying = stage.spawn("overflowing", overflowing);
    let seen = stage.report_on(dying).map(|report| {
        let holder = report.resources.first().and_then(|resource| resource.frame);
        (report.fault.kind, report.walk_end, holder)
    });
    stage.check("it was seen as an overflow", {
        seen.is_some_and(|(kind, ..)| kind == FaultKind::StackOverflow)
    });
    stage.check("all its frames were walked, from the guard page up", {
        seen.is_some_and(|(_, end, _)| end == WalkEnd::Complete)
    });
    stage.check("the lock is that of a frame far above", {
        seen.is_some_and(|(_, _, holder)| holder > Some(100))
    });
    let value = match COUNTER.lock() {
        Err(LockError::OwnerDied(died)) => *died.mark_consistent(),
        _ => 0,
    };
    stage.check("the lock was released, and the next owner told", value == 1);
    stage.check("the lock is as any other", COUNTER.lock().is_ok());
}
