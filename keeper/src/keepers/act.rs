//! Carrying a verdict out, or the next best.
#![expect(unsafe_code, reason = "reclaims what settled tasks held")]

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use drop_registry::reclaim;
use task_model::{FaultInfo, FaultKind, RegisterFile, TaskId};

use super::Keepers;
use super::seat::Station;
use crate::docket::OpenCase;
use crate::task_set::{TaskSet, numbers};
use crate::{
    CannotRestart, KeeperId, NoSuchTask, Orders, Platform, Refusal, Report, Stopped, Verdict,
};

/// How often a task may be resumed from the same fault at the same instruction, with the same
/// registers, before that is refused. Once is not enough, since a page may be gone again before the
/// task has come to it; for ever is a loop of two.
const MOST_TRIES: u32 = 16;

impl<P: Platform> Keepers<P> {
    /// Resumes the task, as was ruled; or, if that cannot be done, says why, and does what is
    /// documented for it.
    #[inline(always)]
    pub(super) fn resume(
        &self,
        at: &Station<'_>,
        mut open: OpenCase<'_>,
        stopped: &mut Stopped<'_>,
        report: &mut Report,
        told: impl FnOnce(Result<&Report, NoSuchTask>),
    ) {
        self.be_done_in_time(at.link, open);
        if !open.rule(Verdict::Resume) {
            return;
        }
        let refusal = self.refusal_to_resume(stopped, report);
        if open.is_killed() || refusal.is_some() {
            let ruled = Verdict::Resume;
            return self.carry_out(at.keeper, open, stopped, ruled, refusal, report, told);
        }
        report.verdict = Some(Verdict::Resume);
        self.platform.resume(stopped.reborrow());
        report.gone_at = self.platform.now();
        told(Ok(report));
        self.close_of_living(open);
    }

    /// Does what was ruled; or, if that cannot be done, says why, and does what is documented for
    /// it. To resume comes here only with a `refusal`, or if somebody wants the task to end.
    #[cold]
    #[inline(never)]
    #[expect(clippy::too_many_arguments, reason = "all that is known of a case")]
    pub(super) fn carry_out(
        &self,
        keeper: KeeperId,
        mut open: OpenCase<'_>,
        stopped: &mut Stopped<'_>,
        ruled: Verdict,
        refusal: Option<Refusal>,
        report: &mut Report,
        told: impl FnOnce(Result<&Report, NoSuchTask>),
    ) {
        let verdict = match refusal {
            _ if open.is_killed() && ruled != Verdict::Panic => Verdict::Exit,
            Some(refusal) => {
                report.refusal = Some(refusal);
                if refusal == Refusal::CaseLost { Verdict::Restart } else { Verdict::TryNext }
            }
            None => self.feasible(open, stopped, ruled, report),
        };
        let verdict = self.last_resort(keeper, verdict);
        // Whoever takes the case over from here on does this, and not what was ruled first.
        if verdict == ruled || open.rule(verdict) {
            self.carry_out_for_good(keeper, open, stopped, verdict, report, told);
        }
    }

    /// Does everything but to resume.
    fn carry_out_for_good(
        &self,
        keeper: KeeperId,
        mut open: OpenCase<'_>,
        stopped: &mut Stopped<'_>,
        verdict: Verdict,
        report: &mut Report,
        told: impl FnOnce(Result<&Report, NoSuchTask>),
    ) {
        let task = report.task;
        if let (Verdict::TryNext, Some(parent)) = (verdict, self.chain.parent(keeper)) {
            return self.pass_on(open, parent);
        }
        if verdict != Verdict::Recover {
            self.settle_and_walk(&stopped.task, stopped.ledger, report);
        }
        match verdict {
            Verdict::Recover => self.recover(stopped.reborrow(), report),
            Verdict::Panic => {
                report.verdict = Some(verdict);
                report.gone_at = self.platform.now();
                self.remember(keeper.number(), report);
                self.platform.panic(report);
            }
            Verdict::Hold => {
                self.leave_seat_of(task);
                self.inbox.kill_is_over(task);
                report.verdict = Some(verdict);
                self.platform.hold(stopped.reborrow());
            }
            Verdict::RestartAfter(ticks) => {
                self.leave_seat_of(task);
                return open.restart_at(self.platform.now().saturating_add(ticks));
            }
            verdict => match self.end(open, stopped.reborrow(), verdict, report) {
                Some(ended) => open = ended,
                None => return,
            },
        }
        report.gone_at = self.platform.now();
        self.remember(keeper.number(), report);
        told(Ok(report));
        if matches!(verdict, Verdict::Hold | Verdict::Recover) {
            self.close_of_living(open);
        } else {
            self.close(open);
        }
    }

