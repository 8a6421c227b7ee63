//! A small image in the higher half, with a function for each kind of rule that tables can have.

use std::ops::Range;
use std::sync::LazyLock;

use keeper::unwind::{CompiledMemory, LoadedSection, UnwindTables};

/// The first function's address.
pub(super) const TEXT: u64 = 0xffff_ffff_8010_0000;
/// The size of the text: room for more functions than there are, so that some addresses have none.
pub(super) const TEXT_SIZE: u64 = 0x4000;
/// Where `.eh_frame` is loaded.
pub(super) const EH_FRAME: u64 = TEXT + 0x10_0000;
/// Where `.eh_frame_hdr` is loaded.
pub(super) const HEADER: u64 = TEXT + 0x20_0000;

const FUNCTION_SIZE: u64 = 0x100;

/// The text's addresses.
pub(super) const fn text() -> Range<u64> {
    TEXT..TEXT + TEXT_SIZE
}

/// The augmentations: without and with `S`, which marks a signal frame.
const PLAIN: &[u8] = b"zR\0";
const SIGNAL: &[u8] = b"zRS\0";

/// Each function's augmentation, and its `DW_CFA_*` code (DWARF 5, section 6.4.2), which runs after
/// `CFA = rsp + 8, rip at CFA - 8`. DWARF numbers rbx 3, rbp 6, rsp 7 and rip 16.
const FUNCTIONS: &[(&[u8], &[u8])] = &[
    // The entry: rip is undefined.
    (PLAIN, &[0x07, 16]),
    // A leaf.
    (PLAIN, &[]),
    // A frame pointer: pushed after one byte, set after four, popped after 0x40.
    (PLAIN, &[0x41, 0x0e, 16, 0x86, 2, 0x43, 0x0d, 6, 0x02, 0x3c, 0x0c, 7, 8]),
    // Six pushes and room for locals.
    (
        PLAIN,
        &[
            0x41, 0x0e, 16, 0x42, 0x0e, 24, 0x42, 0x0e, 32, 0x42, 0x0e, 40, 0x42, 0x0e, 48, 0x41,
            0x0e, 56, 0x44, 0x0e, 0x80, 1, 0x83, 7, 0x8c, 6, 0x8d, 5, 0x8e, 4, 0x8f, 3, 0x86, 2,
        ],
    ),
    // A remembered state, and a register restored to the CIE's rule.
    (PLAIN, &[0x0e, 24, 0x83, 2, 0x0a, 0x48, 0x0e, 8, 0xc3, 0x48, 0x0b]),
    // The lazy PLT's CFA: rsp + 8 + ((rip & 15) >= 11) * 8.
    (PLAIN, &[0x0f, 11, 0x77, 8, 0x80, 0, 0x3f, 0x1a, 0x3b, 0x2a, 0x33, 0x24, 0x22]),
    // A trap stub: rip, rsp and rbp from the saved registers.
    (SIGNAL, &[0x0e, 48, 0x90, 6, 0x16, 7, 2, 0x23, 8, 0x86, 5, 0x83, 4]),
    // A signal's trampoline: everything by expressions from rsp.
    (
        SIGNAL,
        &[
            0x0f, 3, 0x77, 32, 0x06, 0x10, 7, 2, 0x77, 32, 0x10, 16, 2, 0x77, 40, 0x10, 3, 2, 0x77,
            8,
        ],
    ),
    // The return address and rbp in registers.
    (PLAIN, &[0x09, 16, 3, 0x09, 6, 12]),
    // Values computed from the CFA: rbx by an offset, rsp by an expression.
    (PLAIN, &[0x14, 3, 2, 0x16, 7, 3, 0x12, 0x23, 8, 0x96]),
    // A frame that is aligned to more than the ABI asks: its CFA is saved below rbp.
    (PLAIN, &[0x0f, 3, 0x76, 0x78, 0x06, 0x10, 6, 2, 0x76, 0]),
    // Undefined and unchanged registers, and an argument area.
    (PLAIN, &[0x07, 3, 0x08, 12, 0x2e, 16, 0x0e, 16]),
    // An expression that never ends.
    (PLAIN, &[0x0f, 3, 0x2f, 0xfd, 0xff]),
    // Signed and extended offsets, and a CFA from rbp.
    (PLAIN, &[0x12, 6, 0x7e, 0x11, 3, 2, 0x05, 6, 2, 0x13, 0x7d]),
    // Reads of one, two and four bytes.
    (PLAIN, &[0x0f, 10, 0x77, 24, 0x77, 4, 0x94, 2, 0x38, 0x1a, 0x22, 0x96]),
    // More pushed than an expression's stack has room for.
    (PLAIN, &[0x0f, 20, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]),
    // An unknown instruction after some bytes.
    (PLAIN, &[0x48, 0x3f]),
];

