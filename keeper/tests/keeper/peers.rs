//! Tasks that watch each other: nobody waits for one that is gone.

use std::sync::atomic::{AtomicU32, Ordering};

use drop_registry::Parker;
use keeper::hosted::{Current, Kernel, yield_now};
use keeper::supervisor::{Backoff, ChildKind, Strategy, Supervisor};
use keeper::{Case, End, PeerError, Policy, Verdict, policy};
use task_model::{FaultKind, TaskId, TaskState};

use crate::{faults, kernel};

fn forever() {
    loop {
        yield_now();
    }
}

#[test]
fn a_watcher_is_told_of_every_kind_of_end() {
    for (entry, end) in [
        ((|| ()) as fn(), End::Finished),
        (faults::invalid_opcode, End::Died),
        (|| std::panic::resume_unwind(Box::new(())), End::Died),
    ] {
        let kernel = kernel();
        let (watcher, task) = (kernel.spawn(forever), kernel.spawn(entry));
        kernel.keepers().monitor(watcher, task).unwrap();
        assert_eq!(kernel.keepers().end_of(task), None);
        kernel.run_turns(3);
        assert_eq!(kernel.keepers().end_of(task), Some(end));
        assert_eq!(kernel.keepers().next_end(watcher), Some((task, end)));
        assert_eq!(kernel.keepers().next_end(watcher), None, "it is told once");
    }
}

#[test]
fn the_end_of_a_life_is_told_though_the_task_is_restarted() {
    let kernel = kernel().with_default_policy(&policy::Restart { at_most: 9 });
    let (watcher, task) = (kernel.spawn(forever), kernel.spawn(forever));
    kernel.keepers().monitor(watcher, task).unwrap();
    kernel.kill(task);
    kernel.serve();
    let next = task.next_generation();
    assert_eq!(kernel.state(next), TaskState::Ready);
    assert_eq!(kernel.keepers().next_end(watcher), Some((task, End::Died)));
    // Of the next life nobody asked to be told.
    assert_eq!(kernel.keepers().end_of(next), None);
    kernel.kill(next);
    kernel.serve();
    assert_eq!(kernel.keepers().next_end(watcher), None);
    assert_eq!(kernel.keepers().end_of(next), Some(End::Died));
}

#[test]
fn a_task_that_sleeps_until_another_ends_is_woken() {
    static WOKEN: AtomicU32 = AtomicU32::new(0);
    for entry in [(|| ()) as fn(), faults::invalid_opcode] {
        WOKEN.store(0, Ordering::Relaxed);
        let kernel = kernel();
        let watcher = kernel.spawn(|| {
            Current::park();
            WOKEN.fetch_add(1, Ordering::Relaxed);
        });
        let task = kernel.spawn(entry);
        kernel.keepers().monitor(watcher, task).unwrap();
        kernel.run();
        assert_eq!(WOKEN.load(Ordering::Relaxed), 1);
        assert_eq!(kernel.state(watcher), TaskState::Dead);
    }
}

#[test]
fn an_end_is_told_before_it_is_decided_what_comes_after_it() {
    static SUPERVISOR: Supervisor = Supervisor::new(Strategy::OneForOne, 1_000_000_000_000);
    for policy in [&policy::Hold as &'static dyn Policy, &SUPERVISOR] {
        let kernel = kernel();
        let (watcher, task, linked) = (
            kernel.spawn(forever),
            kernel.spawn_with_policy(policy, forever),
            kernel.spawn(forever),
        );
        SUPERVISOR.add(task, ChildKind::Permanent).unwrap();
        kernel.keepers().monitor(watcher, task).unwrap();
        kernel.keepers().link(task, linked).unwrap();
        kernel.kill(task);
        kernel.serve();
        assert_ne!(kernel.state(task), TaskState::Dead);
        assert_eq!(kernel.keepers().next_end(watcher), Some((task, End::Died)));
        assert_eq!(kernel.state(linked), TaskState::Dead);
        // The supervisor is for both kernels.
        SUPERVISOR.remove(task).unwrap();
    }
}

#[test]
fn a_task_that_is_resumed_has_not_ended() {
    #[derive(Debug)]
    struct Skip;
    impl Policy for Skip {
        fn rule(&self, case: &mut Case<'_>) -> Verdict {
            case.frozen().registers_mut().rip += 2;
            Verdict::Resume
        }
    }
    let kernel = kernel();
    let watcher = kernel.spawn(forever);
    let task = kernel.spawn_with_policy(&Skip, || {
        faults::invalid_opcode();
        forever();
    });
    kernel.keepers().monitor(watcher, task).unwrap();
    kernel.run_turns(3);
    assert_eq!((kernel.keepers().next_end(watcher), kernel.keepers().end_of(task)), (None, None));
}

