//! What is posted is served, once.

use super::*;

const ROOT: KeeperId = KeeperId::ROOT;

fn next(inbox: &Inbox, keeper: KeeperId) -> Option<Notice> {
    take(inbox, keeper).map(|taken| taken.notice())
}

fn take(inbox: &Inbox, keeper: KeeperId) -> Option<Taken<'_>> {
    let tray = inbox.tray(keeper).unwrap();
    let index = inbox.next(tray)?;
    let taker = Taker::new(keeper);
    inbox.take(index, tray, taker).or_else(|| inbox.take_another(index, tray, taker))
}

fn post(
    inbox: &Inbox,
    task: TaskId,
    fault: FaultInfo,
    at: u64,
    keeper: KeeperId,
) -> Result<(), PostError> {
    inbox.post(inbox.place(task).unwrap(), task, fault, at, keeper)
}

#[test]
fn a_notice_stays_until_it_is_done() {
    let inbox = Inbox::new(100, 1);
    let task = TaskId::first(70);
    post(&inbox, task, FaultInfo::killed(7), 3, ROOT).unwrap();
    let notice = Notice { task, cause: Cause::Fault, at: 3 };
    assert_eq!(next(&inbox, ROOT), Some(notice));
    assert_eq!(next(&inbox, ROOT), Some(notice));
    take(&inbox, ROOT).unwrap().done();
    assert_eq!(next(&inbox, ROOT), None);
}

#[test]
fn a_second_fault_does_not_overwrite_the_first() {
    let inbox = Inbox::new(1, 1);
    let task = TaskId::first(0);
    post(&inbox, task, FaultInfo::killed(7), 1, ROOT).unwrap();
    let second = post(&inbox, task, FaultInfo::panicked(8), 2, ROOT);
    assert_eq!(second, Err(PostError::AlreadyPosted(task)));
    assert_eq!(take(&inbox, ROOT).unwrap().fault(), Some(&FaultInfo::killed(7)));
}

#[test]
fn everybody_gets_a_turn() {
    let inbox = Inbox::new(130, 1);
    let tasks = [0, 1, 63, 64, 128, 129].map(TaskId::first);
    for task in tasks {
        post(&inbox, task, FaultInfo::killed(7), 0, ROOT).unwrap();
    }
    let mut served = [0; 130];
    for _ in 0..3 * tasks.len() {
        // Each faults again at once.
        let notice = next(&inbox, ROOT).unwrap();
        served[notice.task.index as usize] += 1;
    }
    assert!(tasks.iter().all(|task| served[task.index as usize] == 3));
}

#[test]
fn of_a_fault_and_a_kill_the_fault_comes_first() {
    let inbox = Inbox::new(1, 1);
    let task = TaskId::first(0);
    inbox.ask(task, Cause::Kill, 0, ROOT).unwrap();
    post(&inbox, task, FaultInfo::killed(7), 0, ROOT).unwrap();
    let first = take(&inbox, ROOT).unwrap();
    assert_eq!(first.notice().cause, Cause::Fault);
    first.done();
    assert_eq!(next(&inbox, ROOT).unwrap().cause, Cause::Kill);
}

#[test]
fn a_kill_of_an_earlier_life_does_not_replace_one_of_a_later() {
    let inbox = Inbox::new(1, 1);
    let old = TaskId::first(0);
    let new = old.next_generation();
    inbox.ask(new, Cause::Kill, 0, ROOT).unwrap();
    inbox.ask(old, Cause::Kill, 0, ROOT).unwrap();
    assert_eq!(next(&inbox, ROOT).unwrap().task, new);
}

#[test]
fn keepers_are_told_of_their_own() {
    let inbox = Inbox::new(2, 2);
    let other = KeeperId::from_number(1);
    post(&inbox, TaskId::first(0), FaultInfo::killed(7), 0, other).unwrap();
    assert_eq!(next(&inbox, ROOT), None);
    assert_eq!(next(&inbox, other).unwrap().task, TaskId::first(0));
}

#[test]
fn two_that_are_told_of_one_notice_do_not_both_serve_it() {
    let inbox = Inbox::new(1, 2);
    let (task, other) = (TaskId::first(0), KeeperId::from_number(1));
    post(&inbox, task, FaultInfo::killed(7), 0, ROOT).unwrap();
    inbox.announce_all(|_| Some(other));
    assert!(next(&inbox, ROOT).is_some());
    assert_eq!(next(&inbox, other), None);
    // Unless the first one dies over it.
    inbox.abandon_all(ROOT);
    inbox.announce_all(|_| Some(other));
    assert!(next(&inbox, other).is_some());
    assert_eq!(next(&inbox, ROOT), None);
}

#[test]
fn what_a_dead_keeper_took_the_bit_of_is_announced_again() {
    let inbox = Inbox::new(1, 1);
    post(&inbox, TaskId::first(0), FaultInfo::killed(7), 0, ROOT).unwrap();
    // It died right after it had taken the bit away.
    inbox.trays[0].ready.remove(0);
    assert_eq!(next(&inbox, ROOT), None);
    inbox.announce_all(|task| (task.index == 0).then_some(ROOT));
    assert!(next(&inbox, ROOT).is_some());
}
