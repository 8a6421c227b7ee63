//! Who keeps the keepers.

use alloc::boxed::Box;
use core::fmt;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use spin::Once;
use task_model::TaskId;

use crate::Policy;

/// Names a keeper.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeeperId(u8);

impl KeeperId {
    /// The keeper that is there from the beginning, and that nobody keeps.
    pub const ROOT: Self = Self(0);

    /// The most keepers that there can be, the root among them.
    pub const MAX: usize = 32;

    /// Its number, from 0 for the root in the order of registration.
    pub const fn number(self) -> u8 {
        self.0
    }

    /// The id of the keeper with this number, whether or not there is one: for an entry that tells
    /// its tasks apart by a number.
    pub const fn from_number(number: u8) -> Self {
        Self(number)
    }
}

impl fmt::Display for KeeperId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::ROOT { f.pad("root") } else { write!(f, "keeper {}", self.0) }
    }
}

impl fmt::Debug for KeeperId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeeperId({self})")
    }
}

/// Why a keeper, or a task's keeper, could not be registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RegisterError {
    /// There are as many keepers as there was to be room for.
    TooManyKeepers,
    /// The parent, or the keeper, has not been registered.
    NoSuchKeeper(KeeperId),
    /// The keeper is served already, by this task if by any.
    Served(Option<TaskId>),
    /// The task serves another keeper already.
    Serves(KeeperId),
    /// The task serves this keeper, or one above it: it would wait for itself.
    Cycle {
        /// The task.
        task: TaskId,
        /// Whom it serves.
        serves: KeeperId,
    },
    /// The task's number is beyond what there was to be room for.
    NoSuchTask(TaskId),
}

impl fmt::Display for RegisterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooManyKeepers => write!(f, "there is no room for another keeper"),
            Self::NoSuchKeeper(keeper) => write!(f, "{keeper} has not been registered"),
            Self::Served(Some(task)) => write!(f, "task {task} serves this keeper already"),
            Self::Served(None) => write!(f, "this keeper is served already"),
            Self::Serves(keeper) => write!(f, "the task serves {keeper} already"),
            Self::Cycle { task, serves } => {
                write!(f, "task {task} serves {serves}, so it would wait for itself")
            }
            Self::NoSuchTask(task) => write!(f, "there is no room for a task with the id {task}"),
        }
    }
}

impl core::error::Error for RegisterError {}

/// All keepers. A keeper's parent is one that was registered before it, so that following parents
/// ends at the root.
pub(crate) struct Chain {
    links: Box<[Once<Link>]>,
    registered: AtomicUsize,
    /// Who serves, by keeper.
    seats: Box<[AtomicU64]>,
}

/// What was said of a keeper when it was registered.
#[derive(Debug)]
pub(crate) struct Link {
    /// The root is its own.
    pub(crate) parent: KeeperId,
    pub(crate) policy: &'static dyn Policy,
    /// How many ticks it has for a verdict.
    pub(crate) patience: u64,
}

/// Nobody serves.
const VACANT: u64 = u64::MAX;
/// Somebody serves who is no task.
const NO_TASK: u64 = u64::MAX - 1;

impl Chain {
    pub(crate) fn new(capacity: usize, root: Link) -> Self {
        let capacity = capacity.clamp(1, KeeperId::MAX);
        let links: Box<[_]> = (0..capacity).map(|_| Once::new()).collect();
        links[0].call_once(|| root);
        Self {
            links,
            registered: AtomicUsize::new(1),
            seats: (0..capacity).map(|_| AtomicU64::new(VACANT)).collect(),
        }
    }

    /// Changes the root's policy, as long as nobody serves.
    pub(crate) fn set_root_policy(&mut self, policy: &'static dyn Policy) {
        if let Some(root) = self.links[0].get_mut() {
            root.policy = policy;
        }
    }

    pub(crate) fn capacity(&self) -> usize {
        self.links.len()
    }

    pub(crate) fn register(&self, link: Link) -> Result<KeeperId, RegisterError> {
        self.link(link.parent).ok_or(RegisterError::NoSuchKeeper(link.parent))?;
        // Relaxed: the number alone; what it stands for is published by its `Once`.
        let number = self
            .registered
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| {
                (n < self.links.len()).then_some(n + 1)
            })
            .map_err(|_| RegisterError::TooManyKeepers)?;
        self.links[number].call_once(|| link);
        Ok(KeeperId::from_number(number as u8))
    }

    #[inline]
    pub(crate) fn link(&self, keeper: KeeperId) -> Option<&Link> {
        self.links.get(usize::from(keeper.number()))?.get()
    }

    pub(crate) fn parent(&self, keeper: KeeperId) -> Option<KeeperId> {
        if keeper == KeeperId::ROOT { None } else { self.link(keeper).map(|link| link.parent) }
    }

    /// The keeper and those above it, up to the root.
    pub(crate) fn upwards(&self, keeper: KeeperId) -> impl Iterator<Item = KeeperId> {
        core::iter::successors(Some(keeper), |below| self.parent(*below))
    }

    /// The keeper itself if somebody serves it, or else the first above it; the root at last.
    #[inline]
    pub(crate) fn route(&self, keeper: KeeperId) -> KeeperId {
        if self.is_served(keeper) { keeper } else { self.route_upwards(keeper) }
    }

    #[cold]
    fn route_upwards(&self, keeper: KeeperId) -> KeeperId {
        self.upwards(keeper).find(|it| self.is_served(*it)).unwrap_or(KeeperId::ROOT)
    }

    /// Who has the seat. Nobody has one that is not there.
    #[inline]
    fn seat(&self, keeper: KeeperId) -> u64 {
        let seat = self.seats.get(usize::from(keeper.number()));
        seat.map_or(VACANT, |seat| seat.load(Ordering::Acquire))
    }

    /// The task that serves `keeper`.
    #[inline]
    pub(crate) fn task_of(&self, keeper: KeeperId) -> Option<TaskId> {
        unpack(self.seat(keeper))
    }

    /// Whether `task` has the seat of `keeper`.
    #[inline]
    pub(crate) fn is_served_by(&self, keeper: KeeperId, task: TaskId) -> bool {
        self.seat(keeper) == pack(Some(task))
    }

    /// Whether anybody has the seat.
    #[inline]
    pub(crate) fn is_served(&self, keeper: KeeperId) -> bool {
        self.seat(keeper) != VACANT
    }

    /// Gives the seat to `task`, or to somebody who is no task.
    pub(crate) fn sit(&self, keeper: KeeperId, task: Option<TaskId>) -> Result<(), RegisterError> {
        self.link(keeper).ok_or(RegisterError::NoSuchKeeper(keeper))?;
        // AcqRel pairs with `vacate`: who sits down sees what the last one did.
        self.seats[usize::from(keeper.number())]
            .compare_exchange(VACANT, pack(task), Ordering::AcqRel, Ordering::Acquire)
            .map(drop)
            .map_err(|taken| RegisterError::Served(unpack(taken)))
    }

    pub(crate) fn vacate(&self, keeper: KeeperId) {
        // A locked exchange: see `Keepers::announced`. Release pairs with the Acquire in `sit`.
        if let Some(seat) = self.seats.get(usize::from(keeper.number())) {
            seat.swap(VACANT, Ordering::AcqRel);
        }
    }
}

#[inline]
fn pack(task: Option<TaskId>) -> u64 {
    task.map_or(NO_TASK, TaskId::to_word)
}

#[inline]
fn unpack(seat: u64) -> Option<TaskId> {
    (seat < NO_TASK).then_some(TaskId::from_word(seat))
}

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.links.iter().filter_map(Once::get)).finish()
    }
}
