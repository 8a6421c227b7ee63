//! What a task does, and what it tells the model: that it holds something after it has got it, and
//! that it does not before it lets go.
//!
//! A task can be killed at any instruction, so nothing here allocates by the global allocator.

use std::cell::Cell;
use std::sync::atomic::Ordering::Relaxed;

use drop_registry::hosted::{Hosted, yield_now};
use drop_registry::{
    Exclusive, LockError, LockResult, MutexGuard, Obligation, OwnerDied, Park, Permit, ReadError,
    ReadGuard, Shared, TrackedBox, TryLockError, TryLockResult, TryReadError, TrySendError,
    WriteGuard,
};

use crate::program::{HANDLES, MUTEXES, Operation};
use crate::world::{self, Counted, Flag, Told, Turns, Value, World};

/// Of the read-write lock among those whose deaths are told.
const RWLOCK: usize = MUTEXES;
/// The order in which locks may be waited for: by their numbers, and then the permits.
const PERMITS: usize = MUTEXES + 1;

/// What a task has in hand.
struct Task {
    world: &'static World,
    number: usize,
    spinning: [Option<MutexGuard<'static, Value, Hosted, Turns>>; MUTEXES - 1],
    sleeping: Option<MutexGuard<'static, Value, Hosted, Park>>,
    read: Option<ReadGuard<'static, Value, Hosted, Turns>>,
    write: Option<WriteGuard<'static, Value, Hosted, Turns>>,
    permit: Option<Permit<'static, Hosted>>,
    shares: [Option<Shared<Counted, Hosted>>; HANDLES],
    boxes: [Option<TrackedBox<Counted, Hosted>>; HANDLES],
    owed: Option<Obligation<Flag, Hosted>>,
}

/// The whole of a task.
pub(crate) fn perform(world: &'static World, number: usize, operations: &[Operation]) {
    let mut task = Task {
        world,
        number,
        spinning: [const { None }; MUTEXES - 1],
        sleeping: None,
        read: None,
        write: None,
        permit: None,
        shares: [const { None }; HANDLES],
        boxes: [const { None }; HANDLES],
        owed: None,
    };
    for operation in operations {
        task.perform(*operation);
        yield_now();
    }
    for mutex in 0..MUTEXES {
        task.perform(Operation::Unlock(mutex));
    }
    for operation in [Operation::StopReading, Operation::StopWriting, Operation::GiveBack] {
        task.perform(operation);
    }
    task.perform(Operation::Meet);
}

impl Task {
    fn perform(&mut self, operation: Operation) {
        use Operation as Op;
        match operation {
            Op::Lock(n) if n < MUTEXES - 1 => self.lock_spinning(n),
            Op::Lock(_) => self.lock_sleeping(),
            Op::Unlock(n) if n < MUTEXES - 1 => {
                let guard = self.spinning[n].take();
                self.leave(guard);
            }
            Op::Unlock(_) => {
                let guard = self.sleeping.take();
                self.leave(guard);
            }
            Op::Transfer => self.transfer(),
            Op::Read => self.read(),
            Op::StopReading => {
                self.world.reading[self.number].set(false);
                self.read = None;
            }
            Op::Write => self.write(),
            Op::StopWriting => {
                self.world.writing[self.number].set(false);
                let guard = self.write.take();
                self.leave(guard);
            }
            Op::Acquire => self.acquire(),
            Op::GiveBack => {
                self.world.permits_held[self.number].set(0);
                self.permit = None;
            }
            Op::Box(n) => {
                if self.boxes[n].is_none() {
                    self.world.boxes_begun.fetch_add(1, Relaxed);
                    let value = Counted(&self.world.drops.of_boxes);
                    self.boxes[n] = TrackedBox::new_droppable(value).ok();
                }
            }
            Op::Make(n) => {
                if self.shares[n].is_some() {
                    return;
                }
                let number = self.world.shared_begun.fetch_add(1, Relaxed) as usize;
                if let Some(drops) = self.world.drops.of_shared.get(number) {
                    self.shares[n] = Shared::new_droppable(Counted(drops)).ok();
                }
            }
            Op::DropBox(n) => self.boxes[n] = None,
            Op::Share(slot, to) => {
                if self.shares[to].is_none() {
                    self.shares[to] = self.world.slots[slot].share().ok().flatten();
                }
            }
            Op::Clone(from, to) => {
                if self.shares[to].is_none() {
                    self.shares[to] = self.shares[from].as_ref().and_then(|it| it.try_clone().ok());
                }
            }
            Op::DropShare(n) => self.shares[n] = None,
            Op::Put(from, slot) => {
                if let Some(share) = self.shares[from].take() {
                    self.shares[from] = self.world.slots[slot].put(share).err();
                }
            }
            Op::Send(from) => {
                if let Some(share) = self.shares[from].take() {
                    let refused = self.world.channel.try_send(share).err();
                    self.shares[from] = refused.map(|refused| match refused {
                        TrySendError::Full(share) | TrySendError::LedgerFull(share) => share,
                    });
                }
            }
            Op::Receive(to) => {
                if self.shares[to].is_none() {
                    self.shares[to] = self.world.channel.try_recv().ok();
                }
            }
            Op::Add => self.add(),
            Op::Post => self.world.post(),
            Op::Take => self.take(),
            Op::Once => self.once(),
            Op::Oblige => {
                if self.owed.is_none() {
                    let flag = &self.world.flags[self.number];
                    self.owed = Obligation::new(flag).ok();
                    flag.0.store(true, Relaxed);
                }
            }
            Op::Meet => self.owed = None,
        }
        for share in self.shares.iter().flatten() {
            self.world
                .require(share.0.load(Relaxed) == 0, "a value was dropped that this task shares");
        }
    }

