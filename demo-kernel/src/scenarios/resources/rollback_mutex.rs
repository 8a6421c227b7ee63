//! A write through an unmapped address, between two changes that belong together.

use core::sync::atomic::{AtomicU64, Ordering};

use drop_registry::Outcome;

use crate::scenarios::{Scenario, Stage, deaths};
use crate::tracked::RollbackMutex;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "rollback-mutex",
    summary: "a task faults half-way through a transfer; it never took place, and nobody is told",
    ..Scenario::kept(run)
};

/// The two sides of a transfer: equal, but for an instant.
#[derive(Clone, Copy)]
struct Transfer {
    debited: u64,
    credited: u64,
}

static TRANSFER: RollbackMutex<Transfer> =
    RollbackMutex::new(Transfer { debited: 100, credited: 100 });

static SEEN_BY_DYING: AtomicU64 = AtomicU64::new(0);

fn faulting(_: usize) {
    let Ok(mut transfer) = TRANSFER.lock() else { return };
    transfer.debited += 10;
    SEEN_BY_DYING.store(transfer.debited, Ordering::Relaxed);
    deaths::page_fault();
    transfer.credited += 10;
}

static FOUND: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];

fn next(_: usize) {
    let Ok(mut transfer) = TRANSFER.lock() else { return };
    FOUND[0].store(transfer.debited, Ordering::Relaxed);
    FOUND[1].store(transfer.credited, Ordering::Relaxed);
    transfer.debited += 1;
    transfer.credited += 1;
}

fn run(stage: &mut Stage) {
    let dying = stage.spawn("faulting", faulting);
    if let Some(report) = stage.report_on(dying) {
        let (rolled_back, told) =
            (report.count(Outcome::RolledBack), report.count(Outcome::OwnerDied));
        stage.check("one lock was rolled back", rolled_back == 1 && told == 0);
    }
    stage.check("the task had written", SEEN_BY_DYING.load(Ordering::Relaxed) == 110);
    let next = stage.spawn("next", next);
    stage.wait_for_end_of(next);
    let found = FOUND.each_ref().map(|side| side.load(Ordering::Relaxed));
    let claim = format_args!("the next owner is not told, and sees {found:?}");
    stage.check(claim, found == [100, 100]);
    let value = TRANSFER.lock().map(|transfer| (transfer.debited, transfer.credited));
    stage.check("what it writes counts", value == Ok((101, 101)));
}
