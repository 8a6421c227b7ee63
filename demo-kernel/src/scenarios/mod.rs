//! What the kernel can be asked to show, by the word `scenario=NAME` on its command line.

mod smoke;

use log::error;

use crate::exit::{ExitStatus, exit};
use crate::serial::write_line;
use crate::{command_line, tasks};

/// One thing to show, with its checks.
struct Scenario {
    name: &'static str,
    summary: &'static str,
    /// Runs as a task; an error says which check failed.
    run: fn() -> Result<(), &'static str>,
}

const SCENARIOS: &[Scenario] = &[smoke::SCENARIO];

/// Spawns the task that runs the scenario of the command line and then ends the machine.
///
/// `scenario=list` prints a line `@scenario NAME SUMMARY` for each and ends at once.
pub(crate) fn spawn_selected() {
    let name = command_line::value("scenario").unwrap_or("list");
    if name == "list" {
        for scenario in SCENARIOS {
            write_line(format_args!("@scenario {} {}", scenario.name, scenario.summary));
        }
        exit(ExitStatus::Success);
    }
    let Some(index) = SCENARIOS.iter().position(|scenario| scenario.name == name) else {
        error!("there is no scenario {name}");
        exit(ExitStatus::Failure);
    };
    tasks::spawn("scenario", run, index).expect("the first task finds room");
}

fn run(index: usize) {
    let status = match (SCENARIOS[index].run)() {
        Ok(()) => ExitStatus::Success,
        Err(reason) => {
            error!("failed: {reason}");
            ExitStatus::Failure
        }
    };
    exit(status)
}
