//! The tasks of a recovery, and what they hold: a victim, its keeper, that one's keeper, and
//! others.
#![expect(unsafe_code, reason = "the victim faults")]

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use drop_registry::hosted::yield_now;
use drop_registry::{
    DropAfterTear, LockError, Mutex, MutexGuard, Park, Semaphore, Shared, Slot, TrackedBox,
    TrackedHeap, TryLockError,
};
use keeper::hosted::{Current, Kernel, Stop};
use keeper::{Capacity, Case, KeeperId, Policy, Token, Verdict, policy};
use task_model::{TaskId, TaskState};

/// What the keeper rules on the victim, and what the one above it would.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rulings {
    pub(crate) keeper: Verdict,
    /// Whether the keeper has it settled first.
    pub(crate) settles: bool,
    pub(crate) above: Verdict,
}

/// What all of them share. Leaked, since some of them die.
pub(crate) struct World {
    pub(crate) kernel: &'static Kernel,
    rulings: Rulings,
    pub(crate) victim: Cell<TaskId>,
    /// The keeper's task, and that of its parent, in their first lives.
    pub(crate) keeper: Cell<TaskId>,
    pub(crate) parent: Cell<TaskId>,
    of_keeper: Cell<KeeperId>,
    pub(crate) lock: Mutex<u64, Current>,
    /// Somebody sleeps until it is free.
    pub(crate) awaited: Mutex<u64, Current, Park>,
    pub(crate) semaphore: Semaphore<Current>,
    pub(crate) slot: Slot<Shared<Counted, Current>>,
    /// What the heap has given away before the victim begins.
    pub(crate) bytes: Cell<usize>,
    pub(crate) drops: AtomicU32,
    /// How often the victim has begun, and come past its first fault.
    pub(crate) lives: AtomicU32,
    pub(crate) steps: AtomicU32,
    /// How many have been told that an owner of `lock` died, and of `awaited`.
    pub(crate) lock_told: AtomicU32,
    pub(crate) awaited_told: AtomicU32,
    /// Whether somebody has taken the lock meanwhile, and keeps it until it is let go.
    pub(crate) snatched: AtomicBool,
    pub(crate) let_go: AtomicBool,
    /// Reports of tasks whose keeper alone was asked, as the keeper told of them.
    pub(crate) served: AtomicU32,
    token: Cell<Option<Token>>,
    token_is_out: AtomicBool,
}

/// A value that counts how often it is dropped.
pub(crate) struct Counted(&'static World);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.drops.fetch_add(1, Ordering::Relaxed);
    }
}

// SAFETY: it is a reference that nobody changes.
unsafe impl DropAfterTear for Counted {}
// SAFETY: all tasks of the world are on one thread.
unsafe impl Sync for World {}

/// The instruction that it stops at is two bytes long.
pub(crate) fn invalid_opcode() {
    // SAFETY: it faults, or has been skipped.
    unsafe { core::arch::asm!("ud2") }
}

struct OfKeeper(&'static World);
struct Above(&'static World);

impl std::fmt::Debug for OfKeeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OfKeeper")
    }
}

impl std::fmt::Debug for Above {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Above")
    }
}

impl OfKeeper {
    fn defer(&self, case: &mut Case<'_>) {
        let Some(token) = case.defer(u64::MAX) else { return };
        self.0.token.set(Some(token));
        self.0.token_is_out.store(true, Ordering::Release);
    }
}

impl Policy for OfKeeper {
    fn rule(&self, case: &mut Case<'_>) -> Verdict {
        let rulings = self.0.rulings;
        if case.task() != self.0.victim.get() || self.0.steps.load(Ordering::Relaxed) > 0 {
            return Verdict::Exit;
        }
        if rulings.settles {
            case.settle();
        }
        match rulings.keeper {
            // Asked once more, it says the same.
            Verdict::Resume => {
                case.frozen().registers_mut().rip = case.fault().instruction_pointer + 2;
            }
            Verdict::Deferred => self.defer(case),
            _ => {}
        }
        rulings.keeper
    }
}

impl Policy for Above {
    fn rule(&self, case: &mut Case<'_>) -> Verdict {
        let task = case.task().index;
        if task == self.0.keeper.get().index || task == self.0.parent.get().index {
            Verdict::Restart
        } else if self.0.steps.load(Ordering::Relaxed) > 0 {
            Verdict::Exit
        } else {
            self.0.rulings.above
        }
    }
}

fn leak<T>(value: T) -> &'static T {
    Box::leak(Box::new(value))
}

