//! The unwind tables of this very test binary.

use keeper::unwind::{LoadedSection, UnwindTables};

unsafe extern "C" {
    fn getauxval(kind: u64) -> u64;
}

const AT_PHDR: u64 = 3;
const AT_PHNUM: u64 = 5;
const PT_LOAD: u32 = 1;
const PT_PHDR: u32 = 6;
const PT_GNU_EH_FRAME: u32 = 0x6474_e550;
const PF_X: u32 = 1;

/// `Elf64_Phdr` (System V gABI, chapter 5).
#[repr(C)]
struct ProgramHeader {
    kind: u32,
    flags: u32,
    offset: u64,
    address: u64,
    physical: u64,
    file_size: u64,
    memory_size: u64,
    alignment: u64,
}

/// Bytes of the running binary.
fn bytes(address: u64, size: u64) -> LoadedSection<'static> {
    // SAFETY: callers pass ranges inside a read-only segment of the running binary, which stays
    // mapped and unchanged as long as the process lives.
    let bytes = unsafe {
        std::slice::from_raw_parts(
            std::ptr::with_exposed_provenance(address as usize),
            size as usize,
        )
    };
    LoadedSection { bytes, address }
}

pub(crate) fn tables() -> UnwindTables<'static> {
    // SAFETY: the kernel gives every process these two entries, and they describe the array.
    let headers: &[ProgramHeader] = unsafe {
        std::slice::from_raw_parts(
            std::ptr::with_exposed_provenance(getauxval(AT_PHDR) as usize),
            getauxval(AT_PHNUM) as usize,
        )
    };
    let find = |kind| headers.iter().find(|header| header.kind == kind).unwrap();
    let load_bias = headers.as_ptr().addr() as u64 - find(PT_PHDR).address;
    let hdr = find(PT_GNU_EH_FRAME);
    let header = bytes(load_bias + hdr.address, hdr.memory_size);
    let eh_frame_start = UnwindTables::eh_frame_address(header).unwrap();
    let loads = || headers.iter().filter(|header| header.kind == PT_LOAD);
    let range = |load: &ProgramHeader| {
        load_bias + load.address..load_bias + load.address + load.memory_size
    };
    let eh_frame_end =
        loads().map(range).find(|range| range.contains(&eh_frame_start)).unwrap().end;
    let text = loads().filter(|load| load.flags & PF_X != 0).map(range).next().unwrap();
    UnwindTables::new(header, bytes(eh_frame_start, eh_frame_end - eh_frame_start), text).unwrap()
}
