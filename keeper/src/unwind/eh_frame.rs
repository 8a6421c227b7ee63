//! Rules straight from `.eh_frame`, decoded by gimli.

use gimli::{
    BaseAddresses, EhFrame, EhFrameOffset, EndianSlice, LittleEndian, ReaderOffset, Register,
    UnwindContext, UnwindContextStorage, UnwindSection, UnwindTableRow, X86_64,
};
use task_model::Gpr;

use super::{CfaRule, Expression, FrameRules, RegisterRule, RuleSource, UnwindTables, WalkError};

/// The rules of one image, decoded anew from its `.eh_frame` for each address.
///
/// It needs no preparation and no allocator. It holds the decoder's storage, [`EhFrameRules::SIZE`]
/// bytes, so keep it where a few kilobytes are no matter. One is enough for all walks of a keeper.
#[derive(Debug)]
pub struct EhFrameRules<'a> {
    tables: UnwindTables<'a>,
    eh_frame: EhFrame<EndianSlice<'a, LittleEndian>>,
    bases: BaseAddresses,
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

impl<'a> EhFrameRules<'a> {
    /// The size of this type in bytes: under 3 KiB, nearly all of it the decoder's storage.
    pub const SIZE: usize = size_of::<Self>();

    /// The rules in `tables`.
    pub fn new(tables: UnwindTables<'a>) -> Self {
        let section = tables.eh_frame();
        Self {
            tables,
            eh_frame: EhFrame::new(section.bytes, LittleEndian),
            bases: BaseAddresses::default().set_eh_frame(section.address),
            context: UnwindContext::new_in(),
        }
    }

    /// The tables that the rules come from.
    pub const fn tables(&self) -> &UnwindTables<'a> {
        &self.tables
    }
}

impl RuleSource for EhFrameRules<'_> {
    fn rules_at(&mut self, address: u64) -> Result<FrameRules<'_>, WalkError> {
        let no_fde = WalkError::NoFde(address);
        let bad_cfi = WalkError::BadCfi(address);
        let offset = self.tables.find(address).ok_or(no_fde)?;
        let fde = self
            .eh_frame
            .fde_from_offset(&self.bases, EhFrameOffset(offset), EhFrame::cie_from_offset)
            .map_err(|_| bad_cfi)?;
        if !fde.contains(address) {
            return Err(no_fde);
        }
        if fde.cie().return_address_register() != X86_64::RA {
            return Err(bad_cfi);
        }
        let row = fde
            .unwind_info_for_address(&self.eh_frame, &self.bases, &mut self.context, address)
            .map_err(|_| bad_cfi)?;

        let mut rules = FrameRules {
            function: fde.initial_address(),
            signal_frame: fde.is_signal_trampoline(),
            cfa: cfa_rule(row.cfa(), &self.eh_frame).ok_or(bad_cfi)?,
            return_address: RegisterRule::Unspecified,
            registers: [RegisterRule::Unspecified; 16],
        };
        for (register, rule) in row.registers() {
            let slot = match Gpr::from_dwarf(register.0) {
                Some(gpr) => &mut rules.registers[gpr as usize],
                None if *register == X86_64::RA => &mut rules.return_address,
                None => continue,
            };
            *slot = register_rule(rule, &self.eh_frame).ok_or(bad_cfi)?;
        }
        Ok(rules)
    }

    fn text_contains(&self, address: u64) -> bool {
        self.tables.text_contains(address)
    }
}

type Section<'a> = EhFrame<EndianSlice<'a, LittleEndian>>;

/// gimli's rule in our terms; `None` if it names a register that is not general-purpose.
fn cfa_rule<'a>(rule: &gimli::CfaRule<usize>, section: &Section<'a>) -> Option<CfaRule<'a>> {
    Some(match rule {
        gimli::CfaRule::RegisterAndOffset { register, offset } => {
            CfaRule::RegisterAndOffset(Gpr::from_dwarf(register.0)?, *offset)
        }
        gimli::CfaRule::Expression(code) => CfaRule::Expression(expression(code, section)?),
    })
}

/// gimli's rule in our terms; `None` if it means nothing on x86-64.
fn register_rule<'a>(
    rule: &gimli::RegisterRule<usize>,
    section: &Section<'a>,
) -> Option<RegisterRule<'a>> {
    Some(match rule {
        gimli::RegisterRule::Undefined => RegisterRule::Undefined,
        gimli::RegisterRule::SameValue => RegisterRule::SameValue,
        gimli::RegisterRule::Offset(offset) => RegisterRule::Offset(*offset),
        gimli::RegisterRule::ValOffset(offset) => RegisterRule::ValOffset(*offset),
        gimli::RegisterRule::Register(other) => RegisterRule::Register(Gpr::from_dwarf(other.0)?),
        gimli::RegisterRule::Expression(code) => {
            RegisterRule::Expression(expression(code, section)?)
        }
        gimli::RegisterRule::ValExpression(code) => {
            RegisterRule::ValExpression(expression(code, section)?)
        }
        _ => return None,
    })
}

fn expression<'a>(
    code: &gimli::UnwindExpression<usize>,
    section: &Section<'a>,
) -> Option<Expression<'a>> {
    Some(Expression::new(code.get(section).ok()?.0.slice()))
}
