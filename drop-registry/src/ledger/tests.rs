use super::gaps::MOVED;
use super::*;
use crate::testing::NOTHING;
use std::vec::Vec;

fn record(ledger: &Ledger, resource: usize) -> Result<&Entry, LedgerFull> {
    // SAFETY: the ledger is never settled, so the resource is never looked at.
    unsafe { ledger.record(ptr::without_provenance_mut(resource), &NOTHING, 7) }
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
    ledger.trim();
    assert_eq!(ledger.used_len(), 3);
    third.erase();
    ledger.trim();
    assert_eq!(ledger.used_len(), 1);
}

#[test]
#[should_panic(expected = "acquired in a trap handler")]
fn nothing_is_acquired_with_a_forbidden_ledger() {
    let _ = record(&Ledger::forbidden(), 8);
}

#[test]
fn the_top_of_an_empty_ledger_matches_nothing() {
    let ledger = Ledger::new();
    assert!(ledger.top(ptr::without_provenance(8)).is_none());
}

#[test]
fn a_ledger_that_was_emptied_in_order_after_its_gaps_were_closed_is_as_good_as_new() {
    let ledger = Ledger::new();
    record(&ledger, 8).unwrap().erase();
    record(&ledger, 16).unwrap();
    ledger.close_gaps();
    ledger.pop(ledger.top(ptr::without_provenance(16)).unwrap());
    // Nobody has looked whether it is empty, so it still says that entries were moved.
    assert_eq!(ledger.moving.load(Ordering::Relaxed), MOVED);
    for nothing in [0, 8, 16] {
        assert!(ledger.top(ptr::without_provenance(nothing)).is_none());
    }
    let place = Place::of(record(&ledger, 24).unwrap());
    // SAFETY: the ledger is there.
    assert!(unsafe { ledger.last_at(place, ptr::without_provenance(24)) }.is_none());
    ledger.own_at(place, ptr::without_provenance(24)).erase();
    ledger.trim();
    assert_eq!((ledger.len(), ledger.moving.load(Ordering::Relaxed)), (0, 0));
}
