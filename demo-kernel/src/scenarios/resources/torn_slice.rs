//! The seed's `modify_slice`: a pointer and a length, written one after the other.
#![expect(unsafe_code, reason = "tears a value on purpose, and looks at the pieces")]

use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};

use drop_registry::{LockError, OwnerDied};

use crate::scenarios::{Scenario, Stage, deaths};
use crate::tasks;
use crate::tracked::{Mutex, MutexGuard};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "torn-slice",
    summary: "a fault between the two words of a slice; nobody ever takes the torn value for good",
    ..Scenario::kept(run)
};

static LONG: [u32; 3] = [1, 2, 3];
static SHORT: [u32; 1] = [9];

/// A slice whose destructor looks at it: what it must never do with a torn one.
struct Watched(&'static [u32]);

static LOOKED_AT_TORN: AtomicU64 = AtomicU64::new(0);

impl Watched {
    fn is_whole(&self) -> bool {
        (self.0.as_ptr() == LONG.as_ptr() && self.0.len() == LONG.len())
            || (self.0.as_ptr() == SHORT.as_ptr() && self.0.len() == SHORT.len())
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        LOOKED_AT_TORN.fetch_add(u64::from(!self.is_whole()), Ordering::Relaxed);
    }
}

static SLICE: Mutex<Watched> = Mutex::new(Watched(&LONG));

/// Writes the pointer of the new slice, and dies before the length.
fn tearing(_: usize) {
    let Ok(mut watched) = SLICE.lock() else { return };
    // SAFETY: the first word of a slice reference is its pointer, as `run` checks from outside.
    // Nobody looks at the reference before the task is dead: the lock is held.
    unsafe {
        asm!(
            "mov [{slice}], {pointer}",
            slice = in(reg) &raw mut watched.0,
            pointer = in(reg) SHORT.as_ptr(),
        );
    }
    deaths::page_fault();
}

static WHOLE_READS: AtomicU64 = AtomicU64::new(0);
static TOLD: AtomicU64 = AtomicU64::new(0);

/// Reads the value over and over, as long as it is handed out as good.
fn reading(_: usize) {
    loop {
        match SLICE.lock() {
            Ok(watched) => {
                let (whole, torn) = if watched.is_whole() { (1, 0) } else { (0, 1) };
                WHOLE_READS.fetch_add(whole, Ordering::Relaxed);
                LOOKED_AT_TORN.fetch_add(torn, Ordering::Relaxed);
            }
            Err(LockError::OwnerDied(died)) => {
                TOLD.fetch_add(1, Ordering::Relaxed);
                TORN.store(u64::from(is_torn(died)), Ordering::Relaxed);
                return;
            }
            Err(_) => return,
        }
        tasks::yield_now();
    }
}

static TORN: AtomicU64 = AtomicU64::new(0);

/// Whether the two words in memory are the new pointer and the old length; puts a good slice there.
fn is_torn(mut died: OwnerDied<MutexGuard<'_, Watched>>) -> bool {
    let words = died.as_mut_ptr().cast::<[usize; 2]>();
    // SAFETY: the lock is held, and two words of any value are two numbers.
    let [pointer, length] = unsafe { words.read() };
    drop(died.replace(Watched(&SHORT)));
    pointer == SHORT.as_ptr().addr() && length == LONG.len()
}

fn run(stage: &mut Stage) {
    let reader = stage.spawn("reading", reading);
    stage.wait_for("a reader reads", || WHOLE_READS.load(Ordering::Relaxed) > 0);
    let dying = stage.spawn("tearing", tearing);
    stage.report_on(dying);
    stage.wait_for_end_of(reader);
    stage.check("the value in memory was torn", TORN.load(Ordering::Relaxed) == 1);
    stage.check("the reader was told", TOLD.load(Ordering::Relaxed) == 1);
    stage.check("nobody looked at the torn value", LOOKED_AT_TORN.load(Ordering::Relaxed) == 0);
    let good = SLICE.lock().is_ok_and(|watched| watched.0 == SHORT);
    stage.check("the lock now guards what it was replaced with", good);
}
