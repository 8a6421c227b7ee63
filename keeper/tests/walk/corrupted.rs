//! Garbage in: the walk ends, in bounds, with a reason or the truth.

use std::cell::Cell;

use keeper::unwind::{
    CompactRow, EhFrameRules, Frame, FrameOrigin, UnwindRegisters, UnwindTables, Walk, WalkEnd,
};
use task_model::{Gpr, ReadError, RegisterFile, StackBounds, StackMemory};

use crate::live;
use crate::synthetic::{ENTRY, Function, Image, LEAF, Stack, TEXT, function, registers};
use crate::task::StoppedTask;
use crate::{image, synthetic};

/// Counts the reads that a walk makes.
struct Counted<'s> {
    stack: &'s Stack,
    reads: Cell<usize>,
}

impl StackMemory for Counted<'_> {
    fn bounds(&self) -> StackBounds {
        self.stack.bounds()
    }

    fn read_u64(&self, address: u64) -> Result<u64, ReadError> {
        self.reads.set(self.reads.get() + 1);
        self.stack.read_u64(address)
    }
}

/// The same tables straight and compiled.
struct Sources<'a>([EhFrameRules<'a>; 2]);

impl Sources<'static> {
    fn of_this_binary() -> Self {
        Self(image::both().map(EhFrameRules::new))
    }
}

/// Memory to compile the tables of one [`Image`] after the other into.
struct Memory {
    rows: Vec<CompactRow>,
    buckets: Vec<u32>,
}

impl Memory {
    fn new() -> Self {
        Self { rows: vec![CompactRow::EMPTY; 1000], buckets: vec![0; 1000] }
    }

    fn sources<'m>(&'m mut self, tables: UnwindTables<'m>) -> Sources<'m> {
        let compiled = tables.compile_into(&mut self.rows, &mut self.buckets).unwrap();
        Sources([tables, compiled].map(EhFrameRules::new))
    }
}

/// What a walk found: each frame with its registers, and how it ended.
type Found = (Vec<(Frame, UnwindRegisters)>, WalkEnd);

/// Walks by both sources, one by one and at once, and checks that they find the same.
fn check(registers: &RegisterFile, stack: &Stack, sources: &mut Sources<'_>) -> Found {
    let [straight, compiled] = &mut sources.0;
    let found = check_bounds(registers, stack, straight, usize::MAX);
    for one_by_one in [usize::MAX, 2, 0] {
        assert_eq!(check_bounds(registers, stack, compiled, one_by_one), found);
    }
    found
}

/// Walks, so many frames one by one and then the rest at once, and checks what has to be true of
/// any walk whatever it is given.
fn check_bounds(
    registers: &RegisterFile,
    stack: &Stack,
    rules: &mut EhFrameRules<'_>,
    one_by_one: usize,
) -> Found {
    const LIMIT: usize = 64;
    let memory = Counted { stack, reads: Cell::new(0) };
    let mut walk = Walk::new(registers, &memory, rules).max_frames(LIMIT);
    let mut found = Vec::new();
    while found.len() < one_by_one
        && let Some(frame) = walk.next()
    {
        found.push((frame, *walk.registers()));
    }
    let end = walk.run(|frame, registers| found.push((*frame, *registers)));
    assert_eq!(walk.end(), Some(end));
    let frames: Vec<Frame> = found.iter().map(|(frame, _)| *frame).collect();

    assert!((1..=LIMIT).contains(&frames.len()));
    let bounds = stack.bounds();
    for (n, frame) in frames.iter().enumerate() {
        assert_eq!(frame.origin == FrameOrigin::Stopped, n == 0);
        let last = n + 1 == frames.len();
        match frame.cfa {
            Some(cfa) => {
                assert!(cfa <= bounds.top());
                assert!(last || cfa > frame.sp);
            }
            None => assert!(last && end != WalkEnd::Complete),
        }
        if let Some(next) = frames.get(n + 1) {
            assert!(frame.cfa.unwrap() <= next.sp && next.sp <= bounds.top());
        }
    }
    // Seventeen registers, and expressions of at most 128 operations for each and for the CFA.
    assert!(memory.reads.get() <= frames.len() * 18 * 129);
    (found, end)
}

/// A copy of a real task's stack, eight frames or more, and its registers.
fn saved() -> (RegisterFile, Stack) {
    let mut task = StoppedTask::run(live::entry);
    let registers = task.registers();
    let frozen = task.frozen();
    let top = frozen.bounds().top();
    // The part in use is enough, and a word below.
    let base = registers.rsp() - 8;
    let words =
        (base..top).step_by(8).map(|address| frozen.read_u64(address).unwrap()).collect::<Vec<_>>();
    (registers, Stack { base, words })
}

#[test]
fn any_flipped_bit_of_a_saved_stack_leaves_the_walk_bounded() {
    let (registers, stack) = saved();
    let mut sources = Sources::of_this_binary();
    let (truth, end) = check(&registers, &stack, &mut sources);
    assert_eq!(end, WalkEnd::Complete);

    let (mut partial, mut untrue, mut flips) = (0, 0, 0);
    let mut flipped = stack.clone();
    for word in 0..stack.words.len() {
        // A buffer of 9000 bytes that no rule ever names.
        if stack.words[word] == 0x0101_0101_0101_0101 {
            continue;
        }
        for bit in 0..64 {
            flipped.words[word] ^= 1 << bit;
            flips += 1;
            let (frames, end) = check(&registers, &flipped, &mut sources);
            // Frames that end below it are found as they are.
            let address = flipped.address(word);
            let below = |(frame, _): &&(Frame, _)| frame.cfa.is_some_and(|cfa| cfa <= address);
            let unharmed = truth.iter().take_while(below).count();
            assert_eq!(frames[..unharmed], truth[..unharmed]);
            match end {
                WalkEnd::Complete => untrue += usize::from(frames != truth),
                WalkEnd::Partial(_) => partial += 1,
            }
            flipped.words[word] ^= 1 << bit;
        }
    }
    assert_eq!(flipped.words, stack.words);
    // A walk cannot know that a saved register is another number, or that a return address that
    // could be one is not the one that was pushed.
    println!("{flips} flips: {partial} partial, {untrue} complete and not the same");
    assert!(flips > 64 * 50 && partial > 64 * 10, "{partial} of {flips} flips were noticed");
}

