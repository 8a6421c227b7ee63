//! Serving what was posted: by one keeper, which may die over it.
#![expect(unsafe_code, reason = "reads the fault that was posted")]

use core::sync::atomic::Ordering;

use task_model::{FaultInfo, TaskId};

use super::{Cause, Inbox, Notice, Place, Taker, Tray, posted};
use crate::KeeperId;

/// Something that one keeper serves, and nobody else. It is no guard: if its keeper dies it stays
/// posted, and [taken](Inbox::abandon_all).
pub(crate) struct Taken<'i> {
    index: u32,
    /// What was posted when it was taken.
    bits: u32,
    pub(crate) place: &'i Place,
    tray: &'i Tray,
}

impl Inbox {
    /// What is to be served next from this tray, by [taking](Self::take) it.
    #[inline]
    pub(crate) fn next(&self, tray: &Tray) -> Option<u32> {
        tray.ready.next_from(tray.turn.load(Ordering::Relaxed))
    }

    /// Sees to it that nobody but `taker` serves what is posted of this task, until it is
    /// [done](Taken::done); `None` if somebody else does, or nothing is posted, or that changes.
    #[inline(always)]
    pub(crate) fn take<'i>(
        &'i self,
        index: u32,
        tray: &'i Tray,
        taker: Taker,
    ) -> Option<Taken<'i>> {
        let place = self.places.get(index as usize)?;
        // Acquire pairs with the Release in `announce`.
        let bits = place.posted.load(Ordering::Acquire);
        if bits & posted::ANY == 0
            || bits & posted::TAKERS != 0
            || !place.change(bits, bits | taker.0)
        {
            return None;
        }
        tray.turn.store(index + 1, Ordering::Relaxed);
        Some(Taken { index, bits, place, tray })
    }

    /// What `taker`, whose tray this is, can take instead of what is posted of this task, or if
    /// that has changed.
    #[cold]
    pub(crate) fn take_another<'i>(
        &'i self,
        mut index: u32,
        tray: &'i Tray,
        taker: Taker,
    ) -> Option<Taken<'i>> {
        loop {
            tray.pass_over(index, self.places.get(index as usize)?, taker);
            index = self.next(tray)?;
            if let Some(taken) = self.take(index, tray, taker) {
                return Some(taken);
            }
        }
    }

    /// `keeper`, which leaves its seat, serves no more of what is posted.
    pub(crate) fn abandon_all(&self, keeper: KeeperId) {
        self.places.iter().for_each(|place| place.abandon(Taker::new(keeper)));
    }

    fn notice_at(&self, index: u32) -> Option<Notice> {
        let place = self.places.get(index as usize)?;
        let bits = place.posted.load(Ordering::Acquire);
        (bits & posted::ANY != 0).then(|| place.notice(index, bits))
    }

    /// Whether a fault of this life of the task is posted.
    pub(crate) fn has_fault(&self, task: TaskId) -> bool {
        self.notice_at(task.index).is_some_and(|it| it.task == task && it.cause == Cause::Fault)
    }

    /// How many faults have been posted of tasks with this number: if there are more than there
    /// were, it has gone on in between.
    pub(crate) fn faults(&self, task: TaskId) -> u32 {
        self.place(task).map_or(0, Place::faults)
    }

    /// Takes a notice away for `keeper`, which has inherited it from one that had it.
    pub(crate) fn done(&self, task: TaskId, cause: Cause, keeper: KeeperId) {
        if let (Some(place), Some(tray)) = (self.place(task), self.tray(keeper)) {
            place.done(task.index, cause, tray);
        }
    }

    /// Announces again what is posted, to whom `whose` says, and returns to whom, a bit for each:
    /// where a keeper may have died over its bits.
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

impl Taken<'_> {
    /// What was posted.
    #[inline]
    pub(crate) fn notice(&self) -> Notice {
        self.place.notice(self.index, self.bits)
    }

    /// Whether it is a fault.
    #[inline]
    pub(crate) fn is_fault(&self) -> bool {
        self.bits & posted::FAULT != 0
    }

    /// The fault that was posted, if it is one.
    #[inline]
    pub(crate) fn fault(&self) -> Option<&FaultInfo> {
        // SAFETY: see `Sync`: the keeper has taken the place, and the bit is set until it says that
        // it is done, by giving this away.
        self.is_fault().then(|| unsafe { &*self.place.info.get() })
    }

    /// See [`Inbox::faults`].
    #[inline]
    pub(crate) fn faults(&self) -> u32 {
        self.place.faults()
    }

    /// Takes the notice away, once the case that it has opened can be found again.
    #[inline]
    pub(crate) fn done(self) {
        self.place.done(self.index, cause_of(self.bits), self.tray);
    }
}

impl Place {
    #[inline]
    fn faults(&self) -> u32 {
        self.faults.load(Ordering::Relaxed)
    }

    #[inline]
    fn change(&self, from: u32, to: u32) -> bool {
        self.posted.compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// `taker` serves no more of what is posted here.
    fn abandon(&self, taker: Taker) {
        let _ = self.posted.fetch_update(Ordering::AcqRel, Ordering::Acquire, |bits| {
            (bits & posted::TAKERS == taker.0).then_some(bits & !posted::TAKERS)
        });
    }

    /// What is served first of what `bits` say.
    #[inline]
    fn notice(&self, index: u32, bits: u32) -> Notice {
        let cause = cause_of(bits);
        let request = match cause {
            Cause::Fault => &self.fault,
            Cause::Release => &self.release,
            Cause::Kill => &self.kill,
        };
        let task = TaskId { index, generation: request.generation.load(Ordering::Relaxed) };
        Notice { task, cause, at: request.at.load(Ordering::Relaxed) }
    }

    #[inline]
    fn done(&self, index: u32, cause: Cause, tray: &Tray) {
        let bits = match cause {
            Cause::Fault => posted::FAULT | posted::CLAIMED,
            Cause::Kill => posted::KILL,
            Cause::Release => posted::RELEASE,
        };
        // Release: see `post`.
        self.posted.fetch_and(!(bits | posted::TAKERS), Ordering::AcqRel);
        tray.make_unready(index, self);
    }
}

impl Tray {
    /// Takes the bit away of a task of which nothing is posted.
    #[inline]
    fn make_unready(&self, index: u32, place: &Place) {
        self.ready.remove(index);
        // What was posted since it was looked at announces itself, if not before the bit was taken
        // away.
        if place.posted.load(Ordering::Acquire) & posted::ANY != 0 {
            self.ready.insert(index);
        }
    }

    /// Goes on from this task, which `taker` could not take as it was.
    #[cold]
    fn pass_over(&self, index: u32, place: &Place, taker: Taker) {
        // If it had taken it before and is not done, it may do so again.
        place.abandon(taker);
        let bits = place.posted.load(Ordering::Acquire);
        if bits & posted::TAKERS != 0 {
            // Who is at it looks for more of this task afterwards.
            self.ready.remove(index);
        } else if bits & posted::ANY == 0 {
            self.make_unready(index, place);
        }
    }
}

/// What comes first of what `bits` say.
#[inline]
fn cause_of(bits: u32) -> Cause {
    // A corpse is let go of before anything else is done to it, and of a task that faulted and is
    // to be killed the fault is what happened first.
    if bits & posted::FAULT != 0 {
        Cause::Fault
    } else if bits & posted::RELEASE != 0 {
        Cause::Release
    } else {
        Cause::Kill
    }
}
