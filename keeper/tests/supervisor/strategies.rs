//! Who begins again with whom, and in which order.

use drop_registry::Mutex;
use keeper::Verdict;
use keeper::hosted::{Current, yield_now};
use keeper::supervisor::{Backoff, ChildKind, Strategy, Supervisor};

use task_model::TaskState;

use crate::family::{End, Family, SECOND, leak};
use crate::kernel;

fn supervisor(strategy: Strategy) -> &'static Supervisor {
    leak(Supervisor::new(strategy, SECOND).with_backoff(Backoff::None))
}

const ENDS: [End; 4] = [End::Returns, End::Faults, End::Panics, End::IsKilled];

#[test]
fn one_for_one_restarts_the_one_that_failed() {
    for end in ENDS {
        let family = Family::new().children(supervisor(Strategy::OneForOne), "abc");
        assert_eq!(family.begun(), "abc");
        assert_eq!(family.end('b', end), "b");
        assert_eq!((family.begun(), family.alive()), ("b".into(), "abc".into()));
    }
}

#[test]
fn one_for_all_ends_the_others_and_starts_all_in_order() {
    for end in ENDS {
        let family = Family::new().children(supervisor(Strategy::OneForAll), "abcd");
        assert_eq!(family.begun(), "abcd");
        // The lives end when the next ones begin, which is in order.
        assert_eq!(family.end('b', end), "abcd");
        assert_eq!((family.begun(), family.alive()), ("abcd".into(), "abcd".into()));
    }
}

#[test]
fn rest_for_one_leaves_those_before_alone() {
    for end in ENDS {
        let family = Family::new().children(supervisor(Strategy::RestForOne), "abcd");
        assert_eq!(family.begun(), "abcd");
        assert_eq!(family.end('c', end), "cd");
        assert_eq!((family.begun(), family.alive()), ("cd".into(), "abcd".into()));
        assert_eq!(family.end('a', end), "abcd");
        assert_eq!(family.begun(), "abcd");
        assert_eq!(family.end('d', end), "d");
        assert_eq!(family.begun(), "d");
    }
}

#[test]
fn order_is_that_of_adding_also_where_a_place_is_used_again() {
    let supervisor = supervisor(Strategy::RestForOne);
    let family = Family::new();
    family.child(supervisor, 'a', ChildKind::Temporary);
    let family = family.children(supervisor, "bc");
    assert_eq!(family.end('a', End::IsKilled), "A");
    // In the place that was the first one's.
    family.child(supervisor, 'd', ChildKind::Permanent);
    family.begun();
    assert_eq!(family.end('b', End::Faults), "bcd");
}

#[test]
fn the_last_one_is_ended_first_and_none_begins_before_all_are_down() {
    let supervisor = supervisor(Strategy::OneForAll);
    let family = Family::new().children(supervisor, "abc");
    family.begun();
    family.order_end('a', End::IsKilled);
    let mut trace = Vec::new();
    // Served one case at a time; until it is the last one's turn, nothing is reported.
    while let Some(told) = family.kernel.serve_one() {
        let report = told.unwrap();
        trace.push((report.task.index, report.settled_at, report.gone_at, report.verdict));
    }
    let [a, b, c] = trace[..] else { panic!("{trace:?}") };
    assert_eq!([a.0, b.0, c.0], [0, 1, 2], "started in order");
    assert!(a.1 < c.1 && c.1 < b.1, "settled: the one that failed, then the last, then the others");
    assert!(b.1 <= a.2 && a.2 <= b.2 && b.2 <= c.2, "each begins after all are down, in order");
    assert!(trace.iter().all(|it| it.3 == Some(Verdict::Restart)));
}

#[test]
fn what_children_hold_is_free_while_they_wait() {
    static LOCKS: [Mutex<u32, Current>; 2] = [Mutex::new(0), Mutex::new(0)];
    let supervisor = Supervisor::new(Strategy::OneForAll, SECOND);
    let supervisor = leak(supervisor.with_backoff(Backoff::Fixed(SECOND)));
    let kernel = kernel();
    let tasks = [0, 1].map(|n| {
        let task = kernel.spawn_with_policy(supervisor, move || {
            let _guard = LOCKS[n].lock();
            loop {
                yield_now();
            }
        });
        supervisor.add(task, ChildKind::Permanent).unwrap();
        task
    });
    kernel.run_turns(1);
    assert!(LOCKS.iter().all(Mutex::is_locked));
    kernel.kill(tasks[0]);
    assert!(kernel.serve().is_empty());
    assert_eq!(tasks.map(|task| kernel.state(task)), [TaskState::Frozen; 2]);
    assert!(!LOCKS.iter().any(Mutex::is_locked));
}

#[test]
fn two_that_fail_at_the_same_time_are_one_round() {
    let supervisor = Supervisor::new(Strategy::OneForAll, SECOND);
    let supervisor = leak(supervisor.with_backoff(Backoff::Fixed(SECOND)));
    let family = Family::new().children(supervisor, "abc");
    family.begun();
    family.order_end('a', End::Faults);
    family.order_end('c', End::Faults);
    for name in ['a', 'c'] {
        family.run_to_end(name);
    }
    // The fault of `c` is posted before it is killed for `a`, and that kill does not end it for
    // good while it waits.
    assert_eq!(family.serve(), "");
    assert_eq!(family.serve_after(SECOND), "abc");
    assert_eq!((family.begun(), family.alive()), ("abc".into(), "abc".into()));
    // It counts as one failure: two more are still put up with.
    for _ in 0..2 {
        assert_eq!(family.end('b', End::IsKilled), "");
        assert_eq!(family.serve_after(SECOND), "abc");
    }
}

#[test]
fn a_child_that_fails_in_the_middle_of_a_round_makes_it_begin_again() {
    let supervisor =
        leak(Supervisor::new(Strategy::OneForAll, SECOND).with_backoff(Backoff::Fixed(SECOND)));
    let family = Family::new().children(supervisor, "abc");
    family.begun();
    assert_eq!(family.end('c', End::Faults), "");
    assert_eq!(family.alive(), "");
    // After the delay all begin again; the first one is killed before the others are up.
    family.kernel.pass(std::time::Duration::from_nanos(SECOND));
    let first = family.kernel.serve_one().unwrap().unwrap();
    family.kernel.kill(first.restarted_as.unwrap());
    family.kernel.serve();
    family.kernel.pass(std::time::Duration::from_nanos(SECOND));
    family.kernel.serve();
    let lives: Vec<_> = supervisor.children().map(|task| (task.index, task.generation)).collect();
    assert_eq!(lives, [(0, 2), (1, 2), (2, 2)]);
    assert_eq!(family.begun(), "abc");
}
