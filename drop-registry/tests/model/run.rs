//! One run of a program, and the books at its end.

use std::sync::atomic::Ordering::Relaxed;

use drop_registry::hosted::{Hosted, Machine, Stop};
use drop_registry::{Outcome, ResourceKind, Shared, TrackedHeap, WindowTable};
use proptest::test_runner::TestCaseError;
use task_model::TaskId;

use crate::program::{Event, MUTEXES, Program};
use crate::task;
use crate::world::{CAPACITY, Counted, PERMITS, SHARED, Told, World};

/// How many turns everybody gets at the end before somebody counts as stuck.
const PATIENCE: usize = 2000;

/// For how many instructions a window is waited for.
const FAR: usize = 600;

/// What a box of one pointer takes of the heap, and what a shared one does.
const BOX_BYTES: u64 = 16;
const SHARED_BYTES: u64 = 32;

/// How many values were left alone, because their destructors had begun.
#[derive(Debug, Clone, Copy, Default)]
struct Quarantine {
    boxes: u64,
    shared: u64,
}

struct Run {
    machine: Machine,
    world: &'static World,
    tasks: Vec<TaskId>,
    /// Dead, and not settled.
    dying: Vec<bool>,
    /// What settlements have left in quarantine.
    quarantined: Quarantine,
    kills: u64,
}

/// Runs `program`, and compares what comes of it with the model.
pub(crate) fn run(program: &Program) -> Result<(), TestCaseError> {
    let heap_before = Hosted::heap().bytes_taken();
    let world: &'static World = Box::leak(Box::new(World::new()));
    let value = Shared::new_droppable(Counted(&world.drops.of_shared[0]));
    world.slots[0].put(value.expect("room on the heap")).expect("an empty slot");
    // SAFETY: tasks share words alone by thread-locals, and allocate from the heap of tracked
    // blocks alone. The world is leaked, and freed when the machine is gone.
    let machine = unsafe { Machine::new() };
    let mut tasks = Vec::new();
    for (number, operations) in program.tasks.iter().cloned().enumerate() {
        // Restartable, so that what it owns is freed with the machine, and not by the task.
        let entry = Box::new(move || task::perform(world, number, &operations));
        // SAFETY: what the world has besides what is `Sync` is the model, in cells: each is written
        // by one store, by whoever the model says has what it is about, or asked between such
        // stores.
        tasks.push(unsafe { machine.spawn_restartable_unchecked(entry) });
    }
    let dying = vec![false; tasks.len()];
    let mut run =
        Run { machine, world, tasks, dying, quarantined: Quarantine::default(), kills: 0 };
    // A world that has failed is leaked: nobody knows who holds what in it.
    run.all(program)?;
    run.balance()?;
    let (quarantined, kills) = (run.quarantined, run.kills);
    drop(run);
    // SAFETY: the tasks are gone with their machine, and nothing else has borrowed the world.
    let world = unsafe { Box::from_raw(std::ptr::from_ref(world).cast_mut()) };
    balance_heap(world, heap_before, quarantined, kills)
}

impl Run {
    fn all(&mut self, program: &Program) -> Result<(), TestCaseError> {
        for event in &program.events {
            match *event {
                Event::Step(task, instructions) => self.turn(task, Some(instructions))?,
                Event::Turn(task) => self.turn(task, None)?,
                Event::Die(task) => self.die(task),
                Event::DieInWindow(task, turns, more) => {
                    for _ in 0..turns {
                        self.turn(task, None)?;
                    }
                    self.step_into_window(task)?;
                    for _ in 0..more {
                        self.turn(task, Some(1))?;
                    }
                    self.die(task);
                }
                Event::Settle(task) => self.settle(task),
            }
            self.check()?;
        }
        for task in 0..self.tasks.len() {
            self.settle(task);
        }
        for _ in 0..PATIENCE {
            let alive: Vec<_> =
                (0..self.tasks.len()).filter(|n| self.machine.is_alive(self.tasks[*n])).collect();
            if alive.is_empty() {
                return self.check();
            }
            if alive.iter().all(|task| self.machine.is_asleep(self.tasks[*task])) {
                self.wake_who_waits_for_a_job(&alive)?;
            }
            for task in alive {
                self.turn(task, None)?;
            }
        }
        Err(TestCaseError::fail("somebody waits for ever"))
    }

