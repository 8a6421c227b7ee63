//! The wait-for graph of tasks that really wait: what is a deadlock is found, what is none is not,
//! at whatever instruction the tasks are stopped.

use drop_registry::hosted::{Hosted, Machine, Stop, domain, yield_now};
use drop_registry::{Condvar, LockError, Mutex, Park, RwLock, Semaphore, WaitForGraph};
use task_model::TaskId;

type Sleeping<T> = Mutex<T, Hosted, Park>;

/// A machine for this thread.
#[expect(unsafe_code, reason = "makes a machine")]
fn machine() -> Machine {
    // SAFETY: tasks here keep nothing in thread-locals, and allocate nothing. What they share is
    // static.
    unsafe { Machine::new() }
}

/// The tasks of each deadlock that is to be seen now.
fn deadlocks(machine: &Machine) -> Vec<Vec<TaskId>> {
    let graph = WaitForGraph::<8>::new(machine.ledgers(), domain()).unwrap();
    graph.deadlocks().map(|deadlock| deadlock.tasks().collect()).collect()
}

/// Runs each task until it sleeps or yields, and spins for some time if it spins.
fn give_turns(machine: &mut Machine, tasks: &[TaskId]) {
    for task in tasks {
        if machine.is_alive(*task) {
            let stop = machine.run(*task, Some(3000));
            assert!(!matches!(stop, Stop::Faulted(_) | Stop::Panicked), "{stop:?}");
        }
    }
}

/// That it is found wherever the tasks stand.
fn stays(machine: &mut Machine, expected: &[TaskId]) {
    for step in 0..300 {
        assert_eq!(deadlocks(machine), [expected]);
        machine.run(expected[step % expected.len()], Some(1));
    }
}

#[test]
fn two_tasks_that_lock_in_opposite_order_are_found_and_the_death_of_one_lets_the_other_go_on() {
    static LOCKS: [Mutex<u32, Hosted>; 2] = [const { Mutex::new(0) }; 2];
    let mut machine = machine();
    let tasks = [[0, 1], [1, 0]].map(|[first, second]| {
        machine.spawn(move || {
            let _first = LOCKS[first].lock().unwrap();
            yield_now();
            match LOCKS[second].lock() {
                Err(LockError::OwnerDied(died)) => drop(died.replace(7)),
                _ => panic!("not told"),
            }
        })
    });
    assert_eq!(deadlocks(&machine), Vec::<Vec<_>>::new());
    give_turns(&mut machine, &tasks);
    assert_eq!(deadlocks(&machine), Vec::<Vec<_>>::new(), "both hold, and neither waits");
    give_turns(&mut machine, &tasks[..1]);
    assert_eq!(deadlocks(&machine), Vec::<Vec<_>>::new(), "one waits, and the other does not");
    give_turns(&mut machine, &tasks);
    stays(&mut machine, &tasks);

    machine.kill(tasks[0]);
    assert_eq!(deadlocks(&machine), Vec::<Vec<_>>::new());
    assert!(machine.run_all().is_ok());
    assert!(LOCKS.iter().all(|lock| !lock.is_locked()));
    machine.spawn(|| {
        assert_eq!(*LOCKS[0].lock().unwrap(), 7);
        assert_eq!(*LOCKS[1].lock().unwrap(), 0);
    });
    machine.run_all().unwrap();
}

#[test]
fn three_tasks_a_mutex_that_sleeps_and_both_sides_of_a_read_write_lock() {
    static OUTER: Sleeping<u32> = Mutex::new(0);
    static TABLE: RwLock<u32, Hosted, Park> = RwLock::new(0);
    static INNER: Mutex<u32, Hosted> = Mutex::new(0);
    let mut machine = machine();
    // Waits for the reader, as a writer that keeps new readers out.
    let writer = machine.spawn(|| {
        let _outer = OUTER.lock().unwrap();
        yield_now();
        let _table = TABLE.write();
    });
    let reader = machine.spawn(|| {
        let _table = TABLE.read().unwrap();
        yield_now();
        let _inner = INNER.lock();
    });
    let third = machine.spawn(|| {
        let _inner = INNER.lock().unwrap();
        yield_now();
        let _outer = OUTER.lock();
    });
    // It waits behind them, for the writer that waits itself.
    let behind = machine.spawn(|| {
        yield_now();
        let _table = TABLE.read();
    });
    let tasks = [writer, reader, third, behind];
    for _ in 0..4 {
        give_turns(&mut machine, &tasks);
    }
    stays(&mut machine, &tasks[..3]);
    let graph = WaitForGraph::<8>::new(machine.ledgers(), domain()).unwrap();
    assert!(graph.is_stuck(behind));
    let text = graph.deadlocks().next().unwrap().to_string();
    let word = |lock: *const ()| format!("{:#x}", lock.addr());
    let expected = [
        format!("task {writer} waits for read lock "),
        format!(
            ", held by task {reader}, which waits for mutex {}",
            word((&raw const INNER).cast())
        ),
        format!(
            ", held by task {third}, which waits for mutex {}",
            word((&raw const OUTER).cast())
        ),
        format!(", held by task {writer}"),
    ];
    assert!(expected.iter().all(|part| text.contains(part)), "{text}");
    drop(graph);

    machine.kill(third);
    machine.run_all().unwrap();
    assert!(!OUTER.is_locked() && !INNER.is_locked() && !TABLE.is_write_locked());
    assert_eq!(TABLE.reader_count(), 0);
}

