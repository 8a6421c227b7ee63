//! The machine, and what its owner can do with its tasks.
#![expect(unsafe_code, reason = "runs and freezes tasks")]

use core::cell::{Cell, OnceCell, UnsafeCell};
use core::fmt;
use core::ptr::NonNull;
use core::sync::atomic::{Ordering, compiler_fence};
use core::time::Duration;
use std::boxed::Box;
use std::vec::Vec;

use task_model::{FaultInfo, FrozenTask, RegisterFile, TaskId};

use super::current::{CURSOR, END, LEDGER, Stop, WANTED_DEAD};
use super::domain::domain;
use super::panic_note::{PANIC_NOTE, note_panics};
use super::parking;
use super::signals::{self, Cpu, Trap};
use super::task::{Body, Task};
use super::timer::Timer;
use crate::{Cursor, Ledger, NoRecoveryPoint, RecoveryPoint, Settled, reclaim, settle};

/// A machine of one CPU, which is the thread that made it; and its tasks, of which one runs when
/// its owner says so.
///
/// It is shared, so that a task can be the one that stops, restarts and retires others: what that
/// changes is in cells, and in an order that a task may be killed in the middle of. Nothing is
/// moved or freed as long as the machine lives, since a task may be interrupted while it looks at
/// it.
pub struct Machine {
    cpu: Box<UnsafeCell<Cpu>>,
    /// By number.
    tasks: Box<[OnceCell<Task>]>,
    /// The one that runs.
    running: Cell<Option<TaskId>>,
    timer: OnceCell<Timer>,
}

impl Machine {
    /// How many tasks there can be in a machine's life, not counting restarts.
    pub const MAX_TASKS: usize = 1024;

    /// A machine for this thread.
    ///
    /// # Panics
    /// If the thread has one already.
    ///
    /// # Safety
    /// A process has more that tasks can share, or be stopped in the middle of, than a kernel that
    /// is written for this crate. As long as the machine lives:
    /// - All tasks have the thread of their machine's owner. What tasks, or a task and the owner,
    ///   share by its thread-locals is changed by single stores, as between a program and its signal
    ///   handlers; and no guard or handle goes from one to another that way.
    /// - A task that stands in code that is not made for being interrupted on its own thread (the
    ///   process's allocator, what `std` prints with) is not killed there; and while it stands
    ///   there, nobody else calls that code. [`Machine::run_slice`] stops no task in a shared
    ///   library, as the C library's allocator is one; a budget may stop it anywhere.
    /// - What [`CurrentLedger`](crate::CurrentLedger) asks for of tasks that die: nobody goes on to
    ///   use what a dead task got through a guard that it has leaked, or lent; nor moves or frees a
    ///   lock whose guard was forgotten.
    /// - What [`Parker`](crate::Parker) asks for: a task sleeps for nothing that a task of another
    ///   machine, be it of another thread or of an earlier time, sleeps for or has slept for when it
    ///   went. Their numbers are the same.
    /// - A task whose registers or stack somebody has written to (by [`Machine::frozen`], or in a
    ///   policy) stands as it could have come to stand by itself; or it is not run, killed nor
    ///   recovered any more.
    ///
    /// And when the machine is dropped, nothing uses the stacks of tasks that have not finished,
    /// killed ones among them, and what the closures of these own is not torn.
    pub unsafe fn new() -> Self {
        let cpu = Box::new(UnsafeCell::new(Cpu::new()));
        Cpu::attach(cpu.get());
        parking::clear();
        note_panics();
        let tasks = (0..Self::MAX_TASKS).map(|_| OnceCell::new()).collect();
        Self { cpu, tasks, running: Cell::new(None), timer: OnceCell::new() }
    }

    /// A task that will run `entry`. It does not run yet. `Send`, as between threads: tasks share
    /// this one, but interrupt each other between any two instructions.
    ///
    /// If the task is killed, what `entry` owns is leaked, but for what its ledger lists.
    pub fn spawn(&self, entry: impl FnOnce() + Send + 'static) -> TaskId {
        // SAFETY: it is `Send`.
        unsafe { self.spawn_unchecked(Box::new(entry)) }
    }

    /// As [`Machine::spawn`], for an entry that is boxed already, and that the compiler does not
    /// know to be `Send`.
    ///
    /// # Safety
    /// Nothing that `entry` has or shares is used by another task, or outside of tasks, in a way
    /// that its types do not allow between threads: a task is interrupted between any two
    /// instructions.
    pub unsafe fn spawn_unchecked(&self, entry: Box<dyn FnOnce()>) -> TaskId {
        let mut entry = Some(entry);
        self.enter(Box::new(move || entry.take().expect("runs once")()), false)
    }

