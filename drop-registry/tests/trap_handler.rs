//! A trap handler that interrupts a task has no ledger of its own: whatever it tries to acquire, it
//! panics, and has changed nothing by then.
#![expect(unsafe_code, reason = "says which ledger is whose")]

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::NonNull;

use drop_registry::{
    Channel, Condvar, CurrentLedger, Heap, HeapMemory, KillSwitch, Ledger, LedgerFull, Mutex,
    NoKill, Obligation, Once, Park, Parker, RepairMutex, RollbackMutex, RwLock, Semaphore, Shared,
    Slot, TrackedBox, TrackedHeap, Undo, WaitQueue,
};

struct Kernel;

thread_local! {
    static IN_TRAP: Cell<bool> = const { Cell::new(false) };
    /// Those of each test's thread: of its trap handlers, and of its one task.
    static TRAP: &'static Ledger = Box::leak(Box::new(Ledger::forbidden()));
    static TASK: &'static Ledger = Box::leak(Box::default());
}

// SAFETY: a thread is one task with a ledger of its own, that lives for ever; or it is in a trap
// handler, where nothing is acquired.
unsafe impl CurrentLedger for Kernel {
    fn current() -> NonNull<Ledger> {
        let ledger = if IN_TRAP.get() { &TRAP } else { &TASK };
        ledger.with(|ledger| NonNull::from(*ledger))
    }
}

impl KillSwitch for Kernel {
    fn is_pulled() -> bool {
        false
    }

    fn stop() {}
}

// SAFETY: nobody sleeps here, so nobody needs a number of its own.
unsafe impl Parker for Kernel {
    const TASKS: usize = 1;

    fn index(ledger: &Ledger) -> usize {
        let is_trap = TRAP.with(|trap| std::ptr::eq(*trap, ledger));
        if is_trap { Self::TASKS } else { 0 }
    }

    fn park() {
        unreachable!("nobody sleeps here");
    }

    fn unpark(_: usize) {}
}

/// One chunk, which is one [`LARGE`] block: who loses it is found out.
impl TrackedHeap for Kernel {
    fn heap() -> &'static Heap {
        static MEMORY: HeapMemory<1> = HeapMemory::new();
        static HEAP: Heap = Heap::new(&MEMORY);
        &HEAP
    }
}

/// A value that takes a whole chunk of the heap.
const LARGE: [u8; 4000] = [1; 4000];

/// Interrupts the calling task by a trap handler that acquires something, and is told not to.
fn refused<T>(acquire: impl FnOnce() -> T) {
    let task = TASK.with(|ledger| ledger.len());
    IN_TRAP.set(true);
    let result = catch_unwind(AssertUnwindSafe(|| drop(acquire())));
    IN_TRAP.set(false);
    let panic = result.expect_err("nothing is acquired in a trap handler");
    let said = panic.downcast_ref::<&str>().expect("a panic says something");
    assert!(said.contains("acquired in a trap handler"), "{said}");
    assert!(TRAP.with(|trap| trap.is_empty() && trap.waiting().is_null()));
    assert_eq!(TASK.with(|ledger| ledger.len()), task);
}

#[test]
fn a_mutex_is_not_locked_in_a_trap_handler() {
    let lock = Mutex::<_, Kernel>::new(1);
    refused(|| lock.lock());
    refused(|| lock.try_lock());
    assert!(!lock.is_locked());
    let held = lock.lock().unwrap();
    // It would wait for the task that it interrupts.
    refused(|| lock.lock());
    assert!(lock.is_locked());
    drop(held);
    assert!(!lock.is_locked());
}

#[test]
fn a_lock_with_a_rollback_or_a_routine_is_not_locked_in_a_trap_handler() {
    let rollback = RollbackMutex::<_, Kernel>::new(1);
    refused(|| rollback.lock());
    static REPAIR: RepairMutex<u64, Kernel> = RepairMutex::new(1, |died| Some(died.replace(1)));
    refused(|| REPAIR.lock());
    refused(|| REPAIR.lock_repaired());
    assert!(!rollback.is_locked() && !REPAIR.is_locked());
}

