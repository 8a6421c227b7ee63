//! Putting a dead task's resources in order, from outside.
//!
//! Two steps. [`settle`] runs in the fault path: it completes the ledger from the frozen
//! registers, then gives up locks and counts, innermost first. What nobody holds any more but
//! still owns memory stays in the ledger, as orphaned, for [`reclaim`], which may lock and free.
//!
//! Both may stop at any instruction, and be called again from the start: an entry is erased in
//! the same window in which its resource is given up, so the ledger itself says how far they came.
#![expect(unsafe_code, reason = "calls the operations")]

use core::sync::atomic::{Ordering, compiler_fence};

use task_model::{FrozenTask, RegisterFile};

use crate::ledger::{ENTRY_BYTES, HEADER_BYTES};
use crate::{Entry, Ledger, Operations, Outcome, Pending, ResourceKind, WindowTable};

/// What [`settle`] or [`reclaim`] did about one entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settled {
    /// The entry's number in the ledger, from 0: the same in both steps.
    pub entry: usize,
    /// What kind of resource it is.
    pub kind: ResourceKind,
    /// Its address.
    pub resource: u64,
    /// The stack pointer of the frame that acquired it.
    pub frame: u64,
    /// Whether that frame has returned: the guard was forgotten, or moved out of it.
    pub escaped: bool,
    /// What became of it.
    pub outcome: Outcome,
}

/// The ledger's `resolution` while the task's last window is open.
const UNRESOLVED: u64 = 0;
/// Its value once the ledger is complete. Any other is the index to be recorded or erased, plus 2.
const RESOLVED: u64 = 1;

/// Gives up everything that a dead task holds, innermost first, and tells `each` of it.
///
/// Allocates nothing, takes no lock, waits for nothing; the time is bounded by the capacity of a
/// ledger and the length of the window table.
///
/// # Safety
/// - `task` is frozen for good: it will never execute again, not even after a resume.
/// - `ledger` is its ledger, and nobody else is settling it.
/// - Every resource that the ledger lists is still alive.
pub unsafe fn settle(
    task: &FrozenTask<'_>,
    ledger: &Ledger,
    windows: &WindowTable,
    mut each: impl FnMut(Settled),
) {
    resolve(ledger, windows, task.registers());
    let stack_pointer = task.registers().rsp();
    let stale = if planted!(CopyCounts) { None } else { ledger.moved_entry() };
    for (index, entry) in ledger.used().iter().enumerate().rev() {
        if Some(index) == stale {
            entry.erase();
            continue;
        }
        let Some(operations) = live(entry) else { continue };
        let (resource, frame) = (entry.place().addr() as u64, entry.frame());
        // SAFETY: this function's contract is that of `release`, for each entry.
        let outcome = unsafe { (operations.release)(ledger, entry) };
        each(Settled {
            entry: index,
            kind: operations.kind,
            resource,
            frame,
            escaped: frame < stack_pointer,
            outcome,
        });
    }
}

/// Drops and frees what [`settle`] left orphaned, and tells `each` of it. May allocate and lock.
///
/// # Safety
/// [`settle`] has returned for this ledger, under the same conditions, which still hold.
pub unsafe fn reclaim(ledger: &Ledger, mut each: impl FnMut(Settled)) {
    for (index, entry) in ledger.used().iter().enumerate().rev() {
        let Some(operations) = live(entry) else { continue };
        let (resource, frame) = (entry.place().addr() as u64, entry.frame());
        // SAFETY: an entry that `settle` has not erased is orphaned, which is `reclaim`'s contract.
        let outcome = unsafe { (operations.reclaim)(entry) };
        each(Settled {
            entry: index,
            kind: operations.kind,
            resource,
            frame,
            escaped: false,
            outcome,
        });
        // Told first, erased after: if this dies in between, a quarantine is told of twice, and
        // not forgotten.
        entry.erase();
    }
}

/// Takes over the settlement of `ledger` from a settler that died in the middle of it.
///
/// If it died in a window, the resource has been given up and the entry is still there, or the
/// other way about; this sets it right. Afterwards [`settle`] and [`reclaim`] go on where it
/// stopped. What the settler held itself is settled like any task's.
///
/// # Safety
/// `settler` is frozen for good, and died in [`settle`] or [`reclaim`] of this ledger; the
/// conditions of [`settle`] hold for it.
pub unsafe fn take_over(settler: &FrozenTask<'_>, ledger: &Ledger, windows: &WindowTable) {
    match windows.pending(settler.registers()) {
        _ if planted!(NoTakeOver) => {}
        Some(Pending::Erase { entry }) => {
            if let Some(entry) = own_entry(ledger, entry) {
                entry.erase();
            }
        }
        Some(Pending::Convert { entry, operations }) => convert(ledger, entry, operations),
        // Only a task itself pops its ledger, and settling acquires nothing for the dead.
        Some(Pending::Record { .. } | Pending::Pop { .. } | Pending::EraseListed { .. }) | None => {
        }
    }
}

