//! A keeper that dies before each instruction of a decision: the supervisor goes on from there.
//!
//! The decision is stepped. Before each instruction, a copy of the supervisor, and of what its
//! keeper has been ordered, is what the next keeper up finds: it rules on the case that was in
//! hand, and then everything is served to its end.
#![expect(unsafe_code, reason = "looks at what a stopped task works on")]

use core::ptr;
use core::sync::atomic::{AtomicU64, Ordering};
use std::boxed::Box;
use std::vec::Vec;

use drop_registry::Ledger;
use drop_registry::hosted::{Machine, Stop};
use task_model::{FaultKind, FrozenTask, TaskId};

use super::{ChildKind, Member, State, Strategy, Supervisor};
use crate::docket::OpenCase;
use crate::orders::Desk;
use crate::supervisor::Backoff;
use crate::{Orders, Policy, PostError, Report, Token, TooLate, Verdict};

const COUNT: u32 = 4;

/// What a keeper was ordered, each by one instruction, as in the real one: a bit for each task.
#[derive(Default)]
struct Ordered {
    killed: AtomicU64,
    to_restart: AtomicU64,
    to_exit: AtomicU64,
}

impl Desk for Ordered {
    fn settle(&self, _: &FrozenTask<'_>, _: &Ledger, _: &mut Report) {}

    fn take_token(&self, _: &mut OpenCase<'_>) -> Option<Token> {
        None
    }

    fn keep_open(&self, _: &mut OpenCase<'_>) -> bool {
        true
    }

    fn answer(&self, task: TaskId, verdict: Verdict) -> Result<(), TooLate> {
        let ordered = if verdict == Verdict::Exit { &self.to_exit } else { &self.to_restart };
        ordered.fetch_or(1 << task.index, Ordering::SeqCst);
        Ok(())
    }

    fn recall(&self, _: TaskId, _: u64) -> bool {
        false
    }

    fn kill(&self, task: TaskId) -> Result<(), PostError> {
        self.killed.fetch_or(1 << task.index, Ordering::SeqCst);
        Ok(())
    }

    fn withdraw_kill(&self, task: TaskId) {
        self.killed.fetch_and(!(1 << task.index), Ordering::SeqCst);
    }

    fn now(&self) -> u64 {
        1
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    Runs,
    Waits,
    Gone,
}

/// A supervisor, its keeper, and its children.
struct World {
    supervisor: &'static Supervisor,
    ordered: Ordered,
    lives: [(TaskId, Life); COUNT as usize],
    /// How many ends the policy is told of, if not of all.
    tells: Option<u32>,
}

impl World {
    fn new(strategy: Strategy) -> Self {
        let supervisor = Supervisor::new(strategy, 100).with_backoff(Backoff::None);
        let supervisor = Box::leak(Box::new(supervisor));
        let lives = core::array::from_fn(|n| (TaskId::first(n as u32), Life::Runs));
        for (task, _) in lives {
            supervisor.add(task, ChildKind::Permanent).unwrap();
        }
        Self { supervisor, ordered: Ordered::default(), lives, tells: None }
    }

    fn copy(&self) -> Self {
        // SAFETY: numbers in atomics, and cells that nobody fills; nobody changes any of it now.
        let supervisor = unsafe { ptr::read(self.supervisor) };
        let bits = |bits: &AtomicU64| AtomicU64::new(bits.load(Ordering::SeqCst));
        Self {
            supervisor: Box::leak(Box::new(supervisor)),
            ordered: Ordered {
                killed: bits(&self.ordered.killed),
                to_restart: bits(&self.ordered.to_restart),
                to_exit: bits(&self.ordered.to_exit),
            },
            lives: self.lives,
            tells: self.tells,
        }
    }

    /// All that a decision changes.
    fn numbers(&self) -> Vec<u64> {
        let Self { supervisor, ordered, .. } = self;
        let members = supervisor.members.all().flat_map(Member::numbers);
        let own = [&supervisor.round, &supervisor.condemns, &supervisor.starts_at];
        let ordered = [&ordered.killed, &ordered.to_restart, &ordered.to_exit];
        let words = own.into_iter().chain(ordered).map(|word| word.load(Ordering::SeqCst));
        members.chain(supervisor.restarts.numbers()).chain(words).collect()
    }

    /// What the policy is asked.
    fn decide(&self, number: usize, end: FaultKind) -> Option<Verdict> {
        let (task, orders) = (self.lives[number].0, Orders::new(&self.ordered));
        let Some(child) = self.supervisor.members.of(task) else { return Some(Verdict::TryNext) };
        orders.withdraw_kill(task);
        self.supervisor.decide(child, end, &orders)
    }

    /// What the policy is told.
    fn tell(&self, task: TaskId, next: Option<TaskId>) {
        let mut report = Report::empty();
        report.task = task;
        report.restarted_as = next;
        self.supervisor.ended(&report, &Orders::new(&self.ordered));
    }

    fn carry_out(&mut self, number: usize, verdict: Option<Verdict>) {
        let task = self.lives[number].0;
        let next = match verdict {
            None => return self.lives[number].1 = Life::Waits,
            Some(Verdict::Restart) => Some(task.next_generation()),
            Some(_) => None,
        };
        self.lives[number] = next.map_or((task, Life::Gone), |next| (next, Life::Runs));
        match &mut self.tells {
            Some(0) => return,
            Some(tells) => *tells -= 1,
            None => {}
        }
        self.tell(task, next);
    }

    /// Serves until there is nothing to do.
    fn serve(&mut self) {
        let take = |bits: &AtomicU64| {
            let all = bits.load(Ordering::SeqCst);
            bits.fetch_and(all & all.wrapping_sub(1), Ordering::SeqCst);
            (all != 0).then(|| all.trailing_zeros() as usize)
        };
        for _ in 0..100 {
            let ruled = [
                (&self.ordered.to_restart, Verdict::Restart),
                (&self.ordered.to_exit, Verdict::Exit),
            ]
            .into_iter()
            .find_map(|(bits, verdict)| Some((take(bits)?, verdict)));
            if let Some((number, verdict)) = ruled {
                if self.lives[number].1 == Life::Waits {
                    self.carry_out(number, Some(verdict));
                }
                continue;
            }
            let Some(number) = take(&self.ordered.killed) else { return };
            match self.lives[number].1 {
                Life::Runs => {
                    let verdict = self.decide(number, FaultKind::Killed);
                    self.carry_out(number, verdict);
                }
                // It is before its keeper, who ends it.
                Life::Waits => self.carry_out(number, Some(Verdict::Exit)),
                Life::Gone => {}
            }
        }
        panic!("there is no end to it");
    }

    /// Claims that nobody waits for anything, and that who lives is a child, as the life that it
    /// is.
    fn check(&self) {
        assert!(self.supervisor.any_round().is_none(), "a round goes on");
        let alive = self.lives.iter().filter(|(_, life)| *life == Life::Runs);
        let alive: Vec<_> = alive.map(|(task, _)| *task).collect();
        assert!(!self.lives.iter().any(|(_, life)| *life == Life::Waits), "one waits for ever");
        let mut members: Vec<_> = self.supervisor.children().collect();
        members.sort();
        assert_eq!(members, alive);
        let up = |member: &Member| member.state() == State::Up;
        assert!(self.supervisor.members.all().all(up));
    }
}

/// Steps `body`, which works on `world`, and calls `died` with a copy before each instruction; not
/// where the last one has changed nothing, since then it is as before that.
fn die_before_each(
    world: &'static World,
    body: impl FnOnce() + Send + 'static,
    mut died: impl FnMut(World),
) {
    // SAFETY: the task allocates nothing, is not killed, and has no registers written.
    let machine = unsafe { Machine::new() };
    let task = machine.spawn(body);
    let (mut instructions, mut changes, mut last) = (0_u64, 0_u64, Vec::new());
    loop {
        let now = world.numbers();
        if now != last {
            (changes, last) = (changes + 1, now);
            died(world.copy());
        }
        match machine.run(task, Some(1)) {
            Stop::BudgetSpent => instructions += 1,
            Stop::Finished => break,
            stop => panic!("{stop:?}"),
        }
    }
    assert!(instructions > 500 && changes > 1, "{changes} in {instructions} are too few");
}

const STRATEGIES: [Strategy; 3] = [Strategy::OneForOne, Strategy::OneForAll, Strategy::RestForOne];

/// After what the next keeper up rules on the case in hand, that life of the child is over, and all
/// others live: those that are in one round as the same life, be it the old one or the next.
#[test]
fn a_keeper_that_dies_deciding_leaves_a_supervisor_that_goes_on() {
    for strategy in STRATEGIES {
        let world: &'static World = Box::leak(Box::new(World::new(strategy)));
        let decide = || {
            let _ = world.decide(1, FaultKind::PageFault);
        };
        die_before_each(world, decide, |found| {
            for above in [Verdict::Exit, Verdict::Restart] {
                let mut world = found.copy();
                world.carry_out(1, Some(above));
                world.serve();
                world.check();
                let alive = if above == Verdict::Exit { COUNT - 1 } else { COUNT };
                assert_eq!(world.supervisor.children().count(), alive as usize);
                let others: &[usize] = match strategy {
                    Strategy::OneForOne => &[],
                    Strategy::OneForAll => &[0, 2, 3],
                    Strategy::RestForOne => &[2, 3],
                };
                let life = |number: &usize| world.lives[*number].0.generation;
                assert!(others.iter().all(|it| life(it) == life(&3)), "{:?}", world.lives);
                // And it still knows what it is for.
                let verdict = world.decide(2, FaultKind::PageFault);
                world.carry_out(2, verdict);
                world.serve();
                world.check();
                assert_eq!(world.supervisor.children().count(), alive as usize);
            }
        });
    }
}

/// Each of the four is told of in its turn, and the round goes on by that.
#[test]
fn a_keeper_that_dies_when_it_tells_of_an_end_is_followed_by_one_that_tells_it_again() {
    for told_before in 0..COUNT {
        let mut world = World::new(Strategy::OneForAll);
        world.tells = Some(told_before);
        let verdict = world.decide(1, FaultKind::PageFault);
        world.carry_out(1, verdict);
        world.serve();
        world.tells = None;
        let untold = world.lives.iter().find(|(task, _)| {
            task.generation == 1 && world.supervisor.children().all(|child| child != *task)
        });
        let next = untold.expect("one has begun again, and nobody knows").0;
        let task = TaskId::first(next.index);
        let world: &'static World = Box::leak(Box::new(world));
        let tell = move || world.tell(task, Some(next));
        die_before_each(world, tell, |mut world| {
            world.tell(task, Some(next));
            world.serve();
            world.check();
            assert_eq!(world.supervisor.children().count(), COUNT as usize);
        });
    }
}

#[test]
fn a_child_whose_restart_is_ruled_when_another_round_begins_is_restarted_once_more() {
    let mut world = World::new(Strategy::RestForOne);
    for (number, end) in [(2, FaultKind::PageFault), (3, FaultKind::Killed)] {
        let verdict = world.decide(number, end);
        assert_eq!(verdict, None);
        world.carry_out(number, verdict);
    }
    world.ordered.killed.store(0, Ordering::SeqCst);
    assert_eq!(world.ordered.to_restart.load(Ordering::SeqCst), 1 << 2);
    let verdict = world.decide(0, FaultKind::PageFault);
    world.carry_out(0, verdict);
    world.serve();
    world.check();
    assert_eq!(world.lives.map(|(task, _)| task.generation), [1, 1, 2, 1]);
}
