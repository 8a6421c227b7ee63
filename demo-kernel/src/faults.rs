//! Where a task's fault is handed on.

use log::error;
use task_model::{FaultInfo, TaskId};

/// A task has stopped for good, unless someone rules otherwise: it is frozen, and its record has
/// `fault`. Called in the trap, so this must be bounded and must not allocate, lock or wait.
pub(crate) fn task_faulted(task: TaskId, fault: FaultInfo) {
    error!("task {task}: {fault}");
}
