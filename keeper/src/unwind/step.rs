//! One step: from a frame to its caller.

use task_model::{Gpr, StackMemory};

use super::compact::{FrameShape, RBP_FRAME};
use super::expression::ExpressionError;
use super::registers::is_callee_saved;
use super::usual::match_usual;
use super::{
    CfaRule, Expression, FrameAddress, FrameRules, FrameState, RegisterRule, RuleSource,
    UnwindRegisters, WalkError,
};

/// What one step found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// Where the function of the frame begins.
    pub function: u64,
    /// Whether the frame is a trap's or a signal's, so that its caller was interrupted.
    pub signal_frame: bool,
    /// The canonical frame address: one past the frame's highest byte, which for a function that
    /// was called is the stack pointer before the call. For an entry frame, which nothing called,
    /// the top of the stack.
    pub cfa: u64,
    /// The caller, or `None` if the tables say that there is none: the frame is the task's entry.
    pub caller: Option<FrameState>,
}

/// Finds the caller of `frame`.
///
/// Pure: what it returns depends on the arguments alone, and it changes nothing but the source's
/// scratch storage. It reads `memory` only through [`StackMemory::read_u64`].
///
/// A register that the tables do not mention keeps its value if the psABI has a function preserve
/// it, or if the frame is a signal frame; else it becomes unknown. The caller's stack pointer is
/// the CFA unless a rule says otherwise.
///
/// In a frame that stands at an [instruction pointer](FrameAddress::InstructionPointer), a rule
/// that names a slot of the stack below the stack pointer means that the register is live: LLVM's
/// epilogues pop it and do not say so. (GCC may save a register in the red zone instead of pushing
/// it; for such code this rule would be wrong. LLVM always pushes.) The return address is never
/// live, so for it such a slot is an error, as it is for any register in a frame that called.
///
/// Two shapes of GCC's tables are not taken at their word, but in signal frames. `pop rbp` at the
/// end of a function that aligns its stack leaves rules that are relative to RBP, which is the
/// caller's by then: if a frame stands at an instruction pointer, and the slot of one such rule is
/// not below the CFA, all of them mean live registers. And functions that call
/// `__builtin_eh_return` have slots for RAX and RDX, which are for the exception's landing and do
/// not hold what the caller had: those two stay unknown.
///
/// The tables do not know of inline assembly that pushes, so the return address of a frame that
/// stands at an instruction pointer may be another word. If the source
/// [has the code](super::UnwindTables::with_code), there must be a call before that address, or it
/// must be in a signal frame, which handlers return to without having been called from there.
///
/// The CFA has to be a multiple of 8, not of 16: the kernels that compile with an 8-byte stack
/// alignment are as right as those that do not.
///
/// # Errors
/// Any [`WalkError`] but [`WalkError::TooDeep`]. No part of a step that failed is to be trusted.
pub fn step(
    frame: &FrameState,
    memory: &(impl StackMemory + ?Sized),
    source: &mut impl RuleSource,
) -> Result<Step, WalkError> {
    if let Some((function, call)) = find_call(frame, memory, source) {
        let mut caller = *frame;
        call.undo(&mut caller, memory);
        return Ok(Step { function, signal_frame: false, cfa: call.cfa, caller: Some(caller) });
    }
    step_by_any_rules(frame, memory, source)
}

/// A call as nearly all are, between two frames of compiled code.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call {
    cfa: u64,
    return_address: u64,
    /// Where the function that was called has saved registers, and which of the usual frames that
    /// makes.
    frame: FrameShape,
    usual: u8,
}

impl Call {
    /// One past the highest byte of the frame that it made.
    #[inline]
    pub(super) const fn cfa(&self) -> u64 {
        self.cfa
    }

    /// Where it returns to.
    #[inline]
    pub(super) const fn return_address(&self) -> u64 {
        self.return_address
    }

    /// Makes `frame`, the one that was called, the one that called.
    // Always, as the compiler thinks it too long, and then a walk takes half as long again: what is
    // handed over in memory is what the next step waits for.
    #[inline(always)]
    pub(super) fn undo(&self, frame: &mut FrameState, memory: &(impl StackMemory + ?Sized)) {
        // It can be read, as was seen when the call was found.
        let read = |words| memory.read_u64_below(self.cfa, words);
        match_usual!(self.usual, self.frame.slots(), |slots| {
            frame.registers.set_preserved(self.cfa, slots, read);
        });
        frame.address = FrameAddress::ReturnAddress(self.return_address);
    }

