//! The queue by itself: who waits for something, and who makes it true.

use std::sync::atomic::{AtomicU64, Ordering};

use drop_registry::hosted::{Hosted, yield_now};
use drop_registry::{LedgerFull, WaitQueue};

use super::leak;
use crate::operation::{Audit, Findings, Operation, World, each_on, marked};

pub(super) const OPERATIONS: &[Operation] = &[
    Operation { name: "queue wait, true at once", world: || among(1, takes, &[]) },
    Operation { name: "queue wait, woken", world: || among(0, takes, &[gives_later]) },
    Operation {
        name: "queue wait, one of two is woken",
        world: || among(0, takes, &[takes, gives_later]),
    },
    Operation {
        name: "queue wait, all are woken",
        world: || among(0, takes, &[takes, gives_two_later]),
    },
    Operation {
        name: "queue wait refused, another waits",
        world: || among(0, refuses, &[takes, gives_later]),
    },
    Operation { name: "queue wake one, nobody waits", world: || among(0, gives, &[]) },
    Operation { name: "queue wake one, others wait", world: || among(0, gives, &[takes, takes]) },
    Operation {
        name: "queue wake one after another, others wait",
        world: || among(0, gives_twice, &[takes, takes]),
    },
    Operation {
        name: "queue wake all, others wait",
        world: || among(0, gives_two, &[takes, takes]),
    },
];

/// Something to be taken, one by one.
struct Site {
    ready: AtomicU64,
    queue: WaitQueue<Hosted>,
}

/// What one of several tasks does.
type Use = fn(&Site);

impl Site {
    fn try_take(&self) -> Option<Result<(), LedgerFull>> {
        let less = |ready: u64| ready.checked_sub(1);
        let taken = self.ready.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less);
        taken.ok().map(|_| Ok(()))
    }

    fn give(&self, count: u64) {
        self.ready.fetch_add(count, Ordering::SeqCst);
    }
}

fn takes(site: &Site) {
    let _ = site.queue.wait_until(|| site.try_take());
}

/// Waits until there is something, and does not take it.
fn refuses(site: &Site) {
    let _ = site
        .queue
        .wait_until(|| (site.ready.load(Ordering::SeqCst) > 0).then_some(Err::<(), _>(LedgerFull)));
}

fn gives(site: &Site) {
    let _ = site.queue.wake_one_after(|| site.give(1));
}

fn gives_twice(site: &Site) {
    gives(site);
    gives(site);
}

fn gives_two(site: &Site) {
    let _ = site.queue.wake_all_after(|| site.give(2));
}

fn gives_later(site: &Site) {
    yield_now();
    gives(site);
}

fn gives_two_later(site: &Site) {
    yield_now();
    gives_two(site);
}

struct Among {
    site: &'static Site,
    operation: Use,
    others: &'static [Use],
}

fn among(ready: u64, operation: Use, others: &'static [Use]) -> Box<dyn World> {
    let site = leak(Site { ready: AtomicU64::new(ready), queue: WaitQueue::new() });
    Box::new(Among { site, operation, others })
}

impl World for Among {
    fn victim(&self) -> Box<dyn FnOnce()> {
        marked(self.site, self.operation)
    }

    fn bystanders(&self) -> Vec<Box<dyn FnOnce()>> {
        each_on(self.site, self.others)
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
