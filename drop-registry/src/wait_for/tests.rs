//! The search, against a reference that asks who can reach whom.

use core::ptr;
use std::format;
use std::string::ToString;
use std::vec;
use std::vec::Vec;

use proptest::collection::vec as vec_of;
use proptest::prelude::*;
use task_model::TaskId;

use super::{TooManyTasks, Wait, WaitForGraph};
use crate::testing::{domain, nothing, record};
use crate::{Ledger, Operations, ResourceKind};

const MOST: usize = 9;
type Graph<'a> = WaitForGraph<'a, MOST>;

const KINDS: [ResourceKind; 5] = [
    ResourceKind::Mutex,
    ResourceKind::WriteLock,
    ResourceKind::ReadLock,
    ResourceKind::Permit,
    ResourceKind::WaitQueue,
];

const fn of_kind(kind: ResourceKind) -> Operations {
    let mut operations = nothing();
    operations.kind = kind;
    operations
}

fn operations(kind: ResourceKind) -> &'static Operations {
    static ALL: [Operations; KINDS.len()] = {
        let [a, b, c, d, e] = KINDS;
        [of_kind(a), of_kind(b), of_kind(c), of_kind(d), of_kind(e)]
    };
    ALL.iter().find(|it| it.kind == kind).expect("one of the kinds")
}

/// Tasks that are no more than their ledgers.
struct Tasks(Vec<Ledger>);

/// Where resource number `n` is.
fn place(n: usize) -> *mut () {
    ptr::without_provenance_mut(0x1000 + 16 * n)
}

impl Tasks {
    fn new(count: usize) -> Self {
        Self((0..count).map(|_| Ledger::new()).collect())
    }

    fn hold(&self, task: usize, resource: usize, kind: ResourceKind) {
        record(&self.0[task], place(resource), operations(kind), 0).unwrap();
    }

    fn wait(&self, task: usize, resource: usize) {
        core::mem::forget(self.0[task].wait_for(place(resource)));
    }

    fn graph(&self) -> Graph<'_> {
        WaitForGraph::new(self.0.iter().enumerate().map(|(n, ledger)| (id(n), ledger)), domain())
            .unwrap()
    }
}

fn id(task: usize) -> TaskId {
    TaskId::first(task as u32)
}

fn cycles(graph: &Graph<'_>) -> Vec<Vec<u32>> {
    graph.deadlocks().map(|it| it.tasks().map(|task| task.index).collect()).collect()
}

#[test]
fn two_that_wait_for_each_other_are_a_deadlock_and_it_reads_as_a_sentence() {
    let tasks = Tasks::new(3);
    tasks.hold(0, 0, ResourceKind::Mutex);
    tasks.hold(2, 1, ResourceKind::WriteLock);
    tasks.wait(0, 1);
    tasks.wait(2, 0);
    let graph = tasks.graph();
    let deadlocks: Vec<_> = graph.deadlocks().map(|deadlock| deadlock.to_string()).collect();
    let sentence = "task 0.0 waits for write lock 0x1010, held by task 2.0, \
                    which waits for mutex 0x1000, held by task 0.0";
    assert_eq!(deadlocks, [sentence]);
    assert!(graph.is_stuck(id(0)) && !graph.is_stuck(id(1)) && graph.is_stuck(id(2)));
}

#[test]
fn who_waits_behind_a_deadlock_is_stuck_and_not_part_of_it() {
    let tasks = Tasks::new(4);
    tasks.hold(1, 1, ResourceKind::Mutex);
    tasks.hold(2, 2, ResourceKind::Mutex);
    tasks.wait(1, 2);
    tasks.wait(2, 1);
    tasks.wait(0, 1);
    let graph = tasks.graph();
    assert_eq!(cycles(&graph), [[1, 2]]);
    assert!(graph.is_stuck(id(0)) && !graph.is_stuck(id(3)));
}

#[test]
fn a_chain_that_ends_with_somebody_who_runs_is_no_deadlock() {
    let tasks = Tasks::new(3);
    tasks.hold(1, 0, ResourceKind::Mutex);
    tasks.hold(2, 1, ResourceKind::Mutex);
    tasks.wait(0, 0);
    tasks.wait(1, 1);
    let graph = tasks.graph();
    assert_eq!(cycles(&graph), Vec::<Vec<u32>>::new());
    assert_eq!(graph.waits().count(), 2);
    assert!((0..3).all(|task| !graph.is_stuck(id(task))));
}

