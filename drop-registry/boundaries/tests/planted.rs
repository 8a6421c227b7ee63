//! The proof is proved: each planted bug turns it red, and without one it is green.
//!
//! `cargo test --release -p boundaries --features planted-bugs`

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

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
        Bug::ZeroFlagIgnored => &["--exact", "slot put into an occupied one"],
        Bug::UncountedHandedOver => &["--exact", "slot put of an uncounted share"],
        Bug::NoTakeOver | Bug::NoWatermark => {
            &["--exact", "--settler", "--writes", "shared take a share, drop"]
        }
        Bug::EraseFirst | Bug::RepairedAgain => {
            &["--exact", "--settler", "--writes", "repair mutex unlock, others wait"]
        }
        Bug::ReaderMarkedLate => &["--exact", "--settler", "--writes", "lock_api rwlock try_read"],
        Bug::CopyCounts => &["ledger"],
        Bug::TornArenaUsed => &["arena heap"],
        Bug::CommittedEarly | Bug::RestoredFromScratch => &["rollback mutex lock, write"],
        Bug::DoneBeforeWhole | Bug::DeathCompletes => &["once call_once"],
        Bug::WakeUpDies | Bug::BitBeforeEntry => &["queue wait"],
        Bug::UnlockForgetsWake | Bug::UnparkedOnce => &["parking mutex unlock"],
        Bug::WriterForgetsWake => &["--exact", "parking rwlock write, another waits to write"],
        Bug::ReaderForgetsWake => &["--exact", "parking rwlock read, another waits to write"],
        Bug::PermitForgetsWake => &["semaphore release"],
        Bug::QueuedAfterLook => &["--preempt", "queue wait, woken"],
        Bug::TokenInTwoSteps => &["--preempt", "parking mutex lock"],
        Bug::DropAgain | Bug::QuarantineAlways => &["box"],
        Bug::DroppedThoughLent => &["values swapped"],
        Bug::OursFirst => &["lock_api spin mutex lock, write", "lock_api spin rwlock write"],
        Bug::LeftoversStay => &["lock_api spin rwlock write, others read"],
        Bug::ClearedInFront => &["lock_api spin rwlock write, another writes"],
        Bug::NobodyHelps => &["channel send"],
        Bug::WindowLong => &["channel send, others go on meanwhile"],
        Bug::CutTooDeep | Bug::WatermarkStays => {
            &["--exact", "--recover", "mutex lock, write, unlock"]
        }
        Bug::OutermostCounts => &["--exact", "--recover", "recovery point inside a recovery point"],
        Bug::TakenUnseen => &["--exact", "heap take and give back two, among others"],
        Bug::GivenBackOnce => &["--exact", "--settler", "semaphore release, others come and go"],
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

/// Does `each` to all of these, on all processors.
fn on_all_processors<T: Sync>(all: &[T], each: impl Fn(&T) + Sync) {
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some(one) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
            each(one);
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
}

/// The parts in which bugs are found, without any, and each once: those with the same flag by the
/// names of all of them.
#[test]
fn without_a_bug_the_proof_holds() {
    let mut by_flag = BTreeMap::<_, BTreeSet<_>>::new();
    for part in Bug::ALL.map(where_it_shows) {
        let (flags, names): (Vec<_>, Vec<_>) = part.iter().partition(|it| it.starts_with("--"));
        by_flag.entry(flags).or_default().extend(names);
    }
    for (flags, names) in by_flag {
        let arguments: Vec<_> = flags.into_iter().chain(names).copied().collect();
        let (holds, printed) = boundaries(&arguments);
        assert!(holds, "{arguments:?}\n{printed}");
    }
}

#[test]
fn each_planted_bug_is_found() {
    let missed = Mutex::new(Vec::new());
    let bugs: Vec<_> = Bug::ALL.into_iter().enumerate().collect();
    on_all_processors(&bugs, |(number, bug)| {
        let (number, begun) = (number.to_string(), Instant::now());
        let mut arguments = vec!["--first", "--jobs", "1", "--plant", &number];
        arguments.extend(where_it_shows(*bug));
        let (holds, printed) = boundaries(&arguments);
        let last = printed.lines().last().unwrap_or_default();
        println!("{:5.1} s {bug:?}: {last}", begun.elapsed().as_secs_f32());
        // Found is what the proof says so of: a run that ended in another way has found nothing.
        if holds || !last.starts_with("boundaries ") {
            missed.lock().unwrap().push(*bug);
        }
    });
    let missed = missed.into_inner().unwrap();
    assert!(missed.is_empty(), "not found: {missed:?}");
}
