//! Every way in which a walk ends, each from the smallest table and stack that lead there.
//!
//! The images are in the higher half, as a kernel's are.

use keeper::unwind::{
    EhFrameRules, FrameAddress, FrameOrigin, MAX_FRAMES, Walk, WalkEnd, WalkError,
};
use task_model::{FaultInfo, Gpr, StackBounds, StackMemory};

use crate::synthetic::{
    ENTRY, FUNCTION_SIZE, Function, Image, LEAF, STACK, Stack, function, registers,
};

/// A return address in function `n`.
const fn in_function(n: u64) -> u64 {
    function(n) + 0x10
}

fn ends_with(image: &Image, sp: usize, stack: &Stack) -> (usize, WalkEnd) {
    let (frames, end) = image.walk(in_function(1), sp, stack);
    for frame in &frames[..frames.len() - 1] {
        assert!(frame.cfa.is_some(), "only the last frame may be without an end");
    }
    (frames.len(), end)
}

/// The error that walking a frame 0 with these rules ends with; its caller would be the entry.
fn error_of(cfi: &[u8]) -> WalkError {
    let image = Image::new(&[ENTRY, Function::new(cfi)]);
    let stack = Stack::new(&[in_function(0), in_function(0), in_function(0), in_function(0)]);
    match ends_with(&image, 1, &stack) {
        (1, WalkEnd::Partial(error)) => error,
        other => panic!("{other:?}"),
    }
}

