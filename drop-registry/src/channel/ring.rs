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
//! they went in. A number never comes again, so a delayed task cannot mistake one turn of a cell
//! for another. (That head and tail are helped on is from Tsigas and Zhang, "A simple, fast and
//! scalable non-blocking concurrent FIFO queue", SPAA 2001; the numbered cells are Vyukov's.)
#![expect(unsafe_code, reason = "owns what is handed over")]

use core::marker::PhantomData;
use core::sync::atomic::{AtomicU64, Ordering};

use super::TryRecvError;
use crate::arch::{self, Turn};
use crate::hand_over::{self, HandOver};

/// The cells and the two ends.
pub(super) struct Ring<H, const CAPACITY: usize> {
    /// Of item n, the one at n modulo `CAPACITY`. A word of 0 is that the cell waits.
    cells: [Turn; CAPACITY],
    pub(super) head: AtomicU64,
    pub(super) tail: AtomicU64,
    /// Invariant in `H`, as for a slot: items go in and come out by a shared borrow.
    context: PhantomData<fn(H) -> H>,
}

impl<H: HandOver, const CAPACITY: usize> Ring<H, CAPACITY> {
    pub(super) const fn new() -> Self {
        const { assert!(CAPACITY > 0, "a channel has room for something") };
        let mut cells =
            [const { Turn { word: AtomicU64::new(0), number: AtomicU64::new(0) } }; CAPACITY];
        let mut n = 0;
        while n < CAPACITY {
            cells[n].number = AtomicU64::new(n as u64);
            n += 1;
        }
        Self { cells, head: AtomicU64::new(0), tail: AtomicU64::new(0), context: PhantomData }
    }

    /// How many items it has: stale at once.
    pub(super) fn len(&self) -> usize {
        let has = |cell: &&Turn| cell.word.load(Ordering::Relaxed) != 0;
        self.cells.iter().filter(has).count()
    }

    fn cell(&self, number: u64) -> &Turn {
        &self.cells[(number % CAPACITY as u64) as usize]
    }

    /// Puts `item` into the cell at the tail, if that is free.
    pub(super) fn put(&self, mut item: H) -> Result<(), H> {
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
    pub(super) fn pull(&self, frame: u64) -> Result<H, TryRecvError> {
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
                hand_over::take(word, |resource, under, at| {
                    arch::receive(cell, resource, head, next, word, under, at, frame)
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