#[test]
fn nobody_waits_in_a_trap_handler_nor_wakes_anybody() {
    let queue = WaitQueue::<Kernel>::new();
    refused(|| queue.wait_until(|| None::<Result<(), LedgerFull>>));
    refused(|| queue.wake_one());
    refused(|| queue.wake_all());
    assert!(queue.is_empty());
    let sleeping = Mutex::<_, Kernel, Park>::new(1);
    let held = sleeping.lock().unwrap();
    refused(|| sleeping.lock());
    drop(held);
    let changed = Condvar::<Kernel>::new();
    refused(|| changed.notify_one());
    assert!(changed.is_idle() && !sleeping.is_locked());
}

struct Nothing;

// SAFETY: it does nothing.
unsafe impl Undo for Nothing {
    fn undo(&self) {}
}

#[test]
fn no_duty_is_taken_on_in_a_trap_handler_and_no_section_begun() {
    refused(|| Obligation::<_, Kernel>::new(&Nothing));
    refused(NoKill::<Kernel>::enter);
}

#[test]
fn nothing_is_handed_over_in_a_trap_handler() {
    let mut slot = Slot::<Obligation<Nothing, Kernel>>::new();
    let channel = Channel::<Obligation<Nothing, Kernel>, 2>::new();
    let duty = || Obligation::<_, Kernel>::new(&Nothing).unwrap();
    assert!(slot.put(duty()).is_ok() && channel.try_send(duty()).is_ok());
    refused(|| slot.take());
    refused(|| channel.try_recv());
    refused(|| channel.recv());
    assert!(!slot.is_empty() && channel.len() == 1);
    drop((slot.take().unwrap(), channel.try_recv().unwrap()));
    // Nor waited for.
    refused(|| channel.recv());
}

#[test]
fn a_read_write_lock_is_not_taken_in_a_trap_handler() {
    let lock = RwLock::<_, Kernel>::new(1);
    let untouched = |readers| (lock.reader_count(), lock.is_write_locked()) == (readers, false);
    refused(|| lock.read());
    refused(|| lock.try_read());
    refused(|| lock.write());
    refused(|| lock.try_write());
    assert!(untouched(0));
    let held = lock.read().unwrap();
    refused(|| lock.read());
    refused(|| lock.write());
    assert!(untouched(1));
    drop(held);
    assert!(lock.write().is_ok());
}

#[test]
fn no_permit_is_taken_in_a_trap_handler() {
    let semaphore = Semaphore::<Kernel>::new(1);
    refused(|| semaphore.acquire());
    refused(|| semaphore.try_acquire());
    assert_eq!(semaphore.available(), 1);
    let permit = semaphore.acquire().unwrap();
    // Nor waited for.
    refused(|| semaphore.acquire());
    drop(permit);
    assert_eq!(semaphore.available(), 1);
    assert!(semaphore.acquire().is_ok());
}

#[test]
fn no_value_is_made_in_a_trap_handler() {
    let once = Once::<u32, Kernel>::new();
    refused(|| once.call_once(|| unreachable!("there is no room to say who makes it")).copied());
    assert_eq!(once.call_once(|| 2), Ok(&2));
    let made = once.call_once(|| unreachable!("it is there")).copied();
    assert_eq!(made, Ok(2));
    let once = Once::<u32, Kernel>::new();
    // It would wait for the task that it interrupts.
    let interrupted = once.call_once(|| {
        refused(|| once.call_once(|| 3).copied());
        4
    });
    assert_eq!(interrupted, Ok(&4));
}

#[test]
fn no_block_is_taken_in_a_trap_handler_and_no_share() {
    refused(|| Shared::<_, Kernel>::new(LARGE));
    refused(|| TrackedBox::<_, Kernel>::new(LARGE));
    let share = Shared::<_, Kernel>::new(LARGE).expect("the only block");
    assert!(TrackedBox::<_, Kernel>::new(LARGE).is_err());
    refused(|| share.try_clone());
    assert_eq!((Shared::count(&share), TASK.with(|ledger| ledger.len())), (1, 1));
    let also = share.try_clone().unwrap();
    drop(share);
    assert_eq!(*also, LARGE);
}
