//! Anything else that must be put back.
#![expect(unsafe_code, reason = "writes entries and calls back through them")]

use core::fmt;
use core::marker::PhantomData;

use crate::arch;
use crate::hand_over::sealed::Sealed;
use crate::operations::Marked;
use crate::{CurrentLedger, Entry, Extent, Ledger, LedgerFull, Operations, Outcome, ResourceKind};

/// Something that a task has changed for a while and must put back: interrupts masked on a
/// device, a slot taken in a table, a flag raised.
///
/// # Safety
/// [`undo`](Self::undo) may be called by the keeper, from another task, at any time after the
/// task that owed it died: it allocates nothing, takes no lock, waits for nothing and does not
/// panic. And it may be called *again* after it has run in part or in full, because a task can die
/// inside it: storing a value is right, adding one is not.
pub unsafe trait Undo: Sync {
    /// Puts it back.
    fn undo(&self);
}

/// A duty to [`undo`](Undo::undo), met when this is dropped, or when its task dies.
///
/// ```
/// # use core::ptr::NonNull;
/// # use core::sync::atomic::{AtomicBool, Ordering};
/// # use drop_registry::{CurrentLedger, Ledger, Obligation, Undo};
/// # struct Kernel;
/// # static LEDGER: Ledger = Ledger::new();
/// # // SAFETY: one task, one ledger.
/// # unsafe impl CurrentLedger for Kernel {
/// #     fn current() -> NonNull<Ledger> { NonNull::from(&LEDGER) }
/// # }
/// struct Masked(AtomicBool);
///
/// // SAFETY: one store, however often.
/// unsafe impl Undo for Masked {
///     fn undo(&self) {
///         self.0.store(false, Ordering::Release);
///     }
/// }
///
/// static DISK: Masked = Masked(AtomicBool::new(false));
///
/// let owed = Obligation::<_, Kernel>::new(&DISK)?;
/// DISK.0.store(true, Ordering::Release);
/// drop(owed);
/// assert!(!DISK.0.load(Ordering::Acquire));
/// # Ok::<(), drop_registry::LedgerFull>(())
/// ```
#[must_use = "the obligation is met when this is dropped"]
pub struct Obligation<D: Undo + 'static, L: CurrentLedger> {
    data: &'static D,
    context: PhantomData<fn() -> L>,
    not_send: PhantomData<*mut ()>,
}

impl<D: Undo, L: CurrentLedger> Obligation<D, L> {
    const OPERATIONS: &'static Operations = &Operations {
        kind: ResourceKind::Obligation,
        bytes: 0,
        extent: Extent::of::<D>().marked(Marked::OBLIGATION),
        release: release::<D>,
        reclaim: nothing,
    };

    /// Takes on the duty. Call it before making the change that it undoes: a task that dies in
    /// between then undoes what it has not done, which [`Undo`] allows.
    ///
    /// # Errors
    /// If the task's ledger is full.
    #[inline(always)]
    pub fn new(data: &'static D) -> Result<Self, LedgerFull> {
        // SAFETY: `CurrentLedger`: the ledger is this task's.
        let ledger = unsafe { L::current().as_ref() };
        let resource = Marked::OBLIGATION.mark(core::ptr::from_ref(data).cast_mut());
        // SAFETY: `data` lives for ever, and `Undo` lets it be undone at any time from now on.
        unsafe { ledger.record(resource, Self::OPERATIONS, arch::frame_address()) }?;
        Ok(Self { data, context: PhantomData, not_send: PhantomData })
    }
}

// SAFETY: `Undo`: any task may meet it. Its word is the address of the data, which is not 0.
unsafe impl<D: Undo, L: CurrentLedger> Sealed for Obligation<D, L> {
    type Context = L;

