//! Tasks that wait for the end of others, and one that dies with another.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use drop_registry::LockError;
use keeper::{End, PeerError, Verdict};
use task_model::{FaultKind, TaskId};

use crate::keeping;
use crate::scenarios::{Scenario, Stage, deaths};
use crate::tasks::{self, Spawn};
use crate::tracked::Mutex;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "peers",
    summary: "a task that waits for one that dies is told; one that is linked to it is killed with it",
    ..Scenario::kept(run)
};

static LOCKS: [Mutex<u64>; 2] = [const { Mutex::new(0) }; 2];
static HELD: AtomicU64 = AtomicU64::new(0);
static DIE: AtomicBool = AtomicBool::new(false);
static WATCHED: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];
/// What each join said: 1 for finished, 2 for died, 3 for refused.
static JOINED: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];

/// Holds the lock of its number. The first one dies when it is told to.
fn holding(number: usize) {
    let _held = LOCKS[number].lock();
    // Release pairs with the Acquire in `run`.
    HELD.fetch_add(1, Ordering::Release);
    loop {
        if number == 0 && DIE.load(Ordering::Relaxed) {
            deaths::page_fault();
        }
        tasks::sleep_ticks(1);
    }
}

fn finishing(_: usize) {
    while !DIE.load(Ordering::Relaxed) {
        tasks::sleep_ticks(1);
    }
}

/// Sleeps until the end of the task that is written down for its number.
fn joining(number: usize) {
    let task = TaskId::from_word(WATCHED[number].load(Ordering::Relaxed));
    let said = match keeping::join(task) {
        Ok(End::Finished) => 1,
        Ok(_) => 2,
        Err(_) => 3,
    };
    JOINED[number].store(said, Ordering::Release);
}

fn run(stage: &mut Stage) {
    let [victim, linked] = [0, 1].map(|number| stage.spawn_with("holding", holding, number));
    let finishing = stage.spawn("finishing", finishing);
    for (watched, task) in WATCHED.iter().zip([victim, finishing]) {
        watched.store(task.to_word(), Ordering::Relaxed);
    }
    let joiners = [0, 1].map(|number| {
        Spawn::new("joining", joining).argument(number).start().expect("room for a task")
    });
    let link = keeping::link(victim, linked);
    stage.check("two tasks are linked", link.is_ok());
    stage.wait_for("both hold their locks", || HELD.load(Ordering::Acquire) == 2);
    tasks::sleep_ticks(2);
    let none_yet = JOINED.iter().all(|said| said.load(Ordering::Acquire) == 0);
    stage.check("nobody is told before there is an end", none_yet);

    DIE.store(true, Ordering::Relaxed);
    let (own, other) = stage.two_reports(victim);
    let own = own.is_some_and(|it| it.verdict == Some(Verdict::Exit));
    let killed = other.is_some_and(|it| (it.task, it.fault.kind) == (linked, FaultKind::Killed));
    stage.check("the victim ends, and the task linked to it is killed", own && killed);
    joiners.into_iter().for_each(|task| stage.wait_for_end_of(task));
    let said = JOINED.each_ref().map(|said| said.load(Ordering::Acquire));
    stage.check("who waited is told: of a death, and of a task that finished", said == [2, 1]);
    let told = LOCKS.each_ref().map(|lock| matches!(lock.lock(), Err(LockError::OwnerDied(_))));
    stage.check("both locks are free, and their next owners told", told == [true, true]);

    // There is nothing to wait for.
    let late = keeping::join(victim);
    stage.check("who comes later is told at once", late == Ok(End::Died));
    let late = keeping::link(finishing, joiners[0]);
    let ended = Err(PeerError::Ended(finishing, End::Finished));
    stage.check("and cannot be linked to it", late == ended);
}
