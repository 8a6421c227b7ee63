//! Why a task stopped.

use core::fmt;

use crate::StackBounds;

/// What stopped a task.
///
/// The machine's exceptions by their names in the Intel SDM (volume 3, table 6-1), and the ends
/// that no instruction of the task caused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FaultKind {
    /// #DE: a division by zero, or a quotient that does not fit.
    DivideError,
    /// #DB: a debug trap.
    Debug,
    /// #BP: `int3`.
    Breakpoint,
    /// #UD: an instruction that does not exist, or `ud2`.
    InvalidOpcode,
    /// #DF: a fault while another was being delivered.
    DoubleFault,
    /// #SS: a stack-segment fault; in 64-bit code, a non-canonical stack address.
    StackSegment,
    /// #GP: a general protection fault, such as a non-canonical address.
    GeneralProtection,
    /// #PF: an access that the page tables do not allow.
    PageFault,
    /// A page fault in the task's own stack guard.
    StackOverflow,
    /// #MF: an x87 floating-point error.
    X87FloatingPoint,
    /// #AC: a misaligned access with alignment checks on.
    AlignmentCheck,
    /// #MC: the machine reports its own failure.
    MachineCheck,
    /// #XM: an SSE floating-point error.
    SimdFloatingPoint,
    /// Another task ended it.
    Killed,
    /// Its own code panicked.
    Panicked,
    /// Its entry returned while its ledger still listed something, such as a forgotten guard.
    LeftHolding,
    /// Its entry returned, and it held nothing: an end as it should be, told to whoever
    /// supervises it.
    Exited,
    /// A keeper's task has not ruled in time.
    Overdue,
    /// It has used up its processor time.
    OutOfTime,
    /// It has held a lock for longer than it may.
    HeldTooLong,
    /// It waits for others, and they for it.
    Deadlocked,
    /// Any other vector.
    Other(u8),
}

impl FaultKind {
    /// The exception that `vector` stands for.
    #[inline]
    pub const fn from_vector(vector: u8) -> Self {
        Self::exception(vector).0
    }

    /// The same, and whether it pushes an error code: Intel SDM volume 3, table 6-1.
    #[inline]
    const fn exception(vector: u8) -> (Self, bool) {
        // A table, and not a `match`, which is compiled to jumps.
        const EXCEPTIONS: [(FaultKind, bool); 256] = {
            let mut exceptions = [(FaultKind::Other(0), false); 256];
            let mut vector = 0;
            loop {
                let kind = match vector {
                    0 => FaultKind::DivideError,
                    1 => FaultKind::Debug,
                    3 => FaultKind::Breakpoint,
                    6 => FaultKind::InvalidOpcode,
                    8 => FaultKind::DoubleFault,
                    12 => FaultKind::StackSegment,
                    13 => FaultKind::GeneralProtection,
                    14 => FaultKind::PageFault,
                    16 => FaultKind::X87FloatingPoint,
                    17 => FaultKind::AlignmentCheck,
                    18 => FaultKind::MachineCheck,
                    19 => FaultKind::SimdFloatingPoint,
                    other => FaultKind::Other(other),
                };
                let has_code = matches!(vector, 8 | 10..=14 | 17 | 21);
                exceptions[vector as usize] = (kind, has_code);
                if vector == u8::MAX {
                    break exceptions;
                }
                vector += 1;
            }
        };
        EXCEPTIONS[vector as usize]
    }
}

crate::stored_as! { FaultKind {
    DivideError = 0,
    Debug = 1,
    Breakpoint = 2,
    InvalidOpcode = 3,
    DoubleFault = 4,
    StackSegment = 5,
    GeneralProtection = 6,
    PageFault = 7,
    StackOverflow = 8,
    X87FloatingPoint = 9,
    AlignmentCheck = 10,
    MachineCheck = 11,
    SimdFloatingPoint = 12,
    Killed = 13,
    Panicked = 14,
    LeftHolding = 15,
    Exited = 16,
    Overdue = 17,
    OutOfTime = 18,
    HeldTooLong = 19,
    Deadlocked = 20,
    | Other(u8) = 256..=511,
} }

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::DivideError => "divide error",
            Self::Debug => "debug trap",
            Self::Breakpoint => "breakpoint",
            Self::InvalidOpcode => "invalid opcode",
            Self::DoubleFault => "double fault",
            Self::StackSegment => "stack-segment fault",
            Self::GeneralProtection => "general protection fault",
            Self::PageFault => "page fault",
            Self::StackOverflow => "stack overflow",
            Self::X87FloatingPoint => "x87 floating-point error",
            Self::AlignmentCheck => "alignment check",
            Self::MachineCheck => "machine check",
            Self::SimdFloatingPoint => "SIMD floating-point error",
            Self::Killed => "killed",
            Self::Panicked => "panicked",
            Self::LeftHolding => "left holding",
            Self::Exited => "exited",
            Self::Overdue => "overdue",
            Self::OutOfTime => "out of time",
            Self::HeldTooLong => "held too long",
            Self::Deadlocked => "deadlocked",
            Self::Other(vector) => return write!(f, "vector {vector}"),
        })
    }
}

