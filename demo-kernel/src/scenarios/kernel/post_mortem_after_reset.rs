//! The machine is reset; the kernel that comes up reads what the last one's keeper recorded.

use alloc::boxed::Box;

use drop_registry::{LockError, Outcome, ResourceKind};
use keeper::post_mortem::Records;
use keeper::{Report, Verdict};
use task_model::FaultKind;

use crate::exit;
use crate::post_mortem::ring;
use crate::scenarios::{Scenario, Stage, deaths};
use crate::tracked::Mutex;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "post-mortem-after-reset",
    summary: "two tasks die, the machine is reset, and the next boot reads their records",
    ..Scenario::kept(run)
};

static LOCK: Mutex<u64> = Mutex::new(0);

/// The lock's word is its first field.
fn lock_address() -> u64 {
    (&raw const LOCK).addr() as u64
}

#[inline(never)]
fn faulting_with_the_lock(_: usize) {
    let Ok(mut value) = LOCK.lock() else { return };
    *value += 1;
    deaths::page_fault();
}

#[inline(never)]
fn faulting(_: usize) {
    deaths::divide_error();
}

fn run(stage: &mut Stage) {
    // Memory is zero when the machine is switched on.
    if ring().records().next().is_none() { before(stage) } else { after(stage) }
}

fn before(stage: &mut Stage) {
    let first = stage.spawn("faulting", faulting_with_the_lock);
    stage.report_on(first);
    let second = stage.spawn("faulting", faulting);
    stage.report_on(second);
    stage.check("the lock is marked", matches!(LOCK.lock(), Err(LockError::OwnerDied(_))));
    exit::reset();
}

fn after(stage: &mut Stage) {
    stage
        .check("the variables are those of a new boot", LOCK.lock().is_ok_and(|value| *value == 0));
    let mut records = ring().records();
    let (Some((2, second)), Some((1, first)), None) =
        (next(&mut records), next(&mut records), next(&mut records))
    else {
        return stage.check("there are two records, the latest first", false);
    };
    stage.check("the second task died of what it did", died_in(&second, FaultKind::DivideError));
    stage.check("the first one, too", died_in(&first, FaultKind::PageFault));
    let registers = first.registers.map(|it| it.rip);
    stage.check("it has its registers", registers == Some(first.fault.instruction_pointer));
    let named = first
        .frames
        .iter()
        .any(|it| it.frame.function == Some(faulting_with_the_lock as *const () as u64));
    stage.check("its frames", named);
    let lock = first.resources.first().is_some_and(|it| {
        it.kind == ResourceKind::Mutex
            && it.address == lock_address()
            && it.outcome == Outcome::OwnerDied
    });
    stage.check("and the lock that it held", lock && first.resources.len() == 1);
    let ordered = first.stopped_at < first.settled_at && first.settled_at <= first.gone_at;
    stage.check("its times are in order", ordered && first.gone_at < second.stopped_at);
    stage.found(&first);
}

/// The next record's number, and its report: not on the stack, of which reports take much.
#[inline(never)]
fn next(records: &mut Records<'_>) -> Option<(u64, Box<Report>)> {
    let record = records.next()?;
    Some((record.number(), Box::new(record.report().ok()?)))
}

fn died_in(report: &Report, kind: FaultKind) -> bool {
    report.fault.kind == kind && report.verdict == Some(Verdict::Exit) && !report.frames.is_empty()
}
