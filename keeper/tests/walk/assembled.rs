//! Frames by hand, with tables by the assembler: what trap stubs, epilogues and odd CFI need.
//!
//! The code is assembled and never run; the tests stop imaginary tasks in it.

use std::arch::global_asm;

use keeper::unwind::{
    EhFrameRules, Frame, FrameAddress, FrameOrigin, UnwindRegisters, Walk, WalkEnd,
};
use task_model::{Gpr, RegisterFile};

use crate::image;
use crate::synthetic::{STACK, Stack, registers};

/// Makes a function of each label's name, which returns its address.
macro_rules! labels {
    ($($name:ident)*) => {
        mod label {
            unsafe extern "C" { $(pub(super) safe static $name: u8;)* }
        }
        $(
            fn $name() -> u64 {
                (&raw const label::$name).addr() as u64
            }
        )*
        global_asm!($(concat!(".global ", stringify!($name))),*);
    };
}

labels! {
    walk_entry_after_call
    walk_epilogue walk_epilogue_pushed walk_epilogue_popped
    walk_trap_stub walk_trap_stub_pushed walk_trap_stub_after_call
    walk_after_noreturn_call
    walk_escaped
    walk_remembered walk_remembered_tail
}

global_asm!(
    ".pushsection .text.walk_assembled,\"ax\",@progbits",
    // The task's entry.
    ".cfi_startproc",
    ".cfi_undefined rip",
    "call rdi",
    "walk_entry_after_call:",
    "ud2",
    ".cfi_endproc",
    // As LLVM writes it: no .cfi_restore after the pop.
    ".cfi_startproc",
    "walk_epilogue:",
    "push rbx",
    ".cfi_def_cfa_offset 16",
    ".cfi_offset rbx, -16",
    "walk_epilogue_pushed:",
    "mov rbx, rdi",
    "pop rbx",
    ".cfi_def_cfa_offset 8",
    "walk_epilogue_popped:",
    "ret",
    ".cfi_endproc",
    // A trap stub on the interrupted task's own stack. The CPU has pushed ss, rsp, rflags, cs, rip
    // after aligning the stack to 16 (Intel SDM volume 3, 6.14.2), so rsp is where it says.
    ".cfi_startproc",
    ".cfi_signal_frame",
    ".cfi_def_cfa rsp, 40",
    ".cfi_offset rip, -40",
    ".cfi_offset rsp, -16",
    "walk_trap_stub:",
    "push rax",
    ".cfi_adjust_cfa_offset 8",
    ".cfi_offset rax, -48",
    "push rbx",
    ".cfi_adjust_cfa_offset 8",
    ".cfi_offset rbx, -56",
    "walk_trap_stub_pushed:",
    "xor ebx, ebx",
    "call rdi",
    "walk_trap_stub_after_call:",
    "ud2",
    ".cfi_endproc",
    // A call that does not return, the last instruction of its function. Behind it the next
    // function begins, whose frame has another size.
    ".cfi_startproc",
    "sub rsp, 8",
    ".cfi_def_cfa_offset 16",
    "call rdi",
    ".cfi_endproc",
    ".cfi_startproc",
    "walk_after_noreturn_call:",
    "ret",
    ".cfi_endproc",
    // CFA = *(rsp + 8) by DW_CFA_def_cfa_expression { DW_OP_breg7 8; DW_OP_deref }, and
    // rbx at *(CFA - 16) by DW_CFA_expression { DW_OP_lit16; DW_OP_minus },
    // r12 = CFA + 5 by DW_CFA_val_expression { DW_OP_plus_uconst 5 },
    // r13 = rip by DW_CFA_val_expression { DW_OP_breg16 0 },
    // r14 = the second byte of *(CFA - 16) by { DW_OP_lit15; DW_OP_minus; DW_OP_deref_size 1 },
    // r15 in rcx, rbp = itself.
    ".cfi_startproc",
    ".cfi_escape 0x0f, 3, 0x77, 8, 0x06",
    ".cfi_escape 0x10, 3, 2, 0x40, 0x1c",
    ".cfi_escape 0x16, 12, 2, 0x23, 5",
    ".cfi_escape 0x16, 13, 2, 0x80, 0",
    ".cfi_escape 0x16, 14, 4, 0x3f, 0x1c, 0x94, 1",
    ".cfi_register r15, rcx",
    ".cfi_same_value rbp",
    ".cfi_escape 0x2e, 16", // DW_CFA_GNU_args_size 16
    "walk_escaped:",
    "ret",
    ".cfi_endproc",
    // Two ways out, the first with the state restored behind it.
    ".cfi_startproc",
    "push rbx",
    ".cfi_def_cfa_offset 16",
    ".cfi_offset rbx, -16",
    ".cfi_remember_state",
    "pop rbx",
    ".cfi_restore rbx",
    ".cfi_def_cfa_offset 8",
    "walk_remembered:",
    "ret",
    ".cfi_restore_state",
    "walk_remembered_tail:",
    "nop",
    ".cfi_endproc",
    ".popsection",
);

