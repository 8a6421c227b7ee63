//! A lock for many readers or one writer.
//!
//! Two words: who writes, as a mutex has it, and how many read.
//!
//! ```text
//!  reader                                   writer
//!  ───────────────────────────────────      ──────────────────────────────────────────────
//!  add one to the readers  (window)         take the owner's word  (window)
//!  ═══ full barrier ═══               ◄──►  ═══ full barrier ═══
//!  does nobody write? then done, else:      wait until nobody reads
//!  take one off again, and wait             entry: "drains" becomes "writes"
//! ```
//!
//! The two barriers pair: of two tasks that each write and then read what the other writes, at
//! least one sees the other's write. So a reader and a writer are never both in.
//!
//! # A reader that dies
//! For those who read, it is one that stands still for ever in the middle of what it does, and a
//! `Sync` value has to bear that from any reader, dead or not: so they are not told. But a writer
//! would wait for a reader that stands still, and be right to: it gets the value for itself *because*
//! of the death. So the death leaves a mark (see [`readers`]), and the next writer is told.
#![expect(unsafe_code, reason = "a lock hands out references to its interior")]

mod death;
mod guards;
mod readers;
#[cfg(test)]
mod tests;

use core::cell::UnsafeCell;
use core::fmt;
use core::marker::PhantomData;
use core::mem::ManuallyDrop;
use core::sync::atomic::Ordering;

use spin::relax::Spin;

use crate::arch;
use crate::entry::Place;
use crate::owner_word::{self, FREE, OwnerWord, State, Taken, TryRefused};
use crate::{
    CurrentLedger, Ledger, LedgerFull, LockError, LockResult, MaybeTorn, TryLockError,
    TryLockResult, UntornByReaders, WaitStrategy,
};
use readers::Readers;

pub use guards::{ReadGuard, WriteGuard};

/// A lock that many tasks may read through at once, or one may write through.
///
/// Each reader stands in the ledger of its task, and a dead one is taken off the count, once. When a
/// *writer* dies, the next to write is told as with [`Mutex`](crate::Mutex); until one has put the
/// value right, reading is refused.
///
/// When a *reader* dies, the next to write is told in the same way: a reader may change the value by
/// interior mutability (a lock of another crate in it, say), and the `&mut` of a writer,
/// [`get_mut`](Self::get_mut) and the value's drop go around whatever the reader held of that. Others
/// may read on meanwhile, for what they do with the value is sound beside a reader that has stopped
/// anywhere. For a type that no reader can tear there is nothing to tell: see
/// [`new_untorn`](Self::new_untorn).
///
/// Writers go first: once one waits, new readers wait for it, and only those that read already
/// hold it up. So writers can keep readers out for as long as they follow each other. A task that
/// reads may read again all the same, for it would wait for itself.
///
/// ```
/// # use core::ptr::NonNull;
/// # use drop_registry::{CurrentLedger, Ledger, LockError, RwLock};
/// # struct Kernel;
/// # static LEDGER: Ledger = Ledger::new();
/// # // SAFETY: one task, one ledger.
/// # unsafe impl CurrentLedger for Kernel {
/// #     fn current() -> NonNull<Ledger> { NonNull::from(&LEDGER) }
/// # }
/// static ROUTES: RwLock<[u32; 4], Kernel> = RwLock::new([0; 4]);
///
/// ROUTES.write().expect("nobody died")[2] = 7;
/// let (one, another) = (ROUTES.read().unwrap(), ROUTES.read().unwrap());
/// assert_eq!(one[2] + another[2], 14);
/// assert!(ROUTES.try_write().is_err());
/// ```
#[repr(C)]
pub struct RwLock<T: ?Sized, L: CurrentLedger, R: WaitStrategy<L> = Spin> {
    /// Who writes, or waits for the readers to leave; and the marks of a death.
    word: OwnerWord,
    /// How many read, or have come in to see whether they may; and the mark of a reader's death.
    readers: Readers,
    waiters: R::Waiters,
    /// Whether a reader's death is told of, or 0. No `bool`: the settlement reads it, whatever has
    /// been written over it.
    tells_of_readers: u8,
    context: PhantomData<fn() -> (L, R)>,
    /// Dropped by `Drop` alone, which knows whether it is whole.
    value: UnsafeCell<ManuallyDrop<T>>,
}

