//! A queue of waiting tasks that has no links to tear.
//!
//! Each task has two bits in the queue, at its own number. *Waiting* is set and cleared by the
//! task itself, or by its settlement; *woken* is set by a waker, beside a waiting bit alone, and
//! cleared by the waiter. All of a task's part in the queue is in its own two bits and in one
//! entry of its ledger, and so it is undone by clearing the bits, however far it had come.
//!
//! ```text
//!  waiter                                   waker
//!  ───────────────────────────────────      ──────────────────────────────────────────────
//!  entry: "waits in this queue"             entry: "owes this queue a wake-up"
//!  set own waiting bit                      make it true (free the lock, add the permit)
//!  ═══ full barrier ═══                     ═══ full barrier ═══
//!  is it true? then done, else:      ◄──►   who is waiting and not woken? nobody: done
//!  park until own woken bit is set          set its woken bit (compare-exchange)
//!  clear it, and look again                 unpark it
//!  ───────────────────────────────────      erase the entry
//!  done: clear both bits
//!  was it woken meanwhile? wake another
//!  erase the entry
//! ```
//!
//! The two barriers pair: of two tasks that each write and then read what the other writes, at
//! least one sees the other's write. So either the waiter sees that it need not sleep, or the
//! waker sees the waiter.
//!
//! A death adds wake-ups and never takes one away. Wherever between its first and its last line
//! either side dies, its entry stands, and settling it clears its bits, unparks again whoever is
//! marked as woken (the waker may have died before it did), and wakes one more. That may be one
//! too many, which is harmless, because every waiter looks again; one too few would be for ever.
#![expect(unsafe_code, reason = "writes entries and calls back through them")]

use core::fmt;
use core::marker::PhantomData;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering, fence};

use crate::arch;
use crate::ledger::Waiting;
use crate::{
    Entry, Extent, Ledger, LedgerFull, Operations, Outcome, OwnLedger, Parker, ResourceKind,
};

/// How many tasks have their bits in one word: waiting in the low half, woken in the high half.
const TASKS_PER_WORD: usize = 32;

/// Tasks that wait until something is so, and are woken one by one or all at once.
///
/// It has room for the task numbers below 32 times `WORDS`; a [`Parker`] with more of them is
/// refused when the program is compiled. Wake-ups go round by task number, each to the next
/// waiter after the last one woken: not in the order of arrival, but nobody is passed over more
/// often than there are other tasks.
///
/// Unlike a lock, it has nothing to look for when it is destroyed: whoever waits in it, or owes it a
/// wake-up, borrows it until the call returns, and has no guard that could be forgotten.
///
/// ```
/// # use core::ptr::NonNull;
/// # use core::sync::atomic::{AtomicBool, Ordering};
/// # use drop_registry::{CurrentLedger, Ledger, LedgerFull, Parker, WaitQueue};
/// # struct Kernel;
/// # static LEDGER: Ledger = Ledger::new();
/// # // SAFETY: one task, one ledger.
/// # unsafe impl CurrentLedger for Kernel {
/// #     fn current() -> NonNull<Ledger> { NonNull::from(&LEDGER) }
/// # }
/// # // SAFETY: one task, which is never unparked.
/// # unsafe impl Parker for Kernel {
/// #     const TASKS: usize = 1;
/// #     fn index(_: &Ledger) -> usize { 0 }
/// #     fn park() { unreachable!() }
/// #     fn unpark(_: usize) {}
/// # }
/// static READY: AtomicBool = AtomicBool::new(false);
/// static WAITERS: WaitQueue<Kernel> = WaitQueue::new();
///
/// # fn both() -> Result<(), LedgerFull> {
/// // One side:
/// WAITERS.wake_one_after(|| READY.store(true, Ordering::Release))?;
/// // The other:
/// WAITERS.wait_until(|| READY.swap(false, Ordering::Acquire).then_some(Ok(())))
/// # }
/// # both().unwrap();
/// ```
pub struct WaitQueue<L, const WORDS: usize = 1> {
    words: [AtomicU64; WORDS],
    /// The task number at which the search for a waiter begins: a hint.
    next: AtomicUsize,
    context: PhantomData<fn() -> L>,
}

impl<L: Parker, const WORDS: usize> WaitQueue<L, WORDS> {
    /// A queue in which nobody waits.
    pub const fn new() -> Self {
        const { assert!(L::TASKS <= WORDS * TASKS_PER_WORD, "more tasks than the queue has room for") };
        Self {
            words: [const { AtomicU64::new(0) }; WORDS],
            next: AtomicUsize::new(0),
            context: PhantomData,
        }
    }

    /// A task that waits, or that has been woken and has not looked yet.
    const WAITS: &'static Operations =
        &Operations::releasing(ResourceKind::WaitQueue, Extent::of::<Self>(), withdraw::<L, WORDS>);

