use super::*;
use crate::testing::{TestTask, kill, on_fresh_ledger};
use core::cell::Cell;
use core::sync::atomic::AtomicUsize;
use std::boxed::Box;
use std::string::String;
use std::sync::Arc;

type TestShared<T> = Shared<T, TestTask>;

struct CountsDrops(Arc<AtomicUsize>);
impl Drop for CountsDrops {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}
// SAFETY: one pointer field, never reassigned.
unsafe impl DropAfterTear for CountsDrops {}

#[test]
fn the_last_share_drops_the_value() {
    let drops = Arc::new(AtomicUsize::new(0));
    let ledger = on_fresh_ledger(|ledger| {
        let first = TestShared::new(CountsDrops(drops.clone())).unwrap();
        let second = first.try_clone().unwrap();
        assert_eq!((Shared::count(&first), ledger.len()), (1, 2));
        drop(first);
        assert_eq!(drops.load(Ordering::Relaxed), 0);
        drop(second);
    });
    assert_eq!(drops.load(Ordering::Relaxed), 1);
    assert!(ledger.is_empty());
}

#[test]
fn shares_of_one_task_may_be_dropped_in_any_order_and_the_value_goes_with_the_last() {
    let drops = Arc::new(AtomicUsize::new(0));
    let ledger = on_fresh_ledger(|_| {
        let first = TestShared::new(CountsDrops(drops.clone())).unwrap();
        let second = first.try_clone().unwrap();
        let between = TestShared::new(7).unwrap();
        let third = first.try_clone().unwrap();
        let fourth = first.try_clone().unwrap();
        assert_eq!(Shared::count(&first), 1);
        for share in [first, fourth, third] {
            drop(share);
            assert_eq!((Shared::count(&second), drops.load(Ordering::Relaxed)), (1, 0));
        }
        drop(between);
        drop(second);
    });
    assert!(ledger.is_empty());
    assert_eq!(drops.load(Ordering::Relaxed), 1);
}

#[test]
fn a_death_takes_away_as_many_counts_as_were_taken() {
    on_fresh_ledger(|_| {
        let mine = TestShared::new(7).unwrap();
        kill(|| {
            // SAFETY: `mine` keeps the block alive.
            let [one, two] = [(); 2].map(|()| unsafe { TestShared::share_of(mine.block) });
            core::mem::forget((one.unwrap().try_clone(), two.unwrap().try_clone()));
            assert_eq!(Shared::count(&mine), 3);
        });
        assert_eq!(Shared::count(&mine), 1);
    });
}

#[test]
fn a_death_takes_its_own_share_and_no_other() {
    on_fresh_ledger(|_| {
        let mine = TestShared::new(7).unwrap();
        let outcomes = kill(|| {
            // SAFETY: `mine` keeps the block alive.
            core::mem::forget(unsafe { TestShared::share_of(mine.block) }.unwrap());
        });
        assert_eq!(outcomes, [Outcome::Released]);
        assert_eq!((Shared::count(&mine), *mine), (1, 7));
    });
}

#[test]
fn the_last_share_of_a_dead_task_drops_what_may_be_dropped() {
    let drops = Arc::new(AtomicUsize::new(0));
    let outcomes = kill(|| {
        core::mem::forget(TestShared::new_droppable(CountsDrops(drops.clone())).unwrap());
    });
    assert_eq!(outcomes, [Outcome::Orphaned, Outcome::Reclaimed]);
    assert_eq!(drops.load(Ordering::Relaxed), 1);
}

#[test]
fn a_value_that_has_been_lent_mutably_is_quarantined_whatever_it_promises() {
    let drops = Arc::new(AtomicUsize::new(0));
    let outcomes = kill(|| {
        let mut share = TestShared::new_droppable(CountsDrops(drops.clone())).unwrap();
        assert!(Shared::get_mut(&mut share).is_some());
        core::mem::forget(share);
    });
    assert_eq!(outcomes, [Outcome::Orphaned, Outcome::Quarantined]);
    assert_eq!(drops.load(Ordering::Relaxed), 0);
}

#[test]
fn a_value_that_makes_no_promise_is_quarantined() {
    let outcomes = kill(|| core::mem::forget(TestShared::new(String::from("torn?")).unwrap()));
    assert_eq!(outcomes, [Outcome::Orphaned, Outcome::Quarantined]);
}

