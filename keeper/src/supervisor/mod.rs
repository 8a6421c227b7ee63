//! Supervision trees, as in OTP: what the failure of one task means to others.
//!
//! A [`Supervisor`] is a policy that several tasks share: its children. It restarts the one that
//! failed, or more of them, by its [`Strategy`]; each by its [`ChildKind`]; not more often than its
//! [`RestartIntensity`] allows; and not before its [`Backoff`] is over. What it does not put up
//! with any more is a failure of the supervisor, and is for the supervisor
//! [above](Supervisor::add_supervisor) it, which restarts it as a whole. From the topmost it goes
//! to the [next keeper](Verdict::TryNext).
//!
//! ```
//! use std::sync::atomic::{AtomicU32, Ordering};
//! use keeper::hosted::{Kernel, yield_now};
//! use keeper::supervisor::{Backoff, ChildKind, Strategy, Supervisor};
//!
//! /// Ticks of a hosted kernel are nanoseconds.
//! const SECOND: u64 = 1_000_000_000;
//!
//! static NETWORK: Supervisor =
//!     Supervisor::new(Strategy::OneForAll, SECOND).with_backoff(Backoff::None);
//! static STARTS: AtomicU32 = AtomicU32::new(0);
//!
//! // SAFETY: the tasks allocate nothing, and keep nothing in thread-locals.
//! let kernel = unsafe { Kernel::new() };
//! let driver = kernel.spawn_with_policy(&NETWORK, || {
//!     STARTS.fetch_add(1, Ordering::Relaxed);
//!     loop { yield_now() }
//! });
//! let stack = kernel.spawn_with_policy(&NETWORK, || loop { yield_now() });
//! NETWORK.add(driver, ChildKind::Permanent)?;
//! NETWORK.add(stack, ChildKind::Permanent)?;
//! kernel.run_turns(1);
//!
//! // The stack dies: both begin again.
//! kernel.kill(stack);
//! assert_eq!(kernel.serve().len(), 2);
//! kernel.run_turns(1);
//! assert_eq!(STARTS.load(Ordering::Relaxed), 2);
//! assert!(NETWORK.children().eq([driver.next_generation(), stack.next_generation()]));
//! # Ok::<(), keeper::supervisor::SuperviseError>(())
//! ```
//!
//! # What is ended, and what is started
//! What a child holds is given up before anything is decided. Then the others that are to begin
//! again are ended one after another, the last one first; and once all are down they are started in
//! the order in which they were added, each when the one before it has begun its new life. A child
//! that fails meanwhile is a failure like any other.
//!
//! # Defaults
//! [`Supervisor::new`] is told how many ticks a second has, and chooses:
//! - **Three restarts in five seconds.** The period is OTP's; its one restart in that time is made
//!   for supervisors that are all tuned. One failure may be chance, and the second one what it left
//!   behind; a fourth within seconds says that beginning again does not help here, and that who is
//!   above should know.
//! - **A hundredth of a second before the first restart, and twice as long each time, up to one
//!   second.** A child that fails at once would use up its restarts before whatever it depends on
//!   has had the time to change. The delays of three failures in a row (70 ms) are far shorter than
//!   the period, so that such a child is found to fail too often, and not tried for ever.
//! - **Five seconds for a round**, as OTP gives a child to shut down. No child of this kernel can
//!   refuse to end; but its keeper may be late.
//!
//! # What is not as in OTP
//! - A transient child that has finished is no child any more, and a round does not bring it back:
//!   its task is gone.
//! - A supervisor is no task, so nothing has to be alive for it to decide. It remembers all it must
//!   in atomics, of which each step leaves a state to go on from. If a keeper dies over a ruling,
//!   the next one up rules on that child, and the supervisor goes on with the others when it is
//!   told of that.
//! - A supervisor below another is always a permanent child.
//! - A child that is killed while it waits for its restart ends for good: see
//!   [`Keepers::kill`](crate::Keepers::kill).
//!
//! # What it asks for
//! The children of a supervisor, and of all that are above and below each other, have the same
//! [keeper](crate::Keepers::keep), so that one decides at a time. While a round goes on, all but
//! one of its tasks wait as deferred cases: there must be [room](crate::Capacity::deferred) for
//! them.