    /// A task that is about to wake one other.
    const OWES_ONE: &'static Operations = &Operations::releasing(
        ResourceKind::WaitQueue,
        Extent::of::<Self>(),
        wake_one_for_dead::<L, WORDS>,
    );

    /// A task that is about to wake all others.
    const OWES_ALL: &'static Operations = &Operations::releasing(
        ResourceKind::WaitQueue,
        Extent::of::<Self>(),
        wake_all_for_dead::<L, WORDS>,
    );

    /// Calls `attempt` until it returns something, and sleeps in between.
    ///
    /// `None` is "not yet". An `Ok` uses up the wake-up that led to it; an `Err` ends the wait as
    /// well, and the wake-up goes to another waiter. So it does if `attempt` panics, or if the
    /// task dies at any time before this returns: do within `attempt` what the wake-up is for.
    ///
    /// # Errors
    /// What `attempt` returns; or if the task's ledger is full: a wait takes one entry.
    ///
    /// # Panics
    /// If `attempt` itself waits in this queue.
    #[inline(always)]
    pub fn wait_until<T, E: From<LedgerFull>>(
        &self,
        attempt: impl FnMut() -> Option<Result<T, E>>,
    ) -> Result<T, E> {
        self.wait_told(arch::frame_address(), attempt)
    }

    /// As [`WaitQueue::wait_until`], by the frame at stack pointer `frame`.
    pub(crate) fn wait_told<T, E: From<LedgerFull>>(
        &self,
        frame: u64,
        attempt: impl FnMut() -> Option<Result<T, E>>,
    ) -> Result<T, E> {
        let ledger = OwnLedger::<L>::current();
        let _waiting = ledger.wait_for(self.as_resource());
        self.wait(frame, attempt)
    }

    /// As [`WaitQueue::wait_told`], for a wait whose cause the caller has written down itself.
    pub(crate) fn wait<T, E: From<LedgerFull>>(
        &self,
        frame: u64,
        mut attempt: impl FnMut() -> Option<Result<T, E>>,
    ) -> Result<T, E> {
        let mut place = self.enrol(frame)?;
        loop {
            if let Some(result) = attempt() {
                place.wake_up_used = result.is_ok();
                return result;
            }
            if planted!(QueuedAfterLook) {
                place.word.fetch_or(place.waiting, Ordering::SeqCst);
            }
            // Not by the token alone: `attempt` may have slept elsewhere, and taken it there.
            while !place.take_wake_up() {
                L::park();
            }
        }
    }

    /// Enters the calling task.
    pub(crate) fn enrol(&self, frame: u64) -> Result<Enrolled<'_, L, WORDS>, LedgerFull> {
        let ledger = OwnLedger::<L>::current();
        let task = L::index(ledger.as_ledger());
        assert!(task < L::TASKS, "whoever waits has a number");
        let (word, waiting) = self.bits(task);
        assert!(word.load(Ordering::Relaxed) & waiting == 0, "a task waits once in one queue");
        if planted!(BitBeforeEntry) {
            word.fetch_or(waiting, Ordering::SeqCst);
        }
        // SAFETY: from now on, clearing this task's bits is right at any time.
        unsafe { ledger.record(self.as_resource(), Self::WAITS, frame) }?;
        if !planted!(QueuedAfterLook) {
            word.fetch_or(waiting, Ordering::SeqCst);
        }
        // The waiter's barrier. (A locked instruction is one by itself, the model's is not.)
        fence(Ordering::SeqCst);
        Ok(Enrolled { queue: self, ledger, word, waiting, wake_up_used: false })
    }

    /// Wakes one waiter, if there is one: to be called after what it waits for has come true.
    ///
    /// # Errors
    /// If the task's ledger is full; nobody is woken. (What is owed to the waiters stands in the
    /// ledger meanwhile.)
    pub fn wake_one(&self) -> Result<(), LedgerFull> {
        self.wake_one_after(|| ())
    }

    /// Wakes all waiters: to be called after what they wait for has come true.
    ///
    /// # Errors
    /// As [`WaitQueue::wake_one`].
    pub fn wake_all(&self) -> Result<(), LedgerFull> {
        self.wake_all_after(|| ())
    }

    /// Makes a change, and wakes one waiter: also if the task dies as soon as it has made it.
    ///
    /// # Errors
    /// If the task's ledger is full; nothing has happened then.
    #[inline(always)]
    pub fn wake_one_after<T>(&self, change: impl FnOnce() -> T) -> Result<T, LedgerFull> {
        let _debt = self.owe(Wake::One, arch::frame_address())?;
        Ok(change())
    }

    /// Makes a change, and wakes all waiters: also if the task dies as soon as it has made it.
    ///
    /// # Errors
    /// As [`WaitQueue::wake_one_after`].
    #[inline(always)]
    pub fn wake_all_after<T>(&self, change: impl FnOnce() -> T) -> Result<T, LedgerFull> {
        let _debt = self.owe(Wake::All, arch::frame_address())?;
        Ok(change())
    }

    /// Writes down that wake-ups are owed to this queue, by the frame at stack pointer `frame`.
    pub(crate) fn owe(&self, wake: Wake, frame: u64) -> Result<Debt<'_, L, WORDS>, LedgerFull> {
        let ledger = OwnLedger::<L>::current();
        let operations = match wake {
            Wake::One => Self::OWES_ONE,
            Wake::All => Self::OWES_ALL,
        };
        // SAFETY: a wake-up may be given at any time.
        unsafe { ledger.record(self.as_resource(), operations, frame) }?;
        Ok(Debt { queue: self, ledger, wake: Some(wake) })
    }

    /// Whether anybody waits: of use to a check or a report, and stale at once.
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|word| word.load(Ordering::Relaxed) == 0)
    }

    /// Wakes one waiter, and says whether there was one. The caller's barrier comes before, and
    /// its ledger says until afterwards that it owes this.
    pub(crate) fn notify_one(&self) -> bool {
        let start = self.next.load(Ordering::Relaxed) % (WORDS * TASKS_PER_WORD);
        let (first, from) = (start / TASKS_PER_WORD, u64::MAX << (start % TASKS_PER_WORD));
        // The first word comes twice: its upper part at the beginning, the lower part at the end.
        for turn in 0..=WORDS {
            let number = (first + turn) % WORDS;
            let eligible = match turn {
                0 => from,
                turn if turn == WORDS => !from,
                _ => u64::MAX,
            };
            let word = &self.words[number];
            // SeqCst: after the caller's barrier, in the one order of all of them.
            let mut bits = word.load(Ordering::SeqCst);
            loop {
                let sleeping = waiting(bits) & !woken(bits) & eligible & Self::tasks_in(number);
                if sleeping == 0 {
                    break;
                }
                let bit = sleeping.trailing_zeros();
                let new = bits | 1 << bit << TASKS_PER_WORD;
                // An exchange, because the waiter may have gone: nobody else would clear the bit.
                match word.compare_exchange(bits, new, Ordering::SeqCst, Ordering::SeqCst) {
                    Ok(_) => {
                        let task = number * TASKS_PER_WORD + bit as usize;
                        self.next.store(task + 1, Ordering::Relaxed);
                        L::unpark(task);
                        return true;
                    }
                    Err(now) => bits = now,
                }
            }
        }
        false
    }

    /// Wakes all waiters, and unparks again those that were woken before.
    pub(crate) fn notify_all(&self) {
        for word in &self.words {
            let mut bits = word.load(Ordering::SeqCst);
            while waiting(bits) & !woken(bits) != 0 {
                let new = bits | waiting(bits) << TASKS_PER_WORD;
                match word.compare_exchange(bits, new, Ordering::SeqCst, Ordering::SeqCst) {
                    Ok(_) => break,
                    Err(now) => bits = now,
                }
            }
        }
        self.unpark_woken();
    }

    /// What the death of a waiter or a waker calls for.
    pub(crate) fn pass_on(&self) {
        if !planted!(UnparkedOnce) {
            self.unpark_woken();
        }
        self.notify_one();
    }

    fn unpark_woken(&self) {
        for (number, word) in self.words.iter().enumerate() {
            let mut woken = woken(word.load(Ordering::SeqCst)) & Self::tasks_in(number);
            while woken != 0 {
                L::unpark(number * TASKS_PER_WORD + woken.trailing_zeros() as usize);
                woken &= woken - 1;
            }
        }
    }

    /// The bits of word `number` that are some task's. No other is ever set, unless by a wild
    /// write; but nobody is to unpark a task that there cannot be.
    const fn tasks_in(number: usize) -> u64 {
        match L::TASKS.saturating_sub(number * TASKS_PER_WORD) {
            0 => 0,
            tasks if tasks < TASKS_PER_WORD => (1 << tasks) - 1,
            _ => u64::MAX >> TASKS_PER_WORD,
        }
    }

    /// A task's word, and its waiting bit there.
    fn bits(&self, task: usize) -> (&AtomicU64, u64) {
        // `Parker`: the number is below `TASKS`, and so the remainder is the number itself.
        (&self.words[task / TASKS_PER_WORD % WORDS], 1 << (task % TASKS_PER_WORD))
    }

    fn as_resource(&self) -> *mut () {
        core::ptr::from_ref(self).cast_mut().cast()
    }
}

