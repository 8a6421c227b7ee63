//! The machine, its tasks, and what their owner can do with them.
#![expect(unsafe_code, reason = "runs and freezes tasks")]

use core::arch::naked_asm;
use core::cell::{Cell, UnsafeCell};
use core::fmt;
use core::mem;
use core::panic::AssertUnwindSafe;
use core::ptr::NonNull;
use core::time::Duration;
use std::boxed::Box;
use std::panic::catch_unwind;
use std::thread_local;
use std::vec::Vec;

use task_model::{FaultInfo, FrozenTask, Gpr, RegisterFile, TaskId};

use super::domain::domain;
use super::parking;
use super::signals::{self, Cpu, Trap};
use super::stack::Stack;
use super::switch::Context;
use super::timer::Timer;
use crate::{CurrentLedger, Heap, HeapMemory, Ledger, Settled, TrackedHeap, reclaim, settle};

/// Enough for a test's own frames and the standard library's.
const STACK_BYTES: usize = 256 * 1024;

thread_local! {
    /// The ledger of whoever runs on this thread.
    static LEDGER: Cell<*const Ledger> = const { Cell::new(core::ptr::null()) };
    /// What the driver's own code holds, outside of all tasks.
    static BOOT_LEDGER: &'static Ledger = Box::leak(Box::default());
    /// Why the running task is about to stop by itself, if not to yield.
    static END: Cell<Option<Stop>> = const { Cell::new(None) };
}

/// The current task of this thread's [`Machine`], for the `L` of locks and handles. Outside of
/// tasks, the thread itself.
#[derive(Debug)]
pub struct Hosted;

// SAFETY: each task has a ledger of its own for ever, and `Machine::run`
// sets `LEDGER` to it before it runs and back afterwards. The driver has one for the thread.
unsafe impl CurrentLedger for Hosted {
    #[inline(always)]
    fn current() -> NonNull<Ledger> {
        NonNull::new(LEDGER.get().cast_mut()).unwrap_or_else(boot_ledger)
    }
}

impl TrackedHeap for Hosted {
    fn heap() -> &'static Heap {
        static MEMORY: HeapMemory<256> = HeapMemory::new();
        static HEAP: Heap = Heap::new(&MEMORY);
        &HEAP
    }
}

#[cold]
fn boot_ledger() -> NonNull<Ledger> {
    BOOT_LEDGER.with(|ledger| NonNull::from(*ledger))
}

/// Why a task gave the thread back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// It has executed as many instructions, or run for as long, as it was given. It can be run on.
    BudgetSpent,
    /// It called [`yield_now`]. It can be run on.
    Yielded,
    /// It sleeps in [`Parker::park`](crate::Parker::park). It can be run on once it is unparked.
    Parked,
    /// It cannot go on as it stands.
    Faulted(FaultInfo),
    /// Its entry has returned.
    Finished,
    /// Its entry has panicked, and its own frames have been unwound.
    Panicked,
}

/// Lets the machine's owner run something else. Outside of tasks, yields the thread.
pub fn yield_now() {
    if signals::in_task() {
        signals::call_driver();
    } else {
        std::thread::yield_now();
    }
}

/// Gives the thread back to the machine's owner, and says why.
pub(super) fn stop_running(why: Stop) {
    END.set(Some(why));
    signals::call_driver();
}

/// What begins on a task's stack. It is the machine's, so that no task frees memory by itself, and
/// none can be killed in the middle of that.
type Entry = Box<dyn FnMut()>;

struct Task {
    id: TaskId,
    stack: Stack,
    entry: Box<Entry>,
    /// Whether the entry can be run again.
    restartable: bool,
    /// Not freed with the machine: the word of a static lock may name it for ever.
    ledger: &'static Ledger,
    context: Box<UnsafeCell<Context>>,
    /// What `END` is while it runs.
    end: Option<Stop>,
    parked: bool,
    alive: bool,
}

/// A machine of one CPU, which is the thread that made it; and its tasks, of which one runs when
/// its owner says so.
pub struct Machine {
    cpu: Box<UnsafeCell<Cpu>>,
    tasks: Vec<Task>,
    /// Of lives that are over. They stay mapped: something may point into them still.
    old_stacks: Vec<Stack>,
    timer: Option<Timer>,
}

impl Machine {
    /// A machine for this thread.
    ///
    /// # Panics
    /// If the thread has one already.
    #[expect(clippy::new_without_default, reason = "it attaches itself to the thread")]
    pub fn new() -> Self {
        let cpu = Box::new(UnsafeCell::new(Cpu::new()));
        Cpu::attach(cpu.get());
        parking::clear();
        Self { cpu, tasks: Vec::new(), old_stacks: Vec::new(), timer: None }
    }