    /// All who are left sleep: for jobs, and there are none. So here is one.
    fn wake_who_waits_for_a_job(&mut self, alive: &[usize]) -> Result<(), TestCaseError> {
        let world = self.world;
        let all_take = alive.iter().all(|task| world.taking[*task].get());
        world.require(all_take, "somebody sleeps for ever");
        let (begun, done) = (world.posts_begun.load(Relaxed), world.takes_done.load(Relaxed));
        world.require(begun >= done, "a job was done twice");
        let Some(jobs) = world.jobs_left() else {
            return Err(TestCaseError::fail("a lock is held by nobody"));
        };
        world.require(jobs == 0, "somebody sleeps, and what he waits for is there");
        world.post();
        self.check()
    }

    fn turn(&mut self, task: usize, budget: Option<u64>) -> Result<(), TestCaseError> {
        let id = self.tasks[task];
        if self.dying[task] || !self.machine.is_alive(id) {
            return Ok(());
        }
        match self.machine.run(id, budget) {
            Stop::BudgetSpent | Stop::Yielded | Stop::Parked | Stop::Finished => Ok(()),
            stop => Err(TestCaseError::fail(format!("task {task}: {stop:?}"))),
        }
    }

    fn die(&mut self, task: usize) {
        self.dying[task] |= self.machine.is_alive(self.tasks[task]);
    }

    fn step_into_window(&mut self, task: usize) -> Result<(), TestCaseError> {
        let id = self.tasks[task];
        for _ in 0..FAR {
            if !self.machine.is_alive(id) || self.dying[task] {
                break;
            }
            if WindowTable::linked().pending(self.machine.registers(id)).is_some() {
                break;
            }
            self.turn(task, Some(1))?;
        }
        Ok(())
    }

    fn check(&self) -> Result<(), TestCaseError> {
        self.world.violation().map_or(Ok(()), |violation| Err(TestCaseError::fail(violation)))
    }

    /// Settles a task that has died, and tells the model.
    fn settle(&mut self, task: usize) {
        if !std::mem::take(&mut self.dying[task]) {
            return;
        }
        let (world, id) = (self.world, self.tasks[task]);
        self.kills += 1;
        let told_before = world.told[MUTEXES].get();
        let ledger = std::ptr::from_ref(self.machine.frozen(id).1).addr() as u64;
        let owned = world.owned_by(ledger);
        for (_, told) in owned.iter().zip(&world.told).filter(|(owned, _)| **owned) {
            told.set(Told::Death);
        }
        // It may not have come to write: whoever waits for readers to leave owns the word, too.
        if owned[MUTEXES] && !world.writing[task].get() && told_before != Told::Death {
            world.told[MUTEXES].set(Told::Either);
        }
        // A reader counts before it says that it reads.
        if world.reading[task].get() {
            world.told_of_reader.set(Told::Death);
        } else if world.rwlock.reader_count() > 0 && world.told_of_reader.get() == Told::Nothing {
            world.told_of_reader.set(Told::Either);
        }
        world.writing[task].set(false);
        world.reading[task].set(false);
        world.permits_held[task].set(0);
        world.taking[task].set(false);
        let settled = self.machine.kill(id);
        for one in settled {
            world.require(one.outcome != Outcome::Refused, "a true entry was refused");
            if one.outcome == Outcome::Quarantined {
                match one.kind {
                    ResourceKind::Box => self.quarantined.boxes += 1,
                    ResourceKind::Share => self.quarantined.shared += 1,
                    _ => world.require(false, "there is nothing else to be quarantined"),
                }
            }
        }
    }

