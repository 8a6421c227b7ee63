//! A task that dies too often: its supervisor gives up, ends the others, and leaves it to the root.

use keeper::supervisor::{Backoff, RestartIntensity, Strategy, Supervisor};
use keeper::{KeeperId, Verdict};

use super::children;
use crate::scenarios::{Scenario, Stage};
use crate::tasks;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "restart-intensity",
    summary: "a task dies again after each restart, each later than the last; the third is one too many",
    ..Scenario::kept(run)
};

const FIRST_DELAY: u64 = 300_000;

static SUPERVISOR: Supervisor = Supervisor::new(Strategy::OneForOne, children::SECOND)
    .with_intensity(RestartIntensity { max: 2, period: 10 * children::SECOND })
    .with_backoff(Backoff::Exponential { first: FIRST_DELAY, cap: 100 * FIRST_DELAY });

fn run(stage: &mut Stage) {
    let [mut task, other] = [0, 1].map(|number| children::start(&SUPERVISOR, number));
    children::wait_for_lives(stage, &[1, 1]);
    for life in 1..=2 {
        children::end(stage, 0, &[task], Verdict::Restart);
        let waited = stage.last_report().map_or(0, |it| it.gone_at - it.settled_at);
        let delay = FIRST_DELAY << (life - 1);
        stage.check(
            format_args!("restart {life} waits {delay} ticks, and not twice as long: {waited}"),
            (delay..2 * delay).contains(&waited),
        );
        children::wait_for_lives(stage, &[life + 1, 1]);
        task = task.next_generation();
    }
    children::end(stage, 0, &[task, other], Verdict::Exit);
    let root_asked =
        stage.last_report().is_some_and(|it| it.task == task && it.keepers[..] == [KeeperId::ROOT]);
    stage.check("the root ruled, since nobody is above", root_asked);
    let gone = [task, other].iter().all(|task| tasks::state(*task).is_err());
    stage.check("both are gone", gone && SUPERVISOR.children().next().is_none());
    let locks = [0, 1].map(children::lock_tells);
    stage.check("their locks are free, and the next owner is told", locks == [true, true]);
    stage.check("there were three lives, and one", children::lives()[..2] == [3, 1]);
}
