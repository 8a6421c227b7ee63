//! Rounds: several children are ended, the last one first, and then started again, the first one
//! first.
//!
//! A round is not a thing that somebody carries through: the children's states say what there is to
//! do, and whoever comes by does the next step of it. That is the keeper, whenever it rules on a
//! child or has ended one. So it does not matter where the last one was interrupted.

use core::sync::atomic::Ordering;

use task_model::TaskId;

use super::member::{Member, State};
use super::{Strategy, Supervisor};
use crate::{Orders, Verdict};

/// There is no round.
pub(super) const NO_ROUND: u64 = u64::MAX;
/// All children are to be ended for good.
const CLOSING: u64 = u64::MAX - 1;

/// What a failure leads to.
pub(super) enum Failure {
    /// The child is restarted after so many ticks, and no other is touched.
    Alone(u64),
    /// A round, which is to wait for so many ticks before its first start.
    Round(u64),
    /// It is for the next level to decide. The other children are to be ended.
    TooMany,
}

impl Supervisor {
    /// Decides what follows from the failure of a child: here, or at the first supervisor above
    /// that puts up with one more.
    pub(super) fn fail(&self, child: &Member, orders: &Orders<'_>) -> Failure {
        let (mut level, mut child) = (self, child);
        let now = orders.now();
        loop {
            if level.restarts.admit(now, level.intensity) {
                let delay = child.next_delay(level.backoff, now, level.intensity.period);
                match (level.strategy, child.nested()) {
                    (Strategy::OneForOne, None) => return Failure::Alone(delay),
                    (Strategy::OneForOne, Some(below)) => {
                        below.restarts.forget();
                        below.begin_round(0, orders);
                    }
                    (Strategy::OneForAll, _) => level.begin_round(0, orders),
                    (Strategy::RestForOne, _) => level.begin_round(child.order(), orders),
                }
                return Failure::Round(delay);
            }
            match level.above.get() {
                Some(above) => {
                    child = above.supervisor.members.at(above.place);
                    level = above.supervisor;
                }
                None => {
                    level.close(orders);
                    return Failure::TooMany;
                }
            }
        }
    }

    /// Begins a round of the children from this one on, or extends the one that there is.
    fn begin_round(&self, from: u32, orders: &Orders<'_>) {
        self.condemns.store(from.into(), Ordering::Relaxed);
        self.round.fetch_min(from.into(), Ordering::Relaxed);
        self.condemn(orders);
    }

    /// Begins to end all children for good.
    fn close(&self, orders: &Orders<'_>) {
        self.condemns.store(0, Ordering::Relaxed);
        self.round.store(CLOSING, Ordering::Relaxed);
        self.condemn(orders);
    }

    /// Condemns those that are to be. If the keeper dies in between, the next one does it again,
    /// before any other step of the round: otherwise some would begin again, and others go on.
    fn condemn(&self, orders: &Orders<'_>) {
        // Relaxed, as in all of this: see `Member`.
        if let Ok(from) = u32::try_from(self.condemns.load(Ordering::Relaxed)) {
            self.condemn_from(from, orders);
            self.condemns.store(NO_ROUND, Ordering::Relaxed);
        }
    }

    fn condemn_from(&self, from: u32, orders: &Orders<'_>) {
        for member in self.members.all().filter(|member| member.order() >= from) {
            if let Some(below) = member.nested() {
                below.restarts.forget();
                below.condemn_from(0, orders);
            }
            match member.state() {
                State::Up => member.set(State::Condemned),
                // Of a restart whose time has not come, nobody need know.
                State::Rising if orders.recall(member.id(), self.patience) => {
                    member.set(State::Down);
                }
                State::Rising => member.set(State::Doomed),
                _ => {}
            }
        }
    }

    /// The supervisor whose round the child is in, if it is in one: of several, the topmost.
    pub(super) fn round_of(&self, child: &Member) -> Option<&Supervisor> {
        self.topmost_round(self.has_round_of(child).then_some(self))
    }

    /// The round that this supervisor is in, if it is in one, whoever of its children is.
    pub(super) fn any_round(&self) -> Option<&Supervisor> {
        let has_one = self.round.load(Ordering::Relaxed) != NO_ROUND;
        self.topmost_round(has_one.then_some(self))
    }