/// Small numbers that differ from seed to seed (Steele, Lea and Flood 2014: SplitMix64).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % limit as u64) as usize
    }
}

#[test]
fn tasks_that_lock_in_one_order_are_never_taken_for_deadlocked_at_any_instruction() {
    static FIRST: Mutex<u32, Hosted> = Mutex::new(0);
    static SECOND: Sleeping<u32> = Mutex::new(0);
    static THIRD: RwLock<u32, Hosted> = RwLock::new(0);
    static FOURTH: RwLock<u32, Hosted, Park> = RwLock::new(0);
    static PERMITS: Semaphore<Hosted> = Semaphore::new(1);
    static CHANGED: Condvar<Hosted> = Condvar::new();
    let mut waited = 0;
    for seed in 0..2 {
        let machine = machine();
        let mut tasks: Vec<_> = (0..3)
            .map(|task| {
                machine.spawn(move || {
                    let first = FIRST.lock().unwrap();
                    let second = SECOND.lock().unwrap();
                    drop(first);
                    let permit = PERMITS.acquire().unwrap();
                    if task == 0 {
                        *THIRD.write().unwrap() += 1;
                        drop(permit);
                        let _fourth = FOURTH.read().unwrap();
                    } else {
                        let _third = THIRD.read().unwrap();
                        *FOURTH.write().unwrap() += 1;
                        drop(permit);
                    }
                    CHANGED.notify_all_after(|| drop(second)).unwrap();
                    CHANGED.wait_until(&SECOND, |n| (*n < 100).then_some(())).unwrap();
                })
            })
            .collect();
        let mut numbers = Numbers(seed);
        while !tasks.is_empty() {
            let turn = numbers.below(tasks.len());
            for _ in 0..numbers.below(20) {
                let stop = machine.run(tasks[turn], Some(1));
                let graph = WaitForGraph::<8>::new(machine.ledgers(), domain()).unwrap();
                waited += graph.waits().count();
                let stuck = machine.ledgers().find(|(task, _)| graph.is_stuck(*task));
                assert!(stuck.is_none(), "{stuck:?}, seed {seed}");
                match stop {
                    Stop::BudgetSpent => {}
                    Stop::Parked => break,
                    Stop::Finished => {
                        tasks.remove(turn);
                        break;
                    }
                    stop => panic!("{stop:?}"),
                }
            }
        }
    }
    assert!(waited > 1000, "they did wait for each other: {waited}");
}

#[test]
fn a_wait_for_a_permit_or_a_wake_up_is_shown_as_far_as_it_has_holders_and_is_no_deadlock() {
    static PERMITS: Semaphore<Hosted> = Semaphore::new(1);
    static LOCK: Sleeping<bool> = Mutex::new(false);
    static CHANGED: Condvar<Hosted> = Condvar::new();
    let mut machine = machine();
    let holder = machine.spawn(|| {
        let _permit = PERMITS.acquire().unwrap();
        yield_now();
        // Whoever likes can wake it.
        CHANGED.wait_until(&LOCK, |ready| ready.then_some(())).unwrap();
    });
    let waiter = machine.spawn(|| {
        yield_now();
        let _permit = PERMITS.acquire().unwrap();
    });
    for _ in 0..2 {
        give_turns(&mut machine, &[holder, waiter]);
    }
    let graph = WaitForGraph::<8>::new(machine.ledgers(), domain()).unwrap();
    let waits: Vec<_> = graph.waits().map(|wait| (wait.waiter, wait.holder)).collect();
    assert_eq!(waits, [(waiter, holder)]);
    assert!(!graph.is_stuck(waiter) && !graph.is_stuck(holder));
    drop(graph);
    machine.spawn(|| CHANGED.notify_all_after(|| *LOCK.lock().unwrap() = true).unwrap());
    machine.run_all().unwrap();
}
