//! Modules: images that are loaded once the kernel runs, with unwind tables of their own.
//!
//! There is room for one, which is loaded once. Its pages are mapped twice: here to be executed,
//! and where the kernel's own variables are, to be written before that.
#![expect(unsafe_code, reason = "maps and fills the memory of code")]

use core::cell::UnsafeCell;
use core::ops::Range;
use core::sync::atomic::{AtomicBool, Ordering};

use keeper::unwind::{LoadedSection, UnwindTables};
use zerocopy::FromBytes;

use crate::memory;

/// Where the module is executed: among the stacks' page tables, far from the last of them.
const REGION: u64 = 0x40_2000_0000;

const PAGE: usize = 4096;

/// The pages that there are for it.
const PAGES: usize = 8;

#[repr(C, align(4096))]
struct Memory(UnsafeCell<[[u8; PAGE]; PAGES]>);

// SAFETY: written by `load` alone, once, before anybody is told of the other mapping.
unsafe impl Sync for Memory {}

static MEMORY: Memory = Memory(UnsafeCell::new([[0; PAGE]; PAGES]));
static IS_LOADED: AtomicBool = AtomicBool::new(false);

/// Maps the room for modules. Once, at boot.
pub(crate) fn map_all() {
    let memory = MEMORY.0.get().cast::<[u8; PAGE]>();
    for (n, address) in (REGION..).step_by(PAGE).take(PAGES).enumerate() {
        let frame = memory::physical(memory.wrapping_add(n));
        // SAFETY: through this mapping the memory is only read and executed.
        unsafe { memory::map_code_page(address, frame) };
    }
}

/// A loaded module.
#[derive(Debug)]
pub(crate) struct Module {
    /// The address of its entry.
    pub(crate) entry: u64,
    /// Where its code is.
    pub(crate) text: Range<u64>,
    /// What describes its frames.
    pub(crate) tables: UnwindTables<'static>,
}

/// The header of an ELF file (System V gABI, chapter 4).
#[derive(FromBytes)]
#[repr(C)]
struct FileHeader {
    identification: [u8; 16],
    kind: u16,
    machine: u16,
    version: u32,
    entry: u64,
    segments: u64,
    sections: u64,
    flags: u32,
    size: u16,
    segment_size: u16,
    segment_count: u16,
    section_size: u16,
    section_count: u16,
    names: u16,
}

/// A segment's header (System V gABI, chapter 5).
#[derive(FromBytes, Clone, Copy)]
#[repr(C)]
struct Segment {
    kind: u32,
    flags: u32,
    offset: u64,
    address: u64,
    physical: u64,
    file_size: u64,
    size: u64,
    alignment: u64,
}

const LOAD: u32 = 1;
const EH_FRAME_HDR: u32 = 0x6474_e550;
const EXECUTABLE: u32 = 1;

/// Loads the shared object in `file`, which needs no relocation.
///
/// # Errors
/// Says what is wrong with the file, or that there is no room.
pub(crate) fn load(file: &[u8]) -> Result<Module, &'static str> {
    let (header, _) = FileHeader::read_from_prefix(file).map_err(|_| "no ELF header")?;
    let segments = || {
        (0..u64::from(header.segment_count)).filter_map(|n| {
            let at = header.segments + n * size_of::<Segment>() as u64;
            let (segment, _) = Segment::read_from_prefix(file.get(at as usize..)?).ok()?;
            Some(segment)
        })
    };
    let loads = || segments().filter(|segment| segment.kind == LOAD);
    if IS_LOADED.swap(true, Ordering::Relaxed) {
        return Err("there is a module already");
    }
    let memory = MEMORY.0.get().cast::<u8>();
    for segment in loads() {
        let (start, size) = (segment.offset as usize, segment.file_size as usize);
        let bytes = file.get(start..start + size).ok_or("a segment is cut off")?;
        let end = segment.address.checked_add(segment.size);
        if size as u64 > segment.size || end.is_none_or(|end| end > (PAGE * PAGES) as u64) {
            return Err("the module is too large");
        }
        let place = memory.wrapping_add(segment.address as usize);
        // SAFETY: it ends within the memory, by the comparison, and what has set `IS_LOADED` is the
        // only one that writes there.
        unsafe { place.copy_from_nonoverlapping(bytes.as_ptr(), size) };
    }

    let range = |segment: Segment| {
        let start = REGION + segment.address;
        start..start + segment.size
    };
    let code = loads().find(|segment| segment.flags & EXECUTABLE != 0).ok_or("there is no code")?;
    let index = segments().find(|segment| segment.kind == EH_FRAME_HDR);
    let (text, index) = (range(code), section(range(index.ok_or("there is no unwind index")?))?);
    let at = UnwindTables::eh_frame_address(index).map_err(|_| "the unwind index is of no use")?;
    // To the end of the room: behind its last entry there is nothing but zeros.
    let eh_frame = section(at..REGION + (PAGE * PAGES) as u64)?;
    let tables = UnwindTables::new(index, eh_frame, text.clone())
        .map_err(|_| "the unwind tables are not what they should be")?
        .with_code(section(text.clone())?);
    Ok(Module { entry: REGION + header.entry, text, tables })
}

/// What is loaded at these addresses.
fn section(range: Range<u64>) -> Result<LoadedSection<'static>, &'static str> {
    let room = REGION..REGION + (PAGE * PAGES) as u64;
    if range.start < room.start || range.end > room.end || range.start > range.end {
        return Err("a section is not in the module");
    }
    let start = core::ptr::with_exposed_provenance(range.start as usize);
    // SAFETY: the room is mapped for ever, and nobody writes to it any more.
    let bytes = unsafe { core::slice::from_raw_parts(start, (range.end - range.start) as usize) };
    Ok(LoadedSection { bytes, address: range.start })
}
