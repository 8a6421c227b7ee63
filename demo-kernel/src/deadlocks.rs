//! Looks for deadlocks now and then, and ends one task of each that it finds.

use drop_registry::{Deadlock, WaitForGraph};
use heapless::Vec;
use log::warn;
use spin::Once;
use task_model::{FaultInfo, FaultKind, TaskId};

use crate::interrupts::without_interrupts;
use crate::keeping;
use crate::tasks::{self, Class, Spawn};
use crate::tracked::Mutex;

/// How many ticks lie between two looks.
const PERIOD: u64 = 10;

/// Chooses, of the tasks of a deadlock, the one that is to end.
pub(crate) type ChooseVictim = fn(&[TaskId]) -> Option<TaskId>;

/// A deadlock, and what was done about it.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    /// Its tasks: each waits for the next, and the last one for the first.
    pub(crate) tasks: Vec<TaskId, { tasks::CAPACITY }>,
    pub(crate) victim: Option<TaskId>,
}

static CHOOSE: Once<ChooseVictim> = Once::new();
/// The last one, until somebody asks for it.
static FOUND: Mutex<Option<Found>> = Mutex::new(None);

/// Starts the task that looks.
///
/// # Panics
/// If there is no room for it.
pub(crate) fn watch(choose: ChooseVictim) {
    CHOOSE.call_once(|| choose);
    // Urgent: however many spin, they do not hold it up.
    Spawn::new("deadlocks", look_now_and_then).class(Class::Urgent).start().expect("room to look");
}

/// The youngest: of the tasks that were spawned in order, the last.
pub(crate) fn youngest(tasks: &[TaskId]) -> Option<TaskId> {
    tasks.iter().max_by_key(|task| task.index).copied()
}

/// The last deadlock that was found, if nobody has asked for it before.
pub(crate) fn last_found() -> Option<Found> {
    FOUND.lock().ok()?.take()
}

fn look_now_and_then(_: usize) {
    let Some(choose) = CHOOSE.get() else { return };
    loop {
        if let Some(mut deadlock) = look() {
            deadlock.victim = choose(&deadlock.tasks);
            if let Some(victim) = deadlock.victim {
                warn!("task {victim} is to end, so that the others can go on");
                // It cannot have gone on meanwhile: it waits for the others.
                let stopped =
                    keeping::fault(victim, |rip| FaultInfo::metered(FaultKind::Deadlocked, rip));
                deadlock.victim = stopped.is_ok().then_some(victim);
            }
            if let Ok(mut found) = FOUND.lock() {
                *found = Some(deadlock);
            }
        }
        tasks::sleep_ticks(PERIOD);
    }
}

/// One deadlock, if there is any.
///
/// With interrupts off on the only CPU no task runs meanwhile, so what is found is one for certain.
fn look() -> Option<Found> {
    without_interrupts(|| {
        let graph =
            WaitForGraph::<{ tasks::CAPACITY }>::new(tasks::ledgers(), keeping::domain()).ok()?;
        let deadlock = graph.deadlocks().next()?;
        log_lines(&deadlock);
        Some(Found { tasks: deadlock.tasks().collect(), victim: None })
    })
}

/// One line for each of its waits.
fn log_lines(deadlock: &Deadlock<'_, '_>) {
    for (n, wait) in deadlock.waits().enumerate() {
        warn!("{}{wait}", if n == 0 { "deadlock: " } else { "          " });
    }
}
