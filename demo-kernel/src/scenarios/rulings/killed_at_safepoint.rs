//! Kills that wait: for a safepoint, for the end of a section, and not for ever.

use core::hint;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use drop_registry::{LockError, safepoint};
use task_model::{FaultKind, TaskId};

use crate::keeping;
use crate::scenarios::{Scenario, Stage};
use crate::tasks;
use crate::tracked::{Kernel, Mutex, NoKill};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "killed-at-safepoint",
    summary: "a kill waits for the task's next safepoint, or the end of a no-kill section; not for ever",
    ..Scenario::kept(run)
};

/// In ticks of the platform's time: ten of the timer's.
const PATIENCE: u64 = 1_000_000;

/// Two halves that belong together.
static PAIR: Mutex<[u64; 2]> = Mutex::new([0, 0]);
static ROUNDS: AtomicU64 = AtomicU64::new(0);

/// Never to be found with unequal halves, though it is killed somewhere.
fn working(_: usize) {
    loop {
        if let Ok(mut pair) = PAIR.lock() {
            pair[0] += 1;
            (0..1000).for_each(|_| hint::spin_loop());
            pair[1] += 1;
        }
        ROUNDS.fetch_add(1, Ordering::Relaxed);
        safepoint::<Kernel>();
    }
}

static IN_SECTION: AtomicBool = AtomicBool::new(false);
static LEAVE: AtomicBool = AtomicBool::new(false);
static SECTION_ENDED: AtomicBool = AtomicBool::new(false);
static BEYOND: AtomicBool = AtomicBool::new(false);

fn in_section(_: usize) {
    let Ok(section) = NoKill::enter() else { return };
    IN_SECTION.store(true, Ordering::Release);
    while !LEAVE.load(Ordering::Acquire) {
        tasks::yield_now();
    }
    SECTION_ENDED.store(true, Ordering::Release);
    drop(section);
    BEYOND.store(true, Ordering::Release);
}

static STUCK: Mutex<u64> = Mutex::new(0);

fn without_safepoint(_: usize) {
    let _held = STUCK.lock();
    loop {
        hint::spin_loop();
    }
}

fn run(stage: &mut Stage) {
    let task = stage.spawn("working", working);
    stage.wait_for("it works", || ROUNDS.load(Ordering::Relaxed) > 3);
    let asked = keeping::kill_at_safepoint(task, u64::MAX).is_ok();
    stage.check("it is asked to end", asked);
    killed(stage, task, "it ended there");
    let whole = PAIR.lock().map(|pair| pair[0] == pair[1] && pair[0] > 3).unwrap_or(false);
    stage.check("nothing was half-written, and nobody was told of a death", whole);

    let task = stage.spawn("in a section", in_section);
    stage.wait_for("it is in its section", || IN_SECTION.load(Ordering::Acquire));
    stage.check("it is killed", keeping::kill(task).is_ok());
    tasks::sleep_ticks(5);
    stage.check("it lives as long as the section lasts", tasks::state(task).is_ok());
    LEAVE.store(true, Ordering::Release);
    killed(stage, task, "it ended with the section");
    let ended = SECTION_ENDED.load(Ordering::Acquire) && !BEYOND.load(Ordering::Acquire);
    stage.check("not before, and not after", ended);

    let task = stage.spawn("without a safepoint", without_safepoint);
    stage.wait_for("it holds its lock", || STUCK.is_locked());
    let asked = keeping::kill_at_safepoint(task, PATIENCE).is_ok();
    stage.check("it is asked to end in time", asked);
    killed(stage, task, "it was killed when its time was up");
    let told = matches!(STUCK.lock(), Err(LockError::OwnerDied(_)));
    stage.check("its lock is free, and the next owner told", told);
}

fn killed(stage: &mut Stage, task: TaskId, claim: &str) {
    let report = stage.report_on(task).map(|report| report.fault.kind);
    stage.check(claim, report == Some(FaultKind::Killed));
}