mod backoff;
#[cfg(all(test, feature = "hosted"))]
mod deaths;
mod error;
mod intensity;
mod member;
mod round;
mod strategy;

use core::fmt;
use core::iter;
use core::sync::atomic::AtomicU64;

use spin::Once;
use task_model::{FaultKind, TaskId};

pub use backoff::Backoff;
pub use error::SuperviseError;
pub use intensity::RestartIntensity;
pub use strategy::{ChildKind, Strategy};

use crate::{Case, Orders, Policy, Report, Verdict};
use intensity::Restarts;
use member::{Member, Members, State};
use round::{Failure, NO_ROUND, restart_after};

/// A policy for several tasks, which begin again together, or each for itself.
///
/// See the [module](self).
pub struct Supervisor {
    strategy: Strategy,
    intensity: RestartIntensity,
    backoff: Backoff,
    /// How long a round may take.
    patience: u64,
    members: Members,
    restarts: Restarts,
    above: Once<Above>,
    /// The order of the first child that is in the round.
    round: AtomicU64,
    /// The order of the first child that is being condemned, as long as not all after it are.
    condemns: AtomicU64,
    /// The time before which the round starts nobody.
    starts_at: AtomicU64,
}

/// Where a supervisor is a child.
struct Above {
    supervisor: &'static Supervisor,
    place: usize,
}

impl Supervisor {
    /// The most children, supervisors among them. Where there are to be more, some go below
    /// supervisors of their own.
    pub const MAX_CHILDREN: usize = 16;

    /// The most supervisors above each other.
    pub const MAX_DEPTH: usize = 8;

    /// A supervisor without children, with the [defaults](self#defaults) for a platform of which a
    /// second has so many ticks.
    pub const fn new(strategy: Strategy, second: u64) -> Self {
        Self {
            strategy,
            intensity: RestartIntensity { max: 3, period: second.saturating_mul(5) },
            backoff: Backoff::Exponential { first: second / 100, cap: second },
            patience: second.saturating_mul(5),
            members: Members::none(),
            restarts: Restarts::none(),
            above: Once::new(),
            round: AtomicU64::new(NO_ROUND),
            condemns: AtomicU64::new(NO_ROUND),
            starts_at: AtomicU64::new(0),
        }
    }

    /// Sets how often is too often.
    ///
    /// # Panics
    /// If more restarts are to be counted than [can be](RestartIntensity::MOST).
    #[must_use]
    pub const fn with_intensity(mut self, intensity: RestartIntensity) -> Self {
        assert!(intensity.is_valid(), "so many restarts cannot be counted");
        self.intensity = intensity;
        self
    }

    /// Sets how long a restart waits.
    #[must_use]
    pub const fn with_backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// Sets how many ticks a round may take, beside its backoff. Who waits longer than that for its
    /// restart is given to the next keeper up.
    #[must_use]
    pub const fn with_patience(mut self, ticks: u64) -> Self {
        self.patience = ticks;
        self
    }

    /// Makes a task a child, the last one in order. It must name this supervisor as its policy.
    /// Before it begins is the time for it: a task that dies and is no child goes to the next
    /// keeper up.
    ///
    /// # Errors
    /// If there is no room; if this life of the task, or a later one, is a child already.
    pub fn add(&self, task: TaskId, kind: ChildKind) -> Result<(), SuperviseError> {
        self.members.add_task(task, kind)
    }

