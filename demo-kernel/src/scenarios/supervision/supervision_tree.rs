//! A supervisor below another: when it gives up, it is restarted as one.

use keeper::Verdict;
use keeper::supervisor::{RestartIntensity, Strategy, Supervisor};

use super::children;
use crate::scenarios::{Scenario, Stage};
use crate::tasks;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "supervision-tree",
    summary: "a task dies too often for its supervisor; the one above restarts that as a whole",
    ..Scenario::kept(run)
};

/// Of a task, of [`BELOW`], and of another task.
static ABOVE: Supervisor = Supervisor::new(Strategy::OneForOne, children::SECOND);
static BELOW: Supervisor = Supervisor::new(Strategy::OneForOne, children::SECOND)
    .with_intensity(RestartIntensity { max: 1, period: 10 * children::SECOND });

fn run(stage: &mut Stage) {
    let before = children::start(&ABOVE, 0);
    let added = ABOVE.add_supervisor(&BELOW);
    stage.check("a supervisor is a child like others", added.is_ok());
    let below = [1, 2].map(|number| children::start(&BELOW, number));
    let after = children::start(&ABOVE, 3);
    children::wait_for_lives(stage, &[1, 1, 1, 1]);

    children::end(stage, 1, &below[..1], Verdict::Restart);
    children::wait_for_lives(stage, &[1, 2, 1, 1]);
    // One too many for the supervisor below: its other child begins again, too.
    children::end(stage, 1, &[below[0].next_generation(), below[1]], Verdict::Restart);
    children::wait_for_lives(stage, &[1, 3, 2, 1]);
    children::check_locks(stage, &[0, 2, 1, 0]);
    let go_on = [before, after].iter().all(|task| tasks::state(*task).is_ok());
    stage.check("those beside it live on", go_on);
    children::check_gone(stage, &below);
    // With its failures behind it, it puts up with one again.
    children::end(stage, 2, &[below[1].next_generation()], Verdict::Restart);
    children::wait_for_lives(stage, &[1, 3, 3, 1]);
}
