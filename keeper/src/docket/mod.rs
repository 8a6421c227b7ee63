//! The open cases: made once, and found again whatever becomes of the keeper that had them.
#![expect(unsafe_code, reason = "who has a case alone uses its record")]

mod word;

use alloc::boxed::Box;
use core::cell::UnsafeCell;
use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use task_model::TaskId;

use crate::chain::KeeperId;
use crate::{Report, Verdict};
pub(crate) use word::Phase;
use word::Word;

/// The open cases of all keepers.
pub(crate) struct Docket {
    slots: Box<[Slot]>,
    /// How many cases may be left to somebody else at a time; the other slots are for those that a
    /// keeper has in hand.
    deferrable: usize,
    /// Nothing is due before this.
    next_due: AtomicU64,
}

struct Slot {
    word: AtomicU64,
    /// When the word's phase ends by itself, in ticks; `u64::MAX` if it does not.
    due: AtomicU64,
    /// What goes with a [`Verdict::RestartAfter`].
    delay: AtomicU64,
    /// Whom the record is of, from when it is: see [`Slot::task`].
    task: AtomicU64,
    /// Whether somebody wants the task to end, whatever is ruled.
    killed: AtomicBool,
    record: UnsafeCell<Report>,
}

// SAFETY: the record is used by whoever has the case in hand, which is one keeper: every change of
// hands is a compare-exchange of the word, Release by who gives and Acquire by who takes.
unsafe impl Sync for Docket {}
// SAFETY: numbers, and a report, which is plain data.
unsafe impl Send for Docket {}

impl Docket {
    /// Room for one case of each of so many keepers, and for so many that are left to others.
    pub(crate) fn new(keepers: usize, deferrable: usize) -> Self {
        let slot = |_| Slot {
            word: AtomicU64::new(Word::FREE.pack()),
            due: AtomicU64::new(u64::MAX),
            delay: AtomicU64::new(0),
            task: AtomicU64::new(NO_TASK),
            killed: AtomicBool::new(false),
            record: UnsafeCell::new(Report::empty()),
        };
        Self {
            slots: (0..keepers + deferrable).map(slot).collect(),
            deferrable,
            next_due: AtomicU64::new(u64::MAX),
        }
    }

