//! A channel whose senders and receivers sleep: whoever dies, nobody sleeps on while there is
//! something to do, and nothing is lost.

use drop_registry::hosted::{Hosted, yield_now};
use drop_registry::{Channel, Park, TrackedBox, TrackedHeap};

use crate::sweep::{Scene, kill_everywhere};

type Pipe = Channel<TrackedBox<u64, Hosted>, 1, Park>;

#[test]
fn whoever_dies_no_receiver_sleeps_beside_an_item_and_no_sender_beside_room() {
    let played = kill_everywhere(|machine| {
        let channel: &'static Pipe = Box::leak(Box::new(Pipe::new()));
        let taken_before = Hosted::heap().bytes_taken();
        let sends = |items: u64| {
            move || {
                yield_now();
                for n in 0..items {
                    channel.send(TrackedBox::new(n).unwrap()).unwrap();
                }
            }
        };
        let receives = |items: u64| {
            move || {
                yield_now();
                for _ in 0..items {
                    drop(channel.recv().unwrap());
                }
            }
        };
        let tasks =
            vec![machine.spawn(receives(2)), machine.spawn(sends(2)), machine.spawn(sends(1))];
        Scene {
            tasks,
            died: Box::new(|_| ()),
            check: Box::new(move |_, _, asleep| {
                let is_receiver = |role: &&usize| **role == 0;
                let receivers = asleep.iter().filter(is_receiver).count();
                let senders = asleep.len() - receivers;
                assert!(receivers == 0 || channel.is_empty(), "a receiver sleeps beside an item");
                assert!(senders == 0 || channel.len() == 1, "a sender sleeps beside room");
                // Each has a block of 16 bytes.
                let taken = Hosted::heap().bytes_taken() - taken_before;
                assert_eq!(
                    taken,
                    16 * (channel.len() + senders),
                    "an item is lost, or there twice"
                );
            }),
        }
    });
    assert!(played.killed > 1000, "{played:?}");
}