impl<L: Parker, const WORDS: usize> Default for WaitQueue<L, WORDS> {
    fn default() -> Self {
        Self::new()
    }
}

/// Shows the numbers of the tasks that wait, or have left a bit behind.
impl<L, const WORDS: usize> fmt::Debug for WaitQueue<L, WORDS> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let waits = |task: &usize| {
            let bits = self.words[task / TASKS_PER_WORD].load(Ordering::Relaxed);
            (waiting(bits) | woken(bits)) >> (task % TASKS_PER_WORD) & 1 != 0
        };
        f.debug_set().entries((0..WORDS * TASKS_PER_WORD).filter(waits)).finish()
    }
}

/// The calling task's place in a queue; dropping it leaves.
pub(crate) struct Enrolled<'q, L: Parker, const WORDS: usize> {
    queue: &'q WaitQueue<L, WORDS>,
    ledger: OwnLedger<'q, L>,
    word: &'q AtomicU64,
    waiting: u64,
    /// Whether the task has done what it was woken for. If not, another one is to.
    pub(crate) wake_up_used: bool,
}

impl<L: Parker, const WORDS: usize> Enrolled<'_, L, WORDS> {
    /// Writes down that the task waits here, until what this returns is dropped.
    pub(crate) fn wait_for_wake_up(&self) -> Waiting<'_> {
        self.ledger.wait_for(self.queue.as_resource())
    }

    /// Whether the task has been woken since it last asked: from now on, it can be again.
    pub(crate) fn take_wake_up(&self) -> bool {
        let woken = self.waiting << TASKS_PER_WORD;
        let before = self.word.fetch_and(!woken, Ordering::SeqCst);
        // The waiter's barrier, before it looks again.
        fence(Ordering::SeqCst);
        before & woken != 0
    }
}

