//! All boundaries of one recovery.

use std::fmt;

use anyhow::{Result, bail};
use boundaries::fork::{Children, Outcome, Tally};
use boundaries::writes;
use keeper::Verdict;
use keeper::hosted::Stop;
use task_model::{FaultInfo, TaskId, TaskState};

use crate::audit::{self, End, found};
use crate::world::{Rulings, World};

/// One recovery.
#[derive(Debug)]
pub(crate) struct Recovery {
    pub(crate) name: &'static str,
    pub(crate) rulings: Rulings,
    /// Whether the victim gets a turn between the death and what comes of it, if it can run.
    pub(crate) goes_on: bool,
}

/// How a keeper ends.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Death {
    Kill,
    Fault,
}

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct Sweep {
    /// How many instructions the keeper executes from its wake-up until it sleeps again.
    pub(crate) executed: u64,
    /// How many of them see something that nobody saw before: the first, and each behind one that
    /// has written outside of the keeper's stack.
    pub(crate) distinct: u64,
    /// How many of these were to be looked at: all, or a sample.
    pub(crate) chosen: u64,
    /// Before how many of these it was ended.
    pub(crate) killed: u64,
    pub(crate) failures: Vec<(String, u8)>,
}

/// A child that crashed, and a victim that ended as nobody ruled, or not as was ruled before.
const CRASHED: u8 = 32;
const UNRULED: u8 = 64;

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Exit {
    /// By itself, and with this to say.
    Said(u8),
    /// Its time was up.
    Stuck,
    /// By a signal.
    Crashed,
}

impl Outcome for Exit {
    const STUCK: Self = Self::Stuck;
    const CRASHED: Self = Self::Crashed;

    fn to_byte(self) -> u8 {
        match self {
            Self::Said(byte) => byte,
            Self::Stuck | Self::Crashed => unreachable!("that is said of a child, and not by it"),
        }
    }

    fn from_byte(byte: u8) -> Self {
        Self::Said(byte)
    }
}

impl Sweep {
    fn note(&mut self, boundary: String, exit: Exit, allowed: impl FnOnce(End) -> bool) {
        self.killed += 1;
        let wrong = match exit {
            Exit::Stuck => found::STUCK,
            Exit::Crashed => CRASHED,
            Exit::Said(byte) => {
                let allowed = End::said(byte).is_some_and(allowed);
                byte & 31 | if allowed { 0 } else { UNRULED }
            }
        };
        if wrong != 0 {
            self.failures.push((boundary, wrong));
        }
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.executed += other.executed;
        self.distinct += other.distinct;
        self.chosen += other.chosen;
        self.killed += other.killed;
        self.failures.extend(other.failures);
    }

    fn count(&self, what: u8) -> usize {
        self.failures.iter().filter(|(_, wrong)| wrong & what != 0).count()
    }
}

impl fmt::Display for Sweep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "executed={} distinct={}", self.executed, self.distinct)?;
        if self.chosen != self.distinct {
            write!(f, " chosen={}", self.chosen)?;
        }
        write!(f, " killed={}", self.killed)?;
        names().try_for_each(|(what, name)| write!(f, " {name}={}", self.count(what)))
    }
}

/// What can be wrong, by name.
fn names() -> impl Iterator<Item = (u8, &'static str)> {
    found::NAMES.into_iter().chain([(CRASHED, "crashed"), (UNRULED, "unruled")])
}

fn end_of(verdict: Verdict, above: Verdict) -> End {
    match verdict {
        Verdict::Resume => End::Resumed,
        Verdict::Restart => End::Restarted,
        Verdict::Hold => End::Held,
        Verdict::TryNext => end_of(above, above),
        // What was deferred is answered so.
        _ => End::Exited,
    }
}

/// What one instruction of a keeper has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Nothing that anybody else sees: it is the same whether the keeper ends before or after it.
    Computed,
    Wrote,
    /// The recovery is over.
    Sleeps,
}

