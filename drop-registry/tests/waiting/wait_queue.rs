//! The queue by itself.

use std::sync::atomic::{AtomicU32, Ordering};

use drop_registry::WaitQueue;
use drop_registry::hosted::{Hosted, Stop};

use crate::machine;

/// Something to be taken, one by one.
struct Shared {
    ready: AtomicU32,
    taken: AtomicU32,
    queue: WaitQueue<Hosted>,
}

impl Shared {
    fn leaked() -> &'static Self {
        Box::leak(Box::new(Self {
            ready: AtomicU32::new(0),
            taken: AtomicU32::new(0),
            queue: WaitQueue::new(),
        }))
    }

    fn take(&self) {
        let less = |ready: u32| ready.checked_sub(1);
        let attempt = || {
            let taken = self.ready.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less);
            taken.ok().map(|_| Ok::<_, drop_registry::LedgerFull>(()))
        };
        self.queue.wait_until(attempt).unwrap();
        self.taken.fetch_add(1, Ordering::Relaxed);
    }

    fn give(&self, count: u32) {
        self.ready.fetch_add(count, Ordering::SeqCst);
    }
}

#[test]
fn wake_ups_go_round() {
    let shared = Shared::leaked();
    let machine = machine();
    let waiters: Vec<_> = (0..3).map(|_| machine.spawn(|| shared.take())).collect();
    for waiter in &waiters {
        assert_eq!(machine.run(*waiter, None), Stop::Parked);
    }
    shared.queue.wake_one_after(|| shared.give(1)).unwrap();
    assert_eq!(machine.run(waiters[0], None), Stop::Finished);
    let again = machine.spawn(|| shared.take());
    assert_eq!(machine.run(again, None), Stop::Parked);
    for expected in [waiters[1], waiters[2], again] {
        shared.queue.wake_one_after(|| shared.give(1)).unwrap();
        assert_eq!(machine.run(expected, None), Stop::Finished);
    }
    assert!(shared.queue.is_empty());
}

#[test]
fn a_panic_in_a_wait_leaves_the_queue_and_passes_the_wake_up_on() {
    let shared = Shared::leaked();
    let machine = machine();
    let panics = machine.spawn(|| {
        let attempt = || match shared.ready.load(Ordering::SeqCst) {
            0 => None::<Result<(), drop_registry::LedgerFull>>,
            _ => std::panic::resume_unwind(Box::new(())),
        };
        shared.queue.wait_until(attempt).unwrap();
    });
    let takes = machine.spawn(|| shared.take());
    assert_eq!(machine.run(panics, None), Stop::Parked);
    assert_eq!(machine.run(takes, None), Stop::Parked);
    shared.queue.wake_one_after(|| shared.give(1)).unwrap();
    assert_eq!(machine.run(panics, None), Stop::Panicked);
    assert_eq!(machine.run(takes, None), Stop::Finished);
    assert!(shared.queue.is_empty());
}

#[test]
fn waiting_twice_in_one_queue_is_refused() {
    let shared = Shared::leaked();
    let machine = machine();
    let task = machine.spawn(|| {
        let outer = std::panic::catch_unwind(|| {
            shared.queue.wait_until(|| {
                shared.take();
                Some(Ok::<_, drop_registry::LedgerFull>(()))
            })
        });
        assert!(outer.is_err());
    });
    assert_eq!(machine.run(task, None), Stop::Finished);
    assert!(shared.queue.is_empty());
}
