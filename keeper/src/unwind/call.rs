//! Whether a call comes right before an address.
//!
//! Instructions cannot be decoded backwards, but a return address is one only if a call ends there,
//! and calls have few shapes. Bytes of other instructions can look like one, so a *yes* is no
//! proof. A *no* is.

/// The longest call, without prefixes: opcode, ModRM, SIB and a displacement of 32 bits.
const LONGEST: usize = 7;

/// Whether the last bytes of `code` can be a near call.
pub(super) fn ends_with_call(code: &[u8]) -> bool {
    let tails = (2..=LONGEST).filter_map(|length| code.get(code.len().checked_sub(length)?..));
    tails.into_iter().any(|tail| call_length(tail) == Some(tail.len()))
}

/// The length of the near call that `code` begins with (Intel SDM volume 2, CALL, and tables 2-2
/// and 2-3). Prefixes come before that, so they do not matter.
fn call_length(code: &[u8]) -> Option<usize> {
    match *code {
        // CALL rel32
        [0xe8, ..] => Some(5),
        // CALL r/m64: the opcode's extension, in the middle of the ModRM byte, is 2.
        [0xff, modrm, ref rest @ ..] if modrm >> 3 & 7 == 2 => {
            let (mode, register) = (modrm >> 6, modrm & 7);
            if mode == 3 {
                return Some(2);
            }
            let (sib, base) = match register {
                4 => (1, rest.first()? & 7),
                register => (0, register),
            };
            let displacement = match mode {
                // Relative to RIP, or to no base.
                0 if base == 5 => 4,
                0 => 0,
                1 => 1,
                _ => 4,
            };
            Some(2 + sib + displacement)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_of_all_shapes_are_recognised() {
        let calls: [&[u8]; 16] = [
            &[0xe8, 1, 2, 3, 4],                   // call rel32
            &[0xff, 0xd0],                         // call rax
            &[0x41, 0xff, 0xd7],                   // call r15
            &[0xff, 0x10],                         // call [rax]
            &[0x41, 0xff, 0x14, 0x24],             // call [r12]
            &[0xff, 0x14, 0xc8],                   // call [rax + rcx * 8]
            &[0xff, 0x50, 0x18],                   // call [rax + 0x18]
            &[0xff, 0x55, 0x00],                   // call [rbp]
            &[0xff, 0x54, 0x24, 0x08],             // call [rsp + 8]
            &[0xff, 0x15, 1, 2, 3, 4],             // call [rip + …]
            &[0xff, 0x90, 0, 1, 0, 0],             // call [rax + 0x100]
            &[0xff, 0x14, 0xc5, 0, 0, 1, 0],       // call [rax * 8 + 0x10000]
            &[0xff, 0x94, 0x24, 0, 1, 0, 0],       // call [rsp + 0x100]
            &[0x43, 0xff, 0x94, 0xac, 0, 1, 0, 0], // call [r12 + r13 * 4 + 0x100]
            &[0x2e, 0x41, 0xff, 0xd3],             // cs call r11
            &[0x90, 0x90, 0x67, 0xe8, 0, 0, 0, 0], // addr32 call rel32
        ];
        for call in calls {
            assert!(ends_with_call(call), "{call:x?}");
        }
    }

    #[test]
    fn what_is_no_call_is_not_taken_for_one() {
        let others: [&[u8]; 9] = [
            &[],
            &[0xff],
            &[0xe8, 1, 2, 3],
            &[0xe8, 1, 2, 3, 4, 0x90],
            &[0x9c, 0x58],             // pushfq, pop rax
            &[0xff, 0xe0],             // jmp rax
            &[0xff, 0x25, 1, 2, 3, 4], // jmp [rip + …]
            &[0xff, 0x14],             // call, and its SIB is missing
            &[0x48, 0xff, 0xc0],       // inc rax
        ];
        for other in others {
            assert!(!ends_with_call(other), "{other:x?}");
        }
    }
}
