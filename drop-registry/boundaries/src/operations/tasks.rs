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
#[expect(unsafe_code, reason = "looks at the word of a lock")]
pub(super) fn owner<L>(lock: &L) -> TaskMark {
    const { assert!(size_of::<L>() >= 8 && align_of::<L>() >= 8) };
    // SAFETY: each lock of the registry is `repr(C)`, and begins with its word, which is atomic.
    let word = unsafe { &*std::ptr::from_ref(lock).cast::<AtomicU64>() };
    // Beside the owner stand the marks of a death, in the bits that the alignment leaves free.
    word.load(Ordering::Relaxed) & !(align_of::<Ledger>() as u64 - 1)
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
