//! Three locks over three frames.

use core::hint::black_box;

use drop_registry::{LockError, Outcome};
use keeper::Report;

use crate::scenarios::{Scenario, Stage, deaths};
use crate::tracked::Mutex;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "invalid-opcode-nested-locks",
    summary: "three locks over three frames, released innermost first, each by its frame",
    ..Scenario::kept(run)
};

static OUTER: Mutex<u32> = Mutex::new(1);
static MIDDLE: Mutex<u32> = Mutex::new(2);
static INNER: Mutex<u32> = Mutex::new(3);

fn outer(_: usize) {
    let held = OUTER.lock();
    middle();
    black_box(&held);
}

#[inline(never)]
fn middle() {
    let held = MIDDLE.lock();
    inner();
    black_box(&held);
}

#[inline(never)]
fn inner() {
    let held = INNER.lock();
    deaths::invalid_opcode();
    black_box(&held);
}

/// Whether resource number `n` of the report is `lock`, released, and of the function at
/// `function`.
fn is_of(report: &Report, n: usize, lock: &Mutex<u32>, function: u64) -> bool {
    report.resources.get(n).is_some_and(|resource| {
        resource.outcome == Outcome::OwnerDied
            && resource.address == core::ptr::from_ref(lock).addr() as u64
            && resource
                .frame
                .and_then(|frame| report.frames.get(frame))
                .is_some_and(|found| found.frame.function == Some(function))
    })
}

fn run(stage: &mut Stage) {
    let dying = stage.spawn("outer", outer);
    let attributed = stage.report_on(dying).map(|report| {
        [
            is_of(report, 0, &INNER, inner as fn() as usize as u64),
            is_of(report, 1, &MIDDLE, middle as fn() as usize as u64),
            is_of(report, 2, &OUTER, outer as fn(usize) as usize as u64),
        ]
    });
    let complete = attributed.unwrap_or_default();
    stage.check("inner's lock came first, and is inner's", complete[0]);
    stage.check("middle's lock came second, and is middle's", complete[1]);
    stage.check("outer's lock came last, and is outer's", complete[2]);
    for (name, lock, value) in [("inner", &INNER, 3), ("middle", &MIDDLE, 2), ("outer", &OUTER, 1)]
    {
        let seen = match lock.lock() {
            Err(LockError::OwnerDied(died)) => *died.mark_consistent(),
            _ => 0,
        };
        stage.check(format_args!("{name} can be taken again, with its value"), seen == value);
    }
}
