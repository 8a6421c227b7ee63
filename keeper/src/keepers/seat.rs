//! Serving: from a notice to an open case.
#![expect(unsafe_code, reason = "writes the record of the case that it has")]

use core::fmt;

use task_model::FaultInfo;

use super::Keepers;
use crate::chain::Link;
use crate::docket::{LastCase, OpenCase};
use crate::inbox::{Cause, Notice, Taken, Taker, Tray};
use crate::{KeeperId, NoSuchTask, Orders, Platform, Report, Verdict};

/// Whether the task runs again after this, in the same life.
fn goes_on(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::Resume | Verdict::Recover)
}

/// The seat of a keeper: who has it serves. There is one for each keeper.
#[must_use = "a keeper serves"]
pub struct Seat<'k, P: Platform> {
    keepers: &'k Keepers<P>,
    station: Station<'k>,
}

/// Where a keeper serves. It is looked up once.
#[derive(Clone, Copy)]
pub(super) struct Station<'k> {
    pub(super) keeper: KeeperId,
    pub(super) link: &'k Link,
    taker: Taker,
    tray: &'k Tray,
    last: &'k LastCase,
}

impl<'k, P: Platform> Seat<'k, P> {
    pub(super) const fn new(keepers: &'k Keepers<P>, station: Station<'k>) -> Self {
        Self { keepers, station }
    }

    /// Deals with the next notice or case, and tells `told` what was found and done, if the case is
    /// closed by that. Returns whether there was anything.
    ///
    /// The notice of a task that is gone meanwhile is told as [`NoSuchTask`].
    pub fn serve(&mut self, told: impl FnOnce(Result<&Report, NoSuchTask>)) -> bool {
        self.keepers.serve_at(&self.station, told)
    }
}

impl<P: Platform> Drop for Seat<'_, P> {
    fn drop(&mut self) {
        self.keepers.leave(self.station.keeper);
    }
}

impl<P: Platform> fmt::Debug for Seat<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Seat").field(&self.station.keeper).finish()
    }
}

