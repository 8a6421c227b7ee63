//! Who is who, by what the resources themselves say.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use drop_registry::hosted::Hosted;
use drop_registry::{CurrentLedger, Ledger};

/// A task, as the word of a lock names it: by the address of its ledger.
pub(super) type TaskMark = u64;

/// No task.
pub(super) const NOBODY: TaskMark = 0;

/// The calling task.
pub(super) fn me() -> TaskMark {
    Hosted::current().addr().get() as u64
}

/// The task that the word of a lock names as its owner.
pub(super) fn owner<L>(lock: &L) -> TaskMark {
    // Beside the owner stand the marks of a death, in the bits that the alignment leaves free.
    word(lock, 0) & !(align_of::<Ledger>() as u64 - 1)
}

/// How many tasks a read-write lock counts as its readers.
pub(super) fn readers<L>(lock: &L) -> u64 {
    // Beside the number stands the mark of a reader's death.
    word(lock, 1) & !(1 << 62)
}

#[expect(unsafe_code, reason = "looks at the words of a lock")]
fn word<L>(lock: &L, index: usize) -> u64 {
    const { assert!(align_of::<L>() >= 8) };
    assert!(size_of::<L>() >= 8 * (index + 1));
    // SAFETY: each lock of the registry is `repr(C)`, or wraps one that is, and begins with its
    // word, which is atomic, as a read-write lock's number of readers behind it is.
    let word = unsafe { &*std::ptr::from_ref(lock).cast::<AtomicU64>().add(index) };
    word.load(Ordering::Relaxed)
}

/// Whether no task has a bit in a queue of a resource that waiters sleep at, by what that shows.
pub(super) fn nobody_waits(resource: &impl fmt::Debug) -> bool {
    let shown = format!("{resource:?}");
    // One queue, or one for each side.
    let mut queues = ["waiters: ", "senders: ", "receivers: "]
        .into_iter()
        .filter_map(|name| shown.split_once(name))
        .peekable();
    assert!(queues.peek().is_some(), "no queue is shown: {shown}");
    queues.all(|(_, queue)| queue.starts_with("{}") || queue.starts_with("()"))
}
