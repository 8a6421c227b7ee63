//! Registers and a stack, walked by the tables of a good image, as they are and compiled.

use keeper::unwind::EhFrameRules;
use task_model::{FaultInfo, RegisterFile};

use super::checked_walk::checked_walk;
use super::image::{self, TEXT};
use super::stack::{STACK, Stack, WORDS};
use crate::Target;
use crate::input::Input;

/// One flag byte, then the instruction pointer, the sixteen registers and the stack's words.
///
/// Each word takes two bytes, of which the upper two bits tell what it is: a small number, an
/// address in or near the text, one in or near the stack, or whatever the next eight bytes say.
/// Words of eight bytes alone would hardly ever be addresses.
pub const WALK: Target = Target {
    name: "walk",
    about: "registers and stack words, walked by a good image's tables",
    max_len: 1 + 10 * (17 + WORDS),
    run,
};

fn run(bytes: &[u8]) {
    let mut input = Input(bytes);
    let fetch_failed = input.u8() & 1 != 0;
    let mut registers = RegisterFile::new();
    registers.rip = word(&mut input);
    registers.gpr.fill_with(|| word(&mut input));
    let mut words = [0; WORDS];
    words.fill_with(|| word(&mut input));

    let mut fault = FaultInfo::killed(registers.rip);
    fault.address = fetch_failed.then_some(registers.rip);
    let stack = Stack::new(words);
    let walk = |tables, one_by_one| {
        checked_walk(&registers, &fault, &stack, &mut EhFrameRules::new(tables), one_by_one)
    };
    let plain = walk(image::tables(), usize::MAX);
    let compiled = walk(image::compiled(), 1);
    assert_eq!(plain, compiled, "compiled tables say something else");
}

fn word(input: &mut Input<'_>) -> u64 {
    let short = input.u16();
    let low = u64::from(short & 0x3fff);
    match short >> 14 {
        0 => low,
        1 => TEXT + low,
        // From the guard page to well above the top, and aligned as often as not.
        2 => STACK - 0x40 + (low >> 3 << (low & 3)),
        _ => input.u64(),
    }
}
