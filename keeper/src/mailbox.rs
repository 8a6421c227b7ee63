//! What the keeper is told, and by whom it can be told: by anybody, from anywhere.

use core::fmt;

use crossbeam_queue::ArrayQueue;
use task_model::{FaultInfo, TaskId};

/// Why a task comes before its keeper.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// It has stopped at a fault, and is frozen.
    Fault(FaultInfo),
    /// Somebody wants it to end. It may be running still.
    Kill,
    /// It was held, and its corpse is no longer needed.
    Release,
}

/// One message to the keeper.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Notice {
    /// Whom it is about.
    pub task: TaskId,
    /// What happened.
    pub cause: Cause,
    /// When, in the platform's ticks.
    pub at: u64,
}

/// The mailbox had no room. The notice was not posted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MailboxFull;

impl fmt::Display for MailboxFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the keeper's mailbox is full")
    }
}

impl core::error::Error for MailboxFull {}

/// A bounded queue of notices: allocated once, and posted to from traps without allocating,
/// locking or blocking.
///
/// Half of it is kept for faults. A task that has stopped cannot fault again, so a mailbox of twice
/// the number of tasks always has room for a fault.
#[derive(Debug)]
pub(crate) struct Mailbox {
    queue: ArrayQueue<Notice>,
}

impl Mailbox {
    pub(crate) fn with_capacity(capacity: usize) -> Self {
        Self { queue: ArrayQueue::new(capacity) }
    }

    pub(crate) fn post(&self, notice: Notice) -> Result<(), MailboxFull> {
        self.queue.push(notice).map_err(|_| MailboxFull)
    }

    /// Posts what is no fault, as long as half of the room is left for those.
    pub(crate) fn request(&self, notice: Notice) -> Result<(), MailboxFull> {
        if self.queue.len() < self.queue.capacity().div_ceil(2) {
            self.post(notice)
        } else {
            Err(MailboxFull)
        }
    }

    pub(crate) fn take(&self) -> Option<Notice> {
        self.queue.pop()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_leave_half_of_the_room_to_faults() {
        let mailbox = Mailbox::with_capacity(4);
        let notice = |index| Notice { task: TaskId::first(index), cause: Cause::Kill, at: 0 };
        assert_eq!(mailbox.request(notice(1)), Ok(()));
        assert_eq!(mailbox.request(notice(2)), Ok(()));
        assert_eq!(mailbox.request(notice(3)), Err(MailboxFull));
        assert_eq!(mailbox.post(notice(3)), Ok(()));
        assert_eq!(mailbox.post(notice(4)), Ok(()));
    }

    #[test]
    fn notices_come_in_order_and_overflow_is_an_error() {
        let mailbox = Mailbox::with_capacity(2);
        let notice = |index| Notice { task: TaskId::first(index), cause: Cause::Kill, at: 0 };
        assert_eq!(mailbox.post(notice(1)), Ok(()));
        assert_eq!(mailbox.post(notice(2)), Ok(()));
        assert_eq!(mailbox.post(notice(3)), Err(MailboxFull));
        assert_eq!(mailbox.take(), Some(notice(1)));
        assert_eq!(mailbox.take(), Some(notice(2)));
        assert_eq!(mailbox.take(), None);
    }
}
