//! Contexts in and out of a signal frame.
#![expect(unsafe_code, reason = "reads and writes what the kernel saved for a signal handler")]

use core::ptr;

use task_model::{FpuState, Gpr, RegisterFile};

/// The trap flag: a debug exception after each instruction (Intel SDM volume 3, 19.3.1.4).
pub(super) const TRAP_FLAG: u64 = 1 << 8;

/// Room for what `xsave` adds to the legacy area: AVX-512 and what comes with it. The tiles of AMX
/// do not fit, and no task here uses them.
const EXTENDED_BYTES: usize = 4096;

/// A context that does not run: the registers that a keeper looks at, and the rest of the vector
/// state, which it has no use for.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) registers: RegisterFile,
    extended: [u8; EXTENDED_BYTES],
    extended_len: usize,
}

impl Context {
    pub(super) const fn new() -> Self {
        Self { registers: RegisterFile::new(), extended: [0; EXTENDED_BYTES], extended_len: 0 }
    }

    /// Takes over what the signal interrupted.
    ///
    /// # Safety
    /// `frame` is the third argument of the signal handler that runs now.
    pub(super) unsafe fn save(&mut self, frame: *const libc::ucontext_t) {
        // SAFETY: the kernel made the frame, and it lives until the handler returns.
        let machine = unsafe { &(*frame).uc_mcontext };
        for (register, slot) in SLOTS {
            self.registers[register] = machine.gregs[slot as usize].cast_unsigned();
        }
        self.registers.rip = machine.gregs[libc::REG_RIP as usize].cast_unsigned();
        self.registers.rflags = machine.gregs[libc::REG_EFL as usize].cast_unsigned();
        let (legacy, extended, len) = vector_areas(machine.fpregs);
        self.extended_len = len;
        // SAFETY: the areas are what the kernel wrote, as long as it says they are.
        unsafe {
            ptr::copy_nonoverlapping(legacy, self.registers.fpu.0.as_mut_ptr(), SAVED_BYTES);
            ptr::copy_nonoverlapping(extended, self.extended.as_mut_ptr(), len);
        }
    }

    /// Makes the signal return into this context.
    ///
    /// # Safety
    /// As [`Context::save`]; and this context may run now: its stack is its own, and whatever ran
    /// in the interrupted context has been saved or is not needed any more.
    pub(super) unsafe fn load(&self, frame: *mut libc::ucontext_t) {
        // SAFETY: as in `save`.
        let machine = unsafe { &mut (*frame).uc_mcontext };
        for (register, slot) in SLOTS {
            machine.gregs[slot as usize] = self.registers[register].cast_signed();
        }
        machine.gregs[libc::REG_RIP as usize] = self.registers.rip.cast_signed();
        machine.gregs[libc::REG_EFL as usize] = self.registers.rflags.cast_signed();
        let (legacy, extended, len) = vector_areas(machine.fpregs);
        // SAFETY: as in `save`. A context that never ran has no extended state: zeros there mean
        // the initial state of whatever the header's bits name.
        unsafe {
            ptr::copy_nonoverlapping(self.registers.fpu.0.as_ptr(), legacy, SAVED_BYTES);
            if self.extended_len == len {
                ptr::copy_nonoverlapping(self.extended.as_ptr(), extended, len);
            }
        }
    }
}

/// The part of the legacy area that is registers; the rest is the kernel's description of the
/// frame, which stays as it is (Linux `arch/x86/include/uapi/asm/sigcontext.h`).
const SAVED_BYTES: usize = 416;
/// Where in the legacy area that description begins: a magic number, then the size of everything.
const SOFTWARE_BYTES: usize = 464;
const MAGIC: u32 = 0x4650_5853;
const LEGACY_BYTES: usize = size_of::<FpuState>();

/// The legacy area, what follows it, and how many bytes of that there are to copy.
fn vector_areas(fpregs: *mut libc::_libc_fpstate) -> (*mut u8, *mut u8, usize) {
    let legacy = fpregs.cast::<u8>();
    // SAFETY: the kernel gives every frame of a 64-bit process an FPU area of at least 512 bytes,
    // and says at this place whether more follows, and how much.
    let (magic, size) = unsafe {
        let description = legacy.add(SOFTWARE_BYTES).cast::<u32>();
        (description.read_unaligned(), description.add(1).read_unaligned() as usize)
    };
    let extended = if magic == MAGIC { size.saturating_sub(LEGACY_BYTES) } else { 0 };
    (legacy, legacy.wrapping_add(LEGACY_BYTES), extended.min(EXTENDED_BYTES))
}

const SLOTS: [(Gpr, libc::c_int); 16] = [
    (Gpr::Rax, libc::REG_RAX),
    (Gpr::Rcx, libc::REG_RCX),
    (Gpr::Rdx, libc::REG_RDX),
    (Gpr::Rbx, libc::REG_RBX),
    (Gpr::Rsp, libc::REG_RSP),
    (Gpr::Rbp, libc::REG_RBP),
    (Gpr::Rsi, libc::REG_RSI),
    (Gpr::Rdi, libc::REG_RDI),
    (Gpr::R8, libc::REG_R8),
    (Gpr::R9, libc::REG_R9),
    (Gpr::R10, libc::REG_R10),
    (Gpr::R11, libc::REG_R11),
    (Gpr::R12, libc::REG_R12),
    (Gpr::R13, libc::REG_R13),
    (Gpr::R14, libc::REG_R14),
    (Gpr::R15, libc::REG_R15),
];
