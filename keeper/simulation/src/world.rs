//! One random sequence: who is there, what happens to them, and what has to be so in the end.

use std::cell::{Cell, RefCell};
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any, resume_unwind};

use drop_registry::hosted::domain;
use keeper::hosted::unwind_tables;
use keeper::{Capacity, Case, KeeperId, Keepers, Policy, Seat, Token, Verdict};
use task_model::{FaultInfo, FaultKind, TaskId, TaskState};

use crate::platform::{Fake, Lock, Task};
use crate::random::Random;

/// With what a keeper's stack is unwound that has died. Its seat stays taken, as it does by a
/// death.
pub(crate) struct Died;

pub(crate) struct World {
    random: Random,
    keepers: &'static Keepers<Fake>,
    /// By keeper: its parent's number.
    parents: Vec<u8>,
    seats: Vec<RefCell<Option<ManuallyDrop<Seat<'static, Fake>>>>>,
    tokens: RefCell<Vec<(TaskId, Token)>>,
    /// After how many more points the keeper that serves dies.
    dies_in: Cell<Option<u32>>,
    /// How deep keepers interrupt each other.
    depth: Cell<u32>,
    root_is_busy: Cell<bool>,
    /// Nobody dies any more.
    calm: Cell<bool>,
    pub(crate) deaths: Cell<u64>,
    pub(crate) rulings: Cell<u64>,
}

thread_local! {
    pub(crate) static TRACES: Cell<bool> = const { Cell::new(false) };
    static WORLD: Cell<*const World> = const { Cell::new(std::ptr::null()) };
}

fn with_world<T>(body: impl FnOnce(&World) -> T) -> Option<T> {
    // SAFETY: `run` clears it before the world is gone.
    unsafe { WORLD.get().as_ref() }.map(body)
}

/// A place where a keeper may die, or be interrupted.
pub(crate) fn point() {
    if !std::thread::panicking() {
        with_world(World::point);
    }
}

/// Says what happens, if only one sequence is run.
pub(crate) fn trace(what: impl FnOnce() -> String) {
    if TRACES.get() {
        eprintln!("  {}", what());
    }
}

/// Rules at random, but for limits.
#[derive(Debug)]
struct Script;

impl Policy for Script {
    fn rule(&self, case: &mut Case<'_>) -> Verdict {
        with_world(|world| world.rule(case)).expect("somebody serves")
    }
}

static SCRIPT: Script = Script;

/// Runs the sequence that belongs to `seed`, and panics if anything is not as it should be. Returns
/// how many keepers died in it, and how often somebody ruled.
pub(crate) fn run(seed: u64) -> (u64, u64) {
    let random = Random::new(seed);
    let keepers = 1 + random.below(6) as usize;
    let workers = 1 + random.below(9) as usize;
    let own =
        |n: usize| -> Option<&'static dyn Policy> { n.is_multiple_of(3).then_some(&SCRIPT as _) };
    let mut tasks: Vec<Task> = Vec::new();
    for number in 0..keepers + workers {
        let task = Task::new(number as u32);
        tasks.push(if number < keepers {
            Task { serves: Some(KeeperId::from_number(number as u8 + 1)), ..task }
        } else {
            Task {
                policy: own(random.below(6) as usize),
                restartable: random.below(4) > 0,
                limit: random.below(4) as u32,
                ..task
            }
        });
    }
    let capacity = Capacity {
        tasks: tasks.len(),
        keepers: keepers + 1,
        deferred: random.below(3) as usize,
        corpses: random.below(3) as usize,
    };
    let fake = Fake::new(tasks, 4);
    let all = Keepers::new(fake, domain(), unwind_tables(), capacity).with_default_policy(&SCRIPT);
    let all = Box::into_raw(Box::new(all));
    // SAFETY: freed below, after the world and its seats and tokens.
    let all_keepers: &'static Keepers<Fake> = unsafe { &*all };
    let mut parents = vec![0];
    for number in 1..=keepers {
        let parent = random.below(number as u64) as u8;
        let patience = if random.below(2) == 0 { u64::MAX } else { 5 + random.below(50) };
        let id = all_keepers.register(KeeperId::from_number(parent), &SCRIPT, patience);
        assert_eq!(id.map(KeeperId::number), Ok(number as u8));
        parents.push(parent);
    }
    let world = World {
        random,
        keepers: all_keepers,
        parents,
        seats: (0..=keepers).map(|_| RefCell::new(None)).collect(),
        tokens: RefCell::default(),
        dies_in: Cell::new(None),
        depth: Cell::new(0),
        root_is_busy: Cell::new(false),
        calm: Cell::new(false),
        deaths: Cell::new(0),
        rulings: Cell::new(0),
    };
    WORLD.set(&raw const world);
    world.begin();
    for _ in 0..50 + world.random.below(400) {
        world.step();
    }
    world.come_to_rest();
    world.check();
    let done = (world.deaths.get(), world.rulings.get());
    world.tokens.borrow_mut().clear();
    WORLD.set(std::ptr::null());
    drop(world);
    // SAFETY: made above; whatever pointed to it is gone.
    drop(unsafe { Box::from_raw(all) });
    done
}

