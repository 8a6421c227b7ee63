//! All boundaries of one recovery.

use std::fmt;

use anyhow::{Result, bail};
use boundaries::fork::{Children, Outcome, Tally};
use keeper::Verdict;
use keeper::hosted::Stop;
use task_model::{FaultInfo, TaskId, TaskState};

use crate::audit::{self, End, found};
use crate::world::{Rulings, World};
use crate::writes;

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
    /// How many of them see something that nobody saw before: the first, and each behind one that has
    /// written outside of the keeper's stack.
    pub(crate) distinct: u64,
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
        self.killed += other.killed;
        self.failures.extend(other.failures);
    }

    fn count(&self, what: u8) -> usize {
        self.failures.iter().filter(|(_, wrong)| wrong & what != 0).count()
    }
}

impl fmt::Display for Sweep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "executed={} distinct={} killed={}", self.executed, self.distinct, self.killed)?;
        names().try_for_each(|(what, name)| write!(f, " {name}={}", self.count(what)))
    }
}

/// What can be wrong, by name.
pub(crate) fn names() -> impl Iterator<Item = (u8, &'static str)> {
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

/// Ends the keeper before some instructions, and then its parent, over what it has inherited, before
/// some of its own: one in `every`, each time beginning with another one. The root is to go on.
pub(crate) fn parent(recovery: &Recovery, every: u64, jobs: usize) -> Result<Sweep> {
    let mut sweep = Sweep::default();
    let tally = Tally::new()?;
    let run = Run::start(recovery);
    let keeper = run.0.keeper.get();
    let mut children = Children::new(jobs);
    let note = |sweep: &mut Sweep, boundary: (u64, u64), exit| {
        // Three may rule.
        sweep.note(format!("{boundary:?}"), exit, |_| true);
    };
    let (mut k, mut last) = (0u64, Step::Wrote);
    while last != Step::Sleeps {
        if last == Step::Wrote {
            if k % every == 0 {
                let first = k / every % every;
                let body = || below(&run, recovery, first, every, &tally);
                if let Some((k, exit)) = children.spawn((k, first), body)? {
                    note(&mut sweep, k, exit);
                }
            }
            k += 1;
        }
        last = run.step(keeper)?;
    }
    while let Some((k, exit)) = children.wait()? {
        note(&mut sweep, k, exit);
    }
    (sweep.executed, sweep.killed) = tally.read();
    sweep.distinct = sweep.executed;
    Ok(sweep)
}

/// In a child: ends the keeper, and in children of that, its parent.
fn below(run: &Run, recovery: &Recovery, first: u64, every: u64, tally: &Tally) -> Exit {
    run.end(run.0.keeper.get(), Death::Kill);
    let parent = run.0.parent.get();
    let mut children = Children::new(1);
    let mut all = (End::Exited as u8) << 5;
    let mut note = |done: Result<Option<((), Exit)>>| match done {
        Ok(None) => {}
        Ok(Some(((), Exit::Said(byte)))) => {
            tally.killed();
            all |= byte & 31;
        }
        Ok(Some(((), Exit::Stuck))) => all |= found::STUCK,
        _ => std::process::abort(),
    };
    let (mut k, mut last) = (0u64, Step::Wrote);
    while last != Step::Sleeps {
        if last == Step::Wrote {
            if k % every == first {
                tally.executed();
                note(children.spawn((), || {
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
    Exit::Said(all)
}
