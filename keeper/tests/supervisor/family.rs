//! Children that say when they begin, and end as they are told.

use std::arch::asm;
use std::cell::{Ref, RefCell};
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use keeper::hosted::{Kernel, Stop, yield_now};
use keeper::supervisor::{ChildKind, Supervisor};
use keeper::{Capacity, KeeperId, Policy, Report, Verdict};
use task_model::{TaskId, TaskState};

use crate::kernel_with;

/// What supervisors are told a second is: a thousand real ones, so that it does not matter how long
/// the tests themselves take.
pub(crate) const SECOND: u64 = 1_000_000_000_000;

/// How a child ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Returns = 1,
    Faults,
    Panics,
    IsKilled,
}

/// What a child and its test have to say to each other.
#[derive(Debug, Default)]
struct Talk {
    /// How many lives have begun since the test last asked.
    begun: AtomicU32,
    /// How it is to [end](End); 0 if it is not to.
    end: AtomicU8,
}

/// A child's life.
fn live(talk: &Talk) {
    talk.begun.fetch_add(1, Relaxed);
    loop {
        yield_now();
        let end = talk.end.swap(0, Relaxed);
        if end == End::Returns as u8 {
            return;
        }
        if end == End::Faults as u8 {
            // SAFETY: it is not: it stops the task, which is what it is for.
            unsafe { asm!("ud2") };
        }
        if end == End::Panics as u8 {
            // Without the message that a panic prints.
            std::panic::resume_unwind(Box::new(()));
        }
    }
}

/// A child, by the name that the test gives it.
struct Child {
    name: char,
    task: TaskId,
    talk: &'static Talk,
}

/// A kernel, and children that have names.
pub(crate) struct Family {
    pub(crate) kernel: Kernel,
    children: RefCell<Vec<Child>>,
}

pub(crate) fn leak(supervisor: Supervisor) -> &'static Supervisor {
    Box::leak(Box::new(supervisor))
}

impl Family {
    pub(crate) fn new() -> Self {
        let capacity = Capacity { tasks: 64, keepers: KeeperId::MAX, deferred: 64, corpses: 1 };
        Self { kernel: kernel_with(capacity), children: RefCell::default() }
    }

    /// Children with these names, in this order.
    pub(crate) fn children(self, supervisor: &'static Supervisor, names: &str) -> Self {
        names.chars().for_each(|name| self.child(supervisor, name, ChildKind::Permanent));
        self
    }

    pub(crate) fn child(&self, supervisor: &'static Supervisor, name: char, kind: ChildKind) {
        let talk: &'static Talk = Box::leak(Box::default());
        let task = self.kernel.spawn_with_policy(supervisor, move || live(talk));
        supervisor.add(task, kind).unwrap();
        self.children.borrow_mut().push(Child { name, task, talk });
    }

    /// As `child`, of a task that has no entry to begin again from.
    pub(crate) fn child_that_lives_once(&self, supervisor: &'static Supervisor, name: char) {
        let talk: &'static Talk = Box::leak(Box::default());
        let task = self.kernel.spawn_once_with_policy(supervisor, move || live(talk));
        supervisor.add(task, ChildKind::Permanent).unwrap();
        self.children.borrow_mut().push(Child { name, task, talk });
    }

    /// The child's latest life.
    pub(crate) fn task(&self, name: char) -> TaskId {
        self.child_named(name).task
    }

    fn child_named(&self, name: char) -> Ref<'_, Child> {
        Ref::map(self.children.borrow(), |children| {
            children.iter().find(|child| child.name == name).expect("a child of that name")
        })
    }

    /// Runs everybody once, and says who has begun since it was last asked, by the alphabet: tasks
    /// run by number, in whatever order they were started.
    pub(crate) fn begun(&self) -> String {
        self.watch(self.kernel.run_turns(1));
        let children = self.children.borrow();
        let lives = |child: &Child| {
            std::iter::repeat_n(child.name, child.talk.begun.swap(0, Relaxed) as usize)
        };
        let mut begun: Vec<_> = children.iter().flat_map(lives).collect();
        begun.sort_unstable();
        begun.into_iter().collect()
    }

    /// Has a child end, and the keeper deal with that. Returns whose lives ended, in that order, in
    /// lower case if they are restarted, else in upper.
    pub(crate) fn end(&self, name: char, end: End) -> String {
        self.order_end(name, end);
        let mut ended = self.serve();
        while ended.is_empty() && self.kernel.state(self.task(name)) == TaskState::Ready {
            ended = self.watch(self.kernel.run_turns(1));
        }
        ended + &self.serve()
    }

    /// Runs a child alone until it has come to the end that was ordered, and its keeper is to be
    /// told.
    pub(crate) fn run_to_end(&self, name: char) {
        while self.kernel.step(self.task(name), 1_000_000) == Stop::Yielded {}
    }

    /// Has the child end when it runs next.
    pub(crate) fn order_end(&self, name: char, end: End) {
        if end == End::IsKilled {
            self.kernel.kill(self.task(name));
        } else {
            self.child_named(name).talk.end.store(end as u8, Relaxed);
        }
    }

    /// Has the keeper deal with what there is, and says whose lives ended by that, as
    /// [`end`](Self::end).
    pub(crate) fn serve(&self) -> String {
        let reports = self.kernel.serve();
        self.watch(reports)
    }

    /// As [`serve`](Self::serve), when so much time has passed.
    pub(crate) fn serve_after(&self, ticks: u64) -> String {
        self.kernel.pass(Duration::from_nanos(ticks));
        self.serve()
    }

    /// Notes what the keeper reported.
    pub(crate) fn watch(&self, reports: Vec<Report>) -> String {
        let mut children = self.children.borrow_mut();
        let ended = reports.iter().filter_map(|report| {
            let child = children.iter_mut().find(|child| child.task == report.task)?;
            if report.verdict == Some(Verdict::Restart) {
                child.task = report.restarted_as.expect("it has begun again");
                return Some(child.name);
            }
            Some(child.name.to_ascii_uppercase())
        });
        ended.collect()
    }

    /// Who lives: can run, and is in nobody's hands.
    pub(crate) fn alive(&self) -> String {
        let children = self.children.borrow();
        let alive = |child: &&Child| self.kernel.state(child.task) == TaskState::Ready;
        children.iter().filter(alive).map(|child| child.name).collect()
    }
}

/// Rules on nothing itself, and notes whom it is asked about.
#[derive(Debug, Default)]
pub(crate) struct Above(pub(crate) std::sync::Mutex<Vec<TaskId>>);

impl Policy for Above {
    fn rule(&self, case: &mut keeper::Case<'_>) -> Verdict {
        self.0.lock().unwrap().push(case.task());
        Verdict::Exit
    }
}
