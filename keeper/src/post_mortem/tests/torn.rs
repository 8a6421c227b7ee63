//! Writers that die, and machines that are reset, in the middle.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::vec;
use std::vec::Vec;

use proptest::prelude::*;

use super::super::{DecodeError, Record, Ring, Slot};
use super::arbitrary::{any_report, everything};
use super::{report, slots, tasks};
use crate::Report;

/// Writes into the slot and dies before the store with this number. Returns whether it died.
fn dies_before(store: usize, slot: &Slot, number: u64, report: &Report) -> bool {
    let mut stores = 0;
    let write = AssertUnwindSafe(|| {
        slot.write(number, report, |place, word, order| {
            if stores == store {
                std::panic::resume_unwind(std::boxed::Box::new(()));
            }
            stores += 1;
            place.store(word, order);
        });
    });
    catch_unwind(write).is_err()
}

/// The bytes of a slot with the record of this report.
fn image(number: u64, report: &Report) -> Vec<u8> {
    let slots = slots(1);
    slots[0].write(number, report, |place, word, order| place.store(word, order));
    slots[0]
        .0
        .iter()
        .flat_map(|it| it.load(core::sync::atomic::Ordering::Relaxed).to_le_bytes())
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2))]

    #[test]
    fn a_writer_that_dies_before_any_store_leaves_the_other_records_whole(
        old in any_report(), new in any_report(), others in any::<u32>(),
    ) {
        let slots = slots(3);
        let mut store = 0;
        loop {
            let ring = Ring::new(slots);
            ring.write(0, &report(others));
            ring.write(1, &old);
            ring.write(2, &report(others));
            let oldest = slots.iter().min_by_key(|slot| slot.read().unwrap().number()).unwrap();
            let dead = dies_before(store, oldest, u64::MAX - 1, &new);
            // As after a reset.
            let found: Vec<_> =
                Ring::new(slots).records().map(|it| everything(&it.report().unwrap())).collect();
            if !dead {
                prop_assert_eq!(found.len(), 3);
                prop_assert_eq!(&found[0], &everything(&new), "after the last store it is there");
                prop_assert!(store > 37);
                break;
            }
            if store == 0 {
                prop_assert_eq!(found.len(), 3, "before the first store, the old one is");
            } else {
                prop_assert_eq!(oldest.read().unwrap_err(), DecodeError::Empty);
                prop_assert_eq!(found.len(), 2);
            }
            for (slot, was) in slots.iter().zip(0..) {
                if !core::ptr::eq(slot, oldest) {
                    prop_assert!(slot.read().is_ok(), "slot {was}");
                }
            }
            store += 1;
        }
    }

    #[test]
    fn a_record_torn_at_any_byte_is_the_old_one_or_the_new_one_or_refused(
        old in any_report(), new in any_report(),
    ) {
        let (old, new) = (image(1, &old), image(2, &new));
        let (was, is) = (Record::from_bytes(&old).unwrap(), Record::from_bytes(&new).unwrap());
        let mut refused = 0;
        for cut in 0..=new.len() {
            let torn = [&new[..cut], &old[cut..]].concat();
            match Record::from_bytes(&torn) {
                Ok(whole) => prop_assert!(
                    [was.as_bytes(), is.as_bytes()].contains(&whole.as_bytes()),
                    "cut at byte {cut}",
                ),
                Err(_) => refused += 1,
            }
        }
        prop_assert!(refused > 24);
    }

    #[test]
    fn a_record_of_which_some_cache_lines_were_lost_is_the_old_one_or_the_new_one_or_refused(
        old in any_report(), new in any_report(), lost in prop::collection::vec(any::<bool>(), 64),
    ) {
        let (old, new) = (image(1, &old), image(2, &new));
        let mut torn = new.clone();
        for (line, _) in lost.iter().enumerate().filter(|(_, lost)| **lost) {
            torn[64 * line..64 * line + 64].copy_from_slice(&old[64 * line..64 * line + 64]);
        }
        if let Ok(whole) = Record::from_bytes(&torn) {
            let either = [&old, &new].map(|it| Record::from_bytes(it).unwrap());
            prop_assert!(either.iter().any(|it| it.as_bytes() == whole.as_bytes()));
        }
    }
}

#[test]
fn a_slot_that_its_writer_died_over_is_passed_over_until_that_writes_again() {
    let slots = slots(2);
    let ring = Ring::new(slots);
    assert!(slots[1].claim(1), "the keeper with the number 0 died over this");
    ring.write(1, &report(1));
    ring.write(1, &report(2));
    assert_eq!(tasks(&ring), [2], "both in the other slot");
    ring.write(0, &report(3));
    ring.write(1, &report(4));
    assert_eq!(tasks(&ring), [4, 3]);
    assert_eq!(ring.lost(), 0);
}

#[test]
fn what_there_is_no_slot_for_is_counted() {
    let slots = slots(1);
    let ring = Ring::new(slots);
    ring.write(1, &report(1));
    assert!(slots[0].claim(1));
    ring.write(1, &report(2));
    assert_eq!((tasks(&ring), ring.lost()), (vec![1], 1));
    // Nobody has a slot after a reset.
    let ring = Ring::new(slots);
    ring.write(1, &report(3));
    assert_eq!((tasks(&ring), ring.lost()), (vec![3], 0));
}
