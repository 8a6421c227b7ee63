//! A platform of plain structs: its tasks are a state, a ledger and registers, and run nothing.

use std::cell::{Cell, UnsafeCell};
use std::ptr::NonNull;

use drop_registry::{CurrentLedger, Ledger, LockError, Mutex, MutexGuard, TryLockError};
use keeper::{CannotRestart, KeeperId, NoSuchTask, Platform, Policy, Report, Stopped, Verdict};
use task_model::{FrozenTask, RegisterFile, StackBounds, TaskId, TaskState};

use crate::world;

thread_local! {
    static LEDGER: Cell<*const Ledger> = const { Cell::new(std::ptr::null()) };
    static BOOT: &'static Ledger = Box::leak(Box::default());
}

/// Whoever acts at the moment.
#[derive(Debug)]
pub(crate) struct Actor;

// SAFETY: one thread, and each task acts with its own ledger.
unsafe impl CurrentLedger for Actor {
    fn current() -> NonNull<Ledger> {
        NonNull::new(LEDGER.get().cast_mut()).unwrap_or_else(|| BOOT.with(|it| NonNull::from(*it)))
    }
}

/// A task, and what the simulation knows of it besides.
pub(crate) struct Task {
    pub(crate) number: u32,
    pub(crate) generation: Cell<u32>,
    pub(crate) state: Cell<TaskState>,
    pub(crate) ledger: Box<Ledger>,
    pub(crate) registers: UnsafeCell<RegisterFile>,
    pub(crate) policy: Option<&'static dyn Policy>,
    pub(crate) restartable: bool,
    /// How often its policy has it restarted.
    pub(crate) limit: u32,
    /// For whom it serves.
    pub(crate) serves: Option<KeeperId>,
    /// Whether it is in the middle of serving.
    pub(crate) busy: Cell<bool>,
    /// Whether it has stopped by itself, and has not gone on since.
    pub(crate) has_faulted: Cell<bool>,
    /// What was ruled last, since it stopped.
    pub(crate) ruled: Cell<Option<Verdict>>,
    /// Whether what it held has been given up, as far as somebody has seen.
    pub(crate) settled: Cell<bool>,
    /// Which life somebody has wanted to end, or to let go.
    pub(crate) unwanted: Cell<Option<u32>>,
    /// Which life somebody has wanted to end, and nothing has come of that yet.
    pub(crate) kill_waits: Cell<Option<u32>>,
}

impl Task {
    pub(crate) fn new(number: u32) -> Self {
        Self {
            number,
            generation: Cell::new(0),
            state: Cell::new(TaskState::Ready),
            ledger: Box::default(),
            registers: UnsafeCell::new(RegisterFile::new()),
            policy: None,
            restartable: true,
            limit: u32::MAX,
            serves: None,
            busy: Cell::new(false),
            has_faulted: Cell::new(false),
            ruled: Cell::new(None),
            settled: Cell::new(false),
            unwanted: Cell::new(None),
            kill_waits: Cell::new(None),
        }
    }

    pub(crate) fn id(&self) -> TaskId {
        TaskId { index: self.number, generation: self.generation.get() }
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.state.get() == TaskState::Ready
    }

    /// Acts as this task.
    pub(crate) fn act<T>(&self, body: impl FnOnce() -> T) -> T {
        let outer = LEDGER.replace(&raw const *self.ledger);
        let done = body();
        LEDGER.set(outer);
        done
    }

    fn is_unwanted(&self) -> bool {
        self.unwanted.get() == Some(self.generation.get())
    }

    /// It is ended, one way or another.
    fn end(&self, platform: &Fake, state: TaskState) {
        let id = self.id();
        platform.locks.iter().for_each(|lock| lock.owner_ended(id));
        self.kill_waits.set(None);
        self.state.set(state);
    }
}

/// A lock, and who holds it as far as anybody has seen.
pub(crate) struct Lock {
    lock: Mutex<u64, Actor>,
    owner: Cell<Option<TaskId>>,
    /// Whether the next owner is to be told of a death.
    torn: Cell<bool>,
}

impl Lock {
    pub(crate) fn new() -> Self {
        Self { lock: Mutex::new(0), owner: Cell::new(None), torn: Cell::new(false) }
    }

    fn owner_ended(&self, id: TaskId) {
        if self.owner.get() == Some(id) {
            assert!(!self.lock.is_locked(), "leaked: {id} has ended, and holds a lock");
            self.owner.set(None);
            self.torn.set(true);
        }
    }

    /// Somebody tries to take it, for ever; `None` is who lets it go at once.
    pub(crate) fn try_by(&self, platform: &Fake, who: Option<&Task>) {
        let before = self.owner.get();
        let owner = before.map(|id| &platform.tasks[id.index as usize]);
        let got = match self.lock.try_lock() {
            Ok(guard) => {
                assert!(owner.is_none(), "stolen from {before:?}, or not told of its death");
                assert!(!self.torn.get(), "not told of a death");
                keep(guard, who);
                true
            }
            Err(TryLockError::Lock(LockError::OwnerDied(died))) => {
                match owner {
                    Some(owner) => {
                        assert_eq!(owner.state.get(), TaskState::Frozen, "stolen");
                        owner.settled.set(true);
                    }
                    None => assert!(self.torn.get(), "told without a death"),
                }
                keep(died.mark_consistent(), who);
                true
            }
            Err(TryLockError::Lock(LockError::Recursive)) => false,
            Err(TryLockError::WouldBlock) => {
                assert!(owner.is_some(), "leaked: a lock that nobody holds is locked");
                false
            }
            Err(error) => panic!("{error}"),
        };
        if got {
            self.torn.set(false);
            self.owner.set(who.map(Task::id));
        }
    }
}

