//! A task's states and the moves between them.

use core::fmt;
use core::sync::atomic::{AtomicU8, Ordering};

/// Where a task is in its life.
///
/// ```text
///            ┌───────────► Blocked ───┐
///            │                 │      │
///  Ready ◄───┼──► Running ─────┤      │
///    ▲  ▲    │       │         │      │
///    │  └────┼───────┼─────────┼──────┘
///    │       └───────┴────┬────┘         (a fault, or a kill in any of the three)
///    │                    ▼
///    ├────────────── Frozen ────► Held
///    │                    │         │
///    │                    ▼         │
///    └── (a new life) ─ Dead ◄──────┘
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum TaskState {
    /// Could run, and waits for a CPU.
    Ready = 0,
    /// Runs on a CPU.
    Running = 1,
    /// Waits for an event.
    Blocked = 2,
    /// Stopped by a fault or a kill; it runs no instruction until its keeper has ruled.
    Frozen = 3,
    /// Settled, and kept as a corpse to look at.
    Held = 4,
    /// Gone. Its slot may begin a new life under the next generation.
    Dead = 5,
}

impl TaskState {
    /// Whether a task may go from this state to `next`.
    #[inline]
    pub const fn may_become(self, next: Self) -> bool {
        use TaskState::*;
        matches!(
            (self, next),
            (Ready, Running)
                | (Running, Ready | Blocked)
                | (Blocked, Ready)
                | (Ready | Running | Blocked, Frozen)
                | (Frozen, Ready | Held | Dead)
                | (Running, Dead)
                | (Held, Dead)
                | (Dead, Ready)
        )
    }

    #[inline]
    const fn from_u8(raw: u8) -> Self {
        match raw {
            0 => Self::Ready,
            1 => Self::Running,
            2 => Self::Blocked,
            3 => Self::Frozen,
            4 => Self::Held,
            _ => Self::Dead,
        }
    }
}

/// A move that [`TaskState::may_become`] refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IllegalMove {
    /// The state that the task is in.
    pub from: TaskState,
    /// The state that it was to take.
    pub to: TaskState,
}

impl fmt::Display for IllegalMove {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a task that is {:?} cannot become {:?}", self.from, self.to)
    }
}

impl core::error::Error for IllegalMove {}

/// A [`TaskState`] that several CPUs may move; each legal move is won by one of them.
#[derive(Debug)]
pub struct AtomicTaskState(AtomicU8);

impl AtomicTaskState {
    /// A task in `state`.
    pub const fn new(state: TaskState) -> Self {
        Self(AtomicU8::new(state as u8))
    }

    /// The state now. Acquire: what was written before the move to it is visible.
    #[inline]
    pub fn load(&self) -> TaskState {
        TaskState::from_u8(self.0.load(Ordering::Acquire))
    }

    /// Whether this is the state now; otherwise as [`load`](Self::load), and faster.
    #[inline]
    pub fn is(&self, state: TaskState) -> bool {
        self.0.load(Ordering::Acquire) == state as u8
    }

    /// Moves to `next` and returns the state before.
    ///
    /// AcqRel: the mover sees what the previous mover wrote (Acquire), and publishes what it
    /// wrote itself, such as the saved registers of a task that it froze (Release).
    ///
    /// # Errors
    /// If the move is not legal from the state that the task is in; nothing has changed then.
    #[inline]
    pub fn become_state(&self, next: TaskState) -> Result<TaskState, IllegalMove> {
        self.0
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |raw| {
                TaskState::from_u8(raw).may_become(next).then_some(next as u8)
            })
            .map(TaskState::from_u8)
            .map_err(|raw| IllegalMove { from: TaskState::from_u8(raw), to: next })
    }

    /// As [`become_state`](Self::become_state), from one state alone.
    ///
    /// # Errors
    /// If the task is in another one, or the move is not legal.
    #[inline]
    pub fn move_from(&self, from: TaskState, next: TaskState) -> Result<(), IllegalMove> {
        let refused = |from| IllegalMove { from, to: next };
        if !from.may_become(next) {
            return Err(refused(from));
        }
        self.0
            .compare_exchange(from as u8, next as u8, Ordering::AcqRel, Ordering::Acquire)
            .map(drop)
            .map_err(|raw| refused(TaskState::from_u8(raw)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use TaskState::*;

    #[test]
    fn a_frozen_task_never_runs_without_being_made_ready() {
        assert!(!Frozen.may_become(Running));
        assert!(!Frozen.may_become(Blocked));
        assert!(Frozen.may_become(Ready));
    }

    #[test]
    fn only_tasks_that_could_run_can_be_frozen() {
        for state in [Ready, Running, Blocked] {
            assert!(state.may_become(Frozen));
        }
        for state in [Frozen, Held, Dead] {
            assert!(!state.may_become(Frozen));
        }
    }

    #[test]
    fn a_refused_move_changes_nothing() {
        let state = AtomicTaskState::new(Held);
        assert_eq!(state.become_state(Running), Err(IllegalMove { from: Held, to: Running }));
        assert_eq!(state.load(), Held);
        assert_eq!(state.become_state(Dead), Ok(Held));
    }

    #[test]
    fn a_move_from_one_state_is_from_no_other() {
        let state = AtomicTaskState::new(Blocked);
        assert_eq!(state.move_from(Running, Ready), Err(IllegalMove { from: Blocked, to: Ready }));
        assert_eq!(state.move_from(Blocked, Held), Err(IllegalMove { from: Blocked, to: Held }));
        assert_eq!(state.move_from(Blocked, Ready), Ok(()));
        assert_eq!(state.load(), Ready);
    }

    #[test]
    fn of_two_freezers_one_wins() {
        let state = AtomicTaskState::new(Running);
        assert!(state.become_state(Frozen).is_ok());
        assert!(state.become_state(Frozen).is_err());
    }
}
