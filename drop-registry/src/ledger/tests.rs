use super::gaps::MOVED;
use super::*;
use crate::CurrentLedger;
use crate::testing::{self, NOTHING, TestTask, as_task_of};
use std::vec::Vec;

fn record(ledger: &Ledger, resource: usize) -> Result<&Entry, LedgerFull> {
    testing::record(ledger, ptr::without_provenance_mut(resource), &NOTHING, 16)
}

/// As the ledger's own task.
fn own<T>(ledger: &Ledger, body: impl FnOnce(OwnLedger<'_, TestTask>) -> T) -> T {
    as_task_of(ledger, || body(OwnLedger::current()))
}

fn entries_in_use(ledger: &Ledger) -> usize {
    ((ledger.offset_of(ledger.cursor().0) - HEADER_BYTES) / ENTRY_BYTES) as usize
}

fn resources(ledger: &Ledger) -> Vec<usize> {
    ledger.held().map(|entry| entry.resource().addr()).collect()
}

#[test]
fn entries_come_innermost_first() {
    let ledger = Ledger::new();
    for n in 1..=3 {
        record(&ledger, n * 8).unwrap();
    }
    assert_eq!(resources(&ledger), [24, 16, 8]);
}

#[test]
fn a_full_ledger_refuses_and_keeps_what_it_has() {
    let ledger = Ledger::new();
    for n in 1..=Ledger::CAPACITY {
        record(&ledger, n * 8).unwrap();
    }
    assert_eq!(record(&ledger, 8).unwrap_err(), LedgerFull);
    assert_eq!(ledger.len(), Ledger::CAPACITY);
}

#[test]
fn gaps_are_closed_when_the_room_runs_out() {
    let ledger = Ledger::new();
    for n in 1..=Ledger::CAPACITY {
        record(&ledger, n * 8).unwrap();
    }
    ledger.find(ptr::without_provenance(16)).unwrap().erase();
    ledger.find(ptr::without_provenance(48)).unwrap().erase();
    record(&ledger, 800).unwrap();
    record(&ledger, 808).unwrap();
    assert_eq!(record(&ledger, 816).unwrap_err(), LedgerFull);
    let held = resources(&ledger);
    assert_eq!(held.len(), Ledger::CAPACITY);
    assert_eq!(held[..3], [808, 800, Ledger::CAPACITY * 8]);
    assert!(!held.contains(&16) && !held.contains(&48));
}

/// Else a task that fills its ledger over and over would be given a new limit each time.
#[test]
fn what_a_meter_has_seen_is_seen_where_it_is_moved_to() {
    let ledger = Ledger::new();
    for n in 1..=Ledger::CAPACITY {
        record(&ledger, n * 8).unwrap();
    }
    assert!(!ledger.find(ptr::without_provenance(16)).unwrap().mark_seen());
    ledger.find(ptr::without_provenance(8)).unwrap().erase();
    assert!(!record(&ledger, 800).unwrap().mark_seen());
    assert!(ledger.find(ptr::without_provenance(16)).unwrap().mark_seen());
}

#[test]
fn an_entry_being_moved_counts_once() {
    let ledger = Ledger::new();
    record(&ledger, 8).unwrap().erase();
    record(&ledger, 16).unwrap();
    // What `close_gaps` leaves if it stops just before, and just after, the second copy
    // becomes visible.
    ledger.moving.store(2 << 32 | 1, Ordering::Relaxed);
    assert_eq!(resources(&ledger), [16]);
    ledger.entries[0].resource.store(ptr::without_provenance_mut(16), Ordering::Relaxed);
    assert_eq!(resources(&ledger), [16]);
}

#[test]
fn trimming_gives_back_what_was_erased_at_the_end() {
    let ledger = Ledger::new();
    record(&ledger, 8).unwrap();
    let second = record(&ledger, 16).unwrap();
    let third = record(&ledger, 24).unwrap();
    second.erase();
    own(&ledger, |own| own.trim());
    assert_eq!(entries_in_use(&ledger), 3);
    third.erase();
    own(&ledger, |own| own.trim());
    assert_eq!(entries_in_use(&ledger), 1);
}

#[test]
#[should_panic(expected = "acquired in a trap handler")]
fn nothing_is_acquired_with_a_forbidden_ledger() {
    let _ = record(&Ledger::forbidden(), 8);
}

#[test]
fn the_top_of_an_empty_ledger_matches_nothing() {
    let ledger = Ledger::new();
    assert!(own(&ledger, |own| own.top(ptr::without_provenance(8)).is_none()));
}

#[test]
fn a_ledger_that_was_emptied_in_order_after_its_gaps_were_closed_is_as_good_as_new() {
    let ledger = Ledger::new();
    for n in 1..=Ledger::CAPACITY {
        record(&ledger, n * 8).unwrap();
    }
    for entry in &ledger.entries[1..] {
        entry.erase();
    }
    ledger.entries[0].erase();
    let second = &ledger.entries[1];
    second.write(ptr::without_provenance_mut(16), ptr::null_mut(), 7);
    own(&ledger, |own| {
        assert!(
            own.room().is_ok() && entries_in_use(&ledger) == 1,
            "one entry has been moved down"
        );
        // SAFETY: it is the last, of no matter to anybody.
        unsafe { own.pop(own.top(ptr::without_provenance(16)).unwrap()) };
        // Nobody has looked whether it is empty, so it still says that entries were moved.
        assert_eq!(ledger.moving.load(Ordering::Relaxed), MOVED);
        for nothing in [0, 8, 16] {
            assert!(own.top(ptr::without_provenance(nothing)).is_none());
        }
    });
    record(&ledger, 24).unwrap();
    own(&ledger, |own| {
        let resource = ptr::without_provenance(24);
        let place = own.place_of_own(resource);
        // SAFETY: the ledger is there.
        assert!(unsafe { own.last_at(place, resource) }.is_none());
        own.own_at(place, resource).erase();
        own.trim();
    });
    assert_eq!((ledger.len(), ledger.moving.load(Ordering::Relaxed)), (0, 0));
}

#[test]
fn a_cursor_can_be_kept_as_a_pointer() {
    static LEDGER: Ledger = Ledger::new();
    static REFUSES: Ledger = Ledger::forbidden();
    let first = Cursor::first(&LEDGER);
    assert_eq!(first, LEDGER.cursor());
    assert_eq!(Cursor::from_ptr(first.as_ptr()), Some(first));
    assert_eq!(Cursor::from_ptr(ptr::null_mut()), None);
    record(&LEDGER, 8).unwrap();
    // SAFETY: there is room for one.
    assert_eq!(LEDGER.cursor().0, unsafe { first.0.next() });
    assert_eq!(Cursor::nowhere(&REFUSES), REFUSES.cursor());
}

#[test]
fn after_a_recovery_the_cursor_is_put_behind_what_is_left() {
    // Where it was stopped: behind four entries, or before it had passed over the point, the third.
    for stopped_at in [4, 2] {
        let ledger = Ledger::new();
        for n in 1..=4 {
            record(&ledger, n * 8).unwrap();
        }
        ledger.entries[1].erase();
        ledger.cursor.store(HEADER_BYTES + ENTRY_BYTES * stopped_at, Ordering::Relaxed);
        ledger.go_on_with(3, ptr::null_mut());
        assert_eq!(resources(&ledger), [24, 8]);
        own(&ledger, |own| own.cut_at(&ledger.entries[2]));
        assert_eq!((resources(&ledger), entries_in_use(&ledger)), (std::vec![8], 1));
        // In a place that is null, as everything behind it.
        record(&ledger, 40).unwrap();
        assert!(ledger.entries[2..].iter().all(|entry| entry.resource().is_null()));
        assert_eq!(resources(&ledger), [40, 8]);
    }
}

/// Keeps its cursor elsewhere, and forgets to set it there.
#[cfg(debug_assertions)]
struct Forgetful;

#[cfg(debug_assertions)]
// SAFETY: none: this is the mistake, and the ledger is never settled.
unsafe impl CurrentLedger for Forgetful {
    fn current() -> NonNull<Ledger> {
        TestTask::current()
    }

    fn cursor() -> Cursor {
        Cursor(Place::at(Self::current(), HEADER_BYTES))
    }
}

#[cfg(debug_assertions)]
#[test]
#[should_panic(expected = "the cursor is not where the context had it set")]
fn a_context_that_does_not_keep_the_cursor_is_told_so() {
    let ledger = Ledger::new();
    as_task_of(&ledger, || {
        for _ in 0..2 {
            let own = OwnLedger::<Forgetful>::current();
            // SAFETY: the ledger is never settled.
            unsafe { own.record(ptr::without_provenance_mut(8), &NOTHING, 7) }.unwrap();
        }
    });
}