// SAFETY: the lock hands the value to one task, or shared to many.
unsafe impl<T: ?Sized + Send + Sync, L: CurrentLedger, R: WaitStrategy<L>> Sync
    for RwLock<T, L, R>
{
}
// SAFETY: it owns the value.
unsafe impl<T: ?Sized + Send, L: CurrentLedger, R: WaitStrategy<L>> Send for RwLock<T, L, R> {}

/// Why [`RwLock::read`] did not return a guard. The lock is not held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadError {
    /// A writer died, and the value may be torn. A writer is to put it right: see
    /// [`LockError::OwnerDied`].
    OwnerDied,
    /// A writer was told of that, and gave the value up. For good.
    NotRecoverable,
    /// The calling task writes.
    Recursive,
    /// The calling task's ledger has no room to say that it reads.
    LedgerFull,
}

/// Why [`RwLock::try_read`] did not return a guard. The lock is not held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TryReadError {
    /// Another task writes, or waits to.
    WouldBlock,
    /// As when waiting for it.
    Read(ReadError),
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OwnerDied => f.write_str("a writer died, and nobody has put the value right"),
            Self::NotRecoverable => f.write_str("the lock's value was given up after a death"),
            Self::Recursive => f.write_str("the task writes through this lock"),
            Self::LedgerFull => LedgerFull.fmt(f),
        }
    }
}

