//! Meters: how much a task may use, of the processor and of locks.
//!
//! KeyKOS has meter keepers: a domain runs as long as its meter has time left, and then its meter's
//! keeper is called. Here expiry is a fault, which the task's keeper rules on like on any other.
//!
//! A kernel's timer calls [`Keepers::charge`](crate::Keepers::charge) at each tick, for the task
//! that it interrupted, and for those that wait or are ready if they hold locks. So a meter knows
//! no less than a tick.

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use drop_registry::{Domain, Ledger};
use task_model::{FaultKind, TaskId};

/// What a task may use.
///
/// ```
/// use keeper::{CpuBudget, HoldBudget, Meter};
///
/// /// A tenth of the processor, and no lock for longer than five ticks while somebody waits for it.
/// const DRIVER: Meter = Meter {
///     cpu: Some(CpuBudget { ticks: 10, period: 100 }),
///     hold: Some(HoldBudget { ticks: 5, only_if_waited_for: true }),
/// };
/// # let _ = DRIVER;
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Meter {
    /// Of the processor; `None` for as much as it gets.
    pub cpu: Option<CpuBudget>,
    /// Of locks; `None` for as long as it likes.
    pub hold: Option<HoldBudget>,
}

/// So much processor time in each period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CpuBudget {
    /// How many ticks it may run in a period.
    pub ticks: u64,
    /// How many ticks a period lasts. The next one begins with the first tick that the task is
    /// charged for after the end of the last, with nothing used.
    pub period: u64,
}

/// How long a lock may be held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HoldBudget {
    /// How many ticks the lock may be held that the task has held longest. It is counted from the
    /// first tick that found the lock held.
    pub ticks: u64,
    /// Whether it may be held for longer as long as nobody waits for it.
    pub only_if_waited_for: bool,
}

/// Without a budget.
const UNLIMITED: u64 = u64::MAX;

/// The meter of the tasks of one number. All uses are relaxed: numbers, which the timer's trap
/// writes.
#[derive(Debug)]
pub(crate) struct Gauge {
    cpu_ticks: AtomicU64,
    cpu_period: AtomicU64,
    hold_ticks: AtomicU64,
    only_if_waited_for: AtomicBool,
    /// Of the life that is measured.
    generation: AtomicU32,
    period_began: AtomicU64,
    used: AtomicU64,
    held_since: AtomicU64,
}

impl Gauge {
    pub(crate) const fn new() -> Self {
        Self {
            cpu_ticks: AtomicU64::new(UNLIMITED),
            cpu_period: AtomicU64::new(0),
            hold_ticks: AtomicU64::new(UNLIMITED),
            only_if_waited_for: AtomicBool::new(false),
            generation: AtomicU32::new(0),
            period_began: AtomicU64::new(0),
            used: AtomicU64::new(0),
            held_since: AtomicU64::new(0),
        }
    }

    pub(crate) fn set(&self, meter: &Meter) {
        let cpu = meter.cpu.unwrap_or(CpuBudget { ticks: UNLIMITED, period: 0 });
        let hold = meter.hold.unwrap_or(HoldBudget { ticks: UNLIMITED, only_if_waited_for: false });
        self.cpu_period.store(cpu.period, Ordering::Relaxed);
        self.cpu_ticks.store(cpu.ticks, Ordering::Relaxed);
        self.only_if_waited_for.store(hold.only_if_waited_for, Ordering::Relaxed);
        self.hold_ticks.store(hold.ticks, Ordering::Relaxed);
    }

    /// See [`Keepers::charge`](crate::Keepers::charge).
    #[inline]
    pub(crate) fn charge(
        &self,
        task: TaskId,
        usage: &Usage<'_>,
        domain: &Domain<'_>,
        is_waited_for: impl FnOnce(*mut ()) -> bool,
    ) -> Option<FaultKind> {
        let cpu_ticks = self.cpu_ticks.load(Ordering::Relaxed);
        let hold_ticks = self.hold_ticks.load(Ordering::Relaxed);
        if cpu_ticks == UNLIMITED && hold_ticks == UNLIMITED {
            return None;
        }
        if self.generation.swap(task.generation, Ordering::Relaxed) != task.generation {
            self.begin_period(usage.now);
        }
        if cpu_ticks != UNLIMITED && self.has_overrun(usage, cpu_ticks) {
            return Some(FaultKind::OutOfTime);
        }
        if hold_ticks != UNLIMITED && self.holds_too_long(usage, hold_ticks, domain, is_waited_for)
        {
            return Some(FaultKind::HeldTooLong);
        }
        None
    }

    fn begin_period(&self, now: u64) {
        self.period_began.store(now, Ordering::Relaxed);
        self.used.store(0, Ordering::Relaxed);
    }

    fn has_overrun(&self, usage: &Usage<'_>, ticks: u64) -> bool {
        let began = self.period_began.load(Ordering::Relaxed);
        if usage.now.saturating_sub(began) >= self.cpu_period.load(Ordering::Relaxed) {
            self.begin_period(usage.now);
        }
        let used = self.used.load(Ordering::Relaxed).saturating_add(usage.ran);
        self.used.store(used, Ordering::Relaxed);
        used > ticks
    }

    fn holds_too_long(
        &self,
        usage: &Usage<'_>,
        ticks: u64,
        domain: &Domain<'_>,
        is_waited_for: impl FnOnce(*mut ()) -> bool,
    ) -> bool {
        let Some((lock, seen_before)) = usage.ledger.look_at_oldest_lock(domain) else {
            return false;
        };
        if !seen_before {
            self.held_since.store(usage.now, Ordering::Relaxed);
            return false;
        }
        let held = usage.now.saturating_sub(self.held_since.load(Ordering::Relaxed));
        held > ticks && (!self.only_if_waited_for.load(Ordering::Relaxed) || is_waited_for(lock))
    }
}

/// What a task has used since it was charged last.
#[derive(Debug, Clone, Copy)]
pub struct Usage<'a> {
    /// The time, in the ticks that its meter counts in.
    pub now: u64,
    /// How many of them it has run.
    pub ran: u64,
    /// What it holds. The task does not run meanwhile: the timer has interrupted it, or it waits.
    pub ledger: &'a Ledger,
}
