//! Why nothing was sent, or received.

use core::fmt;

use crate::LedgerFull;

/// Why [`Channel::try_send`](crate::Channel::try_send) has not sent an item, which comes back.
pub enum TrySendError<H> {
    /// The channel has no room.
    Full(H),
    /// The task's ledger has no room to say that it owes a receiver a wake-up; only if those sleep.
    LedgerFull(H),
}

/// The task's ledger has no room for a wait, or to say that it owes a receiver a wake-up. The item
/// comes back. Only with a strategy that sleeps.
pub struct SendError<H>(pub H);

/// Why [`Channel::try_recv`](crate::Channel::try_recv) gave nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TryRecvError {
    /// The channel has nothing.
    Empty,
    /// The task's ledger has no room for what is received: one entry, and another one to owe a
    /// sender a wake-up, if those sleep. The channel keeps it.
    LedgerFull,
}

impl<H> fmt::Display for TrySendError<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full(_) => f.write_str("the channel is full"),
            Self::LedgerFull(_) => LedgerFull.fmt(f),
        }
    }
}

impl<H> fmt::Display for SendError<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        LedgerFull.fmt(f)
    }
}

impl fmt::Display for TryRecvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("the channel is empty"),
            Self::LedgerFull => LedgerFull.fmt(f),
        }
    }
}

/// Without the item.
impl<H> fmt::Debug for TrySendError<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full(_) => "Full(..)",
            Self::LedgerFull(_) => "LedgerFull(..)",
        })
    }
}

/// Without the item.
impl<H> fmt::Debug for SendError<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SendError(..)")
    }
}

impl<H> core::error::Error for TrySendError<H> {}
impl<H> core::error::Error for SendError<H> {}
impl core::error::Error for TryRecvError {}

impl From<LedgerFull> for TryRecvError {
    fn from(_: LedgerFull) -> Self {
        Self::LedgerFull
    }
}
