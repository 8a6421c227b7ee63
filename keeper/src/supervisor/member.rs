//! A supervisor's table of children.

use core::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

use spin::Once;
use task_model::TaskId;

use super::{Backoff, ChildKind, SuperviseError, Supervisor};

/// What a child is at.
///
/// ```text
///            (it fails)
///        ┌───────────────────────────► Down ◄────────┐ (its case comes)
///        │                              │            │
///       Up ──► Condemned ──► Ending ────┼────────────┘
///        ▲         ▲     (it is killed) │
///        │         │ (it is up)         ▼ (it is its turn)
///        │       Doomed ◄──────────── Rising
///        └──────────────────────────────┘
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum State {
    /// There is none here.
    Free,
    /// Somebody adds one here.
    Claimed,
    /// It is a supervisor.
    Nested,
    /// It lives.
    Up,
    /// It lives, and is to be ended.
    Condemned,
    /// It has been killed.
    Ending,
    /// It waits for its restart, which is for the others to go on with.
    Down,
    /// Its restart has been ruled.
    Rising,
    /// Its restart has been ruled, and it is to be ended after that.
    Doomed,
}

impl State {
    const ALL: [Self; 9] = [
        Self::Free,
        Self::Claimed,
        Self::Nested,
        Self::Up,
        Self::Condemned,
        Self::Ending,
        Self::Down,
        Self::Rising,
        Self::Doomed,
    ];

    /// Whether there is a child here.
    const fn is_taken(self) -> bool {
        !matches!(self, Self::Free | Self::Claimed)
    }

    /// Whether its end has been called for.
    pub(super) const fn is_called_for(self) -> bool {
        matches!(self, Self::Condemned | Self::Ending | Self::Doomed)
    }
}

/// A place for a child.
///
/// All orderings are Relaxed but for those of the state, whose Release, when a child is added,
/// pairs with the Acquire of whoever finds it there. Beside that, one keeper decides at a time, and
/// what it wrote is seen by the next one, as cases are handed on with Release and Acquire.
pub(super) struct Member {
    state: AtomicU8,
    kind: AtomicU8,
    /// Children are started in this order.
    order: AtomicU32,
    id: AtomicU64,
    nested: Once<&'static Supervisor>,
    /// How often it has failed in a row.
    streak: AtomicU32,
    /// When it was restarted last.
    began: AtomicU64,
}

impl Member {
    const fn free_place() -> Self {
        Self {
            state: AtomicU8::new(State::Free as u8),
            kind: AtomicU8::new(ChildKind::Permanent as u8),
            order: AtomicU32::new(0),
            id: AtomicU64::new(0),
            nested: Once::new(),
            streak: AtomicU32::new(0),
            began: AtomicU64::new(0),
        }
    }

    pub(super) fn state(&self) -> State {
        let raw = self.state.load(Ordering::Acquire);
        State::ALL.get(usize::from(raw)).copied().unwrap_or(State::Free)
    }

    pub(super) fn set(&self, state: State) {
        self.state.store(state as u8, Ordering::Release);
    }

    /// Changes the state, unless somebody else has.
    pub(super) fn change(&self, from: State, to: State) -> bool {
        let (from, to) = (from as u8, to as u8);
        self.state.compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    pub(super) fn kind(&self) -> ChildKind {
        ChildKind::from_u8(self.kind.load(Ordering::Relaxed))
    }

    pub(super) fn order(&self) -> u32 {
        self.order.load(Ordering::Relaxed)
    }

    pub(super) fn id(&self) -> TaskId {
        TaskId::from_word(self.id.load(Ordering::Relaxed))
    }

    fn set_id(&self, id: TaskId) {
        self.id.store(id.to_word(), Ordering::Relaxed);
    }

    pub(super) fn nested(&self) -> Option<&'static Supervisor> {
        self.nested.get().copied()
    }

    fn is_task(&self) -> bool {
        let state = self.state();
        state.is_taken() && state != State::Nested
    }

    /// Notes that it has begun another life.
    pub(super) fn lives_as(&self, id: TaskId) {
        self.set_id(id);
        let doomed = self.state() == State::Doomed;
        self.set(if doomed { State::Condemned } else { State::Up });
    }

    /// All that changes of it.
    #[cfg(test)]
    pub(super) fn numbers(&self) -> impl Iterator<Item = u64> {
        let (id, began) = (self.id.load(Ordering::Relaxed), self.began.load(Ordering::Relaxed));
        [self.state() as u64, id, u64::from(self.streak.load(Ordering::Relaxed)), began].into_iter()
    }