    /// Whether it may wait for what has this place in the order, without a deadlock.
    fn may_wait(&self, place: usize) -> bool {
        let held = [
            self.spinning.iter().rposition(Option::is_some),
            self.sleeping.is_some().then_some(MUTEXES - 1),
            (self.read.is_some() || self.write.is_some()).then_some(RWLOCK),
            self.permit.is_some().then_some(PERMITS),
        ];
        held.into_iter().flatten().all(|held| held < place)
    }

    fn lock_spinning(&mut self, n: usize) {
        if self.spinning[n].is_none() {
            let lock = &self.world.spinning[n];
            self.spinning[n] = self.enter(n, || lock.lock(), || lock.try_lock());
        }
    }

    fn lock_sleeping(&mut self) {
        if self.sleeping.is_none() {
            let lock = &self.world.sleeping;
            self.sleeping = self.enter(MUTEXES - 1, || lock.lock(), || lock.try_lock());
        }
    }

    fn write(&mut self) {
        if self.read.is_some() || self.write.is_some() {
            return;
        }
        let lock = &self.world.rwlock;
        self.write = self.enter(RWLOCK, || lock.write(), || lock.try_write());
        if self.write.is_some() {
            self.world.writing[self.number].set(true);
            let nobody_reads = self.world.reading.iter().all(|reads| !reads.get());
            self.world.require(nobody_reads, "somebody writes while somebody reads");
        }
    }

    /// Takes the lock of this place in the order, waiting if it may; with what it answers against
    /// the model, and the value as that of a task that changes it.
    fn enter<G>(
        &self,
        lock: usize,
        wait: impl FnOnce() -> LockResult<G>,
        attempt: impl FnOnce() -> TryLockResult<G>,
    ) -> Option<G>
    where
        G: Exclusive<Value = Value> + std::ops::DerefMut<Target = Value>,
    {
        let answer = if self.may_wait(lock) { wait() } else { at_once(attempt())? };
        let told = self.world.told_to_owner(lock);
        let mut guard = match answer {
            Ok(guard) => {
                self.world.require(told != Told::Death, "a death was not told");
                self.world.require(*guard == 0, "a torn value was handed out as whole");
                guard
            }
            Err(LockError::OwnerDied(died)) => {
                self.world.require(told != Told::Nothing, "a death was told that was none");
                OwnerDied::replace(died, 0)
            }
            Err(LockError::NotRecoverable) => {
                self.world.require(false, "a lock was given up that nobody gave up");
                return None;
            }
            Err(_) => return None,
        };
        self.world.put_right(lock);
        *guard = self.number as Value + 1;
        Some(guard)
    }

