//! DWARF expressions in unwind rules, evaluated in fixed storage.

use gimli::{
    Encoding, EndianSlice, Evaluation, EvaluationResult, EvaluationStorage, Format, LittleEndian,
    Location, Piece, Reader, UnitOffset, Value, X86_64,
};
use task_model::{Gpr, StackMemory};

use super::{FrameState, WalkError};

/// A DWARF expression (DWARF 5, section 2.5), as an unwind rule may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expression<'a> {
    code: &'a [u8],
}

/// The most operations that an evaluation executes: ten times what compilers and linkers write,
/// and the end of a loop.
const MAX_OPERATIONS: u32 = 128;

/// Why an expression has no value.
pub(super) enum ExpressionError {
    /// It is malformed, too long, or asks for what an unwind rule may not ask for (DWARF 5,
    /// section 6.4.2 lists what is forbidden).
    Invalid,
    /// Evaluating it met this error.
    Walk(WalkError),
}

struct FixedStorage;

impl<R: Reader> EvaluationStorage<R> for FixedStorage {
    type Stack = [Value; 16];
    type ExpressionStack = [(R, R); 0];
    type Result = [Piece<R>; 1];
}

impl<'a> Expression<'a> {
    /// The expression with this code.
    pub const fn new(code: &'a [u8]) -> Self {
        Self { code }
    }

    /// The value in `frame`, beginning with `initial` on the expression's stack.
    pub(super) fn evaluate(
        &self,
        initial: Option<u64>,
        frame: &FrameState,
        memory: &(impl StackMemory + ?Sized),
    ) -> Result<u64, ExpressionError> {
        const ENCODING: Encoding =
            Encoding { format: Format::Dwarf32, version: 4, address_size: 8 };
        let code = EndianSlice::new(self.code, LittleEndian);
        let mut evaluation = Evaluation::<_, FixedStorage>::new_in(code, ENCODING);
        evaluation.set_max_iterations(MAX_OPERATIONS);
        if let Some(value) = initial {
            evaluation.set_initial_value(value);
        }

        let mut result = evaluation.evaluate()?;
        // Each turn uses up an operation, so the limit on those bounds this loop too.
        loop {
            result = match result {
                EvaluationResult::Complete => break,
                EvaluationResult::RequiresMemory {
                    address,
                    size,
                    space: None,
                    base_type: UnitOffset(0),
                } => {
                    let value = read_sized(memory, address, size)?;
                    evaluation.resume_with_memory(Value::Generic(value))?
                }
                EvaluationResult::RequiresRegister { register, base_type: UnitOffset(0) } => {
                    let value = if register == X86_64::RA {
                        frame.address.address()
                    } else {
                        let gpr = Gpr::from_dwarf(register.0).ok_or(ExpressionError::Invalid)?;
                        frame.registers.get(gpr).ok_or(WalkError::UndefinedRegister(gpr))?
                    };
                    evaluation.resume_with_register(Value::Generic(value))?
                }
                _ => return Err(ExpressionError::Invalid),
            };
        }
        match evaluation.as_result() {
            [Piece { location: Location::Address { address }, .. }] => Ok(*address),
            _ => Err(ExpressionError::Invalid),
        }
    }
}

/// The `size` bytes at `address`, by a read of the word that holds them.
fn read_sized(
    memory: &(impl StackMemory + ?Sized),
    address: u64,
    size: u8,
) -> Result<u64, ExpressionError> {
    let offset = address % 8;
    match size {
        8 => Ok(memory.read_u64(address).map_err(WalkError::from)?),
        1 | 2 | 4 if offset + u64::from(size) <= 8 => {
            let word = memory.read_u64(address - offset).map_err(WalkError::from)?;
            Ok((word >> (offset * 8)) & ((1 << (size * 8)) - 1))
        }
        1 | 2 | 4 => Err(WalkError::Misaligned(address).into()),
        _ => Err(ExpressionError::Invalid),
    }
}

impl From<gimli::Error> for ExpressionError {
    fn from(_: gimli::Error) -> Self {
        Self::Invalid
    }
}

impl From<WalkError> for ExpressionError {
    fn from(error: WalkError) -> Self {
        Self::Walk(error)
    }
}
