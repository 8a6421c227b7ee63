//! Serving what was posted: by one keeper, which may die over it.
#![expect(unsafe_code, reason = "reads the fault that was posted")]

use core::sync::atomic::Ordering;

use task_model::{FaultInfo, TaskId};

use super::{Cause, Inbox, Notice, posted};
use crate::KeeperId;

impl Inbox {
    /// What `keeper` is to serve next. It stays posted until it is [done](Self::done).
    pub(crate) fn next(&self, keeper: KeeperId) -> Option<Notice> {
        let ready = self.ready_of(keeper)?;
        let turn = self.turns.get(usize::from(keeper.number()))?;
        loop {
            let index = ready.next_from(turn.load(Ordering::Relaxed))?;
            if !self.take(index, keeper) {
                // Who is at it looks for more of this task afterwards.
                ready.remove(index);
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
        let (cause, request) = match bits {
            0 => return None,
            bits if bits & posted::FAULT != 0 => (Cause::Fault, &place.fault),
            bits if bits & posted::RELEASE != 0 => (Cause::Release, &place.release),
            _ => (Cause::Kill, &place.kill),
        };
        let task = TaskId { index, generation: request.generation.load(Ordering::Relaxed) };
        Some(Notice { task, cause, at: request.at.load(Ordering::Relaxed) })
    }

    /// The fault that was posted of this task, for the keeper that has taken it, until that is done.
    #[inline]
    pub(crate) fn fault(&self, task: TaskId) -> Option<&FaultInfo> {
        let place = self.place(task)?;
        let posted = place.posted.load(Ordering::Acquire) & posted::FAULT != 0;
        // SAFETY: see `Sync`; the reference is used by the keeper that will say that it is done.
        posted.then(|| unsafe { &*place.info.get() })
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

    /// Takes the bit away of a task of which nothing is posted.
    #[inline]
    fn make_unready(&self, index: u32, keeper: KeeperId) {
        if let Some(ready) = self.ready_of(keeper) {
            ready.remove(index);
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
