//! Locks of this crate in `lock_api`'s hands, and locks of others in this crate's: with spin and
//! talc for peers.

use std::alloc::{GlobalAlloc as _, Layout};
use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use drop_registry::LockError;
use drop_registry::hosted::{Hosted, Machine, Stop, yield_now};
use drop_registry::lock_api::{
    RawMutex, RawRwLock, TrackedRawMutex, TrackedRawRwLock, write, write_tracked,
};
use lock_api::{GuardSend, Mutex, RwLock};
use talc::DefaultBinning;
use talc::source::Claim;
use talc::sync::TalcLock;

type Ours<T> = Mutex<RawMutex<Hosted>, T>;
type Spin = spin::Mutex<()>;
type Tracked<T> = Mutex<TrackedRawMutex<Spin, Hosted>, T>;
type ReadWrite = RwLock<RawRwLock<Hosted>, u64>;
type TrackedReadWrite = RwLock<TrackedRawRwLock<spin::RwLock<()>, Hosted>, u64>;

/// Runs a task to its end.
fn run(machine: &mut Machine, body: impl FnOnce() + Send + 'static) -> Stop {
    let task = machine.spawn(body);
    machine.run(task, None)
}

/// Runs a task until it yields, and kills it there.
fn kill(machine: &mut Machine, body: impl FnOnce() + Send + 'static) -> usize {
    let task = machine.spawn(body);
    assert_eq!(machine.run(task, None), Stop::Yielded);
    machine.kill(task).len()
}

/// The same of a task that stands there with what it has taken.
fn die_with<G>(machine: &mut Machine, take: impl FnOnce() -> G + Send + 'static) -> usize {
    kill(machine, || {
        let _held = take();
        yield_now();
    })
}

/// Whether a task ends in a panic that does not unwind; in a child process.
#[expect(unsafe_code, reason = "forks")]
fn ends_the_program(machine: &mut Machine, body: impl FnOnce() + Send + 'static) -> bool {
    // SAFETY: the child has this thread alone, and takes no lock that another one may hold but the
    // allocator's, which `fork` looks after.
    match unsafe { libc::fork() } {
        -1 => panic!("{}", std::io::Error::last_os_error()),
        0 => {
            std::panic::set_hook(Box::new(|_| ()));
            run(machine, body);
            // SAFETY: ends the child.
            unsafe { libc::_exit(0) }
        }
        child => {
            let mut status = 0;
            // SAFETY: waits for the child just made.
            assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
            libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGABRT
        }
    }
}

#[test]
fn a_lock_of_ours_works_for_users_of_lock_api() {
    static COUNTER: Ours<u64> = Ours::new(0);
    let mut machine = Machine::new();
    let done = run(&mut machine, || {
        *COUNTER.lock() += 1;
        let held = COUNTER.lock();
        assert!(COUNTER.is_locked() && COUNTER.try_lock().is_none());
        drop(held);
        *COUNTER.try_lock().expect("it is free") += 1;
    });
    assert_eq!(done, Stop::Finished);
    assert!(!COUNTER.is_locked());
}

#[test]
fn after_a_death_lock_api_is_refused_until_somebody_has_recovered_the_value() {
    static LOCK: Ours<u64> = Ours::new(1);
    let mut machine = Machine::new();
    let settled = kill(&mut machine, || {
        let mut held = LOCK.lock();
        *held = 2;
        yield_now();
        drop(held);
    });
    assert_eq!(settled, 1);
    for _ in 0..2 {
        assert_eq!(run(&mut machine, || assert!(LOCK.try_lock().is_none())), Stop::Finished);
        assert!(ends_the_program(&mut machine, || drop(LOCK.lock())));
        assert!(!LOCK.is_locked(), "who was refused holds the lock");
    }
    let recovered = run(&mut machine, || {
        let Err(LockError::OwnerDied(died)) = drop_registry::lock_api::lock(&LOCK) else {
            panic!("not told");
        };
        assert_eq!(*died.peek(), 2);
        drop(died.replace(5));
        assert_eq!(*LOCK.lock(), 5);
    });
    assert_eq!(recovered, Stop::Finished);
}

