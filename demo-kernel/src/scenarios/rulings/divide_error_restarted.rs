//! A task that dies in its first life and finishes in its second.

use core::sync::atomic::{AtomicU64, Ordering};

use drop_registry::LockError;
use keeper::{Verdict, policy};
use task_model::TaskId;

use crate::scenarios::{Scenario, Stage, deaths};
use crate::tasks::{self, TaskError};
use crate::tracked::Mutex;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "divide-error-restarted",
    summary: "the task dies, begins again under a new generation, and finishes; its old id is refused",
    ..Scenario::kept(run)
};

static PROGRESS: Mutex<u64> = Mutex::new(0);
static LIVES: AtomicU64 = AtomicU64::new(0);
static DONE: AtomicU64 = AtomicU64::new(0);

fn working(_: usize) {
    let life = LIVES.fetch_add(1, Ordering::Relaxed);
    let mut progress = match PROGRESS.lock() {
        Ok(progress) => progress,
        // What the first life left: a number, which cannot be torn.
        Err(LockError::OwnerDied(died)) => died.mark_consistent(),
        Err(_) => return,
    };
    *progress += 1;
    if life == 0 {
        deaths::divide_error();
    }
    *progress += 1;
    DONE.store(*progress, Ordering::Release);
    // Stays, so that the new id names a living task.
    drop(progress);
    tasks::park();
}

fn run(stage: &mut Stage) {
    let first = stage.spawn_under(&policy::Restart { at_most: 1 }, "working", working);
    let restarted = stage
        .report_on(first)
        .filter(|report| report.verdict == Some(Verdict::Restart))
        .and_then(|report| report.restarted_as);
    stage.check("the verdict is a restart", restarted.is_some());
    stage.wait_for("the second life finishes the work", || DONE.load(Ordering::Acquire) == 3);
    stage.check("there were two lives", LIVES.load(Ordering::Relaxed) == 2);
    let second = restarted.unwrap_or(TaskId::first(u32::MAX));
    stage.check("the slot is the same, the generation the next", second == first.next_generation());
    stage.check("the old id is refused", tasks::kill(first) == Err(TaskError::Stale));
    stage.check("the new one is not", tasks::unpark(second).is_ok());
    stage.wait_for_end_of(second);
    let value = PROGRESS.lock().map(|progress| *progress);
    stage.check("the lock is free, with the value of both lives", matches!(value, Ok(3)));
}
