//! From the loader's hands to Rust.
//!
//! The kernel is an ELF image with a PVH note: a loader that knows the protocol enters at
//! [`pvh_entry`] in 32-bit protected mode, paging off, with the physical address of the start
//! info in `ebx` (Xen's `docs/misc/pvh.pandoc`, `xen/include/public/arch-x86/hvm/start_info.h`).
#![expect(unsafe_code, reason = "the machine's entry point, and the loader's start info")]

use core::arch::{global_asm, naked_asm};
use core::cell::UnsafeCell;
use core::ffi::CStr;
use core::ptr;

use x86_64::structures::paging::PageTable;

// The note by which a PVH loader finds the entry: name "Xen", type 18 (XEN_ELFNOTE_PHYS32_ENTRY).
global_asm!(
    ".pushsection .note.pvh, \"a\", @note",
    ".balign 4",
    ".long 4, 4, 18",
    ".asciz \"Xen\"",
    ".long {entry}",
    ".popsection",
    entry = sym pvh_entry,
);

/// A page table that the entry code fills before there is anything else.
#[repr(transparent)]
struct BootTable(UnsafeCell<PageTable>);

// SAFETY: written by the entry code alone, before Rust runs; later through CR3 by `memory`.
unsafe impl Sync for BootTable {}

impl BootTable {
    const fn new() -> Self {
        Self(UnsafeCell::new(PageTable::new()))
    }
}

static LEVEL_4: BootTable = BootTable::new();
static LEVEL_3: BootTable = BootTable::new();
/// One for each of the low 4 GiB.
static LEVEL_2: [BootTable; 4] = [const { BootTable::new() }; 4];

const STACK_SIZE: usize = 32 * 1024;

/// The stack of everything that runs before the first task.
#[repr(C, align(16))]
struct BootStack(UnsafeCell<[u8; STACK_SIZE]>);

// SAFETY: no Rust code names its contents.
unsafe impl Sync for BootStack {}

static BOOT_STACK: BootStack = BootStack(UnsafeCell::new([0; STACK_SIZE]));

/// Null, 64-bit code, data: enough to enter long mode, until `descriptors` loads the real one.
static BOOT_GDT: [u64; 3] = [0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff];

/// What `lgdt` reads in 32-bit code: a limit and a 32-bit base.
#[repr(C, packed)]
struct BootGdtPointer {
    limit: u16,
    base: &'static [u64; 3],
}

static BOOT_GDT_POINTER: BootGdtPointer =
    BootGdtPointer { limit: size_of_val(&BOOT_GDT) as u16 - 1, base: &BOOT_GDT };

/// The first instruction of the kernel: builds an identity map of the low 4 GiB and enters long
/// mode with SSE on (Intel SDM volume 3, 10.8.5 "Initializing IA-32e Mode").
#[unsafe(naked)]
#[unsafe(no_mangle)]
extern "C" fn pvh_entry() {
    naked_asm!(
        ".code32",
        "cli",
        "cld",
        // Tables start as zero; 3 = present, writable.
        "mov eax, offset {level_3} + 3",
        "mov [{level_4}], eax",
        "mov eax, offset {level_2} + 3",
        "mov edi, offset {level_3}",
        "2:",
        "mov [edi], eax",
        "add edi, 8",
        "add eax, 0x1000",
        "cmp edi, offset {level_3} + 4 * 8",
        "jne 2b",
        // 2048 pages of 2 MiB: 0x83 = present, writable, large. The fourth GiB holds devices, the
        // local APIC among them: 0x18 = write-through, uncached.
        "xor ecx, ecx",
        "3:",
        "mov eax, ecx",
        "shl eax, 21",
        "or eax, 0x83",
        "cmp ecx, 3 * 512",
        "jb 4f",
        "or eax, 0x18",
        "4:",
        "mov [{level_2} + ecx * 8], eax",
        "inc ecx",
        "cmp ecx, 4 * 512",
        "jne 3b",
        "mov eax, offset {level_4}",
        "mov cr3, eax",
        // CR4: PAE, OSFXSR, OSXMMEXCPT.
        "mov eax, cr4",
        "or eax, 0x620",
        "mov cr4, eax",
        // EFER: LME, NXE.
        "mov ecx, 0xc0000080",
        "rdmsr",
        "or eax, 0x900",
        "wrmsr",
        // CR0: PG, WP, NE, MP, PE on; TS and EM off.
        "mov eax, cr0",
        "and eax, ~0xc",
        "or eax, 0x80010023",
        "mov cr0, eax",
        "lgdt [{gdt_pointer}]",
        // The loader leaves ESP undefined, and a far return is the jump that changes CS.
        "mov esp, offset {stack} + {stack_size}",
        "push 8",
        "mov eax, offset {long_mode}",
        "push eax",
        "retf",
        ".code64",
        level_4 = sym LEVEL_4,
        level_3 = sym LEVEL_3,
        level_2 = sym LEVEL_2,
        gdt_pointer = sym BOOT_GDT_POINTER,
        stack = sym BOOT_STACK,
        stack_size = const STACK_SIZE,
        long_mode = sym long_mode_entry,
    )
}

/// The first 64-bit code: the outermost frame, so its return address is undefined.
#[unsafe(naked)]
extern "C" fn long_mode_entry() {
    naked_asm!(
        ".cfi_startproc",
        ".cfi_undefined rip",
        "mov eax, 16",
        "mov ss, eax",
        "xor eax, eax",
        "mov ds, eax",
        "mov es, eax",
        "mov fs, eax",
        "mov gs, eax",
        "lea rsp, [rip + {stack} + {stack_size}]",
        "xor ebp, ebp",
        "mov edi, ebx",
        "call {main}",
        "ud2",
        ".cfi_endproc",
        stack = sym BOOT_STACK,
        stack_size = const STACK_SIZE,
        main = sym crate::kernel_main,
    )
}

/// What the loader tells the kernel, up to the fields used here.
#[repr(C)]
pub(crate) struct StartInfo {
    magic: u32,
    version: u32,
    flags: u32,
    module_count: u32,
    module_list: u64,
    command_line: u64,
}

impl StartInfo {
    /// "xEn3", with the top bit of the E set.
    const MAGIC: u32 = 0x336e_c578;

    /// The command line that the loader passed, empty if it passed none.
    ///
    /// # Safety
    /// `info` is the address that the loader left in `ebx`, and the low 4 GiB are still mapped as
    /// they were at entry.
    pub(crate) unsafe fn command_line(info: u64) -> &'static [u8] {
        let info = ptr::with_exposed_provenance::<Self>(info as usize);
        // SAFETY: by this function's contract a start info lies there.
        let (magic, command_line) = unsafe { ((*info).magic, (*info).command_line) };
        if magic != Self::MAGIC || command_line == 0 {
            return &[];
        }
        let text = ptr::with_exposed_provenance(command_line as usize);
        // SAFETY: the protocol makes it a zero-terminated string.
        unsafe { CStr::from_ptr(text) }.to_bytes()
    }
}
