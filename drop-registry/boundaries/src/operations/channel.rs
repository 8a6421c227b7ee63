//! The channel: sending, receiving, waiting for either, taking turns or asleep, and others that go
//! on where the dead stopped.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use drop_registry::hosted::{Hosted, yield_now};
use drop_registry::{Channel, DropAfterTear, Park, Shared, TrackedBox, TrackedHeap};

use super::mutex::Turns;
use super::tasks::nobody_waits;
use super::{Waits, leak};
use crate::operation::{Audit, Companion, Findings, Operation, World, begin, each_on, end};

const CAPACITY: usize = 2;

type Boxes<R> = Channel<TrackedBox<Item, Hosted>, CAPACITY, R>;
type Shares<R> = Channel<Shared<Item, Hosted>, CAPACITY, R>;

/// The operations of one wait strategy.
macro_rules! operations {
    ($R:ty, $channel:literal) => {
        &[
            Operation { name: concat!($channel, " send"), world: || boxes::<$R>(1, send, &[]) },
            Operation {
                name: concat!($channel, " send into a full one (refused)"),
                world: || boxes::<$R>(2, send, &[]),
            },
            Operation {
                name: concat!($channel, " receive"),
                world: || boxes::<$R>(2, receive, &[]),
            },
            Operation {
                name: concat!($channel, " receive of nothing (refused)"),
                world: || boxes::<$R>(0, receive, &[]),
            },
            Operation {
                name: concat!($channel, " send and receive in turn"),
                world: || boxes::<$R>(1, round, &[]),
            },
            Operation {
                name: concat!($channel, " send, another sends next"),
                world: || boxes::<$R>(0, send, &[send_9]),
            },
            Operation {
                name: concat!($channel, " send, another receives next"),
                world: || boxes::<$R>(1, send, &[receive_late]),
            },
            Operation {
                name: concat!($channel, " receive, another sends next"),
                world: || boxes::<$R>(2, receive, &[send_9]),
            },
            Operation {
                name: concat!($channel, " receive, another receives next"),
                world: || boxes::<$R>(2, receive, &[receive_late]),
            },
            Operation {
                name: concat!($channel, " send, waits for room"),
                world: || boxes::<$R>(2, send_waiting, &[receive_late]),
            },
            Operation {
                name: concat!($channel, " send, two wait for room"),
                world: || boxes::<$R>(2, send_waiting, &[send_9, receive_late, receive_late]),
            },
            Operation {
                name: concat!($channel, " receive, waits for an item"),
                world: || boxes::<$R>(0, receive_waiting, &[send_9]),
            },
            Operation {
                name: concat!($channel, " receive, two wait for an item"),
                world: || boxes::<$R>(0, receive_waiting, &[receive_late, send_9]),
            },
            Operation {
                name: concat!($channel, " send, waits for room, its receiver dies first"),
                world: || {
                    dying::<$R>(
                        2,
                        send_waiting,
                        Companion::First,
                        &[receives_and_dies, receive_late],
                    )
                },
            },
            Operation {
                name: concat!($channel, " send, waits for room, its receiver dies next"),
                world: || {
                    dying::<$R>(
                        2,
                        send_waiting,
                        Companion::Last,
                        &[receives_and_dies, receive_late],
                    )
                },
            },
            Operation {
                name: concat!($channel, " receive, waits for an item, its sender dies first"),
                world: || {
                    dying::<$R>(0, receive_waiting, Companion::First, &[sends_and_dies, send_9])
                },
            },
            Operation {
                name: concat!($channel, " receive, waits for an item, its sender dies next"),
                world: || {
                    dying::<$R>(0, receive_waiting, Companion::Last, &[sends_and_dies, send_9])
                },
            },
            Operation {
                name: concat!($channel, " send, others wait for an item"),
                world: || boxes::<$R>(0, send, &[receives, receives]),
            },
            Operation {
                name: concat!($channel, " receive, others wait for room"),
                world: || boxes::<$R>(2, receive_late_on, &[send_8, send_9]),
            },
            Operation {
                name: concat!($channel, " send, others go on meanwhile"),
                world: || churned::<$R>(0, send),
            },
            Operation {
                name: concat!($channel, " receive, others go on meanwhile"),
                world: || churned::<$R>(1, receive),
            },
            Operation {
                name: concat!($channel, " send of a clone, receive"),
                world: || shares::<$R>(),
            },
        ]
    };
}

pub(super) const OPERATIONS: &[Operation] = operations!(Turns, "channel");
pub(super) const PARKING: &[Operation] = operations!(Park, "parking channel");

/// What goes through a channel: a number, which is known when it is dropped.
#[derive(Debug)]
struct Item {
    number: u64,
    drops: &'static [AtomicU64; 10],
}

impl Drop for Item {
    fn drop(&mut self) {
        self.drops[self.number as usize].fetch_add(1, Relaxed);
    }
}

#[expect(unsafe_code, reason = "promises that the destructor bears a tear")]
// SAFETY: its fields are never reassigned.
unsafe impl DropAfterTear for Item {}