#[test]
fn a_value_that_a_dead_sharer_may_have_torn_is_not_dropped_by_the_others() {
    let drops = Arc::new(AtomicUsize::new(0));
    struct NoPromise(Arc<AtomicUsize>);
    impl Drop for NoPromise {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    on_fresh_ledger(|ledger| {
        let mut mine = TestShared::new(NoPromise(drops.clone())).unwrap();
        kill(|| {
            // SAFETY: `mine` keeps the block alive.
            core::mem::forget(unsafe { TestShared::share_of(mine.block) }.unwrap());
        });
        assert!(Shared::get_mut(&mut mine).is_none());
        let quarantined = TestTask::heap().bytes_quarantined();
        drop(mine);
        assert!(ledger.is_empty());
        assert!(TestTask::heap().bytes_quarantined() > quarantined);
    });
    assert_eq!(drops.load(Ordering::Relaxed), 0);
}

#[test]
fn a_death_inside_the_destructor_leaves_the_value_alone() {
    struct DiesInDrop;
    impl Drop for DiesInDrop {
        fn drop(&mut self) {
            std::panic::resume_unwind(Box::new(()));
        }
    }
    // SAFETY: it has no fields.
    unsafe impl DropAfterTear for DiesInDrop {}
    let outcomes = kill(|| {
        let shared = TestShared::new_droppable(DiesInDrop).unwrap();
        let died = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(shared)));
        assert!(died.is_err());
    });
    assert_eq!(outcomes, [Outcome::Orphaned, Outcome::Quarantined]);
}

#[test]
fn shares_may_be_dropped_in_any_order() {
    let ledger = on_fresh_ledger(|_| {
        let first = TestShared::new(1).unwrap();
        let second = TestShared::new(2).unwrap();
        let third = first.try_clone().unwrap();
        drop(second);
        drop(first);
        assert_eq!(*third, 1);
    });
    assert!(ledger.is_empty());
}

#[test]
fn only_a_sole_share_can_be_changed() {
    on_fresh_ledger(|_| {
        let mut first = TestShared::new(1).unwrap();
        *Shared::get_mut(&mut first).unwrap() = 2;
        let second = first.try_clone().unwrap();
        assert!(Shared::get_mut(&mut first).is_none());
        assert_eq!(*second, 2);
    });
}

#[test]
#[should_panic(expected = "more than 2^63 shares")]
fn a_count_that_overflows_is_a_panic() {
    on_fresh_ledger(|ledger| {
        let first = core::mem::ManuallyDrop::new(TestShared::new(7).unwrap());
        // SAFETY: the share is forgotten, so the block is alive for ever.
        let counted = unsafe { first.block.as_ref() };
        counted.count.store(u64::MAX >> 1, Ordering::Relaxed);
        // SAFETY: as above.
        let refused = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| unsafe {
            TestShared::<i32>::share_of(first.block).is_ok()
        }));
        assert_eq!(ledger.len(), 1);
        std::panic::resume_unwind(refused.unwrap_err());
    });
}

#[test]
fn a_full_ledger_refuses_a_share_and_counts_none() {
    on_fresh_ledger(|_| {
        let first = TestShared::new(Cell::new(1).get()).unwrap();
        let shares: std::vec::Vec<_> = core::iter::from_fn(|| first.try_clone().ok()).collect();
        assert_eq!(shares.len(), Ledger::CAPACITY - 1);
        assert_eq!(Shared::count(&first), 1);
        assert!(TestShared::new(2).is_err());
    });
}

#[test]
#[should_panic(expected = "more than 2^63 shares")]
fn a_count_that_overflows_because_a_clone_is_handed_over_is_a_panic() {
    on_fresh_ledger(|_| {
        let first = core::mem::ManuallyDrop::new(TestShared::new(7).unwrap());
        let clone = first.try_clone().unwrap();
        // SAFETY: the share is forgotten, so the block is alive for ever.
        let counted = unsafe { first.block.as_ref() };
        counted.count.store(u64::MAX >> 1, Ordering::Relaxed);
        let _ = crate::Slot::new().put(clone);
    });
}
