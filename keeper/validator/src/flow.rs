//! What an instruction does to the stack of calls.

use iced_x86::{Decoder, DecoderOptions, Mnemonic};

/// The longest that an instruction can be, in bytes.
pub const LONGEST_INSTRUCTION: usize = 15;

/// What there is to know of an instruction before it is executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// It calls, and is to return to this address.
    Call(u64),
    /// It is a breakpoint.
    Breakpoint,
    /// It returns from an interrupt.
    InterruptReturn,
    /// It waits for an interrupt.
    Halt,
    /// Anything else.
    Other,
}

/// Looks at the instruction at `address`, which begins `code`.
pub fn flow(code: &[u8], address: u64) -> Flow {
    let instruction = Decoder::with_ip(64, code, address, DecoderOptions::NONE).decode();
    match instruction.mnemonic() {
        Mnemonic::Call => Flow::Call(instruction.next_ip()),
        Mnemonic::Int3 => Flow::Breakpoint,
        Mnemonic::Hlt => Flow::Halt,
        Mnemonic::Iretq => Flow::InterruptReturn,
        _ => Flow::Other,
    }
}
