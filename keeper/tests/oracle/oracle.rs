//! What gimli says of an image, read from the start of `.eh_frame` to its end.
//!
//! It shares nothing with the library's own use of gimli: no search table, no fixed storage, and
//! the rules are put into terms of their own.

use std::fmt;
use std::ops::Range;

use gimli::{
    BaseAddresses, CfaRule, CieOrFde, EhFrame, EndianSlice, LittleEndian, RegisterRule,
    UnwindContext, UnwindSection, UnwindTableRow, X86_64,
};
use keeper::unwind::{CompactRule, EhFrameRules, RuleSource, UnwindTables, WalkError};

/// What was compared.
#[derive(Default)]
pub(crate) struct Compared {
    /// Addresses at which all of the rules were compared, or the lack of any.
    pub(crate) addresses: u64,
    /// gimli's rows that they are in.
    pub(crate) rows: u64,
    /// Those of the addresses whose compiled tables leave them to `.eh_frame`.
    pub(crate) left_to_eh_frame: u64,
    /// Those of the addresses whose rules are not the same.
    pub(crate) different: u64,
}

impl fmt::Display for Compared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { addresses, rows, left_to_eh_frame, different } = self;
        write!(f, "pcs={addresses} rows={rows} asked={left_to_eh_frame} different={different}")
    }
}

/// Callee-saved registers by their DWARF numbers, in the order of their encoding numbers.
const CALLEE_SAVED: [u16; 6] = [3, 6, 12, 13, 14, 15];

/// A row's rules, as far as a compact rule can say them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Simple {
    Entry { function: u64 },
    Caller { function: u64, cfa: (u16, i64), saved: [Option<i64>; 6] },
}

impl Simple {
    /// `None` if a compact rule cannot say it.
    fn of_row(function: u64, signal: bool, row: &UnwindTableRow<usize>) -> Option<Self> {
        let is_return_address = |rule: &&(gimli::Register, _)| rule.0 == X86_64::RA;
        let return_address = row.registers().find(is_return_address).map(|rule| &rule.1);
        if signal {
            return None;
        }
        match return_address {
            Some(RegisterRule::Undefined) => return Some(Self::Entry { function }),
            Some(RegisterRule::Offset(-8)) => {}
            _ => return None,
        }
        let CfaRule::RegisterAndOffset { register, offset } = *row.cfa() else { return None };
        let mut saved = [None; 6];
        for (register, rule) in row.registers() {
            if *register == X86_64::RA {
                continue;
            }
            let n = CALLEE_SAVED.iter().position(|saved| *saved == register.0)?;
            saved[n] = match *rule {
                RegisterRule::SameValue => None,
                RegisterRule::Offset(offset @ -2040..=-8) if offset % 8 == 0 => Some(offset),
                _ => return None,
            };
        }
        let fits = offset % 8 == 0 && (0..=8 * 65535).contains(&offset);
        fits.then_some(Self::Caller { function, cfa: (register.0, offset), saved })
    }

    fn of_compact(rule: CompactRule<'_>) -> Self {
        let function = rule.function();
        if rule.is_entry() {
            return Self::Entry { function };
        }
        let dwarf = (0..16).find(|n| task_model::Gpr::from_dwarf(*n) == Some(rule.cfa_register()));
        let mut saved = [None; 6];
        for (n, (_, distance)) in rule.saved().enumerate() {
            saved[n] = distance.map(|distance| -(distance as i64));
        }
        Self::Caller { function, cfa: (dwarf.unwrap(), rule.cfa_offset() as i64), saved }
    }
}

/// Which addresses to compare at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Addresses {
    /// All of them.
    All,
    /// The first and the last of each of gimli's rows, and of each gap between functions.
    EndsOfRows,
}

impl Addresses {
    fn of(self, range: Range<u64>) -> impl Iterator<Item = u64> {
        let step = match self {
            Self::All => 1,
            Self::EndsOfRows => (range.end - range.start).saturating_sub(1).max(1),
        };
        range.step_by(step as usize)
    }
}

/// Compares `tables` with what gimli says of `eh_frame`, in all of `text`.
pub(crate) fn compare(
    eh_frame: &[u8],
    eh_frame_address: u64,
    text: Range<u64>,
    tables: UnwindTables<'_>,
    addresses: Addresses,
) -> Compared {
    let section = EhFrame::new(eh_frame, LittleEndian);
    let bases = BaseAddresses::default().set_eh_frame(eh_frame_address);
    let mut context = UnwindContext::new();
    let mut rules = EhFrameRules::new(tables);
    let mut compared = Compared::default();
    let mut covered = Vec::new();

    let mut entries = section.entries(&bases);
    while let Some(entry) = entries.next().unwrap() {
        let CieOrFde::Fde(partial) = entry else { continue };
        let fde = partial.parse(EhFrame::<EndianSlice<_>>::cie_from_offset).unwrap();
        let (function, signal) = (fde.initial_address(), fde.is_signal_trampoline());
        if fde.len() == 0 || !text.contains(&function) {
            continue;
        }
        covered.push(function..fde.end_address());
        let mut rows = fde.rows(&section, &bases, &mut context).unwrap();
        while let Some(row) = rows.next_row().unwrap() {
            let expected = Simple::of_row(function, signal, row);
            compared.rows += 1;
            for address in addresses.of(row.start_address()..row.end_address()) {
                let compact = rules.compact_rule_at(address).map(Simple::of_compact);
                compared.addresses += 1;
                compared.left_to_eh_frame += u64::from(compact.is_none());
                compared.different += u64::from(compact != expected);
            }
        }
    }

    // And that there are no rules where there is no function.
    covered.sort_by_key(|range| range.start);
    let mut gap_start = text.start;
    covered.push(text.end..text.end);
    for function in covered {
        for address in addresses.of(gap_start..function.start) {
            let none = rules.compact_rule_at(address).is_none();
            compared.addresses += 1;
            compared.different += u64::from(!none);
            if address == gap_start || address == function.start - 1 {
                let error = rules.rules_at(address).err();
                compared.different += u64::from(error != Some(WalkError::NoFde(address)));
            }
        }
        gap_start = function.end;
    }
    compared
}
