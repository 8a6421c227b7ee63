//! Where the running program's own parts are.
#![expect(unsafe_code, reason = "reads the program headers that the loader gives out")]

use core::ffi::c_void;
use core::ops::Range;
use core::{fmt, ptr, slice};

/// The program that runs here: its code and its read-only data, without the libraries that it is
/// linked with dynamically.
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
        // SAFETY: the callback has the signature asked for, and is given `image` alone, which
        // nobody else uses meanwhile.
        unsafe { libc::dl_iterate_phdr(Some(take_first), (&raw mut image).cast()) };
        assert!(!image.text().is_empty(), "a program has code");
        image
    }

    /// The addresses of its code.
    pub fn text(&self) -> Range<u64> {
        self.range(|header| header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_X != 0)
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
        let segment = self.range(|header| {
            header.p_type == libc::PT_LOAD
                && header.p_flags & (libc::PF_X | libc::PF_W) == 0
                && self.range_of(header).contains(&address)
        });
        if segment.is_empty() {
            return &[];
        }
        let start = ptr::with_exposed_provenance(segment.start as usize);
        // SAFETY: a segment of the program itself, which stays mapped, readable and unchanged as
        // long as the process lives.
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

/// For `dl_iterate_phdr(3)`: the first object is the program.
unsafe extern "C" fn take_first(
    object: *mut libc::dl_phdr_info,
    _: libc::size_t,
    image: *mut c_void,
) -> libc::c_int {
    // SAFETY: the loader passes a valid description, and the image that `running` gave it. The
    // program's headers are as many as it says, and stay as long as the process lives.
    unsafe {
        let (object, image) = (&*object, &mut *image.cast::<Image>());
        image.bias = object.dlpi_addr;
        image.headers = slice::from_raw_parts(object.dlpi_phdr, usize::from(object.dlpi_phnum));
    }
    1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_contains_its_own_functions_and_not_its_libraries() {
        let image = Image::running();
        assert!(image.text().contains(&(take_first as *const () as u64)));
        // SAFETY: looks a symbol up.
        let malloc = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"malloc".as_ptr()) };
        assert!(!image.text().contains(&(malloc.addr() as u64)));
        // Version 1 (Linux Standard Base 5.0, Core, section 10.6.2).
        assert_eq!(image.eh_frame_hdr().first(), Some(&1));
    }

    #[test]
    fn what_is_not_read_only_is_not_given_out() {
        static WRITABLE: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(7);
        let image = Image::running();
        assert!(image.read_only_from((&raw const WRITABLE).addr() as u64).is_empty());
        assert!(image.read_only_from(8).is_empty());
    }
}
