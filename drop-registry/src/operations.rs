//! How each kind of resource is let go.

use core::fmt;

use crate::{Entry, Extent, Ledger};

/// What kind of thing an entry stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ResourceKind {
    /// A held [`Mutex`](crate::Mutex), [`RollbackMutex`](crate::RollbackMutex) or
    /// [`RepairMutex`](crate::RepairMutex).
    Mutex,
    /// A [`RwLock`](crate::RwLock), for reading.
    ReadLock,
    /// A [`RwLock`](crate::RwLock), for writing.
    WriteLock,
    /// One count of a [`Shared`](crate::Shared).
    Share,
    /// A [`TrackedBox`](crate::TrackedBox).
    Box,
    /// An [`Obligation`](crate::Obligation).
    Obligation,
    /// One of a [`Semaphore`](crate::Semaphore)'s permits.
    Permit,
    /// A value in the making, of a [`Once`](crate::Once).
    Once,
    /// A place in a [`WaitQueue`](crate::WaitQueue), or a wake-up owed to those who wait there.
    WaitQueue,
    /// A [section](crate::NoKill) in which the task is not killed.
    NoKill,
    /// A point that the task can go on behind: see [`catch_fault`](crate::catch_fault). Nothing to
    /// give up.
    RecoveryPoint,
    /// What an entry says that cannot be one.
    Unknown,
}

task_model::stored_as! { ResourceKind {
    Mutex = 0,
    ReadLock = 1,
    WriteLock = 2,
    Share = 3,
    Box = 4,
    Obligation = 5,
    Permit = 6,
    Once = 7,
    WaitQueue = 8,
    NoKill = 9,
    Unknown = 10,
    RecoveryPoint = 11,
} }

impl fmt::Display for ResourceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Mutex => "mutex",
            Self::ReadLock => "read lock",
            Self::WriteLock => "write lock",
            Self::Share => "share",
            Self::Box => "box",
            Self::Obligation => "obligation",
            Self::Permit => "permit",
            Self::Once => "once",
            Self::WaitQueue => "wait queue",
            Self::NoKill => "no-kill section",
            Self::RecoveryPoint => "recovery point",
            Self::Unknown => "unknown entry",
        })
    }
}

/// Marks the addresses of resources that may begin with another one: a box whose value begins
/// with a lock, say. In a ledger each resource has an address of its own.
///
/// The marked addresses are not canonical, so that they equal no address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Marked(usize);

impl Marked {
    /// Not at all: no other resource begins there.
    pub(crate) const NOT: Self = Self(0);
    /// A box.
    pub(crate) const BOX: Self = Self(1 << 62);
    /// The data of an obligation.
    pub(crate) const OBLIGATION: Self = Self(1 << 61);

    /// The address of `resource`, marked.
    pub(crate) fn mark<T>(self, resource: *mut T) -> *mut () {
        resource.map_addr(|address| address ^ self.0).cast()
    }

    /// The address that was marked so.
    pub(crate) fn take_off(self, resource: *mut ()) -> *mut () {
        resource.map_addr(|address| address ^ self.0)
    }

    /// The plain address of any resource.
    pub(crate) fn plain(resource: *mut ()) -> *mut () {
        // Canonical addresses have bits 61 and 62 as they have bit 60.
        let marks = Self::BOX.0 | Self::OBLIGATION.0;
        resource.map_addr(
            |address| {
                if address & 1 << 60 == 0 { address & !marks } else { address | marks }
            },
        )
    }
}

/// What became of a resource when its holder died.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// It is free, and nobody needs to know: a count went down, an obligation was met.
    Released,
    /// It is free, and the next owner (of a lock that was read, the next writer) is told that the
    /// value may be torn.
    OwnerDied,
    /// It is free, and its value is what it was when the dead task took it.
    RolledBack,
    /// Nobody holds it any more; its value, and its memory if it owns that, are for
    /// [`reclaim`](crate::reclaim).
    Orphaned,
    /// Its value was dropped, where it needed that, and its memory freed.
    Reclaimed,
    /// It is free, and its repair routine has mended its value.
    Repaired,
    /// It is free, but its repair routine has given the value up: nobody will get it any more.
    GivenUp,
    /// Its memory is left alone for ever, because the value may be torn and its type does not
    /// promise [`DropAfterTear`](crate::DropAfterTear).
    Quarantined,
    /// The resource does not agree that the dead task held it. It was not touched.
    Disowned,
    /// The entry cannot be one: its operations are none, or what it lists lies outside of the
    /// [`Domain`](crate::Domain). Nothing was touched, and the entry is gone.
    Refused,
}

