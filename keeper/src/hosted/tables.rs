//! The unwind tables of the running program, and of its libraries.

use std::vec::Vec;

use drop_registry::hosted::Image;

use crate::unwind::{LoadedSection, TablesError, UnwindTables};

/// The unwind tables of the program that runs here, as its linker made them.
///
/// # Panics
/// If it has none, or they are not what they should be.
pub fn unwind_tables() -> UnwindTables<'static> {
    tables_of(&Image::running()).expect("the linker made the unwind tables")
}

/// The unwind tables of the libraries that the program is linked with dynamically, or has opened:
/// to be [added](crate::unwind::Images::add) to a keeper's images. Libraries without tables are
/// left out. The others stay loaded as long as the process lives.
pub fn library_tables() -> Vec<UnwindTables<'static>> {
    Image::libraries().iter().filter_map(|image| tables_of(image).ok()).collect()
}

fn tables_of(image: &Image) -> Result<UnwindTables<'static>, TablesError> {
    let loaded = |bytes: &'static [u8]| LoadedSection {
        bytes,
        address: bytes.as_ptr().expose_provenance() as u64,
    };
    let header = loaded(image.eh_frame_hdr());
    let eh_frame = loaded(image.read_only_from(UnwindTables::eh_frame_address(header)?));
    // Linkers put them beside the others, before or after; no header tells where.
    let language_tables = loaded(image.read_only_around(header.address));
    let tables = UnwindTables::new(header, eh_frame, image.text())?;
    Ok(tables.with_language_tables(language_tables).with_code(loaded(image.code())))
}
