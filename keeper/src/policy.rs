//! Who rules, and the ready-made rulings.

use core::fmt;

use task_model::FaultKind;

use crate::{Case, Orders, Report, Verdict};

/// Rules on the tasks that are registered with it.
///
/// A policy runs in the task of the keeper that asks. It may be asked of several tasks, one after
/// another, and by several keepers at a time. What it remembers is its own: atomics, or a
/// [`RollbackMutex`](drop_registry::RollbackMutex), which is whole even if the keeper dies in the
/// middle of the ruling.
pub trait Policy: fmt::Debug + Sync {
    /// Decides about a stopped task.
    fn rule(&self, case: &mut Case<'_>) -> Verdict;

    /// Whether a task comes before its keeper at its end, too, if its entry returns and it holds
    /// nothing: as [`FaultKind::Exited`]. The platform asks.
    fn rules_on_exits(&self) -> bool {
        false
    }

    /// Told to the policy that a task names, when a life of that is over, by whomever it was ruled
    /// on: it has been retired, or it has begun again [as](Report::restarted_as) another.
    ///
    /// If the keeper dies over this, it is told once more, by the next one up.
    fn ended(&self, _report: &Report, _orders: &Orders<'_>) {}
}

/// Ends the task.
#[derive(Debug, Clone, Copy, Default)]
pub struct Exit;

impl Policy for Exit {
    fn rule(&self, _: &mut Case<'_>) -> Verdict {
        Verdict::Exit
    }
}

/// Restarts the task, but not for ever.
#[derive(Debug, Clone, Copy)]
pub struct Restart {
    /// How often; at the next death it ends.
    pub at_most: u32,
}

impl Policy for Restart {
    fn rule(&self, case: &mut Case<'_>) -> Verdict {
        if case.restarts() < self.at_most { Verdict::Restart } else { Verdict::Exit }
    }
}

/// Has the task go on behind its innermost [`catch_fault`](drop_registry::catch_fault), unless it
/// was killed: then it ends. If it is in none, the keeper above rules.
#[derive(Debug, Clone, Copy, Default)]
pub struct Recover;

impl Policy for Recover {
    fn rule(&self, case: &mut Case<'_>) -> Verdict {
        if case.fault().kind == FaultKind::Killed { Verdict::Exit } else { Verdict::Recover }
    }
}

/// Keeps the corpse.
#[derive(Debug, Clone, Copy, Default)]
pub struct Hold;

impl Policy for Hold {
    fn rule(&self, _: &mut Case<'_>) -> Verdict {
        Verdict::Hold
    }
}

/// Leaves the ruling to the keeper above.
#[derive(Debug, Clone, Copy, Default)]
pub struct TryNext;

impl Policy for TryNext {
    fn rule(&self, _: &mut Case<'_>) -> Verdict {
        Verdict::TryNext
    }
}

/// Ends the kernel.
#[derive(Debug, Clone, Copy, Default)]
pub struct Panic;

impl Policy for Panic {
    fn rule(&self, _: &mut Case<'_>) -> Verdict {
        Verdict::Panic
    }
}
