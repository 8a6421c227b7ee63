//! All boundaries of one operation.

use std::fmt;

use anyhow::{Result, bail};
use drop_registry::hosted::{Machine, Stop};
use drop_registry::{Outcome, Settled};
use task_model::TaskId;

use crate::fork::{Children, Tally};
use crate::operation::{Audit, Findings, Mark, Operation, World, take_mark};

/// What came of killing at every boundary.
#[derive(Debug, Default)]
pub(crate) struct Sweep {
    /// How many instructions the operation executes, counted in a run without kills.
    pub(crate) executed: u64,
    /// Before how many of them it was killed, settled and audited.
    pub(crate) killed: u64,
    /// At how many of them a destructor was on its way, and its memory is in quarantine.
    pub(crate) quarantined: u64,
    /// The boundaries at which something was found.
    pub(crate) failures: Vec<(String, Findings)>,
}

impl Sweep {
    pub(crate) fn note(&mut self, boundary: impl fmt::Display, findings: Findings) {
        self.killed += 1;
        self.quarantined += u64::from(findings.contains(Findings::QUARANTINED));
        if !findings.is_clean() {
            self.failures.push((boundary.to_string(), findings));
        }
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.executed += other.executed;
        self.killed += other.killed;
        self.quarantined += other.quarantined;
        self.failures.extend(other.failures);
    }

    pub(crate) fn holds(&self) -> bool {
        self.killed == self.executed && self.killed > 0 && self.failures.is_empty()
    }

    fn count(&self, finding: Findings) -> usize {
        self.failures.iter().filter(|(_, findings)| findings.contains(finding)).count()
    }
}

impl fmt::Display for Sweep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "executed={} killed={} leaked={} doubled={} stolen={} stuck={} untold={} torn={} \
             crashed={} quarantined={}",
            self.executed,
            self.killed,
            self.count(Findings::LEAKED),
            self.count(Findings::DOUBLED),
            self.count(Findings::STOLEN),
            self.count(Findings::STUCK),
            self.count(Findings::UNTOLD),
            self.count(Findings::TORN),
            self.count(Findings::CRASHED),
            self.quarantined,
        )
    }
}

/// An operation on its way: its world, and the machine that runs it.
pub(crate) struct Run {
    pub(crate) world: Box<dyn World>,
    pub(crate) machine: Machine,
    pub(crate) victim: TaskId,
    pub(crate) bystanders: Vec<TaskId>,
}

impl Run {
    /// Brings everybody to the beginning of the operation.
    pub(crate) fn start(operation: &Operation) -> Result<Self> {
        let world = (operation.world)();
        let mut machine = Machine::new();
        let victim = machine.spawn_boxed(world.victim());
        let bystanders: Vec<_> =
            world.bystanders().into_iter().map(|entry| machine.spawn_boxed(entry)).collect();
        let mut run = Self { world, machine, victim, bystanders };
        run.bystanders_take_turns()?;
        loop {
            match (run.machine.run(run.victim, None), take_mark()) {
                (Stop::Yielded, Mark::Begin) => return Ok(run),
                (Stop::Yielded, Mark::None) => run.bystanders_take_turns()?,
                (stop, _) => bail!("{}: {stop:?} before it begins", operation.name),
            }
        }
    }

    /// Executes one instruction of the victim. Returns whether the operation goes on.
    pub(crate) fn step(&mut self) -> Result<bool> {
        match self.machine.run(self.victim, Some(1)) {
            Stop::BudgetSpent => Ok(true),
            Stop::Yielded => match take_mark() {
                Mark::End => Ok(false),
                _ => {
                    self.bystanders_take_turns()?;
                    Ok(true)
                }
            },
            stop => bail!("{stop:?} in the middle of an operation"),
        }
    }

    /// Gives each bystander a turn.
    pub(crate) fn bystanders_take_turns(&mut self) -> Result<()> {
        for task in &self.bystanders {
            if self.machine.is_alive(*task) {
                match self.machine.run(*task, None) {
                    Stop::Yielded | Stop::Finished => {}
                    stop => bail!("{stop:?} of a bystander"),
                }
            }
        }
        Ok(())
    }

    /// Kills the victim where it stands, and lets the others go on for a moment.
    pub(crate) fn die(&mut self) -> Result<()> {
        self.world.at_death();
        if self.world.bystanders_run_before_settlement() {
            self.bystanders_take_turns()?;
        }
        Ok(())
    }

    /// Looks at what is left after the settlement.
    pub(crate) fn audit(&mut self, settled: &[Settled]) -> Findings {
        let quarantined = settled.iter().any(|one| one.outcome == Outcome::Quarantined);
        let mut audit = Audit::new(&mut self.machine, &self.bystanders, quarantined);
        self.world.audit(&mut audit);
        audit.findings()
    }
}

/// How many instructions the operation executes if nobody is killed. In a child, so that the
/// sweep finds the world as this did.
fn count(operation: &Operation) -> Result<u64> {
    let tally = Tally::new()?;
    let mut children = Children::new(1);
    children.spawn((), || {
        let run_to_the_end = || -> Result<()> {
            let mut run = Run::start(operation)?;
            tally.executed();
            while run.step()? {
                tally.executed();
            }
            Ok(())
        };
        if run_to_the_end().is_ok() { Findings::default() } else { Findings::CRASHED }
    })?;
    match children.wait()? {
        Some(((), findings)) if findings.is_clean() => Ok(tally.read().0),
        _ => bail!("{}: it does not come to its end even if nobody is killed", operation.name),
    }
}

/// Kills, settles and audits before every instruction.
pub(crate) fn sweep(operation: &Operation, jobs: usize) -> Result<Sweep> {
    let mut sweep = Sweep { executed: count(operation)?, ..Sweep::default() };
    let mut run = Run::start(operation)?;
    let mut children = Children::new(jobs);
    let mut k = 0u64;
    loop {
        let done = children.spawn(k, || {
            if run.die().is_err() {
                return Findings::CRASHED;
            }
            let settled = run.machine.kill(run.victim);
            run.audit(&settled)
        })?;
        if let Some((boundary, findings)) = done {
            sweep.note(boundary, findings);
        }
        if !run.step()? {
            break;
        }
        k += 1;
    }
    while let Some((boundary, findings)) = children.wait()? {
        sweep.note(boundary, findings);
    }
    Ok(sweep)
}
