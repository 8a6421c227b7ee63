//! The children of the scenarios with supervisors: each has a lock of its own, counts its lives,
//! and dies when it is asked to.

use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use drop_registry::LockError;
use keeper::Verdict;
use keeper::supervisor::{ChildKind, Supervisor};
use task_model::TaskId;

use crate::scenarios::{Stage, deaths};
use crate::tasks::{self, Spawn};
use crate::tracked::Mutex;

/// What supervisors are told a second is, in ticks of the platform's time: a hundredth of a real
/// one.
pub(super) const SECOND: u64 = 10_000_000;

/// A child, which tells itself apart by its number.
struct Child {
    /// It holds this for as long as it lives.
    lock: Mutex<u64>,
    lives: AtomicU64,
    /// How often it was told that the last owner died: that was itself.
    told: AtomicU64,
}

const COUNT: usize = 4;

static CHILDREN: [Child; COUNT] =
    [const { Child { lock: Mutex::new(0), lives: AtomicU64::new(0), told: AtomicU64::new(0) } };
        COUNT];

/// Who is to die next; `COUNT` for nobody.
static VICTIM: AtomicUsize = AtomicUsize::new(COUNT);

fn live(number: usize) {
    let Child { lock, lives, told } = &CHILDREN[number];
    let mut lives_of_lock = match lock.lock() {
        Ok(held) => held,
        Err(LockError::OwnerDied(died)) => {
            told.fetch_add(1, Ordering::Relaxed);
            died.mark_consistent()
        }
        Err(_) => return,
    };
    *lives_of_lock += 1;
    // Release pairs with the Acquire in `lives`: it has its lock.
    lives.fetch_add(1, Ordering::Release);
    loop {
        let chosen = VICTIM.compare_exchange(number, COUNT, Ordering::Relaxed, Ordering::Relaxed);
        if chosen.is_ok() {
            deaths::page_fault();
        }
        tasks::sleep_ticks(1);
    }
}

/// Starts the child of this number.
pub(super) fn start(supervisor: &'static Supervisor, number: usize) -> TaskId {
    let child =
        Spawn::new("child", live).argument(number).child_of(supervisor, ChildKind::Permanent);
    child.start().expect("room for a child")
}

/// How often each has begun.
pub(super) fn lives() -> [u64; COUNT] {
    // Acquire: see `live`.
    CHILDREN.each_ref().map(|child| child.lives.load(Ordering::Acquire))
}

/// Waits until each of the first children has begun so often.
pub(super) fn wait_for_lives(stage: &mut Stage, wanted: &[u64]) {
    let claim = format_args!("the children have begun {wanted:?} times");
    stage.wait_for(claim, || lives()[..wanted.len()] == *wanted);
}

/// Has a child die, and waits for the reports on it and on whoever ends with it. Claims that each
/// was `ended` like that, in this order.
pub(super) fn end(stage: &mut Stage, victim: usize, tasks: &[TaskId], verdict: Verdict) {
    VICTIM.store(victim, Ordering::Relaxed);
    let ends = stage.reports::<COUNT>(tasks.len());
    let what = |(task, verdict): &(TaskId, Option<Verdict>)| (*task, *verdict);
    let in_order = ends.iter().map(what).eq(tasks.iter().map(|task| (*task, Some(verdict))));
    stage.check(format_args!("{verdict} is ruled on {tasks:?}, in this order"), in_order);
}

/// Claims that each lock was given up as often as its owner died, and that its next owner was told.
pub(super) fn check_locks(stage: &mut Stage, deaths: &[u64]) {
    let told = CHILDREN.each_ref().map(|child| child.told.load(Ordering::Relaxed));
    stage.check("each new life was told of the death before it", told[..deaths.len()] == *deaths);
    let held = CHILDREN[..deaths.len()].iter().all(|child| child.lock.is_locked());
    stage.check("and holds its lock again", held);
}

/// Whether the child's lock is free, and whoever takes it is told that its owner died.
pub(super) fn lock_tells(number: usize) -> bool {
    matches!(CHILDREN[number].lock.lock(), Err(LockError::OwnerDied(_)))
}

/// Claims that these are gone: their ids are stale.
pub(super) fn check_gone(stage: &mut Stage, tasks: &[TaskId]) {
    let gone = tasks.iter().all(|task| tasks::state(*task).is_err());
    stage.check("the old ids are refused", gone);
}