#[test]
fn a_writer_waits_for_all_readers() {
    let tasks = Tasks::new(3);
    for reader in [1, 2] {
        tasks.hold(reader, 0, ResourceKind::ReadLock);
    }
    tasks.hold(0, 1, ResourceKind::WriteLock);
    tasks.wait(0, 0);
    assert_eq!(cycles(&tasks.graph()), Vec::<Vec<u32>>::new());
    // One of the two readers waits for the writer; that the other can leave is no help.
    tasks.wait(2, 1);
    assert_eq!(cycles(&tasks.graph()), [[0, 2]]);
}

#[test]
fn permits_and_queues_are_shown_and_nobody_is_stuck_because_of_one() {
    let tasks = Tasks::new(2);
    tasks.hold(0, 0, ResourceKind::Permit);
    tasks.hold(1, 1, ResourceKind::Mutex);
    tasks.hold(1, 2, ResourceKind::WaitQueue);
    tasks.wait(0, 1);
    tasks.wait(1, 0);
    let graph = tasks.graph();
    assert_eq!(cycles(&graph), Vec::<Vec<u32>>::new());
    let by_permit =
        Wait { waiter: id(1), resource: 0x1000, kind: ResourceKind::Permit, holder: id(0) };
    assert!(graph.waits().any(|wait| wait == by_permit));
    tasks.wait(0, 2);
    assert_eq!(tasks.graph().waits().collect::<Vec<_>>(), [by_permit]);
}

#[test]
fn who_has_got_it_already_or_may_be_refused_is_not_stuck() {
    let tasks = Tasks::new(2);
    tasks.hold(0, 0, ResourceKind::Mutex);
    tasks.hold(1, 1, ResourceKind::Mutex);
    tasks.wait(0, 1);
    tasks.wait(1, 1);
    assert_eq!(cycles(&tasks.graph()), Vec::<Vec<u32>>::new());

    let tasks = Tasks::new(2);
    for resource in 0..Ledger::CAPACITY {
        tasks.hold(0, resource, ResourceKind::Mutex);
    }
    tasks.hold(1, 100, ResourceKind::Mutex);
    tasks.wait(0, 100);
    tasks.wait(1, 0);
    assert_eq!(cycles(&tasks.graph()), Vec::<Vec<u32>>::new());
}

#[test]
fn more_tasks_than_there_is_room_for_are_refused() {
    let ledger = Ledger::new();
    let many = (0..=MOST).map(|task| (id(task), &ledger));
    assert_eq!(WaitForGraph::<MOST>::new(many, domain()).unwrap_err(), TooManyTasks);
}

/// Resources of some kind, their holders, and what each task waits for.
#[derive(Debug, Clone)]
struct Case {
    tasks: usize,
    resources: Vec<(ResourceKind, Vec<usize>)>,
    waits: Vec<Option<usize>>,
}

fn cases() -> impl Strategy<Value = Case> {
    (1..=MOST, 1..=MOST).prop_flat_map(|(tasks, resources)| {
        let resource = (prop::sample::select(&KINDS[..]), vec_of(0..tasks, 0..4));
        let waits = vec_of(prop::option::weighted(0.8, 0..resources), tasks);
        (vec_of(resource, resources), waits).prop_map(move |(mut resources, waits)| {
            let mut held = vec![0; tasks];
            for (kind, holders) in &mut resources {
                // What one task holds at a time, one task holds.
                if matches!(kind, ResourceKind::Mutex | ResourceKind::WriteLock) {
                    holders.truncate(1);
                }
                // And no more than a ledger has room for.
                holders.retain(|task| {
                    held[*task] += 1;
                    held[*task] <= Ledger::CAPACITY
                });
            }
            Case { tasks, resources, waits }
        })
    })
}

impl Case {
    fn build(&self) -> Tasks {
        let tasks = Tasks::new(self.tasks);
        for (resource, (kind, holders)) in self.resources.iter().enumerate() {
            holders.iter().for_each(|task| tasks.hold(*task, resource, *kind));
        }
        for (task, resource) in self.waits.iter().enumerate() {
            resource.iter().for_each(|resource| tasks.wait(task, *resource));
        }
        tasks
    }

