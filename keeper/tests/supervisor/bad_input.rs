//! What cannot be added, and cases that are nobody's.

use keeper::hosted::Kernel;
use keeper::supervisor::{
    Backoff, ChildKind, RestartIntensity, Strategy, SuperviseError, Supervisor,
};
use keeper::{Capacity, Refusal, Verdict};
use task_model::TaskId;

use crate::family::{End, Family, SECOND, leak};

fn supervisor() -> &'static Supervisor {
    leak(Supervisor::new(Strategy::OneForAll, SECOND).with_backoff(Backoff::None))
}

#[test]
fn nothing_is_added_twice() {
    let supervisor = supervisor();
    let task = TaskId::first(7);
    supervisor.add(task, ChildKind::Permanent).unwrap();
    let again = supervisor.add(task, ChildKind::Temporary);
    assert_eq!(again, Err(SuperviseError::AlreadySupervised(task)));
    assert_eq!(supervisor.children().count(), 1);
}

#[test]
fn a_stale_id_is_refused_and_a_later_one_replaces_what_is_gone() {
    let family = Family::new().children(supervisor(), "ab");
    let supervisor = supervisor();
    let (task, other) = (family.task('a'), family.task('b'));
    let next = task.next_generation();
    supervisor.add(next, ChildKind::Permanent).unwrap();
    let stale = supervisor.add(task, ChildKind::Permanent);
    assert_eq!(stale, Err(SuperviseError::Stale { task, current: next }));
    assert_eq!(supervisor.remove(task), Err(SuperviseError::NotSupervised(task)));
    supervisor.add(other, ChildKind::Permanent).unwrap();
    supervisor.add(next.next_generation(), ChildKind::Permanent).unwrap();
    assert!(supervisor.children().eq([other, next.next_generation()]), "the last one in order");
}

#[test]
fn a_full_table_says_so_and_has_room_again_when_one_is_gone() {
    let supervisor = supervisor();
    for index in 0..Supervisor::MAX_CHILDREN as u32 {
        supervisor.add(TaskId::first(index), ChildKind::Permanent).unwrap();
    }
    let another = TaskId::first(99);
    assert_eq!(supervisor.add(another, ChildKind::Permanent), Err(SuperviseError::Full));
    assert_eq!(supervisor.add_supervisor(self::supervisor()), Err(SuperviseError::Full));
    supervisor.remove(TaskId::first(3)).unwrap();
    supervisor.add(another, ChildKind::Permanent).unwrap();
}

#[test]
fn a_tree_has_no_circles_and_an_end() {
    let [top, middle, below] = [supervisor(), supervisor(), supervisor()];
    top.add_supervisor(middle).unwrap();
    middle.add_supervisor(below).unwrap();
    assert_eq!(top.add_supervisor(below), Err(SuperviseError::HasParent));
    assert_eq!(top.add_supervisor(top), Err(SuperviseError::Cycle));
    assert_eq!(below.add_supervisor(top), Err(SuperviseError::Cycle));
    let mut level = below;
    for _ in 3..Supervisor::MAX_DEPTH {
        let next = supervisor();
        level.add_supervisor(next).unwrap();
        level = next;
    }
    assert_eq!(level.add_supervisor(supervisor()), Err(SuperviseError::TooDeep));
    assert_eq!(supervisor().add_supervisor(top), Err(SuperviseError::TooDeep));
}

#[test]
fn a_task_that_is_no_child_goes_to_the_next_keeper() {
    let supervisor = supervisor();
    let family = Family::new().children(supervisor, "a");
    let stranger = family.kernel.spawn_with_policy(supervisor, || ());
    family.kernel.kill(stranger);
    assert_eq!(family.kernel.serve().pop().unwrap().verdict, Some(Verdict::Exit));
    assert_eq!(family.alive(), "a");
}

#[test]
fn without_room_for_deferred_cases_the_next_keeper_is_told() {
    let supervisor = supervisor();
    let kernel = Kernel::with_capacity(Capacity { deferred: 0, ..Capacity::tasks(4) });
    let tasks = [(); 2].map(|()| kernel.spawn_with_policy(supervisor, || ()));
    for task in tasks {
        supervisor.add(task, ChildKind::Permanent).unwrap();
    }
    kernel.kill(tasks[0]);
    let reports = kernel.serve();
    assert_eq!((reports[0].task, reports[0].refusal), (tasks[0], Some(Refusal::NoToken)));
    assert_eq!(reports[0].verdict, Some(Verdict::Exit));
    // The round goes on with those that are left.
    assert_eq!((reports[1].task, reports[1].verdict), (tasks[1], Some(Verdict::Restart)));
}

#[test]
fn a_child_that_is_killed_while_it_waits_ends_and_the_round_goes_on() {
    let supervisor =
        leak(Supervisor::new(Strategy::OneForAll, SECOND).with_backoff(Backoff::Fixed(SECOND)));
    let family = Family::new().children(supervisor, "abc");
    assert_eq!(family.end('b', End::IsKilled), "");
    assert_eq!(family.end('a', End::IsKilled), "A");
    assert_eq!(family.serve_after(SECOND), "bc");
    assert_eq!(family.alive(), "bc");
}

#[test]
#[should_panic = "so many restarts cannot be counted"]
fn more_restarts_than_can_be_counted_are_refused() {
    let intensity = RestartIntensity { max: RestartIntensity::MOST + 1, period: 1 };
    let _ = Supervisor::new(Strategy::OneForOne, 1).with_intensity(intensity);
}
