//! Kills that wait until the task allows them, or until it is time.

use core::sync::atomic::Ordering;

use task_model::TaskId;

use super::{Inbox, posted};

impl Inbox {
    /// Puts a kill off until the task allows it, or it is time. An earlier time stays.
    pub(crate) fn put_off_kill(&self, task: TaskId, at: u64, by: u64) {
        let Some(place) = self.place(task) else { return };
        let pending = place.kill_by.load(Ordering::Relaxed) != u64::MAX;
        place.kill.note(task.generation, at, pending);
        place.kill_by.fetch_min(by, Ordering::Relaxed);
        // Whoever finds it in finds when it is due.
        self.put_off.insert(task.index);
    }

    /// When a kill of the task that was put off is due.
    pub(crate) fn kill_due(&self, task: TaskId) -> Option<u64> {
        let place = self.place(task)?;
        let by = place.kill_by.load(Ordering::Relaxed);
        // Of an earlier life it says nothing.
        let same = place.kill.generation.load(Ordering::Relaxed) == task.generation;
        (same && by != u64::MAX).then_some(by)
    }

    /// Forgets a kill that was put off: the task is gone, or is held.
    pub(crate) fn kill_is_over(&self, task: TaskId) {
        let Some(place) = self.place(task) else { return };
        if place.kill.generation.load(Ordering::Relaxed) != task.generation {
            return;
        }
        self.put_off.remove(task.index);
        place.kill_by.store(u64::MAX, Ordering::Relaxed);
    }

    /// The tasks whose kills were put off until now at the latest.
    pub(crate) fn due_kills(&self, now: u64) -> impl Iterator<Item = TaskId> {
        self.put_off.iter().filter_map(move |index| {
            let place = self.places.get(index as usize)?;
            let due = now >= place.kill_by.load(Ordering::Relaxed);
            let generation = place.kill.generation.load(Ordering::Relaxed);
            due.then_some(TaskId { index, generation })
        })
    }

    /// Takes back a kill that no keeper has come to.
    pub(crate) fn withdraw_kill(&self, task: TaskId) {
        if let Some(place) = self.place(task) {
            place.posted.fetch_and(!posted::KILL, Ordering::AcqRel);
        }
    }
}
