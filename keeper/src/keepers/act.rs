//! Carrying a verdict out, or the next best.
#![expect(unsafe_code, reason = "reclaims what settled tasks held")]

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use drop_registry::reclaim;
use task_model::{FaultInfo, FaultKind, Gpr, RegisterFile, TaskId};

use super::Keepers;
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
    /// Does what was ruled; or, if that cannot be done, says why, and does what is documented for it.
    #[inline(always)]
    pub(super) fn carry_out(
        &self,
        keeper: KeeperId,
        open: OpenCase<'_>,
        stopped: Stopped<'_>,
        ruled: Verdict,
        report: &mut Report,
        told: impl FnOnce(Result<&Report, NoSuchTask>),
    ) {
        let verdict = self.feasible(open, &stopped, ruled, report);
        if verdict != Verdict::Resume {
            let verdict = self.last_resort(keeper, verdict);
            // Whoever takes the case over from here on does this, and not what was ruled first.
            let open = if verdict == ruled { Some(open) } else { open.rule(verdict) };
            let Some(open) = open else { return };
            return self.carry_out_for_good(keeper, open, stopped, verdict, report, told);
        }
        report.verdict = Some(verdict);
        self.platform.resume(stopped);
        report.gone_at = self.platform.now();
        told(Ok(report));
        self.close_of_living(open, report.task);
    }

    /// Does everything but to resume.
    #[inline(never)]
    fn carry_out_for_good(
        &self,
        keeper: KeeperId,
        mut open: OpenCase<'_>,
        stopped: Stopped<'_>,
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
            Verdict::Recover => self.recover(stopped, report),
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
                self.platform.hold(stopped);
            }
            Verdict::RestartAfter(ticks) => {
                self.leave_seat_of(task);
                return open.restart_at(self.platform.now().saturating_add(ticks));
            }
            verdict => match self.end(open, stopped, verdict, report) {
                Some(ended) => open = ended,
                None => return,
            },
        }
        report.gone_at = self.platform.now();
        self.remember(keeper.number(), report);
        told(Ok(report));
        if matches!(verdict, Verdict::Hold | Verdict::Recover) {
            self.close_of_living(open, task);
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
                    open = open.rule(Verdict::Exit)?;
                }
                self.platform.retire(stopped);
            }
        }
        report.gone_at = self.platform.now();
        report.tell_policy(&Orders::new(self));
        Some(open)
    }

    /// What is to be done instead of `verdict`, if that cannot be; the report says why.
    #[inline(always)]
    fn feasible(
        &self,
        open: OpenCase<'_>,
        stopped: &Stopped<'_>,
        verdict: Verdict,
        report: &mut Report,
    ) -> Verdict {
        let task = report.task;
        if open.is_killed() && verdict != Verdict::Panic {
            return Verdict::Exit;
        }
        let (refusal, instead) = match verdict {
            Verdict::Resume if report.settled => (Refusal::Settled, Verdict::TryNext),
            Verdict::Resume
                if matches!(report.fault.kind, FaultKind::Exited | FaultKind::LeftHolding) =>
            {
                (Refusal::Finished, Verdict::TryNext)
            }
            Verdict::Resume if report.lost_cases => (Refusal::CaseLost, Verdict::Restart),
            Verdict::Resume => {
                let registers = stopped.task.registers();
                let tries = self.tries.get(task.index as usize);
                if tries.is_none_or(|it| it.count(task, &report.fault, registers) <= MOST_TRIES) {
                    return verdict;
                }
                (Refusal::SameInstruction, Verdict::TryNext)
            }
            Verdict::Recover if report.lost_cases => (Refusal::CaseLost, Verdict::Restart),
            Verdict::Recover => match Self::refusal_to_recover(stopped, report) {
                Some(refusal) => (refusal, Verdict::TryNext),
                None => return verdict,
            },
            Verdict::RestartAfter(_) if !open.may_be_left(&self.docket) => {
                (Refusal::NoRoomToWait, Verdict::Restart)
            }
            Verdict::Hold if !self.corpses.hold(task) => (Refusal::TooManyCorpses, Verdict::Exit),
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
    pub(super) fn close(&self, open: OpenCase<'_>) -> bool {
        let killed = open.close();
        // Relaxed: a look that misses the bit comes before the starving keeper's own second look.
        if self.starving.load(Ordering::Relaxed) != 0 {
            self.wake_all(self.starving.swap(0, Ordering::AcqRel));
        }
        killed
    }

    /// Closes the case of a task that is still there. Who wanted it to end, and came when it had been
    /// ruled on, is not forgotten.
    #[inline]
    pub(super) fn close_of_living(&self, open: OpenCase<'_>, task: TaskId) {
        if open.take_kill() {
            // First, should this keeper die.
            let _ = self.kill(task);
        }
        if self.close(open) {
            let _ = self.kill(task);
        }
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
    generation: AtomicU32,
    count: AtomicU32,
    instruction: AtomicU64,
    registers: AtomicU64,
}

impl Tries {
    /// Counts one more try, and returns how many there have been in a row. `registers` are those that
    /// the task is resumed with: a task that was mended, or got on with a loop, has others.
    fn count(&self, task: TaskId, fault: &FaultInfo, registers: &RegisterFile) -> u32 {
        let address = fault.address.unwrap_or(u64::from(fault.vector.unwrap_or(u8::MAX)));
        // Not a good hash; but for registers to be mistaken for others, sixteen times in a row, each
        // change would have to make up for another.
        let sum = Gpr::ALL.iter().fold(registers.rip.wrapping_add(address), |sum, register| {
            sum.wrapping_add(registers[*register])
        });
        // Relaxed: handed on with the case.
        let instruction = fault.instruction_pointer;
        let same = self.instruction.swap(instruction, Ordering::Relaxed) == instruction
            && self.registers.load(Ordering::Relaxed) == sum
            && self.generation.load(Ordering::Relaxed) == task.generation;
        self.registers.store(sum, Ordering::Relaxed);
        self.generation.store(task.generation, Ordering::Relaxed);
        let before = if same { self.count.load(Ordering::Relaxed) } else { 0 };
        self.count.store(before.saturating_add(1), Ordering::Relaxed);
        before.saturating_add(1)
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
        // It counts first and looks then, so that of two keepers at a time both may be refused, but not
        // both let in.
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
