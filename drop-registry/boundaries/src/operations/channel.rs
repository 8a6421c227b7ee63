//! The channel: sending, receiving, waiting for either, and others that go on where the dead stopped.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

use drop_registry::hosted::{Hosted, yield_now};
use drop_registry::{Channel, DropAfterTear, Shared, TrackedBox, TrackedHeap};

use super::leak;
use super::mutex::Turns;
use crate::operation::{Audit, Findings, Operation, World, begin, end};

const CAPACITY: usize = 2;

type Boxes = Channel<TrackedBox<Item, Hosted>, CAPACITY, Turns>;
type Shares = Channel<Shared<Item, Hosted>, CAPACITY, Turns>;

pub(super) const OPERATIONS: &[Operation] = &[
    Operation { name: "channel send", world: || boxes(1, send, None) },
    Operation { name: "channel send into a full one (refused)", world: || boxes(2, send, None) },
    Operation { name: "channel receive", world: || boxes(2, receive, None) },
    Operation { name: "channel receive of nothing (refused)", world: || boxes(0, receive, None) },
    Operation { name: "channel send and receive in turn", world: || boxes(1, round, None) },
    Operation { name: "channel send, another sends next", world: || boxes(0, send, Some(send_9)) },
    Operation {
        name: "channel send, another receives next",
        world: || boxes(1, send, Some(receive_late)),
    },
    Operation {
        name: "channel receive, another sends next",
        world: || boxes(2, receive, Some(send_9)),
    },
    Operation {
        name: "channel receive, another receives next",
        world: || boxes(2, receive, Some(receive_late)),
    },
    Operation {
        name: "channel send, waits for room",
        world: || boxes(2, send_waiting, Some(receive_late)),
    },
    Operation {
        name: "channel receive, waits for an item",
        world: || boxes(0, receive_waiting, Some(send_9)),
    },
    Operation { name: "channel send, others go on meanwhile", world: || churned(0, send) },
    Operation { name: "channel receive, others go on meanwhile", world: || churned(1, receive) },
    Operation { name: "channel send of a clone, receive", world: shares },
];

/// What goes through a channel: a number, which is known when it is dropped.
#[derive(Debug)]
struct Item {
    number: u64,
    drops: &'static [AtomicU64; 10],
}

impl Drop for Item {
    fn drop(&mut self) {
        self.drops[self.number as usize].fetch_add(1, Ordering::Relaxed);
    }
}

#[expect(unsafe_code, reason = "promises that the destructor bears a tear")]
// SAFETY: its fields are never reassigned.
unsafe impl DropAfterTear for Item {}

/// Who uses the channel, and with which items.
#[derive(Debug, Clone, Copy)]
struct Pipe {
    channel: &'static Boxes,
    drops: &'static [AtomicU64; 10],
}

impl Pipe {
    fn item(self, number: u64) -> TrackedBox<Item, Hosted> {
        TrackedBox::new_droppable(Item { number, drops: self.drops }).expect("room on the heap")
    }
}

struct Boxed {
    pipe: Pipe,
    filled: u64,
    operation: fn(Pipe),
    bystander: Option<fn(Pipe)>,
    interleaved: bool,
    heap_before: usize,
    len_at_death: usize,
}

/// A channel with the items 1 to `filled`. The victim's item, if it sends one, is 5.
fn boxes(filled: u64, operation: fn(Pipe), bystander: Option<fn(Pipe)>) -> Box<dyn World> {
    Box::new(boxed(filled, operation, bystander))
}

/// A channel that somebody else uses between the victim's instructions.
fn churned(filled: u64, operation: fn(Pipe)) -> Box<dyn World> {
    Box::new(Boxed { interleaved: true, ..boxed(filled, operation, Some(churn)) })
}

fn boxed(filled: u64, operation: fn(Pipe), bystander: Option<fn(Pipe)>) -> Boxed {
    let heap_before = Hosted::heap().bytes_taken();
    let pipe = Pipe { channel: leak(Boxes::new()), drops: leak([const { AtomicU64::new(0) }; 10]) };
    let (interleaved, len_at_death) = (false, 0);
    Boxed { pipe, filled, operation, bystander, interleaved, heap_before, len_at_death }
}

fn send(pipe: Pipe) {
    let item = pipe.item(5);
    begin();
    let refused = pipe.channel.try_send(item);
    end();
    drop(refused);
}

fn receive(pipe: Pipe) {
    begin();
    let received = pipe.channel.try_recv();
    end();
    drop(received);
}

fn round(pipe: Pipe) {
    let item = pipe.item(5);
    begin();
    let refused = pipe.channel.try_send(item);
    let first = pipe.channel.try_recv();
    let second = pipe.channel.try_recv();
    end();
    drop((refused, first, second));
}

fn send_waiting(pipe: Pipe) {
    let item = pipe.item(5);
    begin();
    let refused = pipe.channel.send(item);
    end();
    drop(refused);
}

fn receive_waiting(pipe: Pipe) {
    begin();
    let received = pipe.channel.recv();
    end();
    drop(received);
}

/// For a bystander: it begins when the victim waits, or is dead.
fn send_9(pipe: Pipe) {
    let item = pipe.item(9);
    yield_now();
    let _ = pipe.channel.send(item);
}

