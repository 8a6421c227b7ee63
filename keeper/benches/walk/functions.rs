//! How the cost of a frame grows with the number of functions.

use std::hint::black_box;
use std::ptr::NonNull;
use std::time::Instant;

use drop_registry::hosted::{Machine, Stop, yield_now};
use keeper::unwind::{CompiledMemory, EhFrameRules, LoadedSection, RuleSource, UnwindTables, Walk};
use task_model::{FrozenTask, Gpr, RegisterFile, StackBounds, TaskId};

use crate::measure::median;

const TEXT: u64 = 0xffff_ffff_8000_0000;
/// Of each function.
const SIZE: u64 = 96;
/// Of each frame, in words: a saved register, and the return address on top.
const FRAME: usize = 4;
const FRAMES: usize = 256;

/// Unwind sections for functions that push rbx and take 16 bytes more.
struct Synthetic {
    functions: u64,
    header: Vec<u8>,
    eh_frame: Vec<u8>,
}

impl Synthetic {
    fn new(functions: u64) -> Self {
        let eh_frame_address = TEXT + functions * SIZE;
        let mut eh_frame = vec![20, 0, 0, 0, 0, 0, 0, 0, 1];
        // Code alignment 1, data alignment -8, rip; 'R': pc-relative sdata4. CFA = rsp + 8.
        eh_frame.extend_from_slice(b"zR\0\x01\x78\x10\x01\x1b\x0c\x07\x08\x90\x01\0\0");
        let mut rows = Vec::new();
        for n in 0..functions {
            let (fde, start) = (eh_frame.len(), TEXT + n * SIZE);
            rows.push((start, eh_frame_address + fde as u64));
            eh_frame.extend_from_slice(&28_u32.to_le_bytes());
            eh_frame.extend_from_slice(&(fde as u32 + 4).to_le_bytes());
            let field = eh_frame_address + eh_frame.len() as u64;
            eh_frame.extend_from_slice(&(start.wrapping_sub(field) as i32).to_le_bytes());
            eh_frame.extend_from_slice(&(SIZE as u32).to_le_bytes());
            // After 1 byte: CFA = rsp + 16, rbx at CFA - 16. After 5: CFA = rsp + 32. 4 before the
            // end: CFA = rsp + 8.
            eh_frame.extend_from_slice(&[0, 0x41, 0x0e, 16, 0x83, 2, 0x44, 0x0e, 32]);
            eh_frame.extend_from_slice(&[0x02, 87, 0x0e, 8, 0, 0, 0]);
        }
        eh_frame.extend_from_slice(&[0; 4]);

        let header_address = eh_frame_address + eh_frame.len() as u64;
        let mut header = vec![1, 0x1b, 0x03, 0x3b];
        let distance = |to: u64, from: u64| (to.wrapping_sub(from) as i32).to_le_bytes();
        header.extend_from_slice(&distance(eh_frame_address, header_address + 4));
        header.extend_from_slice(&(functions as u32).to_le_bytes());
        for (start, fde) in rows {
            header.extend_from_slice(&distance(start, header_address));
            header.extend_from_slice(&distance(fde, header_address));
        }
        Self { functions, header, eh_frame }
    }

    fn tables(&self) -> UnwindTables<'_> {
        let eh_frame_address = TEXT + self.functions * SIZE;
        let header_address = eh_frame_address + self.eh_frame.len() as u64;
        UnwindTables::new(
            LoadedSection { bytes: &self.header, address: header_address },
            LoadedSection { bytes: &self.eh_frame, address: eh_frame_address },
            TEXT..eh_frame_address,
        )
        .unwrap()
    }
}

/// A stack on which functions have called each other at random, and its registers.
fn random_stack(functions: u64, seed: &mut u64) -> (Vec<u64>, RegisterFile) {
    let mut address = || {
        *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        TEXT + (*seed >> 33) % functions * SIZE + 40
    };
    let mut words = vec![0; FRAME * FRAMES];
    for frame in words.chunks_exact_mut(FRAME) {
        frame[FRAME - 1] = address();
    }
    let mut registers = RegisterFile::new();
    registers.rip = address();
    (words, registers)
}