/// Who takes a lock keeps it; nobody lets it go at once.
fn keep(guard: MutexGuard<'_, u64, Actor>, who: Option<&Task>) {
    if who.is_some() {
        std::mem::forget(guard);
    }
}

/// The platform.
pub(crate) struct Fake {
    pub(crate) tasks: Vec<Task>,
    /// Leaked: somebody may hold them in the end.
    pub(crate) locks: &'static [Lock],
    pub(crate) time: Cell<u64>,
    /// The task that runs; `None` while the root keeper does.
    pub(crate) running: Cell<Option<TaskId>>,
}

impl Fake {
    pub(crate) fn new(tasks: Vec<Task>, locks: usize) -> Self {
        Self {
            tasks,
            locks: Vec::leak((0..locks).map(|_| Lock::new()).collect()),
            time: Cell::new(0),
            running: Cell::new(None),
        }
    }

    /// The task, if this is its present life.
    pub(crate) fn find(&self, id: TaskId) -> Option<&Task> {
        self.tasks.get(id.index as usize).filter(|task| task.id() == id)
    }
}

/// Somebody's stack: nothing is on it.
static STACK: [u64; 8] = [0; 8];

// SAFETY: no task executes anything. Registers and ledgers live as long as the platform, and
// keepers act one at a time, on one thread.
unsafe impl Platform for Fake {
    fn now(&self) -> u64 {
        self.time.get()
    }

    fn seize(&self, id: TaskId) -> Result<Stopped<'_>, NoSuchTask> {
        world::trace(|| format!("seize {:?} by {:?}", id, self.running.get()));
        world::point();
        assert_ne!(self.running.get(), Some(id), "a keeper waits for its own task");
        let task = self.find(id).filter(|task| task.state.get() != TaskState::Dead);
        let task = task.ok_or(NoSuchTask(id))?;
        if task.state.get() != TaskState::Held {
            task.state.set(TaskState::Frozen);
        }
        let start = STACK.as_ptr().expose_provenance() as u64;
        let stack = StackBounds::new(start, start + 64, 0).expect("a range");
        let registers = NonNull::new(task.registers.get()).expect("a reference");
        // SAFETY: it runs nothing, and its registers are nobody else's.
        let frozen = unsafe { FrozenTask::new(id, registers, stack) };
        world::point();
        Ok(Stopped {
            task: frozen,
            ledger: &task.ledger,
            policy: task.policy,
            restarts: id.generation,
        })
    }

    fn resume(&self, mut stopped: Stopped<'_>) {
        world::trace(|| format!("resume {:?} by {:?}", stopped.task.id(), self.running.get()));
        world::point();
        // It gets on with whatever it does.
        stopped.task.registers_mut().rip += 1;
        let task = self.find(stopped.task.id()).expect("it is alive");
        assert_eq!(task.state.get(), TaskState::Frozen, "only what is stopped is resumed");
        assert_eq!(task.ruled.get(), Some(Verdict::Resume), "nobody has ruled that");
        assert!(!task.settled.get(), "resumed, although its locks are others'");
        task.state.set(TaskState::Ready);
        task.has_faulted.set(false);
        world::point();
    }

    fn retire(&self, stopped: Stopped<'_>) {
        world::trace(|| format!("retire {:?} by {:?}", stopped.task.id(), self.running.get()));
        world::point();
        let task = self.find(stopped.task.id()).expect("it is alive");
        let by_policy = match task.ruled.get() {
            Some(Verdict::Exit | Verdict::Deferred | Verdict::TryNext | Verdict::Hold) => true,
            Some(Verdict::Restart | Verdict::RestartAfter(_)) => !task.restartable,
            // Refused, and the root was the last to be asked.
            Some(Verdict::Resume) => true,
            _ => false,
        };
        assert!(by_policy || task.is_unwanted(), "nobody has ruled that: {:?}", task.ruled.get());
        task.end(self, TaskState::Dead);
        world::point();
    }

    fn restart<'a>(&'a self, stopped: Stopped<'a>) -> Result<TaskId, CannotRestart<'a>> {
        world::trace(|| format!("restart {:?} by {:?}", stopped.task.id(), self.running.get()));
        world::point();
        let task = self.find(stopped.task.id()).expect("it is alive");
        if !task.restartable {
            return Err(CannotRestart(stopped));
        }
        let ruled = task.ruled.get();
        assert!(matches!(ruled, Some(Verdict::Restart | Verdict::RestartAfter(_))), "{ruled:?}");
        task.end(self, TaskState::Ready);
        // SAFETY: what it held has been settled.
        unsafe { task.ledger.reset() };
        task.settled.set(false);
        task.ruled.set(None);
        task.has_faulted.set(false);
        task.generation.set(task.generation.get() + 1);
        assert!(task.generation.get() <= task.limit, "restarted more often than is allowed");
        world::point();
        Ok(task.id())
    }

    fn hold(&self, stopped: Stopped<'_>) {
        world::trace(|| format!("hold {:?} by {:?}", stopped.task.id(), self.running.get()));
        world::point();
        let task = self.find(stopped.task.id()).expect("it is alive");
        assert_eq!(task.ruled.get(), Some(Verdict::Hold), "nobody has ruled that");
        task.end(self, TaskState::Held);
        world::point();
    }

    fn wake(&self, _: TaskId) {
        world::point();
    }

    fn panic(&self, report: &Report) -> ! {
        panic!("nobody rules that: {report}");
    }
}

/// Acts as nobody.
pub(crate) fn outside<T>(body: impl FnOnce() -> T) -> T {
    let outer = LEDGER.replace(std::ptr::null());
    let done = body();
    LEDGER.set(outer);
    done
}