/// A recovery on its way: the victim has faulted, and its keeper has been woken.
struct Run(&'static World);

impl Run {
    fn start(recovery: &Recovery) -> Self {
        let world = World::new(recovery.rulings);
        let stop = world.kernel.step(world.victim.get(), 1_000_000);
        assert!(matches!(stop, Stop::Faulted(_)), "{stop:?}");
        Self(world)
    }

    /// Executes one instruction of a keeper.
    fn step(&self, keeper: TaskId) -> Result<Step> {
        let writes = self.0.kernel.with_task(keeper, writes::is_seen_by_others);
        match self.0.kernel.step(keeper, 1) {
            Stop::BudgetSpent if writes => Ok(Step::Wrote),
            Stop::BudgetSpent => Ok(Step::Computed),
            Stop::Parked if self.0.answer() => Ok(Step::Wrote),
            Stop::Parked => Ok(Step::Sleeps),
            stop => bail!("{stop:?} in the middle of a recovery"),
        }
    }

    fn end(&self, keeper: TaskId, death: Death) {
        match death {
            Death::Kill => self.0.kernel.kill(keeper),
            Death::Fault => self.0.kernel.fault(keeper, FaultInfo::overdue),
        }
    }

    /// Others go on before anybody looks after the dead keeper.
    fn others(&self, recovery: &Recovery) {
        let (world, victim) = (self.0, self.0.victim.get());
        let snatcher = world.kernel.spawn_once(|| world.snatch());
        world.kernel.step(snatcher, 100_000);
        if recovery.goes_on && world.kernel.state(victim) == TaskState::Ready {
            world.kernel.step(victim, 100_000);
        }
    }
}

/// Ends the keeper before every instruction; its parent is to go on.
pub(crate) fn keeper(recovery: &Recovery, death: Death, jobs: usize) -> Result<Sweep> {
    let mut sweep = Sweep::default();
    let (ruled, above) = (recovery.rulings.keeper, recovery.rulings.above);
    let (ruled, above) = (end_of(ruled, above), end_of(above, above));
    // Once what the keeper ruled has been carried out after its death, it is so ever after.
    let mut is_ruled = false;
    let mut allowed = |end: End| {
        let allowed = end == ruled || end == above && !is_ruled;
        is_ruled |= end == ruled;
        allowed
    };
    let run = Run::start(recovery);
    let keeper = run.0.keeper.get();
    let mut children = Children::new(jobs);
    let (mut k, mut last) = (0u64, Step::Wrote);
    while last != Step::Sleeps {
        let body = || {
            run.end(keeper, death);
            run.others(recovery);
            Exit::Said(audit::audit(run.0))
        };
        if last == Step::Wrote {
            sweep.distinct += 1;
            sweep.chosen += 1;
            if let Some((k, exit)) = children.spawn(k, body)? {
                sweep.note(format!("{death:?} {k}"), exit, &mut allowed);
            }
        }
        last = run.step(keeper)?;
        k += 1;
    }
    sweep.executed = k;
    while let Some((k, exit)) = children.wait()? {
        sweep.note(format!("{death:?} {k}"), exit, &mut allowed);
    }
    Ok(sweep)
}

/// Ends the keeper before some instructions, and then its parent, over what it has inherited,
/// before some of its own: one in `every`, each time beginning with another one. The root is to go
/// on.
///
/// What was executed, and is distinct, are the parent's boundaries behind all those deaths of the
/// keeper that were looked at.
pub(crate) fn parent(recovery: &Recovery, every: u64, jobs: usize) -> Result<Sweep> {
    let mut sweep = Sweep::default();
    let (passed, chosen) = (Tally::new()?, Tally::new()?);
    let run = Run::start(recovery);
    let keeper = run.0.keeper.get();
    let mut children = Children::new(jobs);
    // Three may rule, and the root has it restarted; a child has looked at that.
    let mut note =
        |k: u64, exit| sweep.note(format!("keeper {k}, then its parent"), exit, |_| true);
    let (mut k, mut last) = (0u64, Step::Wrote);
    while last != Step::Sleeps {
        if last == Step::Wrote {
            if k.is_multiple_of(every) {
                let first = k / every % every;
                let sample = Sample { keeper: k, first, every };
                let body = || below(&run, recovery, sample, &passed, &chosen);
                if let Some((k, exit)) = children.spawn(k, body)? {
                    note(k, exit);
                }
            }
            k += 1;
        }
        last = run.step(keeper)?;
    }
    while let Some((k, exit)) = children.wait()? {
        note(k, exit);
    }
    (sweep.executed, sweep.distinct) = passed.read();
    (sweep.chosen, sweep.killed) = chosen.read();
    Ok(sweep)
}

/// Which deaths of the parent are looked at, behind one of the keeper.
#[derive(Debug, Clone, Copy)]
struct Sample {
    /// Before which of its boundaries the keeper was ended.
    keeper: u64,
    first: u64,
    every: u64,
}

/// In a child: ends the keeper, and in children of that, its parent.
fn below(run: &Run, recovery: &Recovery, sample: Sample, passed: &Tally, chosen: &Tally) -> Exit {
    run.end(run.0.keeper.get(), Death::Kill);
    let parent = run.0.parent.get();
    let mut children = Children::new(1);
    let mut all = Sweep::default();
    let rulings = recovery.rulings;
    let allowed = [
        end_of(rulings.keeper, rulings.above),
        end_of(rulings.above, rulings.above),
        End::Restarted,
    ];
    let mut note = |done: Result<Option<(u64, Exit)>>| match done {
        Ok(None) => {}
        Ok(Some((k, exit))) => {
            if !matches!(exit, Exit::Crashed) {
                chosen.killed();
            }
            let boundary = format!("keeper {}, parent {k}", sample.keeper);
            all.note(boundary, exit, |end| allowed.contains(&end));
        }
        Err(_) => std::process::abort(),
    };
    let (mut k, mut last) = (0u64, Step::Wrote);
    while last != Step::Sleeps {
        passed.executed();
        if last == Step::Wrote {
            passed.killed();
            if k % sample.every == sample.first {
                chosen.executed();
                note(children.spawn(k, || {
                    run.end(parent, Death::Fault);
                    run.others(recovery);
                    Exit::Said(audit::audit(run.0))
                }));
            }
            k += 1;
        }
        last = run.step(parent).unwrap_or_else(|_| std::process::abort());
    }
    note(children.wait());
    // The grandparent hears of the worst in a byte; who wants to know more reads this.
    for (boundary, wrong) in &all.failures {
        eprintln!("    {boundary}: {}", named(*wrong));
    }
    let wrong = all.failures.iter().fold(0, |all, (_, wrong)| all | wrong);
    if wrong & CRASHED != 0 {
        std::process::abort();
    }
    // Without an end, it is one that nobody ruled.
    let end = if wrong & UNRULED == 0 { (End::Exited as u8) << 5 } else { 0 };
    Exit::Said(wrong & 31 | end)
}

/// All that is wrong, by name.
pub(crate) fn named(wrong: u8) -> String {
    let names: Vec<_> =
        names().filter(|(what, _)| wrong & what != 0).map(|(_, name)| name).collect();
    names.join(", ")
}
