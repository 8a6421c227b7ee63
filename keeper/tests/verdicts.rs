//! What becomes of a dead task under each policy, on a platform whose tasks are plain data.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::ptr::NonNull;
use std::sync::Mutex as StdMutex;
use std::sync::atomic::{AtomicU64, Ordering};

use drop_registry::{
    CurrentLedger, DropAfterTear, Heap, HeapMemory, Ledger, LockError, Mutex, Outcome, TrackedBox,
    TrackedHeap,
};
use keeper::unwind::{LoadedSection, UnwindTables, WalkEnd};
use keeper::{
    CannotRestart, Keeper, NoSuchTask, Platform, Policy, Report, Stopped, Verdict, policy,
};
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

struct Machine {
    tasks: StdMutex<Vec<Task>>,
    clock: AtomicU64,
}

thread_local! {
    static RUNNING: Cell<Option<NonNull<Body>>> = const { Cell::new(None) };
}

struct Current;

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
    fn new() -> Self {
        Self { tasks: StdMutex::default(), clock: AtomicU64::new(0) }
    }

    /// A task that has run `work` and stands there.
    fn spawn(
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

    fn end(&self, task: TaskId) -> &'static str {
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

struct Droppable(#[expect(dead_code, reason = "a box owns memory")] u64);

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

fn keeper(machine: &Machine) -> Keeper<&Machine> {
    Keeper::new(machine, tables(), 8)
}

/// Serves the next notice, which must be there, and returns a copy of the report.
fn serve(keeper: &Keeper<&Machine>) -> Result<Report, NoSuchTask> {
    let mut answer = None;
    assert!(keeper.serve(|told| answer = Some(told.cloned())));
    answer.expect("told about each notice")
}

fn page_fault() -> FaultInfo {
    FaultInfo {
        kind: FaultKind::PageFault,
        vector: Some(14),
        error_code: Some(2),
        address: Some(0xdead_0000),
        instruction_pointer: 0,
    }
}

#[test]
fn a_faulted_task_exits_by_default_and_its_lock_is_free_but_marked() {
    let (machine, lock) = (Machine::new(), Mutex::<u32, Current>::new(1));
    let task = machine.spawn(None, true, || std::mem::forget(lock.lock().unwrap()));
    let keeper = keeper(&machine);
    keeper.post(task, page_fault()).unwrap();
    assert!(lock.is_locked());
    let report = serve(&keeper).unwrap();
    assert_eq!(report.verdict, Some(Verdict::Exit));
    assert_eq!(report.resources.len(), 1);
    assert_eq!(report.resources[0].outcome, Outcome::OwnerDied);
    assert_eq!(report.resources[0].frame, None);
    assert!(matches!(report.walk_end, WalkEnd::Partial(_)));
    assert!(!lock.is_locked());
    assert_eq!(machine.end(task), "retired");
    machine.spawn(None, true, || assert!(matches!(lock.lock(), Err(LockError::OwnerDied(_)))));
    assert!(!keeper.serve(|_| ()));
}

#[test]
fn a_restarted_task_has_a_new_id_and_the_old_one_is_refused() {
    let machine = Machine::new();
    let task = machine.spawn(Some(&policy::Restart { at_most: 1 }), true, || ());
    let keeper = keeper(&machine);
    keeper.kill(task).unwrap();
    let next = serve(&keeper).unwrap().restarted_as.unwrap();
    assert_eq!(next, task.next_generation());
    keeper.kill(task).unwrap();
    assert_eq!(serve(&keeper).unwrap_err(), NoSuchTask(task));
    keeper.kill(next).unwrap();
    assert_eq!(serve(&keeper).unwrap().verdict, Some(Verdict::Exit));
    assert_eq!(machine.end(next), "retired");
}

#[test]
fn a_task_without_an_entry_exits_instead_of_restarting() {
    let machine = Machine::new();
    let task = machine.spawn(Some(&policy::Restart { at_most: 9 }), false, || ());
    let keeper = keeper(&machine);
    keeper.kill(task).unwrap();
    let report = serve(&keeper).unwrap();
    assert_eq!((report.verdict, report.restarted_as), (Some(Verdict::Exit), None));
    assert_eq!(machine.end(task), "retired");
}

#[test]
fn a_held_task_keeps_its_memory_until_it_is_released() {
    let (machine, lock) = (Machine::new(), Mutex::<u32, Current>::new(1));
    let task = machine.spawn(Some(&policy::Hold), true, || {
        std::mem::forget(TrackedBox::<_, Current>::new_droppable(Droppable(7)).unwrap());
        std::mem::forget(lock.lock().unwrap());
    });
    let keeper = keeper(&machine);
    keeper.post(task, page_fault()).unwrap();
    let report = serve(&keeper).unwrap();
    assert_eq!(report.verdict, Some(Verdict::Hold));
    assert_eq!((report.count(Outcome::Orphaned), report.count(Outcome::OwnerDied)), (1, 1));
    assert!(!lock.is_locked());
    assert_eq!(machine.end(task), "held");

    keeper.release(task).unwrap();
    let report = serve(&keeper).unwrap();
    assert_eq!(report.count(Outcome::Reclaimed), 1);
    assert_eq!(machine.end(task), "retired");
}

#[test]
fn a_default_policy_rules_on_tasks_that_name_none() {
    let machine = Machine::new();
    let task = machine.spawn(None, true, || ());
    let keeper = keeper(&machine).with_default_policy(&policy::Hold);
    keeper.kill(task).unwrap();
    assert_eq!(serve(&keeper).unwrap().verdict, Some(Verdict::Hold));
}

#[test]
fn a_kill_is_a_fault_of_its_own_kind_where_the_task_stood() {
    let machine = Machine::new();
    let task = machine.spawn(None, true, || ());
    let keeper = keeper(&machine);
    keeper.kill(task).unwrap();
    assert_eq!(serve(&keeper).unwrap().fault, FaultInfo::killed(0));
}

#[test]
fn a_full_mailbox_is_an_error_of_the_post() {
    let machine = Machine::new();
    let task = machine.spawn(None, true, || ());
    let keeper = keeper(&machine);
    for _ in 0..8 {
        keeper.kill(task).unwrap();
    }
    assert_eq!(keeper.kill(task), Err(keeper::MailboxFull));
}

#[test]
fn the_report_reads_line_by_line() {
    let (machine, lock) = (Machine::new(), Mutex::<u32, Current>::new(1));
    let task = machine.spawn(None, true, || std::mem::forget(lock.lock().unwrap()));
    let keeper = keeper(&machine);
    keeper.post(task, page_fault()).unwrap();
    let report = serve(&keeper).unwrap();
    let text = report.to_string();
    assert!(text.starts_with("task 0.0: page fault at 0x0, accessing 0xdead0000"), "{text}");
    assert!(text.contains("mutex 0x") && text.contains("owner died"), "{text}");
    assert!(text.lines().all(|line| line.len() <= 100), "{text}");
}