    /// A task that will run `entry`, and again from the beginning if it is
    /// [restarted](Machine::restart).
    pub fn spawn_restartable(&self, entry: impl Fn() + Send + 'static) -> TaskId {
        self.enter(Box::new(entry), true)
    }

    /// As [`Machine::spawn_restartable`], for an entry that the compiler does not know to be
    /// `Send`.
    ///
    /// # Safety
    /// As [`Machine::spawn_unchecked`].
    pub unsafe fn spawn_restartable_unchecked(&self, entry: Box<dyn Fn()>) -> TaskId {
        self.enter(Box::new(entry), true)
    }

    fn enter(&self, entry: Body, restartable: bool) -> TaskId {
        assert!(!signals::in_task(), "a task may be killed, and the allocator with it");
        let number = self.tasks().count();
        let place = self.tasks.get(number).expect("room for another task");
        let ledger: &'static Ledger = Box::leak(Box::default());
        parking::enter(number, ledger);
        let task = Task::new(number as u32, entry, restartable, ledger);
        let task = place.get_or_init(|| task);
        task.id()
    }

    /// Ends this life of a task, and begins the next one in its place: from its entry, on another
    /// stack, with an empty ledger. Returns its new id; `None`, with nothing changed, if its entry
    /// can run only once.
    ///
    /// A task that does this may be killed at any instruction of it. Unless the task that it is
    /// about has its new id by then, nobody else sees anything of that, and it is to be done again.
    ///
    /// # Panics
    /// If there is no such task.
    ///
    /// # Safety
    /// It does not run, what it held has been settled, or it held nothing, and what
    /// [`seize`](Self::seize) has returned of this life is used no more.
    pub unsafe fn restart(&self, id: TaskId) -> Option<TaskId> {
        let task = self.task(id);
        if !task.restartable {
            return None;
        }
        // SAFETY: this life of the task ends here, and by the contract is settled.
        unsafe { task.ledger.reset() };
        task.cursor.set(Some(Cursor::first(task.ledger)));
        task.stacks.renew();
        // SAFETY: this function's contract.
        unsafe { task.stand_at_entry() };
        task.end.set(None);
        task.panic_note.set(None);
        task.parked.set(false);
        task.alive.set(true);
        parking::enter(id.index as usize, task.ledger);
        let next = id.next_generation();
        // In this order, whoever looks: there is one thread, and it is interrupted by signals.
        compiler_fence(Ordering::SeqCst);
        task.generation.set(next.generation);
        Some(next)
    }

    /// Has a task stop at its next [`safepoint`](crate::safepoint).
    ///
    /// # Panics
    /// If there is no such task.
    pub fn pull_kill_switch(&self, id: TaskId) {
        self.task(id).wanted_dead.set(Some(id.generation));
        if self.running.get() == Some(id) {
            WANTED_DEAD.set(true);
        }
    }

    /// Ends a task where it stands. What it holds stays held, until somebody who has
    /// [seized](Self::seize) it settles that.
    ///
    /// # Panics
    /// If there is no such task.
    pub fn retire(&self, id: TaskId) {
        self.task(id).alive.set(false);
    }

    /// Runs a task until it stops; with a budget, for at most so many instructions. A task that is
    /// parked, and has not been unparked since, does not run.
    ///
    /// # Panics
    /// If there is no such task, or it has ended; and if a task calls this.
    pub fn run(&self, id: TaskId, budget: Option<u64>) -> Stop {
        assert!(!signals::in_task(), "tasks are run by the machine's owner");
        let asleep = self.is_asleep(id);
        let task = self.live(id);
        if asleep {
            return Stop::Parked;
        }
        task.parked.set(false);
        let context = task.context.get();
        let outer = (LEDGER.replace(task.ledger), CURSOR.replace(task.cursor.get()));
        END.set(task.end.take());
        PANIC_NOTE.set(task.panic_note.get());
        WANTED_DEAD.set(task.wanted_dead.get() == Some(id.generation));
        self.running.set(Some(id));
        // SAFETY: the machine is attached to this thread, and the task stands at its entry or
        // where it last stopped; its stack and ledger live as long as the machine.
        let trap = unsafe { Cpu::run(self.cpu.get(), context, budget) };
        self.running.set(None);
        WANTED_DEAD.set(false);
        LEDGER.set(outer.0);
        task.cursor.set(CURSOR.replace(outer.1));
        let end = END.take();
        task.panic_note.set(PANIC_NOTE.take());
        let stop = match trap {
            // It may have stopped between saying why it would stop and stopping.
            Trap::Budget => {
                task.end.set(end);
                Stop::BudgetSpent
            }
            Trap::Call => end.unwrap_or(Stop::Yielded),
            Trap::Fault { vector, error_code, address } => {
                // SAFETY: it has stopped, and who looks at it as a keeper lets go of it before it
                // runs.
                let rip = unsafe { (*context).registers.rip };
                let bounds = task.stacks.bounds();
                Stop::Faulted(FaultInfo::from_trap(vector, error_code, address, rip, &bounds))
            }
        };
        task.parked.set(stop == Stop::Parked);
        if stop == Stop::Finished {
            task.alive.set(false);
        }
        stop
    }

