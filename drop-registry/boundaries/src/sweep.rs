//! All boundaries of one operation.

use std::fmt;

use anyhow::{Result, bail};
use boundaries::fork::{Children, Tally};
use drop_registry::hosted::{Machine, Stop};
use drop_registry::{Outcome, Settled};
use task_model::TaskId;

use crate::bystanders::Bystanders;
use crate::machine::{machine, spawn};
use crate::operation::{Audit, Companion, Entrance, Findings, Mark, Operation, World, take_mark};
use crate::recovery::Around;

/// What befalls the victim before an instruction.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) enum Fate {
    /// It is killed, and settled.
    #[default]
    Killed,
    /// It has to wait until none of the others can go on, and goes on to its end then.
    Preempted,
    /// It is brought back to a recovery point around the operation, and goes on there.
    Recovered,
}

/// What came of that at every boundary.
#[derive(Debug)]
pub(crate) struct Sweep {
    /// What befell the victim.
    pub(crate) fate: Fate,
    /// Whether one finding is enough.
    first: bool,
    /// How many instructions the operation executes, counted in a run in which nothing befalls it.
    pub(crate) executed: u64,
    /// Before how many of them it was killed or preempted, and audited.
    pub(crate) befallen: u64,
    /// At how many of them a destructor was on its way, and its memory is in quarantine.
    pub(crate) quarantined: u64,
    /// The boundaries at which something was found.
    pub(crate) failures: Vec<(String, Findings)>,
}

impl Sweep {
    /// Nothing yet.
    pub(crate) const fn new(fate: Fate, first: bool) -> Self {
        Self { fate, first, executed: 0, befallen: 0, quarantined: 0, failures: Vec::new() }
    }

    /// Whether there is no need to go on.
    pub(crate) fn is_enough(&self) -> bool {
        self.first && !self.failures.is_empty()
    }

    /// Whether findings of which `findings` are all so far are enough.
    pub(crate) const fn is_enough_of(&self, findings: Findings) -> bool {
        self.first && !findings.is_clean()
    }

    pub(crate) fn note(&mut self, boundary: impl fmt::Display, findings: Findings) {
        self.befallen += 1;
        self.quarantined += u64::from(findings.contains(Findings::QUARANTINED));
        if !findings.is_clean() {
            self.failures.push((boundary.to_string(), findings));
        }
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.executed += other.executed;
        self.befallen += other.befallen;
        self.quarantined += other.quarantined;
        self.failures.extend(other.failures);
    }

    pub(crate) fn holds(&self) -> bool {
        self.befallen == self.executed && self.befallen > 0 && self.failures.is_empty()
    }

    fn count(&self, finding: Findings) -> usize {
        self.failures.iter().filter(|(_, findings)| findings.contains(finding)).count()
    }
}

impl fmt::Display for Sweep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "executed={} {}={} leaked={} doubled={} stolen={} stuck={} untold={} torn={} \
             crashed={} quarantined={}",
            self.executed,
            match self.fate {
                Fate::Killed => "killed",
                Fate::Preempted => "preempted",
                Fate::Recovered => "recovered",
            },
            self.befallen,
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
    pub(crate) bystanders: Bystanders,
    /// What was settled of whoever died with the victim.
    companions: Vec<Settled>,
    /// How many destructors had begun before the operation did.
    begun_before: u64,
    /// What is around the operation, if the victim is to be recovered.
    pub(crate) around: Option<&'static Around>,
}

