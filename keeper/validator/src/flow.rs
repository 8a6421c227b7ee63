//! What an instruction does to the stack of calls.

use iced_x86::{Decoder, DecoderOptions, Mnemonic};

/// The longest that an instruction can be, in bytes.
pub const LONGEST_INSTRUCTION: usize = 15;

/// What there is to know of an instruction before it is executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// It calls, and is to return to this address.
    Call(u64),
    /// It returns from a call.
    Return,
    /// It is a breakpoint.
    Breakpoint,
    /// It returns from an interrupt.
    InterruptReturn,
    /// It waits for an interrupt.
    Halt,
    /// It is a string instruction that repeats itself, up to RCX times; this address is behind it.
    Repeat(u64),
    /// Anything else.
    Other,
}

/// Looks at the instruction at `address`, which begins `code`.
pub fn flow(code: &[u8], address: u64) -> Flow {
    let instruction = Decoder::with_ip(64, code, address, DecoderOptions::NONE).decode();
    match instruction.mnemonic() {
        Mnemonic::Call => Flow::Call(instruction.next_ip()),
        Mnemonic::Ret => Flow::Return,
        Mnemonic::Int3 => Flow::Breakpoint,
        Mnemonic::Hlt => Flow::Halt,
        Mnemonic::Iretq => Flow::InterruptReturn,
        _ if instruction.is_string_instruction()
            && (instruction.has_rep_prefix() || instruction.has_repne_prefix()) =>
        {
            Flow::Repeat(instruction.next_ip())
        }
        _ => Flow::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_string_instructions_repeat() {
        assert_eq!(flow(&[0xf3, 0xa4], 0x10), Flow::Repeat(0x12), "rep movsb");
        assert_eq!(flow(&[0xf2, 0xae], 0x10), Flow::Repeat(0x12), "repne scasb");
        assert_eq!(flow(&[0xa4], 0x10), Flow::Other, "movsb");
        assert_eq!(flow(&[0xf3, 0x90], 0x10), Flow::Other, "pause");
        assert_eq!(flow(&[0xf3, 0x0f, 0x10, 0x00], 0x10), Flow::Other, "movss");
    }
}