/// What the machine was doing when something stopped it.
///
/// Code that runs for a task may be cut short anywhere. Code that runs for the kernel itself may
/// leave what it was changing half changed, so a keeper has a policy for each of the other places.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Place {
    /// A task's own code.
    #[default]
    Task,
    /// A task's code, with interrupts off: in the middle of something that nobody is to see half
    /// done.
    InterruptsOff,
    /// A trap handler, or the scheduler in it.
    Trap,
    /// The boot code, before the first task.
    Boot,
}

crate::stored_as! { Place { Task = 0, InterruptsOff = 1, Trap = 2, Boot = 3, } }

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Task => "in a task",
            Self::InterruptsOff => "with interrupts off",
            Self::Trap => "in a trap handler",
            Self::Boot => "before the first task",
        })
    }
}

/// Everything the machine said about why a task stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FaultInfo {
    /// What happened.
    pub kind: FaultKind,
    /// The vector, if a trap brought it.
    pub vector: Option<u8>,
    /// The error code, for the vectors that push one.
    pub error_code: Option<u64>,
    /// The address that the faulting access named, for a page fault.
    pub address: Option<u64>,
    /// Where the task stopped: for a fault, the instruction that faulted.
    pub instruction_pointer: u64,
    /// What was going on there.
    pub place: Place,
}

impl FaultInfo {
    /// What a trap tells about a task that runs on `stack`.
    ///
    /// `address` is CR2, looked at for a page fault alone; one in the stack's guard is a
    /// [`FaultKind::StackOverflow`].
    #[inline]
    pub fn from_trap(
        vector: u8,
        error_code: u64,
        address: u64,
        instruction_pointer: u64,
        stack: &StackBounds,
    ) -> Self {
        let (kind, has_error_code) = match FaultKind::exception(vector) {
            (FaultKind::PageFault, _) if stack.guard_contains(address) => {
                (FaultKind::StackOverflow, true)
            }
            exception => exception,
        };
        Self {
            kind,
            vector: Some(vector),
            error_code: has_error_code.then_some(error_code),
            address: (vector == 14).then_some(address),
            instruction_pointer,
            place: Place::Task,
        }
    }

    /// The same, in another place.
    #[must_use]
    #[inline]
    pub const fn at(self, place: Place) -> Self {
        Self { place, ..self }
    }

    /// The end of a task that another task killed while it stood at `instruction_pointer`.
    #[inline]
    pub const fn killed(instruction_pointer: u64) -> Self {
        Self::without_trap(FaultKind::Killed, instruction_pointer)
    }

    /// The end of a task whose code panicked at `instruction_pointer`.
    pub const fn panicked(instruction_pointer: u64) -> Self {
        Self::without_trap(FaultKind::Panicked, instruction_pointer)
    }

    /// The end of a task whose entry returned while it still held something.
    pub const fn left_holding(instruction_pointer: u64) -> Self {
        Self::without_trap(FaultKind::LeftHolding, instruction_pointer)
    }

    /// The end of a task whose entry returned, and that held nothing.
    pub const fn exited(instruction_pointer: u64) -> Self {
        Self::without_trap(FaultKind::Exited, instruction_pointer)
    }

    /// The end of a keeper's task that had not ruled in time, and stood at `instruction_pointer`.
    pub const fn overdue(instruction_pointer: u64) -> Self {
        Self::without_trap(FaultKind::Overdue, instruction_pointer)
    }

    /// The end of a task for a reason of its keeper's: a meter has run out, or it is part of a
    /// deadlock. It stood at `instruction_pointer`.
    #[inline]
    pub const fn metered(kind: FaultKind, instruction_pointer: u64) -> Self {
        Self::without_trap(kind, instruction_pointer)
    }

    const fn without_trap(kind: FaultKind, instruction_pointer: u64) -> Self {
        let (vector, error_code, address) = (None, None, None);
        Self { kind, vector, error_code, address, instruction_pointer, place: Place::Task }
    }
}

impl fmt::Display for FaultInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {:#x}", self.kind, self.instruction_pointer)?;
        if let Some(address) = self.address {
            write!(f, ", accessing {address:#x}")?;
        }
        if let Some(code) = self.error_code {
            write!(f, ", error code {code:#x}")?;
        }
        if self.place != Place::Task {
            write!(f, ", {}", self.place)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    fn stack() -> StackBounds {
        StackBounds::new(0x10000, 0x14000, 0x1000).unwrap()
    }

    #[test]
    fn a_page_fault_in_the_guard_is_a_stack_overflow() {
        assert_eq!(
            FaultInfo::from_trap(14, 2, 0xfff8, 0x40_0000, &stack()).kind,
            FaultKind::StackOverflow
        );
        assert_eq!(
            FaultInfo::from_trap(14, 2, 0xeff8, 0x40_0000, &stack()).kind,
            FaultKind::PageFault
        );
    }

    #[test]
    fn stale_cr2_is_not_reported_for_other_faults() {
        let fault = FaultInfo::from_trap(6, 0, 0xfff8, 0x40_0000, &stack());
        assert_eq!(fault.kind, FaultKind::InvalidOpcode);
        assert_eq!((fault.address, fault.error_code), (None, None));
    }

    #[test]
    fn it_reads_as_a_sentence() {
        let fault = FaultInfo::from_trap(14, 2, 0xdead000, 0x40_1234, &stack());
        assert_eq!(
            fault.to_string(),
            "page fault at 0x401234, accessing 0xdead000, error code 0x2"
        );
    }
}
