//! The task's side of a recovery point.

use core::fmt;
use core::marker::PhantomData;
use core::mem::{ManuallyDrop, MaybeUninit};

use task_model::FaultInfo;

use super::POINT;
use super::point::Point;
use crate::arch::{self, SavedWords};
use crate::{CurrentLedger, LedgerFull, OwnLedger};

/// Why [`catch_fault`] has no value to return.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The body stopped at this, and the task's keeper has ruled that the task goes on.
    Stopped(FaultInfo),
    /// The body was not called: there is no room in the ledger for a recovery point.
    LedgerFull(LedgerFull),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stopped(fault) => fault.fmt(f),
            Self::LedgerFull(full) => full.fmt(f),
        }
    }
}

impl core::error::Error for Fault {}

/// Calls `body` inside a recovery point: if it faults, panics, or is killed, and the task's keeper
/// rules *recover*, the call returns what happened.
///
/// The body's frames are cut where they stand, without their destructors. What they held is given
/// up like a dead task's: locks are free and their next owners told, counts go down, boxes are
/// freed. What the task held before stays held. Points nest; the innermost counts.
///
/// A panic that unwinds (in a hosted test) unwinds up to the point, and the task stops there.
///
/// ```
/// # use core::ptr::NonNull;
/// # use drop_registry::{CurrentLedger, Ledger};
/// # struct Kernel;
/// # static LEDGER: Ledger = Ledger::new();
/// # // SAFETY: one task, one ledger.
/// # unsafe impl CurrentLedger for Kernel {
/// #     fn current() -> NonNull<Ledger> { NonNull::from(&LEDGER) }
/// # }
/// use drop_registry::{Fault, Mutex, catch_fault};
///
/// static CACHE: Mutex<u64, Kernel> = Mutex::new(0);
///
/// fn probe(device: *const u64) -> Result<u64, Fault> {
///     // SAFETY: the body changes nothing but the cache, whose lock tells of a death; the guard is
///     // dropped in it; nothing on its stack is lent to anybody.
///     unsafe {
///         catch_fault::<Kernel, _>(|| {
///             let mut cache = CACHE.lock().expect("nobody died");
///             // May fault, if there is no such device.
///             *cache = device.read_volatile();
///             *cache
///         })
///     }
/// }
///
/// assert_eq!(probe(&7), Ok(7));
/// ```
///
/// # Errors
/// [`Fault::Stopped`] after a recovery; [`Fault::LedgerFull`] if there is no room for a point.
///
/// # Safety
/// The body may be cut off before any of its instructions, and the program goes on as if it had
/// leaked all that its frames owned and returned. So, for each of these:
/// - **What it writes** to, and others use afterwards, may be half-written. It must be sound to use
///   then: behind a lock of this crate's own types that the body takes itself (not one in
///   `lock_api`'s hands, whose `get_mut` does not ask it), or a type that is valid for all bit
///   patterns, or never used again after an `Err`.
/// - **What it acquires** from this crate (guards, shares, boxes, obligations) it does not put
///   where it outlives the body, but for what the body returns: after an `Err` that is not held any
///   more. That includes a guard from before that is unlocked and locked again, as by a condition
///   variable.
/// - **What was acquired before** it does not let go of. (A handle that was moved into it is
///   leaked by an `Err`; one whose release was cut off in the middle may wake nobody.)
/// - **What lies in its frames** is lent to nobody who may use it after an `Err`: no scoped
///   threads, no pinned nodes of a list, no buffer of a device. The stack is used again at once.
/// - **What it owns and is not tracked** is leaked, a foreign lock stays locked, and unsafe code
///   whose soundness is restored by a destructor stays without that.
///
/// There is no safe variant, since no bound says this of a closure: with `Send + 'static` it can
/// take and return no guard, but it can still call safe code that lends what lies on its own stack,
/// such as scoped threads.
pub unsafe fn catch_fault<L: CurrentLedger, T>(body: impl FnOnce() -> T) -> Result<T, Fault> {
    catch::<L, _, T>(body)
}

