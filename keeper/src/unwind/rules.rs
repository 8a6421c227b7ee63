//! What unwind tables say about one instruction, whatever form the tables have.

use task_model::Gpr;

use super::{CompactRule, Expression, WalkError};

/// A source of unwind rules: the tables of one image or of several, in some form.
pub trait RuleSource {
    /// The same rules as [`rules_at`](Self::rules_at) gives, in compact form, if the tables have
    /// them so.
    fn compact_rule_at(&mut self, address: u64) -> Option<CompactRule<'_>> {
        let _ = address;
        None
    }

    /// The rules at `address`, which is a [lookup address](super::FrameAddress::lookup_address).
    ///
    /// Takes `&mut self` for the sake of decoders that work in storage of their own.
    ///
    /// # Errors
    /// [`WalkError::NoFde`] if no function contains `address`, [`WalkError::BadCfi`] if the entry
    /// of the one that does is of no use.
    fn rules_at(&mut self, address: u64) -> Result<FrameRules<'_>, WalkError>;

    /// Whether `address` lies in the text of the image, or of one of them.
    fn text_contains(&self, address: u64) -> bool;

    /// Whether a call may come right before `return_address`: always, if the code is not known.
    fn may_follow_call(&self, return_address: u64) -> bool {
        let _ = return_address;
        true
    }
}

/// How to get from a frame to its caller: one row of the tables (DWARF 5, section 6.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameRules<'a> {
    /// The address at which the function's entry in the tables begins.
    pub function: u64,
    /// Whether the frame is a trap's or a signal's (augmentation `S`): its caller was interrupted
    /// and did not call.
    pub signal_frame: bool,
    /// The canonical frame address.
    pub cfa: CfaRule<'a>,
    /// The return address. [`RegisterRule::Undefined`]: there is no caller.
    pub return_address: RegisterRule<'a>,
    /// The general-purpose registers in encoding order.
    pub registers: [RegisterRule<'a>; 16],
}

/// How to compute a frame's canonical frame address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CfaRule<'a> {
    /// `register + offset`
    RegisterAndOffset(Gpr, i64),
    /// `value of the expression`
    Expression(Expression<'a>),
}

/// How to find what a register held in the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RegisterRule<'a> {
    /// The tables do not mention it: the ABI decides.
    Unspecified,
    /// It cannot be found.
    Undefined,
    /// `register`
    SameValue,
    /// `*(cfa + offset)`
    Offset(i64),
    /// `cfa + offset`
    ValOffset(i64),
    /// `another register`
    Register(Gpr),
    /// `*(value of the expression, which starts with cfa on its stack)`
    Expression(Expression<'a>),
    /// `value of the expression, which starts with cfa on its stack`
    ValExpression(Expression<'a>),
}
