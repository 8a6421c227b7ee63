//! A ledger that somebody has written over, and locks and blocks that say anything, settled.
#![expect(unsafe_code, reason = "writes over ledgers and locks, and settles them")]

use drop_registry::{Ledger, Outcome, WaitForGraph, reclaim, settle, take_over};
use task_model::{FrozenTask, RegisterFile, StackBounds, TaskId};

use super::held::{self, GUARD, Held, Sample, TASKS};
use crate::Target;
use crate::input::Input;

/// One byte for the dead task's number, the zero flag, and whether a settler has died over it
/// already; then words: the instruction pointer and the sixteen registers, of the task and of that
/// settler, the ledger, the locks, and the beginnings of the heap's blocks.
///
/// Each word takes two bytes, of which the upper three bits tell what it is: a small number, the
/// address of something, operations, an address in a window, or whatever the next eight bytes say.
pub const LEDGER: Target = Target {
    name: "ledger",
    about: "ledger bytes, lock words and registers, settled",
    max_len: 1 + 10 * (2 * 17 + LEDGER_WORDS + held::LOCK_WORDS + held::BLOCK_WORDS),
    run,
};

const LEDGER_WORDS: usize = size_of::<Ledger>() / 8;

fn run(bytes: &[u8]) {
    held::with(|held| settle_anything(held, Input(bytes)));
}

fn settle_anything(held: &mut Held, mut input: Input<'_>) {
    let first = input.u8();
    let (number, settler_died, zero) = (first & 63, first & 64 != 0, first & 128 != 0);
    held.begin(usize::from(number));
    let mut registers = stopped(&mut input, zero, held);
    let mut settlers = settler_died.then(|| stopped(&mut input, zero, held));
    for n in 0..LEDGER_WORDS + held::LOCK_WORDS + held::BLOCK_WORDS {
        if input.0.is_empty() {
            break;
        }
        // A word of all ones keeps what is there.
        match word(&mut input, held.sample()) {
            u64::MAX => {}
            word => held.write(n, word),
        }
    }

    let stack = StackBounds::new(0x1000, 0x2000, 0).expect("a stack");
    // SAFETY: nothing runs with these registers, and settling reads no stack.
    let task = unsafe { FrozenTask::new(TaskId::first(0), (&mut registers).into(), stack) };
    let ledger = held.ledger();
    look_at(ledger, held);
    if let Some(registers) = &mut settlers {
        // SAFETY: as above.
        let settler = unsafe { FrozenTask::new(TaskId::first(1), registers.into(), stack) };
        // SAFETY: nobody has settled on since; and it is to touch nothing that is not its own,
        // though the settler's registers say anything.
        unsafe { take_over(&settler, ledger, &held.domain()) };
    }
    let told = settle_all(&task, held);
    assert!(told <= 2 * (Ledger::CAPACITY + 1), "{told} things of one ledger");
    assert!(ledger.is_empty(), "something was left: {}", ledger.len());
    assert_eq!(settle_all(&task, held), 0, "settled twice");
    held.check();
}

/// Where somebody has stopped.
fn stopped(input: &mut Input<'_>, zero: bool, held: &Held) -> RegisterFile {
    let mut registers = RegisterFile::new();
    registers.rip = word(input, held.sample());
    registers.rflags = if zero { RegisterFile::ZERO_FLAG } else { 0 };
    registers.gpr.fill_with(|| word(input, held.sample()));
    registers
}

/// Reads the ledger as one does that is not to be settled.
fn look_at(ledger: &Ledger, held: &Held) {
    let graph = WaitForGraph::<1>::new([(TaskId::first(0), ledger)], held.domain());
    let graph = graph.expect("one task");
    assert!(graph.waits().count() <= Ledger::CAPACITY, "more waits than entries");
    assert_eq!(graph.deadlocks().count(), 0, "a task alone waits for nobody else");
    assert!(format!("{ledger:?}").len() < 1 << 13, "a ledger is shown by its words");
}

/// Settles in both steps. Returns how much was told.
fn settle_all(task: &FrozenTask<'_>, held: &Held) -> usize {
    let (ledger, domain, mut told) = (held.ledger(), held.domain(), 0);
    // SAFETY: the task never runs, nobody else settles it, and the domain is that of `held`.
    unsafe {
        settle(task, ledger, &domain, |one| {
            assert_ne!(one.outcome, Outcome::Quarantined, "a destructor in the fault path");
            told += 1;
        });
        held.find_repair_mutex();
        reclaim(ledger, &domain, |_| told += 1);
    }
    told
}

fn word(input: &mut Input<'_>, known: &Sample) -> u64 {
    let short = input.u16();
    let low = usize::from(short & 0x1fff);
    let of = |list: &[u64]| list[low % list.len()];
    match short >> 13 {
        0 => low as u64,
        1 => of(&known.resources),
        2 => of(&known.operations),
        // In the middle of one.
        3 => of(&known.resources).wrapping_add((low >> 6) as u64 & 63),
        4 => known.objects.wrapping_add(low as u64).wrapping_sub(GUARD as u64),
        5 => known.ledger.wrapping_add(low as u64 & 0x3ff),
        6 => of(&known.windows).wrapping_add((low >> 9) as u64),
        _ => input.u64(),
    }
}

const _: () = assert!(TASKS < 32);
