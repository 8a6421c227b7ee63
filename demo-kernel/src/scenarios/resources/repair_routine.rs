//! A sum beside its parts, which the keeper adds up again.

use core::sync::atomic::{AtomicU64, Ordering};

use drop_registry::{Outcome, OwnerDied};
use zerocopy::FromBytes;

use crate::scenarios::{Scenario, Stage, deaths};
use crate::tracked::{MutexGuard, RepairMutex};
use crate::{keeping, tasks};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "repair-routine",
    summary: "a task faults between a part and its sum; the keeper mends it, and nobody is told",
    ..Scenario::kept(run)
};

#[derive(FromBytes)]
struct Parts {
    parts: [u64; 2],
    sum: u64,
}

static PARTS: RepairMutex<Parts> = RepairMutex::new(Parts { parts: [3, 4], sum: 7 }, add_up);

static RUNS_BY_KEEPER: AtomicU64 = AtomicU64::new(0);
static FOUND: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];

fn add_up(mut died: OwnerDied<MutexGuard<'static, Parts>>) -> Option<MutexGuard<'static, Parts>> {
    let by_keeper = tasks::current().and_then(keeping::served_by).is_some();
    RUNS_BY_KEEPER.fetch_add(u64::from(by_keeper), Ordering::Relaxed);
    let Parts { parts: [first, second], sum } = died.update();
    FOUND[0].store(*first + *second, Ordering::Relaxed);
    FOUND[1].store(*sum, Ordering::Relaxed);
    *sum = *first + *second;
    Some(died.mark_consistent())
}

fn faulting(_: usize) {
    let Ok(mut value) = PARTS.lock() else { return };
    value.parts[0] = 30;
    deaths::page_fault();
    value.sum = 34;
}

static SUM: AtomicU64 = AtomicU64::new(0);

fn next(_: usize) {
    if let Ok(value) = PARTS.lock() {
        SUM.store(value.sum, Ordering::Relaxed);
    }
}

fn run(stage: &mut Stage) {
    let dying = stage.spawn("faulting", faulting);
    if let Some(report) = stage.report_on(dying) {
        let repaired = report.count(Outcome::Repaired);
        stage.check("one lock was repaired", repaired == 1);
    }
    let found = FOUND.each_ref().map(|side| side.load(Ordering::Relaxed));
    let by_keeper = RUNS_BY_KEEPER.load(Ordering::Relaxed);
    let claim = format_args!("the keeper ran the routine, which found {found:?}");
    stage.check(claim, by_keeper == 1 && found == [34, 7]);
    let next = stage.spawn("next", next);
    stage.wait_for_end_of(next);
    let sum = SUM.load(Ordering::Relaxed);
    stage.check(format_args!("the next owner is not told, and sees {sum}"), sum == 34);
}
