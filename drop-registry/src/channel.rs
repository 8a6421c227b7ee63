//! A queue of things to own, from task to task, that no death loses one of or blocks: a
//! [ring](ring) of what is to be owned, and those who wait for room in it, or for an item.
#![expect(unsafe_code, reason = "finds the current ledger, and promises what a ring bears")]

mod error;
mod ring;
#[cfg(test)]
mod tests;

use core::fmt;

use spin::relax::Spin;

use self::ring::Ring;
use crate::arch;
use crate::hand_over::HandOver;
use crate::{LedgerFull, OwnLedger, WaitStrategy};

pub use self::error::{SendError, TryRecvError, TrySendError};

/// A bounded first-in first-out queue of `H`: any number of tasks may send and receive.
///
/// Each item is in one ledger, or in the channel, at every instruction. A sender that dies has sent
/// its item, or is settled with it; a receiver that dies has not received, or likewise. Neither
/// holds up the others, for nothing is locked: [`try_send`](Self::try_send) and
/// [`try_recv`](Self::try_recv) are lock-free.
///
/// [`send`](Self::send) and [`recv`](Self::recv) wait by `R`: one of spin's relax strategies, or
/// [`Park`](crate::Park) to sleep. A channel has no end that could be closed: what is to end a
/// conversation is a message.
///
/// ```
/// # use core::ptr::NonNull;
/// # use drop_registry::{Channel, CurrentLedger, Heap, HeapMemory, Ledger, TrackedBox, TrackedHeap};
/// # struct Kernel;
/// # static LEDGER: Ledger = Ledger::new();
/// # // SAFETY: one task, one ledger.
/// # unsafe impl CurrentLedger for Kernel {
/// #     fn current() -> NonNull<Ledger> { NonNull::from(&LEDGER) }
/// # }
/// # static MEMORY: HeapMemory<4> = HeapMemory::new();
/// # static HEAP: Heap = Heap::new(&MEMORY);
/// # impl TrackedHeap for Kernel { fn heap() -> &'static Heap { &HEAP } }
/// static PACKETS: Channel<TrackedBox<[u8; 64], Kernel>, 16> = Channel::new();
///
/// // One task:
/// PACKETS.send(TrackedBox::new([7; 64]).expect("memory")).expect("room in the ledger");
/// // Another:
/// let packet = PACKETS.recv().expect("room in the ledger");
/// assert_eq!(packet[0], 7);
/// assert!(PACKETS.try_recv().is_err());
/// ```
pub struct Channel<H: HandOver, const CAPACITY: usize, R: WaitStrategy<H::Context> = Spin> {
    ring: Ring<H, CAPACITY>,
    senders: R::Waiters,
    receivers: R::Waiters,
}

// SAFETY: every change through a shared reference is a single instruction, and no state between
// two of them is invalid.
unsafe impl<H: HandOver, const CAPACITY: usize, R: WaitStrategy<H::Context>> crate::DropAfterTear
    for Channel<H, CAPACITY, R>
{
}

impl<H: HandOver, const CAPACITY: usize, R: WaitStrategy<H::Context>> Channel<H, CAPACITY, R> {
    /// An empty channel.
    pub const fn new() -> Self {
        Self { ring: Ring::new(), senders: R::NOBODY, receivers: R::NOBODY }
    }

    /// Hands `item` over to the channel, if there is room.
    ///
    /// # Errors
    /// If there is none; the item comes back.
    ///
    /// # Panics
    /// If the item is a share of a value that has 2^63 of them.
    #[inline(always)]
    pub fn try_send(&self, item: H) -> Result<(), TrySendError<H>> {
        self.send_from(arch::frame_address(), item)
    }

    /// Hands `item` over to the channel, waiting for room if need be.
    ///
    /// # Errors
    /// If the task's ledger has no room to wait; the item comes back.
    ///
    /// # Panics
    /// As [`Channel::try_send`].
    #[inline(always)]
    pub fn send(&self, item: H) -> Result<(), SendError<H>> {
        match self.send_from(arch::frame_address(), item) {
            Ok(()) => Ok(()),
            Err(TrySendError::LedgerFull(item)) => Err(SendError(item)),
            Err(TrySendError::Full(item)) => {
                self.send_when_there_is_room(arch::frame_address(), item)
            }
        }
    }

