//! Return addresses, and the calls that have to come before them.

use keeper::unwind::{
    EhFrameRules, FrameOrigin, ImageRules, Images, LoadedSection, UnwindTables, Walk, WalkEnd,
    WalkError,
};
use task_model::{FaultInfo, StackBounds};

use crate::synthetic::{
    ENTRY, Function, Image, LEAF, STACK, Stack, TEXT, TEXT_SIZE, function, registers,
};

/// Code that does nothing but call, up to each of these addresses.
fn code(return_addresses: &[u64]) -> Vec<u8> {
    let mut code = vec![0x90; TEXT_SIZE as usize];
    for address in return_addresses {
        let end = (address - TEXT) as usize;
        code[end - 2..end].copy_from_slice(&[0xff, 0xd0]); // call rax
    }
    code
}

const fn section(code: &[u8]) -> LoadedSection<'_> {
    LoadedSection { bytes: code, address: TEXT }
}

/// Where a walk of a task comes that stopped at `rip` with its stack pointer at the stack's base.
fn ends(tables: UnwindTables<'_>, rip: u64, stack: &Stack) -> (usize, WalkEnd) {
    let registers = registers(rip, STACK);
    let mut rules = EhFrameRules::new(tables);
    let mut walk = Walk::new(&registers, stack, &mut rules);
    ((&mut walk).count(), walk.end().unwrap())
}

const CALLED: u64 = function(0) + 0x10;

/// In text, and no call comes before.
const NOT_CALLED: u64 = function(0) + 0x20;

#[test]
fn a_push_that_the_tables_do_not_know_of_is_seen_by_the_missing_call() {
    let image = Image::new(&[ENTRY, LEAF]);
    let code = code(&[CALLED]);
    // What the function has pushed is an address in the text, and so is what it is to return to.
    let pushed = Stack::new(&[NOT_CALLED, CALLED, 0]);
    let popped = Stack::new(&[CALLED, 0]);
    image.both(|tables| {
        assert_eq!(ends(tables, function(1), &pushed), (2, WalkEnd::Complete), "without the code");
        let tables = tables.with_code(section(&code));
        let refused = WalkEnd::Partial(WalkError::NotAfterCall(NOT_CALLED));
        assert_eq!(ends(tables, function(1), &pushed), (1, refused));
        assert_eq!(ends(tables, function(1), &popped), (2, WalkEnd::Complete));
    });
}

#[test]
fn a_rule_that_is_not_compact_is_held_against_the_code_too() {
    // CFA = rsp + 8, by an expression: DW_OP_breg7 8.
    let image = Image::new(&[ENTRY, Function::new(&[0x0f, 2, 0x77, 8])]);
    let code = code(&[CALLED]);
    image.both(|tables| {
        let tables = tables.with_code(section(&code));
        let refused = WalkEnd::Partial(WalkError::NotAfterCall(NOT_CALLED));
        assert_eq!(ends(tables, function(1), &Stack::new(&[NOT_CALLED, CALLED])), (1, refused));
        assert_eq!(ends(tables, function(1), &Stack::new(&[CALLED, 0])), (2, WalkEnd::Complete));
    });
}

#[test]
fn an_interrupted_function_is_held_against_the_code_below_a_trap_too() {
    // A trap's frame: rip at CFA - 16, and the stack pointer above the CFA.
    let trap = Function::signal(&[0x0e, 16, 0x90, 2]);
    let image = Image::new(&[ENTRY, LEAF, trap]);
    let code = code(&[CALLED]);
    image.both(|tables| {
        let tables = tables.with_code(section(&code));
        let refused = WalkEnd::Partial(WalkError::NotAfterCall(NOT_CALLED));
        let pushed = Stack::new(&[function(1), 0, NOT_CALLED, CALLED]);
        assert_eq!(ends(tables, function(2), &pushed), (2, refused));
        let popped = Stack::new(&[function(1), 0, CALLED, 0]);
        assert_eq!(ends(tables, function(2), &popped), (3, WalkEnd::Complete));
    });
}

#[test]
fn a_handler_may_return_to_where_nothing_called_it() {
    // As a signal's handler does to its trampoline, in which the kernel finds what it interrupted.
    let trampoline = Function::signal(&[0x0e, 16, 0x90, 2]);
    let image = Image::new(&[ENTRY, LEAF, trampoline]);
    let code = code(&[CALLED]);
    let stack = Stack::new(&[function(2) + 1, function(1), 0, CALLED, 0]);
    image.both(|tables| {
        let tables = tables.with_code(section(&code));
        assert_eq!(ends(tables, function(1), &stack), (4, WalkEnd::Complete));
    });
}

#[test]
fn a_call_that_went_nowhere_was_a_call() {
    let image = Image::new(&[ENTRY]);
    let code = code(&[CALLED]);
    let unrelated = StackBounds::new(0x10000, 0x20000, 0).unwrap();
    let fault = FaultInfo::from_trap(14, 0, 0, 0, &unrelated);
    for (word, count, end) in [
        (CALLED, 2, WalkEnd::Complete),
        (NOT_CALLED, 1, WalkEnd::Partial(WalkError::NotAfterCall(NOT_CALLED))),
    ] {
        let stack = Stack::new(&[word, 0]);
        let registers = registers(0, STACK);
        let mut rules = EhFrameRules::new(image.tables().with_code(section(&code)));
        let mut walk = Walk::new(&registers, &stack, &mut rules).stopped_by(&fault);
        let frames: Vec<_> = (&mut walk).collect();
        assert_eq!((frames.len(), walk.end()), (count, Some(end)));
        if let Some(caller) = frames.get(1) {
            assert_eq!(caller.origin, FrameOrigin::TopOfStack);
        }
    }
}

#[test]
fn a_return_address_is_held_against_the_code_of_its_own_image() {
    const BIAS: u64 = 0x100_0000;
    let image = Image::new(&[ENTRY, LEAF]);
    let (kernel_code, module_code) = (code(&[CALLED]), code(&[]));
    let images = Images::<2>::new();
    images.add(image.tables().with_code(section(&kernel_code))).unwrap();
    let module_code = LoadedSection { address: TEXT + BIAS, bytes: &module_code };
    images.add(image.tables_at(BIAS).with_code(module_code)).unwrap();
    for (word, count, end) in [
        (CALLED, 2, WalkEnd::Complete),
        (CALLED + BIAS, 1, WalkEnd::Partial(WalkError::NotAfterCall(CALLED + BIAS))),
    ] {
        let stack = Stack::new(&[word, 0]);
        for rip in [function(1), function(1) + BIAS] {
            let registers = registers(rip, STACK);
            let mut rules = ImageRules::new(&images);
            let mut walk = Walk::new(&registers, &stack, &mut rules);
            assert_eq!(((&mut walk).count(), walk.end()), (count, Some(end)), "from {rip:#x}");
        }
    }
}