impl<P: Platform> Keepers<P> {
    /// Where `keeper` serves, if it has been registered.
    pub(super) fn station(&self, keeper: KeeperId) -> Option<Station<'_>> {
        Some(Station {
            keeper,
            link: self.chain.link(keeper)?,
            taker: Taker::new(keeper),
            tray: self.inbox.tray(keeper)?,
            last: self.docket.last_of(keeper)?,
        })
    }

    /// See [`Seat::serve`], for a keeper whose seat the caller has [taken](Self::take_seat).
    #[cfg(feature = "hosted")]
    pub(crate) fn serve_for(
        &self,
        keeper: KeeperId,
        told: impl FnOnce(Result<&Report, NoSuchTask>),
    ) -> bool {
        self.station(keeper).is_some_and(|station| self.serve_at(&station, told))
    }

    /// See [`Seat::serve`]. The caller has the seat.
    #[inline]
    fn serve_at(&self, at: &Station<'_>, told: impl FnOnce(Result<&Report, NoSuchTask>)) -> bool {
        if self.docket.may_wait()
            && let Some((open, ruled)) = self.take_up(at)
        {
            self.go_on(at, open, ruled, told);
            return true;
        }
        let Some(next) = self.inbox.next(at.tray) else { return false };
        match self.inbox.take(next, at.tray, at.taker) {
            Some(taken) => self.begin(at, taken, told),
            None => self.begin_another(at, next, told),
        }
    }

    /// Takes up a case that waits for this keeper, or one for which it serves.
    #[cold]
    #[inline(never)]
    fn take_up(&self, at: &Station<'_>) -> Option<(OpenCase<'_>, Option<Verdict>)> {
        self.docket.take_up(at.keeper, |named| self.chain.route(named) == at.keeper)
    }

    /// Begins with another notice than that of the task `next`.
    #[cold]
    #[inline(never)]
    fn begin_another(
        &self,
        at: &Station<'_>,
        next: u32,
        told: impl FnOnce(Result<&Report, NoSuchTask>),
    ) -> bool {
        let taken = self.inbox.take_another(next, at.tray, at.taker);
        taken.is_some_and(|taken| self.begin(at, taken, told))
    }

    /// Deals with a notice.
    #[inline(always)]
    fn begin(
        &self,
        at: &Station<'_>,
        taken: Taken<'_>,
        told: impl FnOnce(Result<&Report, NoSuchTask>),
    ) -> bool {
        if !taken.is_fault() {
            return self.comply(at, taken, told);
        }
        // A notice of a fault is of one that is frozen.
        self.open(at, taken, None, false, told)
    }

    /// Goes on with a case that was left to this keeper, and on which somebody has `ruled`, or not.
    #[cold]
    #[inline(never)]
    fn go_on(
        &self,
        at: &Station<'_>,
        open: OpenCase<'_>,
        ruled: Option<Verdict>,
        told: impl FnOnce(Result<&Report, NoSuchTask>),
    ) {
        // SAFETY: it has just become ours.
        let report = unsafe { open.record() };
        // Whether it was resumed, and has come to another fault, which is another case.
        let (task, faults) = (report.task, report.faults);
        let has_gone_on = || ruled.is_some_and(goes_on) && self.inbox.faults(task) != faults;
        // Before it is stopped, since it may be running; and after, since it may have been.
        let seized = if has_gone_on() { None } else { Some(self.platform.seize(task)) };
        let Some(seized) = seized.filter(|it| it.is_err() || !has_gone_on()) else {
            report.verdict = ruled;
            told(Ok(report));
            return self.close_of_living(open);
        };
        match (seized, ruled) {
            (Ok(mut stopped), _) => {
                self.inherit_from(at.keeper, &stopped, report);
                self.attend(at, open, &mut stopped, ruled, report, told);
            }
            // It was done, and its keeper died before it could say so.
            (Err(_), Some(verdict)) => {
                report.verdict = Some(verdict);
                if verdict == Verdict::Restart {
                    report.mark();
                    // What could not be would have been ruled anew: see `end`.
                    report.restarted_as = Some(report.task.next_generation());
                }
                report.tell_policy(&Orders::new(self));
                self.remember(at.keeper.number(), report);
                told(Ok(report));
                self.close(open);
            }
            (Err(gone), None) => {
                report.tell_policy(&Orders::new(self));
                self.close(open);
                told(Err(gone));
            }
        }
    }

    /// Does what somebody wants done with a task.
    #[cold]
    #[inline(never)]
    fn comply(
        &self,
        at: &Station<'_>,
        taken: Taken<'_>,
        told: impl FnOnce(Result<&Report, NoSuchTask>),
    ) -> bool {
        let Notice { task, cause, .. } = taken.notice();
        if cause == Cause::Kill
            && let Some(other) = self.docket.kill(task)
        {
            // It is in a keeper's hands already, which will end it.
            taken.done();
            self.wake(other);
            return true;
        }
        // A corpse is not ruled on again.
        let held = self.is_held(task);
        if cause == Cause::Release && !held {
            taken.done();
            told(Err(NoSuchTask(task)));
            return true;
        }
        self.open(at, taken, held.then_some(Verdict::Exit), !held, told)
    }

    /// Opens a case for a notice, on which somebody has `ruled`, or not. If the task
    /// `may_be_running`, it is stopped, unless it has to be spared for now.
    #[inline(always)]
    fn open(
        &self,
        at: &Station<'_>,
        taken: Taken<'_>,
        ruled: Option<Verdict>,
        may_be_running: bool,
        told: impl FnOnce(Result<&Report, NoSuchTask>),
    ) -> bool {
        let notice = taken.notice();
        let task = notice.task;
        let mut seized = self.platform.seize(task);
        let stopped = match &mut seized {
            Ok(stopped) => stopped,
            Err(gone) => {
                self.gone(taken);
                told(Err(*gone));
                return true;
            }
        };
        if may_be_running {
            if self.inbox.has_fault(task) {
                // It has faulted before it could be stopped. That is what happened first, and comes
                // next.
                return true;
            }
            if self.spare(stopped) {
                taken.done();
                return true;
            }
        }
        // All room may be taken by cases that were left to those above. Then the notice stays. Room
        // that came before this keeper was known to wait for it is found by the second look.
        let Some(open) = self.docket.open(at.last).or_else(|| {
            self.starve(at.keeper);
            self.docket.open(at.last)
        }) else {
            return false;
        };
        // SAFETY: the case is this keeper's: it has just opened it.
        let report = unsafe { open.record() };
        let faults = taken.faults();
        match taken.fault() {
            Some(fault) => report.begin(&notice, fault, faults, stopped.policy),
            None => {
                let killed = FaultInfo::killed(stopped.task.registers().rip);
                report.begin(&notice, &killed, faults, stopped.policy);
            }
        }
        // From here on the case is found if the keeper dies, and before that the notice.
        open.begin(task);
        let place = taken.place;
        taken.done();
        if place.serves().is_some() {
            self.inherit_from(at.keeper, stopped, report);
        }
        self.attend(at, open, stopped, ruled, report, told);
        true
    }

    /// Takes away the notice of a task that is gone.
    #[cold]
    fn gone(&self, taken: Taken<'_>) {
        self.inbox.kill_is_over(taken.notice().task);
        taken.done();
    }
}
