//! What became of the victim and of what it held, seen from outside.

use std::sync::atomic::Ordering;

use drop_registry::{Shared, TrackedHeap};
use keeper::hosted::Current;
use task_model::TaskState;

use crate::world::{World, invalid_opcode};

/// What can be wrong, as bits.
pub(crate) mod found {
    /// Something is still held by the dead, or lost.
    pub(crate) const LEAKED: u8 = 1;
    /// Something was given up, or done, twice.
    pub(crate) const DOUBLED: u8 = 2;
    /// Something was taken from a living owner.
    pub(crate) const STOLEN: u8 = 4;
    /// Somebody waits for ever, or a case stays open.
    pub(crate) const STUCK: u8 = 8;
    /// Somebody was not told of a death, or told without one.
    pub(crate) const UNTOLD: u8 = 16;
    pub(crate) const NAMES: [(u8, &str); 5] = [
        (LEAKED, "leaked"),
        (DOUBLED, "doubled"),
        (STOLEN, "stolen"),
        (STUCK, "stuck"),
        (UNTOLD, "untold"),
    ];
}

/// How the victim ended, in the upper bits of what a child says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum End {
    Exited = 1,
    Restarted = 2,
    Held = 3,
    Resumed = 4,
}

const END: u32 = 5;

impl End {
    /// What a child has said of it.
    pub(crate) fn said(byte: u8) -> Option<Self> {
        [Self::Exited, Self::Restarted, Self::Held, Self::Resumed]
            .into_iter()
            .find(|end| *end as u8 == byte >> END)
    }
}

/// How many turns all of them are given to come to an end: a dozen would do.
const TURNS: usize = 60;

/// Lets everybody go on until nobody can, and looks. Returns what was found and how it ended.
pub(crate) fn audit(world: &'static World) -> u8 {
    let mut found = 0;
    let mut wrong = |what: u8, is: bool| found |= if is { what } else { 0 };
    let kernel = world.kernel;
    kernel.run_turns(TURNS);
    while world.answer() {
        kernel.run_turns(TURNS);
    }
    // Who has taken the lock meanwhile has it still.
    if world.snatched.load(Ordering::Relaxed) {
        wrong(found::STOLEN, !world.lock.is_locked());
        world.let_go.store(true, Ordering::Relaxed);
        kernel.run_turns(TURNS);
    }
    wrong(found::STUCK, kernel.keepers().open_cases() != 0);

    let victim = world.now(world.victim.get());
    let (lives, steps) = (world.lives.load(Ordering::Relaxed), world.steps.load(Ordering::Relaxed));
    let end = match (kernel.state(victim), lives, steps) {
        (TaskState::Held, 1, 0) => End::Held,
        (TaskState::Dead, 1 | 2, 1) => End::Resumed,
        (TaskState::Dead, 2, 0) => End::Restarted,
        (TaskState::Dead, 1, 0) => End::Exited,
        (_, lives, steps) => {
            wrong(found::DOUBLED, lives > 2 || steps > 1);
            wrong(found::STUCK, lives <= 2 && steps <= 1);
            End::Exited
        }
    };
    if end == End::Held {
        kernel.release(victim);
        kernel.run_turns(TURNS);
        wrong(found::STUCK, kernel.state(victim) != TaskState::Dead);
    }

    // The locks: whoever came first was told, and nobody since.
    kernel.spawn_once(|| {
        drop(world.try_lock());
        world.wait();
    });
    kernel.run_turns(TURNS);
    wrong(found::LEAKED, world.lock.is_locked());
    for told in [&world.lock_told, &world.awaited_told] {
        wrong(found::UNTOLD, told.load(Ordering::Relaxed) != 1);
    }
    wrong(found::STUCK, world.awaited.is_locked());
    wrong(found::LEAKED, world.semaphore.available() < 2);
    wrong(found::DOUBLED, world.semaphore.available() > 2);

    // The value is there as long as the last share, which is the slot's.
    wrong(found::DOUBLED, world.drops.load(Ordering::Relaxed) != 0);
    let share = world.slot.share().ok().flatten();
    let shares = share.as_ref().map_or(0, Shared::count);
    wrong(found::LEAKED, shares > 2);
    wrong(found::DOUBLED, shares < 2);
    drop(share);
    // That one block is what is left.
    wrong(found::LEAKED, Current::heap().bytes_taken() > world.bytes.get());
    wrong(found::DOUBLED, Current::heap().bytes_taken() < world.bytes.get());

    // The keepers serve again.
    let before = world.served.load(Ordering::Relaxed);
    let next = kernel.spawn_once(invalid_opcode);
    world.kept(next);
    kernel.run_turns(TURNS);
    wrong(found::STUCK, kernel.state(next) != TaskState::Dead);
    wrong(found::STUCK, world.served.load(Ordering::Relaxed) != before + 1);
    for keeper in [world.keeper.get(), world.parent.get()] {
        wrong(found::STUCK, kernel.state(world.now(keeper)) != TaskState::Ready);
    }
    wrong(found::STUCK, kernel.keepers().open_cases() != 0);
    found | (end as u8) << END
}