    /// The task that runs, of those that call this.
    pub fn running(&self) -> Option<TaskId> {
        self.running.get()
    }

    /// Runs a task until it stops, for at most about this much CPU time.
    ///
    /// It is not stopped in the middle of a library's code, where it may hold a lock of the
    /// library's. So tasks may use the system's allocator, which is the C library's.
    ///
    /// # Panics
    /// As [`Machine::run`].
    pub fn run_slice(&self, id: TaskId, slice: Duration) -> Stop {
        let _armed = self.timer.get_or_init(Timer::new).arm(slice);
        self.run(id, None)
    }

    /// Runs a task by single steps until it stops of itself. Returns after how many instructions,
    /// and why.
    ///
    /// # Panics
    /// As [`Machine::run`].
    pub fn count_instructions(&self, id: TaskId) -> (u64, Stop) {
        let mut executed = 0;
        loop {
            match self.run(id, Some(1)) {
                Stop::BudgetSpent => executed += 1,
                stop => return (executed, stop),
            }
        }
    }

    /// Runs every living task in turn, each until it stops of itself, until all have ended. Those
    /// that are parked are passed over until they are unparked.
    ///
    /// # Errors
    /// The first task that faults or panics, and how; or the first one alive, if all that are
    /// alive are parked.
    pub fn run_all(&self) -> Result<(), (TaskId, Stop)> {
        while self.tasks().any(|task| task.alive.get()) {
            let mut first_asleep = None;
            let mut any_ran = false;
            for task in self.tasks() {
                let id = task.id();
                if !task.alive.get() {
                    continue;
                }
                if self.is_asleep(id) {
                    first_asleep.get_or_insert(id);
                    continue;
                }
                any_ran = true;
                match self.run(id, None) {
                    Stop::Yielded | Stop::Parked | Stop::Finished => {}
                    stop => return Err((id, stop)),
                }
            }
            if let (false, Some(id)) = (any_ran, first_asleep) {
                return Err((id, Stop::Parked));
            }
        }
        Ok(())
    }

    /// The registers of a task that does not run.
    ///
    /// # Panics
    /// If there is no such task.
    pub fn registers(&mut self, id: TaskId) -> &RegisterFile {
        // SAFETY: the machine is borrowed exclusively, so no task runs.
        unsafe { &(*self.task(id).context.get()).registers }
    }

    /// The ledgers of all tasks that live.
    pub fn ledgers(&self) -> impl Iterator<Item = (TaskId, &Ledger)> {
        self.tasks().filter(|task| task.alive.get()).map(|task| (task.id(), task.ledger))
    }

    /// A task that does not run, as a keeper sees it, and its ledger.
    ///
    /// # Panics
    /// If there is no such task.
    pub fn frozen(&mut self, id: TaskId) -> (FrozenTask<'_>, &Ledger) {
        // SAFETY: the machine is borrowed exclusively for as long as either exists.
        unsafe { self.seize(id) }
    }

