//! All keepers of one kernel.

mod act;
mod inherit;
mod kill;
mod places;
mod post_mortem;
mod recover;
mod ruling;
mod seat;
mod settling;

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::fmt;
use core::sync::atomic::AtomicU32;

use drop_registry::{Domain, Ledger};
use task_model::{FaultInfo, FaultKind, TaskId};

use crate::chain::{Chain, Link};
use crate::docket::{Docket, Late};
use crate::inbox::{Inbox, Place};
use crate::meter::Gauge;
use crate::peers::Peers;
use crate::unwind::{Images, UnwindTables};
use crate::{
    KeeperId, Meter, Platform, Policy, PostError, RegisterError, Token, TooLate, Usage, Verdict,
    policy,
};

pub use seat::Seat;

/// How much there is to be room for. All of it is allocated once, by [`Keepers::new`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// The numbers of tasks: ids with an [`index`](TaskId::index) below this.
    pub tasks: usize,
    /// Keepers, the root among them: from 1 to [`KeeperId::MAX`].
    pub keepers: usize,
    /// Cases whose verdict is deferred, or whose restart is delayed, at a time. Each takes about
    /// ten kilobytes, as much as a report; so does each keeper's own.
    pub deferred: usize,
    /// Corpses that are [held](Verdict::Hold) at a time.
    pub corpses: usize,
}

impl Capacity {
    /// One keeper for so many tasks, of which all may be held, and none deferred.
    pub const fn tasks(tasks: usize) -> Self {
        Self { tasks, keepers: 1, deferred: 0, corpses: tasks }
    }

    /// How many bytes there are for each task: its [`Ledger`], which is the kernel's to place; the
    /// places for what can be posted of it; its meter; what is known of its last resumption; and,
    /// rounded up, its bits in sets of tasks, one for each keeper and two more. What
    /// tasks that watch others take is not counted: 16 bytes and three bits for each pair.
    pub const fn bytes_per_task(&self) -> usize {
        let bits = self.keepers + 2;
        size_of::<Ledger>()
            + Inbox::BYTES_PER_TASK
            + size_of::<Gauge>()
            + size_of::<act::Tries>()
            + bits.div_ceil(8)
    }
}

/// Keeps the tasks of one platform.
///
/// Traps and killers [post](Self::post) from anywhere. Each keeper's own task takes its
/// [seat](Self::sit), and [serves](Seat::serve) what was posted for it, one case at a time. It
/// never waits for a task that it keeps, nor for another keeper.
pub struct Keepers<P> {
    platform: P,
    domain: Domain<'static>,
    images: Images<'static>,
    chain: Chain,
    inbox: Inbox,
    docket: Arc<Docket>,
    /// By number of the task.
    tries: Box<[act::Tries]>,
    corpses: act::Corpses,
    /// The keepers that wait for room for a case, a bit for each.
    starving: AtomicU32,
    longest_no_kill: u64,
    for_interrupts_off: &'static dyn Policy,
    #[cfg(feature = "post-mortem")]
    ring: Option<&'static crate::post_mortem::Ring>,
    /// By number of the task.
    gauges: Box<[Gauge]>,
    pub(crate) peers: Peers,
}

impl<P: Platform> Keepers<P> {
    /// The root keeper, and room for others, for the tasks of `platform`, whose ledgers speak of
    /// what is in `domain`, and whose frames `tables` describe, those of the kernel's own image.
    ///
    /// Tasks that name no policy [exit](policy::Exit). What is allocated here is all that there is
    /// allocated until a dead task's resources are settled.
    pub fn new(
        platform: P,
        domain: Domain<'static>,
        tables: UnwindTables<'static>,
        capacity: Capacity,
    ) -> Self {
        let images = Images::new();
        images.add(tables).expect("room for the first image");
        let root = Link { parent: KeeperId::ROOT, policy: &policy::Exit, patience: u64::MAX };
        let chain = Chain::new(capacity.keepers, root);
        Self {
            platform,
            domain,
            images,
            inbox: Inbox::new(capacity.tasks, chain.capacity()),
            docket: Arc::new(Docket::new(chain.capacity(), capacity.deferred)),
            chain,
            tries: (0..capacity.tasks).map(|_| act::Tries::default()).collect(),
            corpses: act::Corpses::new(capacity.tasks, capacity.corpses),
            starving: AtomicU32::new(0),
            longest_no_kill: 100_000_000,
            for_interrupts_off: &policy::Panic,
            #[cfg(feature = "post-mortem")]
            ring: None,
            gauges: (0..capacity.tasks).map(|_| Gauge::new()).collect(),
            peers: Peers::new(capacity.tasks),
        }
    }

