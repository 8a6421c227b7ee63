//! Anything else that must be put back.
#![expect(unsafe_code, reason = "writes entries and calls back through them")]

use core::fmt;
use core::marker::PhantomData;

use crate::arch;
use crate::hand_over::sealed::Sealed;
use crate::operations::Marked;
use crate::{
    CurrentLedger, Entry, Extent, Ledger, LedgerFull, Operations, Outcome, OwnLedger, ResourceKind,
};

/// Something that a task has changed for a while and must put back: interrupts masked on a
/// device, a flag raised.
///
/// The data are one task's until its entry is gone. The entry goes after the change has been
/// undone, so a task that makes the change as soon as it sees it undone may have its own undone:
/// by the first one, should that die in between. So where several tasks make a change, the change
/// itself (a slot that is free again, say) cannot tell whose turn it is. A lock can: held before
/// the duty is taken on and until it is met, as guards dropped in reverse order are, it is released
/// after the entry has gone, by a death too.
///
/// # Safety
/// [`undo`](Self::undo) may be called by the keeper, from another task, at any time after the
/// task that owed it died: it allocates nothing, takes no lock, waits for nothing and does not
/// panic. And it may be called *again* after it has run in part or in full, because a task can die
/// inside it: storing a value is right, adding one is not. That is sound also if another task has
/// taken the duty on in the meantime, against the rule above.
pub unsafe trait Undo: Sync {
    /// Puts it back.
    fn undo(&self);
}

/// A duty to [`undo`](Undo::undo), met when this is dropped, or when its task dies.
///
/// What it is about lives for ever, since a duty can be forgotten (`mem::forget`), and is met by the
/// keeper then, after what a shorter borrow was of has gone. A pair of data and a function to release
/// them is a struct with an `Undo`.
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
    /// What the entry has, to tell it from that of another obligation whose data begin at the same
    /// address. Kept as it was written: a constant may have several addresses.
    operations: &'static Operations,
    context: PhantomData<fn() -> L>,
    not_send: PhantomData<*mut ()>,
}

impl<D: Undo, L: CurrentLedger> Obligation<D, L> {
    const OPERATIONS: &'static Operations = &Operations::releasing(
        ResourceKind::Obligation,
        Extent::of::<D>().marked(Marked::OBLIGATION),
        release::<D>,
    );

    /// Takes on the duty. Call it before making the change that it undoes: a task that dies in
    /// between then undoes what it has not done, which [`Undo`] allows.
    ///
    /// # Errors
    /// If the task's ledger is full.
    #[inline(always)]
    pub fn new(data: &'static D) -> Result<Self, LedgerFull> {
        let ledger = OwnLedger::<L>::current();
        let resource = Marked::OBLIGATION.mark(core::ptr::from_ref(data).cast_mut());
        let operations = Self::OPERATIONS;
        // SAFETY: `data` lives for ever, and `Undo` lets it be undone at any time from now on.
        unsafe { ledger.record(resource, operations, arch::frame_address()) }?;
        Ok(Self { data, operations, context: PhantomData, not_send: PhantomData })
    }

    /// Its entry, or another one under which the same would be done.
    ///
    /// # Panics
    /// If the task does not have the obligation.
    fn entry<'l>(&self, ledger: &'l Ledger) -> &'l Entry {
        let resource = Marked::OBLIGATION.mark(core::ptr::from_ref(self.data).cast_mut());
        ledger
            .held()
            .find(|entry| entry.resource() == resource && entry.has(self.operations))
            .expect("an obligation is met, or handed over, by the task that has it")
    }
}

// SAFETY: `Undo`: any task may meet it. Its word is the address of the data, which is not 0.
unsafe impl<D: Undo, L: CurrentLedger> Sealed for Obligation<D, L> {
    type Context = L;

    fn listed<'l>(&self, ledger: OwnLedger<'l, L>) -> (&'l Entry, u64) {
        let data = core::ptr::from_ref(self.data).cast_mut();
        (self.entry(ledger.as_ledger()), data.expose_provenance() as u64)
    }

    #[inline(always)]
    fn under(word: u64) -> (*mut (), &'static Operations) {
        let data = core::ptr::with_exposed_provenance_mut::<D>(word as usize);
        (Marked::OBLIGATION.mark(data), Self::OPERATIONS)
    }

    #[inline(always)]
    unsafe fn from_word(word: u64, operations: &'static Operations) -> Self {
        // SAFETY: a word of `listed` is the address of a `&'static D`.
        let data = unsafe { &*core::ptr::with_exposed_provenance(word as usize) };
        Self { data, operations, context: PhantomData, not_send: PhantomData }
    }
}

