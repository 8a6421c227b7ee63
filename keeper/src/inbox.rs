//! What keepers are told, and by whom they can be told: by anybody, from anywhere.
#![expect(unsafe_code, reason = "a fault is written by who claimed its place")]

use alloc::boxed::Box;
use core::cell::UnsafeCell;
use core::fmt;
use core::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

use task_model::{FaultInfo, TaskId};

use crate::chain::KeeperId;

/// Why a task comes before its keeper.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// It has stopped at a [fault](Inbox::fault), and is frozen.
    Fault,
    /// Somebody wants it to end. It may be running still.
    Kill,
    /// It was held, and its corpse is no longer needed.
    Release,
}

/// One message to a keeper.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Notice {
    pub(crate) task: TaskId,
    pub(crate) cause: Cause,
    /// When it was posted, in the platform's ticks.
    pub(crate) at: u64,
}

/// Why a notice was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PostError {
    /// The task's number is beyond what there was to be room for.
    NoSuchTask(TaskId),
    /// A fault of this task was posted before, and its keeper has not come to it: the first record
    /// stays.
    AlreadyPosted(TaskId),
    /// The task serves the root keeper, which nobody keeps: the kernel cannot go on.
    NobodyKeeps(TaskId),
}

impl fmt::Display for PostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchTask(task) => write!(f, "there is no room for a task with the id {task}"),
            Self::AlreadyPosted(task) => write!(f, "a fault of task {task} waits for its keeper"),
            Self::NobodyKeeps(task) => write!(f, "nobody keeps the root keeper's task, {task}"),
        }
    }
}

impl core::error::Error for PostError {}

/// For each task, a place for each thing that can be said of it; and for each keeper, a bit for each
/// task of which something was said.
///
/// It cannot overflow, since a task that has stopped does not fault again. And nobody who posts
/// waits for whoever reads, who may have died over it at any instruction: a notice is taken away only
/// when the case that it opened can be found again. (A queue whose reader dies between taking an
/// element and giving its place back makes writers wait for ever, a lap later.)
pub(crate) struct Inbox {
    places: Box<[Place]>,
    /// By keeper, then by task.
    ready: Box<[Box<[AtomicU64]>]>,
    /// The tasks of which a kill is put off.
    put_off: Box<[AtomicU64]>,
    /// Where each keeper looks first, so that it comes round to everybody.
    turns: Box<[AtomicU32]>,
}

struct Place {
    keeper: AtomicU8,
    /// The keeper that the task serves, if it also has that one's seat.
    serves: AtomicU8,
    /// What is posted, and above that the keeper that is at it, if one is: see [`posted::TAKER`].
    posted: AtomicU16,
    /// How many faults there have been of tasks with this number.
    faults: AtomicU32,
    fault: UnsafeCell<Fault>,
    kill: Request,
    /// When a kill that the task may put off is due at the latest; `u64::MAX` if there is none.
    kill_by: AtomicU64,
    release: Request,
}

struct Fault {
    generation: u32,
    at: u64,
    info: FaultInfo,
}

/// That somebody wants something of one life of a task.
struct Request {
    generation: AtomicU32,
    at: AtomicU64,
}

/// What stands for no keeper.
const NOBODY: u8 = u8::MAX;

/// Bits of [`Place::posted`].
mod posted {
    /// Somebody writes the fault.
    pub(super) const CLAIMED: u16 = 1;
    pub(super) const FAULT: u16 = 2;
    pub(super) const KILL: u16 = 4;
    pub(super) const RELEASE: u16 = 8;
    /// What there is to be served.
    pub(super) const ANY: u16 = FAULT | KILL | RELEASE;
    /// The keeper that serves what is posted, plus one. Two may be told of it, since a keeper that has
    /// just sat down is told of what was posted to the one above it; but one serves it.
    pub(super) const TAKER: u32 = 8;

    pub(super) const fn taken_by(keeper: crate::KeeperId) -> u16 {
        (keeper.number() as u16 + 1) << TAKER
    }
}

// SAFETY: `fault` is written by whoever set `CLAIMED`, before `FAULT`; it is read while that is set,
// and nobody writes before both are cleared again.
unsafe impl Sync for Inbox {}

impl Inbox {
    /// What a task takes here, besides a bit for each keeper.
    pub(crate) const BYTES_PER_TASK: usize = size_of::<Place>();