    /// Sets the root keeper's policy: of tasks that name none, and of what nobody else rules on.
    #[must_use]
    pub fn with_default_policy(mut self, policy: &'static dyn Policy) -> Self {
        self.chain.set_root_policy(policy);
        self
    }

    /// The platform.
    pub fn platform(&self) -> &P {
        &self.platform
    }

    /// The images whose frames have names: the one that the keepers were made with, and what has
    /// been added since. Add a module before a task runs in it; remove it when none can any more.
    pub const fn images(&self) -> &Images<'static> {
        &self.images
    }

    /// Registers another keeper, under `parent`. `policy` rules on its tasks that name none, on
    /// what keepers below it leave to it, and on their own deaths. It has `patience` ticks for a
    /// verdict, and as many for what follows from that (destructors may run then), after which it
    /// counts as dead.
    ///
    /// A parent is there before its child, so there can be no circle of keepers.
    ///
    /// # Errors
    /// If there is no room, or no such parent.
    pub fn register(
        &self,
        parent: KeeperId,
        policy: &'static dyn Policy,
        patience: u64,
    ) -> Result<KeeperId, RegisterError> {
        self.chain.register(Link { parent, policy, patience })
    }

    /// Names the keeper of all tasks with this number, this one's next lives among them. Without
    /// this, it is the root.
    ///
    /// A task that serves a keeper is kept by that keeper's parent, whatever was named before.
    ///
    /// # Errors
    /// If there is no such keeper; if there is no room for such a task; if it serves this keeper or
    /// one above it, or any, so that its keeper is its parent.
    pub fn keep(&self, task: TaskId, keeper: KeeperId) -> Result<(), RegisterError> {
        self.chain.link(keeper).ok_or(RegisterError::NoSuchKeeper(keeper))?;
        self.inbox.place(task).ok_or(RegisterError::NoSuchTask(task))?;
        if let Some(serves) = self.served_by(task) {
            // From the keeper upwards the task must not be met: it would wait for itself.
            return Err(if self.chain.upwards(keeper).any(|above| above == serves) {
                RegisterError::Cycle { task, serves }
            } else {
                RegisterError::Serves(serves)
            });
        }
        self.inbox.set_keeper_of(task, keeper);
        Ok(())
    }

    /// Takes the seat of `keeper`, to serve: for its own task, which is `task`; `None` for a root
    /// keeper that is no task.
    ///
    /// # Errors
    /// If the keeper has not been registered, or somebody serves it, or the task serves another
    /// one.
    pub fn sit(
        &self,
        keeper: KeeperId,
        task: Option<TaskId>,
    ) -> Result<Seat<'_, P>, RegisterError> {
        if let Some(task) = task {
            if let Some(other) = self.served_by(task) {
                return Err(RegisterError::Serves(other));
            }
            // First: whoever has a seat is known to have it.
            self.inbox.set_serves(task, keeper);
        }
        let station = self.station(keeper).ok_or(RegisterError::NoSuchKeeper(keeper))?;
        self.chain.sit(keeper, task)?;
        // Its predecessor may have died over what was posted to it.
        self.announce_all(keeper);
        Ok(Seat::new(self, station))
    }

    /// As [`sit`](Self::sit), for a keeper that is no task and serves as long as this lives.
    #[cfg(feature = "hosted")]
    pub(crate) fn take_seat(&self, keeper: KeeperId) -> Result<(), RegisterError> {
        self.sit(keeper, None).map(core::mem::forget)
    }

    /// Tells its keeper that `task` has stopped at a fault, at time `at`. For the trap that stopped
    /// it: it allocates nothing, takes no lock, and does not wait.
    ///
    /// # Errors
    /// If nobody keeps the task, since it is the root keeper's: the kernel cannot go on. If a fault
    /// of it was posted before, whose record stays. If there is no room for a task with that
    /// number.
    #[inline]
    pub fn post(&self, task: TaskId, fault: FaultInfo, at: u64) -> Result<(), PostError> {
        let place = self.inbox.place(task).ok_or(PostError::NoSuchTask(task))?;
        let keeper = self.keeper_above(place, task)?;
        self.inbox.post(place, task, fault, at, keeper)?;
        self.announced(task, keeper);
        Ok(())
    }

    /// Rules on a case whose verdict was [deferred](Verdict::Deferred).
    ///
    /// # Errors
    /// If it is too late: the time is up, or the keeper has ruled itself.
    ///
    /// # Panics
    /// If the token is another kernel's.
    pub fn answer(&self, token: Token, verdict: Verdict) -> Result<(), TooLate> {
        assert!(token.is_of(&self.docket), "the token is another kernel's");
        let keeper = token.answer(verdict)?;
        self.wake(keeper);
        Ok(())
    }

    /// Ends what has come to its time by `now`: for the timer's trap. It does next to nothing if
    /// there is nothing. Each keeper's task that has not ruled in time is given to `late`, which
    /// must freeze it and [post](Self::post) that as a [fault](FaultInfo::overdue).
    pub fn tick(&self, now: u64, mut late: impl FnMut(TaskId)) {
        self.kill_overdue(now);
        self.docket.tick(now, |keeper, what| match what {
            Late::Case => self.wake(keeper),
            Late::Keeper => {
                if let Some(task) = self.chain.task_of(keeper) {
                    late(task);
                }
            }
        });
    }

    /// The keeper that this task serves.
    #[inline]
    pub fn served_by(&self, task: TaskId) -> Option<KeeperId> {
        self.served_from(self.inbox.place(task)?, task)
    }

    #[inline]
    fn served_from(&self, place: &Place, task: TaskId) -> Option<KeeperId> {
        place.serves().filter(|keeper| self.chain.is_served_by(*keeper, task))
    }

    /// Sets what the tasks with this number may use, this one's next lives among them, each anew.
    ///
    /// # Errors
    /// If there is no room for a task with that number.
    pub fn set_meter(&self, task: TaskId, meter: &Meter) -> Result<(), RegisterError> {
        let gauge = self.gauges.get(task.index as usize);
        gauge.ok_or(RegisterError::NoSuchTask(task))?.set(meter);
        Ok(())
    }

    /// Charges `task` for what it has used, and says if its meter has run out by that: then the
    /// caller freezes it, and [posts](Self::post) that as a [fault](FaultInfo::metered). For the
    /// timer's trap: some instructions for a task without a meter. `is_waited_for` says whether
    /// another task [waits](drop_registry::Ledger::waiting) for a lock; it is asked only if that
    /// matters.
    pub fn charge(
        &self,
        task: TaskId,
        usage: &Usage<'_>,
        is_waited_for: impl FnOnce(*mut ()) -> bool,
    ) -> Option<FaultKind> {
        self.gauges.get(task.index as usize)?.charge(task, usage, &self.domain, is_waited_for)
    }

    /// How many cases are open: in a keeper's hands, deferred, or delayed.
    pub fn open_cases(&self) -> usize {
        self.docket.open_cases()
    }

    /// Who is to be told of `task`: the keeper that was named, or the first above it that is
    /// served.
    fn keeper_for(&self, task: TaskId) -> Result<KeeperId, PostError> {
        self.keeper_above(self.inbox.place(task).ok_or(PostError::NoSuchTask(task))?, task)
    }

    /// The same, by the task's place in the inbox.
    #[inline(always)]
    fn keeper_above(&self, place: &Place, task: TaskId) -> Result<KeeperId, PostError> {
        match place.serves() {
            None => Ok(self.chain.route(place.keeper())),
            Some(_) => self.keeper_of_keeper(place, task),
        }
    }

    /// Who is to be told of a task that serves, or once served.
    #[cold]
    fn keeper_of_keeper(&self, place: &Place, task: TaskId) -> Result<KeeperId, PostError> {
        let named = match self.served_from(place, task) {
            Some(serves) => self.chain.parent(serves).ok_or(PostError::NobodyKeeps(task))?,
            None => place.keeper(),
        };
        Ok(self.chain.route(named))
    }

    /// Wakes the keeper for which something has been posted. If that has left its seat meanwhile,
    /// so that its heir may have looked through what was posted before this was: the heir, too.
    #[inline]
    fn announced(&self, task: TaskId, keeper: KeeperId) {
        // The post is a locked exchange and so is leaving a seat, and each looks at the other's
        // word after its own: one of the two sees the other.
        match self.chain.task_of(keeper) {
            Some(keeper_task) => self.platform.wake(keeper_task),
            None => self.announced_beside(task, keeper),
        }
    }

    #[cold]
    fn announced_beside(&self, task: TaskId, keeper: KeeperId) {
        if !self.chain.is_served(keeper)
            && let Ok(heir) = self.keeper_for(task)
        {
            self.announce_all(heir);
            self.wake(heir);
        }
    }

    /// Announces all again for which `keeper` serves.
    fn announce_all(&self, keeper: KeeperId) {
        self.inbox.announce_all(|task| self.keeper_for(task).ok().filter(|its| *its == keeper));
        self.docket.announce();
    }

    #[inline]
    fn wake(&self, keeper: KeeperId) {
        if let Some(task) = self.chain.task_of(self.chain.route(keeper)) {
            self.platform.wake(task);
        }
    }
}

impl<P> fmt::Debug for Keepers<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keepers")
            .field("chain", &self.chain)
            .field("docket", &self.docket)
            .finish_non_exhaustive()
    }
}
