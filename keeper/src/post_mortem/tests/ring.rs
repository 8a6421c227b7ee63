//! Round and round.

use core::sync::atomic::Ordering;
use std::vec::Vec;

use proptest::prelude::*;

use super::super::{DecodeError, Record, Ring, Slot};
use super::{report, slots, tasks};

#[test]
fn the_latest_records_are_kept_and_come_latest_first() {
    let ring = Ring::new(slots(3));
    assert_eq!(tasks(&ring), []);
    for task in 0..8 {
        ring.write(0, &report(task));
        let kept: Vec<_> = (0..=task).rev().take(3).collect();
        assert_eq!(tasks(&ring), kept);
    }
}

#[test]
fn after_a_reset_it_goes_on_where_it_was() {
    let slots = slots(3);
    for (boot, task) in (0..9).enumerate() {
        let ring = Ring::new(slots);
        ring.write(0, &report(task));
        assert_eq!(ring.records().next().unwrap().number(), boot as u64 + 1);
    }
    assert_eq!(tasks(&Ring::new(slots)), [8, 7, 6]);
}

#[test]
fn a_ring_without_slots_has_no_records() {
    let ring = Ring::new(&[]);
    ring.write(0, &report(1));
    assert_eq!((tasks(&ring), ring.lost()), ([].into(), 1));
}

#[test]
fn the_records_of_a_copy_are_found_slot_by_slot() {
    let slots = slots(3);
    let ring = Ring::new(slots);
    ring.write(0, &report(1));
    ring.write(0, &report(2));
    let words = slots.iter().flat_map(|slot| &slot.0);
    let copy: Vec<_> = words.flat_map(|it| it.load(Ordering::Relaxed).to_le_bytes()).collect();
    let numbers: Vec<_> = Record::in_memory(&copy).map(|it| it.map(|it| it.number())).collect();
    assert_eq!(numbers, [Err(DecodeError::Empty), Ok(1), Ok(2)]);
}

#[test]
fn a_record_with_the_number_of_another_hides_none() {
    let slots = slots(3);
    let ring = Ring::new(slots);
    (1..=3).for_each(|task| ring.write(0, &report(task)));
    // Something wrote over the first one's number.
    slots[1].0[1].store(3, Ordering::Relaxed);
    assert_eq!(tasks(&ring), [3, 2]);
}

#[test]
fn keepers_that_write_at_the_same_time_do_not_mix_their_records() {
    const WRITERS: u32 = 4;
    let ring = Ring::new(slots(6));
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let ring = &ring;
            scope.spawn(move || {
                (0..2000).for_each(|n| ring.write(writer as u8, &report(n * WRITERS + writer)));
            });
        }
        for _ in 0..200 {
            // Whoever is written over meanwhile is left out; none is torn.
            assert!(tasks(&ring).iter().all(|task| *task < 2000 * WRITERS));
        }
    });
    let left: Vec<_> = ring.slots().iter().map(Slot::read).collect();
    assert!(left.iter().all(Result::is_ok), "no slot was written by two at a time: {left:?}");
    assert_eq!((tasks(&ring).len(), ring.lost()), (6, 0));
}

proptest! {
    /// Memory after a cold start has anything in it.
    #[test]
    fn any_memory_is_a_ring_without_records(words in prop::collection::vec(any::<u64>(), 1024)) {
        let slots = slots(2);
        let all = slots.iter().flat_map(|slot| &slot.0);
        all.zip(words).for_each(|(place, word)| place.store(word, Ordering::Relaxed));
        let ring = Ring::new(slots);
        prop_assert_eq!(tasks(&ring), []);
        ring.write(0, &report(1));
        prop_assert_eq!(tasks(&ring), [1]);
    }
}