#[test]
fn a_life_that_is_over_is_not_waited_for() {
    let kernel = kernel();
    let keepers = kernel.keepers();
    let (watcher, finished, died) =
        (kernel.spawn(forever), kernel.spawn(|| ()), kernel.spawn(faults::invalid_opcode));
    kernel.run_turns(2);
    let ended = |task, end| Err(PeerError::Ended(task, end));
    assert_eq!(keepers.monitor(watcher, finished), ended(finished, End::Finished));
    assert_eq!(keepers.monitor(watcher, died), ended(died, End::Died));
    assert_eq!(keepers.link(died, watcher), ended(died, End::Died));
    assert_eq!(keepers.link(watcher, watcher), Err(PeerError::Itself(watcher)));
    let beyond = TaskId::first(Kernel::MAX_TASKS as u32);
    assert_eq!(keepers.monitor(watcher, beyond), Err(PeerError::NoSuchTask(beyond)));
    assert_eq!(keepers.monitor(beyond, watcher), Err(PeerError::NoSuchTask(beyond)));
    keepers.demonitor(watcher, beyond);
    assert_eq!((keepers.next_end(watcher), keepers.next_end(beyond)), (None, None));
    // What is said of a task that cannot be has nothing to do with others.
    let other = kernel.spawn(forever);
    keepers.monitor(watcher, other).unwrap();
    keepers.demonitor(beyond, TaskId::first(other.index - 1));
    kernel.kill(other);
    kernel.serve();
    assert_eq!(keepers.next_end(watcher), Some((other, End::Died)));
}

#[test]
fn who_does_not_watch_any_more_is_not_told() {
    let kernel = kernel();
    let (watcher, task) = (kernel.spawn(forever), kernel.spawn(forever));
    kernel.keepers().monitor(watcher, task).unwrap();
    kernel.keepers().demonitor(watcher, task);
    kernel.kill(task);
    kernel.serve();
    assert_eq!(kernel.keepers().next_end(watcher), None);
}

#[test]
fn the_next_life_of_a_watcher_is_not_told_what_the_last_one_asked_for() {
    let kernel = kernel().with_default_policy(&policy::Restart { at_most: 1 });
    let (watcher, [first, second]) =
        (kernel.spawn(forever), [(); 2].map(|()| kernel.spawn(forever)));
    kernel.keepers().monitor(watcher, first).unwrap();
    kernel.keepers().monitor(watcher, second).unwrap();
    kernel.kill(first);
    kernel.serve();
    // It has not heard of the first one, and does not hear of the second one.
    kernel.kill(watcher);
    kernel.serve();
    kernel.kill(second);
    kernel.serve();
    assert_eq!(kernel.keepers().next_end(watcher.next_generation()), None);
}

#[test]
fn linked_tasks_die_together_and_a_chain_of_them_too() {
    let kernel = kernel();
    let tasks: Vec<_> = (0..4).map(|_| kernel.spawn(forever)).collect();
    let bystander = kernel.spawn(forever);
    for pair in tasks.windows(2) {
        kernel.keepers().link(pair[1], pair[0]).unwrap();
    }
    kernel.kill(tasks[1]);
    let reports = kernel.serve();
    assert_eq!(reports.len(), 4);
    assert!(reports.iter().all(|report| report.fault.kind == FaultKind::Killed));
    assert!(tasks.iter().all(|task| kernel.state(*task) == TaskState::Dead));
    assert_eq!(kernel.state(bystander), TaskState::Ready);
}

#[test]
fn a_task_that_finishes_or_is_unlinked_takes_nobody_along() {
    let kernel = kernel();
    let (finishing, unlinked, lives) =
        (kernel.spawn(|| ()), kernel.spawn(forever), kernel.spawn(forever));
    kernel.keepers().link(lives, finishing).unwrap();
    kernel.keepers().link(lives, unlinked).unwrap();
    kernel.keepers().unlink(unlinked, lives);
    kernel.run_turns(2);
    assert_eq!(kernel.state(finishing), TaskState::Dead);
    kernel.kill(unlinked);
    kernel.run_turns(2);
    assert_eq!(kernel.state(lives), TaskState::Ready);
}

#[test]
fn a_link_is_of_lives() {
    let kernel = kernel().with_default_policy(&policy::Restart { at_most: 9 });
    let (one, other) = (kernel.spawn(forever), kernel.spawn(forever));
    kernel.keepers().link(one, other).unwrap();
    kernel.kill(one);
    assert_eq!(kernel.serve().len(), 2, "both are restarted");
    // Their next lives are not linked, even if they watch others.
    kernel.keepers().monitor(other.next_generation(), one.next_generation()).unwrap();
    kernel.kill(one.next_generation());
    assert_eq!(kernel.serve().len(), 1);
    assert_eq!(kernel.state(other.next_generation()), TaskState::Ready);
}

#[test]
fn linked_children_of_a_supervisor_are_not_ended_for_good() {
    static SUPERVISOR: Supervisor =
        Supervisor::new(Strategy::OneForAll, 1_000_000_000_000).with_backoff(Backoff::None);
    let kernel = kernel();
    let tasks = [(); 3].map(|()| kernel.spawn_with_policy(&SUPERVISOR, forever));
    for task in tasks {
        SUPERVISOR.add(task, ChildKind::Permanent).unwrap();
    }
    for (one, other) in [(0, 1), (1, 2), (0, 2)] {
        kernel.keepers().link(tasks[one], tasks[other]).unwrap();
    }
    kernel.kill(tasks[1]);
    let reports = kernel.serve();
    assert!(reports.iter().all(|report| report.verdict == Some(Verdict::Restart)));
    assert!(SUPERVISOR.children().eq(tasks.map(TaskId::next_generation)));
    assert!(SUPERVISOR.children().all(|task| kernel.state(task) == TaskState::Ready));
}
