//! Why a lock was not taken as usual.

use core::fmt;

use crate::owner_word::{Refused, TryRefused};
use crate::{Exclusive, LedgerFull, OwnerDied};

/// What waiting for a lock gives: a plain guard, or why not.
pub type LockResult<G> = Result<G, LockError<G>>;

/// What trying to take a lock gives: a plain guard, or why not.
pub type TryLockResult<G> = Result<G, TryLockError<G>>;

/// Why [`Mutex::lock`](crate::Mutex::lock) or [`RwLock::write`](crate::RwLock::write) did not
/// return a plain guard `G`.
pub enum LockError<G: Exclusive> {
    /// The lock is held now, but its last owner died holding it and the value may be torn.
    OwnerDied(OwnerDied<G>),
    /// Somebody was told that the owner died, and unlocked without making the value consistent.
    /// The lock is not held, and never will be.
    NotRecoverable,
    /// The lock is not held: the calling task holds it already.
    Recursive,
    /// The lock is not held: the calling task's ledger has no room to say that it is.
    LedgerFull,
}

/// Why [`Mutex::try_lock`](crate::Mutex::try_lock) or
/// [`RwLock::try_write`](crate::RwLock::try_write) did not return a plain guard `G`.
pub enum TryLockError<G: Exclusive> {
    /// Another task holds it.
    WouldBlock,
    /// As when waiting for it.
    Lock(LockError<G>),
}

impl<G: Exclusive> fmt::Display for LockError<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OwnerDied(_) => f.write_str("the lock's last owner died holding it"),
            Self::NotRecoverable => f.write_str("the lock's value was given up after a death"),
            Self::Recursive => f.write_str("the task holds this lock already"),
            Self::LedgerFull => LedgerFull.fmt(f),
        }
    }
}

impl<G: Exclusive> fmt::Display for TryLockError<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WouldBlock => f.write_str("another task holds the lock"),
            Self::Lock(error) => error.fmt(f),
        }
    }
}

/// As [`Display`](fmt::Display): a value that may be torn is not shown.
impl<G: Exclusive> fmt::Debug for LockError<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// As [`Display`](fmt::Display).
impl<G: Exclusive> fmt::Debug for TryLockError<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<G: Exclusive> core::error::Error for LockError<G> {}
impl<G: Exclusive> core::error::Error for TryLockError<G> {}

impl<G: Exclusive> From<LedgerFull> for LockError<G> {
    fn from(_: LedgerFull) -> Self {
        Self::LedgerFull
    }
}

impl<G: Exclusive> From<Refused> for LockError<G> {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Closed => Self::NotRecoverable,
            Refused::Recursive => Self::Recursive,
            Refused::LedgerFull => Self::LedgerFull,
        }
    }
}

impl<G: Exclusive> From<TryRefused> for TryLockError<G> {
    fn from(refused: TryRefused) -> Self {
        match refused {
            TryRefused::WouldBlock => Self::WouldBlock,
            TryRefused::Refused(why) => Self::Lock(why.into()),
        }
    }
}

/// Why waiting was refused for what a death leaves whole. Nothing is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitError {
    /// The calling task would wait for itself.
    Recursive,
    /// The calling task's ledger has no room to say what it holds.
    LedgerFull,
}

/// Why [`RollbackMutex::try_lock`](crate::RollbackMutex::try_lock) did not return a guard. Nothing
/// is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TryWaitError {
    /// Another task holds it.
    WouldBlock,
    /// As when waiting for it.
    Wait(WaitError),
}

impl fmt::Display for WaitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Recursive => f.write_str("the task would wait for itself"),
            Self::LedgerFull => LedgerFull.fmt(f),
        }
    }
}

impl fmt::Display for TryWaitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WouldBlock => f.write_str("another task holds the lock"),
            Self::Wait(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for WaitError {}
impl core::error::Error for TryWaitError {}

impl From<LedgerFull> for WaitError {
    fn from(_: LedgerFull) -> Self {
        Self::LedgerFull
    }
}

impl From<Refused> for WaitError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Recursive => Self::Recursive,
            Refused::LedgerFull => Self::LedgerFull,
            Refused::Closed => unreachable!("what a death leaves whole is never given up"),
        }
    }
}

impl From<TryRefused> for TryWaitError {
    fn from(refused: TryRefused) -> Self {
        match refused {
            TryRefused::WouldBlock => Self::WouldBlock,
            TryRefused::Refused(why) => Self::Wait(why.into()),
        }
    }
}

/// The value may be torn: its lock's last owner died, or still holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaybeTorn;

impl fmt::Display for MaybeTorn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the value may be torn")
    }
}

impl core::error::Error for MaybeTorn {}
