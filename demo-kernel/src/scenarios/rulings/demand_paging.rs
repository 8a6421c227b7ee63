//! A keeper that maps what a task touches, and resumes it: the pager of a microkernel.

use core::sync::atomic::{AtomicU64, Ordering};

use keeper::{Case, KeeperId, Policy, Verdict};
use task_model::FaultKind;

use super::lazy_pages;
use crate::keeping;
use crate::scenarios::{Scenario, Stage};
use crate::tasks::Spawn;
use crate::tracked::Mutex;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "demand-paging",
    summary: "a task writes where nothing is mapped; its keeper maps a page each time, and resumes it",
    ..Scenario::kept(run)
};

/// Maps a page for each fault in the region of lazy pages. Whatever else happens is for others.
#[derive(Debug)]
struct Pager;

static FAULTS: AtomicU64 = AtomicU64::new(0);

impl Policy for Pager {
    fn rule(&self, case: &mut Case<'_>) -> Verdict {
        let fault = case.fault();
        match fault.address {
            Some(address) if fault.kind == FaultKind::PageFault && lazy_pages::map(address) => {
                FAULTS.fetch_add(1, Ordering::Relaxed);
                Verdict::Resume
            }
            _ => Verdict::TryNext,
        }
    }
}

static SUM: Mutex<u64> = Mutex::new(0);

/// Fills the pages, reads them again, and goes one too far.
fn touching(_: usize) {
    let Ok(mut sum) = SUM.lock() else { return };
    for n in 0..lazy_pages::COUNT {
        lazy_pages::write(n, n + 1);
    }
    for n in 0..lazy_pages::COUNT {
        *sum += lazy_pages::read(n);
    }
    drop(sum);
    lazy_pages::write(lazy_pages::COUNT, 1);
}

fn run(stage: &mut Stage) {
    let pager = keeping::register(KeeperId::ROOT, &Pager, u64::MAX);
    let Ok(pager) = pager else { return stage.check("there is room for a pager", false) };
    let task = Spawn::new("touching", touching).keeper(pager).start().expect("room for a task");
    if let Some(report) = stage.report_on(task) {
        let asked = report.keepers[..] == [pager, KeeperId::ROOT];
        let ended = report.verdict == Some(Verdict::Exit);
        stage.check("what the pager cannot map, the root rules on", asked && ended);
    }
    let faults = FAULTS.load(Ordering::Relaxed);
    stage.check(
        format_args!("{faults} pages were mapped, one a fault"),
        faults == lazy_pages::COUNT,
    );
    let sum = SUM.lock().map(|sum| *sum).ok();
    let expected = (1..=lazy_pages::COUNT).sum::<u64>();
    stage.check(
        "the task read what it wrote, and nobody was told of a death",
        sum == Some(expected),
    );
}
