//! Why a child could not be added, or removed.

use core::fmt;

use task_model::TaskId;

/// Why a child could not be added, or removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SuperviseError {
    /// There are [as many children](super::Supervisor::MAX_CHILDREN) as there is room for.
    Full,
    /// This life of the task is a child already.
    AlreadySupervised(TaskId),
    /// The id is that of an earlier life of a task that is a child already.
    Stale {
        /// The id.
        task: TaskId,
        /// The life that is a child.
        current: TaskId,
    },
    /// The supervisor has a parent already.
    HasParent,
    /// The supervisor is the one that it was to be added to, or above that.
    Cycle,
    /// There would be more than [`MAX_DEPTH`](super::Supervisor::MAX_DEPTH) supervisors above
    /// each other.
    TooDeep,
    /// The task is no child.
    NotSupervised(TaskId),
}

impl fmt::Display for SuperviseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => write!(f, "there is no room for another child"),
            Self::AlreadySupervised(task) => write!(f, "task {task} is a child already"),
            Self::Stale { task, current } => write!(f, "task {task} lives as {current} by now"),
            Self::HasParent => write!(f, "the supervisor has a parent already"),
            Self::Cycle => write!(f, "the supervisor would be below itself"),
            Self::TooDeep => write!(f, "there would be too many supervisors above each other"),
            Self::NotSupervised(task) => write!(f, "task {task} is no child"),
        }
    }
}

impl core::error::Error for SuperviseError {}
