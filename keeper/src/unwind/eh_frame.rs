//! The rules of one image: compact ones if there are, or from `.eh_frame`, decoded by gimli.

use core::ops::Range;

use gimli::{
    BaseAddresses, EhFrame, EhFrameOffset, EndianSlice, FrameDescriptionEntry, LittleEndian,
    ReaderOffset, Register, UnwindContext, UnwindContextStorage, UnwindSection, UnwindTableRow,
    X86_64,
};
use task_model::Gpr;

use super::{
    CfaRule, CompactRule, Expression, FrameRules, RegisterRule, RuleSource, UnwindTables, WalkError,
};

/// The rules of one image.
///
/// If its tables have been [compiled](UnwindTables::compile_into), nearly all rules are found in
/// their compact form. Otherwise, and where those say so, they are decoded anew from `.eh_frame`
/// for each address, which needs no preparation and no allocator, and takes thirty times as long.
///
/// It holds the decoder's storage, [`EhFrameRules::SIZE`] bytes, so keep it where a few kilobytes
/// are no matter. One is enough for all walks of a keeper.
#[derive(Debug)]
pub struct EhFrameRules<'a> {
    tables: UnwindTables<'a>,
    decoder: Decoder,
}

impl<'a> EhFrameRules<'a> {
    /// The size of this type in bytes: under 3 KiB, nearly all of it the decoder's storage.
    pub const SIZE: usize = size_of::<Self>();

    /// The rules in `tables`.
    pub fn new(tables: UnwindTables<'a>) -> Self {
        Self { tables, decoder: Decoder::new() }
    }

    /// The tables that the rules come from.
    pub const fn tables(&self) -> &UnwindTables<'a> {
        &self.tables
    }

    /// Makes the rules those in `tables`.
    pub(super) const fn set_tables(&mut self, tables: UnwindTables<'a>) {
        self.tables = tables;
    }
}

impl RuleSource for EhFrameRules<'_> {
    #[inline]
    fn compact_rule_at(&mut self, address: u64) -> Option<CompactRule<'_>> {
        self.tables.compact_rule_at(address)
    }

    fn rules_at(&mut self, address: u64) -> Result<FrameRules<'_>, WalkError> {
        self.decoder.rules_at(&self.tables, address)
    }

    #[inline]
    fn text_contains(&self, address: u64) -> bool {
        self.tables.text_contains(address)
    }

    fn may_follow_call(&self, return_address: u64) -> bool {
        self.tables.may_follow_call(return_address)
    }
}

/// gimli, in fixed storage.
#[derive(Debug)]
pub(super) struct Decoder {
    context: UnwindContext<usize, FixedStorage>,
}

/// The decoder's storage: no part of it grows.
#[derive(Debug)]
struct FixedStorage;

/// The most registers that one row may name: the sixteen and the return address, and some to spare
/// for the flags or vector registers that a hand-written table may mention.
const MAX_RULES: usize = 20;

/// The current row, that of the CIE, and two remembered ones (`DW_CFA_remember_state`).
const MAX_ROWS: usize = 4;

impl<T: ReaderOffset> UnwindContextStorage<T> for FixedStorage {
    type Rules = [(Register, gimli::RegisterRule<T>); MAX_RULES];
    type Stack = [UnwindTableRow<T, Self>; MAX_ROWS];
}

impl Decoder {
    pub(super) fn new() -> Self {
        Self { context: UnwindContext::new_in() }
    }

