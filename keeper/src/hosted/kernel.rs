//! The kernel: a keeper, its tasks, and who runs them.
#![expect(unsafe_code, reason = "passes on what its maker promises")]

use alloc::boxed::Box;
use core::cell::Cell;
use core::time::Duration;
use std::vec::Vec;

use drop_registry::hosted::{Hosted, Stop, domain};
use drop_registry::{Parker, WaitForGraph};
use task_model::{FaultInfo, FrozenTask, TaskId, TaskState};

use super::tables::unwind_tables;
use super::tasks::{Tasks, Turn};
use crate::{
    Capacity, KeeperId, Keepers, NoSuchTask, Platform, Policy, RegisterError, Report, Usage,
};

/// How long a task runs before it is the next one's turn.
const SLICE: Duration = Duration::from_millis(1);

/// A kernel of one CPU, which is the thread that made it, with a keeper for its tasks.
///
/// Nothing runs by itself: tasks run, and the keeper serves, while its owner calls
/// [`run`](Self::run), [`run_turns`](Self::run_turns), [`step`](Self::step) or
/// [`serve`](Self::serve).
#[derive(Debug)]
pub struct Kernel {
    keepers: Keepers<Tasks>,
    /// For which keepers the owner serves, a bit for each: the others are tasks.
    served: Cell<u32>,
    serving: Cell<bool>,
}

impl Kernel {
    /// How many tasks there can be in a kernel's life, not counting restarts. The first 32 can
    /// sleep (see [`Parker`](drop_registry::Parker)).
    pub const MAX_TASKS: usize = 256;

    /// A kernel for this thread, without tasks. A task that names no policy
    /// [exits](crate::policy::Exit) when it dies.
    ///
    /// # Panics
    /// If the thread has one already, or a [`Machine`](drop_registry::hosted::Machine).
    ///
    /// # Safety
    /// What [`Machine::new`](drop_registry::hosted::Machine::new) asks for. A test keeps to that if
    /// its tasks use statics of its own, keep nothing in thread-locals, leak no guard, and call
    /// nothing of a library (to allocate, to print) where they are [stepped](Self::step); and if no
    /// policy writes registers with which a task cannot go on.
    pub unsafe fn new() -> Self {
        let capacity = Capacity {
            tasks: Self::MAX_TASKS,
            keepers: KeeperId::MAX,
            deferred: 16,
            corpses: Self::MAX_TASKS,
        };
        // SAFETY: by the contract.
        unsafe { Self::with_capacity(capacity) }
    }

    /// As [`Kernel::new`], with room for less.
    ///
    /// # Panics
    /// As [`Kernel::new`]; and if there is to be room for more than [`Kernel::MAX_TASKS`] tasks.
    ///
    /// # Safety
    /// As for [`Kernel::new`].
    pub unsafe fn with_capacity(capacity: Capacity) -> Self {
        assert!(capacity.tasks <= Self::MAX_TASKS, "a kernel has no room for so many tasks");
        // SAFETY: by the contract.
        let tasks = unsafe { Tasks::new() };
        let keepers = Keepers::new(tasks, domain(), unwind_tables(), capacity);
        keepers.take_seat(KeeperId::ROOT).expect("nobody serves yet");
        Self { keepers, served: Cell::new(1 << KeeperId::ROOT.number()), serving: Cell::new(false) }
    }

    /// Sets the policy of tasks that name none.
    #[must_use]
    pub fn with_default_policy(mut self, policy: &'static dyn Policy) -> Self {
        self.keepers = self.keepers.with_default_policy(policy);
        self
    }

    /// Changes what can be set of its keepers before there is anything for them.
    #[must_use]
    pub fn configured(mut self, set: impl FnOnce(Keepers<Tasks>) -> Keepers<Tasks>) -> Self {
        self.keepers = set(self.keepers);
        self
    }

    /// Registers a keeper: see [`Keepers::register`]. The kernel's owner serves for it, as for the
    /// root; [`spawn_keeper`](Self::spawn_keeper) is for one that is a task.
    ///
    /// # Errors
    /// As [`Keepers::register`].
    pub fn register(
        &self,
        parent: KeeperId,
        policy: &'static dyn Policy,
        patience: u64,
    ) -> Result<KeeperId, RegisterError> {
        let keeper = self.keepers.register(parent, policy, patience)?;
        self.keepers.take_seat(keeper)?;
        self.served.set(self.served.get() | 1 << keeper.number());
        Ok(keeper)
    }

