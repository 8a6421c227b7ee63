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
