//! What is known of one frame's registers.

use core::fmt;

use task_model::{Gpr, RegisterFile};

/// The general-purpose registers of one frame, as far as they are known.
#[derive(Clone, Copy)]
pub struct UnwindRegisters {
    /// In encoding order; what stands for an unknown register means nothing.
    values: [u64; 16],
    /// Bit n: register n is known.
    known: u16,
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

    /// Makes these registers those of a caller: of [`CALLEE_SAVED`], what `saved` gives for each by
    /// its place there, or what is `live`; the others are unknown.
    #[inline]
    pub(super) fn set_callee_saved<E>(
        &mut self,
        live: &Self,
        saved: impl Fn(usize) -> Result<Option<u64>, E>,
    ) -> Result<(), E> {
        let mut known = live.known & CALLEE_SAVED_MASK;
        for (n, gpr) in CALLEE_SAVED.into_iter().enumerate() {
            let gpr = gpr as usize;
            self.values[gpr] = match saved(n)? {
                Some(value) => {
                    known |= 1 << gpr;
                    value
                }
                None => live.values[gpr],
            };
        }
        self.known = known;
        Ok(())
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
        Self { values: registers.gpr, known: u16::MAX }
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

/// As in [`UnwindRegisters::known`].
const CALLEE_SAVED_MASK: u16 = {
    let (mut mask, mut n) = (0, 0);
    while n < CALLEE_SAVED.len() {
        mask |= 1 << CALLEE_SAVED[n] as u16;
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

impl FrameState {
    /// Nothing is known, and it stands nowhere.
    pub(super) const UNKNOWN: Self =
        Self { address: FrameAddress::InstructionPointer(0), registers: UnwindRegisters::UNKNOWN };
}

impl FrameState {
    /// Makes it equal to `caller`, which a compact rule gave, and whose stack pointer is `sp`.
    ///
    /// The stack pointer and the address come by themselves: the next step begins with them, and a
    /// copy of several words at once has to wait until all of them are in the cache.
    #[inline]
    pub(super) fn set_to_compact(&mut self, caller: &Self, sp: u64) {
        self.address = FrameAddress::ReturnAddress(caller.address.address());
        let (registers, caller) = (&mut self.registers, &caller.registers);
        registers.known = caller.known;
        registers.values[Gpr::Rsp as usize] = sp;
        for gpr in CALLEE_SAVED {
            registers.values[gpr as usize] = caller.values[gpr as usize];
        }
    }
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