/// All frames of a task with these registers, with what each frame's own registers hold.
fn walk(registers: &RegisterFile, stack: &Stack) -> Vec<(Frame, UnwindRegisters)> {
    let [straight, compiled] = image::both().map(|tables| {
        let mut rules = EhFrameRules::new(tables);
        let mut walk = Walk::new(registers, stack, &mut rules);
        let mut frames = Vec::new();
        while let Some(frame) = walk.next() {
            frames.push((frame, *walk.registers()));
        }
        assert_eq!(walk.end(), Some(WalkEnd::Complete), "{frames:#x?}");
        frames
    });
    assert_eq!(compiled, straight);
    compiled
}

const RBX: u64 = 0x1003;

#[test]
fn an_epilogue_that_has_popped_a_register_leaves_it_live() {
    let entry = walk_entry_after_call();
    let pushed = RBX + 0x100;
    let stack = Stack::new(&[pushed, entry, 0, 0]);
    for (rip, sp, rbx) in [
        (walk_epilogue(), 1, RBX),
        (walk_epilogue_pushed(), 0, pushed),
        // The slot still holds what it held; a trap handler may have overwritten it by now.
        (walk_epilogue_popped(), 1, RBX),
    ] {
        let frames = walk(&registers(rip, stack.address(sp)), &stack);
        assert_eq!(frames.len(), 2);
        assert_eq!(frames[0].0.cfa, Some(stack.address(2)));
        assert_eq!(frames[1].0.address, FrameAddress::ReturnAddress(entry));
        assert_eq!(frames[1].1.get(Gpr::Rbx), Some(rbx), "at {rip:#x}");
    }
}

#[test]
fn callee_saved_registers_survive_a_call_and_the_others_do_not() {
    let stack = Stack::new(&[walk_entry_after_call(), 0]);
    let frames = walk(&registers(walk_epilogue(), STACK), &stack);
    for gpr in Gpr::ALL {
        let expected = match gpr {
            Gpr::Rsp => Some(STACK + 8),
            Gpr::Rbx | Gpr::Rbp | Gpr::R12 | Gpr::R13 | Gpr::R14 | Gpr::R15 => {
                Some(0x1000 + gpr as u64)
            }
            _ => None,
        };
        assert_eq!(frames[1].1.get(gpr), expected, "{gpr:?}");
    }
}

/// A stack on which a trap interrupted `rip` with its stack pointer at word 12.
fn interrupted_at(rip: u64) -> Stack {
    let mut stack = Stack::new(&[0; 16]);
    stack.words[1] = walk_trap_stub_after_call();
    stack.words[2] = 0xbb; // rbx
    stack.words[3] = 0xaa; // rax
    stack.words[4] = rip;
    stack.words[5] = 0x8; // cs
    stack.words[6] = 0x202; // rflags
    stack.words[7] = stack.address(12); // rsp, three words above the CPU's frame
    stack.words[8] = 0x10; // ss
    stack.words[12] = walk_entry_after_call();
    stack
}

#[test]
fn a_frame_below_a_trap_is_looked_up_where_it_was_interrupted() {
    // The first instruction of a function: one byte lower there is another function.
    let rip = walk_epilogue();
    let stack = interrupted_at(rip);
    let frames = walk(&registers(walk_trap_stub_pushed(), stack.address(2)), &stack);
    assert_eq!(frames.len(), 3);
    let (stub, interrupted) = (frames[0].0, frames[1].0);
    assert!(stub.signal_frame);
    assert_eq!(stub.cfa, Some(stack.address(9)));
    assert_eq!(interrupted.address, FrameAddress::InstructionPointer(rip));
    assert_eq!(interrupted.origin, FrameOrigin::Interrupted);
    assert_eq!(interrupted.function, Some(rip));
    assert_eq!(interrupted.sp, stack.address(12), "the saved stack pointer, not the CFA");
    assert_eq!(frames[2].0.address, FrameAddress::ReturnAddress(stack.words[12]));
}