impl Run {
    /// Brings everybody to the beginning of the operation.
    pub(crate) fn start(operation: &Operation, fate: Fate) -> Result<Self> {
        let world = (operation.world)();
        let mut machine = machine();
        let around = matches!(fate, Fate::Recovered).then(Around::new);
        let victim = match around {
            Some(around) => around.victim(world.victim()),
            None => world.victim(),
        };
        let victim = spawn(&machine, victim);
        let bystanders = Bystanders::spawn(&mut machine, world.bystanders());
        let companions = Vec::new();
        let begun_before = 0;
        let mut run = Self { world, machine, victim, bystanders, companions, begun_before, around };
        run.bystanders_take_turns()?;
        loop {
            match (run.machine.run(run.victim, None), take_mark()) {
                (Stop::Yielded, Mark::Begin) => {
                    run.begun_before = run.world.destructors_begun();
                    return Ok(run);
                }
                (Stop::Yielded, Mark::None) => run.bystanders_take_turns()?,
                (stop, _) => bail!("{}: {stop:?} before it begins", operation.name),
            }
        }
    }

    /// Executes one instruction of the victim; or, while it sleeps, one of each bystander. Returns
    /// whether the operation goes on.
    pub(crate) fn step(&mut self) -> Result<bool> {
        match self.machine.run(self.victim, Some(1)) {
            Stop::BudgetSpent => self.interleave()?,
            Stop::Yielded if take_mark() == Mark::End => return Ok(false),
            Stop::Yielded => self.bystanders_take_turns()?,
            Stop::Parked => {
                if !self.bystanders.step(&mut self.machine)? && self.victim_sleeps() {
                    bail!("it sleeps, and nobody is left to wake it");
                }
            }
            stop => bail!("{stop:?} in the middle of an operation"),
        }
        Ok(true)
    }

    /// Gives the bystanders a turn in between, if they get one after each instruction.
    pub(crate) fn interleave(&mut self) -> Result<()> {
        if self.world.interleaved() { self.bystanders_take_turns() } else { Ok(()) }
    }

    /// Where a quarantine may be found. Whoever lives comes to the end of its destructors.
    pub(crate) fn entrance(&self, fate: Fate) -> Entrance {
        let destructors =
            if matches!(fate, Fate::Preempted) { 0 } else { self.world.destructors() };
        Entrance::of(destructors, self.world.way_into_destructor())
    }

    /// Whether a destructor has begun in the course of the operation.
    pub(crate) fn destructor_begun(&self) -> bool {
        self.world.destructors_begun() > self.begun_before
    }

    fn victim_sleeps(&mut self) -> bool {
        self.machine.is_asleep(self.victim)
    }

    /// Gives each bystander a turn.
    fn bystanders_take_turns(&mut self) -> Result<()> {
        self.bystanders.take_turns(&mut self.machine).map(drop)
    }

    /// Kills whoever dies with the victim.
    fn companion_dies(&mut self) {
        if let Some(companion) = self.bystanders.first(&self.machine) {
            self.world.at_companion_death();
            self.companions = self.machine.kill(companion);
        }
    }

    /// Kills the victim where it stands, and lets the others go on for a moment: but for those that
    /// have stopped somewhere in the middle, where the settlement finds them.
    pub(crate) fn die(&mut self) -> Result<()> {
        let companion = self.world.companion();
        if companion == Some(Companion::First) {
            self.companion_dies();
        }
        self.world.at_death();
        if companion.is_none()
            && self.world.bystanders_run_before_settlement()
            && !self.bystanders.in_turn()
        {
            self.bystanders_take_turns()?;
        }
        Ok(())
    }

    /// Takes the processor from the victim until none of the others can go on. It goes on as one of
    /// them then: alone, if somebody was to die with it.
    fn preempt(&mut self) -> Result<()> {
        if self.world.companion().is_some() {
            self.companion_dies();
        }
        self.bystanders.run_out(&mut self.machine)?;
        self.bystanders.join(self.victim);
        self.bystanders.run_out(&mut self.machine)?;
        // It has ended by itself, holding nothing.
        self.world.at_death();
        Ok(())
    }