    /// As [`Machine::frozen`], for as long as the caller says. Tasks may call it, of others.
    ///
    /// # Panics
    /// If there is no such task, or it is the one that calls this.
    ///
    /// # Safety
    /// Until both are gone, the machine lives and does not run the task. Once they have been used
    /// for settling it, it is run no more, unless it has been [restarted](Machine::restart).
    pub unsafe fn seize<'a>(&self, id: TaskId) -> (FrozenTask<'a>, &'a Ledger) {
        assert_ne!(self.running.get(), Some(id), "no task is frozen while it runs");
        let task = self.task(id);
        // SAFETY: the context is in a box, which lives as long as the machine: by the contract, for
        // `'a`. A task's registers are all in its context when it does not run.
        // The stack stays mapped as long as the machine lives.
        unsafe {
            let registers = NonNull::new_unchecked(&raw mut (*task.context.get()).registers);
            (FrozenTask::new(id, registers, task.stacks.bounds()), task.ledger)
        }
    }

    /// Which life of the task with this number is the present one; `None` if there is no such task.
    pub fn life(&self, number: usize) -> Option<TaskId> {
        Some(self.tasks.get(number)?.get()?.id())
    }

    /// What this life of the task said in its last panic, and where, if it has panicked. A panic
    /// hook notes that, which a hook that is set later may take away.
    pub fn panic_note(&self, id: TaskId) -> Option<&str> {
        Some(self.find(id)?.panic_note.get()?.as_str())
    }

    /// Whether the task has neither ended nor been killed.
    pub fn is_alive(&self, id: TaskId) -> bool {
        self.find(id).is_some_and(|task| task.alive.get())
    }

    /// Whether the task is parked, and has not been unparked since.
    pub fn is_asleep(&self, id: TaskId) -> bool {
        self.find(id).is_some_and(|task| {
            task.alive.get() && task.parked.get() && !parking::is_unparked(id.index as usize)
        })
    }

    /// Ends a task where it stands, and gives up all it holds. Returns what was done, in both
    /// steps.
    ///
    /// # Panics
    /// If there is no such task, or it has ended. What a repair routine or a destructor panics with
    /// passes through; the task is dead then, and what was left to be given up stays held.
    pub fn kill(&mut self, id: TaskId) -> Vec<Settled> {
        let mut settled = Vec::new();
        // First, for what is reclaimed calls back, and may panic.
        self.live(id).alive.set(false);
        let (frozen, ledger) = self.frozen(id);
        // SAFETY: the task is dead, so it never runs again, and nobody else settles it. What it
        // holds is alive, as whoever made the machine promised.
        unsafe {
            settle(&frozen, ledger, &domain(), |one| settled.push(one));
            reclaim(ledger, &domain(), |one| settled.push(one));
        }
        settled
    }

    /// Brings a task to its innermost recovery point, as if what it did since had stopped at
    /// `fault`, and gives up all it acquired since. Returns what was done, in both steps.
    ///
    /// # Errors
    /// If it is in none, and nothing is done; or that is damaged.
    ///
    /// # Panics
    /// As [`Machine::kill`].
    pub fn recover(
        &mut self,
        id: TaskId,
        fault: FaultInfo,
    ) -> Result<Vec<Settled>, NoRecoveryPoint> {
        let mut settled = Vec::new();
        // Dead until it has landed, for what is reclaimed calls back, and may panic.
        self.live(id).alive.set(false);
        let (mut frozen, ledger) = self.frozen(id);
        let landed = RecoveryPoint::innermost(&frozen, ledger).map(|point| {
            // SAFETY: the task does not run before it has landed, and nobody else settles it. What
            // it holds is alive, as whoever made the machine promised.
            unsafe {
                point.settle(&frozen, ledger, &domain(), |one| settled.push(one));
                point.reclaim(ledger, &domain(), |one| settled.push(one));
                point.land(&mut frozen, ledger, fault);
            }
        });
        self.task(id).alive.set(true);
        landed?;
        self.rouse(id);
        Ok(settled)
    }

    /// Has a task go on that is parked. (It parks again, unless its registers have been changed.)
    ///
    /// # Panics
    /// If there is no such task, or it has ended.
    pub fn rouse(&self, id: TaskId) {
        self.live(id).parked.set(false);
    }

    fn tasks(&self) -> impl Iterator<Item = &Task> {
        self.tasks.iter().map_while(OnceCell::get)
    }

    fn find(&self, id: TaskId) -> Option<&Task> {
        self.tasks.get(id.index as usize)?.get().filter(|task| task.id() == id)
    }

    fn task(&self, id: TaskId) -> &Task {
        self.find(id).unwrap_or_else(|| panic!("there is no task {id}"))
    }

    fn live(&self, id: TaskId) -> &Task {
        let task = self.task(id);
        assert!(task.alive.get(), "task {id} has ended");
        task
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        Cpu::detach();
    }
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Machine").field("tasks", &self.tasks().count()).finish_non_exhaustive()
    }
}
