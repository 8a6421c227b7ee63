//! What a failure means to the others, and to the child itself.

use task_model::FaultKind;

/// Which children of a supervisor begin again if one of them fails. The names are OTP's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Strategy {
    /// That one: the children do not need each other.
    OneForOne,
    /// All of them: none can go on without the others.
    OneForAll,
    /// That one, and those that were added after it: each needs those before it.
    RestForOne,
}

/// When a child is restarted. The names are OTP's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChildKind {
    /// Always, also when its entry has returned: a server, which has no reason to end.
    Permanent,
    /// If it fails. It may finish; then it is no child any more.
    Transient,
    /// Never. Its failure means nothing to the others; but if all of them begin again, it ends.
    Temporary,
}

impl ChildKind {
    /// Whether it is restarted if it ends by itself, like this.
    pub(super) const fn is_restarted_after(self, end: FaultKind) -> bool {
        match self {
            Self::Permanent => true,
            Self::Transient => !matches!(end, FaultKind::Exited),
            Self::Temporary => false,
        }
    }

    pub(super) const fn from_u8(raw: u8) -> Self {
        match raw {
            0 => Self::Permanent,
            1 => Self::Transient,
            _ => Self::Temporary,
        }
    }
}