/// A channel, and what becomes of the items that go through it.
struct Site<R: Waits> {
    channel: Boxes<R>,
    drops: [AtomicU64; 10],
    /// How many of the others want to send or to receive, and have not.
    sending: AtomicU64,
    receiving: AtomicU64,
}

/// What one of several tasks does.
type Use<R> = fn(&'static Site<R>);

impl<R: Waits> Site<R> {
    fn item(&'static self, number: u64) -> TrackedBox<Item, Hosted> {
        let item = Item { number, drops: &self.drops };
        TrackedBox::new_droppable(item).expect("room on the heap")
    }

    /// For a bystander.
    fn send(&'static self, number: u64) {
        let item = self.item(number);
        self.sending.fetch_add(1, Relaxed);
        let _ = self.channel.send(item);
        self.sending.fetch_sub(1, Relaxed);
    }

    /// For a bystander.
    fn receive(&self) {
        self.receiving.fetch_add(1, Relaxed);
        let received = self.channel.recv();
        self.receiving.fetch_sub(1, Relaxed);
        yield_now();
        drop(received);
    }
}

fn send<R: Waits>(site: &'static Site<R>) {
    let item = site.item(5);
    begin();
    let refused = site.channel.try_send(item);
    end();
    drop(refused);
}

fn receive<R: Waits>(site: &'static Site<R>) {
    begin();
    let received = site.channel.try_recv();
    end();
    drop(received);
}

/// When the others have come to wait.
fn receive_late_on<R: Waits>(site: &'static Site<R>) {
    yield_now();
    receive(site);
}

fn round<R: Waits>(site: &'static Site<R>) {
    let item = site.item(5);
    begin();
    let refused = site.channel.try_send(item);
    let first = site.channel.try_recv();
    let second = site.channel.try_recv();
    end();
    drop((refused, first, second));
}

fn send_waiting<R: Waits>(site: &'static Site<R>) {
    let item = site.item(5);
    begin();
    let refused = site.channel.send(item);
    end();
    drop(refused);
}

fn receive_waiting<R: Waits>(site: &'static Site<R>) {
    begin();
    let received = site.channel.recv();
    end();
    drop(received);
}

/// For a bystander: it begins when the victim waits, or is dead.
fn send_9<R: Waits>(site: &'static Site<R>) {
    yield_now();
    site.send(9);
}

fn send_8<R: Waits>(site: &'static Site<R>) {
    yield_now();
    site.send(8);
}

fn receive_late<R: Waits>(site: &'static Site<R>) {
    yield_now();
    site.receive();
}

/// For a bystander that need not come to its end.
fn sends_and_dies<R: Waits>(site: &'static Site<R>) {
    yield_now();
    let _ = site.channel.send(site.item(7));
}

fn receives_and_dies<R: Waits>(site: &'static Site<R>) {
    yield_now();
    drop(site.channel.recv());
}

/// For a bystander that waits before the victim begins.
fn receives<R: Waits>(site: &'static Site<R>) {
    site.receive();
}

/// Every now and then an item passes through, for so long that the victim's exchange fails a few
/// times, and comes through in the end.
fn churn<R: Waits>(site: &'static Site<R>) {
    for turn in 0..80 {
        yield_now();
        if turn % 10 == 9 {
            let _ = site.channel.try_send(site.item(0));
            drop(site.channel.try_recv());
        }
    }
}

struct Boxed<R: Waits> {
    site: &'static Site<R>,
    filled: u64,
    operation: Use<R>,
    others: &'static [Use<R>],
    companion: Option<Companion>,
    interleaved: bool,
    heap_before: usize,
    len_at_death: usize,
}

/// A channel with the items 1 to `filled`. The victim's item, if it sends one, is 5.
fn boxes<R: Waits>(filled: u64, operation: Use<R>, others: &'static [Use<R>]) -> Box<dyn World> {
    Box::new(boxed(filled, operation, others))
}

/// With somebody on the other side that dies with the victim.
fn dying<R: Waits>(
    filled: u64,
    operation: Use<R>,
    companion: Companion,
    others: &'static [Use<R>],
) -> Box<dyn World> {
    Box::new(Boxed { companion: Some(companion), ..boxed(filled, operation, others) })
}

/// A channel that somebody else uses between the victim's instructions.
fn churned<R: Waits>(filled: u64, operation: Use<R>) -> Box<dyn World> {
    Box::new(Boxed { interleaved: true, ..boxed(filled, operation, &[churn]) })
}

fn boxed<R: Waits>(filled: u64, operation: Use<R>, others: &'static [Use<R>]) -> Boxed<R> {
    let heap_before = Hosted::heap().bytes_taken();
    let site = leak(Site {
        channel: Channel::new(),
        drops: [const { AtomicU64::new(0) }; 10],
        sending: AtomicU64::new(0),
        receiving: AtomicU64::new(0),
    });
    let (companion, interleaved, len_at_death) = (None, false, 0);
    Boxed { site, filled, operation, others, companion, interleaved, heap_before, len_at_death }
}

impl<R: Waits> World for Boxed<R> {
    fn victim(&self) -> Box<dyn FnOnce()> {
        let (site, filled, operation) = (self.site, self.filled, self.operation);
        Box::new(move || {
            for number in 1..=filled {
                site.channel.try_send(site.item(number)).expect("room in the channel");
            }
            operation(site);
        })
    }

    fn bystanders(&self) -> Vec<Box<dyn FnOnce()>> {
        each_on(self.site, self.others)
    }

    fn interleaved(&self) -> bool {
        self.interleaved
    }

    fn companion(&self) -> Option<Companion> {
        self.companion
    }

    fn at_death(&mut self) {
        self.len_at_death = self.site.channel.len();
    }

    fn destructors_begun(&self) -> u64 {
        self.site.drops.iter().map(|drops| drops.load(Relaxed)).sum()
    }

    fn audit(&mut self, audit: &mut Audit<'_>) {
        let site = self.site;
        let channel = &site.channel;
        if self.others.is_empty() {
            // The settlement neither fills a channel nor empties one.
            let len = channel.len();
            audit.require(len >= self.len_at_death, Findings::STOLEN);
            audit.require(len <= self.len_at_death, Findings::DOUBLED);
        }
        // Nobody waits beside an item, or beside room.
        audit.run_bystanders();
        let (receiving, sending) = (site.receiving.load(Relaxed), site.sending.load(Relaxed));
        audit.require(receiving == 0 || channel.is_empty(), Findings::STUCK);
        audit.require(sending == 0 || channel.len() == CAPACITY, Findings::STUCK);
        let numbers: &'static Cell<Vec<u64>> = leak(Cell::default());
        let drained = audit.run(move || {
            let mut all = Vec::new();
            // More often than there can be items.
            for _ in 0..2 * CAPACITY {
                all.extend(channel.try_recv().map(|item| item.number));
            }
            // What only passes through has no order.
            all.retain(|number| *number > 0);
            numbers.set(all);
            channel.is_empty()
        });
        audit.require(drained == Some(true), Findings::STUCK);
        let mut numbers = numbers.take();
        if audit.victim_lives() || self.others.len() > 1 {
            // Then the others may have sent before it, or in another order.
            numbers.retain(|number| *number < 8);
        }
        audit.require(numbers.is_sorted(), Findings::DOUBLED);
        // Whoever waits for an item gets one now; whoever sends has room.
        for _ in self.others {
            audit.run_bystanders();
            audit.run(move || match site.sending.load(Relaxed) {
                0 => drop(channel.try_send(site.item(0))),
                _ => drop(channel.try_recv()),
            });
        }
        audit.finish_bystanders();
        let _ = audit.run(move || while channel.try_recv().is_ok() {});
        audit.require(nobody_waits(channel), Findings::LEAKED);
        let works = audit.run(move || {
            let filled = (0..CAPACITY).all(|_| channel.try_send(site.item(0)).is_ok());
            let full = channel.try_send(site.item(0)).is_err();
            let emptied = (0..CAPACITY).all(|_| channel.try_recv().is_ok());
            filled && full && emptied && channel.try_recv().is_err()
        });
        audit.require(works == Some(true), Findings::STUCK);
        for drops in &site.drops[1..] {
            audit.require(drops.load(Relaxed) <= 1, Findings::DOUBLED);
        }
        audit.require_heap(self.heap_before);
    }

    fn state(&self) -> String {
        format!("{:?}", self.site.channel)
    }
}

/// A value that the world's own channel has a share of, too.
struct SharesSent<R: Waits> {
    channel: &'static Shares<R>,
    drops: &'static [AtomicU64; 10],
    heap_before: usize,
    len_at_death: usize,
}

fn shares<R: Waits>() -> Box<dyn World> {
    let heap_before = Hosted::heap().bytes_taken();
    let drops = leak([const { AtomicU64::new(0) }; 10]);
    let channel = leak(Shares::<R>::new());
    Box::new(SharesSent { channel, drops, heap_before, len_at_death: 0 })
}

impl<R: Waits> World for SharesSent<R> {
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

    fn destructors_begun(&self) -> u64 {
        self.drops[1].load(Relaxed)
    }

    fn audit(&mut self, audit: &mut Audit<'_>) {
        let channel = self.channel;
        let expected = self.len_at_death;
        audit.require(channel.len() == expected, Findings::STOLEN);
        let alive = self.drops[1].load(Relaxed) == 0;
        audit.require(alive || expected == 0, Findings::DOUBLED);
        let count = audit.run(move || channel.try_recv().ok().map(|share| Shared::count(&share)));
        // The victim's other share, if it had one, went with it.
        audit.require(count.flatten().is_none_or(|count| count == 1), Findings::LEAKED);
        audit.require_dropped(self.drops[1].load(Relaxed), self.heap_before);
    }
}
