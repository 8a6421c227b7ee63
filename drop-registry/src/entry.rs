//! One thing that a task holds, and where that stands in its ledger.

use core::fmt;
use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering, compiler_fence};

use crate::Operations;
use crate::operations::Marked;

/// One thing that a task holds.
///
/// The layout is what the windows write: `repr(C)`, 24 bytes.
#[repr(C)]
pub struct Entry {
    /// The lock word, the count, the block; [`Entry::GAP`] in an entry that has been erased, and
    /// null in those beyond the last.
    pub(crate) resource: AtomicPtr<()>,
    /// A `&'static Operations`.
    pub(crate) operations: AtomicPtr<Operations>,
    /// The stack pointer of the frame that acquired it; and [`Entry::ESCAPED`], by the settlement.
    pub(crate) frame: AtomicU64,
}

impl Entry {
    pub(crate) const fn empty() -> Self {
        Self {
            resource: AtomicPtr::new(ptr::null_mut()),
            operations: AtomicPtr::new(ptr::null_mut()),
            frame: AtomicU64::new(0),
        }
    }

    /// What an entry lists that was erased while others above it were not. Not null, so that the
    /// last entry can be told by what comes after it.
    const GAP: *mut () = ptr::without_provenance_mut(1);

    /// Set in `frame` once the settlement has seen that the frame had returned. Stack pointers are
    /// even.
    const ESCAPED: u64 = 1;

    /// Set in `frame` once a meter has seen it: whoever acquires anew writes it anew. Stack
    /// pointers where entries are made are multiples of four at least.
    const SEEN: u64 = 2;

    /// What is held, unless the entry [is vacant](Self::is_vacant).
    #[inline]
    pub fn resource(&self) -> *mut () {
        self.resource.load(Ordering::Relaxed)
    }

    /// Whether it lists nothing: it has been erased, or was never used.
    #[inline]
    pub fn is_vacant(&self) -> bool {
        self.resource().addr() <= Self::GAP.addr()
    }

    /// Where it is. Boxes and obligations stand in the ledger under marked addresses, so this is
    /// not always what [`Entry::resource`] holds.
    pub fn place(&self) -> *mut () {
        Marked::plain(self.resource())
    }

    /// How to let go of it, as it stands there: not to be followed before a domain has seen it,
    /// since somebody may have written over the ledger. See
    /// [`Domain::operations`](crate::Domain::operations).
    pub fn operations(&self) -> *const Operations {
        self.operations.load(Ordering::Relaxed)
    }

    /// The stack pointer of the frame that acquired it.
    #[inline]
    pub fn frame(&self) -> u64 {
        self.frame.load(Ordering::Relaxed) & !(Self::ESCAPED | Self::SEEN)
    }

    /// Whether the settlement has marked it: see [`Settled::escaped`](crate::Settled::escaped).
    pub(crate) fn is_escaped(&self) -> bool {
        self.frame.load(Ordering::Relaxed) & Self::ESCAPED != 0
    }

    /// Writes down whether the frame of a dead task had returned.
    pub(crate) fn set_escaped(&self, escaped: bool) {
        self.frame.store(self.frame() | if escaped { Self::ESCAPED } else { 0 }, Ordering::Relaxed);
    }

    /// Notes that a meter has seen it, and returns whether one had before.
    pub(crate) fn mark_seen(&self) -> bool {
        let frame = self.frame.load(Ordering::Relaxed);
        self.frame.store(frame | Self::SEEN, Ordering::Relaxed);
        frame & Self::SEEN != 0
    }

    /// Whether this is how to let go of it. By address: ask for a `static`.
    #[inline(always)]
    pub(crate) fn has(&self, operations: &'static Operations) -> bool {
        ptr::eq(self.operations.load(Ordering::Relaxed), operations)
    }

    /// Writes all of it, the resource last: until then it lists nothing.
    #[inline(always)]
    pub(crate) fn write(&self, resource: *mut (), operations: *mut Operations, frame: u64) {
        self.operations.store(operations, Ordering::Relaxed);
        self.frame.store(frame, Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
        self.resource.store(resource, Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
    }

    /// Removes the entry, by one store. Its place is free again once all above it are too.
    pub(crate) fn erase(&self) {
        compiler_fence(Ordering::SeqCst);
        self.resource.store(Self::GAP, Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
    }

    /// Makes the entry as one that was never used, for those beyond the last.
    #[inline(always)]
    pub(crate) fn empty_out(&self) {
        compiler_fence(Ordering::SeqCst);
        self.resource.store(ptr::null_mut(), Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
    }

    /// Changes the entry's state, by one store.
    pub(crate) fn convert(&self, operations: &'static Operations) {
        self.convert_to(ptr::from_ref(operations).cast_mut());
    }

    /// The same, by what a window's register held.
    pub(crate) fn convert_to(&self, operations: *mut Operations) {
        compiler_fence(Ordering::SeqCst);
        self.operations.store(operations, Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
    }
}

/// Its words. What kind of resource it is, a [`Domain`](crate::Domain) can tell.
impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("resource", &self.resource())
            .field("operations", &self.operations())
            .field("frame", &format_args!("{:#x}", self.frame()))
            .finish()
    }
}