/// A call of `catch_fault`, as it lies in its frame.
#[repr(C)]
struct Call<L, F, T> {
    /// First, since `arch::enter` passes this on.
    point: Point,
    /// Not dropped here: the body is called with it, and may be cut off.
    body: ManuallyDrop<F>,
    /// Written when the body has returned.
    outcome: MaybeUninit<Result<T, LedgerFull>>,
    context: PhantomData<L>,
}

fn catch<L: CurrentLedger, F: FnOnce() -> T, T>(body: F) -> Result<T, Fault> {
    let mut call = Call::<L, F, T> {
        point: Point::new(),
        body: ManuallyDrop::new(body),
        outcome: MaybeUninit::uninit(),
        context: PhantomData,
    };
    // SAFETY: `call` begins with the words, and is what `run` of these types wants.
    let landed = unsafe { arch::enter((&raw mut call).cast(), run::<L, F, T>) } != 0;
    if !landed {
        // SAFETY: `run` has returned, and writes it before.
        return unsafe { call.outcome.assume_init() }.map_err(Fault::LedgerFull);
    }
    let ledger = OwnLedger::<L>::current();
    if let Some(entry) = ledger.find((&raw const call.point).cast()) {
        ledger.cut_at(entry);
    }
    // SAFETY: the keeper has written it before it let the task come here.
    Err(Fault::Stopped(unsafe { call.point.fault() }))
}

/// Calls the body, while the ledger lists the point.
///
/// # Safety
/// `saved` is the beginning of a `Call` of these types, with the registers saved; once.
unsafe extern "C-unwind" fn run<L: CurrentLedger, F: FnOnce() -> T, T>(saved: *mut SavedWords) {
    // SAFETY: by the contract. The caller does not touch it until this returns; and the keeper,
    // which may do so before, makes it return nowhere but there.
    let call = unsafe { &mut *saved.cast::<Call<L, F, T>>() };
    let ledger = OwnLedger::<L>::current();
    // SAFETY: once.
    let body = unsafe { ManuallyDrop::take(&mut call.body) };
    call.point.seal(ledger.waiting());
    let listed = Listed { ledger, point: &raw mut call.point };
    let frame = listed.point.addr() as u64;
    // SAFETY: the point is complete, and lies there until the entry is gone: `Listed`.
    if let Err(full) = unsafe { ledger.record(listed.point.cast(), &POINT, frame) } {
        call.outcome.write(Err(full));
        return;
    }
    let value = call_to_its_end(body);
    drop(listed);
    call.outcome.write(Ok(value));
}

/// Takes the entry away when the body returns or unwinds.
struct Listed<'l, L: CurrentLedger> {
    ledger: OwnLedger<'l, L>,
    point: *mut Point,
}

impl<L: CurrentLedger> Drop for Listed<'_, L> {
    fn drop(&mut self) {
        forget(self.ledger, self.point);
    }
}

/// Takes the point's entry away, if there is one.
fn forget<L: CurrentLedger>(ledger: OwnLedger<'_, L>, point: *mut Point) {
    let point = point.cast_const().cast();
    match ledger.top(point) {
        // SAFETY: it lists the point, which is not needed any more.
        Some(last) => unsafe { ledger.pop(last) },
        // What the body returns is above it.
        None => {
            if let Some(entry) = ledger.find(point) {
                entry.erase();
                ledger.trim();
            }
        }
    }
}

/// Calls `body`. In a hosted task a panic stops the task here, as a kernel's panic handler would.
fn call_to_its_end<T>(body: impl FnOnce() -> T) -> T {
    #[cfg(all(any(test, feature = "hosted"), target_os = "linux", target_arch = "x86_64"))]
    return crate::hosted::stop_at_panic(body);
    #[cfg(not(all(any(test, feature = "hosted"), target_os = "linux", target_arch = "x86_64")))]
    body()
}

const _: () = assert!(core::mem::offset_of!(Call<(), (), ()>, point) == 0);
