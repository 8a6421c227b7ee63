//! The right to rule on one case, once.

use alloc::sync::Arc;
use core::fmt;

use crate::Verdict;
use crate::docket::Docket;

/// The right to rule on one stopped task, once: what [`Case::defer`](crate::Case::defer) gives out,
/// and [`Keepers::answer`](crate::Keepers::answer) takes.
///
/// KeyKOS calls this the resume key. It can be sent to another task. Whoever drops it has declined:
/// that is [`Verdict::TryNext`].
#[must_use = "dropping it gives the case to the next keeper up"]
pub struct Token {
    docket: Arc<Docket>,
    slot: usize,
    generation: u32,
}

/// The token came too late: somebody else has ruled, or is to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLate;

impl fmt::Display for TooLate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the verdict came too late")
    }
}

impl core::error::Error for TooLate {}

impl Token {
    pub(crate) fn new(docket: Arc<Docket>, (slot, generation): (usize, u32)) -> Self {
        Self { docket, slot, generation }
    }

    /// Whether it is of a case in this docket.
    pub(crate) fn is_of(&self, docket: &Arc<Docket>) -> bool {
        Arc::ptr_eq(&self.docket, docket)
    }

    /// Rules, and returns whom to wake. Dropping the token afterwards changes nothing.
    pub(crate) fn answer(self, verdict: Verdict) -> Result<crate::KeeperId, TooLate> {
        self.docket.answer(self.slot, self.generation, verdict).ok_or(TooLate)
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        // Its keeper finds the case with the next notice, or at the next tick.
        self.docket.answer(self.slot, self.generation, Verdict::TryNext);
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("slot", &self.slot).finish_non_exhaustive()
    }
}
