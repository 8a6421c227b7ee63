//! `.eh_frame_hdr`: refused, or searched.

use keeper::unwind::{EhFrameRules, LoadedSection, RuleSource as _, UnwindTables};
use task_model::{FaultInfo, Gpr, RegisterFile};

use super::checked_walk::checked_walks;
use super::image::{self, HEADER, TEXT, text};
use super::stack::{STACK, Stack, WORDS};
use crate::Target;
use crate::input::Input;

/// Two bytes that tell which address is looked up, and the section.
pub const EH_FRAME_HDR: Target = Target {
    name: "eh_frame_hdr",
    about: "the bytes of .eh_frame_hdr: refused, or an address is looked up in it",
    max_len: 512,
    run,
};

fn run(bytes: &[u8]) {
    let mut input = Input(bytes);
    let address = TEXT.wrapping_add_signed(input.u16().cast_signed().into());
    let header = LoadedSection { bytes: input.0, address: HEADER };
    // Of an .eh_frame that is where the header says, and of one that is where it should be.
    let claimed = UnwindTables::eh_frame_address(header);
    for eh_frame in [claimed.unwrap_or(image::EH_FRAME), image::EH_FRAME] {
        let Ok(tables) = UnwindTables::new(header, image::eh_frame(eh_frame), text()) else {
            continue;
        };
        assert_eq!(claimed, Ok(eh_frame), "it is of no other .eh_frame");
        assert!(tables.function_count() <= input.0.len() / 8, "rows that are not there");
        let mut rules = EhFrameRules::new(tables);
        if let Ok(found) = rules.rules_at(address) {
            assert!(found.function <= address, "a function that begins after the address");
        }
        let mut registers = RegisterFile::new();
        registers.rip = address;
        registers[Gpr::Rsp] = STACK;
        let stack = Stack::new([address; WORDS]);
        checked_walks(&registers, &FaultInfo::killed(address), &stack, tables);
    }
}
