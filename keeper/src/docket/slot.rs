//! One case: its word, and its record.
#![expect(unsafe_code, reason = "who has a case alone uses its record")]

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use task_model::TaskId;

use super::word::{Phase, Word};
use super::{Docket, Late};
use crate::chain::KeeperId;
use crate::{Report, Verdict};

/// Room for a case.
pub(super) struct Slot {
    word: AtomicU64,
    /// When the word's phase ends by itself, in ticks; `u64::MAX` if it does not.
    due: AtomicU64,
    /// What goes with a [`Verdict::RestartAfter`].
    delay: AtomicU64,
    /// Whom the record is of, from when it is: see [`Slot::task`].
    task: AtomicU64,
    /// Who has opened it.
    opener: AtomicU8,
    /// Whether it has been left to somebody else, or to time, since then.
    left: AtomicBool,
    /// Whether somebody wants the task to end, whatever is ruled.
    killed: AtomicBool,
    record: UnsafeCell<Report>,
}

// SAFETY: the record is used by whoever has the case in hand, which is one keeper: every change of
// hands is a compare-exchange of the word, Release by who gives and Acquire by who takes.
unsafe impl Sync for Slot {}

/// What stands for no task: of an id whose number no task can have.
const NO_TASK: u64 = u64::MAX;

impl Slot {
    pub(super) fn free() -> Self {
        Self {
            word: AtomicU64::new(Word::FREE.0),
            due: AtomicU64::new(u64::MAX),
            delay: AtomicU64::new(0),
            task: AtomicU64::new(NO_TASK),
            opener: AtomicU8::new(0),
            left: AtomicBool::new(false),
            killed: AtomicBool::new(false),
            record: UnsafeCell::new(Report::empty()),
        }
    }

    #[inline]
    fn task(&self) -> Option<TaskId> {
        let word = self.task.load(Ordering::Acquire);
        (word != NO_TASK).then_some(TaskId::from_word(word))
    }

    #[inline]
    pub(super) fn word(&self) -> Word {
        // Acquire pairs with the Release in `change`: who takes a case sees what is in its record.
        Word(self.word.load(Ordering::Acquire))
    }

    pub(super) fn due(&self) -> u64 {
        // Relaxed, as all uses: a time, which decides nothing about who has the case.
        self.due.load(Ordering::Relaxed)
    }

    #[inline]
    pub(super) fn set_due(&self, due: u64) {
        self.due.store(due, Ordering::Relaxed);
    }

    pub(super) fn waits(&self) -> bool {
        self.word().is(Phase::Waiting)
    }