    pub(crate) fn new(tasks: usize, keepers: usize) -> Self {
        let words = |_| (0..tasks.div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        let place = |_| Place {
            keeper: AtomicU8::new(KeeperId::ROOT.number()),
            serves: AtomicU8::new(NOBODY),
            posted: AtomicU16::new(0),
            faults: AtomicU32::new(0),
            fault: UnsafeCell::new(Fault { generation: 0, at: 0, info: FaultInfo::killed(0) }),
            kill: Request::none(),
            kill_by: AtomicU64::new(u64::MAX),
            release: Request::none(),
        };
        Self {
            places: (0..tasks).map(place).collect(),
            ready: (0..keepers).map(words).collect(),
            put_off: words(0),
            turns: (0..keepers).map(|_| AtomicU32::new(0)).collect(),
        }
    }

    #[inline]
    fn place(&self, task: TaskId) -> Option<&Place> {
        self.places.get(task.index as usize)
    }

    /// Notes that the task is about to take a keeper's seat.
    pub(crate) fn set_serves(&self, task: TaskId, keeper: KeeperId) {
        if let Some(place) = self.place(task) {
            // Relaxed: the seat decides.
            place.serves.store(keeper.number(), Ordering::Relaxed);
        }
    }

    /// The keeper whose seat the task last was about to take.
    #[inline]
    pub(crate) fn serves(&self, task: TaskId) -> Option<KeeperId> {
        let number = self.place(task)?.serves.load(Ordering::Relaxed);
        (number != NOBODY).then(|| KeeperId::from_number(number))
    }

    /// The keeper that was named for the tasks of this number; `None` if there is no room for one.
    #[inline]
    pub(crate) fn keeper_of(&self, task: TaskId) -> Option<KeeperId> {
        // Relaxed: a number.
        Some(KeeperId::from_number(self.place(task)?.keeper.load(Ordering::Relaxed)))
    }

    pub(crate) fn set_keeper_of(&self, task: TaskId, keeper: KeeperId) {
        if let Some(place) = self.place(task) {
            place.keeper.store(keeper.number(), Ordering::Relaxed);
        }
    }

    /// Posts a fault.
    pub(crate) fn post(
        &self,
        task: TaskId,
        fault: FaultInfo,
        at: u64,
        keeper: KeeperId,
    ) -> Result<(), PostError> {
        let place = self.place(task).ok_or(PostError::NoSuchTask(task))?;
        // Acquire pairs with the Release in `done`: the last fault has been read to its end.
        let before = place.posted.fetch_or(posted::CLAIMED, Ordering::Acquire);
        if before & posted::CLAIMED != 0 {
            return Err(PostError::AlreadyPosted(task));
        }
        // Relaxed: seen with the bit that is set below.
        place.faults.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the claim is ours: see `Sync`.
        unsafe { *place.fault.get() = Fault { generation: task.generation, at, info: fault } };
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
    fn announce(&self, place: &Place, index: u32, bit: u16, keeper: KeeperId) {
        // Release pairs with the Acquire in `notice_at`: what was written is seen with the bit.
        place.posted.fetch_or(bit, Ordering::Release);
        self.make_ready(index, keeper);
    }

    #[inline]
    fn make_ready(&self, index: u32, keeper: KeeperId) {
        let (word, bit) = (index as usize / 64, 1 << (index % 64));
        if let Some(word) = self.ready_of(keeper).get(word) {
            // Release pairs with the Acquire in `next`: whoever finds the bit finds the notice.
            word.fetch_or(bit, Ordering::Release);
        }
    }

    fn ready_of(&self, keeper: KeeperId) -> &[AtomicU64] {
        self.ready.get(usize::from(keeper.number())).map_or(&[], |words| words)
    }

    /// What `keeper` is to serve next. It stays posted until it is [done](Self::done).
    pub(crate) fn next(&self, keeper: KeeperId) -> Option<Notice> {
        let words = self.ready_of(keeper);
        let turn = self.turns.get(usize::from(keeper.number()))?;
        let next = turn.load(Ordering::Relaxed);
        let (first, below) = (next as usize / 64, (1_u64 << (next % 64)) - 1);
        // From the turn's bit to the end, then from the beginning on: its word comes twice.
        let (mut at, mut round) = (first, 0);
        loop {
            let word = words.get(at)?;
            let mask = match round {
                0 => !below,
                _ if round == words.len() => below,
                _ => u64::MAX,
            };
            // Acquire: see `make_ready`.
            let all = word.load(Ordering::Acquire);
            let ready = all & mask;
            if ready == 0 {
                if round == words.len() || words.len() == 1 && all == 0 {
                    return None;
                }
                round += 1;
                at = if at + 1 == words.len() { 0 } else { at + 1 };
                continue;
            }
            let bit = ready.trailing_zeros();
            let index = at as u32 * 64 + bit;
            if !self.take(index, keeper) {
                // Who is at it looks for more of this task afterwards.
                word.fetch_and(!(1 << bit), Ordering::AcqRel);
                continue;
            }
            if let Some(notice) = self.notice_at(index) {
                let last = index as usize + 1 >= self.places.len();
                turn.store(if last { 0 } else { index + 1 }, Ordering::Relaxed);
                return Some(notice);
            }
            self.abandon_at(index, keeper);
            self.make_unready(index, keeper);
        }
    }

    /// Sees to it that nobody but `keeper` serves what is posted of this task; `false` if somebody else
    /// does already.
    #[inline]
    fn take(&self, index: u32, keeper: KeeperId) -> bool {
        let Some(place) = self.places.get(index as usize) else { return true };
        let mine = posted::taken_by(keeper);
        let taken = place.posted.fetch_update(Ordering::AcqRel, Ordering::Acquire, |bits| {
            let taker = bits & !0 << posted::TAKER;
            (taker == 0).then_some(bits | mine)
        });
        taken.is_ok() || taken.is_err_and(|bits| bits & !0 << posted::TAKER == mine)
    }

    /// `keeper` serves no more of what is posted of this task.
    fn abandon_at(&self, index: u32, keeper: KeeperId) {
        if let Some(place) = self.places.get(index as usize) {
            let _ = place.posted.fetch_update(Ordering::AcqRel, Ordering::Acquire, |bits| {
                let taker = bits & !0 << posted::TAKER;
                (taker == posted::taken_by(keeper)).then_some(bits & !taker)
            });
        }
    }

    /// `keeper`, which leaves its seat, serves no more of what is posted.
    pub(crate) fn abandon_all(&self, keeper: KeeperId) {
        (0..self.places.len() as u32).for_each(|index| self.abandon_at(index, keeper));
    }

    #[inline]
    fn notice_at(&self, index: u32) -> Option<Notice> {
        let place = self.places.get(index as usize)?;
        let bits = place.posted.load(Ordering::Acquire) & posted::ANY;
        // A corpse is let go of before anything else is done to it, and of a task that faulted and
        // is to be killed the fault is what happened first.
        if bits & posted::FAULT != 0 {
            // SAFETY: see `Sync`: it is written, and stays until `done`.
            let fault = unsafe { &*place.fault.get() };
            let task = TaskId { index, generation: fault.generation };
            return Some(Notice { task, cause: Cause::Fault, at: fault.at });
        }
        let (cause, request) = match bits {
            0 => return None,
            bits if bits & posted::RELEASE != 0 => (Cause::Release, &place.release),
            _ => (Cause::Kill, &place.kill),
        };
        let task = TaskId { index, generation: request.generation.load(Ordering::Relaxed) };
        Some(Notice { task, cause, at: request.at.load(Ordering::Relaxed) })
    }

    /// The fault that was posted of this task, until that is done.
    #[inline]
    pub(crate) fn fault(&self, task: TaskId) -> Option<&FaultInfo> {
        let place = self.place(task)?;
        let posted = place.posted.load(Ordering::Acquire) & posted::FAULT != 0;
        // SAFETY: see `Sync`; the reference is used by the keeper that will say that it is done.
        posted.then(|| unsafe { &(*place.fault.get()).info })
    }

    /// Whether a fault of this life of the task is posted.
    pub(crate) fn has_fault(&self, task: TaskId) -> bool {
        self.notice_at(task.index).is_some_and(|it| it.task == task && it.cause == Cause::Fault)
    }

    /// How many faults have been posted of tasks with this number: if there are more than there were,
    /// it has gone on in between.
    #[inline]
    pub(crate) fn faults(&self, task: TaskId) -> u32 {
        self.place(task).map_or(0, |place| place.faults.load(Ordering::Relaxed))
    }

    /// Takes a notice away that `keeper` was told of, once the case that it has opened can be found
    /// again.
    #[inline]
    pub(crate) fn done(&self, task: TaskId, cause: Cause, keeper: KeeperId) {
        let Some(place) = self.place(task) else { return };
        let bits = match cause {
            Cause::Fault => posted::FAULT | posted::CLAIMED,
            Cause::Kill => posted::KILL,
            Cause::Release => posted::RELEASE,
        };
        // Release: see `post`.
        let taker = !0 << posted::TAKER;
        let before = place.posted.fetch_and(!(bits | taker), Ordering::AcqRel);
        if before & !bits & posted::ANY == 0 {
            self.make_unready(task.index, keeper);
        }
    }

    /// Puts a kill off until the task allows it, or it is time. An earlier time stays.
    pub(crate) fn put_off_kill(&self, task: TaskId, at: u64, by: u64) {
        let Some(place) = self.place(task) else { return };
        let pending = place.kill_by.load(Ordering::Relaxed) != u64::MAX;
        place.kill.note(task.generation, at, pending);
        place.kill_by.fetch_min(by, Ordering::Relaxed);
        if let Some(word) = self.put_off.get(task.index as usize / 64) {
            // Release pairs with the Acquire in `due_kills`.
            word.fetch_or(1 << (task.index % 64), Ordering::Release);
        }
    }

    /// When a kill of the task that was put off is due.
    pub(crate) fn kill_due(&self, task: TaskId) -> Option<u64> {
        let place = self.place(task)?;
        let by = place.kill_by.load(Ordering::Relaxed);
        // Of an earlier life it says nothing.
        let same = place.kill.generation.load(Ordering::Relaxed) == task.generation;
        (same && by != u64::MAX).then_some(by)
    }

    /// Forgets a kill that was put off: the task is gone, or has stopped.
    pub(crate) fn kill_is_over(&self, task: TaskId) {
        let (Some(place), Some(word)) =
            (self.place(task), self.put_off.get(task.index as usize / 64))
        else {
            return;
        };
        if place.kill.generation.load(Ordering::Relaxed) != task.generation {
            return;
        }
        word.fetch_and(!(1 << (task.index % 64)), Ordering::Relaxed);
        place.kill_by.store(u64::MAX, Ordering::Relaxed);
    }

    /// The tasks whose kills were put off until now at the latest.
    pub(crate) fn due_kills(&self, now: u64) -> impl Iterator<Item = TaskId> {
        self.put_off.iter().enumerate().flat_map(move |(number, word)| {
            let mut bits = word.load(Ordering::Acquire);
            core::iter::from_fn(move || {
                let bit = (bits != 0).then(|| bits.trailing_zeros())?;
                bits &= bits - 1;
                let index = number as u32 * 64 + bit;
                let place = self.places.get(index as usize)?;
                let due = now >= place.kill_by.load(Ordering::Relaxed);
                let generation = place.kill.generation.load(Ordering::Relaxed);
                Some(due.then_some(TaskId { index, generation }))
            })
            .flatten()
        })
    }

    /// Takes back a kill that no keeper has come to.
    pub(crate) fn withdraw_kill(&self, task: TaskId) {
        if let Some(place) = self.place(task) {
            place.posted.fetch_and(!posted::KILL, Ordering::AcqRel);
        }
    }

    /// Takes the bit away of a task of which nothing is posted.
    #[inline]
    fn make_unready(&self, index: u32, keeper: KeeperId) {
        if let Some(word) = self.ready_of(keeper).get(index as usize / 64) {
            word.fetch_and(!(1 << (index % 64)), Ordering::AcqRel);
        }
        // What was posted since it was looked at announces itself, if not before the bit was taken
        // away.
        let bits = self.places.get(index as usize).map(|it| it.posted.load(Ordering::Acquire));
        if bits.is_some_and(|bits| bits & posted::ANY != 0) {
            self.make_ready(index, keeper);
        }
    }

    /// Announces again what is posted, to whom `whose` says, and returns to whom, a bit for each: where
    /// a keeper may have died over its bits.
    pub(crate) fn announce_all(&self, whose: impl Fn(TaskId) -> Option<KeeperId>) -> u32 {
        let mut told = 0;
        for index in 0..self.places.len() as u32 {
            let notice = self.notice_at(index);
            if let Some(keeper) = notice.and_then(|notice| whose(notice.task)) {
                self.make_ready(index, keeper);
                told |= 1 << keeper.number();
            }
        }
        told
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
}

impl fmt::Debug for Inbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbox").field("tasks", &self.places.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: KeeperId = KeeperId::ROOT;

    #[test]
    fn a_notice_stays_until_it_is_done() {
        let inbox = Inbox::new(100, 1);
        let task = TaskId::first(70);
        inbox.post(task, FaultInfo::killed(7), 3, ROOT).unwrap();
        let notice = Notice { task, cause: Cause::Fault, at: 3 };
        assert_eq!(inbox.next(ROOT), Some(notice));
        assert_eq!(inbox.next(ROOT), Some(notice));
        inbox.done(task, notice.cause, ROOT);
        assert_eq!(inbox.next(ROOT), None);
    }

    #[test]
    fn a_second_fault_does_not_overwrite_the_first() {
        let inbox = Inbox::new(1, 1);
        let task = TaskId::first(0);
        inbox.post(task, FaultInfo::killed(7), 1, ROOT).unwrap();
        let second = inbox.post(task, FaultInfo::panicked(8), 2, ROOT);
        assert_eq!(second, Err(PostError::AlreadyPosted(task)));
        assert_eq!(inbox.fault(task), Some(&FaultInfo::killed(7)));
    }

    #[test]
    fn everybody_gets_a_turn() {
        let inbox = Inbox::new(130, 1);
        let tasks = [0, 1, 63, 64, 128, 129].map(TaskId::first);
        for task in tasks {
            inbox.post(task, FaultInfo::killed(7), 0, ROOT).unwrap();
        }
        let mut served = [0; 130];
        for _ in 0..3 * tasks.len() {
            // Each faults again at once.
            let notice = inbox.next(ROOT).unwrap();
            served[notice.task.index as usize] += 1;
        }
        assert!(tasks.iter().all(|task| served[task.index as usize] == 3));
    }

    #[test]
    fn of_a_fault_and_a_kill_the_fault_comes_first() {
        let inbox = Inbox::new(1, 1);
        let task = TaskId::first(0);
        inbox.ask(task, Cause::Kill, 0, ROOT).unwrap();
        inbox.post(task, FaultInfo::killed(7), 0, ROOT).unwrap();
        let first = inbox.next(ROOT).unwrap();
        assert_eq!(first.cause, Cause::Fault);
        inbox.done(task, first.cause, ROOT);
        assert_eq!(inbox.next(ROOT).unwrap().cause, Cause::Kill);
    }

    #[test]
    fn a_kill_of_an_earlier_life_does_not_replace_one_of_a_later() {
        let inbox = Inbox::new(1, 1);
        let old = TaskId::first(0);
        let new = old.next_generation();
        inbox.ask(new, Cause::Kill, 0, ROOT).unwrap();
        inbox.ask(old, Cause::Kill, 0, ROOT).unwrap();
        assert_eq!(inbox.next(ROOT).unwrap().task, new);
    }

    #[test]
    fn keepers_are_told_of_their_own() {
        let inbox = Inbox::new(2, 2);
        let other = KeeperId::from_number(1);
        inbox.post(TaskId::first(0), FaultInfo::killed(7), 0, other).unwrap();
        assert_eq!(inbox.next(ROOT), None);
        assert_eq!(inbox.next(other).unwrap().task, TaskId::first(0));
    }

    #[test]
    fn two_that_are_told_of_one_notice_do_not_both_serve_it() {
        let inbox = Inbox::new(1, 2);
        let (task, other) = (TaskId::first(0), KeeperId::from_number(1));
        inbox.post(task, FaultInfo::killed(7), 0, ROOT).unwrap();
        inbox.announce_all(|_| Some(other));
        assert!(inbox.next(ROOT).is_some());
        assert_eq!(inbox.next(other), None);
        // Unless the first one dies over it.
        inbox.abandon_all(ROOT);
        inbox.announce_all(|_| Some(other));
        assert!(inbox.next(other).is_some());
        assert_eq!(inbox.next(ROOT), None);
    }

    #[test]
    fn what_a_dead_keeper_took_the_bit_of_is_announced_again() {
        let inbox = Inbox::new(1, 1);
        inbox.post(TaskId::first(0), FaultInfo::killed(7), 0, ROOT).unwrap();
        // It died right after it had taken the bit away.
        inbox.ready[0][0].store(0, Ordering::Relaxed);
        assert_eq!(inbox.next(ROOT), None);
        inbox.announce_all(|task| (task.index == 0).then_some(ROOT));
        assert!(inbox.next(ROOT).is_some());
    }
}