/// Changes the state of one of this ledger's entries, by what a window's registers held.
fn convert(ledger: &Ledger, entry: u64, operations: u64) {
    if let Some(entry) = own_entry(ledger, entry)
        // SAFETY: the window's register holds what its inputs were: a `&'static Operations`.
        && let Some(operations) = unsafe { pointer::<Operations>(operations).as_ref() }
    {
        entry.convert(operations);
    }
}

/// The operations of an entry that has not been erased.
fn live(entry: &Entry) -> Option<&'static Operations> {
    if entry.resource().is_null() { None } else { entry.operations() }
}

/// Completes the ledger of a task that stopped inside a window: once, however often it is called.
///
/// Nothing is released before it is done, so that doing it again cannot bring an entry back.
fn resolve(ledger: &Ledger, windows: &WindowTable, registers: &RegisterFile) {
    let watermark = ledger.resolution.load(Ordering::Relaxed);
    let watermark = if planted!(NoWatermark) { UNRESOLVED } else { watermark };
    match (watermark, windows.pending(registers)) {
        (RESOLVED, _) | (_, None) => {}
        (_, Some(Pending::Erase { entry })) => {
            if let Some(entry) = own_entry(ledger, entry) {
                entry.erase();
            }
        }
        (_, Some(Pending::Pop { ledger: of })) => {
            // The depth has not gone down yet, and is left alone, so that this may be done again.
            if of == address(ledger)
                && let Some(last) = ledger.used().last()
            {
                last.erase();
            }
        }
        (progress, Some(Pending::EraseListed { resource, ledger: of })) => {
            let lists_it = |entry: &Entry| entry.resource() == pointer(resource);
            let index = match progress {
                UNRESOLVED => ledger.used().iter().rposition(lists_it),
                found => Some(found as usize - 2),
            };
            if of == address(ledger)
                && let Some(index) = index
                && let Some(entry) = ledger.entry(index)
            {
                // Which entry it is is written down first: once it is gone, there may be another.
                set_resolution(ledger, index as u64 + 2);
                entry.erase();
            }
        }
        (_, Some(Pending::Convert { entry, operations })) => {
            convert(ledger, entry, operations);
        }
        (progress, Some(Pending::Record { resource, operations, ledger: into, frame })) => {
            if into == address(ledger) {
                let index = if progress == UNRESOLVED {
                    let used = ledger.depth.load(Ordering::Relaxed).saturating_sub(HEADER_BYTES);
                    used / ENTRY_BYTES
                } else {
                    progress - 2
                };
                // Where the entry goes is written down first: once the depth has grown, it can no
                // longer be told from it.
                set_resolution(ledger, index + 2);
                ledger.complete(index as usize, pointer(resource), pointer(operations), frame);
            }
        }
    }
    set_resolution(ledger, RESOLVED);
}

fn address(ledger: &Ledger) -> u64 {
    core::ptr::from_ref(ledger).addr() as u64
}

fn set_resolution(ledger: &Ledger, value: u64) {
    compiler_fence(Ordering::SeqCst);
    ledger.resolution.store(value, Ordering::Relaxed);
    compiler_fence(Ordering::SeqCst);
}

/// The entry at `address`, if it is one of this ledger's.
fn own_entry(ledger: &Ledger, address: u64) -> Option<&Entry> {
    ledger.entry(ledger.index_of(pointer(address))?)
}

