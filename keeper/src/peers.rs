//! Tasks that watch each other: monitors, links, and waiting for an end.
//!
//! A *monitor* tells one task of the end of another's life. A *link* ties two together: if one of
//! them dies, the other one is killed. Both are Erlang's, and both are of lives, not of tasks: they
//! end with the life that they are of, also if that is restarted. A life is over for its peers as
//! soon as what it held has been given up: nobody waits until it is decided what comes after it.
//!
//! There is a bit for each pair of tasks and each of these, so there is room for all of them, and
//! whoever tells an end neither allocates nor waits.

use alloc::boxed::Box;
use core::fmt;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use task_model::{FaultKind, TaskId};

use crate::task_set::TaskPairs;
use crate::{Keepers, Platform};

/// How a life ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum End {
    /// Its entry returned, and it held nothing.
    Finished,
    /// It died; or it finished, and the task has begun and ended another life since, of whose end
    /// alone there is a record.
    Died,
}

/// Why a task cannot watch another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PeerError {
    /// There is no room for a task with that number.
    NoSuchTask(TaskId),
    /// That life is over already.
    Ended(TaskId, End),
    /// They are the same task.
    Itself(TaskId),
}

impl fmt::Display for PeerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchTask(task) => write!(f, "there is no room for a task with the id {task}"),
            Self::Ended(task, End::Finished) => write!(f, "task {task} has finished"),
            Self::Ended(task, End::Died) => write!(f, "task {task} has died"),
            Self::Itself(task) => write!(f, "task {task} cannot watch itself"),
        }
    }
}

impl core::error::Error for PeerError {}

/// Who watches whom.
pub(crate) struct Peers {
    lives: Box<[Lives]>,
    /// By the task that is watched, who does.
    watchers: TaskPairs,
    /// By the task that watches, whose end it has not been told.
    news: TaskPairs,
    /// Both ways.
    links: TaskPairs,
}

/// What is known of the lives of the tasks of one number.
struct Lives {
    /// The generation of the one that watches, or is linked.
    peer: AtomicU32,
    /// The last one that ended: see [`Ended`].
    ended: AtomicU64,
}

/// The last life that ended, in a word.
struct Ended;

impl Ended {
    const ANY: u64 = 1 << 32;
    const DIED: u64 = 1 << 33;

    const fn pack(generation: u32, end: End) -> u64 {
        let died = if matches!(end, End::Died) { Self::DIED } else { 0 };
        Self::ANY | died | generation as u64
    }

    /// How the life of this generation ended, if it did.
    const fn unpack(word: u64, generation: u32) -> Option<End> {
        if word & Self::ANY == 0 {
            return None;
        }
        match (word as u32).wrapping_sub(generation).cast_signed() {
            ..0 => None,
            0 if word & Self::DIED == 0 => Some(End::Finished),
            _ => Some(End::Died),
        }
    }
}

impl Peers {
    pub(crate) fn new(tasks: usize) -> Self {
        let lives = |_| Lives { peer: AtomicU32::new(0), ended: AtomicU64::new(0) };
        Self {
            lives: (0..tasks).map(lives).collect(),
            watchers: TaskPairs::new(tasks),
            news: TaskPairs::new(tasks),
            links: TaskPairs::new(tasks),
        }
    }

    fn lives(&self, task: TaskId) -> Result<&Lives, PeerError> {
        self.lives.get(task.index as usize).ok_or(PeerError::NoSuchTask(task))
    }

    fn end_of(&self, task: TaskId) -> Option<End> {
        let ended = self.lives(task).ok()?.ended.load(Ordering::SeqCst);
        Ended::unpack(ended, task.generation)
    }

    /// The peer with this number, as it lives.
    fn peer(&self, index: u32) -> Option<TaskId> {
        let generation = self.lives.get(index as usize)?.peer.load(Ordering::Relaxed);
        Some(TaskId { index, generation })
    }

