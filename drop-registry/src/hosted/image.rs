//! Where the running program's own parts are.
#![expect(unsafe_code, reason = "reads the program headers that the loader gives out")]

use core::ffi::c_void;
use core::ops::Range;
use core::{ptr, slice};
use std::vec::Vec;

/// The program that runs here: its code and its read-only data, without the libraries that it is
/// linked with dynamically.
#[derive(Debug)]
pub struct Image {
    segments: Vec<Segment>,
    eh_frame_hdr: Range<u64>,
}

#[derive(Debug)]
struct Segment {
    range: Range<u64>,
    executable: bool,
    writable: bool,
}

impl Image {
    /// This process' program.
    ///
    /// # Panics
    /// If it has no executable segment, which no program is without.
    pub fn running() -> Self {
        let mut image = Self { segments: Vec::new(), eh_frame_hdr: 0..0 };
        // SAFETY: the callback has the signature asked for, and is given `image` alone, which
        // nobody else uses meanwhile.
        unsafe { libc::dl_iterate_phdr(Some(take_first), (&raw mut image).cast()) };
        assert!(!image.text().is_empty(), "a program has code");
        image
    }

    /// The addresses of its code.
    pub fn text(&self) -> Range<u64> {
        let mut code = self.segments.iter().filter(|it| it.executable).map(|it| it.range.clone());
        code.next().unwrap_or(0..0)
    }

    /// Its `.eh_frame_hdr` section; empty if it has none.
    pub fn eh_frame_hdr(&self) -> &'static [u8] {
        let header = &self.eh_frame_hdr;
        self.read_only_from(header.start)
            .get(..(header.end - header.start) as usize)
            .unwrap_or_default()
    }

    /// What lies in read-only memory from `address` to the end of its segment; empty if no
    /// read-only segment contains it.
    pub fn read_only_from(&self, address: u64) -> &'static [u8] {
        let mut readable = self.segments.iter().filter(|it| !it.writable && !it.executable);
        let Some(segment) = readable.find(|it| it.range.contains(&address)) else { return &[] };
        let start = ptr::with_exposed_provenance(address as usize);
        // SAFETY: the rest of a segment of the program itself, which stays mapped, readable and
        // unchanged as long as the process lives.
        unsafe { slice::from_raw_parts(start, (segment.range.end - address) as usize) }
    }
}

/// For `dl_iterate_phdr(3)`: the first object is the program.
unsafe extern "C" fn take_first(
    object: *mut libc::dl_phdr_info,
    _: libc::size_t,
    image: *mut c_void,
) -> libc::c_int {
    // SAFETY: the loader passes a valid description, whose headers are as many as it says, and
    // the image that `running` gave it.
    let (object, image) = unsafe { (&*object, &mut *image.cast::<Image>()) };
    // SAFETY: as above.
    let headers =
        unsafe { slice::from_raw_parts(object.dlpi_phdr, usize::from(object.dlpi_phnum)) };
    for header in headers {
        let start = object.dlpi_addr + header.p_vaddr;
        let range = start..start + header.p_memsz;
        match header.p_type {
            libc::PT_LOAD => image.segments.push(Segment {
                range,
                executable: header.p_flags & libc::PF_X != 0,
                writable: header.p_flags & libc::PF_W != 0,
            }),
            libc::PT_GNU_EH_FRAME => image.eh_frame_hdr = range,
            _ => {}
        }
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
