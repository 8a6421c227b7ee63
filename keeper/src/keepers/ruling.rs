//! From an open case to a verdict.

use drop_registry::Ledger;
use task_model::{FrozenTask, TaskId};

use super::Keepers;
use super::seat::Station;
use crate::chain::Link;
use crate::docket::OpenCase;
use crate::orders::Desk;
use crate::{
    Case, NoSuchTask, Platform, PostError, Refusal, Report, Stopped, Token, TooLate, Verdict,
};

impl<P: Platform> Keepers<P> {
    /// Has a policy rule on a stopped task, unless that was `ruled` before; and does what it says.
    #[inline(always)]
    pub(super) fn attend(
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

    /// What is ruled by a policy that has taken the token out, or says that it has; `None` if the
    /// verdict is to come later.
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