/// The image's sections.
#[derive(Debug)]
struct Image {
    header: Vec<u8>,
    eh_frame: Vec<u8>,
}

static IMAGE: LazyLock<Image> = LazyLock::new(Image::new);

/// Its tables.
pub(super) fn tables() -> UnwindTables<'static> {
    static TABLES: LazyLock<UnwindTables<'static>> = LazyLock::new(|| {
        let header = LoadedSection { bytes: &IMAGE.header, address: HEADER };
        UnwindTables::new(header, eh_frame(EH_FRAME), text()).expect("a good image")
    });
    *TABLES
}

/// Its tables, compiled.
pub(super) fn compiled() -> UnwindTables<'static> {
    static COMPILED: LazyLock<UnwindTables<'static>> = LazyLock::new(|| {
        let size = tables().compiled_size().expect("a small text");
        let memory = Box::leak(Box::new(CompiledMemory::new(&size)));
        tables().compile(memory).expect("enough memory")
    });
    *COMPILED
}

/// Its `.eh_frame`, loaded to this address.
pub(super) fn eh_frame(address: u64) -> LoadedSection<'static> {
    LoadedSection { bytes: &IMAGE.eh_frame, address }
}

/// `.eh_frame_hdr` with one row: the entry at this offset in [`EH_FRAME`] is of the function at
/// [`TEXT`].
pub(super) fn header_of_one(fde_offset: u32) -> [u8; 20] {
    let mut header = [0; 20];
    header[..4].copy_from_slice(&[1, 0x1b, 0x03, 0x3b]);
    header[4..8].copy_from_slice(&distance(EH_FRAME, HEADER + 4));
    header[8..12].copy_from_slice(&1u32.to_le_bytes());
    header[12..16].copy_from_slice(&distance(TEXT, HEADER));
    header[16..].copy_from_slice(&distance(EH_FRAME + u64::from(fde_offset), HEADER));
    header
}

impl Image {
    fn new() -> Self {
        let mut eh_frame = vec![];
        let mut rows = vec![];
        for (function, (augmentation, code)) in
            (TEXT..).step_by(FUNCTION_SIZE as usize).zip(FUNCTIONS)
        {
            let cie = eh_frame.len();
            let mut body = vec![0, 0, 0, 0, 1];
            body.extend(*augmentation);
            // Code alignment 1, data alignment -8, the return address is register 16; pointers
            // are signed 32-bit distances. DW_CFA_def_cfa rsp, 8; DW_CFA_offset rip, -8
            body.extend([1, 0x78, 16, 1, 0x1b, 0x0c, 7, 8, 0x90, 1]);
            append_entry(&mut eh_frame, body);

            let fde = eh_frame.len() as u64;
            let mut body = (fde as u32 + 4 - cie as u32).to_le_bytes().to_vec();
            body.extend(distance(function, EH_FRAME + fde + 8));
            body.extend((FUNCTION_SIZE as u32).to_le_bytes());
            body.push(0);
            body.extend(*code);
            append_entry(&mut eh_frame, body);
            rows.extend(distance(function, HEADER));
            rows.extend(distance(EH_FRAME + fde, HEADER));
        }
        eh_frame.extend([0; 4]);
        let mut header = header_of_one(0)[..12].to_vec();
        header[8..].copy_from_slice(&(FUNCTIONS.len() as u32).to_le_bytes());
        header.extend(rows);
        Self { header, eh_frame }
    }
}

/// The signed 32-bit distance to `target` from `base`.
fn distance(target: u64, base: u64) -> [u8; 4] {
    (target.wrapping_sub(base) as i32).to_le_bytes()
}

/// Pads an entry's body with `DW_CFA_nop` and puts its length before it.
fn append_entry(eh_frame: &mut Vec<u8>, mut body: Vec<u8>) {
    body.resize(body.len().next_multiple_of(4), 0);
    eh_frame.extend((body.len() as u32).to_le_bytes());
    eh_frame.extend(body);
}
