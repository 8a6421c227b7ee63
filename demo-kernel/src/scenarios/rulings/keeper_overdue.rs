//! A policy that never answers: its keeper counts as dead, and the next one up rules.

use core::hint;

use drop_registry::LockError;
use keeper::{Case, KeeperId, Policy, Verdict, policy};
use task_model::FaultKind;

use crate::keeping;
use crate::scenarios::{Scenario, Stage, deaths};
use crate::tasks::Spawn;
use crate::tracked::Mutex;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "keeper-overdue",
    summary: "a policy loops for ever; in time the root rules instead, and the keeper begins again",
    ..Scenario::kept(run)
};

/// In ticks of the platform's time: some turns of the timer.
const PATIENCE: u64 = 1_000_000;

#[derive(Debug)]
struct Endless;

impl Policy for Endless {
    fn rule(&self, _: &mut Case<'_>) -> Verdict {
        loop {
            hint::spin_loop();
        }
    }
}

static LOCK: Mutex<u64> = Mutex::new(0);

fn faulting(_: usize) {
    let _held = LOCK.lock();
    deaths::invalid_opcode();
}

fn run(stage: &mut Stage) {
    let keeper = keeping::register(KeeperId::ROOT, &policy::Exit, PATIENCE);
    let Ok(keeper) = keeper else { return stage.check("there is room for a keeper", false) };
    let spawn = Spawn::new("faulting", faulting).keeper(keeper).policy(&Endless);
    let task = spawn.start().expect("room for a task");
    let (of_task, of_keeper) = stage.two_reports(task);
    let overdue = of_keeper.as_ref().map(|it| (it.fault.kind, it.verdict));
    stage.check(
        "the keeper was overdue, and is restarted",
        overdue == Some((FaultKind::Overdue, Some(Verdict::Restart))),
    );
    let waited = of_keeper.as_ref().map_or(0, |it| it.stopped_at);
    let since = of_task.as_ref().map_or(u64::MAX, |it| it.stopped_at);
    stage.check("but not before its time was up", waited.saturating_sub(since) >= PATIENCE);
    stage.check(
        "the root ruled on the task",
        of_task.as_ref().is_some_and(|it| it.keepers[..] == [keeper, KeeperId::ROOT]),
    );
    let told = matches!(LOCK.lock(), Err(LockError::OwnerDied(_)));
    stage.check("its lock is free, and the next owner told", told);
}