#[test]
fn what_nobody_recovered_is_refused_for_good() {
    static LOCK: Ours<u64> = Ours::new(1);
    let mut machine = Machine::new();
    die_with(&mut machine, || LOCK.lock());
    let given_up = run(&mut machine, || {
        drop(drop_registry::lock_api::lock(&LOCK));
        assert!(matches!(drop_registry::lock_api::lock(&LOCK), Err(LockError::NotRecoverable)));
    });
    assert_eq!(given_up, Stop::Finished);
    assert!(ends_the_program(&mut machine, || drop(LOCK.lock())));
}

#[test]
fn a_second_lock_by_the_same_task_is_a_panic_and_not_a_deadlock() {
    static LOCK: Ours<u64> = Ours::new(1);
    let mut machine = Machine::new();
    assert!(ends_the_program(&mut machine, || {
        let _held = LOCK.lock();
        drop(LOCK.lock());
    }));
}

#[test]
fn after_a_reader_s_death_the_lock_is_refused_to_writers_alone() {
    static LOCK: ReadWrite = ReadWrite::new(1);
    let mut machine = Machine::new();
    die_with(&mut machine, || LOCK.read());
    for _ in 0..2 {
        assert_eq!(run(&mut machine, || assert!(LOCK.try_write().is_none())), Stop::Finished);
        assert!(ends_the_program(&mut machine, || drop(LOCK.write())));
        assert_eq!(run(&mut machine, || assert_eq!(*LOCK.read(), 1)), Stop::Finished);
    }
    assert!(!LOCK.is_locked());
    let recovered = run(&mut machine, || {
        let Err(LockError::OwnerDied(died)) = write(&LOCK) else { panic!("not told") };
        drop(died.mark_consistent());
        *LOCK.write() += 1;
        assert_eq!(*LOCK.read(), 2);
    });
    assert_eq!(recovered, Stop::Finished);
}

#[expect(unsafe_code, reason = "promises that readers do not tear a number")]
#[test]
fn a_dead_reader_is_taken_off_and_a_dead_writer_s_lock_refused() {
    // SAFETY: no shared reference changes a number.
    static LOCK: ReadWrite = ReadWrite::from_raw(unsafe { RawRwLock::new_untorn() }, 1);
    let mut machine = Machine::new();
    kill(&mut machine, || {
        let (_one, _another) = (LOCK.read(), LOCK.read());
        assert!(LOCK.try_write().is_none());
        yield_now();
    });
    assert_eq!(run(&mut machine, || *LOCK.write() += 1), Stop::Finished);
    assert_eq!(run(&mut machine, || assert_eq!(*LOCK.read(), 2)), Stop::Finished);
    kill(&mut machine, || {
        let _held = LOCK.write();
        assert!(LOCK.is_locked_exclusive() && LOCK.try_read().is_none());
        yield_now();
    });
    let refused = run(&mut machine, || {
        assert!(LOCK.try_read().is_none() && LOCK.try_write().is_none());
    });
    assert_eq!(refused, Stop::Finished);
    assert!(ends_the_program(&mut machine, || drop(LOCK.read())));
    assert!(ends_the_program(&mut machine, || drop(LOCK.write())));
    assert!(!LOCK.is_locked());
    let recovered = run(&mut machine, || {
        let Err(LockError::OwnerDied(mut died)) = write(&LOCK) else { panic!("not told") };
        assert_eq!(*died.peek(), 2);
        *died.update() = 5;
        drop(died.mark_consistent());
        assert!(write(&LOCK).is_ok());
        assert_eq!(*LOCK.read(), 5);
    });
    assert_eq!(recovered, Stop::Finished);
}

#[test]
fn a_dead_writer_s_lock_that_nobody_recovered_is_refused_for_good() {
    static LOCK: ReadWrite = ReadWrite::new(1);
    let mut machine = Machine::new();
    die_with(&mut machine, || LOCK.write());
    let given_up = run(&mut machine, || {
        drop(write(&LOCK));
        assert!(matches!(write(&LOCK), Err(LockError::NotRecoverable)));
        assert!(LOCK.try_read().is_none() && LOCK.try_write().is_none());
    });
    assert_eq!(given_up, Stop::Finished);
}

