//! What cannot be added, and cases that are nobody's.

use keeper::supervisor::{
    Backoff, ChildKind, RestartIntensity, Strategy, SuperviseError, Supervisor,
};
use keeper::{Capacity, KeeperId, Refusal, Verdict, policy};
use task_model::TaskId;

use crate::family::{End, Family, SECOND, leak};
use crate::{kernel, kernel_with};

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
    let kernel = kernel_with(Capacity { deferred: 0, ..Capacity::tasks(4) });
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
fn a_child_that_is_killed_while_it_waits_ends_and_the_others_wait_on() {
    for (killed, others) in [('a', "bcd"), ('b', "acd"), ('d', "abc")] {
        let supervisor = Supervisor::new(Strategy::OneForAll, SECOND);
        let family =
            Family::new().children(leak(supervisor.with_backoff(Backoff::Fixed(SECOND))), "abcd");
        family.begun();
        assert_eq!(family.end('d', End::IsKilled), "");
        assert_eq!(family.end(killed, End::IsKilled), killed.to_ascii_uppercase().to_string());
        assert_eq!((family.serve_after(SECOND / 2), family.alive()), Default::default());
        // In order, also where they came down in another one.
        assert_eq!(family.serve_after(SECOND / 2), others);
        assert_eq!(family.alive(), others);
    }
}

#[test]
fn a_round_does_not_wait_for_a_task_that_cannot_be() {
    let supervisor = supervisor();
    let family = Family::new().children(supervisor, "a");
    // More than the keepers have room for.
    supervisor.add(TaskId::first(1_000_000), ChildKind::Permanent).unwrap();
    let family = family.children(supervisor, "b");
    assert_eq!(family.end('a', End::IsKilled), "ab");
    assert_eq!(supervisor.children().count(), 2);
}

#[test]
fn an_id_that_was_stale_when_it_was_added_is_known_better_after_the_next_death() {
    let supervisor = supervisor();
    let kernel = kernel().with_default_policy(&policy::Restart { at_most: 1 });
    let task = kernel.spawn_with_policy(supervisor, || ());
    let keeper = kernel.register(KeeperId::ROOT, &policy::Panic, u64::MAX).unwrap();
    kernel.keepers().keep(task, keeper).unwrap();
    // It dies before it is a child, so the next keeper up rules.
    kernel.kill(task);
    let next = kernel.serve().pop().unwrap().restarted_as.unwrap();
    supervisor.add(task, ChildKind::Permanent).unwrap();
    kernel.kill(next);
    assert_eq!(kernel.serve().pop().unwrap().verdict, Some(Verdict::Restart));
    assert!(supervisor.children().eq([next.next_generation()]));
}

#[test]
#[should_panic = "so many restarts cannot be counted"]
fn more_restarts_than_can_be_counted_are_refused() {
    let intensity = RestartIntensity { max: RestartIntensity::MOST + 1, period: 1 };
    let _ = Supervisor::new(Strategy::OneForOne, 1).with_intensity(intensity);
}
