//! The word of a lock that one task holds at a time: who that is, and whether a holder died.
#![expect(unsafe_code, reason = "takes a lock in a window")]

use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering, compiler_fence};

use crate::arch;
use crate::{
    CurrentLedger, Exclusive, Ledger, LedgerFull, LockError, LockResult, Operations, OwnLedger,
    OwnerDied, Place,
};

/// Nobody holds it.
pub(crate) const FREE: u64 = 0;
/// A holder died, and the value has not been marked consistent since. Alone, or beside an owner.
pub(crate) const OWNER_DIED: u64 = 1;
/// Somebody who was told gave up. For good.
pub(crate) const NOT_RECOVERABLE: u64 = 2;
/// The same for the word of an initialisation: it is done.
pub(crate) const DONE: u64 = NOT_RECOVERABLE;
/// Of a value's two copies the second one counts. Alone, or beside an owner.
pub(crate) const SECOND: u64 = 4;
/// The rest of the word: the address of the owner's ledger.
pub(crate) const OWNER: u64 = !(Ledger::ALIGNMENT - 1);

/// What the word of a lock says while the task of this ledger holds it.
pub(crate) fn owner(ledger: &Ledger) -> u64 {
    core::ptr::from_ref(ledger).addr() as u64
}

/// The word. It is what an entry lists as the resource.
#[repr(transparent)]
pub(crate) struct OwnerWord(AtomicU64);

/// That the word has been taken, with the marks that it had, which stay beside the owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Taken(u64);

impl Taken {
    /// From [`FREE`].
    pub(crate) const WHOLE: Self = Self(FREE);

    /// What the word said before.
    pub(crate) const fn marks(self) -> u64 {
        self.0
    }

    /// The same, with the mark of a death that the word knows nothing of.
    pub(crate) const fn or_died(self, died: bool) -> Self {
        if died { Self(self.0 | OWNER_DIED) } else { self }
    }

    /// Whether the last owner died, and nobody has put that right.
    pub(crate) const fn owner_died(self) -> bool {
        self.0 & OWNER_DIED != 0
    }

    /// What the new owner gets, with this guard.
    #[inline(always)]
    pub(crate) fn tell<G: Exclusive>(self, guard: G) -> LockResult<G> {
        if self.owner_died() { Err(LockError::OwnerDied(OwnerDied::new(guard))) } else { Ok(guard) }
    }
}

/// What the word says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Free,
    /// By the task whose ledger is at this address.
    Owned(u64),
    OwnerDied,
    NotRecoverable,
}

/// Why the word has not been taken, and will not be by waiting.
pub(crate) enum Refused {
    /// Nobody will ever own it again.
    Closed,
    Recursive,
    LedgerFull,
}

/// Why the word has not been taken.
pub(crate) enum TryRefused {
    /// Another task owns it.
    WouldBlock,
    Refused(Refused),
}

impl From<LedgerFull> for Refused {
    fn from(_: LedgerFull) -> Self {
        Self::LedgerFull
    }
}

impl From<Refused> for TryRefused {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

impl OwnerWord {
    pub(crate) const fn new() -> Self {
        Self(AtomicU64::new(FREE))
    }

    /// Takes the word if it says `marks` and nothing else. Returns where that is listed.
    ///
    /// # Errors
    /// If the ledger is full.
    ///
    /// # Safety
    /// To own the word is what `operations` undo.
    #[inline(always)]
    pub(crate) unsafe fn take_from<L: CurrentLedger>(
        &self,
        marks: u64,
        operations: &'static Operations,
        ledger: OwnLedger<'_, L>,
    ) -> Result<Option<Place>, LedgerFull> {
        let (place, desired) = (ledger.room()?, owner(&ledger) | marks);
        // Not in a closure, which would have a frame of its own.
        // SAFETY: this function's contract; and the place is the ledger's.
        unsafe {
            if arch::acquire(&self.0, marks, desired, operations, place) {
                ledger.pass_over(place);
                Ok(Some(place))
            } else {
                Ok(None)
            }
        }
    }

    /// Takes the word if nobody owns it, for the frame at stack pointer `frame`. Returns what it
    /// said, and where that is listed.
    ///
    /// # Safety
    /// As [`OwnerWord::take_from`].
    pub(crate) unsafe fn take<L: CurrentLedger>(
        &self,
        operations: &'static Operations,
        ledger: OwnLedger<'_, L>,
        frame: u64,
    ) -> Result<(Taken, Place), TryRefused> {
        // Acquire as in `state`.
        let marks = match self.0.load(Ordering::Acquire) {
            NOT_RECOVERABLE => return Err(Refused::Closed.into()),
            word if word & OWNER == owner(&ledger) => return Err(Refused::Recursive.into()),
            word if word & OWNER != 0 => return Err(TryRefused::WouldBlock),
            marks => marks,
        };
        let (word, desired) = (self.as_resource(), owner(&ledger) | marks);
        // SAFETY: this function's contract.
        let taken = unsafe {
            ledger.record_by(|place| {
                arch::claim(&self.0, marks, desired, word, operations, place, frame)
            })
        };
        match taken.map_err(Refused::from)? {
            Some(place) => Ok((Taken(marks), place)),
            None => Err(TryRefused::WouldBlock),
        }
    }