#[test]
fn any_flipped_bit_of_the_registers_leaves_the_walk_bounded() {
    let (registers, stack) = saved();
    let mut sources = Sources::of_this_binary();
    for bit in 0..64 {
        for gpr in Gpr::ALL {
            let mut flipped = registers;
            flipped[gpr] ^= 1 << bit;
            check(&flipped, &stack, &mut sources);
        }
        let mut flipped = registers;
        flipped.rip ^= 1 << bit;
        check(&flipped, &stack, &mut sources);
    }
}

/// xorshift64*, for garbage that is the same each time.
struct Garbage(u64);

impl Garbage {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }
}

#[test]
fn stacks_of_plausible_garbage_leave_the_walk_bounded() {
    let (saved, stack) = saved();
    let mut sources = Sources::of_this_binary();
    let mut garbage = Garbage(1);
    for _ in 0..20_000 {
        // Words that are, by turns, stack addresses, code addresses and noise.
        let words = (0..32)
            .map(|_| match garbage.below(3) {
                0 => stack.base + 8 * garbage.below(33) as u64,
                1 => saved.rip.wrapping_add(garbage.next() % 0x4_0000).wrapping_sub(0x2_0000),
                _ => garbage.next(),
            })
            .collect();
        let stack = Stack { base: stack.base, words };
        let rip = saved.rip.wrapping_add(garbage.next() % 0x4_0000).wrapping_sub(0x2_0000);
        let mut registers = registers(rip, stack.address(garbage.below(33)));
        registers[Gpr::Rbp] = stack.address(garbage.below(33));
        check(&registers, &stack, &mut sources);
    }
}

/// An image with one function for each kind of rule.
fn rich_image() -> Image {
    Image::new(&[
        ENTRY,
        LEAF,
        // CFA = rsp + 24, rbx at CFA - 16, a remembered state, an advance
        Function::new(&[0x0e, 24, 0x83, 2, 0x0a, 0x48, 0x0e, 8, 0xc3, 0x48, 0x0b]),
        // A CFA by an expression with a branch in it: rsp + 16
        Function::new(&[0x0f, 9, 0x77, 16, 0x31, 0x28, 1, 0, 0x96, 0x96, 0x96]),
        Function::signal(&[0x0e, 32, 0x90, 4, 0x16, 7, 2, 0x23, 8, 0x10, 3, 2, 0x38, 0x1c]),
    ])
}

/// A stack on which the functions of [`rich_image`] have called each other.
fn rich_stack() -> (RegisterFile, Stack) {
    let at = |n| function(n) + 4;
    let words =
        [at(2), 0, 1, at(3), 2, at(4), function(1), 3, 4, 5, 6, at(1), at(2), 7, 8, at(0), 9];
    (registers(at(1), synthetic::STACK), Stack::new(&words))
}

#[test]
fn any_flipped_bit_of_eh_frame_leaves_the_walk_bounded() {
    let image = rich_image();
    let (registers, stack) = rich_stack();
    let mut memory = Memory::new();
    let (_, end) = check(&registers, &stack, &mut memory.sources(image.tables()));
    assert_eq!(end, WalkEnd::Complete, "the stack is meant to be walked by all of the tables");
    let mut partial = 0;
    for byte in 0..image.eh_frame.len() {
        for bit in 0..8 {
            let mut flipped = image.clone();
            flipped.eh_frame[byte] ^= 1 << bit;
            let (_, end) = check(&registers, &stack, &mut memory.sources(flipped.tables()));
            partial += usize::from(end != WalkEnd::Complete);
        }
    }
    assert!(partial > 100, "{partial} flips were noticed");
}

#[test]
fn random_bytes_in_eh_frame_leave_the_walk_bounded() {
    let (registers, stack) = rich_stack();
    let image = rich_image();
    let mut memory = Memory::new();
    let mut garbage = Garbage(2);
    for _ in 0..20_000 {
        let mut damaged = image.clone();
        for _ in 0..1 + garbage.below(8) {
            let byte = garbage.below(damaged.eh_frame.len());
            damaged.eh_frame[byte] = garbage.next() as u8;
        }
        check(&registers, &stack, &mut memory.sources(damaged.tables()));
    }
}

#[test]
fn any_flipped_bit_of_eh_frame_hdr_is_refused_or_leaves_the_walk_bounded() {
    let image = rich_image();
    let (registers, stack) = rich_stack();
    let mut memory = Memory::new();
    let mut refused = 0;
    for byte in 0..image.header.len() {
        for bit in 0..8 {
            let mut flipped = image.clone();
            flipped.header[byte] ^= 1 << bit;
            let text = TEXT..function(0x100);
            let eh_frame = flipped.eh_frame_section();
            match UnwindTables::new(flipped.header_section(), eh_frame, text) {
                Ok(tables) => {
                    check(&registers, &stack, &mut memory.sources(tables));
                }
                Err(_) => refused += 1,
            }
        }
    }
    assert!(refused > 8 * 8, "{refused} flips were refused");
}
