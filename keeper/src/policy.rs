//! What is to become of a task that died.

use core::fmt;

use crate::Report;

/// A ruling on a dead task. Whatever it is, what the task held has been settled before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Verdict {
    /// The task ends.
    Exit,
    /// The task begins again from its entry, under the next generation of its id.
    Restart,
    /// The task is kept as a corpse, with its stack and its memory, until it is released.
    Hold,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Exit => "exit",
            Self::Restart => "restart",
            Self::Hold => "hold",
        })
    }
}

/// Rules on the tasks that are registered with it.
///
/// A policy runs in the keeper's task. It sees the report as far as it has been written: the
/// fault, the frames, and what became of each resource.
pub trait Policy: fmt::Debug + Sync {
    /// Decides about the task that `report` is about, which has been restarted `restarts` times.
    fn rule(&self, report: &Report, restarts: u32) -> Verdict;
}

/// Ends the task.
#[derive(Debug, Clone, Copy, Default)]
pub struct Exit;

impl Policy for Exit {
    fn rule(&self, _: &Report, _: u32) -> Verdict {
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
    fn rule(&self, _: &Report, restarts: u32) -> Verdict {
        if restarts < self.at_most { Verdict::Restart } else { Verdict::Exit }
    }
}

/// Keeps the corpse.
#[derive(Debug, Clone, Copy, Default)]
pub struct Hold;

impl Policy for Hold {
    fn rule(&self, _: &Report, _: u32) -> Verdict {
        Verdict::Hold
    }
}