    /// Gives a lock up with a whole value.
    fn leave<G: std::ops::DerefMut<Target = Value>>(&self, guard: Option<G>) {
        if let Some(mut guard) = guard {
            let own = self.number as Value + 1;
            self.world.require(*guard == own, "a lock was taken from its owner");
            *guard = 0;
        }
    }

    fn read(&mut self) {
        if self.read.is_some() || self.write.is_some() {
            return;
        }
        let lock = &self.world.rwlock;
        let answer = if self.may_wait(RWLOCK) {
            lock.read()
        } else {
            match lock.try_read() {
                Ok(guard) => Ok(guard),
                Err(TryReadError::Read(error)) => Err(error),
                Err(TryReadError::WouldBlock) => return,
            }
        };
        let told = &self.world.told[RWLOCK];
        match answer {
            Ok(guard) => {
                self.world.reading[self.number].set(true);
                self.world.require(told.get() != Told::Death, "a death was not told a reader");
                self.world.require(*guard == 0, "a reader sees what is being written");
                self.read = Some(guard);
            }
            Err(error) => {
                let known = error == ReadError::LedgerFull
                    || error == ReadError::OwnerDied && told.get() != Told::Nothing;
                self.world.require(known, "a reader was refused without a reason");
            }
        }
    }

    fn transfer(&mut self) {
        // Who has it waits for nothing, so that anybody may wait for it: here, and in `add`.
        let Ok(mut accounts) = self.world.accounts.lock() else {
            return self.world.require(false, "a death was told that is undone");
        };
        self.world.require(accounts[0] == accounts[1], "half a transfer was not taken back");
        self.world.transfers_begun.fetch_add(1, Relaxed);
        accounts[0] += 1;
        accounts[1] += 1;
        drop(accounts);
        self.world.transfers_done.fetch_add(1, Relaxed);
    }

    fn add(&mut self) {
        match self.world.mended.lock() {
            Ok(mut sums) => {
                self.world.require(sums[0] == sums[1], "the keeper has not mended what was torn");
                sums[0] += 1;
                sums[1] += 1;
            }
            Err(_) => self.world.require(false, "a death was told that the keeper mends"),
        }
    }

    fn take(&mut self) {
        // Whoever is to post one may come to wait for what this task has.
        if self.may_wait(0) {
            self.world.taking[self.number].set(true);
            self.world.take();
            self.world.taking[self.number].set(false);
        }
    }

    fn once(&mut self) {
        let own = self.number as Value + 1;
        // Who makes it waits for nothing, so that anybody may wait for it.
        let Ok(made) = self.world.once.call_once(|| own) else { return };
        let first = self.world.made.get().unwrap_or(*made);
        self.world.require(*made == first && *made != 0, "what is made once was made again");
        self.world.made.set(Some(first));
    }

    fn acquire(&mut self) {
        if self.permit.is_some() {
            return;
        }
        let permits = &self.world.permits;
        self.permit = if self.may_wait(PERMITS) {
            permits.acquire().ok()
        } else {
            permits.try_acquire().ok()
        };
        self.world.permits_held[self.number].set(u64::from(self.permit.is_some()));
        let held: u64 = self.world.permits_held.iter().map(Cell::get).sum();
        self.world.require(held <= world::PERMITS, "more permits are held than there are");
    }
}

/// What a lock answers to who does not wait; `None` if he would have to.
fn at_once<G: Exclusive>(answer: TryLockResult<G>) -> Option<LockResult<G>> {
    match answer {
        Ok(guard) => Some(Ok(guard)),
        Err(TryLockError::Lock(error)) => Some(Err(error)),
        Err(TryLockError::WouldBlock) => None,
    }
}
