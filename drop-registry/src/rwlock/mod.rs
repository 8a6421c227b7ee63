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
//! would wait for a reader that stands still, and be right to: it gets the value for itself
//! *because* of the death. So the death leaves a mark (see [`readers`]), and the next writer is
//! told.
#![expect(unsafe_code, reason = "a lock hands out references to its interior")]

mod death;
mod guards;
mod read_error;
mod readers;
mod reading;
#[cfg(test)]
mod tests;
mod writing;

use core::cell::UnsafeCell;
use core::fmt;
use core::marker::PhantomData;
use core::mem::ManuallyDrop;

use spin::relax::Spin;

use crate::owner_word::{self, OwnerWord};
use crate::{CurrentLedger, Ledger, MaybeTorn, UntornByReaders, WaitStrategy};
use readers::Readers;

pub use guards::{ReadGuard, WriteGuard};
pub use read_error::{ReadError, TryReadError};

/// A lock that many tasks may read through at once, or one may write through.
///
/// Each reader stands in the ledger of its task, and a dead one is taken off the count, once. When
/// a *writer* dies, the next to write is told as with [`Mutex`](crate::Mutex); until one has put
/// the value right, reading is refused.
///
/// When a *reader* dies, the next to write is told in the same way: a reader may change the value
/// by interior mutability (a lock of another crate in it, say), and the `&mut` of a writer,
/// [`get_mut`](Self::get_mut) and the value's drop go around whatever the reader held of that.
/// Others may read on meanwhile, for what they do with the value is sound beside a reader that has
/// stopped anywhere. For a type that no reader can tear there is nothing to tell: see
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

impl<T, L: CurrentLedger, R: WaitStrategy<L>> RwLock<T, L, R> {
    /// A free lock around `value`, whose writers are told of a reader's death.
    pub const fn new(value: T) -> Self {
        Self::telling_of_readers(1, value)
    }

    /// A free lock around a value that no reader can tear: its writers are told of a *writer's*
    /// death alone.
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
    /// If its last writer died, or a reader since it was last written, or it was given up: the
    /// value may be torn.
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

impl<T: Default, L: CurrentLedger, R: WaitStrategy<L>> Default for RwLock<T, L, R> {
    fn default() -> Self {
        Self::new(T::default())
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
