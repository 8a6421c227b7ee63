//! Serving: from a notice to a verdict.
#![expect(unsafe_code, reason = "settles tasks that the platform has stopped")]

use core::fmt;
use core::sync::atomic::{Ordering, compiler_fence};

use drop_registry::{Ledger, settle, take_over};
use task_model::{FaultInfo, FaultKind, FrozenTask, TaskId};

use super::Keepers;
use crate::chain::Link;
use crate::docket::{LastCase, OpenCase};
use crate::inbox::{Cause, Notice, Taken, Taker, Tray};
use crate::orders::Desk;
use crate::unwind::{ImageRules, Walk};
use crate::{
    Case, KeeperId, NoSuchTask, Orders, Platform, PostError, Refusal, Report, Stopped, Token,
    TooLate, Verdict,
};

/// Whether the task runs again after this, in the same life.
fn goes_on(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::Resume | Verdict::Recover)
}

/// The most frames that are looked at to find whose a resource is.
const DEEPEST: usize = 4096;

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

    /// Opens a case for a notice, on which somebody has `ruled`, or not. If the task `may_be_running`, it is
    /// stopped, unless it has to be spared for now.
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
                // It has faulted before it could be stopped. That is what happened first, and comes next.
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

    /// Takes over what the task had in hand, if it served a keeper.
    #[cold]
    fn inherit_from(&self, keeper: KeeperId, stopped: &Stopped<'_>, report: &mut Report) {
        if let Some(dead) = self.served_by(report.task) {
            report.mark();
            self.inherit(dead, keeper, stopped, &mut report.lost_cases);
        }
    }

    /// Has a policy rule on a stopped task, unless that was `ruled` before; and does what it says.
    #[inline(always)]
    fn attend(
        &self,
        at: &Station<'_>,
        open: OpenCase<'_>,
        stopped: &mut Stopped<'_>,
        ruled: Option<Verdict>,
        report: &mut Report,
        told: impl FnOnce(Result<&Report, NoSuchTask>),
    ) {
        if let Some(verdict) = ruled {
            if verdict == Verdict::TryNext {
                // What time said, or a token that was dropped.
                report.refusal = Some(Refusal::NoVerdict);
            }
            return self.conclude(at, open, stopped, verdict, report, told);
        }
        match self.ask(at, open, stopped, report) {
            (Verdict::Resume, None) => self.resume(at, open, stopped, report, told),
            (verdict, deferred_for) => {
                let heard = self.hear(open, verdict, deferred_for, report);
                let Some((open, verdict)) = heard else { return };
                self.conclude(at, open, stopped, verdict, report, told);
            }
        }
    }

    /// Notes what was ruled, and does it.
    #[cold]
    #[inline(never)]
    fn conclude(
        &self,
        at: &Station<'_>,
        mut open: OpenCase<'_>,
        stopped: &mut Stopped<'_>,
        verdict: Verdict,
        report: &mut Report,
        told: impl FnOnce(Result<&Report, NoSuchTask>),
    ) {
        if verdict == Verdict::Resume {
            return self.resume(at, open, stopped, report, told);
        }
        // A destructor may run, or wait for a lock, for ever.
        self.be_done_in_time(at.link, open);
        // Whoever takes the case over from here on carries this out.
        if open.rule(verdict) {
            self.carry_out(at.keeper, open, stopped, verdict, None, report, told);
        }
    }

    /// Lets the keeper count as dead if it is not done with its next step in time.
    #[inline(always)]
    pub(super) fn be_done_in_time(&self, link: &Link, open: OpenCase<'_>) {
        if link.patience != u64::MAX {
            open.rule_by(self.platform.now().saturating_add(link.patience));
        }
    }

    /// Asks the policy; and tells how long the token may be used, if it has taken that out.
    #[inline(always)]
    fn ask(
        &self,
        at: &Station<'_>,
        open: OpenCase<'_>,
        stopped: &mut Stopped<'_>,
        report: &mut Report,
    ) -> (Verdict, Option<u64>) {
        // Whom the task names is asked first; a keeper above has its own view of what comes up.
        let named = self.policy_for(report.fault.place).or(stopped.policy);
        let first = report.asked(at.keeper);
        let policy = match named {
            Some(policy) if first => policy,
            _ => at.link.policy,
        };
        self.be_done_in_time(at.link, open);
        let mut case = Case {
            task: stopped.task.reborrow(),
            ledger: stopped.ledger,
            restarts: stopped.restarts,
            report,
            open,
            deferred_for: None,
            desk: self,
        };
        let verdict = policy.rule(&mut case);
        (verdict, case.deferred_for)
    }

    /// What is ruled by a policy that has taken the token out, or says that it has; `None` if the verdict is
    /// to come later.
    #[cold]
    fn hear<'d>(
        &self,
        open: OpenCase<'d>,
        verdict: Verdict,
        deferred_for: Option<u64>,
        report: &mut Report,
    ) -> Option<(OpenCase<'d>, Verdict)> {
        let open = if deferred_for.is_some() { open.with_token() } else { open };
        let verdict = match (verdict, deferred_for) {
            (Verdict::Deferred, Some(ticks)) => {
                open.defer(self.platform.now().saturating_add(ticks)).err()?
            }
            (Verdict::Deferred, None) => {
                report.refusal = Some(Refusal::NoToken);
                Verdict::TryNext
            }
            (verdict, _) => verdict,
        };
        Some((open, verdict))
    }

    /// Frees locks and counts, tells the task's peers, and names the frames. In this order, since whoever
    /// waits for a lock need not wait for frames to be counted.
    pub(super) fn settle_and_walk(
        &self,
        task: &FrozenTask<'_>,
        ledger: &Ledger,
        report: &mut Report,
    ) {
        if !report.settled {
            report.mark();
            // SAFETY: `Platform::seize`: the task is stopped, the ledger is its own, and only the
            // keeper that has its case settles it; a settled task is not resumed, and every other
            // verdict ends this life of it. What it holds is alive: guards borrow their locks,
            // shares keep their blocks, boxes own theirs.
            unsafe {
                settle(task, ledger, &self.domain, |done| report.note_settled(done));
            }
            report.settled_at = self.platform.now();
            report.reclaimed_at = report.settled_at;
            // All that was done and told of is written before this, should the keeper die.
            compiler_fence(Ordering::SeqCst);
            report.settled = true;
            compiler_fence(Ordering::SeqCst);
        }
        if !report.peers_told {
            self.tell_peers_of(report.task, report.fault.kind);
            report.peers_told = true;
        }
        if !report.walked {
            if report.fault.kind == FaultKind::Panicked
                && let Some(message) = self.platform.panic_message(report.task)
            {
                report.note_message(message);
            }
            self.walk(task, report);
            report.walked = true;
        }
    }

    /// Names the frames, and the frame of each resource.
    pub(super) fn walk(&self, task: &FrozenTask<'_>, report: &mut Report) {
        report.registers = Some(task.registers().into());
        let mut rules = ImageRules::new(&self.images);
        let mut walk = Walk::new(task.registers(), task, &mut rules)
            .stopped_by(&report.fault)
            .max_frames(DEEPEST);
        // Frames beyond the report's room are walked all the same: a resource may be theirs.
        let mut depth = 0;
        report.walk_end = walk.run(|frame, _| {
            report.note_frame(depth, *frame, || self.images.landing(frame.address));
            depth += 1;
        });
    }

    /// Takes over what a keeper that is dead had in hand, so that it waits for `heir`; and notes first
    /// whether there is anything, for whoever inherits from that.
    ///
    /// Until a case is the heir's, whoever inherits from *that* does this again, from the same
    /// registers; and nobody goes on settling before. So what the dead keeper did last is set right
    /// once, or twice with nothing in between.
    fn inherit(
        &self,
        dead: KeeperId,
        heir: KeeperId,
        keeper_task: &Stopped<'_>,
        lost_cases: &mut bool,
    ) {
        // It may have died between letting a case wait and saying so.
        self.docket.announce();
        for open in self.docket.left_by(dead) {
            *lost_cases = true;
            compiler_fence(Ordering::SeqCst);
            // What is to be resumed has not been settled, and may have been resumed; and what recovered
            // may have come to another fault.
            // SAFETY: as in `leave_case`; the reference is gone at once.
            let faults = unsafe { open.record() }.faults;
            let runs = |task| match open.verdict() {
                Some(Verdict::Resume) => true,
                Some(Verdict::Recover) => self.inbox.faults(task) != faults,
                _ => false,
            };
            if !open.task().is_some_and(runs)
                && let Some(task) = open.task()
                && let Ok(stopped) = self.platform.seize(task)
            {
                // SAFETY: the settler is stopped for good: it is not resumed once it has lost a case
                // (`Refusal::CaseLost`). It was the last to have the case.
                unsafe { take_over(&keeper_task.task, stopped.ledger, &self.domain) };
            }
            self.leave_case(open, heir);
        }
        self.docket.announce();
    }

    /// Gives the case of a keeper that does no more about it to `heir`.
    pub(super) fn leave_case(&self, open: OpenCase<'_>, heir: KeeperId) {
        if open.task().is_none() {
            // Its notice is posted still.
            self.close(open);
            return;
        }
        // SAFETY: the keeper that had it is frozen, or has come out of it, and the case is given to
        // nobody else before `leave_to`: one keeper alone inherits from another.
        let report = unsafe { open.record() };
        report.inherited();
        if report.keepers.is_empty() && open.verdict().is_none() {
            // It may have died before it took the notice away that it opened the case for; and since
            // nobody has been asked, this is no later one.
            self.inbox.done(report.task, report.cause, heir);
        }
        open.leave_to(heir);
    }
}

impl<P: Platform> Desk for Keepers<P> {
    fn settle(&self, task: &FrozenTask<'_>, ledger: &Ledger, report: &mut Report) {
        self.settle_and_walk(task, ledger, report);
    }

    fn take_token(&self, open: &mut OpenCase<'_>) -> Option<Token> {
        Some(Token::new(self.docket.clone(), open.begin_deferring(&self.docket)?))
    }

    fn keep_open(&self, open: &mut OpenCase<'_>) -> bool {
        open.begin_deferring(&self.docket).is_some()
    }

    fn answer(&self, task: TaskId, verdict: Verdict) -> Result<(), TooLate> {
        self.wake(self.docket.answer_for(task, verdict).ok_or(TooLate)?);
        Ok(())
    }

    fn recall(&self, task: TaskId, ticks: u64) -> bool {
        self.docket.recall(task, self.platform.now().saturating_add(ticks))
    }

    fn kill(&self, task: TaskId) -> Result<(), PostError> {
        Keepers::kill(self, task)
    }

    fn withdraw_kill(&self, task: TaskId) {
        self.inbox.withdraw_kill(task);
    }

    fn now(&self) -> u64 {
        self.platform.now()
    }
}
