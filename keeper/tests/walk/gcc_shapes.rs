//! Rows of GCC's tables that are not true, as the validator found them in code by GCC 12.

use keeper::unwind::{EhFrameRules, UnwindRegisters, Walk};
use task_model::{Gpr, RegisterFile};

use crate::synthetic::{ENTRY, Function, Image, Stack, function, registers};

/// What the innermost frame's caller has in its registers; the innermost is in function 1.
fn caller_of(function_1: Function<'_>, registers: &RegisterFile, stack: &Stack) -> UnwindRegisters {
    Image::new(&[ENTRY, function_1]).both(|tables| {
        let mut rules = EhFrameRules::new(tables);
        let mut walk = Walk::new(registers, stack, &mut rules);
        assert_eq!((&mut walk).take(2).count(), 2, "{:?}", walk.end());
        *walk.registers()
    })
}

/// A function that aligns its stack: RBP and RBX are saved relative to RBP, the CFA is R10.
/// DW_CFA_def_cfa r10, 0; DW_CFA_expression rbp: breg6 0; DW_CFA_expression rbx: breg6 -16.
const REALIGNED: Function<'_> =
    Function::new(&[0x0c, 10, 0, 0x10, 6, 2, 0x76, 0, 0x10, 3, 2, 0x76, 0x70]);

/// The aligned frame: RBX, R10, RBP, the copy of the return address, the return address; above it
/// the caller's frame, with its own saved RBX and RBP.
fn realigned_stack() -> Stack {
    let entry = function(0) + 0x10;
    Stack::new(&[0xbb, 0x10, 0, entry, entry, 0xbad, 0, 0xbad, 0])
}

#[test]
fn rules_relative_to_a_register_that_has_been_popped_mean_live_registers() {
    let mut stack = realigned_stack();
    let caller_rbp = stack.address(7);
    stack.words[2] = caller_rbp;
    // After `pop rbp`: it is the caller's frame pointer, and what lies there is the caller's.
    let mut stopped = registers(function(1), stack.address(3));
    stopped[Gpr::R10] = stack.address(5);
    stopped[Gpr::Rbp] = caller_rbp;
    let caller = caller_of(REALIGNED, &stopped, &stack);
    assert_eq!(caller.get(Gpr::Rbp), Some(caller_rbp));
    assert_eq!(caller.get(Gpr::Rbx), Some(stopped[Gpr::Rbx]));
}

#[test]
fn before_the_pop_they_mean_what_they_say() {
    let mut stack = realigned_stack();
    stack.words[2] = stack.address(7);
    let mut stopped = registers(function(1), stack.address(0));
    stopped[Gpr::R10] = stack.address(5);
    stopped[Gpr::Rbp] = stack.address(2);
    let caller = caller_of(REALIGNED, &stopped, &stack);
    assert_eq!(caller.get(Gpr::Rbp), Some(stack.address(7)));
    assert_eq!(caller.get(Gpr::Rbx), Some(0xbb));
}

#[test]
fn the_slots_of_an_exception_s_registers_are_not_what_the_caller_had() {
    // DW_CFA_def_cfa_offset 32; rbx at CFA - 16; rax at CFA - 24; rdx at CFA - 32.
    let cfi = [0x0e, 32, 0x80 | 3, 2, 0x80, 3, 0x81, 4];
    let stack = Stack::new(&[0xd, 0xa, 0xb, function(0) + 0x10, 0]);
    let caller = caller_of(Function::new(&cfi), &registers(function(1), stack.address(0)), &stack);
    assert_eq!(caller.get(Gpr::Rbx), Some(0xb));
    assert_eq!(caller.get(Gpr::Rax), None);
    assert_eq!(caller.get(Gpr::Rdx), None);
}
