//! What every lock begins with that one task holds at a time: its word, and those who wait for it.
#![expect(unsafe_code, reason = "takes locks, and gives them up, for the living and for the dead")]

use core::fmt;
use core::marker::PhantomData;

use crate::arch;
use crate::operations::nothing_to_reclaim;
use crate::owner_word::{FREE, OwnerWord, Refused, Taken, TryRefused};
use crate::{
    CurrentLedger, Entry, Exclusive, Extent, Ledger, LedgerFull, LockResult, Operations, Outcome,
    OwnLedger, Place, ResourceKind, WaitStrategy,
};

/// What a settlement does about the word of a dead owner, and so about the value behind it.
///
/// The settler changes nothing but the word, in one instruction: so this is all that there is to
/// choose, and it takes no time in the fault path.
pub trait OnDeath: 'static {
    /// What was held, for reports.
    const KIND: ResourceKind;
    /// What is reported of it, if there is nothing to reclaim.
    const OUTCOME: Outcome;
    /// What is to be done in the keeper's own time, when nobody owns the word any more:
    /// [`Operations::reclaim`]. The entry stands until then, so the lock has to be there for ever.
    const RECLAIM: Option<unsafe fn(&Entry) -> Outcome> = None;
    /// The memory that the settlement touches, around the word, if it is more than the lock.
    const EXTENT: Option<Extent> = None;
    /// What the word is to say, by what it said while the dead task owned it: nobody owns it.
    fn word_after(held: u64) -> u64;
}

/// The word and the waiters.
///
/// An entry lists the address of the word, which is that of the whole.
#[repr(C)]
pub(crate) struct RawLock<L: CurrentLedger, R: WaitStrategy<L>> {
    /// The owner's ledger, and the marks.
    pub(crate) word: OwnerWord,
    pub(crate) waiters: R::Waiters,
    context: PhantomData<fn() -> (L, R)>,
}

/// A held lock whose owner's death means `D`.
struct Held<L, R, D>(PhantomData<(L, R, D)>);

impl<L: CurrentLedger, R: WaitStrategy<L>, D: OnDeath> Held<L, R, D> {
    const EXTENT: Extent = match D::EXTENT {
        Some(extent) => extent,
        None => Extent::of::<RawLock<L, R>>(),
    };

    const OPERATIONS: &'static Operations =
        &Operations::releasing(D::KIND, Self::EXTENT, R::release::<D>);

    /// The lock has been freed, and `D` has something to reclaim.
    const OWED: &'static Operations =
        &Operations::releasing(D::KIND, Self::EXTENT, owe_reclaiming::<L, R>).reclaiming(
            0,
            match D::RECLAIM {
                Some(reclaim) => reclaim,
                None => nothing_to_reclaim,
            },
        );
}

impl<L: CurrentLedger, R: WaitStrategy<L>> RawLock<L, R> {
    /// Nobody holds it, and nobody waits.
    pub(crate) const fn new() -> Self {
        Self { word: OwnerWord::new(), waiters: R::NOBODY, context: PhantomData }
    }