    /// As [`Run::audit`], for a victim that is dead; or has been recovered, and goes on first.
    pub(crate) fn aftermath(&mut self, settled: &[Settled]) -> Findings {
        let Some(around) = self.around else { return self.audit(Some(settled)) };
        let Ok(mut findings) = around.goes_on(&mut self.machine, self.victim, &*self.world) else {
            return Findings::CRASHED;
        };
        findings |= self.audit(Some(settled));
        findings |= around.dies_later(&mut self.machine, self.victim).unwrap_or(Findings::CRASHED);
        findings
    }

    /// Looks at what is left after the settlement. Whoever lives must have come to their end then.
    /// `None` if the victim is one of these.
    pub(crate) fn audit(&mut self, settled: Option<&[Settled]>) -> Findings {
        if settled.is_some() && self.world.companion() == Some(Companion::Last) {
            self.companion_dies();
        }
        if self.bystanders.finish_turns(&mut self.machine).is_err() {
            return Findings::CRASHED;
        }
        let mut told = settled.iter().copied().flatten().chain(&self.companions);
        let quarantined = told.any(|one| one.outcome == Outcome::Quarantined);
        let (machine, bystanders) = (&mut self.machine, &mut self.bystanders);
        let mut audit = Audit::new(machine, bystanders, settled.is_none(), quarantined);
        self.world.audit(&mut audit);
        audit.finish_bystanders();
        audit.findings()
    }
}

/// How many instructions the operation executes if nobody is killed; or what is wrong even then. In
/// a child, so that the sweep finds the world as this did.
fn count(operation: &Operation, fate: Fate) -> Result<std::result::Result<u64, Findings>> {
    let tally = Tally::new()?;
    let mut children = Children::new(1);
    children.spawn((), || {
        let run_to_the_end = || -> Result<()> {
            let mut run = Run::start(operation, fate)?;
            tally.executed();
            while run.step()? {
                tally.executed();
            }
            Ok(())
        };
        if run_to_the_end().is_ok() { Findings::default() } else { Findings::CRASHED }
    })?;
    let Some(((), findings)) = children.wait()? else { bail!("{}: not run", operation.name) };
    Ok(if findings.is_clean() { Ok(tally.read().0) } else { Err(findings) })
}

fn killed(run: &mut Run) -> Findings {
    if run.die().is_err() {
        return Findings::CRASHED;
    }
    let settled = run.machine.kill(run.victim);
    run.aftermath(&settled)
}

fn recovered(run: &mut Run) -> Findings {
    if run.die().is_err() {
        return Findings::CRASHED;
    }
    match run.machine.recover(run.victim, Around::fault()) {
        Ok(settled) => run.aftermath(&settled),
        Err(_) => Findings::CRASHED,
    }
}

fn preempted(run: &mut Run) -> Findings {
    if run.preempt().is_err() { Findings::CRASHED } else { run.audit(None) }
}

/// Lets the fate befall the victim before every instruction, and audits.
pub(crate) fn sweep(operation: &Operation, jobs: usize, mut sweep: Sweep) -> Result<Sweep> {
    match count(operation, sweep.fate)? {
        Ok(executed) => sweep.executed = executed,
        Err(findings) => {
            sweep.executed = 1;
            sweep.note("with nobody killed", findings);
            return Ok(sweep);
        }
    }
    let befall = match sweep.fate {
        Fate::Killed => killed,
        Fate::Preempted => preempted,
        Fate::Recovered => recovered,
    };
    let mut run = Run::start(operation, sweep.fate)?;
    let mut entrance = run.entrance(sweep.fate);
    let mut children = Children::new(jobs);
    let mut k = 0u64;
    loop {
        let at = (k, run.destructor_begun());
        if let Some(((boundary, begun), findings)) = children.spawn(at, || befall(&mut run))? {
            sweep.note(boundary, entrance.judge(begun, findings));
        }
        if sweep.is_enough() || !run.step()? {
            break;
        }
        k += 1;
    }
    while let Some(((boundary, begun), findings)) = children.wait()? {
        sweep.note(boundary, entrance.judge(begun, findings));
    }
    Ok(sweep)
}