/// How many readers and writers spin's lock counts, behind the lock of ours.
#[expect(unsafe_code, reason = "looks at a foreign lock")]
fn counted(lock: &TrackedReadWrite) -> (usize, usize) {
    // SAFETY: it is looked at, and neither locked nor unlocked.
    let theirs = unsafe { lock.raw().theirs() };
    (theirs.reader_count(), theirs.writer_count())
}

#[expect(unsafe_code, reason = "promises that readers do not tear a number")]
#[test]
fn a_dead_reader_is_left_to_the_next_writer_and_a_living_one_is_not_touched() {
    // SAFETY: no shared reference changes a number.
    static LOCK: TrackedReadWrite =
        TrackedReadWrite::from_raw(unsafe { TrackedRawRwLock::new_untorn() }, 1);
    let mut machine = Machine::new();
    let living = machine.spawn(|| {
        let held = LOCK.read();
        yield_now();
        drop(held);
    });
    assert_eq!(machine.run(living, None), Stop::Yielded);
    let settled = kill(&mut machine, || {
        let (_one, _another) = (LOCK.read(), LOCK.read());
        yield_now();
    });
    assert_eq!(settled, 2);
    assert_eq!(counted(&LOCK), (3, 0));
    assert_eq!(run(&mut machine, || assert_eq!(*LOCK.read(), 1)), Stop::Finished);
    assert_eq!(run(&mut machine, || assert!(LOCK.try_write().is_none())), Stop::Finished);
    assert_eq!(counted(&LOCK), (3, 0), "a writer released a lock of somebody who lives");
    assert_eq!(machine.run(living, None), Stop::Finished);
    assert_eq!(counted(&LOCK), (2, 0));
    let written = run(&mut machine, || {
        let mut held = LOCK.write();
        assert_eq!(counted(&LOCK), (0, 1));
        *held += 1;
    });
    assert_eq!(written, Stop::Finished);
    assert_eq!(counted(&LOCK), (0, 0));
    assert_eq!(run(&mut machine, || assert_eq!(*LOCK.read(), 2)), Stop::Finished);
}

#[test]
fn a_dead_reader_s_foreign_lock_is_left_to_whoever_recovers_the_value() {
    static LOCK: TrackedReadWrite = TrackedReadWrite::new(1);
    let mut machine = Machine::new();
    die_with(&mut machine, || LOCK.read());
    assert_eq!(run(&mut machine, || assert_eq!(*LOCK.read(), 1)), Stop::Finished);
    assert_eq!(run(&mut machine, || assert!(LOCK.try_write().is_none())), Stop::Finished);
    assert!(ends_the_program(&mut machine, || drop(LOCK.write())));
    assert_eq!(counted(&LOCK), (1, 0));
    let recovered = run(&mut machine, || {
        let Err(LockError::OwnerDied(died)) = write_tracked(&LOCK) else { panic!("not told") };
        drop(died.replace(7));
        *LOCK.write() += 1;
        assert_eq!(*LOCK.read(), 8);
    });
    assert_eq!(recovered, Stop::Finished);
    assert_eq!(counted(&LOCK), (0, 0));
}

#[test]
fn a_dead_writer_s_read_write_lock_is_left_to_whoever_recovers_the_value() {
    static LOCK: TrackedReadWrite = TrackedReadWrite::new(1);
    let mut machine = Machine::new();
    die_with(&mut machine, || LOCK.write());
    assert_eq!(counted(&LOCK), (0, 1));
    let refused = run(&mut machine, || {
        assert!(LOCK.try_read().is_none() && LOCK.try_write().is_none());
    });
    assert_eq!(refused, Stop::Finished);
    assert!(ends_the_program(&mut machine, || drop(LOCK.read())));
    assert!(ends_the_program(&mut machine, || drop(LOCK.write())));
    let recovered = run(&mut machine, || {
        let Err(LockError::OwnerDied(died)) = write_tracked(&LOCK) else { panic!("not told") };
        drop(died.replace(7));
        assert_eq!(counted(&LOCK), (0, 0));
        assert_eq!(*LOCK.read(), 7);
    });
    assert_eq!(recovered, Stop::Finished);
    die_with(&mut machine, || LOCK.write());
    let given_up = run(&mut machine, || {
        drop(write_tracked(&LOCK));
        assert!(matches!(write_tracked(&LOCK), Err(LockError::NotRecoverable)));
        assert!(LOCK.try_read().is_none() && LOCK.try_write().is_none());
    });
    assert_eq!(given_up, Stop::Finished);
}

