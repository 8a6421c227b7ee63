//! Who waits for whom, and who therefore waits for ever.
//!
//! Each ledger says what its task waits for, from the moment it is on the contended path, and what
//! it holds. Together they are the wait-for graph (Holt 1972): tasks, and from each task that
//! waits an arrow to each that holds what it waits for. Nobody keeps it up to date while locks are
//! taken and released; it is read from the ledgers when somebody wants to know.

#[cfg(test)]
mod tests;

use core::fmt;

use heapless::Vec;
use task_model::TaskId;

use crate::{Domain, Ledger, ResourceKind};

/// The waits of up to `TASKS` tasks, and who of them waits for ever.
///
/// A task is *stuck* if it waits for a lock of which some holder is stuck. That holds for a
/// [`Mutex`](crate::Mutex), for both sides of a [`RwLock`](crate::RwLock), whose readers wait for
/// the writer and its writer for all readers, and for every lock that is built on these. Whoever is
/// stuck waits for ever, and among those there is a [`Deadlock`], a cycle.
///
/// Nothing here locks, allocates or looks at a resource: only ledgers are read. The time is
/// bounded: at worst `TASKS`³ ledgers are searched, at [`Ledger::CAPACITY`] entries each; if nobody
/// is stuck, and as a rule, as many ledgers as there are waiters times tasks. It is for the
/// keeper's own time, not for a trap.
///
/// # When it may be read
/// At any time, with a different meaning:
/// - **While the tasks are frozen** (or cannot run: on one CPU, while the reader is not preempted),
///   a deadlock that is found *is* one. Wherever in the middle of an acquisition or a release a
///   task was stopped: as long as its ledger says that it waits, it lets go of nothing that others
///   wait for, and a task that is about to be given what it waits for, or to be refused, is not
///   taken as stuck.
/// - **While tasks run**, it is a suspicion: the ledgers were read one after the other, and may
///   never have been so all at once. To confirm it, freeze the tasks of the cycle, no others, and
///   look again at these alone. If the cycle is found again, it is one: its tasks all waited at one
///   time.
///
/// Either way, no deadlock is missed for long: once there is one, nothing about it changes, and the
/// next look finds it. (One that has a task whose ledger is full is not seen: such a task may be
/// about to be refused for that.)
///
/// # What cannot be seen
/// Some waits have nobody who is known to be able to end them. They are among the
/// [`waits`](Self::waits), but nobody is taken as stuck because of one:
/// - for a [`Permit`](crate::Permit): whoever likes may add one, whoever holds the others;
/// - for a wake-up in a [`Condvar`](crate::Condvar) or [`WaitQueue`](crate::WaitQueue): whoever
///   likes may give it.
///
/// ```
/// # use core::ptr::NonNull;
/// # use drop_registry::{CurrentLedger, Ledger, Mutex};
/// # struct Kernel;
/// # static LEDGERS: [Ledger; 2] = [Ledger::new(), Ledger::new()];
/// # // SAFETY: one task, one ledger.
/// # unsafe impl CurrentLedger for Kernel {
/// #     fn current() -> NonNull<Ledger> { NonNull::from(&LEDGERS[0]) }
/// # }
/// # let domain = drop_registry::hosted::domain();
/// use drop_registry::WaitForGraph;
/// use task_model::TaskId;
///
/// // Of every task that lives:
/// let tasks = LEDGERS.iter().enumerate().map(|(n, ledger)| (TaskId::first(n as u32), ledger));
/// let graph = WaitForGraph::<8>::new(tasks, domain)?;
/// for deadlock in graph.deadlocks() {
///     // "task 3.0 waits for mutex 0x5010, held by task 5.0, which waits for …"
///     log(format_args!("{deadlock}"));
/// }
/// # fn log(_: core::fmt::Arguments<'_>) {}
/// # Ok::<(), drop_registry::TooManyTasks>(())
/// ```
#[derive(Debug)]
pub struct WaitForGraph<'a, const TASKS: usize> {
    nodes: Vec<Node<'a>, TASKS>,
    domain: Domain<'a>,
}

