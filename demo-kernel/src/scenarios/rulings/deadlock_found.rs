//! Three tasks that lock in a circle.

use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use drop_registry::LockError;
use task_model::FaultKind;

use crate::scenarios::{Scenario, Stage};
use crate::tracked::Mutex;
use crate::{deadlocks, tasks};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "deadlock-found",
    summary: "three tasks lock in a circle; the deadlock is found, and the end of one frees two",
    ..Scenario::kept(run)
};

const COUNT: usize = 3;

static LOCKS: [Mutex<usize>; COUNT] = [const { Mutex::new(0) }; COUNT];
static HOLDING: AtomicUsize = AtomicUsize::new(0);
/// Which tasks may go for their second lock.
static MAY_GO_ON: [AtomicBool; COUNT] = [const { AtomicBool::new(false) }; COUNT];
static DONE: [AtomicBool; COUNT] = [const { AtomicBool::new(false) }; COUNT];
/// Which task was told that its second lock's owner died.
static TOLD: [AtomicBool; COUNT] = [const { AtomicBool::new(false) }; COUNT];

/// Takes one lock, and then the next one's.
fn philosopher(number: usize) {
    let Ok(mut own) = LOCKS[number].lock() else { return };
    *own += 1;
    HOLDING.fetch_add(1, Ordering::Relaxed);
    while !MAY_GO_ON[number].load(Ordering::Relaxed) {
        tasks::sleep_ticks(1);
    }
    match LOCKS[(number + 1) % COUNT].lock() {
        Ok(mut next) => *next += 10,
        Err(LockError::OwnerDied(died)) => {
            TOLD[number].store(true, Ordering::Relaxed);
            *died.mark_consistent() += 10;
        }
        Err(_) => return,
    }
    DONE[number].store(true, Ordering::Relaxed);
}

fn run(stage: &mut Stage) {
    deadlocks::watch(deadlocks::youngest);
    let philosophers = [0, 1, 2].map(|number| stage.spawn_with("philosopher", philosopher, number));
    stage.wait_for("each holds its lock", || HOLDING.load(Ordering::Relaxed) == COUNT);

    // 0 waits for 1, which waits for 2, which does not wait: a chain, and no circle.
    MAY_GO_ON[0].store(true, Ordering::Relaxed);
    MAY_GO_ON[1].store(true, Ordering::Relaxed);
    tasks::sleep_ticks(30);
    stage.check("a chain is not taken for a deadlock", deadlocks::last_found().is_none());
    stage.check("nobody has gone on", !DONE.iter().any(|done| done.load(Ordering::Relaxed)));

    MAY_GO_ON[2].store(true, Ordering::Relaxed);
    let mut found = None;
    stage.wait_for("the deadlock is found", || {
        found = found.take().or_else(deadlocks::last_found);
        found.is_some()
    });
    let (circle, victim) = found.map_or_else(Default::default, |found| (found.tasks, found.victim));
    stage.check("it is of the three, in order", circle[..] == philosophers);
    stage.check("the youngest is to end", victim == Some(philosophers[2]));

    let report = stage.report_on(philosophers[2]);
    let (kind, held) = report.map_or((None, None), |report| {
        (Some(report.fault.kind), report.resources.first().map(|lock| lock.address))
    });
    stage.check("that was its fault", kind == Some(FaultKind::Deadlocked));
    let third = (&raw const LOCKS[2]).addr() as u64;
    stage.check("it held its own lock, while it waited for the first", held == Some(third));
    for philosopher in &philosophers[..2] {
        stage.wait_for_end_of(*philosopher);
    }

    let flags = |of: &[AtomicBool; COUNT]| of.each_ref().map(|it| it.load(Ordering::Relaxed));
    stage.check("the two others got both locks", flags(&DONE) == [true, true, false]);
    stage.check(
        "the one that waited for the dead one was told, and nobody else",
        flags(&TOLD) == [false, true, false],
    );
    let values = LOCKS.each_ref().map(|lock| lock.try_lock().map_or(0, |value| *value));
    stage.check("all locks are free, with what each wrote", values == [1, 11, 11]);
    stage.check("and there was no other deadlock", deadlocks::last_found().is_none());
}
