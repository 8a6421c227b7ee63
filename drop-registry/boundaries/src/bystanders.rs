//! The other tasks of a world, and how they are driven while the victim is stepped.

use anyhow::{Result, bail};
use drop_registry::hosted::{Machine, Stop};
use task_model::TaskId;

use crate::machine::spawn;

/// How many turns anybody gets before they count as stuck.
pub(crate) const PATIENCE: usize = 100;

/// The tasks around a victim. Each *turn* of one lasts until it yields, sleeps or has finished.
#[derive(Debug)]
pub(crate) struct Bystanders(Vec<Bystander>);

#[derive(Debug)]
struct Bystander {
    task: TaskId,
    /// Whether it stands in the middle of a turn.
    in_turn: bool,
}

impl Bystanders {
    pub(crate) fn spawn(machine: &mut Machine, entries: Vec<Box<dyn FnOnce()>>) -> Self {
        let bystander = |entry| Bystander { task: spawn(machine, entry), in_turn: false };
        Self(entries.into_iter().map(bystander).collect())
    }

    /// Gives each a turn, or the rest of the turn that it is in. Returns whether any could go on.
    pub(crate) fn take_turns(&mut self, machine: &mut Machine) -> Result<bool> {
        self.run(machine, None, |_| true)
    }

    /// Lets each execute one instruction. Returns whether any could go on.
    pub(crate) fn step(&mut self, machine: &mut Machine) -> Result<bool> {
        self.run(machine, Some(1), |_| true)
    }

    /// Lets those that are in the middle of a turn come to its end.
    pub(crate) fn finish_turns(&mut self, machine: &mut Machine) -> Result<()> {
        self.run(machine, None, |one| one.in_turn).map(drop)
    }

    /// Gives turns until none can go on: each has finished, sleeps, or does not get any further.
    pub(crate) fn run_out(&mut self, machine: &mut Machine) -> Result<()> {
        for _ in 0..PATIENCE {
            if !self.take_turns(machine)? {
                break;
            }
        }
        Ok(())
    }

    /// Takes in one more, wherever it stands.
    pub(crate) fn join(&mut self, task: TaskId) {
        self.0.push(Bystander { task, in_turn: true });
    }

    /// Whether any stands in the middle of a turn.
    pub(crate) fn in_turn(&self) -> bool {
        self.0.iter().any(|one| one.in_turn)
    }

    /// The first of them, if it has not finished.
    pub(crate) fn first(&self, machine: &Machine) -> Option<TaskId> {
        self.0.first().map(|one| one.task).filter(|task| machine.is_alive(*task))
    }

    /// How many have not finished.
    pub(crate) fn unfinished(&self, machine: &Machine) -> usize {
        self.0.iter().filter(|one| machine.is_alive(one.task)).count()
    }

    fn run(
        &mut self,
        machine: &mut Machine,
        budget: Option<u64>,
        whom: fn(&Bystander) -> bool,
    ) -> Result<bool> {
        let mut any_ran = false;
        for one in &mut self.0 {
            if !machine.is_alive(one.task) || machine.is_asleep(one.task) || !whom(one) {
                continue;
            }
            any_ran = true;
            let stop = machine.run(one.task, budget);
            if !matches!(stop, Stop::BudgetSpent | Stop::Yielded | Stop::Parked | Stop::Finished) {
                bail!("{stop:?} of a bystander");
            }
            one.in_turn = stop == Stop::BudgetSpent;
        }
        Ok(any_ran)
    }
}