    /// The rules at `address`, as [`RuleSource::rules_at`].
    pub(super) fn rules_at<'a>(
        &mut self,
        tables: &UnwindTables<'a>,
        address: u64,
    ) -> Result<FrameRules<'a>, WalkError> {
        let no_fde = WalkError::NoFde(address);
        let bad_cfi = WalkError::BadCfi(address);
        let section = Section::of(tables);
        let fde = section.fde(tables.find(address).ok_or(no_fde)?).ok_or(bad_cfi)?;
        if !fde.contains(address) {
            return Err(no_fde);
        }
        let row = fde
            .unwind_info_for_address(&section.eh_frame, &section.bases, &mut self.context, address)
            .map_err(|_| bad_cfi)?;
        section.rules(&fde, row).ok_or(bad_cfi)
    }

    /// Gives out the rows of the function at `start`, whose entry is at `fde`, in their order, with
    /// `None` for one whose rules have no meaning here; and returns the function's end.
    ///
    /// `None` if the entry does not parse, or not to its end.
    pub(super) fn for_each_row<'a>(
        &mut self,
        tables: &UnwindTables<'a>,
        start: u64,
        fde: usize,
        mut each: impl FnMut(Range<u64>, Option<FrameRules<'a>>),
    ) -> Option<u64> {
        let section = Section::of(tables);
        let fde = section.fde(fde).filter(|fde| {
            // A function that reaches beyond the last address contains none, as look-ups have it.
            fde.initial_address() == start && start <= fde.end_address()
        })?;
        let mut rows = fde.rows(&section.eh_frame, &section.bases, &mut self.context).ok()?;
        let end = fde.end_address();
        while let Some(row) = rows.next_row().ok()? {
            // Code for addresses beyond the function's end is not what a look-up would find.
            each(row.start_address()..row.end_address().min(end), section.rules(&fde, row));
        }
        Some(end)
    }
}

/// A slice of the section, as gimli reads it.
type Bytes<'a> = EndianSlice<'a, LittleEndian>;

/// `.eh_frame` and where it is.
struct Section<'a> {
    eh_frame: EhFrame<Bytes<'a>>,
    bases: BaseAddresses,
}

impl<'a> Section<'a> {
    fn of(tables: &UnwindTables<'a>) -> Self {
        let section = tables.eh_frame();
        Self {
            eh_frame: EhFrame::new(section.bytes, LittleEndian),
            bases: BaseAddresses::default().set_eh_frame(section.address),
        }
    }

    /// The entry at `offset`.
    fn fde(&self, offset: usize) -> Option<FrameDescriptionEntry<Bytes<'a>>> {
        self.eh_frame
            .fde_from_offset(&self.bases, EhFrameOffset(offset), EhFrame::cie_from_offset)
            .ok()
    }

    /// gimli's row in our terms; `None` if it says something that has no meaning here.
    fn rules(
        &self,
        fde: &FrameDescriptionEntry<Bytes<'a>>,
        row: &UnwindTableRow<usize, FixedStorage>,
    ) -> Option<FrameRules<'a>> {
        if fde.cie().return_address_register() != X86_64::RA {
            return None;
        }
        let mut rules = FrameRules {
            function: fde.initial_address(),
            signal_frame: fde.is_signal_trampoline(),
            cfa: self.cfa_rule(row.cfa())?,
            return_address: RegisterRule::Unspecified,
            registers: [RegisterRule::Unspecified; 16],
        };
        for (register, rule) in row.registers() {
            let slot = match Gpr::from_dwarf(register.0) {
                Some(gpr) => &mut rules.registers[gpr as usize],
                None if *register == X86_64::RA => &mut rules.return_address,
                None => continue,
            };
            *slot = self.register_rule(rule)?;
        }
        Some(rules)
    }

    fn cfa_rule(&self, rule: &gimli::CfaRule<usize>) -> Option<CfaRule<'a>> {
        Some(match rule {
            gimli::CfaRule::RegisterAndOffset { register, offset } => {
                CfaRule::RegisterAndOffset(Gpr::from_dwarf(register.0)?, *offset)
            }
            gimli::CfaRule::Expression(code) => CfaRule::Expression(self.expression(code)?),
        })
    }

    fn register_rule(&self, rule: &gimli::RegisterRule<usize>) -> Option<RegisterRule<'a>> {
        Some(match rule {
            gimli::RegisterRule::Undefined => RegisterRule::Undefined,
            gimli::RegisterRule::SameValue => RegisterRule::SameValue,
            gimli::RegisterRule::Offset(offset) => RegisterRule::Offset(*offset),
            gimli::RegisterRule::ValOffset(offset) => RegisterRule::ValOffset(*offset),
            gimli::RegisterRule::Register(other) => {
                RegisterRule::Register(Gpr::from_dwarf(other.0)?)
            }
            gimli::RegisterRule::Expression(code) => {
                RegisterRule::Expression(self.expression(code)?)
            }
            gimli::RegisterRule::ValExpression(code) => {
                RegisterRule::ValExpression(self.expression(code)?)
            }
            _ => return None,
        })
    }

    fn expression(&self, code: &gimli::UnwindExpression<usize>) -> Option<Expression<'a>> {
        Some(Expression::new(code.get(&self.eh_frame).ok()?.0.slice()))
    }
}
