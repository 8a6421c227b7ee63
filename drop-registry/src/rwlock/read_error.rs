//! Why a lock is not read.

use core::fmt;

use crate::LedgerFull;

/// Why [`RwLock::read`](crate::RwLock::read) did not return a guard. The lock is not held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadError {
    /// A writer died, and the value may be torn. A writer is to put it right: see
    /// [`LockError::OwnerDied`](crate::LockError::OwnerDied).
    OwnerDied,
    /// A writer was told of that, and gave the value up. For good.
    NotRecoverable,
    /// The calling task writes.
    Recursive,
    /// The calling task's ledger has no room to say that it reads.
    LedgerFull,
}

/// Why [`RwLock::try_read`](crate::RwLock::try_read) did not return a guard. The lock is not held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TryReadError {
    /// Another task writes, or waits to.
    WouldBlock,
    /// As when waiting for it.
    Read(ReadError),
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OwnerDied => f.write_str("a writer died, and nobody has put the value right"),
            Self::NotRecoverable => f.write_str("the lock's value was given up after a death"),
            Self::Recursive => f.write_str("the task writes through this lock"),
            Self::LedgerFull => LedgerFull.fmt(f),
        }
    }
}

impl fmt::Display for TryReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WouldBlock => f.write_str("another task writes"),
            Self::Read(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for ReadError {}
impl core::error::Error for TryReadError {}

impl From<LedgerFull> for ReadError {
    fn from(_: LedgerFull) -> Self {
        Self::LedgerFull
    }
}