    /// Opens a case for `keeper`; `None` if all slots are taken.
    pub(crate) fn open(&self, keeper: KeeperId) -> Option<OpenCase<'_>> {
        // A keeper's own number first: its last case was there, and is closed most of the time.
        let (before, after) = self.slots.split_at(usize::from(keeper.number()));
        after.iter().chain(before).find_map(|slot| {
            let word = slot.word();
            if word.phase != Phase::Free {
                return None;
            }
            OpenCase { slot, word }.move_to(Phase::Serving, keeper, None)
        })
    }

    /// Takes up a case that waits for `keeper`, or one for which that serves, and says what was ruled,
    /// if it was.
    pub(crate) fn take_up(
        &self,
        keeper: KeeperId,
        serves_for: impl Fn(KeeperId) -> bool,
    ) -> Option<(OpenCase<'_>, Option<Verdict>)> {
        self.slots.iter().find_map(|slot| {
            let word = slot.word();
            if word.phase != Phase::Waiting || !serves_for(word.keeper) {
                return None;
            }
            // Ruled or not, it is looked at anew: the keeper that has it now rules.
            let case = OpenCase { slot, word }.move_to(Phase::Serving, keeper, None)?;
            Some((case, slot.verdict(word)))
        })
    }

    /// The cases that `keeper`, which is frozen, has or had in hand.
    pub(crate) fn left_by(&self, keeper: KeeperId) -> impl Iterator<Item = OpenCase<'_>> {
        self.slots.iter().filter_map(move |slot| {
            let word = slot.word();
            (word.phase.is_in_hand() && word.keeper == keeper).then_some(OpenCase { slot, word })
        })
    }

    /// Sees to it that the case of `task`, if it has one, ends that. Returns the keeper that is to do
    /// so; `None` if there is no such case.
    pub(crate) fn kill(&self, task: TaskId) -> Option<KeeperId> {
        self.slots.iter().filter(|slot| slot.task() == Some(task)).find_map(|slot| {
            let word = slot.word();
            if matches!(word.phase, Phase::Deferred | Phase::Delayed) {
                let next = word.next(Phase::Waiting, word.keeper, Some(Verdict::Exit));
                return slot.change(word, next).then_some(word.keeper);
            }
            slot.killed.store(true, Ordering::SeqCst);
            // SeqCst, as in `close`: if the case is still open, its keeper sees the mark.
            (slot.task.load(Ordering::SeqCst) == pack_task(task)).then_some(word.keeper)
        })
    }

    /// How many cases are open.
    pub(crate) fn open_cases(&self) -> usize {
        self.slots.iter().filter(|slot| slot.word().phase != Phase::Free).count()
    }

    /// Whether one more case may be left to somebody else.
    fn may_defer(&self) -> bool {
        let deferred = |slot: &&Slot| {
            matches!(slot.word().phase, Phase::Deferring | Phase::Deferred | Phase::Delayed)
        };
        self.slots.iter().filter(deferred).count() < self.deferrable
    }

    /// Rules on a deferred case by its token's numbers. Returns the keeper that is to carry it out;
    /// `None` if it is too late.
    pub(crate) fn answer(
        &self,
        slot: usize,
        generation: u32,
        verdict: Verdict,
    ) -> Option<KeeperId> {
        let slot = self.slots.get(slot)?;
        let word = slot.word();
        if word.generation != generation {
            return None;
        }
        Self::answer_in(slot, word, verdict)
    }

    /// As [`answer`](Self::answer), by the task that the case is of.
    pub(crate) fn answer_for(&self, task: TaskId, verdict: Verdict) -> Option<KeeperId> {
        self.slots.iter().find_map(|slot| {
            let word = slot.word();
            // The word first: while that does not change, neither does the task.
            (slot.task() == Some(task)).then(|| Self::answer_in(slot, word, verdict))?
        })
    }

    fn answer_in(slot: &Slot, word: Word, verdict: Verdict) -> Option<KeeperId> {
        if !matches!(word.phase, Phase::Deferred | Phase::Deferring) {
            return None;
        }
        // Nobody looks at them before the exchange, and one answers at a time.
        slot.set_delay(verdict);
        slot.due.store(u64::MAX, Ordering::Relaxed);
        let next = match word.phase {
            Phase::Deferred => word.next(Phase::Waiting, word.keeper, Some(verdict)),
            // Before the policy that gave the token away has returned: its keeper finds this then.
            Phase::Deferring if word.verdict.is_none() => Word { verdict: Some(verdict), ..word },
            _ => return None,
        };
        slot.change(word, next).then_some(word.keeper)
    }

    /// Ends the phases whose time has come, and tells `each` of the keepers concerned, and whether it
    /// is late itself. Returns at once if there is nothing due.
    pub(crate) fn tick(&self, now: u64, mut each: impl FnMut(KeeperId, Late)) {
        // Relaxed: a hint. It is lowered before the word that it is about is changed.
        if now < self.next_due.load(Ordering::Relaxed) {
            return;
        }
        self.next_due.store(u64::MAX, Ordering::Relaxed);
        for slot in &self.slots {
            let due = slot.due.load(Ordering::Relaxed);
            let word = slot.word();
            let ends = matches!(
                word.phase,
                Phase::Serving | Phase::Deferring | Phase::Deferred | Phase::Delayed
            );
            if !ends || due == u64::MAX {
                continue;
            }
            if now < due {
                self.next_due.fetch_min(due, Ordering::Relaxed);
                continue;
            }
            match word.phase {
                Phase::Delayed | Phase::Deferred => {
                    let verdict = if word.phase == Phase::Delayed {
                        Verdict::Restart
                    } else {
                        Verdict::TryNext
                    };
                    slot.due.store(u64::MAX, Ordering::Relaxed);
                    if slot.change(word, word.next(Phase::Waiting, word.keeper, Some(verdict))) {
                        each(word.keeper, Late::Case);
                    }
                }
                _ => {
                    // Told of once.
                    slot.due.store(u64::MAX, Ordering::Relaxed);
                    each(word.keeper, Late::Keeper);
                }
            }
        }
    }

    fn set_due(&self, slot: &Slot, due: u64) {
        slot.due.store(due, Ordering::Relaxed);
        self.next_due.fetch_min(due, Ordering::Relaxed);
    }

    fn number_of(&self, slot: &Slot) -> usize {
        let bytes = core::ptr::from_ref(slot).addr() - self.slots.as_ptr().addr();
        bytes / size_of::<Slot>()
    }
}

/// What has come to its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Late {
    /// A case, which waits for its keeper now.
    Case,
    /// The keeper itself, which has not ruled in time.
    Keeper,
}

impl fmt::Debug for Docket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.slots.iter().map(Slot::word)).finish()
    }
}

/// What stands for no task: of an id whose number no task can have.
const NO_TASK: u64 = u64::MAX;

fn pack_task(task: TaskId) -> u64 {
    u64::from(task.index) << 32 | u64::from(task.generation)
}

impl Slot {
    fn task(&self) -> Option<TaskId> {
        let packed = self.task.load(Ordering::Acquire);
        (packed != NO_TASK)
            .then_some(TaskId { index: (packed >> 32) as u32, generation: packed as u32 })
    }