task_model::stored_as! { Outcome {
    Released = 0,
    OwnerDied = 1,
    RolledBack = 2,
    Orphaned = 3,
    Reclaimed = 4,
    Repaired = 5,
    GivenUp = 6,
    Quarantined = 7,
    Disowned = 8,
    Refused = 9,
} }

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Released => "released",
            Self::OwnerDied => "owner died",
            Self::RolledBack => "rolled back",
            Self::Orphaned => "orphaned",
            Self::Reclaimed => "reclaimed",
            Self::Repaired => "repaired",
            Self::GivenUp => "given up",
            Self::Quarantined => "quarantined",
            Self::Disowned => "disowned",
            Self::Refused => "refused",
        })
    }
}

/// How to let go of one kind of resource from outside the task that held it.
///
/// An entry's operations are also its state: a handle that begins to destroy what it owns points
/// its entry at operations that no longer do so.
///
/// Only this crate makes any, and nobody can copy one: so a [`Domain`](crate::Domain) knows them by
/// a number that each begins with.
#[derive(Debug)]
pub struct Operations {
    tag: Tag,
    /// The kind, for reports.
    pub kind: ResourceKind,
    /// The bytes of heap memory that the resource owns, for the books of a quarantine.
    pub bytes: usize,
    /// The memory that these operations touch, around the resource's address.
    pub extent: Extent,
    /// Gives the resource up, in the fault path: no allocation, no lock, no blocking, no panic,
    /// bounded. Removes the entry in the same window, unless it returns [`Outcome::Orphaned`]. The
    /// entry may have taken on other operations then, which are called next.
    ///
    /// # Safety
    /// The entry is one of the ledger's and lists a live resource of these operations; the task
    /// that wrote it is frozen for good, and its pending window has been resolved. (What is known
    /// of the resource for certain is that its [extent](Self::extent) lies in the domain.)
    pub release: unsafe fn(&Ledger, &Entry) -> Outcome,
    /// Drops and frees, or mends, what `release` left [`Outcome::Orphaned`]. Runs in the keeper's
    /// own time: it may allocate and take locks.
    ///
    /// # Safety
    /// As `release`, which returned [`Outcome::Orphaned`] for this entry; and only once.
    pub reclaim: unsafe fn(&Entry) -> Outcome,
}

/// What operations are known by. Not `Copy`, and in no other type, so that it stands nowhere else:
/// an address among an image's constants either has the number in the right place, and then the
/// compiler put [`Operations`] there, or it is refused.
#[derive(Debug)]
struct Tag(#[expect(dead_code, reason = "a domain reads it by its address")] u64);

impl Tag {
    /// The number. Any would do that is no address, no text, and no likely constant.
    const OPERATIONS: u64 = 0xd10b_7ea2_95c4_6e3f;
}

impl Operations {
    /// Those of a resource that owns no memory: it is released, and then there is nothing to
    /// reclaim.
    pub(crate) const fn releasing(
        kind: ResourceKind,
        extent: Extent,
        release: unsafe fn(&Ledger, &Entry) -> Outcome,
    ) -> Self {
        let tag = Tag(Tag::OPERATIONS);
        Self { tag, kind, bytes: 0, extent, release, reclaim: nothing_to_reclaim }
    }

    /// The same, with something left to reclaim, and so many bytes of heap memory.
    pub(crate) const fn reclaiming(
        self,
        bytes: usize,
        reclaim: unsafe fn(&Entry) -> Outcome,
    ) -> Self {
        Self { bytes, reclaim, ..self }
    }

    /// Where the tag is: a word.
    pub(crate) const TAG_OFFSET: usize = core::mem::offset_of!(Self, tag);

    /// Whether that word is the tag.
    pub(crate) const fn has_tag(word: u64) -> bool {
        word == Tag::OPERATIONS
    }
}

/// [`Operations::reclaim`] for what owns no memory, and so is never orphaned: an entry that is all
/// the same is damaged.
pub(crate) fn nothing_to_reclaim(_: &Entry) -> Outcome {
    Outcome::Refused
}
