//! Memory for a task's stacks, each with a guard page below it.
#![expect(unsafe_code, reason = "maps memory")]

use core::cell::Cell;
use core::ptr;

use task_model::StackBounds;

const PAGE: usize = 4096;

/// The stacks of one task: that of its present life, and those of lives that are over.
///
/// Below each guard page is another page, which says where the stack before it is mapped; so a new
/// one needs no memory but its own, and is there as soon as one word is written.
#[derive(Debug)]
pub(super) struct Stacks {
    /// The latest mapping.
    latest: Cell<*mut Page>,
    len: usize,
}

/// The lowest page of a mapping.
#[derive(Debug)]
struct Page {
    /// The mapping before this one; null if it is the first.
    earlier: *mut Page,
}

impl Stacks {
    /// Maps a stack of `size` bytes, a whole number of pages.
    ///
    /// # Panics
    /// If the system refuses.
    pub(super) fn new(size: usize) -> Self {
        let stacks = Self { latest: Cell::new(ptr::null_mut()), len: size + 2 * PAGE };
        stacks.renew();
        stacks
    }

    /// Maps another one. Who is killed in the middle of this has done it or not; at worst a mapping
    /// is lost.
    ///
    /// # Panics
    /// As [`Stacks::new`].
    pub(super) fn renew(&self) {
        // SAFETY: an anonymous mapping at an address of the system's choice touches nothing else.
        let mapping = unsafe {
            libc::mmap(
                ptr::null_mut(),
                self.len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        assert_ne!(mapping, libc::MAP_FAILED, "no memory for a task's stack");
        let page = mapping.cast::<Page>();
        // SAFETY: the second page of the mapping above, which nobody uses yet, and the first.
        let protected = unsafe {
            if !self.latest.get().is_null() {
                (*page).earlier = self.latest.get();
            }
            libc::mprotect(mapping.byte_add(PAGE), PAGE, libc::PROT_NONE)
        };
        assert_eq!(protected, 0, "no guard page for a task's stack");
        self.latest.set(page);
    }

    /// Where the latest one is.
    pub(super) fn bounds(&self) -> StackBounds {
        let start = self.latest.get().expose_provenance() as u64;
        let base = start + 2 * PAGE as u64;
        StackBounds::new(base, start + self.len as u64, PAGE as u64).expect("a mapped range")
    }
}

impl Drop for Stacks {
    fn drop(&mut self) {
        let mut page = self.latest.get();
        while !page.is_null() {
            // SAFETY: the mappings are ours, and their task no longer runs.
            unsafe {
                let earlier = (*page).earlier;
                libc::munmap(page.cast(), self.len);
                page = earlier;
            }
        }
    }
}