    /// What the entry of its owner says.
    pub(crate) const fn held<D: OnDeath>() -> &'static Operations {
        Held::<L, R, D>::OPERATIONS
    }

    /// What the entry of a dead owner says once its lock has been freed, if there is something to
    /// reclaim.
    pub(crate) const fn owed<D: OnDeath>() -> &'static Operations {
        Held::<L, R, D>::OWED
    }

    /// Takes the lock if the word says `marks` and nothing else. Returns where that is listed.
    ///
    /// # Errors
    /// If the ledger is full.
    ///
    /// # Safety
    /// `D` is right for what the task is going to do.
    #[inline(always)]
    pub(crate) unsafe fn take_from<D: OnDeath>(
        &self,
        marks: u64,
        ledger: OwnLedger<'_, L>,
    ) -> Result<Option<Place>, LedgerFull> {
        // SAFETY: this function's contract; to own the word is what `held` undoes.
        unsafe { self.word.take_from(marks, Self::held::<D>(), ledger) }
    }

    /// Takes the lock if nobody holds it, for the frame at stack pointer `frame`.
    ///
    /// # Safety
    /// As [`RawLock::take_from`].
    pub(crate) unsafe fn try_take<D: OnDeath>(
        &self,
        ledger: OwnLedger<'_, L>,
        frame: u64,
    ) -> Result<(Taken, Place), TryRefused> {
        // SAFETY: as in `take_from`.
        unsafe { self.word.take(Self::held::<D>(), ledger, frame) }
    }

    /// Takes the lock, waiting for it as long as somebody holds it.
    ///
    /// # Safety
    /// As [`RawLock::take_from`].
    #[cold]
    #[inline(never)]
    pub(crate) unsafe fn take<D: OnDeath>(
        &self,
        ledger: OwnLedger<'_, L>,
        frame: u64,
    ) -> Result<(Taken, Place), Refused> {
        let _waiting = ledger.wait_for(self.word.as_resource());
        // SAFETY: this function's contract.
        R::wait_until(&self.waiters, frame, || unsafe {
            match self.try_take::<D>(ledger, frame) {
                Ok(taken) => Some(Ok(taken)),
                Err(TryRefused::WouldBlock) => None,
                Err(TryRefused::Refused(why)) => Some(Err(why)),
            }
        })
    }

    /// Takes the lock, waiting for it if need be, with the guard that `guard` makes of the place
    /// where it is listed.
    ///
    /// # Safety
    /// `D` is right for what the task is going to do.
    #[inline(always)]
    pub(crate) unsafe fn lock<D: OnDeath, G: Exclusive>(
        &self,
        guard: impl FnOnce(Place) -> G,
    ) -> LockResult<G> {
        let ledger = OwnLedger::<L>::current();
        // SAFETY: this function's contract.
        if let Some(at) = unsafe { self.take_from::<D>(FREE, ledger) }? {
            return Ok(guard(at));
        }
        // SAFETY: as above.
        let (taken, at) = unsafe { self.take::<D>(ledger, arch::frame_address()) }?;
        taken.tell(guard(at))
    }

    /// Gives the lock up: the word says `marks` from then on.
    ///
    /// # Safety
    /// The calling task holds it, and the entry that lists it was written at `place`.
    #[inline(always)]
    pub(crate) unsafe fn release(&self, marks: u64, place: Place) {
        let ledger = OwnLedger::current();
        // SAFETY: the task holds the lock, and its ledger lists that.
        unsafe { R::unlock(self.word.get(), marks, &self.waiters, ledger, place) };
    }

    /// As [`RawLock::release`], for whoever has not kept the place.
    ///
    /// # Safety
    /// The calling task holds the lock.
    pub(crate) unsafe fn release_found(&self, marks: u64) {
        // SAFETY: as in `release`; the entry is where it is found.
        unsafe { self.release(marks, self.place_in(OwnLedger::current())) };
    }

    /// Where `ledger` lists the lock, which its task holds.
    #[cold]
    #[inline(never)]
    pub(crate) fn place_in(&self, ledger: OwnLedger<'_, L>) -> Place {
        ledger.place_of_own(self.word.as_resource())
    }

    /// Shows a lock of this name by what its word says and who waits.
    pub(crate) fn describe(&self, name: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.describe_in(&mut f.debug_struct(name))
    }

    /// The same, behind what is shown already.
    pub(crate) fn describe_in(&self, lock: &mut fmt::DebugStruct<'_, '_>) -> fmt::Result {
        self.word.describe(lock);
        lock.field("waiters", &self.waiters).finish()
    }
}

/// Wakes who waited for a dead owner's lock, which is free now; the entry stands for the rest.
unsafe fn owe_reclaiming<L: CurrentLedger, R: WaitStrategy<L>>(
    _: &Ledger,
    entry: &Entry,
) -> Outcome {
    // SAFETY: `Operations::release`: the entry lists the word that a live lock of this strategy
    // begins with.
    let lock = unsafe { &*entry.resource().cast_const().cast::<RawLock<L, R>>() };
    R::wake_all(&lock.waiters);
    Outcome::Orphaned
}
