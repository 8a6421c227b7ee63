//! A value that is made once, alone and with others who want it too, and take turns or sleep.

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use drop_registry::hosted::{Hosted, yield_now};
use drop_registry::{Lazy, Once, Park, WaitError};

use super::exclusive::{Answer, next_answer};
use super::mutex::{self, Turns};
use super::tasks::nobody_waits;
use super::{Waits, leak};
use crate::operation::{Audit, Companion, Findings, Operation, World, each_on, marked};

/// Several words, written one by one, so that a value that is not whole shows.
type Value = [u64; 12];

/// The operations of one wait strategy.
macro_rules! operations {
    ($R:ty, $once:literal, $lazy:literal) => {
        &[
            Operation { name: concat!($once, " call_once"), world: || alone::<$R>(make) },
            Operation {
                name: concat!($once, " call_once twice"),
                world: || alone::<$R>(make_twice),
            },
            Operation {
                name: concat!($once, " inside itself (refused)"),
                world: || alone::<$R>(make_recursively),
            },
            Operation {
                name: concat!($once, " call_once with a lock"),
                world: || alone::<$R>(make_under_a_lock),
            },
            Operation {
                name: concat!($once, " call_once, another makes it"),
                world: || with_others::<$R>(make, &[makes_it]),
            },
            Operation {
                name: concat!($once, " call_once, another makes it, a third waits"),
                world: || with_others::<$R>(make, &[makes_it, wants_it]),
            },
            Operation {
                name: concat!($once, " call_once, its maker dies first"),
                world: || dying::<$R>(Companion::First, &[makes_it_and_dies, wants_it]),
            },
            Operation {
                name: concat!($once, " call_once, its maker dies next"),
                world: || dying::<$R>(Companion::Last, &[makes_it_and_dies, wants_it]),
            },
            Operation {
                name: concat!($once, " call_once, others wait"),
                world: || with_others::<$R>(make_long, &[wants_it, wants_it]),
            },
            Operation {
                name: concat!($lazy, " force"),
                world: || world::<$R>(Ask::LAZY, force, &[]),
            },
        ]
    };
}

pub(super) const OPERATIONS: &[Operation] = operations!(Turns, "once", "lazy");
pub(super) const PARKING: &[Operation] = operations!(Park, "parking once", "parking lazy");

/// Who made a value is what its words are.
const VICTIM: u64 = 1;
const OTHER: u64 = 2;
const AUDITOR: u64 = 3;

struct Site<R: Waits> {
    once: Once<Value, Hosted, R>,
    lazy: Lazy<Value, Hosted, R>,
    /// Taken while the value is made.
    lock: mutex::Lock<u64>,
    /// How many others have got the value.
    served: AtomicU64,
    /// Whether somebody got one that was not whole, or not the one that the others got.
    wrong: AtomicBool,
    /// What the first one got.
    first: AtomicU64,
}

impl<R: Waits> Site<R> {
    /// Notes what somebody got.
    fn got(&self, value: &Value) {
        let by = value[0];
        if value.iter().any(|word| *word != by) || !(VICTIM..=AUDITOR).contains(&by) {
            self.wrong.store(true, Relaxed);
        }
        match self.first.load(Relaxed) {
            0 => self.first.store(by, Relaxed),
            first if first != by => self.wrong.store(true, Relaxed),
            _ => {}
        }
    }
}

fn value(by: u64) -> Value {
    let mut value = [0; 12];
    for word in &mut value {
        // One store each.
        *black_box(word) = by;
    }
    value
}

