//! Where the running program's parts are, and its libraries'.
#![expect(unsafe_code, reason = "reads the program headers that the loader gives out")]

use core::ffi::c_void;
use core::ops::Range;
use core::{fmt, ptr, slice};
use std::ffi::{CStr, CString};
use std::vec::Vec;

/// The program that runs here, without the libraries that it is linked with dynamically, or one of
/// those: its code and its read-only data.
#[derive(Clone, Copy)]
pub struct Image {
    /// What is added to the addresses in the headers.
    bias: u64,
    headers: &'static [libc::Elf64_Phdr],
}

impl Image {
    /// This process' program.
    ///
    /// # Panics
    /// If it has no executable segment, which no program is without.
    pub fn running() -> Self {
        let mut image = Self { bias: 0, headers: &[] };
        for_each_object(|object| {
            if image.headers.is_empty() {
                // SAFETY: the first object is the program, which is never unloaded.
                image = unsafe { Self::of(object) };
            }
        });
        assert!(!image.text().is_empty(), "a program has code");
        image
    }

    /// The libraries that are loaded now, each of which stays for as long as the process does, even
    /// if it is closed. Not the vDSO, which is the kernel's.
    pub fn libraries() -> Vec<Self> {
        let mut names: Vec<CString> = Vec::new();
        for_each_object(|object| {
            // SAFETY: the loader gives every object a name, which lives as long as this call.
            names.push(unsafe { CStr::from_ptr(object.dlpi_name) }.into());
        });
        // The program comes first, and has no name.
        names.retain(|name| {
            let keep = libc::RTLD_LAZY | libc::RTLD_NOLOAD | libc::RTLD_NODELETE;
            // SAFETY: runs no code of a library that is loaded already.
            !name.is_empty() && !unsafe { libc::dlopen(name.as_ptr(), keep) }.is_null()
        });
        let mut images = Vec::new();
        for_each_object(|object| {
            // SAFETY: as above.
            let name = unsafe { CStr::from_ptr(object.dlpi_name) };
            if names.iter().any(|kept| **kept == *name) {
                // SAFETY: the object cannot be unloaded any more.
                images.push(unsafe { Self::of(object) });
            }
        });
        images.retain(|image| !image.text().is_empty());
        images
    }

    /// # Safety
    /// The object stays loaded as long as the process lives.
    unsafe fn of(object: &libc::dl_phdr_info) -> Self {
        let count = usize::from(object.dlpi_phnum);
        // SAFETY: the loader says that there are so many. They are a part of the object.
        let headers = unsafe { slice::from_raw_parts(object.dlpi_phdr, count) };
        Self { bias: object.dlpi_addr, headers }
    }

    /// The addresses of its code.
    pub fn text(&self) -> Range<u64> {
        self.range(|header| header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_X != 0)
    }

