//! What is posted, and why it could not be.

use core::fmt;

use task_model::TaskId;

/// Why a task comes before its keeper.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// It has stopped at a [fault](super::Inbox::fault), and is frozen.
    Fault,
    /// Somebody wants it to end. It may be running still.
    Kill,
    /// It was held, and its corpse is no longer needed.
    Release,
}

/// One message to a keeper.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Notice {
    pub(crate) task: TaskId,
    pub(crate) cause: Cause,
    /// When it was posted, in the platform's ticks.
    pub(crate) at: u64,
}

/// Why a notice was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PostError {
    /// The task's number is beyond what there was to be room for.
    NoSuchTask(TaskId),
    /// A fault of this task was posted before, and its keeper has not come to it: the first record
    /// stays.
    AlreadyPosted(TaskId),
    /// The task serves the root keeper, which nobody keeps: the kernel cannot go on.
    NobodyKeeps(TaskId),
}

impl fmt::Display for PostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchTask(task) => write!(f, "there is no room for a task with the id {task}"),
            Self::AlreadyPosted(task) => write!(f, "a fault of task {task} waits for its keeper"),
            Self::NobodyKeeps(task) => write!(f, "nobody keeps the root keeper's task, {task}"),
        }
    }
}

impl core::error::Error for PostError {}
