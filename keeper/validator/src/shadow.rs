//! The shadow stack: what is known of every frame because its call was seen.

use keeper::unwind::FrameAddress;
use task_model::{Gpr, RegisterFile};

/// One frame that waits for another one to come back to it: the truth about a caller.
#[derive(Debug, Clone, Copy)]
pub struct Caller {
    /// Where it goes on.
    pub address: FrameAddress,
    /// Its registers, in encoding order, as they were when it called or was interrupted. The
    /// stack pointer is the one that it goes on with.
    pub registers: [u64; 16],
    /// The canonical frame address of the frame that it called. An interruption has none: where a
    /// trap's frame ends is its author's choice.
    pub cfa: Option<u64>,
    /// The frame that it waits for is gone when the stack pointer has come up to here.
    gone_at: u64,
}

impl Caller {
    /// Whether it did not call, but was interrupted by a trap or a signal.
    pub const fn was_interrupted(&self) -> bool {
        matches!(self.address, FrameAddress::InstructionPointer(_))
    }
}

/// The callers of the code that runs on one stack, and how they came to be.
#[derive(Debug, Default)]
pub struct Shadow {
    /// Outermost first.
    callers: Vec<Caller>,
}

impl Shadow {
    /// The callers, innermost first.
    pub fn callers(&self) -> Vec<Caller> {
        self.callers.iter().rev().copied().collect()
    }

    /// A call was executed with these registers, and pushed `return_address`.
    pub fn called(&mut self, before: &RegisterFile, return_address: u64) {
        self.callers.push(Caller {
            address: FrameAddress::ReturnAddress(return_address),
            registers: before.gpr,
            cfa: Some(before.rsp()),
            gone_at: before.rsp(),
        });
    }

    /// Code with these registers was interrupted; the frame that this made lies below `gone_at`.
    pub fn interrupted(&mut self, registers: &RegisterFile, gone_at: u64) {
        self.callers.push(Caller {
            address: FrameAddress::InstructionPointer(registers.rip),
            registers: registers.gpr,
            cfa: None,
            gone_at,
        });
    }

    /// The handler of a signal begins with these registers, as if called from `restorer`, which
    /// is code of the frame that the system made.
    pub fn handler_began(&mut self, registers: &RegisterFile, restorer: u64) {
        let mut caller = registers.gpr;
        let cfa = registers.rsp() + 8;
        caller[Gpr::Rsp as usize] = cfa;
        self.callers.push(Caller {
            address: FrameAddress::ReturnAddress(restorer),
            registers: caller,
            cfa: Some(cfa),
            gone_at: cfa,
        });
    }

    /// An instruction was executed, and left these registers. Whoever waited for a frame that is
    /// gone now waits no more. Returns whether such frames were *abandoned*: they ended by
    /// anything but a return to who waited.
    pub fn executed(&mut self, after: &RegisterFile) -> bool {
        let mut abandoned = false;
        while let Some(caller) = self.callers.pop_if(|caller| caller.gone_at <= after.rsp()) {
            let came_back = match caller.address {
                FrameAddress::ReturnAddress(address) => {
                    after.rip == address && after.rsp() == caller.gone_at
                }
                FrameAddress::InstructionPointer(address) => {
                    after.rip == address && after.gpr == caller.registers
                }
            };
            abandoned |= !came_back;
        }
        abandoned
    }
}
