//! Page tables: the image's protection, and 4 KiB pages for stacks.
//!
//! The low 4 GiB are identity-mapped from boot on, so a table's physical address is where it is
//! read and written.
#![expect(unsafe_code, reason = "changes page tables")]

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicUsize, Ordering};

use x86_64::registers::control::Cr3;
use x86_64::structures::paging::mapper::{Mapper, OffsetPageTable};
use x86_64::structures::paging::{
    FrameAllocator, Page, PageTable, PageTableFlags, PhysFrame, Size2MiB, Size4KiB,
};
use x86_64::{PhysAddr, VirtAddr};

use crate::image;

/// Tables that mapping the stacks and a module may need: one of level 3, one of level 2, a few of
/// level 1.
const TABLES: usize = 8;

#[repr(transparent)]
struct Tables(UnsafeCell<[PageTable; TABLES]>);

// SAFETY: each table is handed out once, by `TablePool`.
unsafe impl Sync for Tables {}

static TABLE_MEMORY: Tables = Tables(UnsafeCell::new([const { PageTable::new() }; TABLES]));
static TABLES_USED: AtomicUsize = AtomicUsize::new(0);

struct TablePool;

// SAFETY: the counter hands out each frame once, and the image is not otherwise used for frames.
unsafe impl FrameAllocator<Size4KiB> for TablePool {
    fn allocate_frame(&mut self) -> Option<PhysFrame> {
        // Relaxed: the counter orders nothing but itself.
        let n = TABLES_USED.fetch_add(1, Ordering::Relaxed);
        (n < TABLES).then(|| {
            let table = TABLE_MEMORY.0.get().cast::<PageTable>().wrapping_add(n);
            PhysFrame::containing_address(physical(table))
        })
    }
}

/// The physical address of a static of this image.
pub(crate) fn physical<T>(object: *const T) -> PhysAddr {
    PhysAddr::new(object.expose_provenance() as u64)
}

/// Runs `change` on the page tables in use; boot only, so nobody else has them meanwhile.
fn with_tables<R>(change: impl FnOnce(&mut OffsetPageTable<'_>) -> R) -> R {
    let level_4 = Cr3::read().0.start_address().as_u64() as usize;
    let level_4 = core::ptr::with_exposed_provenance_mut::<PageTable>(level_4);
    // SAFETY: CR3 names the live table, mapped at its physical address; before the first task
    // there is one thread of control, and `change` cannot keep the reference.
    let level_4 = unsafe { &mut *level_4 };
    // SAFETY: the low 4 GiB, where all tables lie, are identity-mapped: offset 0.
    change(&mut unsafe { OffsetPageTable::new(level_4, VirtAddr::zero()) })
}

/// Makes code and constants read-only, data not executable, and null pointers fault.
pub(crate) fn protect_image() {
    with_tables(|tables| {
        let page = |address| Page::<Size2MiB>::containing_address(VirtAddr::new(address));
        let read_only = image::read_only();
        let data = image::data();
        for page in Page::range(page(read_only.start), page(read_only.end)) {
            // SAFETY: nothing writes to code and constants.
            let change = unsafe { tables.update_flags(page, PageTableFlags::PRESENT) };
            change.expect("the boot map has this page").flush();
        }
        for page in Page::range_inclusive(page(data.start), page(data.end - 1)) {
            let flags =
                PageTableFlags::PRESENT | PageTableFlags::WRITABLE | PageTableFlags::NO_EXECUTE;
            // SAFETY: no code lies in the data pages.
            let change = unsafe { tables.update_flags(page, flags) };
            change.expect("the boot map has this page").flush();
        }
        let (_, flush) = tables.unmap(page(0)).expect("the boot map has this page");
        flush.flush();
    });
}

/// Maps the page at `address` to the 4 KiB of the image that start at `frame`, for data.
///
/// # Panics
/// If the page is mapped already, or there are too few tables: mistakes of the layout.
///
/// # Safety
/// Whoever uses the page must be the only user of the memory behind it.
pub(crate) unsafe fn map_data_page(address: u64, frame: PhysAddr) {
    let flags = PageTableFlags::PRESENT | PageTableFlags::WRITABLE | PageTableFlags::NO_EXECUTE;
    // SAFETY: this function's contract.
    unsafe { map_page(address, frame, flags) };
}

/// As [`map_data_page`], for code and constants: the page cannot be written through this mapping.
///
/// # Panics
/// As [`map_data_page`].
///
/// # Safety
/// Whoever writes the memory by another mapping does so before anybody reads it by this one.
pub(crate) unsafe fn map_code_page(address: u64, frame: PhysAddr) {
    // SAFETY: this function's contract.
    unsafe { map_page(address, frame, PageTableFlags::PRESENT) };
}

/// # Safety
/// That the memory has two mappings does no harm.
unsafe fn map_page(address: u64, frame: PhysAddr, flags: PageTableFlags) {
    let page = Page::<Size4KiB>::containing_address(VirtAddr::new(address));
    let frame = PhysFrame::containing_address(frame);
    // SAFETY: the alias is harmless by this function's contract.
    let change = with_tables(|tables| unsafe {
        tables.map_to(page, frame, flags, &mut TablePool).map(|flush| flush.flush())
    });
    change.expect("the region is free, and tables suffice");
}