#[test]
fn all_registers_of_an_interrupted_frame_are_recovered() {
    let stack = interrupted_at(walk_epilogue());
    let frames = walk(&registers(walk_trap_stub_pushed(), stack.address(2)), &stack);
    for gpr in Gpr::ALL {
        let expected = match gpr {
            Gpr::Rax => 0xaa,
            Gpr::Rbx => 0xbb,
            Gpr::Rsp => stack.address(12),
            _ => 0x1000 + gpr as u64,
        };
        assert_eq!(frames[1].1.get(gpr), Some(expected), "{gpr:?}");
    }
}

#[test]
fn what_a_handler_changed_is_unknown_below_its_trap_unless_the_stub_saved_it() {
    let stack = interrupted_at(walk_epilogue());
    // Stopped in a leaf that the stub has called.
    let frames = walk(&registers(walk_epilogue(), stack.address(1)), &stack);
    assert_eq!(frames.len(), 4);
    let interrupted = frames[2].1;
    assert_eq!(interrupted.get(Gpr::Rax), Some(0xaa));
    assert_eq!(interrupted.get(Gpr::Rbx), Some(0xbb));
    assert_eq!(interrupted.get(Gpr::Rcx), None);
    assert_eq!(interrupted.get(Gpr::R12), Some(0x100c));
}

#[test]
fn an_epilogue_below_a_trap_leaves_its_register_live_too() {
    let stack = interrupted_at(walk_epilogue_popped());
    let frames = walk(&registers(walk_trap_stub_pushed(), stack.address(2)), &stack);
    assert_eq!(frames[2].1.get(Gpr::Rbx), Some(0xbb), "as it was when interrupted");
}

#[test]
fn a_call_that_ends_its_function_is_looked_up_in_that_function() {
    let stack = Stack::new(&[walk_after_noreturn_call(), 0, walk_entry_after_call(), 0]);
    let frames = walk(&registers(walk_epilogue(), STACK), &stack);
    assert_eq!(frames.len(), 3);
    assert_ne!(frames[1].0.function, Some(walk_after_noreturn_call()));
    assert_eq!(frames[1].0.cfa, Some(stack.address(3)), "the size of the calling function's frame");
}

#[test]
fn expressions_of_all_kinds_are_evaluated() {
    let mut stack = Stack::new(&[0; 8]);
    stack.words[1] = stack.address(6); // the CFA
    stack.words[4] = 0x1122_3344_5566_7788;
    stack.words[5] = walk_entry_after_call();
    let rip = walk_escaped();
    let frames = walk(&registers(rip, STACK), &stack);
    assert_eq!(frames.len(), 2);
    assert_eq!(frames[0].0.cfa, Some(stack.address(6)));
    let caller = frames[1].1;
    assert_eq!(caller.get(Gpr::Rsp), Some(stack.address(6)));
    assert_eq!(caller.get(Gpr::Rbx), Some(0x1122_3344_5566_7788));
    assert_eq!(caller.get(Gpr::R12), Some(stack.address(6) + 5));
    assert_eq!(caller.get(Gpr::R13), Some(rip));
    assert_eq!(caller.get(Gpr::R14), Some(0x77));
    assert_eq!(caller.get(Gpr::R15), Some(0x1001), "what rcx held");
    assert_eq!(caller.get(Gpr::Rbp), Some(0x1005));
}

#[test]
fn a_restored_state_is_that_which_was_remembered() {
    let entry = walk_entry_after_call();
    let stack = Stack::new(&[0xbb, entry, 0]);
    let before = walk(&registers(walk_remembered(), stack.address(1)), &stack);
    assert_eq!(before[0].0.cfa, Some(stack.address(2)));
    assert_eq!(before[1].1.get(Gpr::Rbx), Some(RBX));
    let after = walk(&registers(walk_remembered_tail(), stack.address(0)), &stack);
    assert_eq!(after[0].0.cfa, Some(stack.address(2)));
    assert_eq!(after[1].1.get(Gpr::Rbx), Some(0xbb));
}

#[test]
fn a_trap_stub_is_walked_from_its_first_instruction() {
    let stack = interrupted_at(walk_epilogue());
    let frames = walk(&registers(walk_trap_stub(), stack.address(4)), &stack);
    assert_eq!(frames[1].0.sp, stack.address(12));
    assert_eq!(frames[1].1.get(Gpr::Rax), Some(0x1000), "not saved yet, so still live");
}