    fn word(&self) -> Word {
        // Acquire pairs with the Release in `change`: who takes a case sees what is in its record.
        Word::unpack(self.word.load(Ordering::Acquire))
    }

    /// What `word` says was ruled.
    fn verdict(&self, word: Word) -> Option<Verdict> {
        match word.verdict {
            Some(Verdict::RestartAfter(_)) => {
                // Relaxed: written before the word was changed, which has been seen.
                Some(Verdict::RestartAfter(self.delay.load(Ordering::Relaxed)))
            }
            verdict => verdict,
        }
    }

    /// Puts down what of `verdict` the word has no room for.
    fn set_delay(&self, verdict: Verdict) {
        if let Verdict::RestartAfter(ticks) = verdict {
            self.delay.store(ticks, Ordering::Relaxed);
        }
    }

    /// Changes the word, unless somebody else has.
    fn change(&self, from: Word, to: Word) -> bool {
        // Release: what was written into the record is there for who takes the case next. Relaxed
        // otherwise: nothing is read then.
        self.word
            .compare_exchange(from.pack(), to.pack(), Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
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

    /// Says that the record is of this task from now on.
    pub(crate) fn begin(&self, task: TaskId) {
        self.slot.killed.store(false, Ordering::Relaxed);
        // Release pairs with the Acquire in `Slot::task`, if the keeper dies.
        self.slot.task.store(pack_task(task), Ordering::Release);
    }

    /// Whom the record is of; `None` if its keeper died before it was of anybody.
    pub(crate) fn task(&self) -> Option<TaskId> {
        self.slot.task()
    }

    /// Whether somebody wants the task to end, whatever is ruled.
    pub(crate) fn is_killed(&self) -> bool {
        self.slot.killed.load(Ordering::Relaxed)
    }

    /// What has been ruled, if it has.
    pub(crate) fn verdict(&self) -> Option<Verdict> {
        self.slot.verdict(self.word)
    }

    /// Sets when the keeper must have ruled: so many ticks from now.
    pub(crate) fn rule_by(&self, docket: &Docket, now: u64, patience: u64) {
        if patience != u64::MAX {
            docket.set_due(self.slot, now.saturating_add(patience));
        }
    }

    /// Takes a token out: its slot and generation. `None` if too many cases are left to others.
    pub(crate) fn begin_deferring(&mut self, docket: &Docket) -> Option<(usize, u32)> {
        if self.word.phase != Phase::Serving || !docket.may_defer() {
            return None;
        }
        *self = self.move_to(Phase::Deferring, self.word.keeper, None)?;
        Some((docket.number_of(self.slot), self.word.generation))
    }

    /// Leaves the case to whoever has the token, until `due`. If that has ruled already, says what.
    pub(crate) fn defer(self, docket: &Docket, due: u64) -> Result<(), Verdict> {
        docket.set_due(self.slot, due);
        // The token keeps its generation.
        let deferred = Word { phase: Phase::Deferred, ..self.word };
        if self.slot.change(self.word, deferred) {
            return Ok(());
        }
        Err(self.slot.verdict(self.slot.word()).unwrap_or(Verdict::TryNext))
    }

    /// Leaves the case alone until it is to be restarted.
    pub(crate) fn restart_at(self, docket: &Docket, due: u64) {
        docket.set_due(self.slot, due);
        self.move_to(Phase::Delayed, self.word.keeper, None);
    }

    /// Notes what is ruled: from now on whoever has the case carries that out. A token is void. `None`
    /// if the case is another's by now.
    #[must_use]
    pub(crate) fn rule(self, verdict: Verdict) -> Option<Self> {
        // An answer to a token may have come meanwhile; the policy's own word goes before it.
        let word = self.slot.word();
        if (word.phase, word.generation) != (self.word.phase, self.word.generation) {
            return None;
        }
        self.slot.set_delay(verdict);
        self.slot.due.store(u64::MAX, Ordering::Relaxed);
        Self { word, ..self }.move_to(Phase::Ruled, word.keeper, Some(verdict))
    }

    /// Gives the case to `keeper`, which is to carry out what was ruled, or to rule.
    pub(crate) fn pass_to(self, keeper: KeeperId, verdict: Option<Verdict>) -> bool {
        self.move_to(Phase::Waiting, keeper, verdict).is_some()
    }

    /// The case is over.
    pub(crate) fn close(self) {
        // First, so that the next case does not begin with it. Whoever finds the case like this
        // closes it again.
        self.slot.task.store(NO_TASK, Ordering::Release);
        self.move_to(Phase::Free, self.word.keeper, None);
    }

    fn move_to(self, phase: Phase, keeper: KeeperId, verdict: Option<Verdict>) -> Option<Self> {
        let next = self.word.next(phase, keeper, verdict);
        self.slot.change(self.word, next).then_some(Self { slot: self.slot, word: next })
    }
}