/// A lock with a lock inside, as those have that keep a queue: who dies with that held, leaves a
/// lock that lets nobody in.
struct Queued {
    busy: AtomicBool,
    readers: AtomicU64,
}

impl Queued {
    const WRITER: u64 = u64::MAX;

    /// Changes the readers under the lock inside; another task gets a turn meanwhile.
    fn change(&self, change: impl FnOnce(u64) -> Option<u64>) -> bool {
        if self.busy.swap(true, Ordering::Acquire) {
            return false;
        }
        yield_now();
        let readers = self.readers.load(Ordering::Relaxed);
        let changed = change(readers);
        self.readers.store(changed.unwrap_or(readers), Ordering::Relaxed);
        self.busy.store(false, Ordering::Release);
        changed.is_some()
    }
}

#[expect(unsafe_code, reason = "implements a lock")]
// SAFETY: one writer, or readers: their number is changed under the lock inside.
unsafe impl lock_api::RawRwLock for Queued {
    const INIT: Self = Self { busy: AtomicBool::new(false), readers: AtomicU64::new(0) };
    type GuardMarker = GuardSend;

    fn lock_shared(&self) {
        panic!("waits");
    }

    fn try_lock_shared(&self) -> bool {
        self.change(|readers| (readers != Self::WRITER).then(|| readers + 1))
    }

    unsafe fn unlock_shared(&self) {
        assert!(self.change(|readers| Some(readers - 1)));
    }

    fn lock_exclusive(&self) {
        panic!("waits");
    }

    fn try_lock_exclusive(&self) -> bool {
        self.change(|readers| (readers == 0).then_some(Self::WRITER))
    }

    unsafe fn unlock_exclusive(&self) {
        assert!(self.change(|_| Some(0)));
    }
}

#[test]
fn who_dies_in_a_foreign_lock_s_own_lock_keeps_others_out_and_nobody_waiting() {
    type Untrusted = RwLock<TrackedRawRwLock<Queued, Hosted>, u64>;
    static LOCK: Untrusted = Untrusted::new(1);
    let mut machine = Machine::new();
    let reader = machine.spawn(|| assert_eq!(*LOCK.read(), 1));
    for _ in 0..2 {
        assert_eq!(machine.run(reader, None), Stop::Yielded);
    }
    assert_eq!(machine.run(reader, None), Stop::Finished);
    let settled = kill(&mut machine, || drop(LOCK.read()));
    assert_eq!(settled, 1);
    let refused = run(&mut machine, || {
        assert!(LOCK.try_read().is_none() && LOCK.try_write().is_none());
    });
    assert_eq!(refused, Stop::Finished);
    assert!(ends_the_program(&mut machine, || drop(LOCK.read())));
    assert!(ends_the_program(&mut machine, || drop(LOCK.write())));
    assert!(!LOCK.is_locked());
}