    fn listed<'l>(&self, ledger: &'l Ledger) -> (&'l Entry, u64) {
        let data = core::ptr::from_ref(self.data).cast_mut();
        (ledger.own(Marked::OBLIGATION.mark(data)), data.expose_provenance() as u64)
    }

    #[inline(always)]
    fn under(word: u64) -> (*mut (), &'static Operations) {
        let data = core::ptr::with_exposed_provenance_mut::<D>(word as usize);
        (Marked::OBLIGATION.mark(data), Self::OPERATIONS)
    }

    #[inline(always)]
    unsafe fn from_word(word: u64) -> Self {
        // SAFETY: a word of `listed` is the address of a `&'static D`.
        let data = unsafe { &*core::ptr::with_exposed_provenance(word as usize) };
        Self { data, context: PhantomData, not_send: PhantomData }
    }
}

impl<D: Undo, L: CurrentLedger> Drop for Obligation<D, L> {
    fn drop(&mut self) {
        // Undone first, erased after: a death in between undoes again, which `Undo` allows.
        self.data.undo();
        // SAFETY: `CurrentLedger`, and the handle is not `Send`.
        let ledger = unsafe { L::current().as_ref() };
        let resource = Marked::OBLIGATION.mark(core::ptr::from_ref(self.data).cast_mut());
        if let Some(entry) = ledger.find(resource) {
            entry.erase();
            ledger.trim();
        }
    }
}

impl<D: Undo, L: CurrentLedger> fmt::Debug for Obligation<D, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Obligation(..)")
    }
}

unsafe fn release<D: Undo>(_: &Ledger, entry: &Entry) -> Outcome {
    // SAFETY: the entry was written by `Obligation::new` with a `&'static D`.
    unsafe { &*Marked::plain(entry.resource()).cast_const().cast::<D>() }.undo();
    entry.erase();
    Outcome::Released
}

unsafe fn nothing(_: &Entry) -> Outcome {
    Outcome::Released
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Mutex;
    use crate::testing::{TestTask, kill, on_fresh_ledger};
    use core::sync::atomic::{AtomicBool, Ordering};
    use std::boxed::Box;

    struct Flag(AtomicBool);

    // SAFETY: one store, however often.
    unsafe impl Undo for Flag {
        fn undo(&self) {
            self.0.store(false, Ordering::Relaxed);
        }
    }

    fn raised() -> &'static Flag {
        Box::leak(Box::new(Flag(AtomicBool::new(true))))
    }

    #[test]
    fn dropping_meets_it() {
        let flag = raised();
        let ledger = on_fresh_ledger(|ledger| {
            let owed = Obligation::<_, TestTask>::new(flag).unwrap();
            assert_eq!(ledger.len(), 1);
            assert!(flag.0.load(Ordering::Relaxed));
            drop(owed);
        });
        assert!(!flag.0.load(Ordering::Relaxed));
        assert!(ledger.is_empty());
    }

    /// An obligation whose data begin with a lock.
    struct Device {
        lock: Mutex<u64, TestTask>,
        masked: AtomicBool,
    }

    // SAFETY: one store, however often.
    unsafe impl Undo for Device {
        fn undo(&self) {
            self.masked.store(false, Ordering::Relaxed);
        }
    }

    #[test]
    fn an_obligation_and_a_lock_at_its_beginning_have_entries_of_their_own() {
        let device: &'static Device =
            Box::leak(Box::new(Device { lock: Mutex::new(1), masked: AtomicBool::new(false) }));
        assert_eq!(core::ptr::from_ref(device).addr(), core::ptr::from_ref(&device.lock).addr());
        kill(|| {
            let guard = device.lock.lock().unwrap();
            let owed = Obligation::<_, TestTask>::new(device).unwrap();
            device.masked.store(true, Ordering::Relaxed);
            drop(guard);
            core::mem::forget(owed);
        });
        assert!(!device.masked.load(Ordering::Relaxed), "the obligation was not met");
        kill(|| {
            let owed = Obligation::<_, TestTask>::new(device).unwrap();
            let guard = device.lock.lock().unwrap();
            drop(owed);
            core::mem::forget(guard);
        });
        assert!(!device.lock.is_locked(), "the lock was not released");
    }

    #[test]
    fn death_meets_it() {
        let flag = raised();
        let outcomes = kill(|| core::mem::forget(Obligation::<_, TestTask>::new(flag).unwrap()));
        assert_eq!(outcomes, [Outcome::Released]);
        assert!(!flag.0.load(Ordering::Relaxed));
    }
}
