//! Counting one function's instructions.

use std::ops::AddAssign;

use iced_x86::{
    Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory,
    InstructionInfoOptions, Mnemonic, OpAccess, Register,
};
use keeper::unwind::CallSite;
use serde::Serialize;

/// How many there are, and how many of them have a landing pad.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Counted {
    pub(crate) all: u64,
    pub(crate) covered: u64,
}

/// What is counted of a function, or of many.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Counts {
    /// All instructions.
    pub(crate) instructions: Counted,
    /// Those that can fault, as [`can_fault`] has it.
    pub(crate) can_fault: Counted,
    /// Calls: where a frame stands that is not the innermost one.
    pub(crate) calls: Counted,
}

impl Counted {
    /// Counts one more.
    pub(crate) fn add(&mut self, covered: bool) {
        self.all += 1;
        self.covered += u64::from(covered);
    }

    pub(crate) fn uncovered(self) -> u64 {
        self.all - self.covered
    }
}

impl AddAssign for Counted {
    fn add_assign(&mut self, other: Self) {
        self.all += other.all;
        self.covered += other.covered;
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.instructions += other.instructions;
        self.can_fault += other.can_fault;
        self.calls += other.calls;
    }
}

/// Counts in `code`, which begins at `address`. `sites` are the function's call sites, by address.
pub(crate) fn count(code: &[u8], address: u64, sites: &[CallSite]) -> Counts {
    let mut counts = Counts::default();
    let mut info = InstructionInfoFactory::new();
    let mut sites = sites.iter().peekable();
    for instruction in Decoder::with_ip(64, code, address, DecoderOptions::NONE) {
        let at = instruction.ip();
        while sites.next_if(|site| site.end <= at).is_some() {}
        // As a personality routine searches: the first site that has not ended decides.
        let site = sites.peek().filter(|site| site.start <= at);
        let covered = site.is_some_and(|site| site.landing_pad.is_some());

        counts.instructions.add(covered);
        if can_fault(&instruction, &mut info) {
            counts.can_fault.add(covered);
        }
        if matches!(instruction.flow_control(), FlowControl::Call | FlowControl::IndirectCall) {
            counts.calls.add(covered);
        }
    }
    counts
}

/// Whether the instruction can fault by itself: it accesses memory other than by the stack pointer,
/// divides, traps, or may not be executed by everybody.
///
/// What goes by the stack pointer (pushes, calls, most locals) faults only if the stack is too
/// small. A local that is reached by a frame pointer counts as memory: nothing tells it from any
/// other pointer.
fn can_fault(instruction: &Instruction, info: &mut InstructionInfoFactory) -> bool {
    let traps = matches!(
        instruction.mnemonic(),
        Mnemonic::Div
            | Mnemonic::Idiv
            | Mnemonic::Ud0
            | Mnemonic::Ud1
            | Mnemonic::Ud2
            | Mnemonic::Int
            | Mnemonic::Int1
            | Mnemonic::Int3
            | Mnemonic::INVALID
    );
    traps
        || instruction.is_privileged()
        || info
            .info_options(instruction, InstructionInfoOptions::NO_REGISTER_USAGE)
            .used_memory()
            .iter()
            .any(|memory| {
                memory.access() != OpAccess::NoMemAccess && memory.base() != Register::RSP
            })
}