/// One task.
#[derive(Debug, Clone, Copy)]
struct Node<'a> {
    task: TaskId,
    ledger: &'a Ledger,
    /// The address of what it waits for, or 0.
    waits_for: usize,
    /// Why it waits for ever, if it does.
    stuck: Option<Arrow>,
}

/// A task that holds what another one waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Arrow {
    /// The number of its node.
    holder: usize,
    kind: ResourceKind,
}

/// One task waits for what another one holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Wait {
    /// Who waits.
    pub waiter: TaskId,
    /// The address of what it waits for, as the holder's ledger lists it.
    pub resource: u64,
    /// As what the holder has it.
    pub kind: ResourceKind,
    /// Who holds it.
    pub holder: TaskId,
}

/// There are more tasks than the graph has room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooManyTasks;

impl fmt::Display for TooManyTasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("more tasks than the wait-for graph has room for")
    }
}

impl core::error::Error for TooManyTasks {}

impl<'a, const TASKS: usize> WaitForGraph<'a, TASKS> {
    /// Reads the ledgers of these tasks: of all that live, or of some that are suspected. What does
    /// not fit the domain is left out.
    ///
    /// # Errors
    /// If there are more than `TASKS`.
    pub fn new(
        tasks: impl IntoIterator<Item = (TaskId, &'a Ledger)>,
        domain: Domain<'a>,
    ) -> Result<Self, TooManyTasks> {
        let mut nodes = Vec::new();
        for (task, ledger) in tasks {
            let waits_for = ledger.waiting().addr();
            nodes.push(Node { task, ledger, waits_for, stuck: None }).map_err(|_| TooManyTasks)?;
        }
        let mut graph = Self { nodes, domain };
        graph.find_stuck();
        Ok(graph)
    }

    /// Every wait for something that is held: as many for one task as there are holders.
    pub fn waits(&self) -> impl Iterator<Item = Wait> {
        let nodes = &self.nodes;
        nodes.iter().flat_map(move |waiter| {
            holders(nodes, &self.domain, waiter.waits_for)
                .map(move |arrow| wait(nodes, waiter, arrow))
        })
    }

    /// Whether the task waits for ever: because it is in a deadlock, or behind one.
    pub fn is_stuck(&self, task: TaskId) -> bool {
        self.nodes.iter().any(|node| node.task == task && node.stuck.is_some())
    }

    /// The cycles among those who wait for ever, each once.
    ///
    /// Every stuck task is in one of them or behind it. If readers share a lock, a task can be in
    /// several cycles, and not all of them are shown: once one is broken, look again.
    pub fn deadlocks(&self) -> impl Iterator<Item = Deadlock<'_, 'a>> {
        let nodes = &self.nodes[..];
        // Each is shown by the first of its tasks.
        (0..nodes.len())
            .filter(move |first| {
                let mut others = cycle_through(nodes, *first).skip(1).peekable();
                others.peek().is_some() && others.all(|node| node > *first)
            })
            .map(move |first| Deadlock { nodes, first })
    }

    /// Everybody who waits for something that is held is stuck, until it is seen that the holders
    /// are not.
    fn find_stuck(&mut self) {
        for number in 0..self.nodes.len() {
            self.nodes[number].stuck = self.first_holder(number, |_| true);
        }
        loop {
            let mut changed = false;
            for number in 0..self.nodes.len() {
                let Some(arrow) = self.nodes[number].stuck else { continue };
                if self.nodes[arrow.holder].stuck.is_none() {
                    let other = self.first_holder(number, |holder| holder.stuck.is_some());
                    self.nodes[number].stuck = other;
                    changed = true;
                }
            }
            if !changed {
                return;
            }
        }
    }

    /// The first that holds up the task of this node, of those that `is_it`; `None` if it need not
    /// be held up at all.
    fn first_holder(&self, number: usize, is_it: impl Fn(&Node<'a>) -> bool) -> Option<Arrow> {
        let waiter = &self.nodes[number];
        // It has got it, and has not come round to saying so; or it is about to be refused.
        let goes_on = holders(&self.nodes, &self.domain, waiter.waits_for)
            .any(|arrow| arrow.holder == number)
            || waiter.ledger.len() == Ledger::CAPACITY;
        if goes_on {
            return None;
        }
        holders(&self.nodes, &self.domain, waiter.waits_for)
            .filter(|arrow| arrow.kind != ResourceKind::Permit)
            .find(|arrow| is_it(&self.nodes[arrow.holder]))
    }
}

/// Those that have what is at this address, once for each entry.
fn holders<'n>(
    nodes: &'n [Node<'_>],
    domain: &'n Domain<'_>,
    resource: usize,
) -> impl Iterator<Item = Arrow> + 'n {
    let nodes = if resource == 0 { &[] } else { nodes };
    nodes.iter().enumerate().flat_map(move |(holder, node)| {
        let listed = node.ledger.held().filter(move |entry| entry.resource().addr() == resource);
        listed
            .filter_map(|entry| domain.operations(entry))
            .map(|operations| operations.kind)
            // A place in a queue keeps nobody waiting.
            .filter(|kind| *kind != ResourceKind::WaitQueue)
            .map(move |kind| Arrow { holder, kind })
    })
}