/// Destroys a lock, after a task has died with it, in a program of its own.
fn is_destroyed<M: Send + Sync + 'static>(
    lock: M,
    hold: fn(&'static M),
    after: fn(&'static M),
    destroy: fn(M),
) -> bool {
    let mut machine = Machine::new();
    let shared: &'static M = Box::leak(Box::new(lock));
    kill(&mut machine, move || hold(shared));
    run(&mut machine, move || after(shared));
    #[expect(unsafe_code, reason = "takes a leaked lock back")]
    // SAFETY: nobody uses it any more, and what it is moved from is leaked.
    !ends_the_program(&mut machine, move || destroy(unsafe { std::ptr::read(shared) }))
}

#[test]
fn a_lock_whose_value_may_be_torn_is_not_destroyed() {
    let hold = |lock: &'static Ours<u64>| {
        let _held = lock.lock();
        yield_now();
    };
    let recover = |lock: &'static Ours<u64>| {
        let Err(LockError::OwnerDied(died)) = drop_registry::lock_api::lock(lock) else { return };
        drop(died.replace(5));
    };
    let give_up = |lock: &'static Ours<u64>| drop(drop_registry::lock_api::lock(lock));
    let give_out = |lock: Ours<u64>| _ = lock.into_inner();
    assert!(!is_destroyed(Ours::new(1), hold, |_| (), drop));
    assert!(!is_destroyed(Ours::new(1), hold, |_| (), give_out));
    assert!(!is_destroyed(Ours::new(1), hold, give_up, drop));
    assert!(is_destroyed(Ours::new(1), hold, recover, drop));
    assert!(is_destroyed(Ours::new(1), |_| yield_now(), |_| (), give_out));

    let write = |lock: &'static ReadWrite| {
        let _held = lock.write();
        yield_now();
    };
    let read = |lock: &'static ReadWrite| {
        let _held = lock.read();
        yield_now();
    };
    assert!(!is_destroyed(ReadWrite::new(1), write, |_| (), drop));
    assert!(!is_destroyed(ReadWrite::new(1), read, |_| (), drop));
    assert!(is_destroyed(ReadWrite::new(1), |_| yield_now(), |_| (), drop));
}

#[test]
fn a_dead_owner_s_spin_lock_is_left_to_whoever_recovers_the_value() {
    static LOCK: Tracked<u64> = Tracked::new(1);
    let mut machine = Machine::new();
    assert_eq!(run(&mut machine, || *LOCK.lock() += 1), Stop::Finished);
    die_with(&mut machine, || LOCK.lock());
    assert_eq!(run(&mut machine, || assert!(LOCK.try_lock().is_none())), Stop::Finished);
    assert!(ends_the_program(&mut machine, || drop(LOCK.lock())));
    let recovered = run(&mut machine, || {
        let Err(LockError::OwnerDied(died)) = drop_registry::lock_api::lock_tracked(&LOCK) else {
            panic!("not told");
        };
        drop(died.replace(7));
        assert_eq!(*LOCK.lock(), 7);
    });
    assert_eq!(recovered, Stop::Finished);
}

/// Memory for an allocator to claim.
#[repr(align(16))]
struct Arena(UnsafeCell<[u8; 1 << 16]>);
#[expect(unsafe_code, reason = "lends memory to an allocator")]
// SAFETY: the allocator alone uses it.
unsafe impl Sync for Arena {}

/// Allocates, kills a task that holds the allocator's lock, and looks how it is refused.
#[expect(unsafe_code, reason = "calls an allocator")]
fn allocator<R: lock_api::RawMutex + Send + Sync + 'static>(arena: &'static Arena) {
    // SAFETY: nothing else uses the arena.
    let claim = unsafe { Claim::array(arena.0.get()) };
    let talc: &'static TalcLock<R, Claim, DefaultBinning> =
        Box::leak(Box::new(TalcLock::new(claim)));
    let mut machine = Machine::new();
    let allocated = run(&mut machine, || {
        let layout = Layout::new::<[u64; 4]>();
        // SAFETY: the block is written to within its layout, and given back once.
        unsafe {
            let block = talc.alloc(layout);
            assert!(!block.is_null());
            block.write_bytes(7, layout.size());
            talc.dealloc(block, layout);
        }
    });
    assert_eq!(allocated, Stop::Finished);
    let settled = die_with(&mut machine, || talc.lock());
    assert_eq!(settled, 1);
    // The allocator's lists may be torn: it is closed, and says so.
    assert_eq!(run(&mut machine, || assert!(talc.try_lock().is_none())), Stop::Finished);
    assert!(ends_the_program(&mut machine, || drop(talc.lock())));
}

#[test]
fn an_allocator_takes_our_lock_and_is_closed_by_a_death_inside_it() {
    static ARENA: Arena = Arena(UnsafeCell::new([0; 1 << 16]));
    allocator::<RawMutex<Hosted>>(&ARENA);
}

#[test]
fn an_allocator_takes_a_tracked_spin_lock_and_is_closed_by_a_death_inside_it() {
    static ARENA: Arena = Arena(UnsafeCell::new([0; 1 << 16]));
    allocator::<TrackedRawMutex<Spin, Hosted>>(&ARENA);
}
