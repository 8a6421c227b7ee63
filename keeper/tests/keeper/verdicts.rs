//! What becomes of a dead task under each policy.

use drop_registry::{LockError, Mutex, Outcome, TrackedBox};
use keeper::unwind::WalkEnd;
use keeper::{NoSuchTask, Verdict, policy};
use task_model::FaultInfo;

use crate::machine::{Current, Droppable, Machine, keeper, page_fault, serve};

#[test]
fn a_faulted_task_exits_by_default_and_its_lock_is_free_but_marked() {
    let (machine, lock) = (Machine::new(), Mutex::<u32, Current>::new(1));
    let task = machine.spawn(None, true, || std::mem::forget(lock.lock().unwrap()));
    let keeper = keeper(&machine);
    keeper.post(task, page_fault(), 0).unwrap();
    assert!(lock.is_locked());
    let report = serve(&keeper).unwrap();
    assert_eq!(report.verdict, Some(Verdict::Exit));
    assert_eq!(report.resources.len(), 1);
    assert_eq!(report.resources[0].outcome, Outcome::OwnerDied);
    assert_eq!(report.resources[0].frame, None);
    assert!(matches!(report.walk_end, WalkEnd::Partial(_)));
    assert!(!lock.is_locked());
    assert_eq!(machine.end(task), "retired");
    machine.spawn(None, true, || assert!(matches!(lock.lock(), Err(LockError::OwnerDied(_)))));
    assert!(!keeper.serve(|_| ()));
}

#[test]
fn a_restarted_task_has_a_new_id_and_the_old_one_is_refused() {
    let machine = Machine::new();
    let task = machine.spawn(Some(&policy::Restart { at_most: 1 }), true, || ());
    let keeper = keeper(&machine);
    keeper.kill(task).unwrap();
    let next = serve(&keeper).unwrap().restarted_as.unwrap();
    assert_eq!(next, task.next_generation());
    keeper.kill(task).unwrap();
    assert_eq!(serve(&keeper).unwrap_err(), NoSuchTask(task));
    keeper.kill(next).unwrap();
    assert_eq!(serve(&keeper).unwrap().verdict, Some(Verdict::Exit));
    assert_eq!(machine.end(next), "retired");
}

#[test]
fn a_task_without_an_entry_exits_instead_of_restarting() {
    let machine = Machine::new();
    let task = machine.spawn(Some(&policy::Restart { at_most: 9 }), false, || ());
    let keeper = keeper(&machine);
    keeper.kill(task).unwrap();
    let report = serve(&keeper).unwrap();
    assert_eq!((report.verdict, report.restarted_as), (Some(Verdict::Exit), None));
    assert_eq!(machine.end(task), "retired");
}

#[test]
fn a_held_task_keeps_its_memory_until_it_is_released() {
    let (machine, lock) = (Machine::new(), Mutex::<u32, Current>::new(1));
    let task = machine.spawn(Some(&policy::Hold), true, || {
        std::mem::forget(TrackedBox::<_, Current>::new_droppable(Droppable(7)).unwrap());
        std::mem::forget(lock.lock().unwrap());
    });
    let keeper = keeper(&machine);
    keeper.post(task, page_fault(), 0).unwrap();
    let report = serve(&keeper).unwrap();
    assert_eq!(report.verdict, Some(Verdict::Hold));
    assert_eq!((report.count(Outcome::Orphaned), report.count(Outcome::OwnerDied)), (1, 1));
    assert!(!lock.is_locked());
    assert_eq!(machine.end(task), "held");

    keeper.release(task).unwrap();
    let report = serve(&keeper).unwrap();
    assert_eq!(report.count(Outcome::Reclaimed), 1);
    assert_eq!(machine.end(task), "retired");
}

#[test]
fn a_default_policy_rules_on_tasks_that_name_none() {
    let machine = Machine::new();
    let task = machine.spawn(None, true, || ());
    let keeper = keeper(&machine).with_default_policy(&policy::Hold);
    keeper.kill(task).unwrap();
    assert_eq!(serve(&keeper).unwrap().verdict, Some(Verdict::Hold));
}

#[test]
fn a_kill_is_a_fault_of_its_own_kind_where_the_task_stood() {
    let machine = Machine::new();
    let task = machine.spawn(None, true, || ());
    let keeper = keeper(&machine);
    keeper.kill(task).unwrap();
    assert_eq!(serve(&keeper).unwrap().fault, FaultInfo::killed(0));
}

#[test]
fn a_full_mailbox_is_an_error_of_the_post() {
    let machine = Machine::new();
    let task = machine.spawn(None, true, || ());
    let keeper = keeper(&machine);
    for _ in 0..4 {
        keeper.kill(task).unwrap();
    }
    assert_eq!(keeper.kill(task), Err(keeper::MailboxFull));
    // The other half is for faults.
    keeper.post(task, page_fault(), 0).unwrap();
}

#[test]
fn the_report_reads_line_by_line() {
    let (machine, lock) = (Machine::new(), Mutex::<u32, Current>::new(1));
    let task = machine.spawn(None, true, || std::mem::forget(lock.lock().unwrap()));
    let keeper = keeper(&machine);
    keeper.post(task, page_fault(), 0).unwrap();
    let report = serve(&keeper).unwrap();
    let text = report.to_string();
    assert!(text.starts_with("task 0.0: page fault at 0x0, accessing 0xdead0000"), "{text}");
    assert!(text.contains("mutex 0x") && text.contains("owner died"), "{text}");
    assert!(text.lines().all(|line| line.len() <= 100), "{text}");
}
