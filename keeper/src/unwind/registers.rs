//! What is known of one frame's registers.

use core::fmt;

use task_model::{Gpr, RegisterFile};

use super::usual::Slots;

/// The general-purpose registers of one frame, as far as they are known.
#[derive(Clone, Copy)]
pub struct UnwindRegisters {
    /// In encoding order; what stands for an unknown register means nothing.
    values: [u64; 16],
    /// Bit n: register n is known. Of 32 bits, as a processor that has written 16 of them has to
    /// wait before it can read more.
    known: u32,
}

impl UnwindRegisters {
    /// No register is known.
    pub const UNKNOWN: Self = Self { values: [0; 16], known: 0 };

    /// The register's value in the frame, if it is known.
    #[inline]
    pub const fn get(&self, register: Gpr) -> Option<u64> {
        let n = register as usize;
        if self.known & (1 << n) != 0 { Some(self.values[n]) } else { None }
    }

    /// Makes the register known or unknown.
    #[inline]
    pub const fn set(&mut self, register: Gpr, value: Option<u64>) {
        let n = register as usize;
        match value {
            Some(value) => {
                self.values[n] = value;
                self.known |= 1 << n;
            }
            None => self.known &= !(1 << n),
        }
    }

    /// Those that a function must give back, if all of them are known.
    #[inline]
    pub(super) const fn preserved(&self) -> Option<Preserved<'_>> {
        if self.known & PRESERVED == PRESERVED { Some(Preserved(&self.values)) } else { None }
    }

    /// Makes these registers, of which all [`preserved`](Self::preserved) are known, those of a
    /// caller whose stack pointer is `sp`: those that are in a slot are what `read` finds there;
    /// the others stay what they are. What need not be preserved becomes unknown, and so does
    /// everything if a slot is an error.
    ///
    /// In place, and a part of [`Call::undo`](super::step::Call::undo) for each of the usual
    /// frames.
    #[inline(always)]
    pub(super) fn set_preserved<E>(
        &mut self,
        sp: u64,
        slots: Slots,
        read: impl Fn(u8) -> Result<u64, E>,
    ) {
        self.known = PRESERVED;
        self.values[Gpr::Rsp as usize] = sp;
        for (gpr, words) in CALLEE_SAVED.into_iter().zip(slots) {
            match (words != 0).then(|| read(words)) {
                None => {}
                Some(Ok(value)) => self.values[gpr as usize] = value,
                Some(Err(_)) => {
                    *self = Self::UNKNOWN;
                    return;
                }
            }
        }
    }
}

/// The registers that a function must give back, all of them known.
#[derive(Clone, Copy)]
pub(super) struct Preserved<'a>(&'a [u64; 16]);

impl Preserved<'_> {
    #[inline]
    pub(super) const fn rsp(self) -> u64 {
        self.0[Gpr::Rsp as usize]
    }

    #[inline]
    pub(super) const fn rbp(self) -> u64 {
        self.0[Gpr::Rbp as usize]
    }
}

impl PartialEq for UnwindRegisters {
    fn eq(&self, other: &Self) -> bool {
        Gpr::ALL.into_iter().all(|gpr| self.get(gpr) == other.get(gpr))
    }
}

impl Eq for UnwindRegisters {}

impl From<&RegisterFile> for UnwindRegisters {
    fn from(registers: &RegisterFile) -> Self {
        Self { values: registers.gpr, known: 0xffff }
    }
}

impl fmt::Debug for UnwindRegisters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = Gpr::ALL.into_iter().filter_map(|gpr| Some((gpr, self.get(gpr)?)));
        f.debug_map().entries(known).finish()
    }
}

/// The registers that a function must give back as it got them (System V psABI for x86-64,
/// figure 3.4). The stack pointer is one too, but by way of the frame address.
pub(super) const CALLEE_SAVED: [Gpr; 6] =
    [Gpr::Rbx, Gpr::Rbp, Gpr::R12, Gpr::R13, Gpr::R14, Gpr::R15];

/// They and the stack pointer, as in [`UnwindRegisters::known`].
const PRESERVED: u32 = {
    let (mut mask, mut n) = (1 << Gpr::Rsp as u32, 0);
    while n < CALLEE_SAVED.len() {
        mask |= 1 << CALLEE_SAVED[n] as u32;
        n += 1;
    }
    mask
};

pub(super) fn is_callee_saved(register: Gpr) -> bool {
    CALLEE_SAVED.contains(&register)
}

/// Where a frame stands in its function.
///
/// The two are looked up differently. A return address follows its call, and if the call never
/// returns that may already be the next row of the tables, or the next function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FrameAddress {
    /// The frame was stopped *before* the instruction here: by the fault or the kill, or by a
    /// trap whose stub says that it is a signal frame.
    InstructionPointer(u64),
    /// The frame called, and the callee returns to here.
    ReturnAddress(u64),
}

impl FrameAddress {
    /// The address itself.
    #[inline]
    pub const fn address(self) -> u64 {
        match self {
            Self::InstructionPointer(address) | Self::ReturnAddress(address) => address,
        }
    }

    #[inline]
    pub(super) const fn is_return_address(self) -> bool {
        matches!(self, Self::ReturnAddress(_))
    }

    /// The address to look up: in the instruction that the frame was executing.
    #[inline]
    pub const fn lookup_address(self) -> u64 {
        match self {
            Self::InstructionPointer(address) => address,
            Self::ReturnAddress(address) => address.wrapping_sub(1),
        }
    }
}

/// One frame, as a step takes it and gives its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameState {
    /// Where it stands.
    pub address: FrameAddress,
    /// What its registers hold there.
    pub registers: UnwindRegisters,
}

impl From<&RegisterFile> for FrameState {
    /// The innermost frame of a task that stopped with these registers.
    fn from(registers: &RegisterFile) -> Self {
        Self {
            address: FrameAddress::InstructionPointer(registers.rip),
            registers: UnwindRegisters::from(registers),
        }
    }
}
