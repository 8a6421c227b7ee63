//! A writer's way in, and out.
#![expect(unsafe_code, reason = "takes and gives up a word by windows")]

use core::sync::atomic::Ordering;

use super::{RwLock, WriteGuard};
use crate::arch;
use crate::owner_word::{FREE, Taken, TryRefused};
use crate::{
    CurrentLedger, LedgerFull, LockError, LockResult, OwnLedger, Place, TryLockError,
    TryLockResult, WaitStrategy,
};

impl<T: ?Sized, L: CurrentLedger, R: WaitStrategy<L>> RwLock<T, L, R> {
    /// Takes the lock for writing, waiting for it if need be.
    ///
    /// # Errors
    /// [`LockError`] says each; of these [`LockError::OwnerDied`] holds the lock.
    /// [`LockError::Recursive`] is also for a task that reads: it would wait for itself.
    #[inline(always)]
    pub fn write(&self) -> LockResult<WriteGuard<'_, T, L, R>> {
        let ledger = OwnLedger::<L>::current();
        // SAFETY: to own the word is what `DRAINS` means.
        let taken = unsafe { self.word.take_from(FREE, Self::DRAINS, ledger) }?;
        match taken {
            Some(place) if self.readers.are_none() => self.begin_writing(Taken::WHOLE, place),
            Some(_) => self.drain(Taken::WHOLE, ledger, arch::frame_address()),
            None => self.write_contended(ledger, arch::frame_address()),
        }
    }

    /// Takes the lock for writing if nobody has it.
    ///
    /// # Errors
    /// [`TryLockError::WouldBlock`] if somebody does; else as [`RwLock::write`].
    #[inline(always)]
    pub fn try_write(&self) -> TryLockResult<WriteGuard<'_, T, L, R>> {
        let ledger = OwnLedger::<L>::current();
        let frame = arch::frame_address();
        // SAFETY: as in `write`.
        let (taken, place) = unsafe { self.word.take(Self::DRAINS, ledger, frame) }?;
        if let Some(died) = self.readers.have_left() {
            return self.begin_writing(taken.or_died(died), place).map_err(TryLockError::Lock);
        }
        self.step_back(taken, ledger);
        Err(if self.is_read_by(&ledger) {
            TryLockError::Lock(LockError::Recursive)
        } else {
            TryLockError::WouldBlock
        })
    }

    #[cold]
    #[inline(never)]
    fn write_contended(
        &self,
        ledger: OwnLedger<'_, L>,
        frame: u64,
    ) -> LockResult<WriteGuard<'_, T, L, R>> {
        if self.is_read_by(&ledger) {
            return Err(LockError::Recursive);
        }
        let waiting = ledger.wait_for(self.word.as_resource());
        // SAFETY: as in `write`.
        let taken = R::wait_until(&self.waiters, frame, || unsafe {
            match self.word.take(Self::DRAINS, ledger, frame) {
                Ok((taken, _)) => Some(Ok(taken)),
                Err(TryRefused::WouldBlock) => None,
                Err(TryRefused::Refused(why)) => Some(Err(why)),
            }
        });
        drop(waiting);
        match taken {
            Ok(taken) => self.drain(taken, ledger, frame),
            Err(refused) => Err(refused.into()),
        }
    }

    /// Waits until nobody reads; the word is the calling task's.
    #[cold]
    #[inline(never)]
    fn drain(
        &self,
        taken: Taken,
        ledger: OwnLedger<'_, L>,
        frame: u64,
    ) -> LockResult<WriteGuard<'_, T, L, R>> {
        // Looked up again: to wait may have moved it.
        let begin = |died| {
            let place = ledger.place_of_own(self.word.as_resource());
            self.begin_writing(taken.or_died(died), place)
        };
        if let Some(died) = self.readers.have_left() {
            return begin(died);
        }
        if self.is_read_by(&ledger) {
            self.step_back(taken, ledger);
            return Err(LockError::Recursive);
        }
        let waiting = ledger.wait_for(self.as_read_resource());
        let drained = R::wait_until(&self.waiters, frame, || {
            self.readers.have_left().map(Ok::<_, LedgerFull>)
        });
        drop(waiting);
        match drained {
            Ok(died) => begin(died),
            Err(LedgerFull) => {
                self.step_back(taken, ledger);
                Err(LockError::LedgerFull)
            }
        }
    }

    /// From here on the value may be torn if the task dies. Its ledger lists the word at `place`.
    #[inline(always)]
    fn begin_writing(&self, taken: Taken, place: Place) -> LockResult<WriteGuard<'_, T, L, R>> {
        // SAFETY: the calling task's ledger is there.
        unsafe { place.entry() }.convert(Self::WRITES);
        taken.tell(WriteGuard::new(self, place))
    }

    /// Gives the word back as it was, before anything has been written.
    #[cold]
    fn step_back(&self, taken: Taken, ledger: OwnLedger<'_, L>) {
        // SAFETY: the word is this task's.
        unsafe {
            let place = ledger.place_of_own(self.word.as_resource());
            self.unlock_write(taken.marks(), ledger, place);
        }
    }

    /// # Safety
    /// The word is the calling task's, whose ledger this is and lists that at `place`, unless the
    /// entry has been moved; and `value` gives it up.
    #[inline(always)]
    pub(super) unsafe fn unlock_write(&self, value: u64, ledger: OwnLedger<'_, L>, place: Place) {
        if R::SLEEPS {
            // Who is not the owner is told so before it has done any harm.
            ledger.own(self.word.as_resource());
            // The entry stands until the wake-ups have been given: should the task die in between,
            // the word says whether it still held the lock.
            // Release for whoever comes in next; and the waker's barrier (see `wait_queue`).
            self.word.get().swap(value, Ordering::SeqCst);
            R::wake_all(&self.waiters);
            // Looked up again: to unpark may have moved it.
            ledger.own(self.word.as_resource()).erase();
            ledger.trim();
        } else {
            // SAFETY: this function's contract.
            unsafe { R::unlock(self.word.get(), value, &self.waiters, ledger, place) };
        }
    }
}
