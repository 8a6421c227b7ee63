//! Putting a dead task's resources in order, from outside.
//!
//! Two steps. [`settle`] runs in the fault path: it completes the ledger from the frozen
//! registers, then gives up locks and counts, innermost first. What nobody holds any more but
//! still owns memory stays in the ledger, as orphaned, for [`reclaim`], which may lock and free.
//!
//! Both may stop at any instruction, and be called again from the start: an entry is erased in
//! the same window in which its resource is given up, so the ledger itself says how far they came.
//!
//! And both take whatever they find in the ledger for no more than a claim, which the [`Domain`]
//! looks at first: a ledger that somebody else has written over is refused entry by entry.
#![expect(unsafe_code, reason = "calls the operations")]

use core::sync::atomic::{Ordering, compiler_fence};

use task_model::{FrozenTask, RegisterFile};

use crate::{Domain, Entry, Ledger, Outcome, Pending, ResourceKind};

/// What [`settle`] or [`reclaim`] did about one entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settled {
    /// The entry's number in the ledger, from 0: the same in both steps. [`Ledger::CAPACITY`] for
    /// an entry that a window was about to write, and for which that was no place.
    pub entry: usize,
    /// What kind of resource it is.
    pub kind: ResourceKind,
    /// Its address.
    pub resource: u64,
    /// The stack pointer of the frame that acquired it.
    pub frame: u64,
    /// Whether that frame has returned: the handle was forgotten ([`core::mem::forget`]), or moved
    /// out of it, to the heap or to its caller.
    ///
    /// It is for the report alone. The entry says that the task had the resource, wherever the
    /// handle went: so it is given up like any other, and who must be told is told. It cannot be
    /// somebody else's by then, for a handle leaves its task by a hand-over alone, which takes the
    /// entry with it.
    ///
    /// It is known by the stack pointer: [`frame`](Self::frame) lies below that of the dead task.
    /// - `true`: the frame is gone, if the task had one stack. The frame is the one that this
    ///   crate's functions were inlined into. A wrapper that is not inlined itself is that frame,
    ///   and has returned when its caller uses the handle: so are `lock_api`'s in a build without
    ///   optimisation.
    /// - `false`: the frame is there; or it is gone, and another lies in its place.
    ///
    /// [`reclaim`] says of an entry what [`settle`] said.
    pub escaped: bool,
    /// What became of it.
    pub outcome: Outcome,
}

/// The ledger's `resolution` once the task's last window has been completed.
const RESOLVED: u64 = 1;

/// Gives up everything that a dead task holds, innermost first, and tells `each` of it.
///
/// Allocates nothing, takes no lock, waits for nobody; the steps are bounded by the capacity of a
/// ledger, the length of the window table, and the number of ranges in the domain. A word that
/// other tasks change at that moment (a semaphore's count, the heap's bits, a queue's) is exchanged
/// again if one of them was quicker: that is lock-free, but not bounded by itself.
///
/// A settler that dies between giving a resource up and telling of it has given it up; the report
/// of that one entry is lost. What is refused or quarantined is told of first.
///
/// Nothing but the ledger is touched on the word of an entry that does not fit the domain, be its
/// bytes, and those of the locks, what they may: it is told of as [`Outcome::Refused`].
///
/// # Safety
/// - `task` is frozen for good: it will never execute again, not even after a resume.
/// - `ledger` is its ledger, and nobody else is settling it.
/// - Every resource that the task has put into the ledger is still alive. (An entry that fits the
///   domain, and was put there by a wild write, is believed: see [`Domain`].)
/// - The task's stack is not used again as long as anything may point into it: its frames are cut
///   without running, so what they had lent, or pinned there, is never taken back.
pub unsafe fn settle(
    task: &FrozenTask<'_>,
    ledger: &Ledger,
    domain: &Domain<'_>,
    each: impl FnMut(Settled),
) {
    // SAFETY: this function's contract.
    unsafe { settle_from(0, task, ledger, domain, each) };
}

