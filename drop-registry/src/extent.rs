//! What memory belongs to a resource, seen from the address that its entry lists.

use core::ops::Range;

use crate::operations::Marked;

/// The memory around a resource's address that its operations touch: what [`settle`](crate::settle)
/// looks for in its [`Domain`](crate::Domain) before it calls them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// How far before the resource's address it begins.
    before: usize,
    bytes: usize,
    align: usize,
    mark: Marked,
}

impl Extent {
    /// No memory that could be looked for: the operations touch their entry alone, or ask their
    /// heap themselves whether the block is one of its own.
    pub const NOTHING: Self = Self { before: 0, bytes: 0, align: 1, mark: Marked::NOT };

    /// The resource is a `T`.
    pub const fn of<T>() -> Self {
        Self::around::<T>(0)
    }

    /// The resource is a field of a `T`, at `offset` bytes from its beginning.
    pub const fn around<T>(offset: usize) -> Self {
        assert!(offset <= size_of::<T>(), "a field lies in its structure");
        let (bytes, align) = (size_of::<T>(), align_of::<T>());
        Self { before: offset, bytes, align, ..Self::NOTHING }
    }

    /// The same, for a resource whose address has this mark in the ledger.
    pub(crate) const fn marked(self, mark: Marked) -> Self {
        Self { mark, ..self }
    }

    /// The addresses of the resource that an entry lists as `resource`; `None` if none can be.
    pub(crate) fn range(&self, resource: *mut ()) -> Option<Range<u64>> {
        let start = self.mark.take_off(resource).addr().checked_sub(self.before)?;
        let end = start.checked_add(self.bytes)?;
        start.is_multiple_of(self.align).then_some(start as u64..end as u64)
    }
}
