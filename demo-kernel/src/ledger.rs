//! The place of a task's drop ledger.

/// What a task holds. A placeholder with the size of nothing: the drop registry's own type takes
/// its place when the kernel's locks are tracked.
#[derive(Debug)]
pub(crate) struct Ledger;

impl Ledger {
    pub(crate) const fn new() -> Self {
        Self
    }
}

/// The ledger of everything that runs before the first task.
pub(crate) static BOOT: Ledger = Ledger::new();