/// The same, for a frame that has called.
fn error_of_caller(cfi: &[u8]) -> WalkError {
    let image = Image::new(&[ENTRY, LEAF, Function::new(cfi)]);
    let stack = Stack::new(&[0, in_function(2), in_function(0), in_function(0), in_function(0)]);
    match ends_with(&image, 1, &stack) {
        (2, WalkEnd::Partial(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_walk_that_reaches_an_undefined_return_address_is_complete() {
    let image = Image::new(&[ENTRY, LEAF]);
    let stack = Stack::new(&[in_function(0), 0]);
    let (frames, end) = image.walk(in_function(1), 0, &stack);
    assert_eq!(end, WalkEnd::Complete);
    assert_eq!(frames.len(), 2);
    assert_eq!(frames[0].address, FrameAddress::InstructionPointer(in_function(1)));
    assert_eq!((frames[0].sp, frames[0].cfa), (STACK, Some(STACK + 8)));
    assert_eq!(frames[0].function, Some(function(1)));
    assert_eq!(frames[1].address, FrameAddress::ReturnAddress(in_function(0)));
    assert_eq!((frames[1].sp, frames[1].cfa), (STACK + 8, Some(STACK + 16)));
    assert_eq!(frames[1].origin, FrameOrigin::Caller);
}

#[test]
fn an_entry_with_nothing_above_it_is_complete() {
    let image = Image::new(&[ENTRY, ENTRY]);
    let stack = Stack::new(&[0, 0]);
    assert_eq!(ends_with(&image, 2, &stack), (1, WalkEnd::Complete));
}

#[test]
fn the_top_of_the_stack_is_a_frame_address() {
    let image = Image::new(&[ENTRY, LEAF]);
    let stack = Stack::new(&[0, in_function(0)]);
    assert_eq!(ends_with(&image, 1, &stack), (2, WalkEnd::Complete));
}

#[test]
fn an_address_without_a_function_has_no_fde() {
    let image = Image::new(&[ENTRY, LEAF]);
    let stack = Stack::new(&[in_function(0), 0]);
    for rip in [function(2), function(0) - 1, 0, u64::MAX, i64::MAX as u64] {
        let (frames, end) = image.walk(rip, 0, &stack);
        assert_eq!(frames.len(), 1, "the stopped frame itself is known");
        assert_eq!((frames[0].function, frames[0].cfa), (None, None));
        assert_eq!(end, WalkEnd::Partial(WalkError::NoFde(rip)));
    }
    // In the text, but of no function: as a return address it is looked up one lower.
    let stack = Stack::new(&[function(2) + 1, 0]);
    let no_fde = WalkEnd::Partial(WalkError::NoFde(function(2)));
    assert_eq!(ends_with(&image, 0, &stack), (2, no_fde));
}

#[test]
fn cfi_without_meaning_is_bad() {
    let bad = WalkError::BadCfi(in_function(1));
    let cases: [(&str, &[u8]); 14] = [
        ("an unknown instruction", &[0x3f]),
        ("a truncated one", &[0x0f, 0x7f]),
        ("more remembered rows than there is room for", &[0x0a; 8]),
        ("a row restored that was not remembered", &[0x0b]),
        ("a frame address from a vector register", &[0x0c, 17, 8]),
        ("a register saved in a vector register", &[0x09, 3, 17]),
        ("a return address that is to be the same", &[0x08, 16]),
        ("DW_OP_call_frame_cfa in an expression", &[0x0f, 1, 0x9c]),
        ("DW_OP_addr in an expression", &[0x0f, 9, 0x03, 0, 0, 0, 0, 0, 0, 0, 0]),
        ("an empty expression", &[0x0f, 0]),
        ("an endless expression", &[0x0f, 3, 0x2f, 0xfd, 0xff]),
        ("an expression that overflows its stack", &[0x0f, 4, 0x30, 0x2f, 0xfc, 0xff]),
        ("an expression that reads three bytes", &[0x0f, 4, 0x77, 0, 0x94, 3]),
        ("an expression that leaves a register", &[0x0f, 1, 0x57]),
    ];
    for (name, cfi) in cases {
        assert_eq!(error_of(cfi), bad, "{name}");
    }
}

#[test]
fn more_register_rules_than_there_is_room_for_are_bad_cfi() {
    let rules = |count: u8| (17..17 + count).flat_map(|n| [0x07, n]).collect::<Vec<_>>();
    // The return address has the first of the 20.
    assert_eq!(error_of(&rules(20)), WalkError::BadCfi(in_function(1)));
    let image = Image::new(&[ENTRY, Function::new(&rules(19))]);
    assert_eq!(image.walk(in_function(1), 0, &Stack::new(&[in_function(0)])).1, WalkEnd::Complete);
}

#[test]
fn another_return_address_column_is_bad_cfi() {
    let odd = Function { return_address_register: 17, ..LEAF };
    let image = Image::new(&[ENTRY, odd]);
    let bad = WalkEnd::Partial(WalkError::BadCfi(in_function(1)));
    assert_eq!(ends_with(&image, 0, &Stack::new(&[in_function(0)])), (1, bad));
}

#[test]
fn a_frame_address_or_slot_outside_of_the_stack_ends_the_walk() {
    // CFA = rsp + 40, one word above the top.
    assert_eq!(error_of(&[0x0e, 40]), WalkError::OutOfStack(STACK + 48));
    // CFA = *(rsp), which is text.
    assert_eq!(error_of(&[0x0f, 3, 0x77, 0, 0x06]), WalkError::OutOfStack(in_function(0)));
    // rbx at CFA + 0x800
    assert_eq!(error_of(&[0x11, 3, 0x80, 0x7e]), WalkError::OutOfStack(STACK + 16 + 0x800));
    // CFA = 0 by DW_OP_lit0
    assert_eq!(error_of(&[0x0f, 1, 0x30]), WalkError::OutOfStack(0));
}

#[test]
fn a_slot_below_the_whole_stack_is_not_one_that_an_epilogue_has_popped() {
    // rbx at *(CFA - 0x2000), by an expression: as in a trap's stub, whose registers are saved in a
    // task's record.
    let cfi = [0x10, 3, 4, 0x0a, 0x00, 0x20, 0x1c];
    assert_eq!(error_of(&cfi), WalkError::OutOfStack(STACK + 16 - 0x2000));
}

#[test]
fn a_misaligned_frame_address_or_slot_ends_the_walk() {
    assert_eq!(error_of(&[0x0e, 12]), WalkError::Misaligned(STACK + 20));
    // rbx at *(CFA - 4), by an expression
    assert_eq!(error_of(&[0x10, 3, 2, 0x34, 0x1c]), WalkError::Misaligned(STACK + 12));
    // CFA = *(u32*)(rsp + 6), which is in two words
    assert_eq!(error_of(&[0x0f, 4, 0x77, 6, 0x94, 4]), WalkError::Misaligned(STACK + 14));
}

#[test]
fn a_frame_address_not_above_the_frame_ends_the_walk() {
    assert_eq!(error_of(&[0x0e, 0]), WalkError::DidNotAdvance(STACK + 8));
}

#[test]
fn a_stack_pointer_below_the_frame_address_ends_the_walk() {
    // rsp = CFA - 8, by DW_CFA_val_offset
    assert_eq!(error_of(&[0x14, 7, 1]), WalkError::DidNotAdvance(STACK + 8));
    // rsp = the same
    assert_eq!(error_of(&[0x08, 7]), WalkError::DidNotAdvance(STACK + 8));
}

#[test]
fn a_return_address_below_the_stack_pointer_ends_the_walk() {
    assert_eq!(error_of(&[0x90, 2]), WalkError::BelowStackPointer(STACK));
}

#[test]
fn a_slot_below_the_stack_pointer_of_a_caller_ends_the_walk() {
    // rbx at CFA - 24, of a frame that is 8 bytes: its stack pointer is at STACK + 16.
    assert_eq!(error_of_caller(&[0x83, 3]), WalkError::BelowStackPointer(STACK));
}

#[test]
fn a_register_that_the_callee_may_have_changed_is_not_used() {
    // CFA = rax + 8
    assert_eq!(error_of_caller(&[0x0c, 0, 8]), WalkError::UndefinedRegister(Gpr::Rax));
    // CFA = r11 + 0, by DW_OP_breg11
    assert_eq!(error_of_caller(&[0x0f, 2, 0x7b, 0]), WalkError::UndefinedRegister(Gpr::R11));
    // rip in rcx
    assert_eq!(error_of_caller(&[0x09, 16, 2]), WalkError::UndefinedRegister(Gpr::Rcx));
    // rsp undefined
    assert_eq!(error_of(&[0x07, 7]), WalkError::UndefinedRegister(Gpr::Rsp));
}

#[test]
fn a_return_address_outside_of_the_text_ends_the_walk() {
    let image = Image::new(&[ENTRY, LEAF]);
    for target in [0, 1, function(0), function(0x100) + 1, u64::MAX, STACK] {
        let end = WalkEnd::Partial(WalkError::ReturnAddressNotInText(target));
        assert_eq!(ends_with(&image, 0, &Stack::new(&[target, 0])), (1, end));
    }
}

#[test]
fn a_call_at_the_very_end_of_the_text_may_return_to_just_after_it() {
    let image = Image::new(&[ENTRY, LEAF]);
    // Past the last byte of the text, so what is looked up is in the text, and has no function.
    let no_fde = WalkEnd::Partial(WalkError::NoFde(function(0x100) - 1));
    assert_eq!(ends_with(&image, 0, &Stack::new(&[function(0x100), 0])), (2, no_fde));
}

#[test]
fn a_walk_gives_out_no_more_frames_than_its_limit() {
    let image = Image::new(&[ENTRY, LEAF]);
    let recursion = Stack::new(&[in_function(1); 1000]);
    let too_deep = WalkEnd::Partial(WalkError::TooDeep);
    assert_eq!(ends_with(&image, 0, &recursion), (MAX_FRAMES, too_deep));

    let stack = Stack::new(&[in_function(1), in_function(1), in_function(0)]);
    for (limit, frames, end) in [
        (0, 0, too_deep),
        (1, 1, too_deep),
        (3, 3, too_deep),
        (4, 4, WalkEnd::Complete),
        (usize::MAX, 4, WalkEnd::Complete),
    ] {
        let registers = registers(in_function(1), STACK);
        image.both(|tables| {
            let mut rules = EhFrameRules::new(tables);
            let mut walk = Walk::new(&registers, &stack, &mut rules).max_frames(limit);
            assert_eq!(walk.end(), None);
            assert_eq!((walk.by_ref().count(), walk.end()), (frames, Some(end)), "limit {limit}");
            assert_eq!(walk.next(), None);
        });
    }
}

#[test]
fn rules_for_a_stack_pointer_above_the_frame_are_honoured() {
    // rsp = CFA + 8 (as `ret 8` would leave it), by DW_CFA_val_offset_sf
    let image = Image::new(&[ENTRY, Function::new(&[0x15, 7, 0x7f])]);
    let stack = Stack::new(&[in_function(0), 0, 0]);
    let (frames, end) = image.walk(in_function(1), 0, &stack);
    assert_eq!((frames.len(), end), (2, WalkEnd::Complete));
    assert_eq!((frames[0].cfa, frames[1].sp), (Some(STACK + 8), STACK + 16));
}

#[test]
fn a_return_address_in_a_register_is_honoured() {
    let image = Image::new(&[ENTRY, Function::new(&[0x09, 16, 2])]);
    let stack = Stack::new(&[0, 0]);
    let mut registers = registers(in_function(1), STACK);
    registers[Gpr::Rcx] = in_function(0);
    let (frames, end) = image.walk_registers(&registers, &stack);
    assert_eq!((frames.len(), end), (2, WalkEnd::Complete));
    assert_eq!(frames[1].address, FrameAddress::ReturnAddress(in_function(0)));
}

#[test]
fn a_stack_pointer_in_the_guard_page_is_no_obstacle() {
    // The prologue has moved rsp 64 bytes down, below the base, and not yet touched it.
    let image = Image::new(&[ENTRY, Function::new(&[0x0e, 72])]);
    let stack = Stack::new(&[in_function(0), 0]);
    let registers = registers(in_function(1), STACK - 64);
    let (frames, end) = image.walk_registers(&registers, &stack);
    assert_eq!((frames.len(), end), (2, WalkEnd::Complete));
    assert_eq!(frames[0].sp, STACK - 64);
    assert_eq!(frames[0].cfa, Some(STACK + 8));
}

#[test]
fn a_slot_in_the_guard_page_is_not_read() {
    // The same prologue, but the return address would have to be in the guard.
    let image = Image::new(&[ENTRY, LEAF]);
    let stack = Stack::new(&[in_function(0), 0]);
    for (rsp, at) in [(STACK - 64, STACK - 56), (STACK - 8, STACK)] {
        let (frames, end) = image.walk_registers(&registers(in_function(1), rsp), &stack);
        assert_eq!((frames.len(), end), (1, WalkEnd::Partial(WalkError::OutOfStack(at))));
    }
}

/// A walk after a page fault at `accessed`.
fn walk_after_page_fault(
    rip: u64,
    accessed: u64,
    stack: &Stack,
) -> (Vec<keeper::unwind::Frame>, WalkEnd) {
    let image = Image::new(&[ENTRY, LEAF]);
    let unrelated = StackBounds::new(0x10000, 0x20000, 0).unwrap();
    let fault = FaultInfo::from_trap(14, 0, accessed, rip, &unrelated);
    let registers = registers(rip, stack.bounds().base());
    image.both(|tables| {
        let mut rules = EhFrameRules::new(tables);
        let mut walk = Walk::new(&registers, stack, &mut rules).stopped_by(&fault);
        let frames = (&mut walk).collect();
        (frames, walk.end().unwrap())
    })
}

#[test]
fn after_a_call_to_nowhere_the_word_on_top_of_the_stack_is_the_return_address() {
    let stack = Stack::new(&[in_function(1), in_function(0)]);
    let (frames, end) = walk_after_page_fault(0xdead_0000, 0xdead_0000, &stack);
    assert_eq!(end, WalkEnd::Complete);
    assert_eq!(frames.len(), 3);
    assert_eq!(frames[0].address, FrameAddress::InstructionPointer(0xdead_0000));
    assert_eq!((frames[0].function, frames[0].cfa), (None, Some(STACK + 8)));
    assert_eq!(frames[1].address, FrameAddress::ReturnAddress(in_function(1)));
    assert_eq!(frames[1].origin, FrameOrigin::TopOfStack, "less sure, and marked");
    assert_eq!(frames[2].origin, FrameOrigin::Caller);
}

#[test]
fn the_word_on_top_of_the_stack_is_tried_for_no_other_fault() {
    let stack = Stack::new(&[in_function(1), in_function(0)]);
    let (frames, end) = walk_after_page_fault(0xdead_0000, 0xbeef_0000, &stack);
    assert_eq!((frames.len(), end), (1, WalkEnd::Partial(WalkError::NoFde(0xdead_0000))));
}

#[test]
fn the_word_on_top_of_the_stack_is_tried_once() {
    // The word leads into the text where no function is: the next word must not be tried.
    let stack = Stack::new(&[function(2) + 1, in_function(0)]);
    let (frames, end) = walk_after_page_fault(0xdead_0000, 0xdead_0000, &stack);
    assert_eq!((frames.len(), end), (2, WalkEnd::Partial(WalkError::NoFde(function(2)))));
}

#[test]
fn a_word_on_top_of_the_stack_that_is_no_return_address_ends_the_walk() {
    let (frames, end) = walk_after_page_fault(0xdead_0000, 0xdead_0000, &Stack::new(&[7]));
    assert_eq!((frames.len(), end), (1, WalkEnd::Partial(WalkError::ReturnAddressNotInText(7))));
}

#[test]
fn a_function_is_found_from_its_first_byte_to_its_last() {
    let image = Image::new(&[ENTRY, LEAF]);
    let stack = Stack::new(&[in_function(0), 0]);
    for n in [0, 1] {
        for rip in [function(n), function(n) + FUNCTION_SIZE - 1] {
            assert_eq!(image.walk(rip, 0, &stack).0[0].function, Some(function(n)));
        }
    }
}

#[test]
fn a_trap_may_have_interrupted_the_first_instruction_of_the_text() {
    let image = Image::new(&[ENTRY, Function::signal(&[])]);
    let stack = Stack::new(&[function(0), 0]);
    let (frames, end) = image.walk(in_function(1), 0, &stack);
    assert_eq!((frames.len(), end), (2, WalkEnd::Complete));
    assert_eq!(frames[1].address, FrameAddress::InstructionPointer(function(0)));
}

#[test]
fn an_expression_has_at_most_128_operations() {
    // CFA = rsp + 8 by DW_OP_breg7, after DW_OP_nop as often as it takes.
    let function = |operations: usize| {
        let mut cfi = vec![0x0f, 0x80 | (operations + 1) as u8, ((operations + 1) >> 7) as u8];
        cfi.resize(3 + operations - 1, 0x96);
        cfi.extend_from_slice(&[0x77, 8]);
        cfi
    };
    let image = Image::new(&[ENTRY, Function::new(&function(128))]);
    assert_eq!(image.walk(in_function(1), 0, &Stack::new(&[in_function(0)])).1, WalkEnd::Complete);
    assert_eq!(error_of(&function(129)), WalkError::BadCfi(in_function(1)));
}