/// What the victim does.
type Use<R> = fn(&'static Site<R>);

fn make<R: Waits>(site: &'static Site<R>) {
    let made = site.once.call_once(|| value(VICTIM)).expect("it is not being made by itself");
    site.got(made);
}

fn make_twice<R: Waits>(site: &'static Site<R>) {
    make(site);
    make(site);
}

fn make_recursively<R: Waits>(site: &'static Site<R>) {
    let made = site.once.call_once(|| {
        let inner = site.once.call_once(|| value(OTHER));
        assert_eq!(inner, Err(WaitError::Recursive));
        value(VICTIM)
    });
    site.got(made.expect("the outer one is as any"));
}

fn make_under_a_lock<R: Waits>(site: &'static Site<R>) {
    let made = site.once.call_once(|| match site.lock.lock() {
        Ok(mut count) => {
            *count += 1;
            value(VICTIM)
        }
        Err(_) => unreachable!("nobody has died yet"),
    });
    site.got(made.expect("it is not being made by itself"));
}

fn make_long<R: Waits>(site: &'static Site<R>) {
    let made = site.once.call_once(|| {
        yield_now();
        let value = value(VICTIM);
        yield_now();
        value
    });
    site.got(made.expect("it is not being made by itself"));
}

fn force<R: Waits>(site: &'static Site<R>) {
    site.got(Lazy::force(&site.lazy).expect("it is not being made by itself"));
}

/// For another one: makes it first, and takes a while.
fn makes_it<R: Waits>(site: &'static Site<R>) {
    makes_it_and_dies(site);
    site.served.fetch_add(1, Relaxed);
}

/// For another one, which need not come to its end.
fn makes_it_and_dies<R: Waits>(site: &'static Site<R>) {
    let made = site.once.call_once(|| {
        for _ in 0..3 {
            yield_now();
        }
        value(OTHER)
    });
    site.got(made.expect("it comes first"));
}

/// For another one: comes while it is made.
fn wants_it<R: Waits>(site: &'static Site<R>) {
    yield_now();
    site.got(site.once.call_once(|| value(OTHER)).expect("it waits for others alone"));
    site.served.fetch_add(1, Relaxed);
}

/// How a value is asked for.
struct Ask<R: Waits> {
    get: fn(&'static Site<R>) -> Option<&'static Value>,
    /// Makes it, if it is not there.
    force: fn(&'static Site<R>, u64) -> Result<&'static Value, WaitError>,
}

impl<R: Waits> Ask<R> {
    const ONCE: Self =
        Self { get: |site| site.once.get(), force: |site, by| site.once.call_once(|| value(by)) };

    const LAZY: Self =
        Self { get: |site| Lazy::get(&site.lazy), force: |site, _| Lazy::force(&site.lazy) };
}

struct Maker<R: Waits> {
    site: &'static Site<R>,
    ask: Ask<R>,
    operation: Use<R>,
    others: &'static [Use<R>],
    companion: Option<Companion>,
    there_at_death: bool,
    lock_held_at_death: bool,
}

fn world<R: Waits>(ask: Ask<R>, operation: Use<R>, others: &'static [Use<R>]) -> Box<dyn World> {
    Box::new(maker(ask, operation, others))
}

fn maker<R: Waits>(ask: Ask<R>, operation: Use<R>, others: &'static [Use<R>]) -> Maker<R> {
    let site = leak(Site {
        once: Once::new(),
        lazy: Lazy::new(|| value(VICTIM)),
        lock: mutex::Lock::new(0),
        served: AtomicU64::new(0),
        wrong: AtomicBool::new(false),
        first: AtomicU64::new(0),
    });
    Maker {
        site,
        ask,
        operation,
        others,
        companion: None,
        there_at_death: false,
        lock_held_at_death: false,
    }
}

fn alone<R: Waits>(operation: Use<R>) -> Box<dyn World> {
    world(Ask::ONCE, operation, &[])
}

fn with_others<R: Waits>(operation: Use<R>, others: &'static [Use<R>]) -> Box<dyn World> {
    world(Ask::ONCE, operation, others)
}

/// With a maker that dies with the victim.
fn dying<R: Waits>(companion: Companion, others: &'static [Use<R>]) -> Box<dyn World> {
    Box::new(Maker { companion: Some(companion), ..maker(Ask::ONCE, make, others) })
}

impl<R: Waits> World for Maker<R> {
    fn victim(&self) -> Box<dyn FnOnce()> {
        marked(self.site, self.operation)
    }

    fn bystanders(&self) -> Vec<Box<dyn FnOnce()>> {
        each_on(self.site, self.others)
    }

    fn companion(&self) -> Option<Companion> {
        self.companion
    }

    fn bystanders_run_before_settlement(&self) -> bool {
        false
    }

    fn at_death(&mut self) {
        let site = self.site;
        self.there_at_death = (self.ask.get)(site).is_some();
        self.lock_held_at_death = site.lock.is_locked();
    }

    fn audit(&mut self, audit: &mut Audit<'_>) {
        let site = self.site;
        // A value that was there stays there, and one that was not is not there by a death.
        let there = (self.ask.get)(site);
        audit.require(there.is_some() || !self.there_at_death, Findings::TORN);
        if let Some(value) = there {
            let by_another = value[0] == OTHER && !self.others.is_empty();
            audit.require(by_another || self.there_at_death, Findings::TORN);
            site.got(value);
        }
        let others = (self.others.len() - usize::from(self.companion.is_some())) as u64;
        audit.finish_bystanders();
        audit.require(site.served.load(Relaxed) == others, Findings::STUCK);
        let force = self.ask.force;
        let made = audit.run(move || force(site, AUDITOR).map(|value| site.got(value)));
        audit.require(made == Some(Ok(())), Findings::LEAKED);
        audit.require(!site.wrong.load(Relaxed), Findings::TORN);
        audit.require(!site.lock.is_locked(), Findings::LEAKED);
        let expected = if self.lock_held_at_death { Answer::OwnerDied } else { Answer::Held };
        let answer = audit.run(move || next_answer(&site.lock));
        audit.require(answer == Some(expected), Findings::UNTOLD);
        audit.require(nobody_waits(&site.once) && nobody_waits(&site.lazy), Findings::LEAKED);
    }

    fn state(&self) -> String {
        let Site { once, lazy, lock, .. } = self.site;
        format!("{once:?} {lazy:?} {lock:?}")
    }
}