    /// Whether the first task waits for a lock that the second one holds, and has not got it.
    fn arrow(&self, waiter: usize, holder: usize) -> bool {
        self.waits[waiter].is_some_and(|resource| {
            let (kind, holders) = &self.resources[resource];
            !matches!(kind, ResourceKind::Permit | ResourceKind::WaitQueue)
                && holders.contains(&holder)
                && !holders.contains(&waiter)
        })
    }

    /// Who reaches whom by one arrow or more (Warshall 1962).
    fn reaches(&self) -> Vec<Vec<bool>> {
        let all = 0..self.tasks;
        let row = |from| all.clone().map(|to| self.arrow(from, to)).collect();
        let mut reaches: Vec<Vec<bool>> = all.clone().map(row).collect();
        for (via, from, to) in all.clone().flat_map(|via| {
            let all = all.clone();
            all.clone().flat_map(move |from| all.clone().map(move |to| (via, from, to)))
        }) {
            reaches[from][to] |= reaches[from][via] && reaches[via][to];
        }
        reaches
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1024, failure_persistence: None, ..Default::default() })]

    #[test]
    fn stuck_is_who_reaches_a_cycle_and_each_cycle_that_is_shown_is_one(case in cases()) {
        let tasks = case.build();
        let graph = tasks.graph();
        let reaches = case.reaches();
        let on_cycle = |task: usize| reaches[task][task];
        for (task, reached) in reaches.iter().enumerate() {
            let expected =
                (0..case.tasks).any(|other| on_cycle(other) && (task == other || reached[other]));
            prop_assert_eq!(graph.is_stuck(id(task)), expected, "task {}", task);
        }

        let mut shown = vec![false; case.tasks];
        for deadlock in graph.deadlocks() {
            let waits: Vec<_> = deadlock.waits().collect();
            prop_assert!(waits.len() >= 2, "{:?}", deadlock);
            for (n, wait) in waits.iter().enumerate() {
                let (waiter, holder) = (wait.waiter.index as usize, wait.holder.index as usize);
                prop_assert!(case.arrow(waiter, holder), "{}", wait);
                prop_assert_eq!(wait.holder, waits[(n + 1) % waits.len()].waiter);
                prop_assert!(!core::mem::replace(&mut shown[waiter], true), "twice: {}", wait);
            }
        }
        // Every stuck task is in one that is shown, or behind it.
        for (task, reached) in reaches.iter().enumerate() {
            let explained = shown[task] || (0..case.tasks).any(|it| shown[it] && reached[it]);
            prop_assert_eq!(graph.is_stuck(id(task)), explained, "task {}", task);
        }
    }

    #[test]
    fn every_holder_of_what_is_waited_for_is_shown(case in cases()) {
        let tasks = case.build();
        let mut shown: Vec<_> = tasks.graph().waits().map(|wait| format!("{wait}")).collect();
        let mut expected = Vec::new();
        for (waiter, resource) in case.waits.iter().enumerate() {
            let Some(resource) = resource else { continue };
            let (kind, holders) = &case.resources[*resource];
            for holder in holders.iter().filter(|_| *kind != ResourceKind::WaitQueue) {
                expected.push(format!(
                    "task {waiter}.0 waits for {kind} {:#x}, held by task {holder}.0",
                    place(*resource).addr(),
                ));
            }
        }
        shown.sort();
        expected.sort();
        prop_assert_eq!(shown, expected);
    }
}

#[test]
fn an_entry_that_somebody_has_written_over_is_neither_followed_nor_shown_as_one() {
    let tasks = Tasks::new(2);
    tasks.wait(0, 0);
    // What was a held lock, and whose operations are anything now.
    let wild = ptr::without_provenance_mut(0x1234_5678);
    tasks.0[1].entry(0).unwrap().write(place(0), wild, 0);
    assert_eq!(tasks.graph().waits().count(), 0);
    assert!(!tasks.graph().is_stuck(id(0)));
    assert!(format!("{:?}", tasks.0[1]).contains("0x12345678"));
}
