//! The proof is proved: each planted bug turns it red, and without one it is green.
//!
//! `cargo test --release -p boundaries --features planted-bugs`

use std::collections::BTreeSet;
use std::process::Command;

use drop_registry::planted::Bug;

/// Runs the proof with `arguments`. Returns whether it holds, and what it printed.
fn boundaries(arguments: &[&str]) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_boundaries"))
        .args(arguments)
        .output()
        .expect("the binary under test runs");
    (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The part of the proof that must find `bug`: which operations, and whether the settler dies.
fn where_it_shows(bug: Bug) -> &'static [&'static str] {
    match bug {
        Bug::NoWatermark => &["--settler", "shared clone, drop"],
        Bug::EraseFirst => &["--settler", "mutex lock, write"],
        Bug::NoTakeOver => &["--settler", "shared clone, drop"],
        Bug::ReaderMarkedLate => &["--settler", "lock_api rwlock read, unlock"],
        Bug::CopyCounts => &["ledger"],
        Bug::TornArenaUsed => &["arena heap"],
        Bug::CommittedEarly | Bug::RestoredFromScratch => &["rollback mutex lock, write"],
        Bug::DoneBeforeWhole | Bug::DeathCompletes => &["once call_once"],
        Bug::RepairedAgain => &["--settler", "repair mutex lock, write"],
        Bug::WakeUpDies | Bug::BitBeforeEntry => &["queue wait"],
        Bug::UnlockForgetsWake | Bug::UnparkedOnce => &["parking mutex unlock"],
        Bug::PermitForgetsWake => &["semaphore release"],
        Bug::QueuedAfterLook => &["--preempt", "queue wait"],
        Bug::TokenInTwoSteps => &["--preempt", "parking mutex lock"],
        Bug::DropAgain => &["box"],
        Bug::OursFirst => &["lock_api spin"],
        Bug::NobodyHelps => &["channel send"],
        Bug::GapIsNull => &["hand-over from between"],
        Bug::LastIsOrdinary | Bug::OrdinaryIsLast => &["shared"],
        _ => &[
            "mutex lock, write",
            "mutex try_lock, held",
            "mutex unlock, another",
            "shared",
            "slot",
            "rwlock try_write, others",
            "rwlock read, others",
        ],
    }
}

#[test]
fn without_a_bug_the_proof_holds() {
    for arguments in BTreeSet::from(Bug::ALL.map(where_it_shows)) {
        let (holds, printed) = boundaries(arguments);
        assert!(holds, "{arguments:?}\n{printed}");
    }
}

#[test]
fn each_planted_bug_is_found() {
    let mut missed = Vec::new();
    for (number, bug) in Bug::ALL.into_iter().enumerate() {
        let number = number.to_string();
        let mut arguments = vec!["--plant", &number];
        arguments.extend(where_it_shows(bug));
        let (holds, printed) = boundaries(&arguments);
        println!("{bug:?}: {}", printed.lines().last().unwrap_or_default());
        if holds {
            missed.push(bug);
        }
    }
    assert!(missed.is_empty(), "not found: {missed:?}");
}