    /// Leaves the case to `parent`, or to who serves for it.
    fn pass_on(&self, open: OpenCase<'_>, parent: KeeperId) {
        let parent = self.chain.route(parent);
        if open.pass_to(parent, None) {
            self.docket.announce();
            self.wake(parent);
        }
    }

    /// What is done if a verdict leaves the case to nobody.
    fn last_resort(&self, keeper: KeeperId, verdict: Verdict) -> Verdict {
        match verdict {
            Verdict::TryNext | Verdict::Deferred if keeper == KeeperId::ROOT => Verdict::Exit,
            Verdict::Deferred => Verdict::TryNext,
            verdict => verdict,
        }
    }

    /// Ends a life of the task, and begins the next one if that was ruled. `None` if the case is
    /// another's by now.
    fn end<'c>(
        &self,
        mut open: OpenCase<'c>,
        stopped: Stopped<'_>,
        verdict: Verdict,
        report: &mut Report,
    ) -> Option<OpenCase<'c>> {
        let task = stopped.task.id();
        self.reclaim(&stopped, report);
        self.leave_seat_of(task);
        self.corpses.bury(task);
        self.inbox.kill_is_over(task);
        report.verdict = Some(Verdict::Exit);
        let restarted = if verdict == Verdict::Restart {
            self.platform.restart(stopped)
        } else {
            Err(CannotRestart(stopped))
        };
        match restarted {
            Ok(next) => {
                report.verdict = Some(verdict);
                report.restarted_as = Some(next);
            }
            Err(CannotRestart(stopped)) => {
                if verdict == Verdict::Restart {
                    report.refusal = Some(Refusal::NoEntry);
                    // Whoever finds the task gone tells by this which of the two was done.
                    open.rule(Verdict::Exit).then_some(())?;
                }
                self.platform.retire(stopped);
            }
        }
        report.gone_at = self.platform.now();
        report.tell_policy(&Orders::new(self));
        Some(open)
    }

    /// Why the task cannot be resumed, if it cannot.
    #[inline(always)]
    fn refusal_to_resume(&self, stopped: &Stopped<'_>, report: &Report) -> Option<Refusal> {
        if report.settled {
            return Some(Refusal::Settled);
        }
        let trapped = report.fault.vector.is_some();
        if !trapped && matches!(report.fault.kind, FaultKind::Exited | FaultKind::LeftHolding) {
            return Some(Refusal::Finished);
        }
        if report.lost_cases {
            return Some(Refusal::CaseLost);
        }
        let tries = self.tries.get(report.task.index as usize)?;
        let count = tries.count(report.task, &report.fault, stopped.task.registers());
        (count > MOST_TRIES).then_some(Refusal::SameInstruction)
    }

    /// What is to be done instead of `verdict`, if that cannot be; the report says why.
    fn feasible(
        &self,
        open: OpenCase<'_>,
        stopped: &Stopped<'_>,
        verdict: Verdict,
        report: &mut Report,
    ) -> Verdict {
        let (refusal, instead) = match verdict {
            Verdict::Recover if report.lost_cases => (Refusal::CaseLost, Verdict::Restart),
            Verdict::Recover => match Self::refusal_to_recover(stopped, report) {
                Some(refusal) => (refusal, Verdict::TryNext),
                None => return verdict,
            },
            Verdict::RestartAfter(_) if !open.may_be_left(&self.docket) => {
                (Refusal::NoRoomToWait, Verdict::Restart)
            }
            Verdict::Hold if !self.corpses.hold(report.task) => {
                (Refusal::TooManyCorpses, Verdict::Exit)
            }
            _ => return verdict,
        };
        report.refusal = Some(refusal);
        instead
    }

    /// Frees memory that nobody holds any more.
    fn reclaim(&self, stopped: &Stopped<'_>, report: &mut Report) {
        if stopped.ledger.is_empty() {
            return;
        }
        // SAFETY: the ledger has been settled, in this life of the task, and it is still stopped.
        unsafe { reclaim(stopped.ledger, &self.domain, |done| report.note_reclaimed(done)) };
        report.reclaimed_at = self.platform.now();
    }

    /// If the task served a keeper, it does so no more: what is posted for that goes to the next
    /// one up, until it is served again.
    fn leave_seat_of(&self, task: TaskId) {
        if let Some(keeper) = self.served_by(task) {
            self.leave(keeper);
        }
    }

    /// Leaves a seat to whoever is above. If its task is not dead, but leaves it in the middle of a
    /// case, since a policy has panicked and its frames have been unwound, that goes with it.
    pub(super) fn leave(&self, keeper: KeeperId) {
        let above = self.chain.parent(keeper).unwrap_or(KeeperId::ROOT);
        for open in self.docket.left_by(keeper) {
            self.leave_case(open, above);
        }
        self.inbox.abandon_all(keeper);
        self.chain.vacate(keeper);
        // To all, since what this one was at may have been another's.
        let mut told = self.inbox.announce_all(|task| self.keeper_for(task).ok());
        self.docket.announce();
        told |= 1 << self.chain.route(keeper).number();
        self.wake_all(told);
    }

    /// Wakes these keepers, a bit for each.
    fn wake_all(&self, keepers: u32) {
        for number in numbers(keepers.into()) {
            self.wake(KeeperId::from_number(number as u8));
        }
    }

    /// Closes a case, and wakes those who wait for room for one.
    #[inline(always)]
    pub(super) fn close(&self, open: OpenCase<'_>) -> (TaskId, bool) {
        let closed = open.close();
        // Relaxed: a look that misses the bit comes before the starving keeper's own second look.
        if self.starving.load(Ordering::Relaxed) != 0 {
            self.wake_starving();
        }
        closed
    }

    #[cold]
    #[inline(never)]
    fn wake_starving(&self) {
        self.wake_all(self.starving.swap(0, Ordering::AcqRel));
    }

    /// Closes the case of a task that is still there. Who wanted it to end, and came when it had
    /// been ruled on, is not forgotten.
    #[inline(always)]
    pub(super) fn close_of_living(&self, open: OpenCase<'_>) {
        if open.take_kill() {
            // First, should this keeper die.
            if let Some(task) = open.task() {
                self.kill_after_all(task);
            }
        }
        let (task, killed) = self.close(open);
        if killed {
            self.kill_after_all(task);
        }
    }

    #[cold]
    #[inline(never)]
    fn kill_after_all(&self, task: TaskId) {
        // There is room for a task that had a case.
        let _ = self.kill(task);
    }

    /// Whether the task is a corpse.
    pub(super) fn is_held(&self, task: TaskId) -> bool {
        self.corpses.holds(task)
    }

    /// Notes that `keeper` waits for room for a case.
    pub(super) fn starve(&self, keeper: KeeperId) {
        self.starving.fetch_or(1 << keeper.number(), Ordering::AcqRel);
    }
}

