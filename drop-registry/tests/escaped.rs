//! Handles that were forgotten, or moved to the heap, by a function that has returned: each is
//! reported as escaped, is given up once, and leaves others what is theirs.
#![expect(unsafe_code, reason = "tasks that fault, and what is undone for them")]

use std::sync::atomic::{AtomicU64, Ordering};

use drop_registry::hosted::{Hosted, Machine, Stop, yield_now};
use drop_registry::{
    DropAfterTear, LockError, Mutex, Obligation, Once, Outcome, RepairMutex, RollbackMutex, RwLock,
    Semaphore, Settled, Shared, Slot, TrackedBox, Undo,
};
use task_model::TaskId;

/// A machine for this thread.
fn machine() -> Machine {
    // SAFETY: as what is tested allows: tasks forget what they have of statics, and nobody uses it
    // after their deaths. They keep nothing in thread-locals, and none is stopped by the
    // instruction.
    unsafe { Machine::new() }
}

/// Stops the task, without a frame below the caller's.
macro_rules! fault {
    () => {
        // SAFETY: it stops the task, which is what is tested.
        unsafe { core::arch::asm!("ud2") }
    };
}

/// One kind of thing to have.
struct Case {
    name: &'static str,
    /// Take it, and let go of the handle but not of the thing.
    escapes: [fn(); 2],
    /// Takes it, and faults.
    hold: fn(),
    /// What each step of the settlement says of it.
    outcomes: &'static [Outcome],
    /// Looks, as another task, what became of it, and puts that right.
    check: fn(),
}

macro_rules! case {
    ($name:literal, $take:expr, $outcomes:expr, $check:expr) => {
        Case {
            name: $name,
            escapes: [
                {
                    #[inline(never)]
                    fn forget() {
                        core::mem::forget($take);
                    }
                    forget
                },
                {
                    #[inline(never)]
                    fn leak() {
                        Box::leak(Box::new($take));
                    }
                    leak
                },
            ],
            hold: {
                #[inline(never)]
                fn hold() {
                    let held = $take;
                    fault!();
                    drop(held);
                }
                hold
            },
            outcomes: $outcomes,
            check: || $check,
        }
    };
}