impl<D: Undo, L: CurrentLedger> Drop for Obligation<D, L> {
    fn drop(&mut self) {
        let ledger = OwnLedger::<L>::current();
        // Before anything is undone that is not this task's to undo.
        self.entry(ledger.as_ledger());
        // Undone first, erased after: a death in between undoes again, which `Undo` allows.
        self.data.undo();
        // Once more, for that may have acquired something, and entries have been moved.
        self.entry(ledger.as_ledger()).erase();
        ledger.trim();
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{TestTask, kill, on_fresh_ledger};
    use crate::{Mutex, NoKill, Slot};
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

    /// What is undone with a section around it, for which there is room once gaps are closed.
    struct InSection(Flag);

    // SAFETY: one store, however often; and a section that leaves nothing behind.
    unsafe impl Undo for InSection {
        fn undo(&self) {
            let _section = NoKill::<TestTask>::enter();
            self.0.undo();
        }
    }

    #[test]
    fn its_own_entry_goes_though_undoing_moves_entries() {
        let locks: &'static [Mutex<u64, TestTask>; Ledger::CAPACITY] =
            Box::leak(Box::new([const { Mutex::new(0) }; Ledger::CAPACITY]));
        let data: &'static InSection = Box::leak(Box::new(InSection(Flag(AtomicBool::new(true)))));
        kill(|| {
            let first = locks[0].lock().unwrap();
            let owed = Obligation::<_, TestTask>::new(data).unwrap();
            for lock in &locks[2..] {
                core::mem::forget(lock.lock().unwrap());
            }
            drop(first);
            drop(owed);
            assert!(!data.0.0.load(Ordering::Relaxed));
        });
        assert!(locks.iter().all(|lock| !lock.is_locked()), "one was not listed any more");
    }

    /// An obligation whose data begin with those of another.
    #[repr(C)]
    struct Outer {
        inner: Flag,
        raised: AtomicBool,
    }

    // SAFETY: one store, however often.
    unsafe impl Undo for Outer {
        fn undo(&self) {
            self.raised.store(false, Ordering::Relaxed);
        }
    }

    impl Outer {
        fn raised() -> &'static Self {
            let inner = Flag(AtomicBool::new(true));
            Box::leak(Box::new(Self { inner, raised: AtomicBool::new(true) }))
        }

        /// Whether the inner flag is up, and the outer one.
        fn flags(&self) -> (bool, bool) {
            (self.inner.0.load(Ordering::Relaxed), self.raised.load(Ordering::Relaxed))
        }
    }

    /// Data without bytes, of which another may have the address.
    struct Empty;
    static EMPTY_UNDONE: AtomicBool = AtomicBool::new(false);

    // SAFETY: one store, however often.
    unsafe impl Undo for Empty {
        fn undo(&self) {
            EMPTY_UNDONE.store(true, Ordering::Relaxed);
        }
    }

    #[test]
    fn two_obligations_at_one_address_have_entries_of_their_own() {
        let outer = Outer::raised();
        assert_eq!(core::ptr::from_ref(outer).addr(), core::ptr::from_ref(&outer.inner).addr());
        kill(|| {
            let owed = Obligation::<_, TestTask>::new(outer).unwrap();
            core::mem::forget(Obligation::<_, TestTask>::new(&outer.inner).unwrap());
            drop(owed);
        });
        assert_eq!(outer.flags(), (false, false), "the inner obligation was not met");
    }

    #[test]
    fn an_obligation_handed_over_leaves_another_at_its_address() {
        let outer = Outer::raised();
        let mut slot = Slot::<Obligation<Outer, TestTask>>::new();
        kill(|| {
            let owed = Obligation::new(outer).unwrap();
            core::mem::forget(Obligation::<_, TestTask>::new(&outer.inner).unwrap());
            slot.put(owed).unwrap();
        });
        assert_eq!(outer.flags(), (false, true), "the slot's was met, or the task's was not");
        kill(|| {
            let taken = slot.take().unwrap();
            core::mem::forget(Obligation::<_, TestTask>::new(&outer.inner).unwrap());
            drop(taken);
        });
        assert_eq!(outer.flags(), (false, false));
    }

    #[test]
    fn an_obligation_without_bytes_and_another_at_its_address_have_entries_of_their_own() {
        #[repr(C)]
        struct Two(Empty, Flag);
        let two: &'static Two = Box::leak(Box::new(Two(Empty, Flag(AtomicBool::new(true)))));
        assert_eq!(core::ptr::from_ref(&two.0).addr(), core::ptr::from_ref(&two.1).addr());
        kill(|| {
            let owed = Obligation::<_, TestTask>::new(&two.1).unwrap();
            core::mem::forget(Obligation::<_, TestTask>::new(&two.0).unwrap());
            drop(owed);
        });
        assert!(EMPTY_UNDONE.load(Ordering::Relaxed), "the one without bytes was not met");
    }

    /// Data that one task at a time has, by a lock.
    struct Guarded {
        lock: Mutex<(), TestTask>,
        undone_in_lock: AtomicBool,
    }

    // SAFETY: one store, however often.
    unsafe impl Undo for Guarded {
        fn undo(&self) {
            self.undone_in_lock.store(self.lock.is_locked(), Ordering::Relaxed);
        }
    }

    #[test]
    fn an_obligation_taken_on_under_a_lock_is_met_before_the_lock_is_released() {
        let data: &'static Guarded =
            Box::leak(Box::new(Guarded { lock: Mutex::new(()), undone_in_lock: false.into() }));
        kill(|| {
            core::mem::forget(data.lock.lock().unwrap());
            core::mem::forget(Obligation::<_, TestTask>::new(data).unwrap());
        });
        assert!(data.undone_in_lock.load(Ordering::Relaxed), "another task could have come first");
        assert!(!data.lock.is_locked());
    }

    #[test]
    fn death_meets_it() {
        let flag = raised();
        let outcomes = kill(|| core::mem::forget(Obligation::<_, TestTask>::new(flag).unwrap()));
        assert_eq!(outcomes, [Outcome::Released]);
        assert!(!flag.0.load(Ordering::Relaxed));
    }
}