    /// Its code; empty if that cannot be read.
    pub fn code(&self) -> &'static [u8] {
        self.mapped(|header| {
            let flags = header.p_flags & (libc::PF_R | libc::PF_W | libc::PF_X);
            header.p_type == libc::PT_LOAD && flags == libc::PF_R | libc::PF_X
        })
    }

    /// The addresses of its constants: those that the linker made read-only, and those that the
    /// loader did once it had relocated them.
    pub fn constants(&self) -> impl Iterator<Item = Range<u64>> {
        let constant = |header: &&libc::Elf64_Phdr| match header.p_type {
            libc::PT_LOAD => header.p_flags & (libc::PF_X | libc::PF_W) == 0,
            kind => kind == libc::PT_GNU_RELRO,
        };
        self.headers.iter().filter(constant).map(|header| self.range_of(header))
    }

    /// Its `.eh_frame_hdr` section; empty if it has none.
    pub fn eh_frame_hdr(&self) -> &'static [u8] {
        let header = self.range(|header| header.p_type == libc::PT_GNU_EH_FRAME);
        let len = (header.end - header.start) as usize;
        self.read_only_from(header.start).get(..len).unwrap_or_default()
    }

    /// What lies in read-only memory from `address` to the end of its segment; empty if no
    /// read-only segment contains it.
    pub fn read_only_from(&self, address: u64) -> &'static [u8] {
        let segment = self.read_only_around(address);
        let start = segment.as_ptr().addr() as u64;
        segment.get(address.wrapping_sub(start) as usize..).unwrap_or_default()
    }

    /// The read-only segment that contains `address`; empty if none does.
    pub fn read_only_around(&self, address: u64) -> &'static [u8] {
        self.mapped(|header| {
            header.p_type == libc::PT_LOAD
                && header.p_flags & (libc::PF_X | libc::PF_W) == 0
                && self.range_of(header).contains(&address)
        })
    }

    /// The first segment that `is_it`, which must be one that nobody writes to; empty if there is
    /// none.
    fn mapped(&self, is_it: impl Fn(&libc::Elf64_Phdr) -> bool) -> &'static [u8] {
        let segment = self.range(is_it);
        if segment.is_empty() {
            return &[];
        }
        let start = ptr::with_exposed_provenance(segment.start as usize);
        // SAFETY: a segment of what stays mapped, readable and unchanged as long as the process
        // lives.
        unsafe { slice::from_raw_parts(start, (segment.end - segment.start) as usize) }
    }

    /// The addresses of the first part that `is_it`; empty if there is none.
    fn range(&self, is_it: impl Fn(&libc::Elf64_Phdr) -> bool) -> Range<u64> {
        self.headers.iter().find(|it| is_it(it)).map_or(0..0, |header| self.range_of(header))
    }

    fn range_of(&self, header: &libc::Elf64_Phdr) -> Range<u64> {
        let start = self.bias.wrapping_add(header.p_vaddr);
        start..start + header.p_memsz
    }
}

impl fmt::Debug for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Image").field("text", &self.text()).finish_non_exhaustive()
    }
}

/// Calls `each` with what the loader says of every object, the program first.
fn for_each_object<F: FnMut(&libc::dl_phdr_info)>(mut each: F) {
    unsafe extern "C" fn call<F: FnMut(&libc::dl_phdr_info)>(
        object: *mut libc::dl_phdr_info,
        _: libc::size_t,
        each: *mut c_void,
    ) -> libc::c_int {
        // SAFETY: the loader passes a valid description, and what it was given below, which nobody
        // else uses meanwhile.
        unsafe { (*each.cast::<F>())(&*object) };
        0
    }
    // SAFETY: the callback has the signature asked for, and is for what it is given.
    unsafe { libc::dl_iterate_phdr(Some(call::<F>), (&raw mut each).cast()) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_contains_its_own_functions_and_not_its_libraries() {
        let image = Image::running();
        assert!(image.text().contains(&(Image::libraries as *const () as u64)));
        // SAFETY: looks a symbol up.
        let malloc = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"malloc".as_ptr()) };
        assert!(!image.text().contains(&(malloc.addr() as u64)));
        // Version 1 (Linux Standard Base 5.0, Core, section 10.6.2).
        assert_eq!(image.eh_frame_hdr().first(), Some(&1));
    }

    #[test]
    fn the_libraries_contain_their_own_functions_and_not_the_program_s() {
        // SAFETY: looks a symbol up.
        let malloc = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"malloc".as_ptr()) };
        let contain = |address: u64| {
            Image::libraries().iter().filter(|image| image.text().contains(&address)).count()
        };
        assert_eq!(contain(malloc.addr() as u64), 1);
        assert_eq!(contain(Image::libraries as *const () as u64), 0);
    }

    #[test]
    fn what_is_not_read_only_is_not_given_out() {
        static WRITABLE: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(7);
        let image = Image::running();
        assert!(image.read_only_from((&raw const WRITABLE).addr() as u64).is_empty());
        assert!(image.read_only_from(8).is_empty());
    }
}