    /// A task that will run `entry`. It does not run yet.
    ///
    /// If the task is killed, what `entry` owns is leaked, but for what its ledger lists.
    pub fn spawn(&mut self, entry: impl FnOnce() + 'static) -> TaskId {
        self.spawn_boxed(Box::new(entry))
    }

    /// As [`Machine::spawn`], for an entry that is boxed already.
    pub fn spawn_boxed(&mut self, entry: Box<dyn FnOnce()>) -> TaskId {
        let mut entry = Some(entry);
        self.enter(Box::new(move || entry.take().expect("runs once")()), false)
    }

    /// A task that will run `entry`, and again from the beginning if it is
    /// [restarted](Machine::restart).
    pub fn spawn_restartable(&mut self, entry: impl Fn() + 'static) -> TaskId {
        self.enter(Box::new(entry), true)
    }

    fn enter(&mut self, entry: Entry, restartable: bool) -> TaskId {
        let id = TaskId::first(self.tasks.len() as u32);
        let ledger: &'static Ledger = Box::leak(Box::default());
        parking::enter(self.tasks.len(), ledger);
        let mut task = Task {
            id,
            stack: Stack::new(STACK_BYTES),
            entry: Box::new(entry),
            restartable,
            ledger,
            context: Box::new(UnsafeCell::new(Context::new())),
            end: None,
            parked: false,
            alive: true,
        };
        task.stand_at_entry();
        self.tasks.push(task);
        id
    }

    /// Ends this life of a task, and begins the next one in its place: from its entry, on another
    /// stack, with an empty ledger. Returns its new id; `None`, with nothing changed, if its entry
    /// can run only once.
    ///
    /// # Panics
    /// If there is no such task.
    ///
    /// # Safety
    /// What the task held has been settled, or it held nothing.
    pub unsafe fn restart(&mut self, id: TaskId) -> Option<TaskId> {
        let task = self.task(id);
        if !task.restartable {
            return None;
        }
        // SAFETY: this life of the task ends here, and by the contract is settled.
        unsafe { task.ledger.reset() };
        task.id = id.next_generation();
        (task.end, task.parked, task.alive) = (None, false, true);
        let (next, old_stack) = (task.id, mem::replace(&mut task.stack, Stack::new(STACK_BYTES)));
        task.stand_at_entry();
        parking::enter(id.index as usize, task.ledger);
        self.old_stacks.push(old_stack);
        Some(next)
    }

    /// Ends a task where it stands. What it holds stays held: [`Machine::kill`] gives that up.
    ///
    /// # Panics
    /// If there is no such task.
    pub fn retire(&mut self, id: TaskId) {
        self.task(id).alive = false;
    }

    /// Runs a task until it stops; with a budget, for at most so many instructions. A task that is
    /// parked, and has not been unparked since, does not run.
    ///
    /// # Panics
    /// If there is no such task, or it has ended.
    pub fn run(&mut self, id: TaskId, budget: Option<u64>) -> Stop {
        let asleep = self.is_asleep(id);
        let task = self.live(id);
        if asleep {
            return Stop::Parked;
        }
        task.parked = false;
        let (context, bounds) = (task.context.get(), task.stack.bounds());
        let outer = LEDGER.replace(task.ledger);
        END.set(task.end.take());
        // SAFETY: the machine is attached to this thread, and the task stands at its entry or
        // where it last stopped; its stack and ledger live as long as the machine.
        let trap = unsafe { Cpu::run(self.cpu.get(), context, budget) };
        LEDGER.set(outer);
        let end = END.take();
        let stop = match trap {
            // It may have stopped between saying why it would stop and stopping.
            Trap::Budget => {
                self.task(id).end = end;
                Stop::BudgetSpent
            }
            Trap::Call => end.unwrap_or(Stop::Yielded),
            Trap::Fault { vector, error_code, address } => {
                let rip = self.registers(id).rip;
                Stop::Faulted(FaultInfo::from_trap(vector, error_code, address, rip, &bounds))
            }
        };
        self.task(id).parked = stop == Stop::Parked;
        if matches!(stop, Stop::Finished | Stop::Panicked) {
            self.task(id).alive = false;
        }
        stop
    }

    /// Runs a task until it stops, for at most about this much CPU time.
    ///
    /// It is not stopped in the middle of a library's code, where it may hold a lock of the
    /// library's. So tasks may use the system's allocator, which is the C library's.
    ///
    /// # Panics
    /// As [`Machine::run`].
    pub fn run_slice(&mut self, id: TaskId, slice: Duration) -> Stop {
        self.timer.get_or_insert_with(Timer::new).arm(slice);
        let stop = self.run(id, None);
        self.timer.iter().for_each(Timer::disarm);
        stop
    }