    /// Checks that two tasks can be peers, and notes as which life.
    fn meet(&self, tasks: [TaskId; 2]) -> Result<(), PeerError> {
        if tasks[0].index == tasks[1].index {
            return Err(PeerError::Itself(tasks[0]));
        }
        for task in tasks {
            self.lives(task)?;
            if let Some(end) = self.end_of(task) {
                return Err(PeerError::Ended(task, end));
            }
        }
        for task in tasks {
            // Relaxed: the bit that is set afterwards publishes it.
            self.lives(task)?.peer.store(task.generation, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Sets the bits of two peers, unless one has ended meanwhile.
    fn tie(&self, tasks: [TaskId; 2], set: impl Fn(), clear: impl Fn()) -> Result<(), PeerError> {
        self.meet(tasks)?;
        set();
        for task in tasks {
            // After the bits: whoever ended before this is seen here, and whoever ends after it
            // sees them.
            if let Some(end) = self.end_of(task) {
                clear();
                return Err(PeerError::Ended(task, end));
            }
        }
        Ok(())
    }

    /// Notes an end, and tells who watched: `wake` is given each of them, and `kill` those that are
    /// linked, if it was a death. The same end may be told again.
    ///
    /// No later life may have begun.
    fn end(&self, task: TaskId, end: End, wake: impl Fn(TaskId), kill: impl Fn(TaskId)) {
        let Ok(lives) = self.lives(task) else { return };
        lives.ended.store(Ended::pack(task.generation, end), Ordering::SeqCst);
        for watcher in self.watchers.of(task.index) {
            // The news first: if the keeper dies in between, they are told once more.
            self.news.insert(watcher, task.index);
            self.watchers.remove(task.index, watcher);
            self.peer(watcher).inspect(|watcher| wake(*watcher));
        }
        for linked in self.links.of(task.index) {
            if end == End::Died {
                self.peer(linked).inspect(|linked| kill(*linked));
            }
            self.links.remove(linked, task.index);
            self.links.remove(task.index, linked);
        }
        // What it watched itself.
        for other in 0..self.lives.len() as u32 {
            self.watchers.remove(other, task.index);
        }
        for other in self.news.of(task.index) {
            self.news.remove(task.index, other);
        }
    }
}

impl<P: Platform> Keepers<P> {
    /// Has `watcher` be told of the end of `task`: it is [woken](Platform::wake), and finds it by
    /// [`next_end`](Self::next_end).
    ///
    /// # Errors
    /// If there is no room for such tasks; if one of those lives is over; if they are the same
    /// task. An id of a life that has not begun is believed.
    pub fn monitor(&self, watcher: TaskId, task: TaskId) -> Result<(), PeerError> {
        let set = || self.peers.watchers.insert(task.index, watcher.index);
        let clear = || self.demonitor(watcher, task);
        self.peers.tie([watcher, task], set, clear)
    }

    /// Has `watcher` not be told of `task` any more.
    pub fn demonitor(&self, watcher: TaskId, task: TaskId) {
        self.peers.watchers.remove(task.index, watcher.index);
        self.peers.news.remove(watcher.index, task.index);
    }

    /// The life of a monitored task that has ended, and that `watcher` has not been told of; and
    /// how. If more lives of that task have ended since, it is the last one that is named. For the
    /// watcher itself.
    pub fn next_end(&self, watcher: TaskId) -> Option<(TaskId, End)> {
        let index = self.peers.news.of(watcher.index).next()?;
        self.peers.news.remove(watcher.index, index);
        let ended = self.peers.lives.get(index as usize)?.ended.load(Ordering::SeqCst);
        let task = TaskId { index, generation: ended as u32 };
        Some((task, Ended::unpack(ended, task.generation)?))
    }

    /// Whether that life is over, and how it ended. That is so as soon as its locks and counts have
    /// been given up, also if its corpse is kept, or a verdict on it is still to come.
    ///
    /// To wait for it, [monitor](Self::monitor) it first, and sleep while this is `None`.
    pub fn end_of(&self, task: TaskId) -> Option<End> {
        self.peers.end_of(task)
    }

    /// Links two tasks: if one of them dies, the other one is [killed](Self::kill). If one
    /// finishes, the link is gone.
    ///
    /// # Errors
    /// As [`monitor`](Self::monitor).
    pub fn link(&self, one: TaskId, other: TaskId) -> Result<(), PeerError> {
        let set = || {
            self.peers.links.insert(one.index, other.index);
            self.peers.links.insert(other.index, one.index);
        };
        self.peers.tie([one, other], set, || self.unlink(one, other))
    }

    /// Takes a link away.
    pub fn unlink(&self, one: TaskId, other: TaskId) {
        self.peers.links.remove(one.index, other.index);
        self.peers.links.remove(other.index, one.index);
    }

    /// Says that `task`, which no keeper has in hand, has finished: its entry returned, and it held
    /// nothing. For the platform, before the task's slot is used again; also in a trap.
    pub fn finished(&self, task: TaskId) {
        self.tell_peers(task, End::Finished);
    }

    /// Tells of a life that is over, since what it held has been given up, before another one
    /// begins.
    pub(crate) fn tell_peers_of(&self, task: TaskId, fault: FaultKind) {
        let end = if fault == FaultKind::Exited { End::Finished } else { End::Died };
        self.tell_peers(task, end);
    }

    fn tell_peers(&self, task: TaskId, end: End) {
        let wake = |watcher| self.platform().wake(watcher);
        let kill = |linked| {
            // There is room for a task that has been linked.
            let _ = self.kill(linked);
        };
        self.peers.end(task, end, wake, kill);
    }
}

impl fmt::Debug for Peers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peers").field("tasks", &self.lives.len()).finish_non_exhaustive()
    }
}