    /// The call that made the frame which made this one: `caller`, after [`undo`](Self::undo).
    #[inline]
    pub(super) fn find_next(
        &self,
        caller: &FrameState,
        memory: &(impl StackMemory + ?Sized),
        source: &mut impl RuleSource,
    ) -> Option<(u64, Self)> {
        let address = FrameAddress::ReturnAddress(self.return_address).lookup_address();
        let rbp = caller.registers.preserved()?.rbp();
        // The stack pointer is above that of the frame that was called, so it is in the stack, too.
        find_call_at(address, self.cfa, rbp, memory, source)
    }
}

/// The call that made `frame`, and the function that was called, if that is simple: see
/// [`find_call_at`].
pub(super) fn find_call(
    frame: &FrameState,
    memory: &(impl StackMemory + ?Sized),
    source: &mut impl RuleSource,
) -> Option<(u64, Call)> {
    let live = frame.registers.preserved()?;
    if live.rsp() < memory.bounds().base() {
        return None;
    }
    let address = frame.address.lookup_address();
    let found = find_call_at(address, live.rsp(), live.rbp(), memory, source)?;
    let return_address = found.1.return_address;
    (frame.address.is_return_address() || source.may_follow_call(return_address)).then_some(found)
}

/// The call that made a frame with these registers, all registers that functions give back being
/// known, and the function that was called, if a compact rule tells of it, the CFA is relative to
/// RSP or RBP, all slots lie in the frame, and the return address in the text. RSP is not below the
/// stack.
///
/// This is the hot path of a walk, and the reason for each of its few comparisons. If anything is
/// otherwise, it is for [`step_by_any_rules`] to say what.
#[inline]
fn find_call_at(
    address: u64,
    rsp: u64,
    rbp: u64,
    memory: &(impl StackMemory + ?Sized),
    source: &mut impl RuleSource,
) -> Option<(u64, Call)> {
    let rule = source.compact_rule_at(address)?;
    // Which register it is, is guessed by the processor's branch predictor rather than waited for.
    let place = if let Some(distance) = rule.distance_above_rsp() {
        rsp.checked_add(distance)?
    } else if let Some(depth) = rule.depth_below_rbp_frame() {
        let cfa = rbp.wrapping_add(RBP_FRAME);
        if cfa.checked_sub(depth)? < rsp {
            return None;
        }
        cfa.wrapping_sub(8)
    } else {
        return None;
    };
    // Every slot lies at or above RSP and below the CFA. So if the highest is an aligned word of
    // the stack, they all are.
    let return_address = memory.read_u64(place).ok()?;
    let cfa = place.wrapping_add(8);
    let function = rule.function();
    let call = Call { cfa, return_address, frame: rule.frame(), usual: rule.usual() };
    source
        .text_contains(FrameAddress::ReturnAddress(return_address).lookup_address())
        .then_some((function, call))
}

/// [`step`] for any frame and any rules.
#[cold]
#[inline(never)]
pub(super) fn step_by_any_rules(
    frame: &FrameState,
    memory: &(impl StackMemory + ?Sized),
    source: &mut impl RuleSource,
) -> Result<Step, WalkError> {
    let address = frame.address.lookup_address();
    let compact = match source.compact_rule_at(address) {
        Some(rule) if rule.is_entry() => {
            let (function, cfa) = (rule.function(), memory.bounds().top());
            return Ok(Step { function, signal_frame: false, cfa, caller: None });
        }
        rule => rule.map(FrameRules::from),
    };
    let rules = match compact {
        Some(rules) => rules,
        None => source.rules_at(address)?,
    };
    let step = step_by(&rules, frame, memory)?;
    let Some(caller) = step.caller else { return Ok(step) };
    if !source.text_contains(caller.address.lookup_address()) {
        return Err(WalkError::ReturnAddressNotInText(caller.address.address()));
    }
    if !frame.address.is_return_address()
        && let FrameAddress::ReturnAddress(target) = caller.address
        && !source.may_follow_call(target)
        && !source.rules_at(caller.address.lookup_address()).is_ok_and(|rules| rules.signal_frame)
    {
        return Err(WalkError::NotAfterCall(target));
    }
    Ok(step)
}