/// Counts how often it was dropped.
struct Counted(&'static AtomicU64);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

// SAFETY: a reference to a static, never written after it was made.
unsafe impl DropAfterTear for Counted {}

/// A flag that is raised by whoever owes to lower it.
struct Raised(AtomicU64);

// SAFETY: one store, however often.
unsafe impl Undo for Raised {
    fn undo(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

/// What the next owner is told; the value is put right.
fn told<G: drop_registry::Exclusive<Value = u64>>(
    result: drop_registry::LockResult<G>,
) -> Option<G> {
    match result {
        Err(LockError::OwnerDied(died)) => Some(died.replace(0)),
        _ => None,
    }
}

static MUTEX: Mutex<u64, Hosted> = Mutex::new(0);
static ROLLBACK: RollbackMutex<u64, Hosted> = RollbackMutex::new(7);
static REPAIR: RepairMutex<u64, Hosted> = RepairMutex::new(0, |died| Some(died.replace(9)));
static TABLE: RwLock<u64, Hosted> = RwLock::new(0);
static PERMITS: Semaphore<Hosted> = Semaphore::new(2);
static FLAG: Raised = Raised(AtomicU64::new(0));
static BOXES_DROPPED: AtomicU64 = AtomicU64::new(0);
static SHARED_DROPPED: AtomicU64 = AtomicU64::new(0);
static LOCK_API: lock_api::Mutex<drop_registry::lock_api::RawMutex<Hosted>, u64> =
    lock_api::Mutex::new(0);

fn rolled_back() -> drop_registry::RollbackGuard<'static, u64, Hosted> {
    ROLLBACK.lock().unwrap()
}

const CASES: &[Case] = &[
    case!("mutex", MUTEX.lock().unwrap(), &[Outcome::OwnerDied], {
        drop(told(MUTEX.lock()).expect("told"));
        assert!(MUTEX.lock().is_ok());
    }),
    case!(
        "rollback mutex",
        {
            let mut guard = ROLLBACK.lock().unwrap();
            *guard = 8;
            guard
        },
        &[Outcome::RolledBack],
        assert_eq!(*rolled_back(), 7)
    ),
    case!(
        "repair mutex",
        REPAIR.lock().unwrap(),
        &[Outcome::Orphaned, Outcome::Repaired],
        assert_eq!(*REPAIR.lock().unwrap(), 9)
    ),
    case!("read lock", TABLE.read().unwrap(), &[Outcome::OwnerDied], {
        assert_eq!(TABLE.reader_count(), 0);
        drop(told(TABLE.write()).expect("told"));
        assert!(TABLE.write().is_ok());
    }),
    case!("write lock", TABLE.write().unwrap(), &[Outcome::OwnerDied], {
        drop(told(TABLE.write()).expect("told"));
        assert!(TABLE.read().is_ok());
    }),
    case!(
        "permit",
        PERMITS.acquire().unwrap(),
        &[Outcome::Released],
        assert_eq!(PERMITS.available(), 2)
    ),
    case!(
        "obligation",
        {
            let owed = Obligation::<_, Hosted>::new(&FLAG).unwrap();
            FLAG.0.store(1, Ordering::Relaxed);
            owed
        },
        &[Outcome::Released],
        assert_eq!(FLAG.0.load(Ordering::Relaxed), 0)
    ),
    case!(
        "box",
        TrackedBox::<_, Hosted>::new_droppable(Counted(&BOXES_DROPPED)).unwrap(),
        &[Outcome::Orphaned, Outcome::Reclaimed],
        assert_eq!(BOXES_DROPPED.swap(0, Ordering::Relaxed), 1)
    ),
    case!(
        "share",
        Shared::<_, Hosted>::new_droppable(Counted(&SHARED_DROPPED)).unwrap(),
        &[Outcome::Orphaned, Outcome::Reclaimed],
        assert_eq!(SHARED_DROPPED.swap(0, Ordering::Relaxed), 1)
    ),
    case!(
        "lock_api mutex",
        drop_registry::lock_api::lock(&LOCK_API).unwrap(),
        &[Outcome::OwnerDied],
        drop(told(drop_registry::lock_api::lock(&LOCK_API)).expect("told"))
    ),
];

/// Runs a task until it faults, and kills it.
fn death_of(machine: &mut Machine, body: impl FnOnce() + Send + 'static) -> Vec<Settled> {
    let task = machine.spawn(body);
    let stop = machine.run(task, None);
    assert!(matches!(stop, Stop::Faulted(_)), "{stop:?}");
    machine.kill(task)
}

fn run(machine: &mut Machine, body: impl FnOnce() + Send + 'static) {
    let task = machine.spawn(body);
    assert_eq!(machine.run(task, None), Stop::Finished);
}

/// A task that has something as long as others come and go.
fn waits(machine: &mut Machine, body: impl FnOnce() + Send + 'static) -> TaskId {
    let task = machine.spawn(body);
    assert_eq!(machine.run(task, None), Stop::Yielded);
    task
}

#[test]
fn what_a_returned_frame_took_is_escaped_and_what_a_live_one_has_is_not() {
    let mut machine = machine();
    for case in CASES {
        for escape in case.escapes {
            let settled = death_of(&mut machine, move || {
                escape();
                fault!();
            });
            settled_as(case, &settled, true);
            run(&mut machine, case.check);
        }
        settled_as(case, &death_of(&mut machine, case.hold), false);
        run(&mut machine, case.check);
    }
}

fn settled_as(case: &Case, settled: &[Settled], escaped: bool) {
    let outcomes: Vec<_> = settled.iter().map(|one| one.outcome).collect();
    assert_eq!(outcomes, case.outcomes, "{}", case.name);
    for one in settled {
        assert_eq!(one.escaped, escaped, "{}: {one:?}", case.name);
    }
}

/// It cannot escape: as long as the value is in the making, its maker's frame is there.
#[test]
fn a_value_in_the_making_has_not_escaped() {
    static ONCE: Once<u64, Hosted> = Once::new();
    let mut machine = machine();
    let settled = death_of(&mut machine, || {
        let _made = ONCE.call_once(|| {
            fault!();
            1
        });
    });
    assert_eq!(settled.len(), 1);
    assert!(!settled[0].escaped && settled[0].outcome == Outcome::Released);
    run(&mut machine, || assert_eq!(ONCE.call_once(|| 2), Ok(&2)));
}

#[test]
fn what_lock_api_took_is_escaped_as_far_as_its_functions_are_inlined() {
    static LOCK: lock_api::Mutex<drop_registry::lock_api::RawMutex<Hosted>, u64> =
        lock_api::Mutex::new(0);
    #[inline(never)]
    fn forget() {
        core::mem::forget(LOCK.lock());
    }
    #[inline(never)]
    fn hold() {
        let _held = LOCK.lock();
        fault!();
    }
    let mut machine = machine();
    let settled = death_of(&mut machine, || {
        forget();
        fault!();
    });
    assert!(settled[0].escaped);
    run(&mut machine, || drop(told(drop_registry::lock_api::lock(&LOCK))));
    let settled = death_of(&mut machine, hold);
    // This package is built without optimisation if it has debug assertions.
    assert_eq!(settled[0].escaped, cfg!(debug_assertions));
}

#[test]
fn an_escaped_count_is_given_up_once_and_the_others_keep_theirs() {
    static LOCK: RwLock<u64, Hosted> = RwLock::new_untorn(0);
    static PERMITS: Semaphore<Hosted> = Semaphore::new(3);
    static VALUE: Slot<Shared<u64, Hosted>> = Slot::new();
    #[inline(never)]
    fn forget() {
        core::mem::forget((LOCK.read().unwrap(), PERMITS.acquire().unwrap(), VALUE.share()));
    }
    let mut machine = machine();
    let other = waits(&mut machine, || {
        let _read = LOCK.read().unwrap();
        let _permit = PERMITS.acquire().unwrap();
        let value = Shared::<u64, Hosted>::new(5).unwrap();
        assert!(VALUE.put(value.try_clone().unwrap()).is_ok());
        yield_now();
        assert_eq!((*value, Shared::count(&value)), (5, 2));
    });
    let settled = death_of(&mut machine, || {
        forget();
        fault!();
    });
    assert_eq!(settled.len(), 3);
    assert!(settled.iter().all(|one| one.escaped && one.outcome == Outcome::Released));
    assert_eq!((LOCK.reader_count(), PERMITS.available()), (1, 2));
    assert_eq!(machine.run(other, None), Stop::Finished);
    assert_eq!((LOCK.reader_count(), PERMITS.available()), (0, 3));
}

#[test]
fn what_was_handed_over_from_a_returned_frame_is_nobody_s_to_release() {
    static PLACE: Slot<TrackedBox<u64, Hosted>> = Slot::new();
    #[inline(never)]
    fn hand_over() {
        assert!(PLACE.put(*Box::new(TrackedBox::new(3).unwrap())).is_ok());
    }
    let mut machine = machine();
    let settled = death_of(&mut machine, || {
        hand_over();
        fault!();
    });
    assert!(settled.is_empty(), "{settled:?}");
    assert!(!PLACE.is_empty());
}

/// The limit of what a stack pointer can tell.
#[test]
fn a_frame_in_the_place_of_the_one_that_returned_hides_it() {
    static LOCK: Mutex<u64, Hosted> = Mutex::new(0);
    #[inline(never)]
    fn forget() {
        core::mem::forget(LOCK.lock().unwrap());
    }
    #[inline(never)]
    fn deeper() {
        let room = core::hint::black_box([0u8; 4096]);
        fault!();
        core::hint::black_box(room);
    }
    let mut machine = machine();
    let settled = death_of(&mut machine, || {
        forget();
        deeper();
    });
    assert_eq!((settled.len(), settled[0].escaped), (1, false));
    assert_eq!(settled[0].outcome, Outcome::OwnerDied);
}