    /// A task that serves `keeper`, which has been [registered](Keepers::register) and is nobody's
    /// yet: for keepers that may die themselves. It gives `told` what the keeper reports, and
    /// sleeps when there is nothing to serve. Its own deaths are its parent's to rule on.
    ///
    /// It cannot allocate memory: who is killed in the middle of that takes the allocator with it.
    ///
    /// # Panics
    /// As [`Kernel::spawn`]; and if the task has too high a number to sleep.
    pub fn spawn_keeper(
        &'static self,
        keeper: KeeperId,
        told: impl Fn(Result<&Report, NoSuchTask>) + Send + 'static,
    ) -> TaskId {
        let entry = move || {
            let mut seat = self.keepers.sit(keeper, self.tasks().running()).expect("a free seat");
            loop {
                if !seat.serve(&told) {
                    Hosted::park();
                }
            }
        };
        let task = self.room().spawn_keeper(Box::new(entry));
        assert!((task.index as usize) < Hosted::TASKS, "a keeper sleeps");
        task
    }

    /// A task that will run `entry`, and again from its beginning if it is restarted. It does not
    /// run yet.
    ///
    /// What `entry` owns is dropped with the kernel. What a dead task's frames own is leaked, but
    /// for what is tracked.
    ///
    /// # Panics
    /// If there have been [`Kernel::MAX_TASKS`] already.
    pub fn spawn(&self, entry: impl Fn() + Send + 'static) -> TaskId {
        self.room().spawn(None, |machine| machine.spawn_restartable(entry))
    }

    /// As [`Kernel::spawn`], with the policy that rules if the task dies.
    ///
    /// # Panics
    /// As [`Kernel::spawn`].
    pub fn spawn_with_policy(
        &self,
        policy: &'static dyn Policy,
        entry: impl Fn() + Send + 'static,
    ) -> TaskId {
        self.room().spawn(Some(policy), |machine| machine.spawn_restartable(entry))
    }

    /// A task whose `entry` can run only once: it ends where another one would be restarted.
    ///
    /// # Panics
    /// As [`Kernel::spawn`].
    pub fn spawn_once(&self, entry: impl FnOnce() + Send + 'static) -> TaskId {
        self.room().spawn(None, |machine| machine.spawn(entry))
    }

    /// As [`Kernel::spawn_once`], with the policy that rules if the task dies.
    ///
    /// # Panics
    /// As [`Kernel::spawn`].
    pub fn spawn_once_with_policy(
        &self,
        policy: &'static dyn Policy,
        entry: impl FnOnce() + Send + 'static,
    ) -> TaskId {
        self.room().spawn(Some(policy), |machine| machine.spawn(entry))
    }

    fn room(&self) -> &Tasks {
        assert!(self.tasks().count() < Self::MAX_TASKS, "no room for another task");
        self.tasks()
    }

    /// Runs all tasks in turn, and the keeper as soon as there is something for it, until no task
    /// can go on: each has ended, is held, or sleeps. Returns what the keeper reported.
    ///
    /// It does not come back while some task goes on for ever: see [`Kernel::run_turns`].
    pub fn run(&self) -> Vec<Report> {
        let mut reports = Vec::new();
        while self.run_once(&mut reports) {}
        reports
    }

    /// As [`Kernel::run`], but every task has at most so many turns. A turn ends when the task
    /// stops by itself, and at the latest after a millisecond of CPU time, or somewhat more: where
    /// the system's clock ticks, and the task is not in the middle of a library's code.
    pub fn run_turns(&self, turns: usize) -> Vec<Report> {
        let mut reports = Vec::new();
        for _ in 0..turns {
            if !self.run_once(&mut reports) {
                break;
            }
        }
        reports
    }

    /// Gives every task that can run a turn. Returns whether there was anything to do.
    fn run_once(&self, reports: &mut Vec<Report>) -> bool {
        let mut served = self.serve();
        let mut any_ran = !served.is_empty();
        reports.append(&mut served);
        for number in 0..self.tasks().count() {
            let Some(task) = self.tasks().ready(number) else { continue };
            self.turn(task, Turn::Slice(SLICE));
            reports.append(&mut self.serve());
            any_ran = true;
        }
        any_ran
    }

    /// Runs one task for at most so many instructions, and says why it stopped. If it died, the
    /// keeper has not [served](Kernel::serve) that yet.
    ///
    /// # Panics
    /// If the task has ended, or is in its keeper's hands.
    pub fn step(&self, task: TaskId, instructions: u64) -> Stop {
        assert_eq!(self.tasks().state(task), TaskState::Ready, "task {task} cannot run");
        self.turn(task, Turn::Instructions(instructions))
    }

    /// Runs a task, and tells its keeper if it has died.
    fn turn(&self, task: TaskId, turn: Turn) -> Stop {
        let began = self.tasks().now();
        let (stop, fault) = self.tasks().run(task, turn);
        match fault {
            Some(fault) => self.post(task, fault),
            None if stop == Stop::Finished => self.keepers.finished(task),
            None => {}
        }
        self.charge(task, self.tasks().now() - began);
        stop
    }

