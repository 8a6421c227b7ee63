//! What a report says of each frame: what the registry listed, what the compiler could clean up,
//! and what neither knows of.

use std::hint::black_box;

use drop_registry::Mutex;
use keeper::hosted::Current;
use keeper::unwind::{Landing, PadKind};
use keeper::{FrameCoverage, FrameReport, Report};

use crate::{faults, kernel};

static LOCK: Mutex<u64, Current> = Mutex::new(1);

/// The registry knows of what it holds.
#[inline(never)]
fn holds_a_lock() {
    let mut guard = LOCK.lock().unwrap();
    *guard = 2;
    black_box(faults::write_to_nowhere as fn())();
    black_box(&guard);
}

/// The compiler knows of what it owns, since that is dropped if the call unwinds.
#[inline(never)]
fn owns_a_vector() {
    let numbers = black_box(vec![1, 2, 3]);
    holds_a_lock();
    black_box(&numbers);
}

/// Nobody knows of what it owns, and it owns nothing.
#[inline(never)]
fn owns_nothing() {
    black_box(owns_a_vector as fn())();
    black_box(());
}

fn found(report: &Report, function: fn()) -> &FrameReport {
    let start = function as usize as u64;
    let found = report.frames.iter().find(|found| found.frame.function == Some(start));
    found.unwrap_or_else(|| panic!("no frame of {start:#x} in {report}"))
}

#[test]
fn a_report_tells_what_the_registry_knew_and_the_compiler_and_neither() {
    let kernel = kernel();
    kernel.spawn(owns_nothing);
    let reports = kernel.run();
    let [report] = &reports[..] else { panic!("{reports:#?}") };

    let Landing::Pad { address, kind } = found(report, owns_a_vector).landing else {
        panic!("{report}")
    };
    assert_eq!(kind, PadKind::Cleanup);
    assert_eq!(found(report, owns_nothing).landing, Landing::NoTable);
    assert_eq!(found(report, faults::write_to_nowhere).landing, Landing::NoTable);
    let depth = report.resources[0].frame.unwrap();
    assert_eq!(report.frames[depth], *found(report, holds_a_lock));

    let FrameCoverage { registry, landing_pad, neither } = report.coverage();
    assert_eq!(registry, 1);
    let pads = report.frames.iter().filter(|f| matches!(f.landing, Landing::Pad { .. })).count();
    assert!(landing_pad == pads && pads >= 1 && neither >= 2, "{report}");
    let both = usize::from(matches!(report.frames[depth].landing, Landing::Pad { .. }));
    assert_eq!(registry + landing_pad + neither - both, report.frames.len());

    let text = report.to_string();
    let summary =
        format!("frames with entries 1, with a landing pad {landing_pad}, with neither {neither}");
    for part in [summary, format!("        cleanup pad {address:#x}\n")] {
        assert!(text.contains(&part), "{part:?} is not in {text}");
    }
    assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
}
