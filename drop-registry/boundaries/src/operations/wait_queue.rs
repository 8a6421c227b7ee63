//! The queue by itself, of one word or of two: who waits for something, and who makes it true.

use std::sync::atomic::{AtomicU64, Ordering};

use drop_registry::hosted::{Hosted, yield_now};
use drop_registry::{LedgerFull, Parker, WaitQueue};

use super::leak;
use super::scattered::Scattered;
use crate::operation::{Audit, Companion, Findings, Operation, World, each_on, marked};

/// The operations on queues of this many words.
macro_rules! operations {
    ($L:ty, $WORDS:literal, $queue:literal) => {
        &[
            Operation {
                name: concat!($queue, " wait, true at once"),
                world: || among::<$L, $WORDS>(1, takes, &[]),
            },
            Operation {
                name: concat!($queue, " wait, woken"),
                world: || among::<$L, $WORDS>(0, takes, &[gives_later]),
            },
            Operation {
                name: concat!($queue, " wait, one of two is woken"),
                world: || among::<$L, $WORDS>(0, takes, &[takes, gives_later]),
            },
            Operation {
                name: concat!($queue, " wait, all are woken"),
                world: || among::<$L, $WORDS>(0, takes, &[takes, gives_two_later]),
            },
            Operation {
                name: concat!($queue, " wait, its waker dies first"),
                world: || dying::<$L, $WORDS>(Companion::First, &[gives_twice_later, takes]),
            },
            Operation {
                name: concat!($queue, " wait, its waker dies next"),
                world: || dying::<$L, $WORDS>(Companion::Last, &[gives_twice_later, takes]),
            },
            Operation {
                name: concat!($queue, " wait refused, another waits"),
                world: || among::<$L, $WORDS>(0, refuses, &[takes, gives_later]),
            },
            Operation {
                name: concat!($queue, " wake one, nobody waits"),
                world: || among::<$L, $WORDS>(0, gives, &[]),
            },
            Operation {
                name: concat!($queue, " wake one, others wait"),
                world: || among::<$L, $WORDS>(0, gives, &[takes, takes]),
            },
            Operation {
                name: concat!($queue, " wake one after another, others wait"),
                world: || among::<$L, $WORDS>(0, gives_twice, &[takes, takes]),
            },
            Operation {
                name: concat!($queue, " wake all, others wait"),
                world: || among::<$L, $WORDS>(0, gives_two, &[takes, takes]),
            },
        ]
    };
}

pub(super) const OPERATIONS: &[Operation] = operations!(Hosted, 1, "queue");
pub(super) const WIDE: &[Operation] = operations!(Scattered, 2, "wide queue");

/// Something to be taken, one by one.
struct Site<L, const WORDS: usize> {
    ready: AtomicU64,
    queue: WaitQueue<L, WORDS>,
}

/// What one of several tasks does.
type Use<L, const WORDS: usize> = fn(&Site<L, WORDS>);

impl<L: Parker, const WORDS: usize> Site<L, WORDS> {
    fn try_take(&self) -> Option<Result<(), LedgerFull>> {
        let less = |ready: u64| ready.checked_sub(1);
        let taken = self.ready.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less);
        taken.ok().map(|_| Ok(()))
    }

    fn give(&self, count: u64) {
        self.ready.fetch_add(count, Ordering::SeqCst);
    }
}

fn takes<L: Parker, const WORDS: usize>(site: &Site<L, WORDS>) {
    let _ = site.queue.wait_until(|| site.try_take());
}

/// Waits until there is something, and does not take it.
fn refuses<L: Parker, const WORDS: usize>(site: &Site<L, WORDS>) {
    let _ = site
        .queue
        .wait_until(|| (site.ready.load(Ordering::SeqCst) > 0).then_some(Err::<(), _>(LedgerFull)));
}

fn gives<L: Parker, const WORDS: usize>(site: &Site<L, WORDS>) {
    let _ = site.queue.wake_one_after(|| site.give(1));
}

fn gives_twice<L: Parker, const WORDS: usize>(site: &Site<L, WORDS>) {
    gives(site);
    gives(site);
}

fn gives_two<L: Parker, const WORDS: usize>(site: &Site<L, WORDS>) {
    let _ = site.queue.wake_all_after(|| site.give(2));
}

fn gives_later<L: Parker, const WORDS: usize>(site: &Site<L, WORDS>) {
    yield_now();
    gives(site);
}

fn gives_twice_later<L: Parker, const WORDS: usize>(site: &Site<L, WORDS>) {
    yield_now();
    gives_twice(site);
}

fn gives_two_later<L: Parker, const WORDS: usize>(site: &Site<L, WORDS>) {
    yield_now();
    gives_two(site);
}

struct Among<L: Parker + 'static, const WORDS: usize> {
    site: &'static Site<L, WORDS>,
    operation: Use<L, WORDS>,
    others: &'static [Use<L, WORDS>],
    companion: Option<Companion>,
}

fn among<L: Parker + 'static, const WORDS: usize>(
    ready: u64,
    operation: Use<L, WORDS>,
    others: &'static [Use<L, WORDS>],
) -> Box<dyn World> {
    let site = leak(Site { ready: AtomicU64::new(ready), queue: WaitQueue::new() });
    Box::new(Among { site, operation, others, companion: None })
}

/// With a waker that dies with the victim.
fn dying<L: Parker + 'static, const WORDS: usize>(
    companion: Companion,
    others: &'static [Use<L, WORDS>],
) -> Box<dyn World> {
    let site = leak(Site { ready: AtomicU64::new(0), queue: WaitQueue::new() });
    Box::new(Among { site, operation: takes, others, companion: Some(companion) })
}

impl<L: Parker + 'static, const WORDS: usize> World for Among<L, WORDS> {
    fn victim(&self) -> Box<dyn FnOnce()> {
        marked(self.site, self.operation)
    }

    fn bystanders(&self) -> Vec<Box<dyn FnOnce()>> {
        each_on(self.site, self.others)
    }

    fn companion(&self) -> Option<Companion> {
        self.companion
    }

    fn audit(&mut self, audit: &mut Audit<'_>) {
        let site = self.site;
        // Nobody sleeps beside what he waits for.
        let waiting = audit.run_bystanders() as u64;
        audit.require(waiting == 0 || site.ready.load(Ordering::SeqCst) == 0, Findings::STUCK);
        audit.require(waiting > 0 || site.queue.is_empty(), Findings::LEAKED);
        // Who still waits gets what he waits for, and then nobody is left.
        audit.run(move || site.queue.wake_all_after(|| site.give(waiting)));
        audit.finish_bystanders();
        audit.require(site.queue.is_empty(), Findings::LEAKED);
    }

    fn state(&self) -> String {
        format!("{:?} {:?}", self.site.queue, self.site.ready)
    }
}
