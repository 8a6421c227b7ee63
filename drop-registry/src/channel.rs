//! A queue of things to own, from task to task, that no death loses one of or blocks.
//!
//! A ring of cells, each with the number of the item that it has or waits for. Sending changes a
//! cell from "waits for n" to "has n", receiving from "has n" to "waits for n + capacity", each by
//! one instruction in a window, together with the task's ledger:
//!
//! ```text
//!                     tail: the next number to send, or one that was sent already
//!                      ▼
//!  [ has 8 ] [ has 9 ] [ waits for 10 ] [ waits for 7 + 4 ]
//!      ▲
//!     head: the next number to receive, or one that was received already
//! ```
//!
//! `head` and `tail` go up after that, and whoever finds one behind takes it on: so a task that
//! died in between has blocked nobody. Item n is sent only by who has read a tail of n, when all
//! before it have been sent, and received likewise: so the items come out in the order in which
//! they went in. A number never comes again, so a delayed task cannot mistake one turn of a cell for
//! another. (That head and tail are helped on is from Tsigas and Zhang, "A simple, fast and scalable
//! non-blocking concurrent FIFO queue", SPAA 2001; the numbered cells are Vyukov's.)
#![expect(unsafe_code, reason = "owns what is handed over")]

use core::fmt;
use core::marker::PhantomData;
use core::sync::atomic::{AtomicU64, Ordering};

use spin::relax::Spin;

use crate::arch::{self, Turn};
use crate::hand_over::{self, HandOver};
use crate::{CurrentLedger, LedgerFull, WaitStrategy};

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
    /// Of item n, the one at n modulo `CAPACITY`. A word of 0 is that the cell waits.
    cells: [Turn; CAPACITY],
    head: AtomicU64,
    tail: AtomicU64,
    senders: R::Waiters,
    receivers: R::Waiters,
    /// Invariant in `H`, as for a slot: items go in and come out by a shared borrow.
    context: PhantomData<fn(H) -> (H, R)>,
}

// SAFETY: every change is a single instruction, and no state between two of them is invalid.
unsafe impl<H: HandOver, const CAPACITY: usize, R: WaitStrategy<H::Context>> crate::DropAfterTear
    for Channel<H, CAPACITY, R>
{
}

/// Why [`Channel::try_send`] has not sent an item, which comes back.
pub enum TrySendError<H> {
    /// The channel has no room.
    Full(H),
    /// The task's ledger has no room to say that it owes a receiver a wake-up; only if those sleep.
    LedgerFull(H),
}

/// The task's ledger has no room for a wait, or to say that it owes a receiver a wake-up. The item
/// comes back. Only with a strategy that sleeps.
pub struct SendError<H>(pub H);

/// Why [`Channel::try_recv`] gave nothing.
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

impl<H: HandOver, const CAPACITY: usize, R: WaitStrategy<H::Context>> Channel<H, CAPACITY, R> {
    /// An empty channel.
    pub const fn new() -> Self {
        const { assert!(CAPACITY > 0, "a channel has room for something") };
        let mut cells =
            [const { Turn { word: AtomicU64::new(0), number: AtomicU64::new(0) } }; CAPACITY];
        let mut n = 0;
        while n < CAPACITY {
            cells[n].number = AtomicU64::new(n as u64);
            n += 1;
        }
        Self {
            cells,
            head: AtomicU64::new(0),
            tail: AtomicU64::new(0),
            senders: R::NOBODY,
            receivers: R::NOBODY,
            context: PhantomData,
        }
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
        let has = |cell: &&Turn| cell.word.load(Ordering::Relaxed) != 0;
        self.cells.iter().filter(has).count()
    }