/// [`step`] by these rules, wherever the return address may lie.
fn step_by(
    rules: &FrameRules<'_>,
    frame: &FrameState,
    memory: &(impl StackMemory + ?Sized),
) -> Result<Step, WalkError> {
    let (function, signal_frame) = (rules.function, rules.signal_frame);
    if let RegisterRule::Undefined = rules.return_address {
        return Ok(Step { function, signal_frame, cfa: memory.bounds().top(), caller: None });
    }

    let sp = known(frame, Gpr::Rsp)?;
    let view = View { frame, memory, sp };
    let cfa = view.cfa(&rules.cfa)?;
    view.check_cfa(cfa)?;

    let base_restored = !signal_frame && view.base_is_restored(rules, cfa)?;
    let mut registers = UnwindRegisters::UNKNOWN;
    for gpr in Gpr::ALL {
        let value = match rules.registers[gpr as usize] {
            RegisterRule::Unspecified if matches!(gpr, Gpr::Rsp) => Some(cfa),
            RegisterRule::Offset(_) if !signal_frame && matches!(gpr, Gpr::Rax | Gpr::Rdx) => None,
            RegisterRule::Expression(_) if base_restored => frame.registers.get(gpr),
            RegisterRule::Unspecified if signal_frame || is_callee_saved(gpr) => {
                frame.registers.get(gpr)
            }
            RegisterRule::Unspecified | RegisterRule::Undefined => None,
            rule => view.recover(rule, cfa, Some(gpr))?,
        };
        registers.set(gpr, value);
    }
    let caller_sp = registers.get(Gpr::Rsp).ok_or(WalkError::UndefinedRegister(Gpr::Rsp))?;
    view.check_stack_pointer(caller_sp)?;
    if caller_sp < cfa {
        return Err(WalkError::DidNotAdvance(caller_sp));
    }

    let target = match rules.return_address {
        RegisterRule::Register(gpr) => known(frame, gpr)?,
        rule => view.recover(rule, cfa, None)?.ok_or(view.bad_cfi())?,
    };
    let address = if signal_frame {
        FrameAddress::InstructionPointer(target)
    } else {
        FrameAddress::ReturnAddress(target)
    };
    Ok(Step { function, signal_frame, cfa, caller: Some(FrameState { address, registers }) })
}

/// The caller of a frame that stands where there is no function, because a call went nowhere.
///
/// The call pushed its return address and not one instruction ran since, so the address is the
/// word at the stack pointer. If instead a jump or a corrupted return led here, that word is
/// anything; then it is most likely not an address in the text, or no call comes before it.
///
/// # Errors
/// If there is no such word, or it is no return address.
pub(super) fn step_from_nowhere(
    frame: &FrameState,
    memory: &(impl StackMemory + ?Sized),
    source: &impl RuleSource,
) -> Result<(u64, FrameState), WalkError> {
    let sp = known(frame, Gpr::Rsp)?;
    let target = memory.read_u64(sp)?;
    let address = FrameAddress::ReturnAddress(target);
    if !source.text_contains(address.lookup_address()) {
        return Err(WalkError::ReturnAddressNotInText(target));
    }
    if !source.may_follow_call(target) {
        return Err(WalkError::NotAfterCall(target));
    }
    // The word was in the stack, so its end is at most the top: no overflow.
    let cfa = sp + 8;
    let mut registers = UnwindRegisters::UNKNOWN;
    for gpr in Gpr::ALL.into_iter().filter(|gpr| is_callee_saved(*gpr)) {
        registers.set(gpr, frame.registers.get(gpr));
    }
    registers.set(Gpr::Rsp, Some(cfa));
    Ok((cfa, FrameState { address, registers }))
}

/// A frame and the memory in which to evaluate its rules.
struct View<'v, M: ?Sized> {
    frame: &'v FrameState,
    memory: &'v M,
    sp: u64,
}

