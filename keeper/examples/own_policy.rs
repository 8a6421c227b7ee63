//! A policy of one's own, and its test on the host, to be copied.
//!
//! `cargo test -p keeper --example own_policy` runs the tests, `cargo run` shows two deaths.
#![expect(unsafe_code, reason = "a task that faults")]

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use drop_registry::{LockError, Mutex};
use keeper::hosted::{Current, Kernel};
use keeper::{Case, Policy, Verdict};

/// Restarts a task, but keeps the corpse of one that dies at the same instruction again: trying
/// once more would not help, and somebody should look at it.
///
/// For one task: it remembers where that died last.
struct OnceAtEachInstruction {
    last: AtomicU64,
}

impl OnceAtEachInstruction {
    const fn new() -> Self {
        Self { last: AtomicU64::new(0) }
    }
}

impl Policy for OnceAtEachInstruction {
    fn rule(&self, case: &mut Case<'_>) -> Verdict {
        let here = case.fault().instruction_pointer;
        // Relaxed: policies run in the keeper's task alone.
        if self.last.swap(here, Ordering::Relaxed) == here {
            Verdict::Hold
        } else {
            Verdict::Restart
        }
    }
}

impl fmt::Debug for OnceAtEachInstruction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnceAtEachInstruction")
    }
}

/// What the task works on: a record of two parts that belong together.
static RECORD: Mutex<[u64; 2], Current> = Mutex::new([1, 1]);

/// A task that never manages to write the second part.
fn update() {
    let mut record = match RECORD.lock() {
        Ok(record) => record,
        Err(LockError::OwnerDied(died)) => died.replace([1, 1]),
        Err(error) => panic!("{error}"),
    };
    record[0] += 1;
    // SAFETY: it is not. Nothing is mapped there, and the task dies.
    unsafe { std::ptr::without_provenance_mut::<u64>(8).write_volatile(record[0]) };
    record[1] += 1;
}

/// A kernel for this thread.
fn kernel() -> Kernel {
    // SAFETY: the tasks here allocate nothing, keep nothing in thread-locals, and their lock is
    // static.
    unsafe { Kernel::new() }
}

fn main() {
    static POLICY: OnceAtEachInstruction = OnceAtEachInstruction::new();
    let kernel = kernel();
    kernel.spawn_with_policy(&POLICY, update);
    for report in kernel.run() {
        println!("{report}\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use task_model::{FaultKind, TaskState};

    #[test]
    fn a_task_that_dies_twice_at_the_same_instruction_is_held() {
        static POLICY: OnceAtEachInstruction = OnceAtEachInstruction::new();
        let kernel = kernel();
        let task = kernel.spawn_with_policy(&POLICY, update);
        let reports = kernel.run();

        let verdicts: Vec<_> = reports.iter().map(|report| report.verdict).collect();
        assert_eq!(verdicts, [Some(Verdict::Restart), Some(Verdict::Hold)]);
        assert_eq!(kernel.state(task.next_generation()), TaskState::Held);

        // The lock is free, and whoever takes it is told.
        assert!(!RECORD.is_locked());
        kernel.spawn(|| match RECORD.lock() {
            Err(LockError::OwnerDied(died)) => assert_eq!(*died.replace([1, 1]), [1, 1]),
            _ => panic!("not told"),
        });
        assert!(kernel.run().is_empty(), "nobody died of that");
    }

    #[test]
    fn a_task_that_is_killed_at_different_instructions_is_restarted_each_time() {
        static POLICY: OnceAtEachInstruction = OnceAtEachInstruction::new();
        let kernel = kernel();
        let mut task = kernel.spawn_with_policy(&POLICY, || {
            loop {
                std::hint::spin_loop();
            }
        });
        for instructions in [50, 51, 52] {
            kernel.step(task, instructions);
            kernel.kill(task);
            let report = kernel.serve().pop().expect("one death");
            assert_eq!(report.fault.kind, FaultKind::Killed);
            assert_eq!(report.verdict, Some(Verdict::Restart));
            task = report.restarted_as.expect("restarted");
        }
    }
}
