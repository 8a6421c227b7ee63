//! The open cases: made once, and found again whatever becomes of the keeper that had them.

mod slot;
mod word;

use alloc::boxed::Box;
use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use task_model::TaskId;

use crate::Verdict;
use crate::chain::KeeperId;
pub(crate) use slot::OpenCase;
use slot::Slot;
use word::Phase;

/// The open cases of all keepers.
pub(crate) struct Docket {
    slots: Box<[Slot]>,
    /// How many cases may be left to somebody else at a time; the other slots are for those that a
    /// keeper has in hand.
    deferrable: usize,
    /// By keeper.
    last: Box<[LastCase]>,
    /// Whether a case may be waiting for a keeper to take it up.
    any_waits: AtomicBool,
}

/// In which slot a keeper has opened its last case. Until that is over, or left to somebody else,
/// it opens no other: so there is room for one of each keeper at any time, whatever keepers have
/// passed on, or died over.
pub(crate) struct LastCase {
    keeper: KeeperId,
    slot: AtomicU32,
}

impl Docket {
    /// Room for one case of each of so many keepers, and for so many that are left to others.
    pub(crate) fn new(keepers: usize, deferrable: usize) -> Self {
        Self {
            slots: (0..keepers + deferrable).map(|_| Slot::free()).collect(),
            deferrable,
            last: (0..keepers as u8)
                .map(|own| LastCase {
                    keeper: KeeperId::from_number(own),
                    slot: AtomicU32::new(own.into()),
                })
                .collect(),
            any_waits: AtomicBool::new(false),
        }
    }

    /// The last case that `keeper` opened.
    pub(crate) fn last_of(&self, keeper: KeeperId) -> Option<&LastCase> {
        self.last.get(usize::from(keeper.number()))
    }

    /// Opens a case for a keeper, whose last one this is; `None` if that waits still for those
    /// above.
    #[inline]
    pub(crate) fn open(&self, last: &LastCase) -> Option<OpenCase<'_>> {
        // Relaxed: written by who serves as this keeper, and handed on with the seat.
        let slot = self.slots.get(last.slot.load(Ordering::Relaxed) as usize)?;
        // It is closed most of the time, and can be used again.
        if let Some(open) = slot.open(last.keeper) {
            return Some(open);
        }
        self.open_another(last, slot)
    }

    /// Opens a case where there is room, unless the last one, in `slot`, forbids that.
    #[cold]
    fn open_another(&self, last: &LastCase, slot: &Slot) -> Option<OpenCase<'_>> {
        if slot.is_still_of(last.keeper) {
            return None;
        }
        let open = self.slots.iter().find_map(|slot| slot.open(last.keeper))?;
        last.slot.store(self.number_of(open.slot()) as u32, Ordering::Relaxed);
        Some(open)
    }

    /// Whether a case may be waiting for a keeper to take it up.
    #[inline]
    pub(crate) fn may_wait(&self) -> bool {
        // Acquire pairs with the Release in `announce`.
        self.any_waits.load(Ordering::Acquire)
    }

    /// Takes up a case that waits for `keeper`, or one for which that serves, and says what was
    /// ruled, if it was.
    pub(crate) fn take_up(
        &self,
        keeper: KeeperId,
        serves_for: impl Fn(KeeperId) -> bool,
    ) -> Option<(OpenCase<'_>, Option<Verdict>)> {
        let taken = self.slots.iter().find_map(|slot| slot.take_up(keeper, &serves_for));
        if taken.is_none() && !self.slots.iter().any(Slot::waits) {
            self.any_waits.store(false, Ordering::SeqCst);
            // SeqCst: who lets a case wait sets this afterwards, by an exchange; so either it does
            // so after the line above, or the case is seen here.
            if self.slots.iter().any(Slot::waits) {
                self.announce();
            }
        }
        taken
    }

    /// Says that a case may be waiting: after it does; and where a keeper may have died between
    /// saying that none does and looking again.
    pub(crate) fn announce(&self) {
        self.any_waits.swap(true, Ordering::SeqCst);
    }

    /// The cases that `keeper`, which is frozen, has or had in hand.
    pub(crate) fn left_by(&self, keeper: KeeperId) -> impl Iterator<Item = OpenCase<'_>> {
        self.slots.iter().filter_map(move |slot| slot.left_by(keeper))
    }

    /// Sees to it that the case of `task`, if it has one, ends that. Returns the keeper that is to
    /// do so; `None` if there is no such case.
    pub(crate) fn kill(&self, task: TaskId) -> Option<KeeperId> {
        self.slots.iter().find_map(|slot| slot.kill(task)).inspect(|_| self.announce())
    }

    /// How many cases are open.
    pub(crate) fn open_cases(&self) -> usize {
        self.slots.iter().filter(|slot| !slot.word().is(Phase::Free)).count()
    }

    /// Whether one more case may be left to somebody else.
    fn may_defer(&self) -> bool {
        self.slots.iter().filter(|slot| slot.is_left_to_others()).count() < self.deferrable
    }

    /// Rules on a deferred case by its token's numbers. Returns the keeper that is to carry it out;
    /// `None` if it is too late.
    pub(crate) fn answer(
        &self,
        slot: usize,
        generation: u32,
        verdict: Verdict,
    ) -> Option<KeeperId> {
        let keeper = self.slots.get(slot)?.answer(generation, verdict)?;
        self.announce();
        Some(keeper)
    }

    /// As [`answer`](Self::answer), by the task that the case is of.
    pub(crate) fn answer_for(&self, task: TaskId, verdict: Verdict) -> Option<KeeperId> {
        let keeper = self.slots.iter().find_map(|slot| slot.answer_for(task, verdict))?;
        self.announce();
        Some(keeper)
    }

    /// Takes back the restart that the case of `task` is to have later, which is left to somebody
    /// instead, until `due`. Whether there was one.
    pub(crate) fn recall(&self, task: TaskId, due: u64) -> bool {
        self.slots.iter().any(|slot| slot.recall(task, due))
    }

    /// Ends the phases whose time has come, and tells `each` of the keepers concerned: those for
    /// which a case waits, and those that are late themselves. A few instructions for each slot.
    ///
    /// It also finds the cases that wait and of which nobody told, since whoever let them wait died
    /// right after that.
    pub(crate) fn tick(&self, now: u64, mut each: impl FnMut(KeeperId, Late)) {
        for slot in &self.slots {
            let word = slot.word();
            let late = if word.is(Phase::Waiting) {
                Some(Late::Case)
            } else if now < slot.due() {
                None
            } else {
                slot.end_in_time(word)
            };
            if let Some(late) = late {
                self.announce();
                each(word.keeper(), late);
            }
        }
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
