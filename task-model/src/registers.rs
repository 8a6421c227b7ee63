//! The register file that a trap stub saves.

use core::fmt;
use core::ops::{Index, IndexMut};

/// A general-purpose register, numbered as the instruction encoding does
/// (Intel SDM volume 2, table 2-2), which is also how [`RegisterFile`] stores them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
#[expect(missing_docs, reason = "the registers' own names")]
pub enum Gpr {
    Rax = 0,
    Rcx = 1,
    Rdx = 2,
    Rbx = 3,
    Rsp = 4,
    Rbp = 5,
    Rsi = 6,
    Rdi = 7,
    R8 = 8,
    R9 = 9,
    R10 = 10,
    R11 = 11,
    R12 = 12,
    R13 = 13,
    R14 = 14,
    R15 = 15,
}

impl Gpr {
    /// All sixteen, in encoding order.
    pub const ALL: [Self; 16] = [
        Self::Rax,
        Self::Rcx,
        Self::Rdx,
        Self::Rbx,
        Self::Rsp,
        Self::Rbp,
        Self::Rsi,
        Self::Rdi,
        Self::R8,
        Self::R9,
        Self::R10,
        Self::R11,
        Self::R12,
        Self::R13,
        Self::R14,
        Self::R15,
    ];

    /// The register that the encoding number `n` names, if there is one.
    pub const fn from_encoding(n: u8) -> Option<Self> {
        if n < 16 { Some(Self::ALL[n as usize]) } else { None }
    }

    /// The register that DWARF number `n` names, if it is a general-purpose one.
    ///
    /// The two numberings differ below 8: System V psABI for x86-64, figure 3.36.
    pub const fn from_dwarf(n: u16) -> Option<Self> {
        const ORDER: [u8; 8] = [0, 2, 1, 3, 6, 7, 5, 4];
        match n {
            0..8 => Some(Self::ALL[ORDER[n as usize] as usize]),
            8..16 => Some(Self::ALL[n as usize]),
            _ => None,
        }
    }
}

/// The x87, MMX and SSE state in the layout of `fxsave64`.
///
/// 512 bytes, aligned to 16. A kernel that turns on AVX needs a larger area than this.
#[derive(Clone, Copy)]
#[repr(C, align(16))]
pub struct FpuState(pub [u8; 512]);

impl FpuState {
    /// The state after `fninit` and with MXCSR at its reset value: every exception masked.
    pub const INITIAL: Self = {
        let mut area = [0; 512];
        // FCW = 0x037f at offset 0, MXCSR = 0x1f80 at offset 24 (Intel SDM volume 1, table 10-2).
        area[0] = 0x7f;
        area[1] = 0x03;
        area[24] = 0x80;
        area[25] = 0x1f;
        Self(area)
    };
}

impl fmt::Debug for FpuState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FpuState(..)")
    }
}

/// Everything the CPU holds for a task at one instruction boundary.
///
/// The layout is `repr(C)` so that an assembly stub can fill it: 16 general-purpose registers at
/// offset 0 in encoding order, then `rip`, `rflags`, `cs`, `ss` at 128, 136, 144, 152, then the
/// FPU state at 160.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(16))]
pub struct RegisterFile {
    /// The general-purpose registers in encoding order; index with a [`Gpr`].
    pub gpr: [u64; 16],
    /// The instruction that would have been executed next, or that faulted.
    pub rip: u64,
    /// The flags.
    pub rflags: u64,
    /// Code segment selector.
    pub cs: u64,
    /// Stack segment selector.
    pub ss: u64,
    /// x87 and SSE registers.
    pub fpu: FpuState,
}

impl RegisterFile {
    /// The zero flag in `rflags`.
    pub const ZERO_FLAG: u64 = 1 << 6;

    /// All zero, with the FPU in its initial state.
    pub const fn new() -> Self {
        Self { gpr: [0; 16], rip: 0, rflags: 0, cs: 0, ss: 0, fpu: FpuState::INITIAL }
    }

    /// The stack pointer.
    pub const fn rsp(&self) -> u64 {
        self.gpr[Gpr::Rsp as usize]
    }

    /// The sum of the general-purpose registers and `rip`: if it has changed, so has one of them.
    #[inline]
    pub fn sum(&self) -> u64 {
        // A copy, since the compiler knows how that is aligned, and adds two at a time.
        let gpr = self.gpr;
        gpr.into_iter().fold(0, u64::wrapping_add).wrapping_add(self.rip)
    }

    /// Whether the zero flag is set: what a conditional jump at `rip` would see.
    pub const fn zero_flag(&self) -> bool {
        self.rflags & Self::ZERO_FLAG != 0
    }
}

/// The registers of a stopped task that tell where it was and what with: what a report keeps of a
/// [`RegisterFile`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GeneralRegisters {
    /// The general-purpose registers in encoding order.
    pub gpr: [u64; 16],
    /// The instruction pointer.
    pub rip: u64,
    /// The flags.
    pub rflags: u64,
}

impl From<&RegisterFile> for GeneralRegisters {
    fn from(file: &RegisterFile) -> Self {
        Self { gpr: file.gpr, rip: file.rip, rflags: file.rflags }
    }
}

/// Four to a line, without an end of line after the last.
impl fmt::Display for GeneralRegisters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [&str; 16] = [
            "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11",
            "r12", "r13", "r14", "r15",
        ];
        for (n, (name, value)) in NAMES.iter().zip(self.gpr).enumerate() {
            write!(f, "  {name:>3} {value:016x}{}", if n % 4 == 3 { "\n" } else { "" })?;
        }
        write!(f, "  rip {:016x}  rflags {:x}", self.rip, self.rflags)
    }
}

impl Default for RegisterFile {
    fn default() -> Self {
        Self::new()
    }
}

impl Index<Gpr> for RegisterFile {
    type Output = u64;

    fn index(&self, register: Gpr) -> &u64 {
        &self.gpr[register as usize]
    }
}

impl IndexMut<Gpr> for RegisterFile {
    fn index_mut(&mut self, register: Gpr) -> &mut u64 {
        &mut self.gpr[register as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::mem::offset_of;

    #[test]
    fn the_layout_is_what_the_stubs_write() {
        assert_eq!(offset_of!(RegisterFile, gpr), 0);
        assert_eq!(offset_of!(RegisterFile, rip), 128);
        assert_eq!(offset_of!(RegisterFile, rflags), 136);
        assert_eq!(offset_of!(RegisterFile, cs), 144);
        assert_eq!(offset_of!(RegisterFile, ss), 152);
        assert_eq!(offset_of!(RegisterFile, fpu), 160);
        assert_eq!(size_of::<RegisterFile>(), 672);
    }

    #[test]
    fn dwarf_numbers_follow_the_psabi() {
        use Gpr::*;
        let psabi = [Rax, Rdx, Rcx, Rbx, Rsi, Rdi, Rbp, Rsp, R8, R9, R10, R11, R12, R13, R14, R15];
        for (n, want) in psabi.into_iter().enumerate() {
            assert_eq!(Gpr::from_dwarf(n as u16), Some(want));
        }
        assert_eq!(Gpr::from_dwarf(16), None);
    }

    #[test]
    fn encoding_numbers_round_trip() {
        for register in Gpr::ALL {
            assert_eq!(Gpr::from_encoding(register as u8), Some(register));
        }
        assert_eq!(Gpr::from_encoding(16), None);
    }
}
