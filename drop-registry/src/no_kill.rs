//! Where a task may be killed, and where it may not.
#![expect(unsafe_code, reason = "writes the ledger")]

use core::fmt;
use core::marker::PhantomData;

use crate::{
    CurrentLedger, Entry, Extent, Ledger, LedgerFull, Operations, Outcome, OwnLedger, ResourceKind,
    arch,
};

/// How a task learns that somebody wants it to end.
///
/// A kernel keeps a flag for each task, and has the one of the task that runs where a single load
/// finds it: in the per-CPU block, say, filled at each switch.
pub trait KillSwitch: CurrentLedger {
    /// Whether the calling task is wanted dead: one load.
    fn is_pulled() -> bool;

    /// Stops the calling task as one that was killed. It may come back, if a policy resumes it.
    fn stop();
}

/// A place where the calling task may end, for code that runs for long: if somebody wants it to, it
/// ends here. Otherwise this is one load and a branch that is not taken.
///
/// Inside of a [`NoKill`] section nothing happens.
#[inline(always)]
pub fn safepoint<L: KillSwitch>() {
    if L::is_pulled() {
        stop_if_allowed::<L>();
    }
}

#[cold]
#[inline(never)]
fn stop_if_allowed<L: KillSwitch>() {
    if OwnLedger::<L>::current().no_kill_depth() == 0 {
        L::stop();
    }
}

/// A section in which the task is not killed, until this is dropped: the kill waits for its end,
/// but not for ever; the keeper says how long. A fault is not kept waiting.
///
/// It is an entry of the task's ledger like all that it holds, so sections nest, and the keeper
/// counts them from outside.
///
/// ```
/// # use core::ptr::NonNull;
/// # use drop_registry::{CurrentLedger, KillSwitch, Ledger, NoKill, safepoint};
/// # struct Task;
/// # static LEDGER: Ledger = Ledger::new();
/// # unsafe impl CurrentLedger for Task {
/// #     fn current() -> NonNull<Ledger> { NonNull::from(&LEDGER) }
/// # }
/// # impl KillSwitch for Task {
/// #     fn is_pulled() -> bool { false }
/// #     fn stop() {}
/// # }
/// let section = NoKill::<Task>::enter()?;
/// // Two writes to a device that belong together.
/// drop(section);
/// safepoint::<Task>();
/// # Ok::<(), drop_registry::LedgerFull>(())
/// ```
#[must_use = "the section ends when it is dropped"]
pub struct NoKill<L: KillSwitch> {
    context: PhantomData<fn() -> L>,
    not_send: PhantomData<*mut ()>,
}

impl<L: KillSwitch> NoKill<L> {
    /// Begins a section.
    ///
    /// # Errors
    /// If the task's ledger has no room.
    #[inline(always)]
    pub fn enter() -> Result<Self, LedgerFull> {
        // SAFETY: the entry stands for nothing that could be let go of.
        unsafe { OwnLedger::<L>::current().record(resource(), &SECTION, arch::frame_address()) }?;
        Ok(Self { context: PhantomData, not_send: PhantomData })
    }
}

impl<L: KillSwitch> Drop for NoKill<L> {
    #[inline]
    fn drop(&mut self) {
        let ledger = OwnLedger::<L>::current();
        // All of a task's sections look the same, so any of them may be the one that ends.
        ledger.own(resource()).erase();
        ledger.trim();
        // What was put off until now.
        safepoint::<L>();
    }
}

impl<L: KillSwitch> fmt::Debug for NoKill<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NoKill").finish_non_exhaustive()
    }
}

impl Ledger {
    /// In how many [`NoKill`] sections the task is.
    pub fn no_kill_depth(&self) -> usize {
        self.held().filter(|entry| entry.has(&SECTION)).count()
    }
}

static SECTION: Operations = Operations::releasing(ResourceKind::NoKill, Extent::NOTHING, end);

/// What all sections are listed as.
fn resource() -> *mut () {
    core::ptr::from_ref(&SECTION).cast_mut().cast()
}

fn end(_: &Ledger, entry: &Entry) -> Outcome {
    entry.erase();
    Outcome::Released
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestTask;
    use core::cell::Cell;
    use std::thread_local;

    thread_local! {
        static PULLED: Cell<bool> = const { Cell::new(false) };
        static STOPS: Cell<u32> = const { Cell::new(0) };
    }

    impl KillSwitch for TestTask {
        fn is_pulled() -> bool {
            PULLED.get()
        }

        fn stop() {
            STOPS.set(STOPS.get() + 1);
        }
    }

    #[test]
    fn a_safepoint_stops_who_is_wanted_dead_and_nobody_else() {
        crate::testing::on_fresh_ledger(|_| {
            safepoint::<TestTask>();
            assert_eq!(STOPS.take(), 0);
            PULLED.set(true);
            safepoint::<TestTask>();
            assert_eq!(STOPS.take(), 1);
        });
    }

    #[test]
    fn sections_nest_and_the_kill_comes_at_the_end_of_the_outermost() {
        crate::testing::on_fresh_ledger(|ledger| {
            let outer = NoKill::<TestTask>::enter().unwrap();
            let inner = NoKill::<TestTask>::enter().unwrap();
            assert_eq!(ledger.no_kill_depth(), 2);
            PULLED.set(true);
            safepoint::<TestTask>();
            drop(outer);
            assert_eq!((ledger.no_kill_depth(), STOPS.get()), (1, 0));
            drop(inner);
            assert_eq!((ledger.no_kill_depth(), STOPS.take()), (0, 1));
        });
    }
}
