//! Where the parts of the linked image lie (`kernel.ld`).
#![expect(unsafe_code, reason = "names symbols of the linker script")]

use core::ops::Range;

/// Declares functions that return the range of addresses between two symbols.
macro_rules! ranges {
    ($($(#[$doc:meta])* $name:ident = $start:ident .. $end:ident;)*) => {$(
        $(#[$doc])*
        pub(crate) fn $name() -> Range<u64> {
            unsafe extern "C" {
                static $start: u8;
                static $end: u8;
            }
            (&raw const $start).expose_provenance() as u64
                ..(&raw const $end).expose_provenance() as u64
        }
    )*};
}

ranges! {
    /// What is mapped read-only: constants, tables and code, up to a 2 MiB boundary.
    read_only = __image_start..__data_start;
    /// Constants alone, of those: read-only, and no code.
    constants = __image_start..__text_start;
    /// Data up to the end of the image, from a 2 MiB boundary.
    data = __data_start..__image_end;
    /// The trap stubs: an interrupted instruction in here is part of a trap, not of a task.
    trap_text = __trap_text_start..__trap_text_end;
    /// All code.
    text = __text_start..__text_end;
    /// The sorted index of the unwind tables (LSB core specification, 10.6.2).
    eh_frame_hdr = __eh_frame_hdr_start..__eh_frame_hdr_end;
    /// The unwind tables.
    eh_frame = __eh_frame_start..__eh_frame_end;
    /// The language tables: where the libraries have landing pads.
    gcc_except_table = __gcc_except_table_start..__gcc_except_table_end;
}