impl World {
    fn fake(&self) -> &'static Fake {
        self.keepers.platform()
    }

    fn begin(&self) {
        let root = self.keepers.sit(KeeperId::ROOT, None).expect("a free seat");
        self.seats[0].replace(Some(ManuallyDrop::new(root)));
        for task in self.workers() {
            let keeper = KeeperId::from_number(self.random.below(self.seats.len() as u64) as u8);
            self.keepers.keep(task.id(), keeper).expect("there are both");
        }
    }

    fn workers(&self) -> impl Iterator<Item = &'static Task> {
        self.fake().tasks.iter().filter(|task| task.serves.is_none())
    }

    fn any<T>(&self, all: &'static [T]) -> &'static T {
        &all[self.random.below(all.len() as u64) as usize]
    }

    /// Something happens.
    fn step(&self) {
        let fake = self.fake();
        fake.time.set(fake.time.get() + self.random.below(4));
        let task = self.any(&fake.tasks);
        match self.random.below(24) {
            0..4 if task.serves.is_none() && task.is_ready() => {
                let lock: &Lock = self.any(fake.locks);
                task.act(|| lock.try_by(fake, Some(task)));
            }
            4..8 if task.is_ready() && !task.busy.get() => self.stop(task, FaultInfo::panicked(7)),
            8 => self.kill(task),
            9 if task.state.get() == TaskState::Held => {
                task.unwanted.set(Some(task.generation.get()));
                self.keepers.release(task.id()).expect("somebody keeps it");
            }
            10 => self.answer(),
            11 => self.tick(self.random.below(40)),
            12 if task.serves.is_none() => {
                let keeper = self.random.below(self.seats.len() as u64) as u8;
                let named = self.keepers.keep(task.id(), KeeperId::from_number(keeper));
                named.expect("there are both");
            }
            _ => {
                self.serve(self.random.below(self.seats.len() as u64) as usize);
            }
        }
    }

    /// It faults.
    fn stop(&self, task: &Task, fault: FaultInfo) {
        trace(|| format!("{} stops: {fault}", task.id()));
        task.state.set(TaskState::Frozen);
        task.has_faulted.set(true);
        task.ruled.set(None);
        let posted = self.keepers.post(task.id(), fault, self.fake().time.get());
        posted.expect("it has not stopped before, and is kept");
    }

    fn kill(&self, task: &Task) {
        trace(|| format!("kill {}", task.id()));
        if task.state.get() != TaskState::Dead {
            task.unwanted.set(Some(task.generation.get()));
            task.kill_waits.set(Some(task.generation.get()));
            self.keepers.kill(task.id()).expect("somebody keeps it");
        }
    }

    /// Somebody who has a token answers, or lets it go.
    fn answer(&self) {
        let token = self.tokens.borrow_mut().pop();
        let Some((id, token)) = token else { return };
        let verdict = self.verdict_for(id);
        let Some(task) = self.fake().find(id) else { return };
        if self.random.below(4) > 0 {
            // It may be carried out before this is back.
            let before = task.ruled.replace(Some(verdict));
            if self.keepers.answer(token, verdict).is_err() {
                task.ruled.set(before);
            }
        }
    }

    fn tick(&self, ticks: u64) {
        let fake = self.fake();
        fake.time.set(fake.time.get() + ticks);
        self.keepers.tick(fake.time.get(), |late| {
            let task = fake.find(late).expect("it serves");
            if task.is_ready() {
                self.stop(task, FaultInfo::overdue(9));
            }
        });
    }

    /// Lets a keeper serve once, if it can. Returns whether there was anything to serve.
    fn serve(&self, number: usize) -> bool {
        if number == 0 {
            if self.root_is_busy.replace(true) {
                return false;
            }
            let any = self.serve_in(0, None);
            self.root_is_busy.set(false);
            return any;
        }
        let task = &self.fake().tasks[number - 1];
        if !task.is_ready() || task.busy.get() {
            return false;
        }
        let id = task.id();
        let outer = self.dies_in.replace(None);
        if !self.calm.get() && self.random.below(2) == 0 {
            self.dies_in.set(Some(self.random.below(10) as u32));
        }
        task.busy.set(true);
        let served =
            catch_unwind(AssertUnwindSafe(|| task.act(|| self.serve_in(number, Some(id)))));
        task.busy.set(false);
        self.dies_in.set(outer);
        served.unwrap_or_else(|died| {
            if !died.is::<Died>() {
                resume_unwind(died);
            }
            self.deaths.set(self.deaths.get() + 1);
            if task.id() == id && task.is_ready() {
                self.stop(task, FaultInfo::panicked(8));
            }
            true
        })
    }

    fn serve_in(&self, number: usize, task: Option<TaskId>) -> bool {
        trace(|| format!("{number} serves, {task:?}"));
        let outer = self.fake().running.replace(task);
        let guard = Restore(outer);
        let mut seat = match self.seats[number].take() {
            Some(seat) if task.is_none_or(|it| self.keepers.served_by(it).is_some()) => seat,
            _ => {
                let id = KeeperId::from_number(number as u8);
                ManuallyDrop::new(self.keepers.sit(id, task).expect("its last life has left it"))
            }
        };
        let served = seat.serve(|_| point());
        self.seats[number].replace(Some(seat));
        drop(guard);
        served
    }

    /// See [`point`].
    fn point(&self) {
        let fake = self.fake();
        let running = fake.running.get();
        if self.calm.get() {
            return;
        }
        if self.depth.get() < 2 && self.random.below(12) == 0 {
            self.depth.set(self.depth.get() + 1);
            let dies_in = self.dies_in.replace(None);
            let outer = fake.running.replace(None);
            crate::platform::outside(|| self.step());
            fake.running.set(outer);
            self.dies_in.set(dies_in);
            self.depth.set(self.depth.get() - 1);
        }
        let Some(id) = running else { return };
        let stopped = fake.find(id).is_none_or(|task| !task.is_ready());
        match self.dies_in.get() {
            _ if stopped => panic_any(Died),
            Some(0) => panic_any(Died),
            Some(n) => self.dies_in.set(Some(n - 1)),
            None => {}
        }
    }

    fn rule(&self, case: &mut Case<'_>) -> Verdict {
        self.rulings.set(self.rulings.get() + 1);
        let fake = self.fake();
        let id = case.task();
        trace(|| format!("{} is asked about {id}: {}", case.keeper(), case.fault()));
        let task = fake.find(id).expect("it is alive");
        // Neither the keeper itself nor one above it is asked about its own task.
        if let Some(serves) = task.serves {
            let mut above = case.keeper().number();
            while above != 0 {
                assert_ne!(above, serves.number(), "a keeper rules on itself");
                above = self.parents[usize::from(above)];
            }
        }
        assert!(task.state.get() == TaskState::Frozen, "what is ruled on is stopped");
        if case.fault().kind == FaultKind::Killed {
            task.kill_waits.set(None);
        } else {
            assert!(task.has_faulted.get(), "ruled on again for a fault that is over");
        }
        point();
        if self.random.below(3) == 0 {
            case.settle();
            task.settled.set(true);
            point();
        }
        let verdict = match self.verdict_for(id) {
            Verdict::Deferred => {
                // Before somebody answers.
                task.ruled.set(Some(Verdict::Deferred));
                let ticks =
                    if self.random.below(2) == 0 { u64::MAX } else { self.random.below(60) };
                if let Some(token) = case.defer(ticks) {
                    self.tokens.borrow_mut().push((id, token));
                }
                Verdict::Deferred
            }
            verdict => verdict,
        };
        point();
        trace(|| format!("{} rules on {id}: {verdict:?}", case.keeper()));
        if verdict != Verdict::Deferred {
            task.ruled.set(Some(verdict));
        }
        verdict
    }

    /// What may be ruled on this task.
    fn verdict_for(&self, id: TaskId) -> Verdict {
        let Some(task) = self.fake().find(id) else { return Verdict::Exit };
        let later = Verdict::RestartAfter(self.random.below(20));
        let (restart, later) = if id.generation < task.limit {
            (Verdict::Restart, later)
        } else {
            (Verdict::Exit, Verdict::Hold)
        };
        let all = if task.serves.is_some() {
            // Its stack is gone, here.
            [
                restart,
                restart,
                restart,
                restart,
                later,
                Verdict::TryNext,
                Verdict::Exit,
                Verdict::Hold,
            ]
        } else {
            [
                Verdict::Resume,
                Verdict::Resume,
                Verdict::Exit,
                restart,
                later,
                Verdict::Hold,
                Verdict::TryNext,
                Verdict::Deferred,
            ]
        };
        all[self.random.below(all.len() as u64) as usize]
    }

    /// Nobody dies any more, and all goes on until nothing is left to do.
    fn come_to_rest(&self) {
        self.calm.set(true);
        for _ in 0..2000 {
            let mut any = false;
            for number in 0..self.seats.len() {
                any |= self.serve(number);
            }
            while !self.tokens.borrow().is_empty() {
                self.answer();
                any = true;
            }
            let before = self.keepers.open_cases();
            self.tick(60);
            if !any && before == 0 && self.keepers.open_cases() == 0 {
                return;
            }
        }
        panic!("stuck: {} cases are open: {:?}", self.keepers.open_cases(), self.keepers);
    }

    /// What has to be so whatever has happened.
    fn check(&self) {
        let fake = self.fake();
        for task in &fake.tasks {
            let state = task.state.get();
            assert_ne!(state, TaskState::Frozen, "lost: nobody has ruled on {}", task.id());
            let waits = task.kill_waits.get() == Some(task.generation.get());
            assert!(!waits || state == TaskState::Dead, "a kill of {} was lost", task.id());
        }
        for lock in fake.locks {
            crate::platform::outside(|| lock.try_by(fake, None));
        }
    }
}

/// Who ran before runs again, however this ends.
struct Restore(Option<TaskId>);

impl Drop for Restore {
    fn drop(&mut self) {
        with_world(|world| world.fake().running.set(self.0));
    }
}
