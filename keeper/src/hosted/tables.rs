//! The unwind tables of the running program.

use drop_registry::hosted::Image;

use crate::unwind::{LoadedSection, UnwindTables};

/// The unwind tables of the program that runs here, as its linker made them.
///
/// # Panics
/// If it has none, or they are not what they should be.
pub fn unwind_tables() -> UnwindTables<'static> {
    let image = Image::running();
    let loaded = |bytes: &'static [u8]| LoadedSection {
        bytes,
        address: bytes.as_ptr().expose_provenance() as u64,
    };
    let header = loaded(image.eh_frame_hdr());
    let eh_frame = UnwindTables::eh_frame_address(header)
        .map(|address| loaded(image.read_only_from(address)))
        .expect("the program has an .eh_frame_hdr section");
    // Linkers put them beside the others, before or after; no header tells where.
    let language_tables = loaded(image.read_only_around(header.address));
    UnwindTables::new(header, eh_frame, image.text())
        .expect("the linker made the unwind tables")
        .with_language_tables(language_tables)
}
