//! What the types refuse where they can see it, done behind their back: letting go of what another
//! task holds.

use core::sync::atomic::{AtomicBool, Ordering};
use std::boxed::Box;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::string::String;

use crate::testing::{TestTask, on_fresh_ledger};
use crate::{
    Mutex, Obligation, Park, RepairMutex, RollbackMutex, RwLock, Semaphore, Shared, TrackedBox,
    Undo,
};

/// What `body` says in its panic.
fn panic_of(body: impl FnOnce()) -> String {
    let payload = catch_unwind(AssertUnwindSafe(body)).expect_err("a panic");
    let text = payload.downcast_ref::<&str>().map(|text| String::from(*text));
    text.or_else(|| payload.downcast_ref::<String>().cloned()).expect("a message")
}

/// What a task says that lets go of what another has taken.
fn let_go_by_another<H>(take: impl FnOnce() -> H) -> String {
    let mut held = None;
    on_fresh_ledger(|_| held = Some(take()));
    let mut said = String::new();
    on_fresh_ledger(|_| said = panic_of(|| drop(held.take())));
    said
}

/// For what is still held when its test ends.
fn forever<T>(value: T) -> &'static T {
    Box::leak(Box::new(value))
}

/// Both ways of waiting, for locks that name their owner.
macro_rules! stay_held {
    ($($name:ident: $lock:expr, $take:ident, $says:ident;)*) => {
        $(
            #[test]
            fn $name() {
                let lock = forever($lock);
                let said = let_go_by_another(|| lock.$take().unwrap());
                assert_eq!(said, $says);
                assert!(std::format!("{lock:?}").contains("held: true"), "{lock:?}");
            }
        )*
    };
}

/// What is said of a guard whose lock names its owner, and of any other handle.
const GUARD: &str = "a guard is dropped by the task that locked it";
const HANDLE: &str = "a tracked handle is dropped by the task that has it";

type Sleeping<T> = Mutex<T, TestTask, Park>;

stay_held! {
    a_mutex_is_not_unlocked_by_another_task: Mutex::<_, TestTask>::new(1), lock, GUARD;
    a_sleeping_mutex_is_not_unlocked_by_another_task: Sleeping::new(1), lock, HANDLE;
    a_rollback_mutex_is_not_unlocked_by_another_task: RollbackMutex::<_, TestTask>::new(1), lock, GUARD;
    a_sleeping_rollback_mutex_is_not_unlocked_by_another_task:
        RollbackMutex::<_, TestTask, Park>::new(1), lock, HANDLE;
    a_repair_mutex_is_not_unlocked_by_another_task:
        RepairMutex::<_, TestTask>::new(1, |died| Some(died.replace(2))), lock, GUARD;
    a_writer_s_lock_is_not_unlocked_by_another_task: RwLock::<_, TestTask>::new(1), write, GUARD;
    a_sleeping_writer_s_lock_is_not_unlocked_by_another_task:
        RwLock::<_, TestTask, Park>::new(1), write, HANDLE;
}

#[test]
fn a_reader_is_not_taken_off_by_another_task() {
    let (spinning, sleeping) =
        (forever(RwLock::<_, TestTask>::new(1)), forever(RwLock::<_, TestTask, Park>::new(1)));
    let said = [
        let_go_by_another(|| spinning.read().unwrap()),
        let_go_by_another(|| sleeping.read().unwrap()),
    ];
    assert_eq!(said, [HANDLE; 2]);
    assert_eq!((spinning.reader_count(), sleeping.reader_count()), (1, 1));
}

#[test]
fn a_permit_is_not_given_back_by_another_task() {
    let semaphore = forever(Semaphore::<TestTask>::new(1));
    let said = let_go_by_another(|| semaphore.acquire().unwrap());
    assert_eq!(said, HANDLE);
    assert_eq!(semaphore.available(), 0);
}

#[test]
fn what_a_task_owns_on_the_heap_is_not_dropped_by_another() {
    let shared = let_go_by_another(|| Shared::<u64, TestTask>::new(1).unwrap());
    assert_eq!(shared, "a share is dropped by its own task");
    let boxed = let_go_by_another(|| TrackedBox::<u64, TestTask>::new(1).unwrap());
    assert_eq!(boxed, HANDLE);
}

#[test]
#[expect(unsafe_code, reason = "a duty says so of itself")]
fn a_change_is_not_undone_by_another_task() {
    struct Raised(AtomicBool);
    // SAFETY: one store, however often.
    unsafe impl Undo for Raised {
        fn undo(&self) {
            self.0.store(false, Ordering::Relaxed);
        }
    }
    let raised = forever(Raised(AtomicBool::new(true)));
    let said = let_go_by_another(|| Obligation::<_, TestTask>::new(raised).unwrap());
    assert_eq!(said, "an obligation is met, or handed over, by the task that has it");
    assert!(raised.0.load(Ordering::Relaxed));
}

#[test]
fn a_semaphore_does_not_begin_with_more_permits_than_it_counts() {
    let most = Semaphore::<TestTask>::MAX_PERMITS;
    assert_eq!(Semaphore::<TestTask>::new(most).available(), most);
    let said = panic_of(|| drop(Semaphore::<TestTask>::new(most + 1)));
    assert!(said.contains("more permits than a semaphore counts"), "{said}");
}