impl<M: StackMemory + ?Sized> View<'_, M> {
    fn cfa(&self, rule: &CfaRule<'_>) -> Result<u64, WalkError> {
        match rule {
            CfaRule::RegisterAndOffset(gpr, offset) => {
                Ok(known(self.frame, *gpr)?.wrapping_add_signed(*offset))
            }
            CfaRule::Expression(code) => self.evaluate(code, None),
        }
    }

    /// Whether an epilogue has restored the register that rules are relative to: then a slot comes
    /// to lie where no function saves anything, in its caller's frame or beyond. A frame that
    /// called is in no epilogue.
    fn base_is_restored(&self, rules: &FrameRules<'_>, cfa: u64) -> Result<bool, WalkError> {
        if let FrameAddress::ReturnAddress(_) = self.frame.address {
            return Ok(false);
        }
        for rule in &rules.registers {
            if let RegisterRule::Expression(code) = rule
                && self.evaluate(code, Some(cfa))? >= cfa
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The value that `rule` gives to `gpr`, or to the return address if that is `None`.
    fn recover(
        &self,
        rule: RegisterRule<'_>,
        cfa: u64,
        gpr: Option<Gpr>,
    ) -> Result<Option<u64>, WalkError> {
        let live = gpr.and_then(|gpr| self.frame.registers.get(gpr));
        Ok(match rule {
            RegisterRule::Unspecified | RegisterRule::Undefined => None,
            RegisterRule::SameValue => live,
            RegisterRule::Register(other) => self.frame.registers.get(other),
            RegisterRule::ValOffset(offset) => Some(cfa.wrapping_add_signed(offset)),
            RegisterRule::ValExpression(code) => Some(self.evaluate(&code, Some(cfa))?),
            RegisterRule::Offset(offset) => {
                self.read_slot(cfa.wrapping_add_signed(offset), gpr.is_some(), live)?
            }
            RegisterRule::Expression(code) => {
                self.read_slot(self.evaluate(&code, Some(cfa))?, gpr.is_some(), live)?
            }
        })
    }

    /// The word at `slot`, or the live value where an epilogue has popped the slot.
    fn read_slot(
        &self,
        slot: u64,
        may_be_live: bool,
        live: Option<u64>,
    ) -> Result<Option<u64>, WalkError> {
        // Below the whole stack there is no frame: a trap's stub, which runs on a stack of its own,
        // keeps registers in a task's record.
        if slot >= self.sp || slot < self.memory.bounds().base() {
            return Ok(Some(self.memory.read_u64(slot)?));
        }
        match self.frame.address {
            FrameAddress::InstructionPointer(_) if may_be_live => Ok(live),
            _ => Err(WalkError::BelowStackPointer(slot)),
        }
    }

    fn evaluate(&self, code: &Expression<'_>, initial: Option<u64>) -> Result<u64, WalkError> {
        code.evaluate(initial, self.frame, self.memory).map_err(|error| match error {
            ExpressionError::Invalid => self.bad_cfi(),
            ExpressionError::Walk(error) => error,
        })
    }

    /// Whether the frame can end at `cfa`.
    fn check_cfa(&self, cfa: u64) -> Result<(), WalkError> {
        self.check_stack_pointer(cfa)?;
        if cfa <= self.sp {
            return Err(WalkError::DidNotAdvance(cfa));
        }
        Ok(())
    }

    /// Whether a caller's stack pointer can be `sp`. It can be the top: then its frame is empty.
    fn check_stack_pointer(&self, sp: u64) -> Result<(), WalkError> {
        let stack = self.memory.bounds();
        if sp <= stack.base() || sp > stack.top() {
            return Err(WalkError::OutOfStack(sp));
        }
        if !sp.is_multiple_of(8) {
            return Err(WalkError::Misaligned(sp));
        }
        Ok(())
    }

    fn bad_cfi(&self) -> WalkError {
        WalkError::BadCfi(self.frame.address.lookup_address())
    }
}

fn known(frame: &FrameState, gpr: Gpr) -> Result<u64, WalkError> {
    frame.registers.get(gpr).ok_or(WalkError::UndefinedRegister(gpr))
}
