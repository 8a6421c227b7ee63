//! What a meter asks: which lock has been held for longest, and whether it is still the same.

use crate::{Domain, Ledger, ResourceKind};

impl Ledger {
    /// The lock that the task has held longest of those that it holds, and whether this has been
    /// asked before while it held it without a break.
    ///
    /// For the timer's trap: it is bounded by the ledger's capacity, and writes one bit of the
    /// entry, which goes with it. The task must not run meanwhile: it has been interrupted, or
    /// waits.
    pub fn look_at_oldest_lock(&self, domain: &Domain<'_>) -> Option<(*mut (), bool)> {
        use ResourceKind::{Mutex, ReadLock, WriteLock};
        let moved = self.moved_entry();
        let entries = self.entries.iter().enumerate();
        let mut held = entries.filter(|(index, it)| !it.is_vacant() && Some(*index) != moved);
        held.find_map(|(_, entry)| {
            let kind = domain.operations(entry)?.kind;
            matches!(kind, Mutex | ReadLock | WriteLock).then(|| (entry.place(), entry.mark_seen()))
        })
    }
}