    /// Runs every living task in turn, each until it stops of itself, until all have ended. Those
    /// that are parked are passed over until they are unparked.
    ///
    /// # Errors
    /// The first task that faults or panics, and how; or the first one alive, if all that are
    /// alive are parked.
    pub fn run_all(&mut self) -> Result<(), (TaskId, Stop)> {
        while self.tasks.iter().any(|task| task.alive) {
            let mut first_asleep = None;
            let mut any_ran = false;
            for index in 0..self.tasks.len() {
                let id = self.tasks[index].id;
                if !self.tasks[index].alive {
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
        self.tasks.iter().filter(|task| task.alive).map(|task| (task.id, task.ledger))
    }

    /// A task that does not run, as a keeper sees it, and its ledger.
    ///
    /// # Panics
    /// If there is no such task.
    pub fn frozen(&mut self, id: TaskId) -> (FrozenTask<'_>, &Ledger) {
        // SAFETY: the machine is borrowed exclusively for as long as either exists.
        unsafe { self.seize(id) }
    }

    /// As [`Machine::frozen`], for as long as the caller says.
    ///
    /// # Panics
    /// If there is no such task.
    ///
    /// # Safety
    /// Until both are gone, the machine lives and does not run the task. Once they have been used
    /// for settling it, it is run no more, unless it has been [restarted](Machine::restart).
    pub unsafe fn seize<'a>(&mut self, id: TaskId) -> (FrozenTask<'a>, &'a Ledger) {
        let task = self.task(id);
        // SAFETY: the context is in a box, which lives as long as the machine: by the contract, for
        // `'a`. A task's registers are all in its context when it does not run.
        // The stack stays mapped as long as the machine lives.
        unsafe {
            let registers = NonNull::new_unchecked(&raw mut (*task.context.get()).registers);
            (FrozenTask::new(id, registers, task.stack.bounds()), task.ledger)
        }
    }

    /// Whether the task has neither ended nor been killed.
    pub fn is_alive(&self, id: TaskId) -> bool {
        self.tasks.get(id.index as usize).is_some_and(|task| task.id == id && task.alive)
    }

    /// Whether the task is parked, and has not been unparked since.
    pub fn is_asleep(&self, id: TaskId) -> bool {
        let task = self.tasks.get(id.index as usize).filter(|task| task.id == id && task.alive);
        task.is_some_and(|task| task.parked && !parking::is_unparked(id.index as usize))
    }

    /// Ends a task where it stands, and gives up all it holds. Returns what was done, in both
    /// steps.
    ///
    /// # Panics
    /// If there is no such task, or it has ended.
    pub fn kill(&mut self, id: TaskId) -> Vec<Settled> {
        let mut settled = Vec::new();
        self.live(id);
        let (frozen, ledger) = self.frozen(id);
        // SAFETY: the task is marked dead below, so it never runs again, and nobody else settles
        // it. What it holds is alive: tracked handles borrow or own what they list.
        unsafe {
            settle(&frozen, ledger, &domain(), |one| settled.push(one));
            reclaim(ledger, &domain(), |one| settled.push(one));
        }
        self.task(id).alive = false;
        settled
    }

    fn task(&mut self, id: TaskId) -> &mut Task {
        let task = self.tasks.get_mut(id.index as usize).filter(|task| task.id == id);
        task.unwrap_or_else(|| panic!("there is no task {id}"))
    }

    fn live(&mut self, id: TaskId) -> &mut Task {
        let task = self.task(id);
        assert!(task.alive, "task {id} has ended");
        task
    }
}

impl Task {
    /// Sets its registers to the beginning of its entry.
    fn stand_at_entry(&mut self) {
        let mut context = Context::new();
        context.registers[Gpr::Rdi] = (&raw mut *self.entry).expose_provenance() as u64;
        context.registers[Gpr::Rsp] = self.stack.bounds().top();
        context.registers.rip = task_start as *const () as u64;
        *self.context.get_mut() = context;
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        Cpu::detach();
    }
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Machine").field("tasks", &self.tasks.len()).finish_non_exhaustive()
    }
}

/// The outermost frame of every task. Its return address is undefined, which ends a walk.
#[unsafe(naked)]
unsafe extern "C" fn task_start(entry: *mut Entry) -> ! {
    naked_asm!(
        ".cfi_startproc",
        ".cfi_undefined rip",
        "call {main}",
        "ud2",
        ".cfi_endproc",
        main = sym task_main,
    )
}

extern "C" fn task_main(entry: *mut Entry) -> ! {
    // SAFETY: the machine owns it, outlives the run of its tasks, and does not touch it meanwhile.
    let entry = unsafe { &mut *entry };
    let end = match catch_unwind(AssertUnwindSafe(entry)) {
        Ok(()) => Stop::Finished,
        Err(_) => Stop::Panicked,
    };
    loop {
        stop_running(end);
    }
}
