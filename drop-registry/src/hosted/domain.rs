//! What the ledgers of a Linux process may speak of.
#![expect(unsafe_code, reason = "says what a process' memory is")]

use core::ops::Range;
use core::slice;
use std::sync::OnceLock;

use super::Image;
use crate::{Domain, WindowTable};

/// Where resources can be: a process cannot say where its heaps and stacks are, so this is all that
/// it can have. (x86-64, 47 bits of address; the lowest pages are never mapped.)
static USER_SPACE: Range<u64> = 0x1_0000..0x7fff_ffff_f000;

/// What the ledgers of this process may speak of: the constants of its program, and all addresses
/// that a process can have.
///
/// So an entry's operations are checked as they should be, and its resource hardly: settling a
/// ledger that somebody has written over may fault. Who wants to see that refused makes a
/// [`Domain`] of the ranges that it uses.
pub fn domain() -> Domain<'static> {
    static CONSTANTS: OnceLock<[Range<u64>; 8]> = OnceLock::new();
    let constants = CONSTANTS.get_or_init(|| {
        let image = Image::running();
        let mut constants = image.constants();
        core::array::from_fn(|_| constants.next().unwrap_or(0..0))
    });
    // SAFETY: segments that are not writable, and what the dynamic linker has made so. The data are
    // mapped wherever a ledger lists them, as long as none is written over.
    unsafe { Domain::new(WindowTable::linked(), constants, slice::from_ref(&USER_SPACE)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::NOTHING;
    use crate::{Entry, Ledger, Operations};
    use core::mem::MaybeUninit;
    use core::ptr;
    use std::boxed::Box;

    fn operations(entry: &Entry) -> Option<&'static Operations> {
        domain().operations(entry)
    }

    fn entry(ledger: &Ledger, resource: usize) -> &Entry {
        // SAFETY: the ledger is never settled.
        unsafe { ledger.record(ptr::without_provenance_mut(resource), &NOTHING, 0).unwrap() }
    }

    #[test]
    fn operations_of_this_image_are_known_and_no_others_are() {
        let ledger = Ledger::new();
        let entry = entry(&ledger, 8);
        assert!(operations(entry).is_some_and(|there| ptr::eq(there, &NOTHING)));
        let mut copy = Box::new(MaybeUninit::<Operations>::uninit());
        // SAFETY: as many bytes of plain words as there is room for.
        unsafe { copy.as_mut_ptr().copy_from(&NOTHING, 1) };
        entry.convert_to(copy.as_mut_ptr());
        assert!(operations(entry).is_none(), "a copy among the data was believed");
        for bytes in [1, 8, size_of::<Operations>()] {
            entry.convert_to((&raw const NOTHING).cast_mut().wrapping_byte_sub(bytes));
            assert!(operations(entry).is_none(), "{bytes} bytes before operations was believed");
        }
        for nowhere in [0, 8, usize::MAX, usize::MAX - 7] {
            entry.convert_to(ptr::without_provenance_mut(nowhere));
            assert!(operations(entry).is_none());
        }
    }
}