impl fmt::Display for TryReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WouldBlock => f.write_str("another task writes"),
            Self::Read(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for ReadError {}
impl core::error::Error for TryReadError {}

impl From<LedgerFull> for ReadError {
    fn from(_: LedgerFull) -> Self {
        Self::LedgerFull
    }
}

impl<T, L: CurrentLedger, R: WaitStrategy<L>> RwLock<T, L, R> {
    /// A free lock around `value`, whose writers are told of a reader's death.
    pub const fn new(value: T) -> Self {
        Self::telling_of_readers(1, value)
    }

    /// A free lock around a value that no reader can tear: its writers are told of a *writer's* death
    /// alone.
    ///
    /// ```
    /// # use core::ptr::NonNull;
    /// # use drop_registry::{CurrentLedger, Ledger, RwLock, UntornByReaders};
    /// # struct Kernel;
    /// # static LEDGER: Ledger = Ledger::new();
    /// # // SAFETY: one task, one ledger.
    /// # unsafe impl CurrentLedger for Kernel {
    /// #     fn current() -> NonNull<Ledger> { NonNull::from(&LEDGER) }
    /// # }
    /// struct Routes {
    ///     next_hop: Vec<u32>,
    /// }
    /// // SAFETY: nothing in it can be changed through a shared reference.
    /// unsafe impl UntornByReaders for Routes {}
    ///
    /// static ROUTES: RwLock<Routes, Kernel> = RwLock::new_untorn(Routes { next_hop: Vec::new() });
    /// # assert!(ROUTES.read().unwrap().next_hop.is_empty());
    /// ```
    pub const fn new_untorn(value: T) -> Self
    where
        T: UntornByReaders,
    {
        Self::telling_of_readers(0, value)
    }

    const fn telling_of_readers(tells_of_readers: u8, value: T) -> Self {
        Self {
            word: OwnerWord::new(),
            readers: Readers::none(),
            waiters: R::NOBODY,
            tells_of_readers,
            context: PhantomData,
            value: UnsafeCell::new(ManuallyDrop::new(value)),
        }
    }
}

impl<T: ?Sized, L: CurrentLedger, R: WaitStrategy<L>> RwLock<T, L, R> {
    /// Takes the lock for reading, waiting for a writer if need be.
    ///
    /// # Errors
    /// [`ReadError`] says each; none of them holds the lock.
    ///
    /// # Panics
    /// If there are 2^63 readers.
    #[inline(always)]
    pub fn read(&self) -> Result<ReadGuard<'_, T, L, R>, ReadError> {
        let frame = arch::frame_address();
        let guard = self.come_in(frame)?;
        if self.word.state() == State::Free { Ok(guard) } else { self.read_contended(guard, frame) }
    }

    /// Comes in again and again, for the frame at stack pointer `frame`, until nobody writes.
    #[cold]
    #[inline(never)]
    fn read_contended<'a>(
        &'a self,
        mut guard: ReadGuard<'a, T, L, R>,
        frame: u64,
    ) -> Result<ReadGuard<'a, T, L, R>, ReadError> {
        loop {
            if let Some(guard) = self.leave_and_wait(guard, frame)? {
                return Ok(guard);
            }
            guard = self.come_in(frame)?;
        }
    }

    /// Takes the lock for reading if nobody writes.
    ///
    /// # Errors
    /// [`TryReadError::WouldBlock`] if somebody does; else as [`RwLock::read`].
    ///
    /// # Panics
    /// As [`RwLock::read`].
    #[inline(always)]
    pub fn try_read(&self) -> Result<ReadGuard<'_, T, L, R>, TryReadError> {
        let guard =
            self.come_in(arch::frame_address()).map_err(|full| TryReadError::Read(full.into()))?;
        match self.why_not_read(&guard) {
            None => Ok(guard),
            Some(why) => Err(why),
        }
    }

    /// Counts the calling task as a reader; whether it may read is to be seen.
    #[inline(always)]
    fn come_in(&self, frame: u64) -> Result<ReadGuard<'_, T, L, R>, LedgerFull> {
        // SAFETY: `CurrentLedger`: the ledger is this task's and lives as long as it.
        let ledger = unsafe { L::current().as_ref() };
        let depth = ledger.room()?;
        // SAFETY: one more in the count is to be a reader in the sense of `READS`. The locked
        // increment is the reader's barrier, and Acquire for what the last writer wrote.
        let counted =
            unsafe { arch::increment(self.readers.get(), Self::READS, ledger, depth, frame) };
        assert!(counted, "more than 2^63 readers of one lock");
        Ok(ReadGuard::new(self, Place::new(ledger, depth)))
    }

    /// Why a task that has come in may not read.
    #[inline(always)]
    fn why_not_read(&self, _: &ReadGuard<'_, T, L, R>) -> Option<TryReadError> {
        match self.word.state() {
            State::Free => None,
            // SAFETY: as in `come_in`.
            state => self.why_not_read_now(state, unsafe { L::current().as_ref() }),
        }
    }

    #[cold]
    #[inline(never)]
    fn why_not_read_now(&self, state: State, ledger: &Ledger) -> Option<TryReadError> {
        let listed = ledger.held().filter(|entry| entry.resource() == self.as_read_resource());
        match state {
            // Whoever reads already keeps all writers out.
            _ if listed.count() > 1 => None,
            State::Free => None,
            State::OwnerDied => Some(TryReadError::Read(ReadError::OwnerDied)),
            State::NotRecoverable => Some(TryReadError::Read(ReadError::NotRecoverable)),
            State::Owned(owner) if owner == owner_word::owner(ledger) => {
                Some(TryReadError::Read(ReadError::Recursive))
            }
            State::Owned(_) => Some(TryReadError::WouldBlock),
        }
    }

    /// What a reader does that has come in while somebody writes: it may stay after all, or leaves
    /// and waits until it is worth coming in again.
    fn leave_and_wait<'a>(
        &'a self,
        guard: ReadGuard<'a, T, L, R>,
        frame: u64,
    ) -> Result<Option<ReadGuard<'a, T, L, R>>, ReadError> {
        match self.why_not_read(&guard) {
            None => return Ok(Some(guard)),
            Some(TryReadError::Read(error)) => return Err(error),
            Some(TryReadError::WouldBlock) => drop(guard),
        }
        // SAFETY: as in `come_in`.
        let ledger = unsafe { L::current().as_ref() };
        let waiting = ledger.wait_for(self.word.as_resource());
        let result = R::wait_until(&self.waiters, frame, || {
            (!self.word.is_owned()).then_some(Ok::<_, LedgerFull>(()))
        });
        drop(waiting);
        Ok(result.map(|()| None)?)
    }

    /// Takes the lock for writing, waiting for it if need be.
    ///
    /// # Errors
    /// [`LockError`] says each; of these [`LockError::OwnerDied`] holds the lock.
    /// [`LockError::Recursive`] is also for a task that reads: it would wait for itself.
    #[inline(always)]
    pub fn write(&self) -> LockResult<WriteGuard<'_, T, L, R>> {
        // SAFETY: as in `come_in`.
        let ledger = unsafe { L::current().as_ref() };
        let depth = ledger.room()?;
        // SAFETY: to own the word is what `DRAINS` means; the ledger is this task's.
        if unsafe { self.word.take_from(FREE, Self::DRAINS, ledger, depth) } {
            return self.drain(Taken::WHOLE, ledger, arch::frame_address());
        }
        self.write_contended(ledger, arch::frame_address())
    }

    /// Takes the lock for writing if nobody has it.
    ///
    /// # Errors
    /// [`TryLockError::WouldBlock`] if somebody does; else as [`RwLock::write`].
    #[inline(always)]
    pub fn try_write(&self) -> TryLockResult<WriteGuard<'_, T, L, R>> {
        // SAFETY: as in `come_in`.
        let ledger = unsafe { L::current().as_ref() };
        let frame = arch::frame_address();
        // SAFETY: as in `write`.
        let taken = unsafe { self.word.take(Self::DRAINS, ledger, frame) }?;
        if let Some(died) = self.readers.have_left() {
            return self.begin_writing(taken.or_died(died), ledger).map_err(TryLockError::Lock);
        }
        self.step_back(taken, ledger);
        Err(if self.is_read_by(ledger) {
            TryLockError::Lock(LockError::Recursive)
        } else {
            TryLockError::WouldBlock
        })
    }

    #[cold]
    #[inline(never)]
    fn write_contended(&self, ledger: &Ledger, frame: u64) -> LockResult<WriteGuard<'_, T, L, R>> {
        if self.is_read_by(ledger) {
            return Err(LockError::Recursive);
        }
        let waiting = ledger.wait_for(self.word.as_resource());
        // SAFETY: as in `write`.
        let taken = R::wait_until(&self.waiters, frame, || unsafe {
            match self.word.take(Self::DRAINS, ledger, frame) {
                Ok(taken) => Some(Ok(taken)),
                Err(TryRefused::WouldBlock) => None,
                Err(TryRefused::Refused(why)) => Some(Err(why)),
            }
        });
        drop(waiting);
        match taken {
            Ok(taken) => self.drain(taken, ledger, frame),
            Err(refused) => Err(refused.into()),
        }
    }

    /// Waits until nobody reads; the word is the calling task's.
    #[inline(always)]
    fn drain(
        &self,
        taken: Taken,
        ledger: &Ledger,
        frame: u64,
    ) -> LockResult<WriteGuard<'_, T, L, R>> {
        if self.readers.are_none() {
            return self.begin_writing(taken, ledger);
        }
        self.drain_readers(taken, ledger, frame)
    }

    #[cold]
    #[inline(never)]
    fn drain_readers(
        &self,
        taken: Taken,
        ledger: &Ledger,
        frame: u64,
    ) -> LockResult<WriteGuard<'_, T, L, R>> {
        if let Some(died) = self.readers.have_left() {
            return self.begin_writing(taken.or_died(died), ledger);
        }
        if self.is_read_by(ledger) {
            self.step_back(taken, ledger);
            return Err(LockError::Recursive);
        }
        let waiting = ledger.wait_for(self.as_read_resource());
        let drained = R::wait_until(&self.waiters, frame, || {
            self.readers.have_left().map(Ok::<_, LedgerFull>)
        });
        drop(waiting);
        match drained {
            Ok(died) => self.begin_writing(taken.or_died(died), ledger),
            Err(LedgerFull) => {
                self.step_back(taken, ledger);
                Err(LockError::LedgerFull)
            }
        }
    }

    /// From here on the value may be torn if the task dies.
    #[inline(always)]
    fn begin_writing(&self, taken: Taken, ledger: &Ledger) -> LockResult<WriteGuard<'_, T, L, R>> {
        let entry = ledger.own(self.word.as_resource());
        entry.convert(Self::WRITES);
        taken.tell(WriteGuard::new(self, Place::of(entry)))
    }

    /// Gives the word back as it was, before anything has been written.
    #[cold]
    fn step_back(&self, taken: Taken, ledger: &Ledger) {
        // SAFETY: the word is this task's.
        unsafe {
            let entry = ledger.own(self.word.as_resource());
            self.unlock_write(taken.marks(), ledger, Place::of(entry));
        }
    }

    /// # Safety
    /// The word is the calling task's, whose ledger this is and lists that at `place`, unless the
    /// entry has been moved; and `value` gives it up.
    #[inline(always)]
    unsafe fn unlock_write(&self, value: u64, ledger: &Ledger, place: Place) {
        if R::SLEEPS {
            // The entry stands until the wake-ups have been given: should the task die in between,
            // the word says whether it still held the lock.
            // Release for whoever comes in next; and the waker's barrier (see `wait_queue`).
            self.word.get().swap(value, Ordering::SeqCst);
            R::wake_all(&self.waiters);
            // Looked up after that: to unpark may have moved it.
            ledger.own(self.word.as_resource()).erase();
            ledger.trim();
        } else {
            // SAFETY: this function's contract.
            unsafe { R::unlock(self.word.get(), value, &self.waiters, ledger, place) };
        }
    }

    /// How many tasks read, or look whether they may: of use to a check or a report, and stale at
    /// once.
    pub fn reader_count(&self) -> u64 {
        self.readers.count()
    }

    /// Whether somebody writes, or waits for the readers to leave: of use to a check or a report,
    /// and stale at once.
    pub fn is_write_locked(&self) -> bool {
        self.word.is_owned()
    }

    /// The value, through an exclusive reference to the lock: no locking needed.
    ///
    /// # Errors
    /// If its last writer died, or a reader since it was last written, or it was given up: the value
    /// may be torn.
    pub fn get_mut(&mut self) -> Result<&mut T, MaybeTorn> {
        let whole = self.word.is_whole() && !self.readers.are_marked();
        if whole { Ok(self.value.get_mut()) } else { Err(MaybeTorn) }
    }

    /// What an entry of a reader lists.
    fn as_read_resource(&self) -> *mut () {
        self.readers.get().as_ptr().cast()
    }

    fn is_read_by(&self, ledger: &Ledger) -> bool {
        ledger.find(self.as_read_resource()).is_some()
    }
}

/// Drops the value if it is whole: if no writer died, and no reader that may have torn it.
///
/// # Panics
/// If another task holds the lock, or it has been moved since it was locked; both are possible only
/// if a guard was forgotten. The panic does not unwind.
impl<T: ?Sized, L: CurrentLedger, R: WaitStrategy<L>> Drop for RwLock<T, L, R> {
    fn drop(&mut self) {
        if self.reader_count() > 0 {
            // Their guards were forgotten.
            owner_word::forget_listed::<L>(self.as_read_resource(), self.reader_count());
        }
        if self.word.retire::<L>() && !self.readers.are_marked() {
            // SAFETY: dropped once, here; nobody has a guard, since it would borrow the lock.
            unsafe { ManuallyDrop::drop(self.value.get_mut()) };
        }
    }
}

impl<T: ?Sized, L: CurrentLedger, R: WaitStrategy<L>> fmt::Debug for RwLock<T, L, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lock = f.debug_struct("RwLock");
        self.word.describe(&mut lock);
        lock.field("readers", &self.reader_count())
            .field("reader_died", &self.readers.are_marked())
            .field("waiters", &self.waiters)
            .finish()
    }
}
