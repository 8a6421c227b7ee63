//! Memory for a task's stack, with a guard page below it.
#![expect(unsafe_code, reason = "maps memory")]

use core::ptr;

use task_model::StackBounds;

const PAGE: usize = 4096;

/// A mapped stack; unmapped when dropped.
#[derive(Debug)]
pub(super) struct Stack {
    mapping: *mut libc::c_void,
    len: usize,
}

impl Stack {
    /// Maps a stack of `size` bytes, a whole number of pages.
    ///
    /// # Panics
    /// If the system refuses.
    pub(super) fn new(size: usize) -> Self {
        let len = size + PAGE;
        // SAFETY: an anonymous mapping at an address of the system's choice touches nothing else.
        let mapping = unsafe {
            libc::mmap(
                ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        assert_ne!(mapping, libc::MAP_FAILED, "no memory for a task's stack");
        // SAFETY: the first page of the mapping above, which nobody uses yet.
        let protected = unsafe { libc::mprotect(mapping, PAGE, libc::PROT_NONE) };
        assert_eq!(protected, 0, "no guard page for a task's stack");
        Self { mapping, len }
    }

    pub(super) fn bounds(&self) -> StackBounds {
        let start = self.mapping.expose_provenance() as u64;
        let guard = PAGE as u64;
        StackBounds::new(start + guard, start + self.len as u64, guard).expect("a mapped range")
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and its task no longer runs.
        unsafe { libc::munmap(self.mapping, self.len) };
    }
}