    #[inline]
    pub(super) fn open(&self, keeper: KeeperId) -> Option<OpenCase<'_>> {
        let word = self.word();
        if !word.is(Phase::Free) {
            return None;
        }
        let open = OpenCase { slot: self, word }.move_to(Phase::Serving, keeper, None)?;
        // Relaxed: numbers that say how much room there is, and not who has what.
        self.opener.store(keeper.number(), Ordering::Relaxed);
        self.left.store(false, Ordering::Relaxed);
        Some(open)
    }

    /// Whether there is a case here that `keeper` has opened, and that nobody has left to others.
    #[inline]
    pub(super) fn is_still_of(&self, keeper: KeeperId) -> bool {
        !self.word().is(Phase::Free)
            && self.opener.load(Ordering::Relaxed) == keeper.number()
            && !self.left.load(Ordering::Relaxed)
    }

    /// Whether there is a case here that has been left to somebody else, or to time.
    pub(super) fn is_left_to_others(&self) -> bool {
        !self.word().is(Phase::Free) && self.left.load(Ordering::Relaxed)
    }

    pub(super) fn take_up(
        &self,
        keeper: KeeperId,
        serves_for: impl Fn(KeeperId) -> bool,
    ) -> Option<(OpenCase<'_>, Option<Verdict>)> {
        let word = self.word();
        if !word.is(Phase::Waiting) || !serves_for(word.keeper()) {
            return None;
        }
        // What was ruled stays: should this keeper die, too, it may have been done already.
        let case = OpenCase { slot: self, word };
        let case = case.move_to(Phase::Serving, keeper, word.verdict())?;
        Some((case, self.verdict(word)))
    }

    pub(super) fn left_by(&self, keeper: KeeperId) -> Option<OpenCase<'_>> {
        let word = self.word();
        let left = word.is_in_hand() && word.keeper() == keeper;
        left.then_some(OpenCase { slot: self, word })
    }

    /// See [`Docket::kill`].
    pub(super) fn kill(&self, task: TaskId) -> Option<KeeperId> {
        if self.task() != Some(task) {
            return None;
        }
        let word = self.word();
        if matches!(word.phase(), Phase::Deferred | Phase::Delayed) {
            self.set_due(u64::MAX);
            let next = word.next(Phase::Waiting, word.keeper(), Some(Verdict::Exit));
            if self.change(word, next) {
                return Some(word.keeper());
            }
        }
        self.killed.store(true, Ordering::SeqCst);
        // SeqCst, as in `close`: if the case is still open after this, its keeper sees the mark.
        (self.task.load(Ordering::SeqCst) == task.to_word()).then_some(word.keeper())
    }

    /// See [`Docket::answer`].
    pub(super) fn answer(&self, generation: u32, verdict: Verdict) -> Option<KeeperId> {
        let word = self.word();
        (word.generation() == generation).then(|| self.answer_in(word, verdict))?
    }

    /// See [`Docket::answer_for`].
    pub(super) fn answer_for(&self, task: TaskId, verdict: Verdict) -> Option<KeeperId> {
        // The word first: while that does not change, neither does the task.
        let word = self.word();
        (self.task() == Some(task)).then(|| self.answer_in(word, verdict))?
    }

    fn answer_in(&self, word: Word, verdict: Verdict) -> Option<KeeperId> {
        if !matches!(word.phase(), Phase::Deferred | Phase::Deferring) {
            return None;
        }
        let next = match word.phase() {
            Phase::Deferred => word.next(Phase::Waiting, word.keeper(), Some(verdict)),
            // Before the policy that gave the token away has returned: its keeper finds this then.
            Phase::Deferring if word.verdict().is_none() => word.with_verdict(verdict),
            _ => return None,
        };
        // Before the exchange, so that it is there with the verdict; not for an answer that is
        // late.
        self.set_delay(verdict);
        if word.is(Phase::Deferred) {
            self.set_due(u64::MAX);
        }
        self.change(word, next).then_some(word.keeper())
    }

    /// See [`Docket::recall`].
    pub(super) fn recall(&self, task: TaskId, due: u64) -> bool {
        let word = self.word();
        if !word.is(Phase::Delayed) || self.task() != Some(task) {
            return false;
        }
        self.set_due(due);
        self.change(word, word.next(Phase::Deferred, word.keeper(), None))
    }

    /// What comes of a phase whose time is up; `None` if nothing does.
    pub(super) fn end_in_time(&self, word: Word) -> Option<Late> {
        let verdict = match word.phase() {
            Phase::Delayed => Verdict::Restart,
            Phase::Deferred => Verdict::TryNext,
            Phase::Serving | Phase::Deferring | Phase::Ruled => {
                // Told of once.
                self.set_due(u64::MAX);
                return Some(Late::Keeper);
            }
            Phase::Free | Phase::Waiting => return None,
        };
        self.set_due(u64::MAX);
        let next = word.next(Phase::Waiting, word.keeper(), Some(verdict));
        self.change(word, next).then_some(Late::Case)
    }

    /// What `word` says was ruled.
    fn verdict(&self, word: Word) -> Option<Verdict> {
        match word.verdict() {
            Some(Verdict::RestartAfter(_)) => {
                // Relaxed: written before the word was changed, which has been seen.
                Some(Verdict::RestartAfter(self.delay.load(Ordering::Relaxed)))
            }
            verdict => verdict,
        }
    }

    /// Puts down what of `verdict` the word has no room for.
    #[inline]
    fn set_delay(&self, verdict: Verdict) {
        if let Verdict::RestartAfter(ticks) = verdict {
            self.delay.store(ticks, Ordering::Relaxed);
        }
    }

    /// Changes the word, unless somebody else has.
    #[inline]
    fn change(&self, from: Word, to: Word) -> bool {
        // Release: what was written into the record is there for who takes the case next. Relaxed
        // otherwise: nothing is read then.
        self.word.compare_exchange(from.0, to.0, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }
}