    /// Charges all tasks, as a timer's trap does that has interrupted `running`.
    fn charge(&self, running: TaskId, ran: u64) {
        let now = self.tasks().now();
        for (task, ledger) in self.tasks().ledgers() {
            let usage = Usage { now, ran: if task == running { ran } else { 0 }, ledger };
            let is_waited_for = |lock| {
                self.tasks().ledgers().any(|(other, it)| other != task && it.waiting() == lock)
            };
            if self.tasks().state(task) == TaskState::Ready
                && let Some(kind) = self.keepers.charge(task, &usage, is_waited_for)
            {
                self.fault(task, |rip| FaultInfo::metered(kind, rip));
            }
        }
    }

    /// Freezes a task where it stands as if it had faulted, and tells its keeper. If the task
    /// cannot run, nothing happens.
    ///
    /// # Panics
    /// As [`Kernel::kill`]; and if nobody keeps the task.
    pub fn fault(&self, task: TaskId, fault: impl FnOnce(u64) -> FaultInfo) {
        if self.tasks().freeze(task) {
            self.post(task, fault(self.tasks().instruction_pointer(task)));
        }
    }

    fn post(&self, task: TaskId, fault: FaultInfo) {
        let posted = self.keepers.post(task, fault, self.tasks().now());
        posted.expect("a frozen task does not fault again");
    }

    /// Has the keepers for which the owner serves deal with all that was posted to them, and
    /// returns what they reported. Notices of tasks that are gone meanwhile are passed over.
    pub fn serve(&self) -> Vec<Report> {
        let mut reports = Vec::new();
        while let Some(told) = self.serve_one() {
            reports.extend(told.ok());
        }
        reports
    }

    /// Has keepers deal with notices until a case is closed, and returns what was reported of it;
    /// `None` if there is nothing left to do.
    ///
    /// # Panics
    /// If it is called by a policy.
    pub fn serve_one(&self) -> Option<Result<Report, NoSuchTask>> {
        assert!(!self.serving.replace(true), "a policy cannot serve");
        self.keepers.tick(self.tasks().now(), |late| self.fault(late, FaultInfo::overdue));
        let mut answer = None;
        let served = |number: &u8| self.served.get() & 1 << number != 0;
        let all = || (0..KeeperId::MAX as u8).filter(served).map(KeeperId::from_number);
        // Each time from the root on: what keepers leave to those above is dealt with first.
        while answer.is_none()
            && all()
                .any(|keeper| self.keepers.serve_for(keeper, |told| answer = Some(told.cloned())))
        {
        }
        self.serving.set(false);
        answer
    }

    /// Ends a task where it stands, at the latest by the next [`run`](Self::run) or
    /// [`serve`](Self::serve).
    ///
    /// # Panics
    /// If there is no room for a task with that number.
    pub fn kill(&self, task: TaskId) {
        self.keepers.kill(task).expect("room for the task");
    }

    /// Lets go of a task that is held, as [`Kernel::kill`] ends one.
    ///
    /// # Panics
    /// As [`Kernel::kill`].
    pub fn release(&self, task: TaskId) {
        self.keepers.release(task).expect("room for the task");
    }

    /// Lets time pass at once, for everything that is due later: a deadline, a delayed restart.
    pub fn pass(&self, time: Duration) {
        self.tasks().pass(time);
    }

    /// Calls `look` with a task that does not run, and has not ended.
    ///
    /// # Panics
    /// If it has, or runs.
    pub fn with_task<T>(&self, task: TaskId, look: impl FnOnce(&FrozenTask<'_>) -> T) -> T {
        assert_ne!(self.state(task), TaskState::Dead, "task {task} has ended");
        self.tasks().look_at(task, look)
    }

    /// Where the task is in its life: `Ready` if it could run or sleeps, `Frozen` if its keeper has
    /// it, `Held`, or `Dead`, which is also that of a stale id.
    pub fn state(&self, task: TaskId) -> TaskState {
        self.tasks().state(task)
    }

    /// Calls `look` with the wait-for graph of all tasks that live, held ones included. No task
    /// runs meanwhile, so a deadlock that is in it is one.
    pub fn with_wait_for_graph<T>(
        &self,
        look: impl FnOnce(&WaitForGraph<'_, { Self::MAX_TASKS }>) -> T,
    ) -> T {
        self.tasks().with_wait_for_graph(look)
    }

    /// The keepers.
    pub fn keepers(&self) -> &Keepers<Tasks> {
        &self.keepers
    }

    fn tasks(&self) -> &Tasks {
        self.keepers.platform()
    }
}
