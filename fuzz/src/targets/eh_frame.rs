//! `.eh_frame`: an entry, decoded and compiled, and walks by its rules.

use keeper::unwind::{LoadedSection, UnwindTables};
use task_model::{FaultInfo, Gpr, RegisterFile};

use super::checked_walk::checked_walks;
use super::image::{self, HEADER, TEXT, header_of_one, text};
use super::stack::{STACK, Stack, WORDS};
use crate::Target;
use crate::input::Input;

/// Two bytes that tell which offset in the section is looked up, one for the instruction in the
/// function, and the section.
pub const EH_FRAME: Target = Target {
    name: "eh_frame",
    about: "the bytes of .eh_frame: an entry in it is decoded, and walked by",
    max_len: 512,
    run,
};

fn run(bytes: &[u8]) {
    let mut input = Input(bytes);
    let offset = u32::from(input.u16());
    let address = TEXT + u64::from(input.u8());
    let header = header_of_one(offset);
    let header = LoadedSection { bytes: &header, address: HEADER };
    let section = LoadedSection { bytes: input.0, address: image::EH_FRAME };
    let Ok(tables) = UnwindTables::new(header, section, text()) else { return };

    let mut registers = RegisterFile::new();
    for gpr in Gpr::ALL {
        registers[gpr] = STACK + 16 * gpr as u64;
    }
    registers[Gpr::Rbx] = address;
    registers.rip = address;
    // Every other word would do as a return address, and the rest as a saved stack pointer.
    let words = core::array::from_fn::<_, WORDS, _>(|n| match n % 2 {
        0 => address + 1,
        _ => STACK + 8 * n as u64,
    });
    checked_walks(&registers, &FaultInfo::killed(address), &Stack::new(words), tables);
}