    /// Whether the channel has nothing: stale at once.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn send_from(&self, frame: u64, item: H) -> Result<(), TrySendError<H>> {
        let mut unsent = Some(item);
        let sent = R::wake_one_after(&self.receivers, frame, || {
            unsent = unsent.take().and_then(|item| self.put(item).err());
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
            received = self.pull(frame);
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
        // SAFETY: `CurrentLedger`: the ledger is this task's.
        let ledger = unsafe { H::Context::current().as_ref() };
        let _waiting = ledger.wait_for(core::ptr::from_ref(self).cast_mut().cast());
        wait()
    }

    fn cell(&self, number: u64) -> &Turn {
        &self.cells[(number % CAPACITY as u64) as usize]
    }

    /// Puts `item` into the cell at the tail, if that is free.
    fn put(&self, mut item: H) -> Result<(), H> {
        loop {
            // Acquire, here and in `pull`: a cell is at least as far on as the tail says.
            let tail = self.tail.load(Ordering::Acquire);
            let cell = self.cell(tail);
            // The number first: a word that is set is then that of item `tail`, or a later one. (In
            // the other order it may be that of the round before, received in between.)
            let number = cell.number.load(Ordering::Acquire);
            match cell.word.load(Ordering::Acquire) {
                // It had the item from a round ago: since the tail was read, so it was full.
                _ if number < tail => return Err(item),
                0 if number == tail => {
                    // SAFETY: with the word in it, the cell owns the item, and the task does not.
                    // The locked exchange publishes the item to whoever receives it.
                    let give = |word, entry: &_| unsafe { arch::give(cell, entry, tail, word) };
                    match hand_over::give(item, give) {
                        Ok(()) => {
                            self.advance(&self.tail, tail);
                            return Ok(());
                        }
                        Err(back) => item = back,
                    }
                }
                _ if planted!(NobodyHelps) => return Err(item),
                // Item `tail` has been sent, and its sender has not said so yet.
                _ => self.advance(&self.tail, tail),
            }
        }
    }

    /// Takes the item out of the cell at the head, if there is one.
    fn pull(&self, frame: u64) -> Result<H, TryRecvError> {
        loop {
            let head = self.head.load(Ordering::Acquire);
            let cell = self.cell(head);
            // The word first: if it is 0, and the number is the head's afterwards, item `head` had
            // not been sent. (In the other order it may have been sent and received in between.)
            let word = cell.word.load(Ordering::Acquire);
            if cell.number.load(Ordering::Acquire) != head {
                // Item `head` has been received, and its receiver has not said so yet.
                self.advance(&self.head, head);
                continue;
            }
            if word == 0 {
                return Err(TryRecvError::Empty);
            }
            let next = head.wrapping_add(CAPACITY as u64);
            // SAFETY: if it is still the cell's turn, the cell owns the item of this word, which is
            // that of `head`; after the window the task does.
            let received = unsafe {
                hand_over::take(word, |resource, under, ledger, depth| {
                    arch::receive(cell, resource, head, next, word, under, ledger, depth, frame)
                })
            }?;
            if let Some(item) = received {
                self.advance(&self.head, head);
                return Ok(item);
            }
        }
    }

    /// Takes `end` on from `number`, unless somebody else has.
    fn advance(&self, end: &AtomicU64, number: u64) {
        let next = number.wrapping_add(1);
        // Release: whoever sees the end there sees the cell as it is now.
        let _ = end.compare_exchange(number, next, Ordering::AcqRel, Ordering::Relaxed);
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
            drop(self.pull(arch::frame_address()).expect("room in the ledger for what is dropped"));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{TestTask, kill, on_fresh_ledger};
    use crate::{Ledger, Mutex, Outcome, Shared, TrackedBox};
    use std::vec::Vec;

    type Boxes<const CAPACITY: usize> = Channel<TrackedBox<u64, TestTask>, CAPACITY>;

    fn boxed(value: u64) -> TrackedBox<u64, TestTask> {
        TrackedBox::new(value).unwrap()
    }

    #[test]
    fn items_come_out_in_the_order_in_which_they_went_in() {
        let channel = Boxes::<3>::new();
        on_fresh_ledger(|ledger| {
            let mut expected = 0;
            // Several rounds, with the channel full and empty at every cell.
            for round in 0..20u64 {
                for n in 0..=round % 3 {
                    channel.try_send(boxed(round * 10 + n)).unwrap();
                }
                for n in 0..=round % 3 {
                    assert_eq!(*channel.try_recv().unwrap(), round * 10 + n);
                    expected += 1;
                }
                assert_eq!(channel.try_recv().unwrap_err(), TryRecvError::Empty);
            }
            assert_eq!((expected, ledger.len()), (39, 0));
        });
    }

    #[test]
    fn a_full_channel_gives_the_item_back() {
        on_fresh_ledger(|ledger| {
            let channel = Boxes::<2>::new();
            channel.try_send(boxed(1)).unwrap();
            channel.try_send(boxed(2)).unwrap();
            let Err(TrySendError::Full(back)) = channel.try_send(boxed(3)) else { panic!("sent") };
            assert_eq!((*back, channel.len(), ledger.len()), (3, 2, 1));
        });
    }

    #[test]
    fn a_full_ledger_loses_nothing() {
        let channel = Boxes::<2>::new();
        on_fresh_ledger(|_| channel.try_send(boxed(7)).unwrap());
        on_fresh_ledger(|ledger| {
            let most: Vec<_> =
                core::iter::from_fn(|| TrackedBox::<u64, TestTask>::new(0).ok()).collect();
            assert_eq!(ledger.len(), Ledger::CAPACITY);
            assert_eq!(channel.try_recv().unwrap_err(), TryRecvError::LedgerFull);
            assert_eq!(channel.recv().unwrap_err(), LedgerFull);
            assert_eq!(channel.len(), 1);
            drop(most);
            assert_eq!(*channel.try_recv().unwrap(), 7);
        });
    }

    #[test]
    fn what_was_sent_outlives_its_sender_and_dies_with_its_receiver() {
        let channel = Channel::<Shared<u64, TestTask>, 4>::new();
        on_fresh_ledger(|_| {
            let mine = Shared::new(5).unwrap();
            channel.try_send(mine.try_clone().unwrap()).unwrap();
            assert_eq!(Shared::count(&mine), 2, "a clone that was sent is counted");
            let gone = kill(|| core::mem::forget(channel.try_recv().unwrap()));
            assert_eq!((gone, Shared::count(&mine)), (Vec::from([Outcome::Released]), 1));
        });
    }

    #[test]
    fn what_was_taken_after_an_item_that_is_sent_stays_listed_when_what_was_before_it_goes() {
        on_fresh_ledger(|ledger| {
            let lock = Mutex::<u64, TestTask>::new(0);
            let channel = Boxes::<2>::new();
            let guard = lock.lock().unwrap();
            let (sent, kept) = (boxed(1), boxed(2));
            channel.try_send(sent).unwrap();
            drop(guard);
            assert_eq!(ledger.len(), 1);
            drop(kept);
            assert!(ledger.is_empty());
        });
    }

    #[test]
    fn who_finds_the_ends_behind_takes_them_on() {
        on_fresh_ledger(|_| {
            let channel = Boxes::<2>::new();
            // As after the death of a sender, and of a receiver, before they could say so.
            channel.try_send(boxed(1)).unwrap();
            channel.tail.store(0, Ordering::Relaxed);
            channel.try_send(boxed(2)).unwrap();
            assert_eq!(*channel.try_recv().unwrap(), 1);
            channel.head.store(0, Ordering::Relaxed);
            assert_eq!(*channel.try_recv().unwrap(), 2);
            assert!(channel.is_empty());
        });
    }

    #[test]
    fn a_dropped_channel_drops_what_it_has() {
        on_fresh_ledger(|ledger| {
            let probe = Shared::new(0).unwrap();
            let channel = Channel::<Shared<u64, TestTask>, 4>::new();
            for _ in 0..3 {
                channel.try_send(probe.try_clone().unwrap()).unwrap();
            }
            assert_eq!(Shared::count(&probe), 4);
            drop(channel);
            assert_eq!((Shared::count(&probe), ledger.len()), (1, 1));
        });
    }

    /// Two threads send, two receive; and no item is lost, or passes another of its sender's.
    fn stress<const CAPACITY: usize>() {
        const SENDERS: u64 = 2;
        const ITEMS: u64 = 5_000;
        let channel = Boxes::<CAPACITY>::new();
        let received: Vec<Vec<u64>> = std::thread::scope(|scope| {
            let channel = &channel;
            for sender in 0..SENDERS {
                scope.spawn(move || {
                    on_fresh_ledger(|_| {
                        for n in 0..ITEMS {
                            let mut item = boxed(sender * ITEMS + n);
                            while let Err(TrySendError::Full(back)) = channel.try_send(item) {
                                item = back;
                                std::thread::yield_now();
                            }
                        }
                    });
                });
            }
            let receiver = || {
                let mut all = Vec::new();
                on_fresh_ledger(|_| {
                    while all.len() < (SENDERS * ITEMS / 2) as usize {
                        match channel.try_recv() {
                            Ok(item) => all.push(*item),
                            Err(_) => std::thread::yield_now(),
                        }
                    }
                });
                all
            };
            let receivers = [scope.spawn(receiver), scope.spawn(receiver)];
            receivers.map(|receiver| receiver.join().unwrap()).into()
        });
        for one in &received {
            for sender in 0..SENDERS {
                let from: Vec<_> = one.iter().filter(|item| **item / ITEMS == sender).collect();
                assert!(from.is_sorted(), "a sender's items came out of order");
            }
        }
        let mut all: Vec<_> = received.concat();
        all.sort_unstable();
        assert!(all.into_iter().eq(0..SENDERS * ITEMS));
    }

    #[test]
    fn threads_that_send_and_receive_at_once_lose_nothing_and_keep_each_sender_s_order() {
        stress::<1>();
        stress::<2>();
        stress::<7>();
    }
}
