//! The tasks, as their keeper sees them.
#![expect(unsafe_code, reason = "promises what `Platform` asks for")]

use core::cell::{Cell, RefCell};
use core::fmt;
use core::time::Duration;
use std::time::Instant;
use std::vec::Vec;

use drop_registry::WaitForGraph;
use drop_registry::hosted::{Machine, Stop};
use task_model::{FaultInfo, TaskId, TaskState};

use super::Kernel;
use crate::{CannotRestart, NoSuchTask, Platform, Policy, Report, Stopped};

/// The platform of a hosted [`Kernel`](super::Kernel): its tasks, and the machine that runs them.
///
/// One tick of its time is a nanosecond.
pub struct Tasks {
    machine: RefCell<Machine>,
    /// By task number.
    records: RefCell<Vec<Record>>,
    began: Instant,
    /// How much time has been let pass at once, in nanoseconds.
    passed: Cell<u64>,
}

/// What a keeper has to know of a task, beside what the machine knows.
#[derive(Debug)]
struct Record {
    id: TaskId,
    state: TaskState,
    policy: Option<&'static dyn Policy>,
    restarts: u32,
}

/// How long a task is run.
#[derive(Debug, Clone, Copy)]
pub(super) enum Turn {
    Instructions(u64),
    Slice(Duration),
}

impl Tasks {
    pub(super) fn new() -> Self {
        Self {
            machine: RefCell::new(Machine::new()),
            records: RefCell::default(),
            began: Instant::now(),
            passed: Cell::new(0),
        }
    }

    pub(super) fn spawn(
        &self,
        policy: Option<&'static dyn Policy>,
        enter: impl FnOnce(&mut Machine) -> TaskId,
    ) -> TaskId {
        let id = enter(&mut self.machine.borrow_mut());
        let record = Record { id, state: TaskState::Ready, policy, restarts: 0 };
        self.records.borrow_mut().push(record);
        id
    }

    /// Lets time pass at once.
    pub(super) fn pass(&self, time: Duration) {
        self.passed.update(|passed| passed.saturating_add(time.as_nanos() as u64));
    }

    pub(super) fn count(&self) -> usize {
        self.records.borrow().len()
    }

    /// The task with this number, if it can run.
    pub(super) fn ready(&self, number: usize) -> Option<TaskId> {
        let (records, machine) = (self.records.borrow(), self.machine.borrow());
        let record = records.get(number).filter(|it| it.state == TaskState::Ready)?;
        (!machine.is_asleep(record.id)).then_some(record.id)
    }

    /// Calls `look` with the wait-for graph of all tasks that live. None of them runs meanwhile.
    pub(super) fn with_wait_for_graph<T>(
        &self,
        look: impl FnOnce(&WaitForGraph<'_, { Kernel::MAX_TASKS }>) -> T,
    ) -> T {
        let machine = self.machine.borrow();
        let graph = WaitForGraph::new(machine.ledgers());
        look(&graph.expect("a kernel has no more tasks than that"))
    }

    /// Where the task is in its life; `Dead` if the id is stale.
    pub(super) fn state(&self, id: TaskId) -> TaskState {
        self.with_record(id, |record| record.state).unwrap_or(TaskState::Dead)
    }

    fn with_record<T>(&self, id: TaskId, body: impl FnOnce(&mut Record) -> T) -> Option<T> {
        let mut records = self.records.borrow_mut();
        records.get_mut(id.index as usize).filter(|record| record.id == id).map(body)
    }

    /// Whether the policy of the task rules on it when it has finished.
    fn is_told_of_exits(&self, id: TaskId) -> bool {
        let policy = self.with_record(id, |record| record.policy).flatten();
        policy.is_some_and(|policy| policy.rules_on_exits())
    }

    fn become_state(&self, id: TaskId, state: TaskState) {
        self.with_record(id, |record| record.state = state);
    }

    /// Runs a task that is ready. If it has come to its end by that, and there is something for its
    /// keeper in it, it is frozen, and this says what.
    pub(super) fn run(&self, id: TaskId, turn: Turn) -> (Stop, Option<FaultInfo>) {
        let mut machine = self.machine.borrow_mut();
        let stop = match turn {
            Turn::Instructions(count) => machine.run(id, Some(count)),
            Turn::Slice(time) => machine.run_slice(id, time),
        };
        let rip = machine.registers(id).rip;
        let fault = match stop {
            Stop::BudgetSpent | Stop::Yielded | Stop::Parked => return (stop, None),
            Stop::Faulted(fault) => Some(fault),
            Stop::Panicked => Some(FaultInfo::panicked(rip)),
            Stop::Finished if machine.frozen(id).1.is_empty() => {
                self.is_told_of_exits(id).then(|| FaultInfo::exited(rip))
            }
            Stop::Finished => Some(FaultInfo::left_holding(rip)),
        };
        let state = if fault.is_some() { TaskState::Frozen } else { TaskState::Dead };
        self.become_state(id, state);
        (stop, fault)
    }
}

// SAFETY: only `run` executes a task, and only one that is `Ready`; `seize` makes it another, and
// `resume` and `restart` alone make it ready again. There is one thread, and `seize` is called on the machine
// owner's side of it: while a task runs, `run` has the machine borrowed, so that a task that called
// it would panic. Then a task's registers are all in its context, and the ledger is that which
// `Current` gives it. The keeper gives one `Stopped` back before it seizes the next task. Stacks are
// never unmapped or used again before the machine is gone, and `Machine::restart` resets the ledger.
unsafe impl Platform for Tasks {
    fn now(&self) -> u64 {
        (self.began.elapsed().as_nanos() as u64).saturating_add(self.passed.get())
    }

    fn seize(&self, id: TaskId) -> Result<Stopped<'_>, NoSuchTask> {
        let mut machine = self.machine.borrow_mut();
        let found = self.with_record(id, |record| {
            match record.state {
                TaskState::Dead => return None,
                TaskState::Held => {}
                _ => record.state = TaskState::Frozen,
            }
            Some((record.policy, record.restarts))
        });
        let (policy, restarts) = found.flatten().ok_or(NoSuchTask(id))?;
        // SAFETY: the machine lives as long as `self` is borrowed, and it does not run a task that
        // is frozen or held.
        let (task, ledger) = unsafe { machine.seize(id) };
        Ok(Stopped { task, ledger, policy, restarts })
    }

    fn resume(&self, stopped: Stopped<'_>) {
        self.become_state(stopped.task.id(), TaskState::Ready);
    }

    fn retire(&self, stopped: Stopped<'_>) {
        let id = stopped.task.id();
        self.machine.borrow_mut().retire(id);
        self.become_state(id, TaskState::Dead);
    }

    fn restart<'a>(&'a self, stopped: Stopped<'a>) -> Result<TaskId, CannotRestart<'a>> {
        let id = stopped.task.id();
        // SAFETY: the keeper has settled what it held.
        let next = unsafe { self.machine.borrow_mut().restart(id) };
        let Some(next) = next else { return Err(CannotRestart(stopped)) };
        self.with_record(id, |record| {
            record.id = next;
            record.state = TaskState::Ready;
            record.restarts += 1;
        });
        Ok(next)
    }

    fn hold(&self, stopped: Stopped<'_>) {
        self.become_state(stopped.task.id(), TaskState::Held);
    }

    fn wake(&self, _: TaskId) {
        // No keeper is a task: the kernel's owner serves when it likes.
    }

    fn panic(&self, report: &Report) -> ! {
        panic!("a keeper ended the kernel:\n{report}");
    }
}

impl fmt::Debug for Tasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tasks").field(&self.records).finish()
    }
}