    fn topmost_round<'a>(&'a self, here: Option<&'a Self>) -> Option<&'a Self> {
        let (mut topmost, mut level) = (here, self);
        while let Some(above) = level.above.get() {
            level = above.supervisor;
            if level.has_round_of(level.members.at(above.place)) {
                topmost = Some(level);
            }
        }
        topmost
    }

    fn has_round_of(&self, child: &Member) -> bool {
        match self.round.load(Ordering::Relaxed) {
            NO_ROUND => false,
            CLOSING => true,
            from => u64::from(child.order()) >= from,
        }
    }

    /// Whether all children are to be ended for good.
    pub(super) fn is_closing(&self) -> bool {
        self.round.load(Ordering::Relaxed) == CLOSING
    }

    /// Does the next step of the round. If that is the start of `current`, which is before its
    /// keeper, returns the verdict on it.
    pub(super) fn go_on(&self, orders: &Orders<'_>, current: Option<TaskId>) -> Option<Verdict> {
        self.condemn(orders);
        let round = self.round.load(Ordering::Relaxed);
        let from = u32::try_from(round).unwrap_or(0);
        // One after another, the last one first.
        if self.first(from, &|state| state == State::Ending).is_some() {
            return None;
        }
        while let Some(member) = self.last(from, &|state| state == State::Condemned) {
            // First the kill, then the mark: if the keeper dies in between, it is killed again.
            if orders.kill(member.id()).is_ok() {
                member.change(State::Condemned, State::Ending);
                return None;
            }
            // There is no room for such a task, so there is none.
            member.set(State::Free);
        }
        if round == CLOSING {
            while let Some(member) = self.first(0, &|state| state == State::Down) {
                member.set(State::Ending);
                // If it comes too late, the task has ended.
                let _ = orders.answer(member.id(), Verdict::Exit);
            }
            if self.first(0, &|_| true).is_none() {
                self.end_round();
                self.restarts.forget();
            }
            return None;
        }
        // One after another, the first one first; none before the last one is down.
        let waits_for = |state| matches!(state, State::Doomed | State::Rising);
        if self.first(from, &waits_for).is_some() {
            return None;
        }
        let Some(member) = self.first(from, &|state| state == State::Down) else {
            self.end_round();
            return None;
        };
        let verdict = restart_after(self.waits(orders.now()));
        if current == Some(member.id()) {
            member.set(State::Rising);
            return Some(verdict);
        }
        // First the answer, then the mark, as above. If it comes too late, somebody else has ruled,
        // and says so when that is done.
        let _ = orders.answer(member.id(), verdict);
        member.change(State::Down, State::Rising);
        None
    }

    /// Has the round wait with its first start until so many ticks from now.
    pub(super) fn wait(&self, now: u64, delay: u64) {
        self.starts_at.fetch_max(now.saturating_add(delay), Ordering::Relaxed);
    }

    /// How long the round waits with its first start, from now on.
    pub(super) fn waits(&self, now: u64) -> u64 {
        self.starts_at.load(Ordering::Relaxed).saturating_sub(now)
    }

    fn end_round(&self) {
        self.round.store(NO_ROUND, Ordering::Relaxed);
        self.starts_at.store(0, Ordering::Relaxed);
        self.members.all().filter_map(Member::nested).for_each(Supervisor::end_round);
    }

    /// The first task below here, from the child of this order on, that is at that.
    fn first<'a>(&'a self, from: u32, is: &dyn Fn(State) -> bool) -> Option<&'a Member> {
        let mut next = self.members.first_from(from);
        while let Some(member) = next {
            let found = match member.nested() {
                Some(below) => below.first(0, is),
                None => is(member.state()).then_some(member),
            };
            if found.is_some() {
                return found;
            }
            next = self.members.first_from(member.order() + 1);
        }
        None
    }

    /// The last task below here, from the child of this order on, that is at that.
    fn last<'a>(&'a self, from: u32, is: &dyn Fn(State) -> bool) -> Option<&'a Member> {
        let mut next = self.members.last_up_to(u32::MAX);
        while let Some(member) = next.filter(|member| member.order() >= from) {
            let found = match member.nested() {
                Some(below) => below.last(0, is),
                None => is(member.state()).then_some(member),
            };
            if found.is_some() {
                return found;
            }
            next = self.members.last_up_to(member.order() - 1);
        }
        None
    }
}

/// A restart after so many ticks, or at once.
pub(super) const fn restart_after(ticks: u64) -> Verdict {
    match ticks {
        0 => Verdict::Restart,
        ticks => Verdict::RestartAfter(ticks),
    }
}
