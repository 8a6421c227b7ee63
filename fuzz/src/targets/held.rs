//! What a ledger can list: locks of each kind, and blocks of a heap, whose every word can be
//! written over.
#![expect(unsafe_code, reason = "writes over locks, ledgers and blocks")]

use core::cell::{Cell, RefCell};
use core::mem::offset_of;
use core::ops::Range;
use core::ptr::{self, NonNull};
use core::slice;
use std::alloc::{GlobalAlloc, Layout};

use drop_registry::hosted::Image;
use drop_registry::lock_api::{RawMutex, RawRwLock, TrackedRawMutex};
use drop_registry::{
    Channel, CurrentLedger, Domain, DropAfterTear, Entry, Heap, HeapMemory, Ledger, Mutex,
    Obligation, Once, Park, Parker, RepairMutex, ResourceKind, RollbackMutex, RwLock, Semaphore,
    Shared, Slot, TrackedBox, TrackedHeap, Undo, WaitQueue, WindowTable,
};
use std::sync::atomic::{AtomicU64, Ordering};

/// Fewer than a wait queue has room for, so that it has bits which are no task's.
pub(super) const TASKS: usize = 20;
/// Bytes on either side of the locks, which nobody may write.
pub(super) const GUARD: usize = 128;

const CANARY: u8 = 0xa5;
const BLOCKS: usize = 6;
/// What the addresses of boxes are marked with in ledgers.
const BOX_MARK: u64 = 1 << 62;
/// Of each block, how many words are written over.
const WORDS_OF_BLOCK: usize = 5;
pub(super) const BLOCK_WORDS: usize = BLOCKS * WORDS_OF_BLOCK;
pub(super) const LOCK_WORDS: usize = size_of::<Locks>() / 8;
const LEDGER_WORDS: usize = size_of::<Ledger>() / 8;
/// Which of the locks' words is the address of the repair mutex's routine: the last one of that. As
/// with a function in a constant, nothing could tell whether another one is a routine.
const ROUTINE_WORD: usize = (offset_of!(Locks, repair) + size_of::<Repairable>()) / 8 - 1;

/// The context of all that is listed.
pub(super) struct Fuzzed;

thread_local! {
    static CURRENT: Cell<&'static Ledger> = Cell::new(Box::leak(Box::default()));
    static NUMBER: Cell<usize> = const { Cell::new(0) };
    static DROPS: Cell<usize> = const { Cell::new(0) };
    static HEAP: &'static Heap = {
        let memory: &'static HeapMemory<4> = Box::leak(Box::new(HeapMemory::new()));
        Box::leak(Box::new(Heap::new(memory)))
    };
    static HELD: RefCell<Held> = RefCell::new(Held::new());
}

// SAFETY: each thread has one ledger, for ever.
unsafe impl CurrentLedger for Fuzzed {
    fn current() -> NonNull<Ledger> {
        NonNull::from(CURRENT.get())
    }
}

impl TrackedHeap for Fuzzed {
    fn heap() -> &'static Heap {
        HEAP.with(|heap| *heap)
    }
}

// SAFETY: nobody sleeps.
unsafe impl Parker for Fuzzed {
    const TASKS: usize = TASKS;

    fn index(_: &Ledger) -> usize {
        NUMBER.get()
    }

    fn park() {}

    fn unpark(index: usize) {
        assert!(index < TASKS, "task {index} was unparked, which there cannot be");
    }
}