/// A case that one keeper has in hand. It is no guard: a case whose keeper dies stays open.
#[derive(Clone, Copy)]
pub(crate) struct OpenCase<'d> {
    slot: &'d Slot,
    word: Word,
}

impl<'d> OpenCase<'d> {
    /// The record of the case.
    ///
    /// # Safety
    /// The caller is the keeper that has the case in hand, or found it [left](Docket::left_by) by
    /// one that is frozen; and no other reference that it got from this is used any more.
    pub(crate) unsafe fn record(&self) -> &'d mut Report {
        // SAFETY: by the contract, nobody else has it: see `Sync`.
        unsafe { &mut *self.slot.record.get() }
    }

    /// The keeper that has it in hand.
    pub(crate) fn keeper(&self) -> KeeperId {
        self.word.keeper()
    }

    /// Says that the record is of this task from now on.
    #[inline]
    pub(crate) fn begin(&self, task: TaskId) {
        self.slot.killed.store(false, Ordering::Relaxed);
        // Release pairs with the Acquire in `Slot::task`, if the keeper dies.
        self.slot.task.store(task.to_word(), Ordering::Release);
    }

    /// Whom the record is of; `None` if its keeper died before it was of anybody.
    #[inline]
    pub(crate) fn task(self) -> Option<TaskId> {
        self.slot.task()
    }

    /// Whether somebody wants the task to end, whatever is ruled.
    #[inline]
    pub(crate) fn is_killed(&self) -> bool {
        self.slot.killed.load(Ordering::Relaxed)
    }

    /// What has been ruled, if it has.
    pub(crate) fn verdict(&self) -> Option<Verdict> {
        self.slot.verdict(self.word)
    }

    /// Sets when the keeper must have ruled, or have done what was ruled.
    #[inline]
    pub(crate) fn rule_by(&self, due: u64) {
        self.slot.set_due(due);
    }

    /// Takes a token out: its slot and generation. `None` if too many cases are left to others.
    pub(crate) fn begin_deferring(&mut self, docket: &Docket) -> Option<(usize, u32)> {
        if !self.word.is(Phase::Serving) || !self.may_be_left(docket) {
            return None;
        }
        *self = self.enter(Phase::Deferring, None)?;
        Some((docket.number_of(self.slot), self.word.generation()))
    }

    /// Whether there is room for this case among those that are left to others; if so, it is one of
    /// them until it is over.
    pub(crate) fn may_be_left(&self, docket: &Docket) -> bool {
        let may = self.slot.left.load(Ordering::Relaxed) || docket.may_defer();
        if may {
            self.slot.left.store(true, Ordering::Relaxed);
        }
        may
    }

    pub(super) fn slot(&self) -> &'d Slot {
        self.slot
    }

    /// The same case, after a token has been taken out.
    pub(crate) fn with_token(self) -> Self {
        Self { word: self.slot.word(), ..self }
    }

    /// Leaves the case to whoever has the token, until `due`. If that has ruled already, says what.
    pub(crate) fn defer(self, due: u64) -> Result<(), Verdict> {
        // It has been answered before the policy came back.
        if let Some(verdict) = self.verdict() {
            return Err(verdict);
        }
        self.slot.set_due(due);
        // The token keeps its generation.
        let deferred = self.word.in_phase(Phase::Deferred);
        if self.slot.change(self.word, deferred) {
            return Ok(());
        }
        Err(self.slot.verdict(self.slot.word()).unwrap_or(Verdict::TryNext))
    }

    /// Leaves the case alone until it is to be restarted.
    pub(crate) fn restart_at(self, due: u64) {
        self.slot.set_due(due);
        self.enter(Phase::Delayed, None);
    }

    /// Notes what is ruled: from now on whoever has the case carries that out. A token is void.
    /// Returns whether the case is still this keeper's.
    #[must_use]
    #[inline]
    pub(crate) fn rule(&mut self, verdict: Verdict) -> bool {
        let word = self.word.next_of_same(Phase::Ruled, Some(verdict));
        if matches!(verdict, Verdict::RestartAfter(_)) || !self.slot.change(self.word, word) {
            return match self.rule_now(verdict) {
                Some(word) => {
                    self.word = word;
                    true
                }
                None => false,
            };
        }
        self.word = word;
        true
    }

    #[cold]
    fn rule_now(self, verdict: Verdict) -> Option<Word> {
        // An answer to a token may have come meanwhile; the policy's own word goes before it.
        let word = self.slot.word();
        if word.generation() != self.word.generation() {
            return None;
        }
        self.slot.set_delay(verdict);
        let next = word.next_of_same(Phase::Ruled, Some(verdict));
        self.slot.change(word, next).then_some(next)
    }

    /// Gives the case to `keeper`, which is to carry out what was ruled, or to rule.
    pub(crate) fn pass_to(self, keeper: KeeperId, verdict: Option<Verdict>) -> bool {
        // Whoever takes it begins without a deadline.
        self.slot.set_due(u64::MAX);
        self.move_to(Phase::Waiting, keeper, verdict).is_some()
    }

    /// Gives the case to `heir`, which is above it, with what was ruled, but for what was left to
    /// that anyway: for a keeper that does no more about it. A token that is answered meanwhile is
    /// answered once, so this is done after two tries.
    pub(crate) fn leave_to(self, heir: KeeperId) {
        let mut open = self;
        while !open.pass_to(heir, open.verdict().filter(|it| *it != Verdict::TryNext)) {
            match self.slot.left_by(self.word.keeper()) {
                Some(now) => open = now,
                None => return,
            }
        }
    }

    /// The case is over. Returns the task, and whether somebody wants that to end, and has not been
    /// [taken note of](Self::take_kill).
    #[inline]
    pub(crate) fn close(self) -> (TaskId, bool) {
        // First, so that the next case does not begin with it. Whoever finds the case like this
        // closes it again.
        let task = self.slot.task.swap(NO_TASK, Ordering::SeqCst);
        self.slot.set_due(u64::MAX);
        // SeqCst, as in `kill`: who set this before it found the task gone is seen.
        let killed = self.slot.killed.load(Ordering::SeqCst);
        self.enter(Phase::Free, None);
        (TaskId::from_word(task), killed)
    }

    /// Whether somebody wants the task to end, whatever is ruled, and has not been taken note of.
    #[inline]
    pub(crate) fn take_kill(&self) -> bool {
        self.is_killed() && self.slot.killed.swap(false, Ordering::SeqCst)
    }

    /// Moves on, and stays with its keeper.
    #[inline]
    fn enter(self, phase: Phase, verdict: Option<Verdict>) -> Option<Self> {
        let next = self.word.next_of_same(phase, verdict);
        self.slot.change(self.word, next).then_some(Self { slot: self.slot, word: next })
    }

    #[inline]
    fn move_to(self, phase: Phase, keeper: KeeperId, verdict: Option<Verdict>) -> Option<Self> {
        let next = self.word.next(phase, keeper, verdict);
        self.slot.change(self.word, next).then_some(Self { slot: self.slot, word: next })
    }
}
