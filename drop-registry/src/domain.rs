//! What memory ledgers may speak of.
#![expect(unsafe_code, reason = "tells operations from other bytes")]

use core::fmt;
use core::ops::Range;

use crate::{Entry, Operations, WindowTable};

/// What memory the ledgers of a kernel may speak of: settling touches nothing else.
///
/// A ledger is ordinary memory, and a kernel that has gone wrong may have written anything into it.
/// So an entry is believed only if it fits: its operations must be some (they stand among the
/// image's constants, and are known by a tag that nothing else has), and the resource must lie,
/// with all of its extent, where resources can be. What does not fit is told of as
/// [`Outcome::Refused`](crate::Outcome::Refused), and left alone.
///
/// What fits and is false cannot be seen: an entry that was made to list some other place of the
/// right kind of memory. Most operations then find that the place does not name the dead task.
///
/// ```
/// # use drop_registry::{Domain, WindowTable};
/// # const CONSTANTS: core::ops::Range<u64> = 0..0;
/// # const DATA: core::ops::Range<u64> = 0..0;
/// // SAFETY: from the symbols of the linker script.
/// let domain = unsafe { Domain::new(WindowTable::linked(), &[CONSTANTS], &[DATA]) };
/// # let _ = domain;
/// ```
#[derive(Clone, Copy)]
pub struct Domain<'a> {
    windows: WindowTable,
    constants: &'a [Range<u64>],
    data: &'a [Range<u64>],
}

impl<'a> Domain<'a> {
    /// The windows of an image; the addresses of its constants (`.rodata` and `.data.rel.ro`), and
    /// those of everything that a ledger may list: the image's variables, the heaps, and the stacks
    /// if locks lie there. No range may wrap around.
    ///
    /// # Safety
    /// - `constants` are mapped, and hold what the linker put there: nothing writes to them.
    /// - `data` are mapped and may be written to, as long as the domain is used; or else no ledger
    ///   is ever made to list an address of theirs that is not.
    pub const unsafe fn new(
        windows: WindowTable,
        constants: &'a [Range<u64>],
        data: &'a [Range<u64>],
    ) -> Self {
        Self { windows, constants, data }
    }

    /// The windows.
    pub const fn windows(&self) -> &WindowTable {
        &self.windows
    }

    /// How to let go of what `entry` lists, if it is an entry: if its operations are some, and
    /// what they touch lies in the domain.
    pub fn operations(&self, entry: &Entry) -> Option<&'static Operations> {
        let operations = self.known(entry.operations())?;
        let extent = operations.extent.range(entry.resource())?;
        // Nothing of it is touched, wherever it is.
        let touches_nothing = extent.is_empty();
        (touches_nothing || lies_in(self.data, &extent)).then_some(operations)
    }

    fn known(&self, operations: *const Operations) -> Option<&'static Operations> {
        let start = operations.addr() as u64;
        let range = start..start.checked_add(size_of::<Operations>() as u64)?;
        if operations.is_aligned() && lies_in(self.constants, &range) {
            // SAFETY: constants are mapped and never written (`new`), and the address is aligned
            // for all of an `Operations`, so for this word of it.
            let tag = unsafe { operations.byte_add(Operations::TAG_OFFSET).cast::<u64>().read() };
            // SAFETY: constants with the tag in this place are `Operations`, and there for ever.
            return Operations::has_tag(tag).then(|| unsafe { &*operations });
        }
        None
    }
}

fn lies_in(ranges: &[Range<u64>], inner: &Range<u64>) -> bool {
    ranges.iter().any(|range| range.start <= inner.start && inner.end <= range.end)
}

impl fmt::Debug for Domain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Domain")
            .field("windows", &self.windows.len())
            .field("constants", &self.constants)
            .field("data", &self.data)
            .finish()
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use crate::Extent;
    use crate::testing::{NOTHING, domain};
    use core::mem::MaybeUninit;
    use core::ptr;
    use std::boxed::Box;

    #[test]
    fn whatever_else_a_constant_is_made_of_it_is_not_taken_for_operations() {
        // All that a program can copy of what operations consist of.
        static COPIES: [Extent; 8] = [Extent::NOTHING; 8];
        let end = size_of_val(&COPIES);
        for offset in (0..end).step_by(8) {
            let place = COPIES.as_ptr().wrapping_byte_add(offset);
            let operations = place.wrapping_byte_sub(Operations::TAG_OFFSET).cast::<Operations>();
            assert!(domain().known(operations).is_none(), "{offset} bytes into a constant");
        }
    }

    #[test]
    fn operations_of_this_image_are_known_and_no_others_are() {
        let here = &raw const NOTHING;
        assert!(domain().known(here).is_some_and(|there| ptr::eq(there, here)));
        // Among the constants, but not where one begins.
        for bytes in [1, 4, 8, 16, size_of::<Operations>()] {
            assert!(
                domain().known(here.wrapping_byte_sub(bytes)).is_none(),
                "{bytes} bytes before"
            );
        }
        // One to the last byte, but among the variables.
        let mut copy = Box::new(MaybeUninit::<Operations>::uninit());
        // SAFETY: as many bytes of plain words as there is room for.
        unsafe { copy.as_mut_ptr().copy_from(here, 1) };
        assert!(domain().known(copy.as_ptr()).is_none(), "a copy was believed");
        for nowhere in [0, 8, usize::MAX, usize::MAX - 7] {
            assert!(domain().known(ptr::without_provenance(nowhere)).is_none());
        }
    }
}