impl<L: Parker, const WORDS: usize> Drop for Enrolled<'_, L, WORDS> {
    fn drop(&mut self) {
        let woken = self.waiting << TASKS_PER_WORD;
        let before = self.word.fetch_and(!(self.waiting | woken), Ordering::SeqCst);
        // A wake-up that came after the last look was for something else.
        if !self.wake_up_used || before & woken != 0 {
            self.queue.notify_one();
        }
        // Looked up again: entries may have moved since.
        self.ledger.own(self.queue.as_resource()).erase();
        self.ledger.trim();
    }
}

/// How many are to be woken.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Wake {
    One,
    All,
}

/// Wake-ups that the calling task owes to a queue; dropping it gives them.
pub(crate) struct Debt<'q, L: Parker, const WORDS: usize> {
    queue: &'q WaitQueue<L, WORDS>,
    ledger: OwnLedger<'q, L>,
    /// `None` once they have been given.
    pub(crate) wake: Option<Wake>,
}

impl<L: Parker, const WORDS: usize> Drop for Debt<'_, L, WORDS> {
    fn drop(&mut self) {
        // The waker's barrier.
        fence(Ordering::SeqCst);
        match self.wake {
            Some(Wake::One) => {
                self.queue.notify_one();
            }
            Some(Wake::All) => self.queue.notify_all(),
            None => {}
        }
        self.ledger.own(self.queue.as_resource()).erase();
        self.ledger.trim();
    }
}

fn waiting(bits: u64) -> u64 {
    bits & u64::MAX >> TASKS_PER_WORD
}

fn woken(bits: u64) -> u64 {
    bits >> TASKS_PER_WORD
}

/// Takes a dead waiter out.
unsafe fn withdraw<L: Parker, const WORDS: usize>(ledger: &Ledger, entry: &Entry) -> Outcome {
    // SAFETY: `Operations::release`: the entry lists a live queue.
    let queue = unsafe { &*entry.resource().cast_const().cast::<WaitQueue<L, WORDS>>() };
    let task = L::index(ledger);
    if task >= L::TASKS {
        entry.erase();
        return Outcome::Disowned;
    }
    let (word, waiting) = queue.bits(task);
    // The bits are the dead task's own: clearing them again does nothing. Before the wake-up is
    // passed on, lest it come back to the dead one.
    word.fetch_and(!(waiting | waiting << TASKS_PER_WORD), Ordering::SeqCst);
    if !planted!(WakeUpDies) {
        queue.pass_on();
    }
    entry.erase();
    Outcome::Released
}

unsafe fn wake_one_for_dead<L: Parker, const WORDS: usize>(_: &Ledger, entry: &Entry) -> Outcome {
    // SAFETY: `Operations::release`: the entry lists a live queue.
    let queue = unsafe { &*entry.resource().cast_const().cast::<WaitQueue<L, WORDS>>() };
    queue.pass_on();
    entry.erase();
    Outcome::Released
}

unsafe fn wake_all_for_dead<L: Parker, const WORDS: usize>(_: &Ledger, entry: &Entry) -> Outcome {
    // SAFETY: `Operations::release`: the entry lists a live queue.
    let queue = unsafe { &*entry.resource().cast_const().cast::<WaitQueue<L, WORDS>>() };
    queue.notify_all();
    entry.erase();
    Outcome::Released
}
