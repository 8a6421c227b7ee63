//! Sleeping tasks of the machine of this thread.
#![expect(unsafe_code, reason = "implements an unsafe trait")]

use core::cell::Cell;
use core::ptr;
use core::sync::atomic::{AtomicBool, Ordering};
use std::thread_local;

use super::current::{Hosted, Stop, stop_running};
use super::signals;
use crate::{Ledger, OwnLedger, Parker};

/// What is to be known of a task that can sleep.
struct Sleeper {
    ledger: Cell<*const Ledger>,
    /// Taken and set by one instruction each: a task can be stopped between any two.
    token: AtomicBool,
}

thread_local! {
    /// By task number.
    static SLEEPERS: [Sleeper; Hosted::TASKS] = const {
        [const { Sleeper { ledger: Cell::new(ptr::null()), token: AtomicBool::new(false) } }; Hosted::TASKS]
    };
}

/// Forgets the tasks of the thread's last machine.
pub(super) fn clear() {
    SLEEPERS.with(|all| {
        for sleeper in all {
            sleeper.ledger.set(ptr::null());
            sleeper.token.store(false, Ordering::Relaxed);
        }
    });
}

/// Enters a new task; one beyond the last number cannot sleep.
pub(super) fn enter(number: usize, ledger: *const Ledger) {
    SLEEPERS.with(|all| {
        if let Some(sleeper) = all.get(number) {
            sleeper.ledger.set(ledger);
            sleeper.token.store(false, Ordering::Relaxed);
        }
    });
}

/// Whether a parked task is to go on.
pub(super) fn is_unparked(number: usize) -> bool {
    SLEEPERS
        .with(|all| all.get(number).is_some_and(|sleeper| sleeper.token.load(Ordering::Relaxed)))
}

// SAFETY: a machine's tasks have numbers of their own, for as long as it lives, and whoever made it
// promised that they sleep for nothing that another machine's do; a token is one byte of that
// thread, and setting it neither allocates nor locks. All is seen in program order, because there
// is one thread.
unsafe impl Parker for Hosted {
    const TASKS: usize = 32;

    /// The first 32 tasks of a machine can sleep, and nobody else.
    fn index(ledger: &Ledger) -> usize {
        let here = SLEEPERS.with(|all| all.iter().position(|it| ptr::eq(it.ledger.get(), ledger)));
        here.unwrap_or(Self::TASKS)
    }

    fn park() {
        assert!(signals::in_task(), "the machine's owner cannot sleep");
        let me = Self::index(OwnLedger::<Self>::current().as_ledger());
        SLEEPERS.with(|all| {
            assert!(me < Self::TASKS, "only the first 32 tasks of a machine can sleep");
            while !take(&all[me].token) {
                stop_running(Stop::Parked);
            }
        });
    }

    fn unpark(index: usize) {
        SLEEPERS.with(|all| all[index].token.store(true, Ordering::Relaxed));
    }
}

/// Takes the token, and says whether it was set.
fn take(token: &AtomicBool) -> bool {
    if planted!(TokenInTwoSteps) {
        let set = token.load(Ordering::Relaxed);
        token.store(false, Ordering::Relaxed);
        return set;
    }
    token.swap(false, Ordering::Relaxed)
}
