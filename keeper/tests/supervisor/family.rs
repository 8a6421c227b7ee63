//! Children that say when they begin, and end as they are told.

use std::arch::asm;
use std::cell::RefCell;
use std::collections::HashMap;
use std::time::Duration;

use keeper::hosted::{Kernel, Stop, yield_now};
use keeper::supervisor::{ChildKind, Supervisor};
use keeper::{Capacity, KeeperId, Policy, Report, Verdict};
use task_model::{TaskId, TaskState};

/// What supervisors are told a second is: a thousand real ones, so that it does not matter how long
/// the tests themselves take.
pub(crate) const SECOND: u64 = 1_000_000_000_000;

/// How a child ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Returns,
    Faults,
    Panics,
    IsKilled,
}

thread_local! {
    static BEGUN: RefCell<Vec<char>> = const { RefCell::new(Vec::new()) };
    static TO_END: RefCell<HashMap<char, End>> = RefCell::default();
}

/// A child's life.
fn live(name: char) {
    BEGUN.with_borrow_mut(|begun| begun.push(name));
    loop {
        yield_now();
        match TO_END.with_borrow_mut(|ends| ends.remove(&name)) {
            None | Some(End::IsKilled) => {}
            Some(End::Returns) => return,
            // SAFETY: it is not: it stops the task, which is what it is for.
            Some(End::Faults) => unsafe { asm!("ud2") },
            // Without the message that a panic prints.
            Some(End::Panics) => std::panic::resume_unwind(Box::new(())),
        }
    }
}

/// A kernel, and children that have names.
pub(crate) struct Family {
    pub(crate) kernel: Kernel,
    children: RefCell<Vec<(char, TaskId)>>,
}

pub(crate) fn leak(supervisor: Supervisor) -> &'static Supervisor {
    Box::leak(Box::new(supervisor))
}

impl Family {
    pub(crate) fn new() -> Self {
        let capacity = Capacity { tasks: 64, keepers: KeeperId::MAX, deferred: 64, corpses: 1 };
        Self { kernel: Kernel::with_capacity(capacity), children: RefCell::default() }
    }

    /// Children with these names, in this order.
    pub(crate) fn children(self, supervisor: &'static Supervisor, names: &str) -> Self {
        names.chars().for_each(|name| self.child(supervisor, name, ChildKind::Permanent));
        self
    }

    pub(crate) fn child(&self, supervisor: &'static Supervisor, name: char, kind: ChildKind) {
        let task = self.kernel.spawn_with_policy(supervisor, move || live(name));
        supervisor.add(task, kind).unwrap();
        self.children.borrow_mut().push((name, task));
    }

    /// As `child`, of a task that has no entry to begin again from.
    pub(crate) fn child_that_lives_once(&self, supervisor: &'static Supervisor, name: char) {
        let task = self.kernel.spawn_once_with_policy(supervisor, move || live(name));
        supervisor.add(task, ChildKind::Permanent).unwrap();
        self.children.borrow_mut().push((name, task));
    }

    /// The child's latest life.
    pub(crate) fn task(&self, name: char) -> TaskId {
        let children = self.children.borrow();
        children.iter().find(|child| child.0 == name).expect("a child of that name").1
    }

    /// Runs everybody once, and says who has begun since it was last asked, by the alphabet: tasks
    /// run by number, in whatever order they were started.
    pub(crate) fn begun(&self) -> String {
        self.watch(self.kernel.run_turns(1));
        let mut begun = BEGUN.take();
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
            TO_END.with_borrow_mut(|ends| ends.insert(name, end));
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
            let child = children.iter_mut().find(|child| child.1 == report.task)?;
            if report.verdict == Some(Verdict::Restart) {
                child.1 = report.restarted_as.expect("it has begun again");
                return Some(child.0);
            }
            Some(child.0.to_ascii_uppercase())
        });
        ended.collect()
    }

    /// Who lives: can run, and is in nobody's hands.
    pub(crate) fn alive(&self) -> String {
        let children = self.children.borrow();
        let alive = |child: &&(char, TaskId)| self.kernel.state(child.1) == TaskState::Ready;
        children.iter().filter(alive).map(|child| child.0).collect()
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