/// How often a task was resumed from the same fault. Written by the keeper that has its case.
#[derive(Debug, Default)]
pub(super) struct Tries {
    /// What it was resumed from and with, last time: see [`count`](Self::count).
    last: AtomicU64,
    count: AtomicU32,
}

impl Tries {
    /// Counts one more try, and returns how many there have been in a row. `registers` are those
    /// that the task is resumed with: a task that was mended, or got on with a loop, has others.
    #[inline(always)]
    fn count(&self, task: TaskId, fault: &FaultInfo, registers: &RegisterFile) -> u32 {
        // Not a good hash; but for something else to be mistaken for the same, sixteen times in a
        // row, each change would have to make up for another.
        let place = fault.instruction_pointer.rotate_left(32) ^ u64::from(task.generation);
        let address = fault.address.unwrap_or_default();
        let this = registers.sum().wrapping_add(address) ^ place;
        // Relaxed: handed on with the case.
        let same = self.last.load(Ordering::Relaxed) == this;
        self.last.store(this, Ordering::Relaxed);
        let before = if same { self.count.load(Ordering::Relaxed) } else { 0 };
        let count = before.saturating_add(1);
        self.count.store(count, Ordering::Relaxed);
        count
    }
}

/// Which tasks are held.
#[derive(Debug)]
pub(super) struct Corpses {
    held: TaskSet,
    at_most: usize,
}

impl Corpses {
    pub(super) fn new(tasks: usize, at_most: usize) -> Self {
        Self { held: TaskSet::new(tasks), at_most }
    }

    /// Counts one more corpse; `false` if there are enough.
    fn hold(&self, task: TaskId) -> bool {
        // It counts first and looks then, so that of two keepers at a time both may be refused, but
        // not both let in.
        if self.held.insert(task.index) {
            return true;
        }
        let room = self.held.contains(task.index) && self.held.len() <= self.at_most;
        if !room {
            self.held.remove(task.index);
        }
        room
    }

    fn holds(&self, task: TaskId) -> bool {
        self.held.contains(task.index)
    }

    fn bury(&self, task: TaskId) {
        self.held.remove(task.index);
    }
}