/// As [`settle`], for the entries from number `first` on.
///
/// # Safety
/// As [`settle`]; but if it is the entry after a recovery point, the task may execute again once
/// that recovery has come to its end.
pub(crate) unsafe fn settle_from(
    first: usize,
    task: &FrozenTask<'_>,
    ledger: &Ledger,
    domain: &Domain<'_>,
    mut each: impl FnMut(Settled),
) {
    let stack_pointer = task.registers().rsp();
    resolve(first, ledger, domain, task.registers(), |resource, frame| {
        each(Settled {
            entry: Ledger::CAPACITY,
            kind: ResourceKind::Unknown,
            resource,
            frame,
            escaped: frame < stack_pointer,
            outcome: Outcome::Refused,
        });
    });
    let stale = if planted!(CopyCounts) { None } else { ledger.moved_entry() };
    if let Some(copy) = stale.and_then(|index| ledger.entry(index)) {
        copy.erase();
    }
    for (index, entry) in ledger.entries().iter().enumerate().skip(first).rev() {
        if entry.is_vacant() {
            continue;
        }
        let (resource, frame) = (entry.place().addr() as u64, entry.frame());
        let escaped = frame < stack_pointer;
        // For `reclaim`, if it stays.
        entry.set_escaped(escaped);
        // SAFETY: this function's contract.
        let (kind, outcome) = unsafe { release(ledger, entry, domain) };
        each(Settled { entry: index, kind, resource, frame, escaped, outcome });
        if outcome == Outcome::Refused {
            // Told first, erased after, as in `reclaim`.
            entry.erase();
        }
    }
}

/// Gives up what `entry` lists, if it is an entry.
///
/// # Safety
/// That of [`settle`]; the entry is one of the ledger's, and has not been erased.
unsafe fn release(ledger: &Ledger, entry: &Entry, domain: &Domain<'_>) -> (ResourceKind, Outcome) {
    let mut kind = ResourceKind::Unknown;
    // Twice, because the last share of a value becomes the duty to destroy that, under operations
    // that are looked at in their turn.
    for _ in 0..2 {
        let Some(operations) = domain.operations(entry) else { break };
        kind = operations.kind;
        // SAFETY: this function's contract is that of `release`, for each entry; and the domain
        // has found operations that are some, and a resource that can be one.
        let outcome = unsafe { (operations.release)(ledger, entry) };
        if outcome != Outcome::Orphaned || entry.has(operations) {
            return (kind, outcome);
        }
    }
    (kind, Outcome::Refused)
}

/// Drops and frees what [`settle`] left orphaned, and tells `each` of it. May allocate and lock.
///
/// # Safety
/// [`settle`] has returned for this ledger, under the same conditions, which still hold.
pub unsafe fn reclaim(ledger: &Ledger, domain: &Domain<'_>, each: impl FnMut(Settled)) {
    // SAFETY: this function's contract.
    unsafe { reclaim_from(0, ledger, domain, each) };
}

