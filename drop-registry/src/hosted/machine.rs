//! The machine, its tasks, and what their owner can do with them.
#![expect(unsafe_code, reason = "runs and freezes tasks")]

use core::arch::naked_asm;
use core::cell::{Cell, UnsafeCell};
use core::fmt;
use core::panic::AssertUnwindSafe;
use core::ptr::NonNull;
use std::boxed::Box;
use std::panic::catch_unwind;
use std::thread_local;
use std::vec::Vec;

use task_model::{FaultInfo, FrozenTask, Gpr, RegisterFile, TaskId};

use super::parking;
use super::signals::{self, Cpu, Trap};
use super::stack::Stack;
use super::switch::Context;
use crate::{
    CurrentLedger, Heap, HeapMemory, Ledger, Settled, TrackedHeap, WindowTable, reclaim, settle,
};

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

// SAFETY: each task has a ledger of its own for as long as its machine lives, and `Machine::run`
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
    /// It has executed as many instructions as it was given. It can be run on.
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
    _entry: Box<Entry>,
    ledger: Box<Ledger>,
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
        Self { cpu, tasks: Vec::new() }
    }

    /// A task that will run `entry`. It does not run yet.
    ///
    /// If the task is killed, what `entry` owns is leaked, but for what its ledger lists.
    pub fn spawn(&mut self, entry: impl FnOnce() + 'static) -> TaskId {
        self.spawn_boxed(Box::new(entry))
    }

    /// As [`Machine::spawn`], for an entry that is boxed already.
    pub fn spawn_boxed(&mut self, entry: Box<dyn FnOnce()>) -> TaskId {
        let id = TaskId::first(self.tasks.len() as u32);
        let stack = Stack::new(STACK_BYTES);
        let mut context = Context::new();
        let mut entry = Some(entry);
        let mut entry: Box<Entry> = Box::new(Box::new(move || entry.take().expect("runs once")()));
        context.registers[Gpr::Rdi] = (&raw mut *entry).expose_provenance() as u64;
        context.registers[Gpr::Rsp] = stack.bounds().top();
        context.registers.rip = task_start as *const () as u64;
        let ledger: Box<Ledger> = Box::default();
        parking::enter(self.tasks.len(), &raw const *ledger);
        self.tasks.push(Task {
            id,
            stack,
            _entry: entry,
            ledger,
            context: Box::new(UnsafeCell::new(context)),
            end: None,
            parked: false,
            alive: true,
        });
        id
    }

    /// Runs a task until it stops; with a budget, for at most so many instructions. A task that is
    /// parked, and has not been unparked since, does not run.
    ///
    /// # Panics
    /// If there is no such task, or it has ended.
    pub fn run(&mut self, id: TaskId, budget: Option<u64>) -> Stop {
        if self.is_asleep(id) {
            return Stop::Parked;
        }
        let task = self.live(id);
        task.parked = false;
        let (context, bounds) = (task.context.get(), task.stack.bounds());
        let outer = LEDGER.replace(&raw const *task.ledger);
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

    /// A task that does not run, as a keeper sees it, and its ledger.
    ///
    /// # Panics
    /// If there is no such task, or it has ended.
    pub fn frozen(&mut self, id: TaskId) -> (FrozenTask<'_>, &Ledger) {
        let task = self.live(id);
        // SAFETY: the context is alive.
        let registers = unsafe { NonNull::new_unchecked(&raw mut (*task.context.get()).registers) };
        // SAFETY: the machine is borrowed exclusively while the frozen task exists, so that it
        // cannot run; a task's registers are all in its context when it does not. The stack stays
        // mapped as long as the machine lives.
        (unsafe { FrozenTask::new(id, registers, task.stack.bounds()) }, &task.ledger)
    }

    /// Whether the task has neither ended nor been killed.
    pub fn is_alive(&self, id: TaskId) -> bool {
        self.tasks.get(id.index as usize).is_some_and(|task| task.id == id && task.alive)
    }

    /// Ends a task where it stands, and gives up all it holds. Returns what was done, in both
    /// steps.
    ///
    /// # Panics
    /// If there is no such task, or it has ended.
    pub fn kill(&mut self, id: TaskId) -> Vec<Settled> {
        let mut settled = Vec::new();
        let (frozen, ledger) = self.frozen(id);
        // SAFETY: the task is marked dead below, so it never runs again, and nobody else settles
        // it. What it holds is alive: tracked handles borrow or own what they list.
        unsafe {
            settle(&frozen, ledger, &WindowTable::linked(), |one| settled.push(one));
            reclaim(ledger, |one| settled.push(one));
        }
        self.task(id).alive = false;
        settled
    }

    /// Whether the task is parked, and has not been unparked since.
    fn is_asleep(&mut self, id: TaskId) -> bool {
        self.live(id).parked && !parking::is_unparked(id.index as usize)
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

#[cfg(test)]
mod tests {
    use super::*;
    use task_model::{FaultKind, StackMemory};

    /// Executes `body` as a task, which ends by a fault.
    fn fault_of(body: impl FnOnce() + 'static) -> FaultInfo {
        let mut machine = Machine::new();
        let task = machine.spawn(body);
        match machine.run(task, None) {
            Stop::Faulted(fault) => fault,
            stop => panic!("{stop:?}"),
        }
    }

    #[test]
    fn tasks_take_turns() {
        static LOG: std::sync::Mutex<Vec<u32>> = std::sync::Mutex::new(Vec::new());
        let mut machine = Machine::new();
        for n in 1..=2 {
            machine.spawn(move || {
                LOG.lock().unwrap().push(n);
                yield_now();
                LOG.lock().unwrap().push(n * 10);
            });
        }
        machine.run_all().unwrap();
        assert_eq!(*LOG.lock().unwrap(), [1, 2, 10, 20]);
    }

    #[test]
    fn faults_say_what_the_machine_said() {
        let page = fault_of(|| {
            // SAFETY: it is not: address 16 is not mapped, which is what is tested.
            unsafe { core::ptr::without_provenance_mut::<u8>(16).write_volatile(1) };
        });
        assert_eq!((page.kind, page.address), (FaultKind::PageFault, Some(16)));
        // SAFETY: it stops the task, which is what is tested.
        let opcode = fault_of(|| unsafe { core::arch::asm!("ud2") });
        assert_eq!(opcode.kind, FaultKind::InvalidOpcode);
        // SAFETY: it stops the task, which is what is tested.
        let divide = fault_of(|| unsafe {
            core::arch::asm!("div {0}", in(reg) 0u64, inout("rax") 1u64 => _, inout("rdx") 0u64 => _);
        });
        assert_eq!(divide.kind, FaultKind::DivideError);
    }

    #[test]
    fn running_over_the_guard_page_is_a_stack_overflow() {
        fn deeper(n: u64) -> u64 {
            let room = core::hint::black_box([n; 64]);
            if room[0] == u64::MAX { 0 } else { deeper(n + 1) + room[1] }
        }
        let fault = fault_of(|| {
            core::hint::black_box(deeper(0));
        });
        assert_eq!(fault.kind, FaultKind::StackOverflow);
    }

    #[test]
    fn a_budget_stops_a_task_after_exactly_so_many_instructions() {
        let mut machine = Machine::new();
        let task = machine.spawn(|| {
            // SAFETY: counts in a register, for ever.
            unsafe { core::arch::asm!("2: inc rcx", "jmp 2b", options(noreturn)) };
        });
        assert_eq!(machine.run(task, Some(10_000)), Stop::BudgetSpent);
        let before = *machine.registers(task);
        assert_eq!(machine.run(task, Some(2000)), Stop::BudgetSpent);
        let after = machine.registers(task);
        let counted = Gpr::ALL.map(|register| after[register].wrapping_sub(before[register]));
        assert_eq!(counted.iter().filter(|n| **n == 1000).count(), 1);
        assert_eq!(counted.iter().filter(|n| **n == 0).count(), 15);
    }

    #[test]
    fn vector_registers_survive_the_switch() {
        let mut machine = Machine::new();
        for value in [0x1111u64, 0x2222] {
            machine.spawn(move || {
                let seen: u64;
                // SAFETY: keeps a value in a vector register over a breakpoint, which yields.
                unsafe {
                    core::arch::asm!(
                        "movq xmm9, {value}",
                        "int3",
                        "movq {seen}, xmm9",
                        value = in(reg) value,
                        seen = out(reg) seen,
                        out("xmm9") _,
                    );
                }
                assert_eq!(seen, value);
            });
        }
        machine.run_all().unwrap();
    }

    #[test]
    fn nothing_is_written_below_the_stack_pointer() {
        let mut machine = Machine::new();
        let task = machine.spawn(|| {
            // SAFETY: fills the red zone and stops.
            unsafe {
                core::arch::asm!(
                    "mov qword ptr [rsp - 8], {0}",
                    "mov qword ptr [rsp - 128], {0}",
                    "ud2",
                    in(reg) 0x5a5a_5a5au64,
                );
            }
        });
        assert!(matches!(machine.run(task, None), Stop::Faulted(_)));
        let (frozen, _) = machine.frozen(task);
        let sp = frozen.registers().rsp();
        assert_eq!(frozen.read_u64(sp - 8), Ok(0x5a5a_5a5a));
        assert_eq!(frozen.read_u64(sp - 128), Ok(0x5a5a_5a5a));
    }

    #[test]
    fn a_panic_ends_its_task_alone() {
        let mut machine = Machine::new();
        let task = machine.spawn(|| std::panic::resume_unwind(Box::new(())));
        assert_eq!(machine.run(task, None), Stop::Panicked);
        assert!(!machine.is_alive(task));
        let other = machine.spawn(|| ());
        assert_eq!(machine.run(other, None), Stop::Finished);
    }
}