fn pointer<T>(address: u64) -> *mut T {
    core::ptr::with_exposed_provenance_mut(address as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::WindowKind;
    use crate::testing::{NOTHING, frozen};
    use core::ptr::NonNull;
    use core::sync::atomic::AtomicU64;
    use std::vec::Vec;
    use task_model::{Gpr, StackBounds, TaskId};

    fn settle_at(ledger: &Ledger, registers: &mut RegisterFile) -> Vec<Settled> {
        let mut all = Vec::new();
        let stack = StackBounds::new(0x1000, 0x2000, 0).unwrap();
        // SAFETY: nothing runs with these registers, and the stack is never read.
        let task = unsafe { FrozenTask::new(TaskId::first(0), NonNull::from(registers), stack) };
        // SAFETY: the ledger lists `NOTHING`, which may be released at any time.
        unsafe { settle(&task, ledger, &WindowTable::linked(), |settled| all.push(settled)) };
        all
    }

    #[test]
    fn an_empty_ledger_settles_to_nothing() {
        assert!(settle_at(&Ledger::new(), &mut RegisterFile::new()).is_empty());
    }

    #[test]
    fn settling_twice_releases_once() {
        let ledger = Ledger::new();
        // SAFETY: `NOTHING` may list anything.
        unsafe { ledger.record(pointer(8), &NOTHING, 0x1800).unwrap() };
        assert_eq!(settle_at(&ledger, &mut RegisterFile::new()).len(), 1);
        assert!(settle_at(&ledger, &mut RegisterFile::new()).is_empty());
    }

    #[test]
    fn innermost_comes_first_and_returned_frames_are_escaped() {
        let ledger = Ledger::new();
        // SAFETY: `NOTHING` may list anything.
        unsafe {
            ledger.record(pointer(8), &NOTHING, 0x1800).unwrap();
            ledger.record(pointer(16), &NOTHING, 0x1400).unwrap();
        }
        let mut registers = RegisterFile::new();
        registers[Gpr::Rsp] = 0x1600;
        let all = settle_at(&ledger, &mut registers);
        assert_eq!(all.iter().map(|s| s.resource).collect::<Vec<_>>(), [16, 8]);
        assert_eq!(all.iter().map(|s| s.escaped).collect::<Vec<_>>(), [true, false]);
    }

    #[test]
    fn a_window_that_recorded_nothing_yet_is_completed_and_released_once() {
        // The registers of a task that stopped right after the locked instruction of a window
        // that is really there: every register holds the ledger's address but RSP.
        let ledger = Ledger::new();
        // SAFETY: `NOTHING` may list anything.
        unsafe { ledger.record(pointer(8), &NOTHING, 0x1800).unwrap() };
        let mut registers = crate::testing::stopped_in(WindowKind::Record);
        let address = core::ptr::from_ref(&ledger).addr() as u64;
        for register in Gpr::ALL {
            registers[register] = address;
        }
        registers[Gpr::Rsp] = 0x1700;
        let task = frozen(&mut registers);
        resolve(&ledger, &WindowTable::linked(), task.registers());
        assert_eq!(ledger.len(), 2);
        let Some(Pending::Record { frame, .. }) = WindowTable::linked().pending(task.registers())
        else {
            panic!("the window records");
        };
        assert_eq!(ledger.held().next().unwrap().frame(), frame);
        resolve(&ledger, &WindowTable::linked(), task.registers());
        assert_eq!(ledger.len(), 2);
    }

    #[test]
    fn a_release_that_popped_nothing_yet_loses_its_entry_and_no_other() {
        let ledger = Ledger::new();
        // SAFETY: `NOTHING` may list anything.
        unsafe {
            ledger.record(pointer(8), &NOTHING, 0x1800).unwrap();
            ledger.record(pointer(16), &NOTHING, 0x1400).unwrap();
        }
        // SAFETY: nobody holds the word; it makes the window be there.
        unsafe { crate::arch::release_top(&AtomicU64::new(1), 0, &popped_once()) };
        let mut registers = crate::testing::stopped_in(WindowKind::Pop);
        for register in Gpr::ALL {
            registers[register] = address(&ledger);
        }
        for _ in 0..2 {
            // The second time as after the death of a settler who could not say that it was done.
            set_resolution(&ledger, UNRESOLVED);
            resolve(&ledger, &WindowTable::linked(), frozen(&mut registers).registers());
            assert_eq!(ledger.held().map(Entry::resource).collect::<Vec<_>>(), [pointer(8)]);
        }
    }

    #[test]
    fn of_two_entries_for_what_was_released_the_innermost_goes_and_only_that() {
        let ledger = Ledger::new();
        let count = AtomicU64::new(1);
        let lists_it = pointer(address(&ledger));
        // SAFETY: `NOTHING` may list anything; `leave` finds its entry.
        unsafe {
            let other = Ledger::new();
            let listed = other.record(count.as_ptr().cast(), &NOTHING, 0).unwrap();
            assert!(!crate::arch::leave(&count, &other, 512));
            assert!(listed.resource().is_null());
            for resource in [lists_it, lists_it, pointer(8)] {
                ledger.record(resource, &NOTHING, 0x1800).unwrap();
            }
        }
        // Every register holds the ledger's address, so that is the resource, too.
        let mut registers = crate::testing::stopped_in(WindowKind::EraseListed);
        for register in Gpr::ALL {
            registers[register] = address(&ledger);
        }
        resolve(&ledger, &WindowTable::linked(), frozen(&mut registers).registers());
        let held: Vec<_> = ledger.held().map(Entry::resource).collect();
        assert_eq!(held, [pointer(8), lists_it]);
        // The settler died before it could say that it was done.
        set_resolution(&ledger, 1 + 2);
        resolve(&ledger, &WindowTable::linked(), frozen(&mut registers).registers());
        assert_eq!(ledger.len(), 2);
    }

    /// A ledger with an entry to pop.
    fn popped_once() -> Ledger {
        let ledger = Ledger::new();
        // SAFETY: `NOTHING` may list anything.
        unsafe { ledger.record(pointer(8), &NOTHING, 0).unwrap() };
        ledger
    }

    #[test]
    fn a_resolution_that_stopped_half_way_is_finished_in_the_same_place() {
        let ledger = Ledger::new();
        let mut registers = crate::testing::stopped_in(WindowKind::Record);
        let address = core::ptr::from_ref(&ledger).addr() as u64;
        for register in Gpr::ALL {
            registers[register] = address;
        }
        // The settler died after it had counted the entry, before it could say so.
        set_resolution(&ledger, 2);
        ledger.complete(0, pointer(address), pointer(address), 0);
        resolve(&ledger, &WindowTable::linked(), frozen(&mut registers).registers());
        assert_eq!(ledger.len(), 1);
    }
}
