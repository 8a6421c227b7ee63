//! The model is a test that can fail: it finds planted bugs.
//!
//! `cargo test --release -p drop-registry --features hosted,planted-bugs --test model`

use std::collections::BTreeSet;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use drop_registry::planted::{Bug, plant};

const VARIABLE: &str = "MODEL_PLANTS";

/// How many programs each is looked for in, of each seed.
const CASES: &str = "2000";

/// How many seeds, until it is found: which instruction a program's task dies at is another one in
/// each build, and for some bugs it must be one of two or three.
const SEEDS: u64 = 12;

/// How long the programs of a seed may take: twenty times what they do.
const LIMIT: Duration = Duration::from_secs(300);

/// Those that so many programs find in seconds. `boundaries` finds all of them: it looks at each
/// instruction, and does not wait for chance to come there; and settlers die there, without which
/// some of them do no harm (`RepairedAgain`).
const FOUND: [Bug; 9] = [
    Bug::WindowShort,
    Bug::LastIsOrdinary,
    Bug::OrdinaryIsLast,
    Bug::SilentRelease,
    Bug::DropAgain,
    Bug::DeathCompletes,
    Bug::NobodyHelps,
    Bug::RestoredFromScratch,
    Bug::WakeUpDies,
];

/// Plants what the parent asks for. Returns whether it has asked.
pub(crate) fn plant_from_environment() -> bool {
    let asked = std::env::var(VARIABLE).unwrap_or_default();
    let bug = Bug::ALL.iter().find(|bug| format!("{bug:?}") == asked);
    bug.map(|bug| plant(*bug)).is_some()
}

/// Each bug is found by one of the seeds, by which nothing is found without it.
#[test]
fn planted_bugs_are_found() {
    let found = on_all_processors(FOUND, |bug| {
        (0..SEEDS).find(|seed| holds(Some(bug), *seed) == Some(false)).ok_or(bug)
    });
    let missed: Vec<_> = found.iter().filter_map(|seed| seed.err()).collect();
    assert_eq!(missed, [], "not found");
    let seeds: BTreeSet<_> = found.into_iter().flatten().collect();
    let held = on_all_processors(seeds, |seed| holds(None, seed));
    assert!(held.iter().all(|held| *held == Some(true)), "something else is found: {held:?}");
}

/// What `each` says of all of these.
fn on_all_processors<T: Send, R: Send>(
    all: impl IntoIterator<Item = T, IntoIter: Send>,
    each: impl Fn(T) -> R + Sync,
) -> Vec<R> {
    let next = Mutex::new(all.into_iter());
    let said = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some(one) = { next.lock().unwrap().next() } {
                    let what = each(one);
                    said.lock().unwrap().push(what);
                }
            });
        }
    });
    said.into_inner().unwrap()
}

/// Whether the programs of this seed keep to the model, in a process of their own, with the bug;
/// `None` if they do not come to an end.
fn holds(bug: Option<Bug>, seed: u64) -> Option<bool> {
    let this = std::env::current_exe().expect("the test runs");
    let mut child = Command::new(this)
        .args(["--exact", "random_programs_keep_to_the_model"])
        .env(VARIABLE, bug.map(|bug| format!("{bug:?}")).unwrap_or_default())
        .env("PROPTEST_CASES", CASES)
        .env("PROPTEST_RNG_SEED", seed.to_string())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("it runs itself");
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("it is our child") {
            println!("{bug:?}, {seed}: {status} after {:.0} s", start.elapsed().as_secs_f64());
            return Some(status.success());
        }
        if start.elapsed() > LIMIT {
            child.kill().expect("it is our child");
            child.wait().expect("it is our child");
            println!("{bug:?}, {seed}: nothing after {} s", LIMIT.as_secs());
            return None;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
