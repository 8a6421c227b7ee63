//! A platform whose tasks are plain data.

use std::cell::Cell;
use std::ptr::NonNull;
use std::sync::Mutex as StdMutex;
use std::sync::atomic::{AtomicU64, Ordering};

use drop_registry::{CurrentLedger, DropAfterTear, Heap, HeapMemory, Ledger, TrackedHeap};
use keeper::unwind::{LoadedSection, UnwindTables};
use keeper::{CannotRestart, Keeper, NoSuchTask, Platform, Policy, Report, Stopped};
use task_model::{FaultInfo, FaultKind, FrozenTask, RegisterFile, StackBounds, TaskId};

/// One task: never executed, only kept.
struct Body {
    ledger: Ledger,
    registers: RegisterFile,
    stack: [u64; 64],
}

struct Task {
    id: TaskId,
    body: NonNull<Body>,
    policy: Option<&'static dyn Policy>,
    has_entry: bool,
    restarts: u32,
    end: &'static str,
}

// SAFETY: the tests are single-threaded but for the harness, which hands each its own machine.
unsafe impl Send for Task {}

pub(crate) struct Machine {
    tasks: StdMutex<Vec<Task>>,
    clock: AtomicU64,
}

thread_local! {
    static RUNNING: Cell<Option<NonNull<Body>>> = const { Cell::new(None) };
}

pub(crate) struct Current;

// SAFETY: `RUNNING` names one body at a time, and bodies are leaked.
unsafe impl CurrentLedger for Current {
    fn current() -> NonNull<Ledger> {
        let body = RUNNING.get().expect("a task runs");
        // SAFETY: bodies are leaked, and the ledger is shared by design.
        NonNull::from(unsafe { &(*body.as_ptr()).ledger })
    }
}

impl TrackedHeap for Current {
    fn heap() -> &'static Heap {
        static MEMORY: HeapMemory<4> = HeapMemory::new();
        static HEAP: Heap = Heap::new(&MEMORY);
        &HEAP
    }
}

impl Machine {
    pub(crate) fn new() -> Self {
        Self { tasks: StdMutex::default(), clock: AtomicU64::new(0) }
    }

    /// A task that has run `work` and stands there.
    pub(crate) fn spawn(
        &self,
        policy: Option<&'static dyn Policy>,
        has_entry: bool,
        work: impl FnOnce(),
    ) -> TaskId {
        let body = NonNull::from(Box::leak(Box::new(Body {
            ledger: Ledger::new(),
            registers: RegisterFile::new(),
            stack: [0; 64],
        })));
        let outer = RUNNING.replace(Some(body));
        work();
        RUNNING.set(outer);
        let mut tasks = self.tasks.lock().unwrap();
        let id = TaskId::first(tasks.len() as u32);
        tasks.push(Task { id, body, policy, has_entry, restarts: 0, end: "alive" });
        id
    }

    pub(crate) fn end(&self, task: TaskId) -> &'static str {
        self.tasks.lock().unwrap()[task.index as usize].end
    }

    fn finish(&self, stopped: &Stopped<'_>, end: &'static str) {
        self.tasks.lock().unwrap()[stopped.task.id().index as usize].end = end;
    }
}

// SAFETY: tasks are data, and never execute; each body is seized by one keeper at a time.
unsafe impl Platform for &Machine {
    fn now(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::Relaxed)
    }

    fn seize(&self, id: TaskId) -> Result<Stopped<'_>, NoSuchTask> {
        let tasks = self.tasks.lock().unwrap();
        let task = tasks.get(id.index as usize).ok_or(NoSuchTask(id))?;
        if task.id != id || task.end == "retired" {
            return Err(NoSuchTask(id));
        }
        let body = task.body.as_ptr();
        // SAFETY: bodies are leaked, and never executed.
        unsafe {
            let base = (&raw mut (*body).stack).expose_provenance() as u64;
            (*body).registers.gpr[4] = base + 256;
            let stack = StackBounds::new(base, base + 512, 0).unwrap();
            let registers = NonNull::new_unchecked(&raw mut (*body).registers);
            Ok(Stopped {
                task: FrozenTask::new(id, registers, stack),
                ledger: &(*body).ledger,
                policy: task.policy,
                restarts: task.restarts,
            })
        }
    }

    fn retire(&self, stopped: Stopped<'_>) {
        self.finish(&stopped, "retired");
    }

    fn restart<'a>(&'a self, stopped: Stopped<'a>) -> Result<TaskId, CannotRestart<'a>> {
        let mut tasks = self.tasks.lock().unwrap();
        let task = &mut tasks[stopped.task.id().index as usize];
        if !task.has_entry {
            return Err(CannotRestart(stopped));
        }
        // SAFETY: the task is gone, and the keeper has settled it.
        unsafe { stopped.ledger.reset() };
        task.id = task.id.next_generation();
        task.restarts += 1;
        Ok(task.id)
    }

    fn hold(&self, stopped: Stopped<'_>) {
        self.finish(&stopped, "held");
    }
}

pub(crate) struct Droppable(#[expect(dead_code, reason = "a box owns memory")] pub(crate) u64);

impl Drop for Droppable {
    fn drop(&mut self) {}
}

// SAFETY: its destructor does nothing.
unsafe impl DropAfterTear for Droppable {}

/// Tables with one function, which no task is in: every walk is partial.
fn tables() -> UnwindTables<'static> {
    const TEXT: u64 = 0x10_0000;
    const HEADER: u64 = 0x20_0000;
    const FRAMES: u64 = 0x20_1000;
    let mut header = vec![1, 0x1b, 0x03, 0x3b];
    header.extend(((FRAMES - HEADER - 4) as i32).to_le_bytes());
    header.extend(1u32.to_le_bytes());
    header.extend((TEXT.wrapping_sub(HEADER) as i32).to_le_bytes());
    header.extend(((FRAMES - HEADER) as i32).to_le_bytes());
    UnwindTables::new(
        LoadedSection { bytes: header.leak(), address: HEADER },
        LoadedSection { bytes: &[0; 64], address: FRAMES },
        TEXT..TEXT + 0x1000,
    )
    .unwrap()
}

pub(crate) fn keeper(machine: &Machine) -> Keeper<&Machine> {
    Keeper::new(machine, tables(), 8)
}

/// Serves the next notice, which must be there, and returns a copy of the report.
pub(crate) fn serve(keeper: &Keeper<&Machine>) -> Result<Report, NoSuchTask> {
    let mut answer = None;
    assert!(keeper.serve(|told| answer = Some(told.cloned())));
    answer.expect("told about each notice")
}

pub(crate) fn page_fault() -> FaultInfo {
    FaultInfo {
        kind: FaultKind::PageFault,
        vector: Some(14),
        error_code: Some(2),
        address: Some(0xdead_0000),
        instruction_pointer: 0,
    }
}
