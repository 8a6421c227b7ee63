//! Four tasks of which each needs those before it: one dies, and the later ones begin again with
//! it.

use keeper::Verdict;
use keeper::supervisor::{Strategy, Supervisor};

use super::children;
use crate::scenarios::{Scenario, Stage};
use crate::tasks;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "rest-for-one",
    summary: "the third of four supervised tasks dies; it and the fourth begin again, the others go on",
    ..Scenario::kept(run)
};

static SUPERVISOR: Supervisor = Supervisor::new(Strategy::RestForOne, children::SECOND);

fn run(stage: &mut Stage) {
    let first = [0, 1, 2, 3].map(|number| children::start(&SUPERVISOR, number));
    children::wait_for_lives(stage, &[1, 1, 1, 1]);
    children::end(stage, 2, &first[2..], Verdict::Restart);
    children::wait_for_lives(stage, &[1, 1, 2, 2]);
    children::check_locks(stage, &[0, 0, 1, 1]);
    let go_on = first[..2].iter().all(|task| tasks::state(*task).is_ok());
    stage.check("those before it live on", go_on);
    children::check_gone(stage, &first[2..]);
}