fn receive_late(pipe: Pipe) {
    yield_now();
    let received = pipe.channel.recv();
    yield_now();
    drop(received);
}

/// Every now and then an item passes through, for so long that the victim's exchange fails a few
/// times, and comes through in the end.
fn churn(pipe: Pipe) {
    for turn in 0..80 {
        yield_now();
        if turn % 10 == 9 {
            let _ = pipe.channel.try_send(pipe.item(0));
            drop(pipe.channel.try_recv());
        }
    }
}

impl World for Boxed {
    fn victim(&self) -> Box<dyn FnOnce()> {
        let (pipe, filled, operation) = (self.pipe, self.filled, self.operation);
        Box::new(move || {
            for number in 1..=filled {
                pipe.channel.try_send(pipe.item(number)).expect("room in the channel");
            }
            operation(pipe);
        })
    }

    fn bystanders(&self) -> Vec<Box<dyn FnOnce()>> {
        let pipe = self.pipe;
        self.bystander
            .map(|work| Box::new(move || work(pipe)) as Box<dyn FnOnce()>)
            .into_iter()
            .collect()
    }

    fn interleaved(&self) -> bool {
        self.interleaved
    }

    fn at_death(&mut self) {
        self.len_at_death = self.pipe.channel.len();
    }

    fn audit(&mut self, audit: &mut Audit<'_>) {
        let pipe = self.pipe;
        if self.bystander.is_none() {
            // The settlement neither fills a channel nor empties one.
            let len = self.pipe.channel.len();
            audit.require(len >= self.len_at_death, Findings::STOLEN);
            audit.require(len <= self.len_at_death, Findings::DOUBLED);
        }
        let numbers: &'static Cell<Vec<u64>> = leak(Cell::default());
        let drained = audit.run(move || {
            let mut all = Vec::new();
            // More often than there can be items.
            for _ in 0..2 * CAPACITY {
                all.extend(pipe.channel.try_recv().map(|item| item.number));
            }
            // What only passes through has no order.
            all.retain(|number| *number > 0);
            numbers.set(all);
            pipe.channel.is_empty()
        });
        audit.require(drained == Some(true), Findings::STUCK);
        let mut numbers = numbers.take();
        if audit.victim_lives() {
            // Then the other may have sent before it.
            numbers.retain(|number| *number != 9);
        }
        audit.require(numbers.is_sorted(), Findings::DOUBLED);
        // Whoever waits for an item gets one now; whoever sends has room.
        let _ = audit.run(move || pipe.channel.try_send(pipe.item(0)).is_ok());
        audit.finish_bystanders();
        let _ = audit.run(move || while pipe.channel.try_recv().is_ok() {});
        let works = audit.run(move || {
            let filled = (0..CAPACITY).all(|_| pipe.channel.try_send(pipe.item(0)).is_ok());
            let full = pipe.channel.try_send(pipe.item(0)).is_err();
            let emptied = (0..CAPACITY).all(|_| pipe.channel.try_recv().is_ok());
            filled && full && emptied && pipe.channel.try_recv().is_err()
        });
        audit.require(works == Some(true), Findings::STUCK);
        for drops in &pipe.drops[1..] {
            audit.require(drops.load(Ordering::Relaxed) <= 1, Findings::DOUBLED);
        }
        audit.require_heap(self.heap_before);
    }
}

/// A value that the world's own channel has a share of, too.
struct SharesSent {
    channel: &'static Shares,
    drops: &'static [AtomicU64; 10],
    heap_before: usize,
    len_at_death: usize,
}

fn shares() -> Box<dyn World> {
    let heap_before = Hosted::heap().bytes_taken();
    let drops = leak([const { AtomicU64::new(0) }; 10]);
    let channel = leak(Shares::new());
    Box::new(SharesSent { channel, drops, heap_before, len_at_death: 0 })
}

impl World for SharesSent {
    fn victim(&self) -> Box<dyn FnOnce()> {
        let (channel, drops) = (self.channel, self.drops);
        Box::new(move || {
            let value = Shared::new_droppable(Item { number: 1, drops }).expect("room on the heap");
            let another = value.try_clone().expect("room in the ledger");
            begin();
            let _ = channel.try_send(another);
            drop(value);
            let received = channel.try_recv();
            end();
            drop(received);
        })
    }

    fn at_death(&mut self) {
        self.len_at_death = self.channel.len();
    }

    fn audit(&mut self, audit: &mut Audit<'_>) {
        let channel = self.channel;
        let expected = self.len_at_death;
        audit.require(channel.len() == expected, Findings::STOLEN);
        let alive = self.drops[1].load(Ordering::Relaxed) == 0;
        audit.require(alive || expected == 0, Findings::DOUBLED);
        let count = audit.run(move || channel.try_recv().ok().map(|share| Shared::count(&share)));
        // The victim's other share, if it had one, went with it.
        audit.require(count.flatten().is_none_or(|count| count == 1), Findings::LEAKED);
        audit.require_dropped(self.drops[1].load(Ordering::Relaxed), self.heap_before);
    }
}