    /// The books, when nobody is left.
    fn balance(&mut self) -> Result<(), TestCaseError> {
        let world = self.world;
        let mutexes = world.spinning.iter().map(|lock| lock.is_locked());
        let locked = mutexes.chain([world.sleeping.is_locked(), world.rwlock.is_write_locked()]);
        let none_locked = !locked.into_iter().any(|it| it)
            && !world.accounts.is_locked()
            && !world.mended.is_locked();
        world.require(none_locked, "a lock is held by nobody");
        world.require(world.rwlock.reader_count() == 0, "readers are counted that there are not");
        world.require(world.permits.available() == PERMITS, "the permits do not add up");
        for flag in &world.flags {
            world.require(!flag.0.load(Relaxed), "an obligation was not met");
        }
        let accounts = *world.accounts.lock().expect("nobody holds it");
        world.require(accounts[0] == accounts[1], "half a transfer was not taken back");
        let (begun, done) =
            (world.transfers_begun.load(Relaxed), world.transfers_done.load(Relaxed));
        world.require((done..=begun).contains(&accounts[0]), "a transfer was lost, or made up");
        // A box whose task died while it was made has no value yet.
        let (boxes, dropped) =
            (world.boxes_begun.load(Relaxed), world.drops.of_boxes.load(Relaxed));
        world.require(dropped <= boxes, "a boxed value was dropped twice");
        let lost = self.quarantined.boxes + self.kills;
        world.require(dropped + lost >= boxes, "a boxed value was never dropped");
        let sums = *world.mended.lock().expect("nobody holds it");
        world.require(sums[0] == sums[1], "the keeper has not mended what was torn");
        let jobs = world.jobs_left().unwrap_or(u64::MAX / 2);
        let [posts, posted, takes, taken] =
            [&world.posts_begun, &world.posts_done, &world.takes_begun, &world.takes_done]
                .map(|number| number.load(Relaxed));
        let add_up = posted <= jobs + takes && jobs + taken <= posts;
        world.require(add_up, "a job was lost, or made up");
        let made = world.once.get().copied();
        world.require(made.is_some() || world.made.get().is_none(), "what was made is gone");
        world.require(world.made.get().is_none_or(|it| made == Some(it)), "it was made again");
        while world.channel.try_recv().is_ok() {}
        world.require(world.channel.is_empty(), "an item is in the channel, and not received");
        let first = world.slots[0].share().expect("room in the ledger").expect("never emptied");
        // Whoever died in it, it has room for as many as ever, and gives them out again.
        for _ in 0..CAPACITY {
            let sent = world.channel.try_send(first.try_clone().expect("room in the ledger"));
            world.require(sent.is_ok(), "the channel refuses what it has room for");
        }
        for _ in 0..CAPACITY {
            let received = world.channel.try_recv();
            let same = received.is_ok_and(|it| std::ptr::eq(&*it, &*first));
            world.require(same, "the channel keeps what was sent");
        }
        let second = world.slots[1].share().expect("room in the ledger");
        let same = second.is_some_and(|second| std::ptr::eq(&*first, &*second));
        let expected = 2 + u64::from(same);
        world.require(Shared::count(&first) == expected, "the shares do not add up");
        let kept = world.drops.of_shared[0].load(Relaxed) == 0;
        world.require(kept, "a value was dropped that a slot shares");
        self.check()
    }
}

/// Lets go of what the slots keep, when nobody is left: the heap is as it was before, but for what
/// is in quarantine.
fn balance_heap(
    world: Box<World>,
    before: usize,
    quarantined: Quarantine,
    kills: u64,
) -> Result<(), TestCaseError> {
    let (drops, begun) = (world.drops, world.shared_begun.load(Relaxed).min(SHARED as u64));
    drop(world);
    let require = |holds: bool, otherwise: &'static str| {
        if holds { Ok(()) } else { Err(TestCaseError::fail(otherwise)) }
    };
    let of_shared = drops.of_shared.each_ref().map(|drops| drops.load(Relaxed));
    require(of_shared.iter().all(|drops| *drops <= 1), "a shared value was dropped twice")?;
    require(of_shared[0] == 1, "the value of the slots was not dropped")?;
    let dropped: u64 = of_shared.iter().sum();
    let lost = quarantined.shared + kills;
    require(dropped + lost >= begun, "a shared value was never dropped")?;
    let taken = (Hosted::heap().bytes_taken() - before) as u64;
    let expected = quarantined.boxes * BOX_BYTES + quarantined.shared * SHARED_BYTES;
    require(taken == expected, "memory was lost, or given back twice")
}