    /// Makes another supervisor a child, the last one in order, for ever. If it fails, which is
    /// when its children fail too often, it is restarted as one.
    ///
    /// # Errors
    /// If there is no room; if it has a parent; if it is this one, or one above it; if there would
    /// be too many above each other.
    pub fn add_supervisor(&'static self, below: &'static Self) -> Result<(), SuperviseError> {
        if below.above.is_completed() {
            return Err(SuperviseError::HasParent);
        }
        let upwards = || iter::successors(Some(self), |level| Some(level.above.get()?.supervisor));
        if upwards().any(|level| core::ptr::eq(level, below)) {
            return Err(SuperviseError::Cycle);
        }
        if upwards().count() + below.height() > Self::MAX_DEPTH {
            return Err(SuperviseError::TooDeep);
        }
        let place = self.members.add_nested(below)?;
        below.above.call_once(|| Above { supervisor: self, place });
        Ok(())
    }

    /// How many supervisors are above each other, from here down.
    fn height(&self) -> usize {
        let below = self.members.all().filter_map(Member::nested).map(Self::height);
        1 + below.max().unwrap_or(0)
    }

    /// Makes a task no child any more, so that it can be killed and is not restarted.
    ///
    /// # Errors
    /// If this life of the task is no child.
    pub fn remove(&self, task: TaskId) -> Result<(), SuperviseError> {
        self.members.remove(task)
    }

    /// The tasks that are children, as they live now, in order. Supervisors below are passed over.
    pub fn children(&self) -> impl Iterator<Item = TaskId> {
        iter::successors(self.members.first_from(0), |last| {
            self.members.first_from(last.order() + 1)
        })
        .filter(|member| member.nested().is_none())
        .map(Member::id)
    }

    /// The verdict on a child that came to this end; `None` if it is to wait for others.
    fn decide(&self, child: &Member, end: FaultKind, orders: &Orders<'_>) -> Option<Verdict> {
        let round = self.round_of(child);
        if round.is_some_and(Self::is_closing) || !child.kind().is_restarted_after(end) {
            return Some(Verdict::Exit);
        }
        let called_for = child.state().is_called_for();
        child.set(State::Down);
        let round = match round {
            // We have ended it, or were about to.
            Some(round) if called_for => round,
            _ => match self.fail(child, orders) {
                Failure::Alone(delay) => {
                    child.set(State::Rising);
                    return Some(restart_after(delay));
                }
                Failure::Round(delay) => {
                    let round = self.round_of(child)?;
                    round.wait(orders.now(), delay);
                    round
                }
                Failure::TooMany => {
                    // Whoever restarts it has it from now on.
                    child.set(State::Free);
                    self.go_on_if_any(orders);
                    return Some(Verdict::TryNext);
                }
            },
        };
        round.go_on(orders, Some(child.id()))
    }

    /// Does the next step of the round, if there is one.
    fn go_on_if_any(&self, orders: &Orders<'_>) {
        if let Some(round) = self.any_round() {
            round.go_on(orders, None);
        }
    }
}

impl Policy for Supervisor {
    fn rule(&self, case: &mut Case<'_>) -> Verdict {
        case.settle();
        let (task, orders) = (case.task(), case.orders());
        let Some(child) = self.members.of(task) else { return Verdict::TryNext };
        // It is down. A kill that comes after that would end it for good.
        orders.withdraw_kill(task);
        self.decide(child, case.fault().kind, &orders).unwrap_or_else(|| {
            let round = self.round_of(child).unwrap_or(self);
            let delay = round.waits(case.now());
            // If there is no room for it, that is what the next keeper up is told.
            case.keep_open(round.patience.saturating_add(delay));
            Verdict::Deferred
        })
    }

    fn rules_on_exits(&self) -> bool {
        true
    }

    fn ended(&self, report: &Report, orders: &Orders<'_>) {
        let next = report.restarted_as;
        match (self.members.of_ended(report.task, next), next) {
            (Some(child), Some(next)) => child.lives_as(next),
            (Some(child), None) => child.set(State::Free),
            // It has been removed, and a round may wait for that.
            (None, _) => {}
        }
        self.go_on_if_any(orders);
    }
}

impl fmt::Debug for Supervisor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Supervisor")
            .field("strategy", &self.strategy)
            .field("intensity", &self.intensity)
            .field("backoff", &self.backoff)
            .finish_non_exhaustive()
    }
}