/// A value that can be dropped whatever it holds.
struct Value(#[expect(dead_code, reason = "a value has bytes")] u64);

impl Drop for Value {
    fn drop(&mut self) {
        DROPS.set(DROPS.get() + 1);
    }
}

// SAFETY: its destructor does not look at it.
unsafe impl DropAfterTear for Value {}

struct Flag(AtomicU64);

// SAFETY: one store, however often.
unsafe impl Undo for Flag {
    fn undo(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

type Repairable = RepairMutex<u64, Fuzzed, Park>;

/// Every word of these may be anything, but for the address of a routine.
#[repr(C, align(64))]
struct Locks {
    spinning: Mutex<u64, Fuzzed>,
    sleeping: Mutex<u64, Fuzzed, Park>,
    rwlock: RwLock<u64, Fuzzed>,
    sleeping_rwlock: RwLock<u64, Fuzzed, Park>,
    rollback: RollbackMutex<u64, Fuzzed, Park>,
    permits: Semaphore<Fuzzed>,
    waiters: WaitQueue<Fuzzed>,
    flag: Flag,
    repair: Repairable,
    once: Once<u64, Fuzzed>,
    sleeping_once: Once<u64, Fuzzed, Park>,
    many_waiters: WaitQueue<Fuzzed, 2>,
    sleeping_many: Mutex<u64, Fuzzed, Park<2>>,
    channel: Channel<Shared<Value, Fuzzed>, 2, Park>,
    slot: Slot<TrackedBox<Value, Fuzzed>>,
    lock_api: lock_api::Mutex<RawMutex<Fuzzed, Park>, u64>,
    lock_api_rwlock: lock_api::RwLock<RawRwLock<Fuzzed, Park>, u64>,
    foreign: lock_api::Mutex<TrackedRawMutex<spin::Mutex<()>, Fuzzed>, u64>,
}

impl Locks {
    const fn new() -> Self {
        Self {
            spinning: Mutex::new(0),
            sleeping: Mutex::new(0),
            rwlock: RwLock::new(0),
            sleeping_rwlock: RwLock::new(0),
            rollback: RollbackMutex::new(0),
            permits: Semaphore::new(1),
            waiters: WaitQueue::new(),
            flag: Flag(AtomicU64::new(0)),
            repair: RepairMutex::new(0, |died| Some(died.replace(0))),
            once: Once::new(),
            sleeping_once: Once::new(),
            many_waiters: WaitQueue::new(),
            sleeping_many: Mutex::new(0),
            channel: Channel::new(),
            slot: Slot::new(),
            lock_api: lock_api::Mutex::new(0),
            lock_api_rwlock: lock_api::RwLock::new(0),
            foreign: lock_api::Mutex::new(0),
        }
    }
}

/// The locks between two guards.
#[repr(C, align(64))]
struct Guarded {
    before: [u8; GUARD],
    locks: Locks,
    after: [u8; GUARD],
}

/// Words that mean something.
pub(super) struct Sample {
    pub(super) resources: Vec<u64>,
    pub(super) operations: Vec<u64>,
    /// Addresses at which a window begins.
    pub(super) windows: Vec<u64>,
    pub(super) objects: u64,
    pub(super) ledger: u64,
}

pub(super) struct Held {
    objects: NonNull<Guarded>,
    ledger: NonNull<Ledger>,
    blocks: [*mut u8; BLOCKS],
    sample: Sample,
    /// Where the repair mutex is listed to be.
    repair: u64,
    constants: Vec<Range<u64>>,
    data: Range<u64>,
}

pub(super) fn with(body: impl FnOnce(&mut Held)) {
    HELD.with_borrow_mut(body);
}

/// The size of a block that has room for a share.
const BLOCK: Layout = Layout::new::<[u64; 6]>();

impl Held {
    fn new() -> Self {
        let (before, after) = ([CANARY; GUARD], [CANARY; GUARD]);
        let objects = Box::leak(Box::new(Guarded { before, locks: Locks::new(), after }));
        let ledger: &'static Ledger = Box::leak(Box::default());
        let mut sample = Sample {
            resources: Vec::new(),
            operations: Vec::new(),
            windows: windows(),
            objects: ptr::from_ref(objects).expose_provenance() as u64 + GUARD as u64,
            ledger: ptr::from_ref(ledger).expose_provenance() as u64,
        };
        let start = sample.objects;
        let data = start..start + size_of::<Locks>() as u64;
        let objects = NonNull::from(objects);
        // SAFETY: leaked, and used through `Held` alone.
        let locks: &'static Locks = unsafe { &(*objects.as_ptr()).locks };
        sample.look_at(locks);
        let repair = listed(&locks.repair);
        let constants = Image::running().constants().collect();
        let (ledger, blocks) = (NonNull::from(ledger), [ptr::null_mut(); BLOCKS]);
        let mut held = Self { objects, ledger, blocks, sample, repair, constants, data };
        // The blocks are the same in every run.
        held.begin(0);
        for block in held.blocks {
            let address = block.expose_provenance() as u64;
            held.sample.resources.extend([address, address ^ BOX_MARK]);
        }
        held
    }

    pub(super) fn sample(&self) -> &Sample {
        &self.sample
    }

    pub(super) fn ledger(&self) -> &'static Ledger {
        // SAFETY: leaked, and made of words that may be anything.
        unsafe { self.ledger.as_ref() }
    }

    pub(super) fn domain(&self) -> Domain<'_> {
        // SAFETY: the constants of this program; and the locks, which are there for ever.
        unsafe { Domain::new(WindowTable::linked(), &self.constants, slice::from_ref(&self.data)) }
    }

    /// Everything as it is when nobody holds anything, but for the blocks, which are taken.
    pub(super) fn begin(&mut self, number: usize) {
        NUMBER.set(number % (TASKS + 2));
        DROPS.set(0);
        // SAFETY: nobody else has the locks or the ledger, and both are whole again afterwards.
        // What was there needs no drop.
        unsafe {
            (&raw mut (*self.objects.as_ptr()).locks).write(Locks::new());
            self.ledger.write(Ledger::new());
        }
        for block in self.blocks {
            if !block.is_null() {
                // SAFETY: taken by the last run, and nobody's. Given back already, it stays so.
                unsafe { Fuzzed::heap().dealloc(block, BLOCK) };
            }
        }
        for block in &mut self.blocks {
            // SAFETY: the layout is not empty.
            *block = unsafe { Fuzzed::heap().alloc(BLOCK) };
            assert!(!block.is_null(), "a block was given to two");
            // SAFETY: a new block.
            unsafe { block.cast::<[u64; 6]>().write([1, 0, 0, 0, 0, 0]) };
        }
    }

    /// Writes over a word: of the ledger, the locks, or the blocks, in this order.
    pub(super) fn write(&mut self, n: usize, word: u64) {
        let locks = n.checked_sub(LEDGER_WORDS);
        let blocks = locks.and_then(|n| n.checked_sub(LOCK_WORDS));
        // SAFETY: each stays inside its object, all of whose words may be anything, and which
        // nobody uses now.
        unsafe {
            let place: *mut u64 = match (locks, blocks) {
                (None, _) => self.ledger.as_ptr().cast::<u64>().add(n),
                (Some(ROUTINE_WORD), None) => return,
                (Some(n), None) => (&raw mut (*self.objects.as_ptr()).locks).cast::<u64>().add(n),
                (_, Some(n)) => {
                    self.blocks[n / WORDS_OF_BLOCK].cast::<u64>().add(n % WORDS_OF_BLOCK)
                }
            };
            place.write_volatile(word);
        }
    }

    /// Makes each entry that says that it is the repair mutex's tell the truth. Where there is
    /// none, whatever stands in the place of its routine would be called: of what lies about a
    /// resource in the right kind of memory, this alone is not borne.
    pub(super) fn find_repair_mutex(&self) {
        let (resource, domain) = (self.repair, self.domain());
        // Of what is left to be reclaimed, this alone is a mutex.
        let kind = |entry: &Entry| domain.operations(entry).map(|operations| operations.kind);
        let is_its = |entry: &&Entry| kind(entry) == Some(ResourceKind::Mutex);
        for entry in self.ledger().held().filter(is_its) {
            // SAFETY: an entry is atomic words, of which the first is its resource.
            unsafe { &*ptr::from_ref(entry).cast::<AtomicU64>() }
                .store(resource, Ordering::Relaxed);
        }
    }

    /// What must be so after any settlement.
    pub(super) fn check(&self) {
        // SAFETY: the guards are plain bytes.
        let (before, after) =
            unsafe { (&(*self.objects.as_ptr()).before, &(*self.objects.as_ptr()).after) };
        let whole = before.iter().chain(after).all(|byte| *byte == CANARY);
        assert!(whole, "something was written beside the locks");
        assert!(DROPS.get() <= BLOCKS, "{} values of {BLOCKS} blocks were dropped", DROPS.get());
    }
}

impl Sample {
    /// Holds one of everything, and notes how it is listed.
    fn look_at(&mut self, locks: &'static Locks) {
        NUMBER.set(0);
        self.resources.push(self.ledger);
        self.see(|| locks.spinning.lock());
        self.see(|| locks.sleeping.lock());
        self.see(|| (locks.rwlock.read(), locks.sleeping_rwlock.read()));
        self.see(|| (locks.rwlock.write(), locks.sleeping_rwlock.write()));
        self.see(|| locks.rollback.lock());
        self.see(|| locks.permits.acquire());
        self.see(|| Obligation::<_, Fuzzed>::new(&locks.flag));
        self.see(|| Shared::<u64, Fuzzed>::new(1));
        self.see(|| Shared::<Value, Fuzzed>::new_droppable(Value(1)));
        self.see(|| TrackedBox::<u64, Fuzzed>::new(1));
        self.see(|| TrackedBox::<Value, Fuzzed>::new_droppable(Value(1)));
        self.see_queue(&locks.waiters);
        self.see_queue(&locks.many_waiters);
        self.see(|| locks.repair.lock());
        self.see(|| locks.sleeping_many.lock());
        self.see(|| (locks.lock_api.lock(), locks.foreign.lock()));
        self.see(|| locks.lock_api_rwlock.read());
        self.see(|| locks.lock_api_rwlock.write());
        let made = locks.once.call_once(|| self.note_value());
        made.expect("nobody makes it yet");
        let made = locks.sleeping_once.call_once(|| self.note_value());
        made.expect("nobody makes it yet");
        self.see(|| locks.slot.put(TrackedBox::new_droppable(Value(1)).expect("room on the heap")));
        self.see(|| {
            let sent = Shared::new_droppable(Value(1)).expect("room on the heap");
            assert!(locks.channel.send(sent).is_ok(), "room in the channel");
            locks.channel.recv().expect("room in the ledger")
        });
        let blocks = self.resources.iter().filter(|it| **it & BOX_MARK != 0).count();
        assert!(blocks > 0, "boxes are marked");
    }

    fn see_queue<const WORDS: usize>(&mut self, queue: &WaitQueue<Fuzzed, WORDS>) {
        let waited = queue.wait_until(|| {
            self.note(CURRENT.get());
            Some(Ok::<_, drop_registry::LedgerFull>(()))
        });
        waited.expect("room in the ledger");
        queue.wake_one_after(|| self.note(CURRENT.get())).expect("room in the ledger");
        queue.wake_all_after(|| self.note(CURRENT.get())).expect("room in the ledger");
    }

    /// Makes a value, and notes how that is listed meanwhile.
    fn note_value(&mut self) -> u64 {
        self.note(CURRENT.get());
        0
    }

    fn see<T>(&mut self, hold: impl FnOnce() -> T) {
        let held = hold();
        self.note(CURRENT.get());
        drop(held);
    }

    fn note(&mut self, ledger: &Ledger) {
        for entry in ledger.held() {
            self.operations.push(entry.operations().expose_provenance() as u64);
            self.resources.push(entry.resource().addr() as u64);
        }
    }
}

/// How the repair mutex is listed while it is held.
fn listed(lock: &'static Repairable) -> u64 {
    let _held = lock.lock();
    let ledger = CURRENT.get();
    ledger.held().next().expect("the lock is listed").resource().addr() as u64
}

/// The addresses at which the windows of this program begin: the first field of each record, which
/// is relative to itself.
fn windows() -> Vec<u64> {
    unsafe extern "C" {
        static __start_drop_windows: [i32; 5];
        static __stop_drop_windows: [i32; 5];
    }
    let (start, stop) = (&raw const __start_drop_windows, &raw const __stop_drop_windows);
    let len = (stop.addr() - start.addr()) / size_of::<[i32; 5]>();
    // SAFETY: the linker's bounds of a section of such records.
    let records = unsafe { slice::from_raw_parts(start, len) };
    let commit = |record: &[i32; 5]| {
        (ptr::from_ref(&record[0]).addr() as u64).wrapping_add_signed(record[0].into())
    };
    records.iter().map(commit).collect()
}
