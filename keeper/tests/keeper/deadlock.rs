//! Tasks that wait for each other: found, and one of them ended.

use std::sync::atomic::{AtomicU32, Ordering};

use drop_registry::{LockError, Mutex};
use keeper::hosted::{Current, yield_now};
use keeper::{Verdict, policy};
use task_model::TaskState;

use crate::kernel;

#[test]
fn the_restart_of_one_task_of_a_deadlock_lets_both_come_to_their_end() {
    static LOCKS: [Mutex<u32, Current>; 2] = [const { Mutex::new(0) }; 2];
    static TOLD: AtomicU32 = AtomicU32::new(0);
    static DONE: AtomicU32 = AtomicU32::new(0);
    static LIVES: AtomicU32 = AtomicU32::new(0);
    fn add_one(lock: &Mutex<u32, Current>) {
        match lock.lock() {
            Ok(mut value) => *value += 1,
            Err(LockError::OwnerDied(died)) => {
                TOLD.fetch_add(1, Ordering::Relaxed);
                *died.mark_consistent() += 1;
            }
            Err(error) => panic!("{error}"),
        }
    }
    let kernel = kernel();
    let first = kernel.spawn(|| {
        let _held = LOCKS[0].lock().unwrap();
        yield_now();
        add_one(&LOCKS[1]);
        DONE.fetch_add(1, Ordering::Relaxed);
    });
    let second = kernel.spawn_with_policy(&policy::Restart { at_most: 1 }, || {
        // In its second life in the order of the other task.
        if LIVES.fetch_add(1, Ordering::Relaxed) == 0 {
            let _held = LOCKS[1].lock().unwrap();
            yield_now();
            add_one(&LOCKS[0]);
        } else {
            let _held = LOCKS[0].lock().unwrap();
            add_one(&LOCKS[1]);
        }
        DONE.fetch_add(1, Ordering::Relaxed);
    });
    let deadlocked = || {
        kernel.with_wait_for_graph(|graph| {
            graph.deadlocks().map(|deadlock| deadlock.tasks().collect()).collect::<Vec<Vec<_>>>()
        })
    };
    assert!(deadlocked().is_empty());
    assert!(kernel.run_turns(5).is_empty());
    assert_eq!(deadlocked(), [[first, second]]);
    assert_eq!(DONE.load(Ordering::Relaxed), 0);

    kernel.kill(second);
    let reports = kernel.run();
    assert_eq!(reports.len(), 1);
    assert_eq!(reports[0].verdict, Some(Verdict::Restart));
    assert!(deadlocked().is_empty());
    assert_eq!((DONE.load(Ordering::Relaxed), TOLD.load(Ordering::Relaxed)), (2, 1));
    assert!(LOCKS.iter().all(|lock| !lock.is_locked()));
    assert_eq!(kernel.state(second.next_generation()), TaskState::Dead);
    kernel.spawn(|| assert_eq!((*LOCKS[0].lock().unwrap(), *LOCKS[1].lock().unwrap()), (0, 2)));
    assert!(kernel.run().is_empty());
}