fn wait(nodes: &[Node<'_>], waiter: &Node<'_>, arrow: Arrow) -> Wait {
    Wait {
        waiter: waiter.task,
        resource: waiter.waits_for as u64,
        kind: arrow.kind,
        holder: nodes[arrow.holder].task,
    }
}

/// The nodes from `first` on, each because of the next, until it comes back to `first`; none if it
/// does not.
fn cycle_through(nodes: &[Node<'_>], first: usize) -> impl Iterator<Item = usize> {
    let after = move |node: usize| nodes[node].stuck.map(|arrow| arrow.holder);
    // A way of as many steps as there are nodes has come round somewhere.
    let mut way = core::iter::successors(after(first), move |node| after(*node)).take(nodes.len());
    let comes_back = way.any(|node| node == first);
    core::iter::successors(comes_back.then_some(first), move |node| {
        after(*node).filter(|next| *next != first)
    })
}

/// A cycle of tasks of which each waits for the next. See [`WaitForGraph`] for when that is for
/// certain.
///
/// Its [`Display`](fmt::Display) is one sentence.
#[derive(Clone, Copy)]
pub struct Deadlock<'g, 'a> {
    nodes: &'g [Node<'a>],
    first: usize,
}

impl<'g> Deadlock<'g, '_> {
    /// Its waits: each one's holder is the next one's waiter, and the last one's the first one's.
    pub fn waits(&self) -> impl Iterator<Item = Wait> + use<'g, '_> {
        let nodes = self.nodes;
        cycle_through(nodes, self.first).filter_map(move |number| {
            let node = &nodes[number];
            node.stuck.map(|arrow| wait(nodes, node, arrow))
        })
    }

    /// Its tasks: the end of any of them ends the deadlock.
    pub fn tasks(&self) -> impl Iterator<Item = TaskId> + use<'g, '_> {
        self.waits().map(|wait| wait.waiter)
    }
}

impl fmt::Display for Deadlock<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, wait) in self.waits().enumerate() {
            match n {
                0 => write!(f, "{wait}")?,
                _ => write!(
                    f,
                    ", which waits for {} {:#x}, held by task {}",
                    wait.kind, wait.resource, wait.holder
                )?,
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Deadlock<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.waits()).finish()
    }
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { waiter, resource, kind, holder } = self;
        write!(f, "task {waiter} waits for {kind} {resource:#x}, held by task {holder}")
    }
}
