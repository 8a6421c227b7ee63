//! Which instructions change what others see.
#![expect(unsafe_code, reason = "reads the instructions")]

use iced_x86::{Decoder, DecoderOptions, InstructionInfoFactory, OpAccess, Register};
use task_model::{FrozenTask, Gpr, StackMemory};

/// The longest instruction (Intel SDM volume 2, 2.3.11).
const LONGEST: usize = 15;

/// Whether the instruction that the task is to execute next may change anything but its registers
/// and its stack. What is not understood may.
pub fn is_seen_by_others(task: &FrozenTask<'_>) -> bool {
    let registers = task.registers();
    let code = std::ptr::with_exposed_provenance::<[u8; LONGEST]>(registers.rip as usize);
    // SAFETY: the task executes it next, so it is mapped; and text is followed by more of the
    // image.
    let code = unsafe { code.read_unaligned() };
    let instruction = Decoder::with_ip(64, &code, registers.rip, DecoderOptions::NONE).decode();
    if instruction.is_invalid() {
        return true;
    }
    let value = |register: Register| -> Option<u64> {
        let full = register.full_register();
        let number = full.number();
        match register {
            Register::None => Some(0),
            Register::CS | Register::DS | Register::ES | Register::SS => Some(0),
            // Thread-local storage: not the task's stack.
            Register::FS | Register::GS => Some(0),
            _ if full.is_gpr64() => Gpr::ALL.get(number).map(|gpr| registers[*gpr]),
            _ => None,
        }
    };
    let mut factory = InstructionInfoFactory::new();
    let info = factory.info(&instruction);
    let stack = task.bounds();
    let mut is_seen = instruction.mnemonic() == iced_x86::Mnemonic::Syscall;
    for memory in info.used_memory() {
        let writes = !matches!(
            memory.access(),
            OpAccess::None | OpAccess::Read | OpAccess::CondRead | OpAccess::NoMemAccess
        );
        let address = memory.virtual_address(0, |register, _, _| value(register));
        let own = address
            .is_some_and(|address| memory.segment() != Register::FS && stack.contains(address, 1));
        is_seen |= writes && !own;
    }
    is_seen
}
