//! The model is a test that can fail: it finds planted bugs.
//!
//! `cargo test --release -p drop-registry --features hosted,planted-bugs --test model`

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use drop_registry::planted::{Bug, plant};

const VARIABLE: &str = "MODEL_PLANTS";

/// Those that a thousand programs find in seconds. `boundaries` finds all of them: it looks at each
/// instruction, and does not wait for chance to come there. (`RepairedAgain` is not for this test:
/// here nobody dies who settles. `boundaries --settler` finds it.)
const FOUND: [Bug; 7] = [
    Bug::WindowShort,
    Bug::LastIsOrdinary,
    Bug::OrdinaryIsLast,
    Bug::SilentRelease,
    Bug::DropAgain,
    Bug::DeathCompletes,
    Bug::NobodyHelps,
];

/// Plants what the parent asks for. Returns whether it has asked.
pub(crate) fn plant_from_environment() -> bool {
    let asked = std::env::var(VARIABLE).unwrap_or_default();
    let bug = Bug::ALL.iter().find(|bug| format!("{bug:?}") == asked);
    bug.map(|bug| plant(*bug)).is_some()
}

#[test]
fn planted_bugs_are_found() {
    for bug in FOUND {
        let this = std::env::current_exe().expect("the test runs");
        let mut child = Command::new(this)
            .args(["--exact", "random_programs_keep_to_the_model"])
            .env(VARIABLE, format!("{bug:?}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("it runs itself");
        let start = Instant::now();
        let holds = loop {
            if let Some(status) = child.try_wait().expect("it is our child") {
                break status.success();
            }
            if start.elapsed() > Duration::from_secs(120) {
                // Stuck counts as found.
                child.kill().expect("it is our child");
                child.wait().expect("it is our child");
                break false;
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        assert!(!holds, "{bug:?} is not found");
    }
}
