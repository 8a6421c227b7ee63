//! Steps through the kernel from outside, by QEMU's debugger port, and judges the walker before
//! the instructions that it comes to: of tasks, of the trap stubs and their handlers, of the
//! scheduler and the keeper alike.
//!
//! Each stack has a shadow of its own. A trap begins a new one on its trap stack, with the
//! interrupted registers as its outermost entry; behind that the interrupted stack's shadow goes
//! on. When a stub returns, it may be to another task: from the instruction on at which the
//! dispatcher's answer is where the tables look for it, whoever goes on is who was interrupted,
//! and the truth about that is checked once the stub has returned.
//!
//! Most of what a kernel executes it has executed before. So each instruction is judged only the
//! first times that it is come to. What repeats itself most is not even stepped through: a long
//! `rep` is run to its end, and a call of a function that has been called often is run to its
//! return, with interrupts off, so that nothing else runs meanwhile.

mod layout;
mod memory;
mod plant;
#[path = "../../../src/stack_layout.rs"]
mod stack_layout;
mod stepper;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, ensure};
use validator::Tally;

use crate::cli::ValidateArgs;
use crate::gdb::Gdb;
use crate::qemu::{BootError, Machine};
use layout::Layout;
use stepper::Stepper;

/// What is stepped through if nothing is named.
pub(crate) const SCENARIOS: [&str; 5] = [
    "page-fault-holding-lock",
    "invalid-opcode-nested-locks",
    "stack-overflow",
    "killed-in-empty-loop",
    "refcount-held",
];

/// How often an instruction is judged: with other callers, and at other depths.
const JUDGED: u32 = 10;

/// One scenario, stepped through.
#[derive(Debug)]
pub(crate) struct Stepped {
    /// What came of the comparisons.
    pub(crate) tally: Tally,
    /// How many instructions were stepped over, judged or not.
    steps: u64,
    /// The addresses of the instructions that were judged.
    pub(crate) instructions: HashSet<u64>,
    /// How many traps were taken.
    traps: u64,
    /// What of the way of a fault was judged, and what was not.
    landmarks: Vec<(&'static str, bool)>,
    /// Whether the kernel came to its end.
    to_the_end: bool,
}

impl Stepped {
    /// Whether the scenario's fault was judged, and all that it goes through.
    pub(crate) fn reached_the_fault(&self) -> bool {
        self.landmarks.iter().all(|(_, seen)| *seen)
    }

    /// Whether the walker was never wrong and had an answer, from before the scenario's fault to
    /// behind it.
    pub(crate) fn passed(&self) -> bool {
        self.tally.holds() && self.reached_the_fault()
    }
}

impl fmt::Display for Stepped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tally, steps, instructions, traps, landmarks, to_the_end } = self;
        write!(f, "{tally} instructions={} steps={steps} traps={traps}", instructions.len())?;
        for (name, seen) in landmarks {
            write!(f, ", {}{name}", if *seen { "" } else { "NO " })?;
        }
        f.write_str(if *to_the_end { ", to the end" } else { ", in part" })
    }
}

/// Steps through a scenario, from its first task on.
///
/// # Errors
/// If the machine cannot be stepped, or what is seen cannot be true.
pub(crate) fn validate(
    machine: &Machine,
    kernel: &Path,
    scenario: &str,
    args: &ValidateArgs,
    cancelled: &AtomicBool,
) -> anyhow::Result<Stepped> {
    let (layout, mut images) = Layout::read(kernel, args.plant.as_deref())?;
    let landmarks = layout.landmarks.clone();
    let directory = tempfile::tempdir().context("no place for a socket")?;
    let socket = directory.path().join("debugger");
    let mut guest = machine.start_stopped(scenario, &socket)?;
    let output = guest.output();
    let mut gdb = Gdb::connect(&socket)?;
    ensure!(gdb.run_to(layout.task_start)?, "the kernel ends before its first task");

    let mut stepper = Stepper::new(gdb, layout)?;
    let mut tally = Tally::default();
    let mut judged = HashMap::new();
    let mut taken = 0;
    let mut to_the_end = false;
    while taken < args.steps && !to_the_end {
        // Relaxed: the flag carries nothing but itself.
        if cancelled.load(Ordering::Relaxed) {
            return Err(BootError::Interrupted.into());
        }
        // Nobody reads it, but the guest must be able to write.
        while output.try_recv().is_ok() {}
        let times = judged.entry(stepper.address()).or_insert(0);
        if *times < JUDGED {
            *times += 1;
            let answers = stepper.judge(&mut images)?;
            tally.add(answers, |address| images.place(address));
        }
        to_the_end = !stepper.step()?;
        taken += 1;
    }
    tally.settle(|address| images.place(address));
    let seen = |(name, address)| (name, judged.contains_key(&address));
    Ok(Stepped {
        tally,
        steps: taken,
        traps: stepper.traps(),
        landmarks: landmarks.into_iter().map(seen).collect(),
        instructions: judged.into_keys().collect(),
        to_the_end,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stepped(wrong: u64, refused: u64, fault: bool) -> Stepped {
        let mut tally = Tally::default();
        (tally.frames, tally.wrong, tally.refused) = (100, wrong, refused);
        let landmarks = vec![("report", true), ("fault", fault)];
        Stepped {
            tally,
            steps: 9,
            instructions: HashSet::from([5]),
            traps: 1,
            landmarks,
            to_the_end: true,
        }
    }

    #[test]
    fn a_run_that_does_not_come_to_the_fault_fails() {
        assert!(stepped(0, 0, true).passed());
        assert!(!stepped(0, 0, false).passed());
        assert!(stepped(0, 0, false).to_string().contains("NO fault"));
    }

    #[test]
    fn a_wrong_answer_fails() {
        assert!(!stepped(1, 0, true).passed());
    }

    #[test]
    fn a_walker_that_refuses_fails() {
        assert!(stepped(0, 2, true).passed());
        assert!(!stepped(0, 3, true).passed());
    }
}
