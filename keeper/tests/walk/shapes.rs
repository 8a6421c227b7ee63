//! Frames of all shapes that a compact row can say, and of those that it just cannot.

use keeper::unwind::{EhFrameRules, UnwindRegisters, UnwindTables, Walk, WalkEnd};
use task_model::Gpr;

use crate::synthetic::{ENTRY, Function, Image, LEAF, Stack, function, registers};

/// The six registers, and their numbers in DWARF, in the order in which LLVM and GCC push them.
const LLVM: [(Gpr, u8); 6] =
    [(Gpr::Rbp, 6), (Gpr::R15, 15), (Gpr::R14, 14), (Gpr::R13, 13), (Gpr::R12, 12), (Gpr::Rbx, 3)];
const GCC: [(Gpr, u8); 6] =
    [(Gpr::R15, 15), (Gpr::R14, 14), (Gpr::R13, 13), (Gpr::R12, 12), (Gpr::Rbp, 6), (Gpr::Rbx, 3)];

fn uleb128(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

/// `DW_CFA_def_cfa_offset`, for a frame of so many words, the return address among them.
fn frame_of(words: u64) -> Vec<u8> {
    [vec![0x0e], uleb128(8 * words)].concat()
}

/// `DW_CFA_offset`: the register is so many words below the CFA.
fn saved(dwarf: u8, words: u64) -> Vec<u8> {
    [vec![0x80 | dwarf], uleb128(words)].concat()
}

/// A stack on which the entry has called function 1, whose frame has so many words and has called a
/// leaf. Each word is a number of its own.
fn stack(words: usize) -> Stack {
    let mut stack = Stack::new(&(0..words as u64 + 2).map(|n| 0xa000 + n).collect::<Vec<_>>());
    stack.words[0] = function(1) + 0x10;
    stack.words[words] = function(0) + 0x10;
    stack
}

/// What the entry has in its registers, and how the walk ends: frame by frame, and at once.
fn entry(tables: UnwindTables<'_>, stack: &Stack) -> (UnwindRegisters, WalkEnd) {
    let start = registers(function(2), stack.address(0));
    let mut rules = EhFrameRules::new(tables);
    let mut walk = Walk::new(&start, stack, &mut rules);
    assert_eq!((&mut walk).count(), 3, "{:?}", walk.end());
    let found = (*walk.registers(), walk.end().unwrap());

    let mut last = None;
    let mut rules = EhFrameRules::new(tables);
    let end = Walk::new(&start, stack, &mut rules).run(|_, registers| last = Some(*registers));
    assert_eq!((last.unwrap(), end), found);
    found
}

/// Function 1 by this CFI has a frame of so many words, and has saved these so many words below the
/// CFA.
fn check(cfi: &[u8], words: usize, saved: &[(Gpr, u64)]) {
    let image = Image::new(&[ENTRY, Function::new(cfi), LEAF]);
    let stack = stack(words);
    let (found, end) = image.both(|tables| entry(tables, &stack));
    assert_eq!(end, WalkEnd::Complete);
    let cfa = stack.address(words + 1);
    assert_eq!(found.get(Gpr::Rsp), Some(cfa));
    for (gpr, _) in LLVM {
        let expected = match saved.iter().find(|(it, _)| *it == gpr) {
            Some((_, below)) => stack.words[words + 1 - *below as usize],
            None => 0x1000 + gpr as u64,
        };
        assert_eq!(found.get(gpr), Some(expected), "{gpr:?} of {saved:?}");
    }
}

#[test]
fn registers_come_back_from_all_slots_that_compilers_push_them_to() {
    for order in [LLVM, GCC] {
        for which in 0..64 {
            let pushed = order.iter().enumerate().filter(|(n, _)| which >> n & 1 != 0);
            let slots: Vec<_> = pushed.zip(2..).map(|((_, it), words)| (*it, words)).collect();
            let words = 9;
            let cfi = slots.iter().map(|((_, dwarf), below)| saved(*dwarf, *below));
            let cfi: Vec<u8> = std::iter::once(frame_of(words)).chain(cfi).flatten().collect();
            let slots: Vec<_> = slots.into_iter().map(|((gpr, _), below)| (gpr, below)).collect();
            check(&cfi, words as usize, &slots);
        }
    }
}

#[test]
fn registers_come_back_from_slots_that_no_compiler_pushes_them_to() {
    let cfi = [frame_of(12), saved(3, 9), saved(6, 4), saved(13, 2), saved(15, 12)].concat();
    check(&cfi, 12, &[(Gpr::Rbx, 9), (Gpr::Rbp, 4), (Gpr::R13, 2), (Gpr::R15, 12)]);
}

#[test]
fn frames_are_as_large_as_they_are() {
    // 65,528 bytes to the return address is the most that is kept in bytes; 65,535 words the most
    // that a row says.
    for words in [2, 8191, 8192, 8193, 8194, 65534, 65535, 65536] {
        check(&[frame_of(words), saved(3, 2)].concat(), words as usize, &[(Gpr::Rbx, 2)]);
    }
}

#[test]
fn slots_are_as_deep_as_they_are() {
    for words in [254, 255, 256, 257] {
        let cfi = [frame_of(300), saved(3, words), saved(12, 300)].concat();
        check(&cfi, 300, &[(Gpr::Rbx, words), (Gpr::R12, 300)]);
        check(&[frame_of(300), saved(3, words)].concat(), 300, &[(Gpr::Rbx, words)]);
    }
}

#[test]
fn a_row_is_as_far_into_its_function_as_it_is() {
    for distance in [0xf_fffe, 0xf_ffff, 0x10_0000, 0x10_0001_u32] {
        // DW_CFA_advance_loc4, and then the frame has two words.
        let cfi = [vec![0x04], distance.to_le_bytes().to_vec(), frame_of(2)].concat();
        let long = Function { length: 0x20_0000, ..Function::new(&cfi) };
        let image = Image::new(&[ENTRY, long]);
        let stack = Stack::new(&[0, function(0) + 0x10, 0]);
        let rip = function(1) + u64::from(distance);
        let (frames, end) = image.walk(rip, 0, &stack);
        assert_eq!(end, WalkEnd::Complete);
        assert_eq!(frames[0].function, Some(function(1)));
        assert_eq!(frames[0].cfa, Some(stack.address(2)));
        let (frames, _) = image.walk(rip - 1, 1, &stack);
        assert_eq!(frames[0].cfa, Some(stack.address(2)), "before that row");
    }
}