/// As [`reclaim`], for the entries from number `first` on.
///
/// # Safety
/// As [`reclaim`], after [`settle_from`].
pub(crate) unsafe fn reclaim_from(
    first: usize,
    ledger: &Ledger,
    domain: &Domain<'_>,
    mut each: impl FnMut(Settled),
) {
    for (index, entry) in ledger.entries().iter().enumerate().skip(first).rev() {
        if entry.is_vacant() {
            continue;
        }
        let (resource, frame) = (entry.place().addr() as u64, entry.frame());
        let (kind, outcome) = match domain.operations(entry) {
            // SAFETY: an entry that `settle` has not erased is orphaned, which is `reclaim`'s
            // contract; and the domain has found operations that are some.
            Some(operations) => (operations.kind, unsafe { (operations.reclaim)(entry) }),
            None => (ResourceKind::Unknown, Outcome::Refused),
        };
        let escaped = entry.is_escaped();
        each(Settled { entry: index, kind, resource, frame, escaped, outcome });
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
/// conditions of [`settle`] hold for it. It is the latest settler to have died in it, and nobody
/// has settled on since: a window that was resolved once must not be resolved again.
pub unsafe fn take_over(settler: &FrozenTask<'_>, ledger: &Ledger, domain: &Domain<'_>) {
    if !planted!(NoTakeOver) {
        // Settling acquires nothing for the dead, and so records nothing in their ledgers.
        change_listed(ledger, domain.windows().pending(settler.registers()));
    }
}

/// Changes one of this ledger's entries as a window was about to: any number of times.
fn change_listed(ledger: &Ledger, pending: Option<Pending>) {
    match pending {
        Some(Pending::Erase { entry }) => {
            if let Some(entry) = own_entry(ledger, entry) {
                entry.erase();
            }
        }
        Some(Pending::Convert { entry, operations }) => {
            if let Some(entry) = own_entry(ledger, entry) {
                entry.convert_to(pointer(operations));
            }
        }
        Some(Pending::Record { .. }) | None => {}
    }
}

/// Completes the ledger of a task that stopped inside a window: once, however often it is called.
/// What the window was about to list comes after the first entries, which stay.
///
/// Nothing is released before it is done, so that doing it again cannot bring an entry back. What
/// was acquired and has no place in the ledger is given to `refuse`, with its frame.
fn resolve(
    first: usize,
    ledger: &Ledger,
    domain: &Domain<'_>,
    registers: &RegisterFile,
    refuse: impl FnOnce(u64, u64),
) {
    let resolution = ledger.resolution.load(Ordering::Relaxed);
    if resolution == RESOLVED && !planted!(NoWatermark) {
        return;
    }
    match domain.windows().pending(registers) {
        Some(Pending::Record { resource, operations, entry, frame }) => {
            let index = ledger.index_of(pointer(entry)).filter(|index| *index >= first);
            match index.and_then(|index| ledger.entry(index)) {
                Some(entry) if entry.is_vacant() => {
                    entry.write(pointer(resource), pointer(operations), frame);
                    if entry.is_vacant() {
                        // Damaged registers: no resource lies there.
                        refuse(resource, frame);
                    }
                }
                // By a settler that died before it could say so.
                Some(entry) if entry.resource() == pointer(resource) => {}
                _ => refuse(resource, frame),
            }
        }
        pending => change_listed(ledger, pending),
    }
    compiler_fence(Ordering::SeqCst);
    ledger.resolution.store(RESOLVED, Ordering::Relaxed);
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
    use crate::mutex::TellNext;
    use crate::raw_lock::RawLock;
    use crate::shared::Counted;
    use crate::testing::{NOTHING, TestTask, domain, frozen, record};
    use crate::{Operations, Shared, WindowTable};
    use core::ptr::NonNull;
    use spin::relax::Spin;
    use std::vec::Vec;
    use task_model::{Gpr, StackBounds, TaskId};

    fn settle_at(ledger: &Ledger, registers: &mut RegisterFile) -> Vec<Settled> {
        let mut all = Vec::new();
        let stack = StackBounds::new(0x1000, 0x2000, 0).unwrap();
        // SAFETY: nothing runs with these registers, and the stack is never read.
        let task = unsafe { FrozenTask::new(TaskId::first(0), NonNull::from(registers), stack) };
        // SAFETY: the ledger lists `NOTHING`, which may be released at any time.
        unsafe { settle(&task, ledger, &domain(), |settled| all.push(settled)) };
        all
    }

    #[test]
    fn an_empty_ledger_settles_to_nothing() {
        assert!(settle_at(&Ledger::new(), &mut RegisterFile::new()).is_empty());
    }

    #[test]
    fn settling_twice_releases_once() {
        let ledger = Ledger::new();
        record(&ledger, pointer(8), &NOTHING, 0x1800).unwrap();
        assert_eq!(settle_at(&ledger, &mut RegisterFile::new()).len(), 1);
        assert!(settle_at(&ledger, &mut RegisterFile::new()).is_empty());
    }

    /// What the settlement of a ledger with this one entry says of it.
    fn outcome_of(resource: *mut (), operations: *const Operations) -> Settled {
        let ledger = Ledger::new();
        ledger.entry(0).unwrap().write(resource, operations.cast_mut(), 0x1800);
        let all = settle_at(&ledger, &mut RegisterFile::new());
        assert!(ledger.is_empty() && all.len() == 1);
        all[0]
    }

    #[test]
    fn an_entry_whose_operations_are_none_is_refused_and_gone() {
        let bytes = [7u64; 32];
        for operations in
            [pointer(0), pointer(8), pointer(u64::MAX), bytes.as_ptr().cast_mut().cast()]
        {
            let settled = outcome_of(pointer(8), operations);
            assert_eq!(settled.outcome, Outcome::Refused);
            assert_eq!(settled.kind, ResourceKind::Unknown);
        }
    }

    #[test]
    fn a_resource_outside_of_the_domain_or_misaligned_is_refused() {
        const HELD: &Operations = RawLock::<TestTask, Spin>::held::<TellNext>();
        let word = core::sync::atomic::AtomicU64::new(0);
        assert_eq!(outcome_of(word.as_ptr().cast(), HELD).outcome, Outcome::Disowned);
        for offset in [1, 4, 7] {
            let resource = word.as_ptr().cast::<()>().wrapping_byte_add(offset);
            assert_eq!(outcome_of(resource, HELD).outcome, Outcome::Refused);
        }
        for nowhere in [8, u64::MAX - 7, 1 << 47, 0xffff_8000_0000_0000, 1 << 62 | 0x10_0000] {
            assert_eq!(outcome_of(pointer(nowhere), HELD).outcome, Outcome::Refused);
        }
    }

    #[test]
    fn what_a_share_says_its_value_is_destroyed_by_is_looked_at_too() {
        let ledger = crate::testing::on_fresh_ledger(|_| {
            core::mem::forget(Shared::<u64, TestTask>::new(9).unwrap());
        });
        let block = ledger.held().next().unwrap().resource().cast::<Counted<u64>>();
        // SAFETY: the task has ended, so nobody uses the block meanwhile; the field is never used
        // as what it no longer is.
        unsafe { (&raw mut (*block).destroy).cast::<u64>().write(0x1234_5678) };
        let all = settle_at(ledger, &mut RegisterFile::new());
        assert_eq!(all.len(), 1);
        assert_eq!((all[0].kind, all[0].outcome), (ResourceKind::Share, Outcome::Refused));
    }

    #[test]
    fn a_value_that_says_it_is_destroyed_as_one_of_its_shares_is_refused() {
        let ledger = crate::testing::on_fresh_ledger(|_| {
            core::mem::forget(Shared::<u64, TestTask>::new(9).unwrap());
        });
        let entry = ledger.held().next().unwrap();
        let block = entry.resource().cast::<Counted<u64>>();
        let share = domain().operations(entry).unwrap();
        // SAFETY: the task has ended, so nobody uses the block meanwhile.
        unsafe { (&raw mut (*block).destroy).cast::<*const Operations>().write(share) };
        let all = settle_at(ledger, &mut RegisterFile::new());
        assert_eq!(all.iter().map(|one| one.outcome).collect::<Vec<_>>(), [Outcome::Orphaned]);
        let mut left = Vec::new();
        // SAFETY: as in `settle_at`.
        unsafe { reclaim(ledger, &domain(), |one| left.push(one.outcome)) };
        assert_eq!(left, [Outcome::Refused]);
        assert!(ledger.is_empty());
    }

    /// The registers of a task that stopped in a window that records, all of which but RSP hold this.
    fn recording(value: u64) -> RegisterFile {
        let mut registers = crate::testing::stopped_in(WindowKind::Record);
        for register in Gpr::ALL {
            registers[register] = value;
        }
        registers[Gpr::Rsp] = 0x1700;
        registers
    }

    fn address<T>(of: &T) -> u64 {
        core::ptr::from_ref(of).addr() as u64
    }

    #[test]
    fn a_window_that_records_where_there_is_no_place_is_told_of() {
        let ledger = Ledger::new();
        record(&ledger, pointer(8), &NOTHING, 0x1800).unwrap();
        let (listed, last) = (ledger.entry(0).unwrap(), ledger.entry(18).unwrap());
        for nowhere in [address(&ledger), address(listed) + 8, address(last) + 24, 0] {
            let all = settle_at(&ledger, &mut recording(nowhere));
            assert_eq!((all[0].entry, all[0].outcome), (Ledger::CAPACITY, Outcome::Refused));
            assert_eq!(all[0].resource, nowhere);
            assert!(ledger.is_empty());
            ledger.resolution.store(0, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_window_that_records_among_what_is_to_stay_is_told_of() {
        let ledger = Ledger::new();
        let mut registers = recording(address(ledger.entry(0).unwrap()));
        let task = frozen(&mut registers);
        let mut refused = 0;
        resolve(1, &ledger, &domain(), task.registers(), |_, _| refused += 1);
        assert_eq!((refused, ledger.len()), (1, 0));
    }

    #[test]
    fn a_window_that_records_where_something_else_is_listed_is_told_of() {
        let ledger = Ledger::new();
        record(&ledger, pointer(8), &NOTHING, 0x1800).unwrap();
        let listed = address(ledger.entry(0).unwrap());
        let all = settle_at(&ledger, &mut recording(listed));
        assert_eq!(all.iter().map(|one| one.resource).collect::<Vec<_>>(), [listed, 8]);
        assert_eq!(all[0].outcome, Outcome::Refused);
    }

    #[test]
    fn innermost_comes_first_and_returned_frames_are_escaped() {
        let ledger = Ledger::new();
        record(&ledger, pointer(8), &NOTHING, 0x1800).unwrap();
        record(&ledger, pointer(16), &NOTHING, 0x1400).unwrap();
        let mut registers = RegisterFile::new();
        registers[Gpr::Rsp] = 0x1600;
        let all = settle_at(&ledger, &mut registers);
        assert_eq!(all.iter().map(|s| s.resource).collect::<Vec<_>>(), [16, 8]);
        assert_eq!(all.iter().map(|s| s.escaped).collect::<Vec<_>>(), [true, false]);
    }

    #[test]
    fn a_window_that_recorded_nothing_yet_is_completed_once() {
        let ledger = Ledger::new();
        record(&ledger, pointer(8), &NOTHING, 0x1800).unwrap();
        let mut registers = recording(address(ledger.entry(1).unwrap()));
        let task = frozen(&mut registers);
        resolve(0, &ledger, &domain(), task.registers(), |_, _| panic!("refused"));
        assert_eq!(ledger.len(), 2);
        let Some(Pending::Record { resource, frame, .. }) =
            WindowTable::linked().pending(task.registers())
        else {
            panic!("the window records");
        };
        let entry = ledger.held().next().unwrap();
        assert_eq!((entry.resource(), entry.frame()), (pointer(resource), frame));
        entry.erase();
        resolve(0, &ledger, &domain(), task.registers(), |_, _| panic!("refused"));
        assert_eq!(ledger.len(), 1);
    }

    #[test]
    fn a_resolution_that_stopped_half_way_is_finished_in_the_same_place() {
        let ledger = Ledger::new();
        let place = address(ledger.entry(0).unwrap());
        let mut registers = recording(place);
        // The settler died after it had written the entry, before it could say so.
        ledger.entry(0).unwrap().write(pointer(place), pointer(place), 0);
        resolve(0, &ledger, &domain(), frozen(&mut registers).registers(), |_, _| {
            panic!("refused")
        });
        assert_eq!(ledger.len(), 1);
    }
}
