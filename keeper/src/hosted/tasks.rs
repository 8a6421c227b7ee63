//! The tasks, as their keeper sees them.
#![expect(unsafe_code, reason = "promises what `Platform` asks for")]

use alloc::boxed::Box;
use core::cell::{Cell, OnceCell};
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::time::Instant;

use drop_registry::hosted::{Hosted, Machine, Stop, domain};
use drop_registry::{Ledger, Parker, WaitForGraph};
use task_model::{FaultInfo, FrozenTask, TaskId, TaskState};

use super::Kernel;
use crate::{CannotRestart, NoSuchTask, Platform, Policy, Report, Stopped};

/// The platform of a hosted [`Kernel`](super::Kernel): its tasks, and the machine that runs them.
///
/// One tick of its time is a nanosecond.
pub struct Tasks {
    machine: Machine,
    /// By task number.
    records: Box<[OnceCell<Record>]>,
    began: Instant,
    /// How much time has been let pass at once, in nanoseconds.
    passed: Cell<u64>,
}

/// What a keeper has to know of a task, beside what the machine knows.
#[derive(Debug)]
struct Record {
    policy: Option<&'static dyn Policy>,
    /// Its state, and of which life: a word, so that a keeper that dies over it has changed both or
    /// neither. What it says of an earlier life says nothing of the present one, which is ready.
    state: AtomicU64,
}

/// How long a task is run.
#[derive(Debug, Clone, Copy)]
pub(super) enum Turn {
    Instructions(u64),
    Slice(Duration),
}

impl Tasks {
    /// # Safety
    /// As for [`Machine::new`].
    pub(super) unsafe fn new() -> Self {
        Self {
            // SAFETY: by the contract. A keeper's task allocates nothing, and what it writes into
            // the tasks that it keeps, they can go on with.
            machine: unsafe { Machine::new() },
            records: (0..Kernel::MAX_TASKS).map(|_| OnceCell::new()).collect(),
            began: Instant::now(),
            passed: Cell::new(0),
        }
    }

    pub(super) fn spawn(
        &self,
        policy: Option<&'static dyn Policy>,
        enter: impl FnOnce(&Machine) -> TaskId,
    ) -> TaskId {
        let id = enter(&self.machine);
        let state = AtomicU64::new(pack(id, TaskState::Ready));
        let record = self.records[id.index as usize].set(Record { policy, state });
        record.expect("the machine's numbers are new");
        id
    }

    /// A task for a keeper.
    pub(super) fn spawn_keeper(&self, entry: Box<dyn Fn()>) -> TaskId {
        // SAFETY: what the entry shares with others is the kernel itself. What keepers use of that
        // is in atomics, or in cells that are changed by single stores: see `Platform` below.
        self.spawn(None, |machine| unsafe { machine.spawn_restartable_unchecked(entry) })
    }

    /// Lets time pass at once.
    pub(super) fn pass(&self, time: Duration) {
        self.passed.update(|passed| passed.saturating_add(time.as_nanos() as u64));
    }

    pub(super) fn count(&self) -> usize {
        self.records.iter().map_while(OnceCell::get).count()
    }

    /// The task that calls this, if it is one.
    pub(super) fn running(&self) -> Option<TaskId> {
        self.machine.running()
    }

    /// The task with this number, if it can run.
    pub(super) fn ready(&self, number: usize) -> Option<TaskId> {
        let id = self.machine.life(number)?;
        (self.state(id) == TaskState::Ready && !self.machine.is_asleep(id)).then_some(id)
    }

