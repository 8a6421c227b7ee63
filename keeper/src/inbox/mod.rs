//! What keepers are told, and by whom they can be told: by anybody, from anywhere.
#![expect(unsafe_code, reason = "a fault is written by who claimed its place")]

mod notice;
mod put_off;
mod serving;
#[cfg(test)]
mod tests;

use alloc::boxed::Box;
use core::cell::UnsafeCell;
use core::fmt;
use core::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

use task_model::{FaultInfo, TaskId};

use crate::KeeperId;
use crate::task_set::TaskSet;
pub use notice::PostError;
pub(crate) use notice::{Cause, Notice};
pub(crate) use serving::Taken;

/// For each task, a place for each thing that can be said of it; and for each keeper, a bit for
/// each task of which something was said.
///
/// It cannot overflow, since a task that has stopped does not fault again. And nobody who posts
/// waits for whoever reads, who may have died over it at any instruction: a notice is taken away
/// only when the case that it opened can be found again. (A queue whose reader dies between taking
/// an element and giving its place back makes writers wait for ever, a lap later.)
pub(crate) struct Inbox {
    places: Box<[Place]>,
    /// By keeper.
    trays: Box<[Tray]>,
    /// The tasks of which a kill is put off.
    put_off: TaskSet,
}

/// What there is for one keeper.
pub(crate) struct Tray {
    /// The tasks of which something is posted.
    ready: TaskSet,
    /// Where it looks first, so that it comes round to everybody.
    turn: AtomicU32,
}

/// What can be said of the tasks of one number.
pub(crate) struct Place {
    keeper: AtomicU8,
    /// The keeper that the task serves, if it also has that one's seat.
    serves: AtomicU8,
    /// What is posted, and above that the keeper that is at it, if one is: see [`posted::TAKERS`].
    posted: AtomicU32,
    /// How many faults there have been of tasks with this number.
    faults: AtomicU32,
    fault: Request,
    info: UnsafeCell<FaultInfo>,
    kill: Request,
    /// When a kill that the task may put off is due at the latest; `u64::MAX` if there is none.
    kill_by: AtomicU64,
    release: Request,
}

/// That something was said of one life of a task.
struct Request {
    generation: AtomicU32,
    at: AtomicU64,
}

/// What stands for no keeper.
const NOBODY: u8 = u8::MAX;

/// Bits of [`Place::posted`].
mod posted {
    /// Somebody writes the fault.
    pub(super) const CLAIMED: u32 = 1;
    pub(super) const FAULT: u32 = 2;
    pub(super) const KILL: u32 = 4;
    pub(super) const RELEASE: u32 = 8;
    /// What there is to be served.
    pub(super) const ANY: u32 = FAULT | KILL | RELEASE;
    /// The keeper that serves what is posted, plus one. Two may be told of it, since a keeper that
    /// has just sat down is told of what was posted to the one above it; but one serves it.
    pub(super) const TAKERS: u32 = !0 << TAKER;

    pub(super) const TAKER: u32 = 8;
}

/// A keeper, as a place says that it has taken it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Taker(u32);

impl Taker {
    pub(crate) const fn new(keeper: KeeperId) -> Self {
        Self((keeper.number() as u32 + 1) << posted::TAKER)
    }
}

// SAFETY: `info` is written by whoever set `CLAIMED`, before `FAULT`. It is read while `FAULT` is
// set, by the keeper that has taken the place, and only that one clears both, when it has done. The
// rest are atomics.
unsafe impl Sync for Inbox {}

impl Inbox {
    /// What a task takes here, besides a bit for each keeper.
    pub(crate) const BYTES_PER_TASK: usize = size_of::<Place>();

    pub(crate) fn new(tasks: usize, keepers: usize) -> Self {
        let place = |_| Place {
            keeper: AtomicU8::new(KeeperId::ROOT.number()),
            serves: AtomicU8::new(NOBODY),
            posted: AtomicU32::new(0),
            faults: AtomicU32::new(0),
            fault: Request::none(),
            info: UnsafeCell::new(FaultInfo::killed(0)),
            kill: Request::none(),
            kill_by: AtomicU64::new(u64::MAX),
            release: Request::none(),
        };
        Self {
            places: (0..tasks).map(place).collect(),
            trays: (0..keepers)
                .map(|_| Tray { ready: TaskSet::new(tasks), turn: AtomicU32::new(0) })
                .collect(),
            put_off: TaskSet::new(tasks),
        }
    }

