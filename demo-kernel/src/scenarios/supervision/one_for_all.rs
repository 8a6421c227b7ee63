//! Three tasks that cannot go on without each other: one dies, and all begin again.

use keeper::Verdict;
use keeper::supervisor::{Strategy, Supervisor};

use super::children;
use crate::scenarios::{Scenario, Stage};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "one-for-all",
    summary: "one of three supervised tasks dies; the others are ended, and all begin again in order",
    ..Scenario::kept(run)
};

static SUPERVISOR: Supervisor = Supervisor::new(Strategy::OneForAll, children::SECOND);

fn run(stage: &mut Stage) {
    let first = [0, 1, 2].map(|number| children::start(&SUPERVISOR, number));
    children::wait_for_lives(stage, &[1, 1, 1]);
    children::end(stage, 1, &first, Verdict::Restart);
    children::wait_for_lives(stage, &[2, 2, 2]);
    children::check_locks(stage, &[1, 1, 1]);
    children::check_gone(stage, &first);

    // The one that was ended last time fails itself now.
    let second = first.map(|task| task.next_generation());
    children::end(stage, 2, &second, Verdict::Restart);
    children::wait_for_lives(stage, &[3, 3, 3]);
    children::check_locks(stage, &[2, 2, 2]);
}
