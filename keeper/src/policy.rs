//! Who rules, and the ready-made rulings.

use core::fmt;

use crate::{Case, Verdict};

/// Rules on the tasks that are registered with it.
///
/// A policy runs in the task of the keeper that asks. It may be asked of several tasks, one after
/// another, and by several keepers at a time. What it remembers is its own: atomics, or a
/// [`RollbackMutex`](drop_registry::RollbackMutex), which is whole even if the keeper dies in the
/// middle of the ruling.
pub trait Policy: fmt::Debug + Sync {
    /// Decides about a stopped task.
    fn rule(&self, case: &mut Case<'_>) -> Verdict;
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
