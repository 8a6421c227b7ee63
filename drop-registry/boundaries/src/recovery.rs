//! A recovery point around the operation: the victim does not die, but goes on behind it.
#![expect(unsafe_code, reason = "cuts off the operation")]

use std::cell::Cell;

use anyhow::{Result, bail};
use drop_registry::hosted::{Hosted, Machine, Stop, yield_now};
use drop_registry::{Fault, Mutex, catch_fault};
use task_model::{FaultInfo, TaskId};

use crate::operation::{Findings, Mark, World, take_mark};

/// How many instructions may lie between two places at which the victim is looked at.
const FAR: u64 = 1_000_000;

/// What the victim holds when the operation begins, and does after it was cut off.
#[derive(Debug)]
pub(crate) struct Around {
    /// Held from before the point on.
    outer: Mutex<u64, Hosted>,
    /// Taken afterwards; the victim dies in the middle of that.
    later: Mutex<u64, Hosted>,
    /// What `catch_fault` returned.
    told: Cell<Option<Fault>>,
}

impl Around {
    pub(crate) fn new() -> &'static Self {
        let (outer, later) = (Mutex::new(0), Mutex::new(0));
        Box::leak(Box::new(Self { outer, later, told: Cell::new(None) }))
    }

    /// What the victim is told of.
    pub(crate) fn fault() -> FaultInfo {
        FaultInfo::killed(0xfa17)
    }

    /// The victim, with a point around what it does.
    pub(crate) fn victim(&'static self, body: Box<dyn FnOnce()>) -> Box<dyn FnOnce()> {
        Box::new(move || {
            let mut outer = self.outer.lock().expect("nobody died");
            // SAFETY: operations use resources that are leaked, and keep their handles to
            // themselves.
            self.told.set(unsafe { catch_fault::<Hosted, _>(body) }.err());
            yield_now();
            *outer += 1;
            drop(outer);
            yield_now();
            drop(self.later.lock());
        })
    }

    /// Lets the victim go on that has been recovered, behind this point or one of the operation's
    /// own, and looks at what it holds.
    pub(crate) fn goes_on(
        &self,
        machine: &mut Machine,
        victim: TaskId,
        world: &dyn World,
    ) -> Result<Findings> {
        let mut findings = Findings::default();
        let mut require = |holds: bool, finding| {
            if !holds {
                findings |= finding;
            }
        };
        // It may have been cut off between marking the end and stopping there.
        take_mark();
        let ended = yields(machine, victim)? == Mark::End;
        require(world.went_on_where_it_should(ended), Findings::STOLEN);
        if ended {
            yields(machine, victim)?;
        }
        let told = (!ended).then(|| Fault::Stopped(Self::fault()));
        require(self.told.get() == told, Findings::UNTOLD);
        require(self.outer.is_locked(), Findings::STOLEN);
        require(machine.frozen(victim).1.len() == 1, Findings::LEAKED);
        yields(machine, victim)?;
        require(machine.frozen(victim).1.is_empty(), Findings::LEAKED);
        // Whoever comes next is told of no death, and sees what the victim wrote.
        require(self.outer.lock().is_ok_and(|value| *value == 1), Findings::STOLEN);
        Ok(findings)
    }

    /// Lets the victim take a lock, and kills it as soon as it has it: in the window.
    pub(crate) fn dies_later(&self, machine: &mut Machine, victim: TaskId) -> Result<Findings> {
        for _ in 0..FAR {
            if self.later.is_locked() {
                machine.kill(victim);
                let leaked = self.later.is_locked();
                return Ok(if leaked { Findings::LEAKED } else { Findings::default() });
            }
            if machine.run(victim, Some(1)) != Stop::BudgetSpent {
                break;
            }
        }
        bail!("it did not come to its lock")
    }
}

/// Lets the victim go on until it yields. Returns what it has marked.
fn yields(machine: &mut Machine, victim: TaskId) -> Result<Mark> {
    match (machine.run(victim, Some(FAR)), take_mark()) {
        (Stop::Yielded, mark @ (Mark::None | Mark::End)) => Ok(mark),
        (stop, mark) => bail!("{stop:?} at {mark:?} after a recovery"),
    }
}