/// What `f` makes of a task with such a stack.
fn on_random_stack<R>(functions: u64, seed: &mut u64, f: impl FnOnce(&FrozenTask<'_>) -> R) -> R {
    let (mut words, mut registers) = random_stack(functions, seed);
    let range = words.as_mut_ptr_range();
    let (base, top) =
        (range.start.expose_provenance() as u64, range.end.expose_provenance() as u64);
    registers[Gpr::Rsp] = base;
    let bounds = StackBounds::new(base, top, 0).unwrap();
    // SAFETY: the "task" is these words and registers, which nobody else uses.
    let task = unsafe { FrozenTask::new(TaskId::first(0), NonNull::from(&mut registers), bounds) };
    f(&task)
}

/// Walks so many frames.
fn walk(task: &FrozenTask<'_>, rules: &mut impl RuleSource, frames: usize) {
    let walk = Walk::new(task.registers(), task, rules).max_frames(frames);
    assert_eq!(black_box(walk).count(), frames);
}

/// Nanoseconds of a frame: the median over stacks that differ.
fn nanoseconds(rules: &mut impl RuleSource, functions: u64, stacks: usize) -> f64 {
    let mut seed = 1;
    let times = (0..stacks).map(|_| {
        on_random_stack(functions, &mut seed, |task| {
            let start = Instant::now();
            walk(task, rules, FRAMES);
            start.elapsed().as_nanos() as f64 / FRAMES as f64
        })
    });
    median(times.collect())
}

/// Instructions of a frame: counted by single steps, not timed.
fn instructions(tables: UnwindTables<'static>, functions: u64) -> f64 {
    let steps = |frames| {
        #[expect(unsafe_code, reason = "makes a machine")]
        // SAFETY: the task is stepped through a walk, which allocates nothing; it is not killed.
        let machine = unsafe { Machine::new() };
        let task = machine.spawn(move || {
            let mut rules = EhFrameRules::new(tables);
            on_random_stack(functions, &mut 1, |task| {
                // Once before it counts: lazy binding.
                walk(task, &mut rules, frames);
                yield_now();
                walk(task, &mut rules, frames);
                yield_now();
            });
        });
        assert_eq!(machine.run(task, None), Stop::Yielded);
        let (steps, stop) = machine.count_instructions(task);
        assert_eq!((stop, machine.run(task, None)), (Stop::Yielded, Stop::Finished));
        steps
    };
    // Without what is only at its beginning and end.
    (steps(COUNTED + 1) - steps(1)) as f64 / COUNTED as f64
}

/// The frames whose instructions are counted.
const COUNTED: usize = 64;

/// Prints the table.
pub(crate) fn measure(thorough: bool) {
    println!("\n{:>10} {:>25} {:>25}", "", "compiled", ".eh_frame");
    println!(
        "{:>10} {:>12} {:>12} {:>12} {:>12} {:>14}",
        "functions", "ns", "instructions", "ns", "instructions", "bytes each"
    );
    let mut first = None;
    for functions in [1_000, 10_000, 100_000, 1_000_000] {
        if !thorough && functions > 10_000 {
            break;
        }
        // For ever, as the counted walks are in a task that asks for that.
        let image = Box::leak(Box::new(Synthetic::new(functions)));
        let size = image.tables().compiled_size().unwrap();
        let memory = Box::leak(Box::new(CompiledMemory::new(&size)));
        let tables = [image.tables().compile(memory).unwrap(), image.tables()];
        let [compiled, uncompiled] = tables
            .map(EhFrameRules::new)
            .each_mut()
            .map(|rules| nanoseconds(rules, functions, 101));
        let counted = tables.map(|tables| instructions(tables, functions));
        println!(
            "{functions:>10} {compiled:>12.1} {:>12.0} {uncompiled:>12.1} {:>12.0} {:>14.1}",
            counted[0],
            counted[1],
            size.bytes() as f64 / functions as f64
        );
        let (fewest, cost) = *first.get_or_insert((functions, counted));
        let logarithm = (functions as f64).ln() / (fewest as f64).ln();
        for (now, then) in counted.into_iter().zip(cost) {
            assert!(now <= then * logarithm, "a frame costs more than a logarithm");
        }
    }
}