impl World {
    /// Everybody at the point where the victim is about to fault, its keepers asleep.
    pub(crate) fn new(rulings: Rulings) -> &'static Self {
        let capacity = Capacity { keepers: 3, deferred: 1, ..Capacity::tasks(32) };
        let nobody = Cell::new(TaskId::first(u32::MAX));
        // SAFETY: tasks here keep nothing in thread-locals, allocate from the tracked heap alone,
        // and what they share is leaked.
        let kernel = unsafe { Kernel::with_capacity(capacity) };
        let world = leak(Self {
            kernel: leak(kernel.with_default_policy(leak(policy::Restart { at_most: 9 }))),
            rulings,
            victim: nobody.clone(),
            keeper: nobody.clone(),
            parent: nobody,
            of_keeper: Cell::new(KeeperId::ROOT),
            lock: Mutex::new(0),
            awaited: Mutex::new(0),
            semaphore: Semaphore::new(2),
            slot: Slot::new(),
            bytes: Cell::new(0),
            drops: AtomicU32::new(0),
            lives: AtomicU32::new(0),
            steps: AtomicU32::new(0),
            lock_told: AtomicU32::new(0),
            awaited_told: AtomicU32::new(0),
            snatched: AtomicBool::new(false),
            let_go: AtomicBool::new(false),
            served: AtomicU32::new(0),
            token: Cell::new(None),
            token_is_out: AtomicBool::new(false),
        });
        world.people();
        world
    }

    fn people(&'static self) {
        let (kernel, keepers) = (self.kernel, self.kernel.keepers());
        let parent = keepers.register(KeeperId::ROOT, leak(Above(self)), u64::MAX).expect("room");
        let keeper = keepers.register(parent, leak(OfKeeper(self)), u64::MAX).expect("room");
        self.of_keeper.set(keeper);
        self.parent.set(kernel.spawn_keeper(parent, |_| {}));
        self.keeper.set(kernel.spawn_keeper(keeper, move |told| {
            if told.is_ok_and(|report| report.keepers[..] == [keeper]) {
                self.served.fetch_add(1, Ordering::Relaxed);
            }
        }));
        let share = Shared::new_droppable(Counted(self)).expect("room in the heap");
        assert!(self.slot.put(share).is_ok());
        self.bytes.set(Current::heap().bytes_taken());
        self.victim.set(kernel.spawn(|| self.victim()));
        self.kept(self.victim.get());
        let waiter = kernel.spawn_once(|| self.wait());
        self.run_until(self.parent.get(), Stop::Parked);
        self.run_until(self.keeper.get(), Stop::Parked);
        self.run_until(self.victim.get(), Stop::Yielded);
        self.run_until(waiter, Stop::Parked);
    }

    /// By the instruction: a timer would not be a child's.
    pub(crate) fn run_until(&self, task: TaskId, stop: Stop) {
        assert_eq!(self.kernel.step(task, 1_000_000), stop);
    }

    /// Has the keeper keep a task.
    pub(crate) fn kept(&self, task: TaskId) {
        self.kernel.keepers().keep(task, self.of_keeper.get()).expect("room for the task");
    }

    fn victim(&'static self) {
        if self.lives.fetch_add(1, Ordering::Relaxed) > 0 {
            return;
        }
        let lock = self.lock.lock();
        let awaited = self.awaited.lock();
        let permit = self.semaphore.acquire();
        let share = self.slot.share();
        let block = TrackedBox::<u64, Current>::new(7);
        yield_now();
        invalid_opcode();
        self.steps.fetch_add(1, Ordering::Relaxed);
        invalid_opcode();
        drop((lock, awaited, permit, share, block));
    }

    pub(crate) fn wait(&self) {
        match self.awaited.lock() {
            Ok(_) => {}
            Err(LockError::OwnerDied(died)) => {
                self.awaited_told.fetch_add(1, Ordering::Relaxed);
                drop(died.mark_consistent());
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// Takes the lock if it is free, and keeps it until it is to let go.
    pub(crate) fn snatch(&self) {
        let Some(guard) = self.try_lock() else { return };
        self.snatched.store(true, Ordering::Relaxed);
        while !self.let_go.load(Ordering::Relaxed) {
            yield_now();
        }
        drop(guard);
    }

    /// The lock, if it is free; counts whether somebody is told of a death.
    pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, u64, Current>> {
        match self.lock.try_lock() {
            Ok(guard) => Some(guard),
            Err(TryLockError::Lock(LockError::OwnerDied(died))) => {
                self.lock_told.fetch_add(1, Ordering::Relaxed);
                Some(died.mark_consistent())
            }
            Err(_) => None,
        }
    }

    /// Answers what the keeper has deferred, if it has given its token away.
    pub(crate) fn answer(&self) -> bool {
        if !self.token_is_out.swap(false, Ordering::Acquire) {
            return false;
        }
        let token = self.token.take().expect("written before it was said");
        let _ = self.kernel.keepers().answer(token, Verdict::Exit);
        true
    }

    /// The present life of a task.
    pub(crate) fn now(&self, first: TaskId) -> TaskId {
        let lives = std::iter::successors(Some(first), |id| Some(id.next_generation()));
        let mut lives = lives.take(16).filter(|id| self.kernel.state(*id) != TaskState::Dead);
        lives.next().unwrap_or(first)
    }
}