    #[inline]
    pub(crate) fn place(&self, task: TaskId) -> Option<&Place> {
        self.places.get(task.index as usize)
    }

    /// Notes that the task is about to take a keeper's seat.
    pub(crate) fn set_serves(&self, task: TaskId, keeper: KeeperId) {
        if let Some(place) = self.place(task) {
            // Relaxed: the seat decides.
            place.serves.store(keeper.number(), Ordering::Relaxed);
        }
    }

    pub(crate) fn set_keeper_of(&self, task: TaskId, keeper: KeeperId) {
        if let Some(place) = self.place(task) {
            place.keeper.store(keeper.number(), Ordering::Relaxed);
        }
    }

    /// Posts a fault of `task`, whose place this is.
    #[inline]
    pub(crate) fn post(
        &self,
        place: &Place,
        task: TaskId,
        fault: FaultInfo,
        at: u64,
        keeper: KeeperId,
    ) -> Result<(), PostError> {
        // Acquire pairs with the Release in `done`: the last fault has been read to its end.
        let before = place.posted.fetch_or(posted::CLAIMED, Ordering::Acquire);
        if before & posted::CLAIMED != 0 {
            return Err(PostError::AlreadyPosted(task));
        }
        // Relaxed: seen with the bit that is set below.
        place.faults.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the claim is ours: see `Sync`.
        unsafe { *place.info.get() = fault };
        place.fault.set(task.generation, at);
        self.announce(place, task.index, posted::FAULT, keeper);
        Ok(())
    }

    /// Posts that somebody wants the task killed, or its corpse released.
    pub(crate) fn ask(
        &self,
        task: TaskId,
        cause: Cause,
        at: u64,
        keeper: KeeperId,
    ) -> Result<(), PostError> {
        let place = self.place(task).ok_or(PostError::NoSuchTask(task))?;
        let (bit, request) = match cause {
            Cause::Release => (posted::RELEASE, &place.release),
            _ => (posted::KILL, &place.kill),
        };
        request.note(task.generation, at, place.posted.load(Ordering::Acquire) & bit != 0);
        self.announce(place, task.index, bit, keeper);
        Ok(())
    }

    #[inline]
    fn announce(&self, place: &Place, index: u32, bit: u32, keeper: KeeperId) {
        // Release pairs with the Acquire in `take`: what was written is seen with the bit.
        place.posted.fetch_or(bit, Ordering::Release);
        self.make_ready(index, keeper);
    }

    #[inline]
    fn make_ready(&self, index: u32, keeper: KeeperId) {
        if let Some(tray) = self.tray(keeper) {
            // Whoever finds it in finds the notice.
            tray.ready.insert(index);
        }
    }

    #[inline]
    pub(crate) fn tray(&self, keeper: KeeperId) -> Option<&Tray> {
        self.trays.get(usize::from(keeper.number()))
    }
}

impl Place {
    /// The keeper whose seat the task last was about to take.
    #[inline]
    pub(crate) fn serves(&self) -> Option<KeeperId> {
        let number = self.serves.load(Ordering::Relaxed);
        (number != NOBODY).then(|| KeeperId::from_number(number))
    }

    /// The keeper that was named for the tasks of this number.
    #[inline]
    pub(crate) fn keeper(&self) -> KeeperId {
        // Relaxed: a number.
        KeeperId::from_number(self.keeper.load(Ordering::Relaxed))
    }
}

impl Request {
    const fn none() -> Self {
        Self { generation: AtomicU32::new(0), at: AtomicU64::new(0) }
    }

    /// Writes down which life is meant. If another one is asked for already, the later stays.
    fn note(&self, generation: u32, at: u64, pending: bool) {
        let noted = self.generation.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |other| {
            let later = generation.wrapping_sub(other).cast_signed() > 0;
            (!pending || later).then_some(generation)
        });
        if noted.is_ok() {
            self.at.store(at, Ordering::Relaxed);
        }
    }

    /// Writes it down for the only one that can be meant.
    #[inline]
    fn set(&self, generation: u32, at: u64) {
        self.generation.store(generation, Ordering::Relaxed);
        self.at.store(at, Ordering::Relaxed);
    }
}

impl fmt::Debug for Inbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbox").field("tasks", &self.places.len()).finish_non_exhaustive()
    }
}