    /// Takes the item that was sent first, if there is one.
    ///
    /// # Errors
    /// If there is none, or the task's ledger is full; the channel keeps it then.
    #[inline(always)]
    pub fn try_recv(&self) -> Result<H, TryRecvError> {
        self.recv_from(arch::frame_address())
    }

    /// Takes the item that was sent first, waiting for one if need be.
    ///
    /// # Errors
    /// If the task's ledger is full: an item takes one entry, and with a strategy that sleeps the
    /// wait takes another.
    #[inline(always)]
    pub fn recv(&self) -> Result<H, LedgerFull> {
        match self.recv_from(arch::frame_address()) {
            Ok(item) => Ok(item),
            Err(TryRecvError::LedgerFull) => Err(LedgerFull),
            Err(TryRecvError::Empty) => self.recv_when_there_is_one(arch::frame_address()),
        }
    }

    /// How many items the channel has: of use to a check or a report, and stale at once.
    pub fn len(&self) -> usize {
        self.ring.len()
    }

    /// Whether the channel has nothing: stale at once.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn send_from(&self, frame: u64, item: H) -> Result<(), TrySendError<H>> {
        let mut unsent = Some(item);
        let sent = R::wake_one_after(&self.receivers, frame, || {
            unsent = unsent.take().and_then(|item| self.ring.put(item).err());
            unsent.is_none()
        });
        match (sent, unsent) {
            (_, None) => Ok(()),
            (Ok(_), Some(item)) => Err(TrySendError::Full(item)),
            (Err(LedgerFull), Some(item)) => Err(TrySendError::LedgerFull(item)),
        }
    }

    fn recv_from(&self, frame: u64) -> Result<H, TryRecvError> {
        let mut received = Err(TryRecvError::Empty);
        R::wake_one_after(&self.senders, frame, || {
            received = self.ring.pull(frame);
            received.is_ok()
        })?;
        received
    }

    #[cold]
    #[inline(never)]
    fn send_when_there_is_room(&self, frame: u64, item: H) -> Result<(), SendError<H>> {
        let mut unsent = Some(item);
        let sent = self.waiting(|| {
            R::wait_until(&self.senders, frame, || match self.send_from(frame, unsent.take()?) {
                Ok(()) => Some(Ok(())),
                Err(TrySendError::Full(item)) => {
                    unsent = Some(item);
                    None
                }
                Err(TrySendError::LedgerFull(item)) => {
                    unsent = Some(item);
                    Some(Err(LedgerFull))
                }
            })
        });
        match (sent, unsent) {
            (Err(LedgerFull), Some(item)) => Err(SendError(item)),
            _ => Ok(()),
        }
    }

    #[cold]
    #[inline(never)]
    fn recv_when_there_is_one(&self, frame: u64) -> Result<H, LedgerFull> {
        self.waiting(|| {
            R::wait_until(&self.receivers, frame, || match self.recv_from(frame) {
                Ok(item) => Some(Ok(item)),
                Err(TryRecvError::LedgerFull) => Some(Err(LedgerFull)),
                Err(TryRecvError::Empty) => None,
            })
        })
    }

    /// Says in the task's ledger that it waits for this channel.
    fn waiting<T>(&self, wait: impl FnOnce() -> T) -> T {
        let ledger = OwnLedger::<H::Context>::current();
        let _waiting = ledger.wait_for(core::ptr::from_ref(self).cast_mut().cast());
        wait()
    }
}

impl<H: HandOver, const CAPACITY: usize, R: WaitStrategy<H::Context>> Default
    for Channel<H, CAPACITY, R>
{
    fn default() -> Self {
        Self::new()
    }
}

impl<H: HandOver, const CAPACITY: usize, R: WaitStrategy<H::Context>> Drop
    for Channel<H, CAPACITY, R>
{
    /// Drops what the channel has.
    ///
    /// # Panics
    /// If the task's ledger has no room for one item.
    fn drop(&mut self) {
        while !self.is_empty() {
            let item = self.ring.pull(arch::frame_address());
            drop(item.expect("room in the ledger for what is dropped"));
        }
    }
}

impl<H: HandOver, const CAPACITY: usize, R: WaitStrategy<H::Context>> fmt::Debug
    for Channel<H, CAPACITY, R>
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel")
            .field("len", &self.len())
            .field("capacity", &CAPACITY)
            .field("senders", &self.senders)
            .field("receivers", &self.receivers)
            .finish()
    }
}