    /// Calls `look` with the wait-for graph of all tasks that live. None of them runs meanwhile.
    pub(super) fn with_wait_for_graph<T>(
        &self,
        look: impl FnOnce(&WaitForGraph<'_, { Kernel::MAX_TASKS }>) -> T,
    ) -> T {
        let graph = WaitForGraph::new(self.machine.ledgers(), domain());
        look(&graph.expect("a kernel has no more tasks than that"))
    }

    /// Where the task is in its life; `Dead` if the id is stale.
    pub(super) fn state(&self, id: TaskId) -> TaskState {
        let Some(record) = self.record(id) else { return TaskState::Dead };
        // Relaxed, here and below: there is one thread.
        let word = record.state.load(Ordering::Relaxed);
        STATES.into_iter().find(|state| pack(id, *state) == word).unwrap_or(TaskState::Ready)
    }

    /// What is known of the task, if this is its present life.
    fn record(&self, id: TaskId) -> Option<&Record> {
        let record = self.records.get(id.index as usize)?.get()?;
        (self.machine.life(id.index as usize) == Some(id)).then_some(record)
    }

    /// Whether the policy of the task rules on it when it has finished.
    fn is_told_of_exits(&self, id: TaskId) -> bool {
        let policy = self.record(id).and_then(|record| record.policy);
        policy.is_some_and(|policy| policy.rules_on_exits())
    }

    fn become_state(&self, id: TaskId, state: TaskState) {
        if let Some(record) = self.record(id) {
            record.state.store(pack(id, state), Ordering::Relaxed);
        }
    }

    /// Freezes a task that could go on, as if it had faulted. Returns whether it could.
    pub(super) fn freeze(&self, id: TaskId) -> bool {
        let could = self.state(id) == TaskState::Ready;
        if could {
            self.become_state(id, TaskState::Frozen);
        }
        could
    }

    /// The ledgers of all tasks that live.
    pub(super) fn ledgers(&self) -> impl Iterator<Item = (TaskId, &Ledger)> {
        self.machine.ledgers()
    }

    /// The instruction that a task, which does not run, is to execute next.
    pub(super) fn instruction_pointer(&self, id: TaskId) -> u64 {
        self.look_at(id, |task| task.registers().rip)
    }

    /// Calls `look` with a task that does not run.
    pub(super) fn look_at<T>(&self, id: TaskId, look: impl FnOnce(&FrozenTask<'_>) -> T) -> T {
        // SAFETY: it cannot be kept, and only the machine's owner, who is here, runs tasks. Who
        // shares it with a keeper that has seized the task changes nothing.
        look(&unsafe { self.machine.seize(id) }.0)
    }

    /// Runs a task that is ready. If it has come to its end by that, and there is something for its
    /// keeper in it, it is frozen, and this says what.
    pub(super) fn run(&self, id: TaskId, turn: Turn) -> (Stop, Option<FaultInfo>) {
        let machine = &self.machine;
        let stop = match turn {
            Turn::Instructions(count) => machine.run(id, Some(count)),
            Turn::Slice(time) => machine.run_slice(id, time),
        };
        let fault = match stop {
            Stop::BudgetSpent | Stop::Yielded | Stop::Parked => return (stop, None),
            Stop::Faulted(fault) => Some(fault),
            Stop::Killed => Some(FaultInfo::killed(self.instruction_pointer(id))),
            Stop::Panicked => Some(FaultInfo::panicked(self.instruction_pointer(id))),
            // SAFETY: it is gone before anybody runs the task.
            Stop::Finished if unsafe { machine.seize(id) }.1.is_empty() => {
                self.is_told_of_exits(id).then(|| FaultInfo::exited(self.instruction_pointer(id)))
            }
            Stop::Finished => Some(FaultInfo::left_holding(self.instruction_pointer(id))),
        };
        let state = if fault.is_some() { TaskState::Frozen } else { TaskState::Dead };
        self.become_state(id, state);
        (stop, fault)
    }
}

/// In no order.
const STATES: [TaskState; 4] =
    [TaskState::Ready, TaskState::Frozen, TaskState::Held, TaskState::Dead];

fn pack(id: TaskId, state: TaskState) -> u64 {
    u64::from(id.generation) << 32 | state as u64
}

// SAFETY: only `run` executes a task, and only one that is `Ready`; `seize` makes it another, and
// `resume` and `restart` alone make it ready again. There is one thread, so a task that calls
// `seize`, as a keeper does, is the one that runs, and the machine refuses to freeze that. All
// others' registers are in their contexts, and the ledger is that which `Current` gives them. The
// keepers see to it that one `Stopped` of a task is used at a time. Stacks are never unmapped or
// used again before the machine is gone, and `Machine::restart` resets the ledger. Each of these is
// one store of a word, after all that it stands on; so has `restart` happened, or not.
unsafe impl Platform for Tasks {
    fn now(&self) -> u64 {
        (self.began.elapsed().as_nanos() as u64).saturating_add(self.passed.get())
    }

    fn seize(&self, id: TaskId) -> Result<Stopped<'_>, NoSuchTask> {
        let record = self.record(id).ok_or(NoSuchTask(id))?;
        match self.state(id) {
            TaskState::Dead => return Err(NoSuchTask(id)),
            TaskState::Held => {}
            _ => self.become_state(id, TaskState::Frozen),
        }
        // SAFETY: the machine lives as long as `self` is borrowed, and it does not run a task that
        // is frozen or held.
        let (task, ledger) = unsafe { self.machine.seize(id) };
        // Each life but the first began with a restart.
        Ok(Stopped { task, ledger, policy: record.policy, restarts: id.generation })
    }

    fn resume(&self, stopped: Stopped<'_>) {
        self.machine.rouse(stopped.task.id());
        self.become_state(stopped.task.id(), TaskState::Ready);
    }

    fn retire(&self, stopped: Stopped<'_>) {
        let id = stopped.task.id();
        self.machine.retire(id);
        self.become_state(id, TaskState::Dead);
    }

    fn restart<'a>(&'a self, stopped: Stopped<'a>) -> Result<TaskId, CannotRestart<'a>> {
        // SAFETY: the keeper has settled what it held, and gives it back.
        unsafe { self.machine.restart(stopped.task.id()) }.ok_or(CannotRestart(stopped))
    }

    fn hold(&self, stopped: Stopped<'_>) {
        self.become_state(stopped.task.id(), TaskState::Held);
    }

    fn panic_message(&self, task: TaskId) -> Option<&str> {
        self.machine.panic_note(task)
    }

    fn pull_kill_switch(&self, task: TaskId) {
        if self.record(task).is_some() {
            self.machine.pull_kill_switch(task);
        }
    }

    fn wake(&self, keeper: TaskId) {
        if (keeper.index as usize) < Hosted::TASKS {
            Hosted::unpark(keeper.index as usize);
        }
    }

    fn panic(&self, report: &Report) -> ! {
        panic!("a keeper ended the kernel:\n{report}");
    }
}

impl fmt::Debug for Tasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.records.iter().map_while(OnceCell::get)).finish()
    }
}