    /// Counts a failure, and says how long the restart is to wait. `calm` is how long it must have
    /// lived for the count to begin anew.
    pub(super) fn next_delay(&self, backoff: Backoff, now: u64, calm: u64) -> u64 {
        let began = self.began.load(Ordering::Relaxed);
        let before =
            if now.saturating_sub(began) > calm { 0 } else { self.streak.load(Ordering::Relaxed) };
        let delay = backoff.delay(before);
        self.streak.store(before.saturating_add(1), Ordering::Relaxed);
        self.began.store(now.saturating_add(delay), Ordering::Relaxed);
        delay
    }
}

/// The children of one supervisor.
pub(super) struct Members {
    places: [Member; Supervisor::MAX_CHILDREN],
    /// The order of the one that was added last.
    last_order: AtomicU32,
}

impl Members {
    pub(super) const fn none() -> Self {
        Self {
            places: [const { Member::free_place() }; Supervisor::MAX_CHILDREN],
            last_order: AtomicU32::new(0),
        }
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Member> {
        self.places.iter().filter(|member| member.state().is_taken())
    }

    pub(super) fn at(&self, place: usize) -> &Member {
        &self.places[place]
    }

    /// The first child of this order or a later one.
    pub(super) fn first_from(&self, order: u32) -> Option<&Member> {
        self.all().filter(|member| member.order() >= order).min_by_key(|member| member.order())
    }

    /// The last child of this order or an earlier one.
    pub(super) fn last_up_to(&self, order: u32) -> Option<&Member> {
        self.all().filter(|member| member.order() <= order).max_by_key(|member| member.order())
    }

    /// The task with this number.
    fn numbered(&self, task: TaskId) -> Option<&Member> {
        self.places.iter().find(|member| member.is_task() && member.id().index == task.index)
    }

    /// The child that this is a life of: the one that is known, or a later one, of whose beginning
    /// nobody told.
    pub(super) fn of(&self, task: TaskId) -> Option<&Member> {
        let member = self.numbered(task)?;
        let ahead = task.generation.wrapping_sub(member.id().generation).cast_signed();
        if ahead > 0 {
            member.lives_as(task);
        }
        (ahead >= 0).then_some(member)
    }

    /// The child whose life as `task` is over; it may be known to live as `next`.
    pub(super) fn of_ended(&self, task: TaskId, next: Option<TaskId>) -> Option<&Member> {
        self.numbered(task).filter(|member| member.id() == task || Some(member.id()) == next)
    }

    pub(super) fn add_task(&self, task: TaskId, kind: ChildKind) -> Result<(), SuperviseError> {
        if let Some(known) = self.numbered(task) {
            let current = known.id();
            match current.generation.wrapping_sub(task.generation).cast_signed() {
                0 => return Err(SuperviseError::AlreadySupervised(task)),
                1.. => return Err(SuperviseError::Stale { task, current }),
                // A life that ended without a word.
                _ => known.set(State::Free),
            }
        }
        let (_, member) = self.claim()?;
        member.set_id(task);
        member.kind.store(kind as u8, Ordering::Relaxed);
        member.set(State::Up);
        Ok(())
    }

    /// Returns the place.
    pub(super) fn add_nested(&self, nested: &'static Supervisor) -> Result<usize, SuperviseError> {
        let (place, member) = self.claim()?;
        member.nested.call_once(|| nested);
        member.set(State::Nested);
        Ok(place)
    }

    pub(super) fn remove(&self, task: TaskId) -> Result<(), SuperviseError> {
        let member = self.numbered(task).filter(|member| member.id() == task);
        member.ok_or(SuperviseError::NotSupervised(task))?.set(State::Free);
        Ok(())
    }

    /// Claims a place, behind all others in order. If the claimer dies, the place is lost.
    fn claim(&self) -> Result<(usize, &Member), SuperviseError> {
        let mut places = self.places.iter().enumerate();
        let (place, member) = places
            .find(|(_, member)| member.change(State::Free, State::Claimed))
            .ok_or(SuperviseError::Full)?;
        member.order.store(self.last_order.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
        member.streak.store(0, Ordering::Relaxed);
        member.began.store(0, Ordering::Relaxed);
        Ok((place, member))
    }
}
