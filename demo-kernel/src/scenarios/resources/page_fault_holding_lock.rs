//! A write through an unmapped address, in the middle of a critical section.

use core::sync::atomic::{AtomicU32, Ordering};

use drop_registry::{LockError, Outcome};
use zerocopy::FromBytes;

use crate::scenarios::{Scenario, Stage, deaths};
use crate::tracked::Mutex;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "page-fault-holding-lock",
    summary: "a task faults half-way through a transfer; the next one is told, and mends it",
    ..Scenario::kept(run)
};

/// The two sides of a transfer: equal, but for an instant.
#[derive(FromBytes)]
struct Transfer {
    debited: u64,
    credited: u64,
}

static TRANSFER: Mutex<Transfer> = Mutex::new(Transfer { debited: 100, credited: 100 });

fn faulting(_: usize) {
    let Ok(mut transfer) = TRANSFER.lock() else { return };
    transfer.debited += 10;
    deaths::page_fault();
    transfer.credited += 10;
}

static FOUND: [AtomicU32; 2] = [const { AtomicU32::new(0) }; 2];

fn mending(_: usize) {
    let Err(LockError::OwnerDied(mut died)) = TRANSFER.lock() else { return };
    let transfer = died.update();
    FOUND[0].store(transfer.debited as u32, Ordering::Relaxed);
    FOUND[1].store(transfer.credited as u32, Ordering::Relaxed);
    transfer.credited = transfer.debited;
    drop(died.mark_consistent());
}

fn run(stage: &mut Stage) {
    let dying = stage.spawn("faulting", faulting);
    if let Some(report) = stage.report_on(dying) {
        let held = report.count(Outcome::OwnerDied);
        stage.check("one lock was released", held == 1);
    }
    let next = stage.spawn("mending", mending);
    stage.wait_for_end_of(next);
    let found = FOUND.each_ref().map(|side| side.load(Ordering::Relaxed));
    stage.check(format_args!("the next owner was told, and saw {found:?}"), found == [110, 100]);
    let value = TRANSFER.lock().map(|transfer| (transfer.debited, transfer.credited));
    stage.check("after that the lock is as any other", matches!(value, Ok((110, 110))));
}
