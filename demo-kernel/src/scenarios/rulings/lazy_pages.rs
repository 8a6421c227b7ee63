//! A few pages that are mapped when somebody asks for it.
#![expect(unsafe_code, reason = "maps pages, and touches what may not be mapped")]

use core::cell::UnsafeCell;

use crate::interrupts::without_interrupts;
use crate::memory;

/// Beside the stacks, in the same tables.
const REGION: u64 = 0x40_1000_0000;
const PAGE: u64 = 4096;

/// How many pages there are.
pub(super) const COUNT: u64 = 8;

#[repr(C, align(4096))]
struct Memory(UnsafeCell<[[u8; PAGE as usize]; COUNT as usize]>);

// SAFETY: no Rust code names its contents.
unsafe impl Sync for Memory {}

static MEMORY: Memory = Memory(UnsafeCell::new([[0; PAGE as usize]; COUNT as usize]));

/// Maps the page at `address`; `false` if that is none of these. Its page is not mapped yet.
pub(super) fn map(address: u64) -> bool {
    let number = address.wrapping_sub(REGION) / PAGE;
    if number >= COUNT {
        return false;
    }
    let frame = MEMORY.0.get().cast::<[u8; PAGE as usize]>().wrapping_add(number as usize);
    // SAFETY: nobody else uses this memory. With interrupts off on the only CPU, nobody else has
    // the page tables.
    without_interrupts(|| unsafe {
        memory::map_data_page(REGION + number * PAGE, memory::physical(frame));
    });
    true
}

/// Writes into page `number`, wherever that is.
pub(super) fn write(number: u64, value: u64) {
    let word = core::ptr::with_exposed_provenance_mut::<u64>((REGION + number * PAGE) as usize);
    // SAFETY: the page is one of these, which nobody else uses, or the store faults.
    unsafe { word.write_volatile(value) };
}

/// Reads what was written into page `number`.
pub(super) fn read(number: u64) -> u64 {
    let word = core::ptr::with_exposed_provenance::<u64>((REGION + number * PAGE) as usize);
    // SAFETY: as in `write`.
    unsafe { word.read_volatile() }
}
