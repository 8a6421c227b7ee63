//! What the kernel can be asked to show, by the word `scenario=NAME` on its command line.
//!
//! A scenario looks at the resources themselves: it takes the lock again, reads the value, counts
//! the drops. The keeper's report is checked for what it says of frames, and is where the outcome
//! line has its numbers from; it is never what decides whether a resource came back.

mod deaths;
mod kernel;
mod resources;
mod rulings;
mod stage;
mod supervision;

use log::error;

use self::stage::Stage;
use crate::exit::{ExitStatus, exit};
use crate::serial::write_line;
use crate::tasks::Spawn;
use crate::{command_line, keeping};

/// One thing to show, with its checks.
struct Scenario {
    name: &'static str,
    summary: &'static str,
    /// Whether tasks are kept.
    keeper: bool,
    /// Runs at boot, before there are tasks.
    before_tasking: fn(),
    /// Runs as a task.
    run: fn(&mut Stage),
}

impl Scenario {
    /// One whose tasks are kept; the name and the summary are still to be given.
    const fn kept(run: fn(&mut Stage)) -> Self {
        Self { name: "", summary: "", keeper: true, before_tasking: || (), run }
    }
}

fn all() -> impl Iterator<Item = &'static Scenario> {
    [resources::SCENARIOS, rulings::SCENARIOS, supervision::SCENARIOS, kernel::SCENARIOS]
        .into_iter()
        .flatten()
}

/// Spawns the task that runs the scenario of the command line and then ends the machine.
///
/// `scenario=list` prints a line `@scenario NAME SUMMARY` for each and ends at once.
pub(crate) fn spawn_selected() {
    let name = command_line::value("scenario").unwrap_or("list");
    if name == "list" {
        for scenario in all() {
            write_line(format_args!("@scenario {} {}", scenario.name, scenario.summary));
        }
        exit(ExitStatus::Success);
    }
    let Some((index, scenario)) = all().enumerate().find(|(_, it)| it.name == name) else {
        error!("there is no scenario {name}");
        exit(ExitStatus::Failure);
    };
    (scenario.before_tasking)();
    if scenario.keeper {
        keeping::start();
    }
    Spawn::new("scenario", run).argument(index).start().expect("the first tasks find room");
}

fn run(index: usize) {
    let scenario = all().nth(index).expect("it was found");
    let mut stage = Stage::open();
    (scenario.run)(&mut stage);
    exit(if stage.close() { ExitStatus::Success } else { ExitStatus::Failure })
}
