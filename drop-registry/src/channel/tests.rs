use super::*;
use crate::testing::{TestTask, kill, on_fresh_ledger};
use crate::{Ledger, Mutex, Outcome, Shared, TrackedBox};
use core::sync::atomic::Ordering;
use std::vec::Vec;

type Boxes<const CAPACITY: usize> = Channel<TrackedBox<u64, TestTask>, CAPACITY>;

fn boxed(value: u64) -> TrackedBox<u64, TestTask> {
    TrackedBox::new(value).unwrap()
}

#[test]
fn items_come_out_in_the_order_in_which_they_went_in() {
    let channel = Boxes::<3>::new();
    on_fresh_ledger(|ledger| {
        let mut expected = 0;
        // Several rounds, with the channel full and empty at every cell.
        for round in 0..20u64 {
            for n in 0..=round % 3 {
                channel.try_send(boxed(round * 10 + n)).unwrap();
            }
            for n in 0..=round % 3 {
                assert_eq!(*channel.try_recv().unwrap(), round * 10 + n);
                expected += 1;
            }
            assert_eq!(channel.try_recv().unwrap_err(), TryRecvError::Empty);
        }
        assert_eq!((expected, ledger.len()), (39, 0));
    });
}

#[test]
fn a_full_channel_gives_the_item_back() {
    on_fresh_ledger(|ledger| {
        let channel = Boxes::<2>::new();
        channel.try_send(boxed(1)).unwrap();
        channel.try_send(boxed(2)).unwrap();
        let Err(TrySendError::Full(back)) = channel.try_send(boxed(3)) else { panic!("sent") };
        assert_eq!((*back, channel.len(), ledger.len()), (3, 2, 1));
    });
}

#[test]
fn a_full_ledger_loses_nothing() {
    let channel = Boxes::<2>::new();
    on_fresh_ledger(|_| channel.try_send(boxed(7)).unwrap());
    on_fresh_ledger(|ledger| {
        let most: Vec<_> =
            core::iter::from_fn(|| TrackedBox::<u64, TestTask>::new(0).ok()).collect();
        assert_eq!(ledger.len(), Ledger::CAPACITY);
        assert_eq!(channel.try_recv().unwrap_err(), TryRecvError::LedgerFull);
        assert_eq!(channel.recv().unwrap_err(), LedgerFull);
        assert_eq!(channel.len(), 1);
        drop(most);
        assert_eq!(*channel.try_recv().unwrap(), 7);
    });
}

#[test]
fn what_was_sent_outlives_its_sender_and_dies_with_its_receiver() {
    let channel = Channel::<Shared<u64, TestTask>, 4>::new();
    on_fresh_ledger(|_| {
        let mine = Shared::new(5).unwrap();
        channel.try_send(mine.try_clone().unwrap()).unwrap();
        assert_eq!(Shared::count(&mine), 2, "a clone that was sent is counted");
        let gone = kill(|| core::mem::forget(channel.try_recv().unwrap()));
        assert_eq!((gone, Shared::count(&mine)), (Vec::from([Outcome::Released]), 1));
    });
}

#[test]
fn what_was_taken_after_an_item_that_is_sent_stays_listed_when_what_was_before_it_goes() {
    on_fresh_ledger(|ledger| {
        let lock = Mutex::<u64, TestTask>::new(0);
        let channel = Boxes::<2>::new();
        let guard = lock.lock().unwrap();
        let (sent, kept) = (boxed(1), boxed(2));
        channel.try_send(sent).unwrap();
        drop(guard);
        assert_eq!(ledger.len(), 1);
        drop(kept);
        assert!(ledger.is_empty());
    });
}

#[test]
fn who_finds_the_ends_behind_takes_them_on() {
    on_fresh_ledger(|_| {
        let channel = Boxes::<2>::new();
        // As after the death of a sender, and of a receiver, before they could say so.
        channel.try_send(boxed(1)).unwrap();
        channel.ring.tail.store(0, Ordering::Relaxed);
        channel.try_send(boxed(2)).unwrap();
        assert_eq!(*channel.try_recv().unwrap(), 1);
        channel.ring.head.store(0, Ordering::Relaxed);
        assert_eq!(*channel.try_recv().unwrap(), 2);
        assert!(channel.is_empty());
    });
}

#[test]
fn a_dropped_channel_drops_what_it_has() {
    on_fresh_ledger(|ledger| {
        let probe = Shared::new(0).unwrap();
        let channel = Channel::<Shared<u64, TestTask>, 4>::new();
        for _ in 0..3 {
            channel.try_send(probe.try_clone().unwrap()).unwrap();
        }
        assert_eq!(Shared::count(&probe), 4);
        drop(channel);
        assert_eq!((Shared::count(&probe), ledger.len()), (1, 1));
    });
}

/// Two threads send, two receive; and no item is lost, or passes another of its sender's.
fn stress<const CAPACITY: usize>() {
    const SENDERS: u64 = 2;
    const ITEMS: u64 = 5_000;
    let channel = Boxes::<CAPACITY>::new();
    let received: Vec<Vec<u64>> = std::thread::scope(|scope| {
        let channel = &channel;
        for sender in 0..SENDERS {
            scope.spawn(move || {
                on_fresh_ledger(|_| {
                    for n in 0..ITEMS {
                        let mut item = boxed(sender * ITEMS + n);
                        while let Err(TrySendError::Full(back)) = channel.try_send(item) {
                            item = back;
                            std::thread::yield_now();
                        }
                    }
                });
            });
        }
        let receiver = || {
            let mut all = Vec::new();
            on_fresh_ledger(|_| {
                while all.len() < (SENDERS * ITEMS / 2) as usize {
                    match channel.try_recv() {
                        Ok(item) => all.push(*item),
                        Err(_) => std::thread::yield_now(),
                    }
                }
            });
            all
        };
        let receivers = [scope.spawn(receiver), scope.spawn(receiver)];
        receivers.map(|receiver| receiver.join().unwrap()).into()
    });
    for one in &received {
        for sender in 0..SENDERS {
            let from: Vec<_> = one.iter().filter(|item| **item / ITEMS == sender).collect();
            assert!(from.is_sorted(), "a sender's items came out of order");
        }
    }
    let mut all: Vec<_> = received.concat();
    all.sort_unstable();
    assert!(all.into_iter().eq(0..SENDERS * ITEMS));
}

#[test]
fn threads_that_send_and_receive_at_once_lose_nothing_and_keep_each_sender_s_order() {
    stress::<1>();
    stress::<2>();
    stress::<7>();
}