    /// Takes the mark of a death off, for the owner.
    pub(crate) fn clear_mark(&self) {
        // Relaxed: the word is this task's until the unlock, whose store publishes it.
        self.0.fetch_and(!OWNER_DIED, Ordering::Relaxed);
    }

    /// Changes a mark, for the owner.
    pub(crate) fn flip(&self, mark: u64) {
        let word = self.0.load(Ordering::Relaxed);
        // One store, between what the program says before it and after it: if the owner dies, the
        // settler acts on it.
        compiler_fence(Ordering::SeqCst);
        self.0.store(word ^ mark, Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
    }

    /// What it says: stale at once, but for its owner.
    #[inline(always)]
    pub(crate) fn state(&self) -> State {
        // Acquire pairs with the Release of whoever stored this: the last writer, for a reader.
        match self.0.load(Ordering::Acquire) {
            FREE => State::Free,
            OWNER_DIED => State::OwnerDied,
            NOT_RECOVERABLE => State::NotRecoverable,
            word => State::Owned(word & OWNER),
        }
    }

    /// Whether somebody owns it: stale at once.
    pub(crate) fn is_owned(&self) -> bool {
        self.0.load(Ordering::Relaxed) & OWNER != 0
    }

    /// Whether it says [`DONE`].
    #[inline(always)]
    pub(crate) fn is_done(&self) -> bool {
        // Acquire pairs with the Release of the one who stored it.
        self.0.load(Ordering::Acquire) == DONE
    }

    /// Whether nobody holds it, and no death has left a mark.
    pub(crate) fn is_whole(&mut self) -> bool {
        *self.0.get_mut() == FREE
    }

    /// Whether a death has left a mark, or somebody has given up after one.
    #[cfg(feature = "lock_api")]
    pub(crate) fn is_marked(&mut self) -> bool {
        *self.0.get_mut() & !OWNER != 0
    }

    /// The marks beside the owner, for the owner.
    #[cfg(feature = "lock_api")]
    pub(crate) fn marks(&self) -> u64 {
        self.0.load(Ordering::Relaxed) & !OWNER
    }

    /// The word itself.
    pub(crate) const fn get(&self) -> &AtomicU64 {
        &self.0
    }

    pub(crate) fn as_resource(&self) -> *mut () {
        self.0.as_ptr().cast()
    }

    /// Shows what the word says, as a lock's own fields.
    pub(crate) fn describe(&self, lock: &mut fmt::DebugStruct<'_, '_>) {
        let word = self.0.load(Ordering::Relaxed);
        lock.field("held", &(word & OWNER != 0))
            .field("owner_died", &(word & OWNER_DIED != 0))
            .field("not_recoverable", &(word == NOT_RECOVERABLE));
    }

    /// What a lock does about its word when it is destroyed: says whether the value is whole.
    ///
    /// # Panics
    /// If another task holds the lock, or this one does and the lock has been moved since; both
    /// are possible only if the guard was forgotten. Some ledger lists a lock that is about to go,
    /// and cannot be put right from here. The panic does not unwind.
    pub(crate) fn retire<L: CurrentLedger>(&mut self) -> bool {
        let word = *self.0.get_mut();
        if word & OWNER != 0 {
            self.forget_owner::<L>(word);
        }
        word == FREE
    }

    /// Takes a lock whose guard was forgotten out of the ledger that lists it.
    #[cold]
    fn forget_owner<L: CurrentLedger>(&self, word: u64) {
        let ledger = OwnLedger::<L>::current();
        match ledger.find(self.as_resource()) {
            Some(entry) if word & OWNER == owner(&ledger) => {
                entry.erase();
                ledger.trim();
            }
            _ => destroyed_while_held(),
        }
    }
}

/// Takes what was forgotten, so many times, out of the calling task's ledger, which is to list it:
/// for a resource with a count that is destroyed.
///
/// # Panics
/// If it does not list it so often; as [`OwnerWord::retire`].
#[cold]
pub(crate) fn forget_listed<L: CurrentLedger>(resource: *const (), count: u64) {
    let ledger = OwnLedger::<L>::current();
    for _ in 0..count {
        match ledger.find(resource) {
            Some(entry) => entry.erase(),
            None => destroyed_while_held(),
        }
    }
    ledger.trim();
}

/// `extern "C"`, so that the panic cannot be caught and the lock's memory used again.
#[cold]
extern "C" fn destroyed_while_held() -> ! {
    panic!("a lock or a semaphore was destroyed, or moved and destroyed, while a task held it");
}
