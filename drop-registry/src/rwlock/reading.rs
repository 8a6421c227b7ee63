//! A reader's way in.
#![expect(unsafe_code, reason = "counts itself by a window")]

use super::{ReadError, ReadGuard, RwLock, TryReadError};
use crate::arch;
use crate::owner_word::{self, State};
use crate::{CurrentLedger, Ledger, LedgerFull, OwnLedger, WaitStrategy};

impl<T: ?Sized, L: CurrentLedger, R: WaitStrategy<L>> RwLock<T, L, R> {
    /// Takes the lock for reading, waiting for a writer if need be.
    ///
    /// # Errors
    /// [`ReadError`] says each; none of them holds the lock.
    ///
    /// # Panics
    /// If there are 2^63 readers, more than all ledgers have room for.
    #[inline(always)]
    pub fn read(&self) -> Result<ReadGuard<'_, T, L, R>, ReadError> {
        let frame = arch::frame_address();
        let guard = self.come_in(frame)?;
        if self.word.state() == State::Free { Ok(guard) } else { self.read_contended(guard, frame) }
    }

    /// Comes in again and again, for the frame at stack pointer `frame`, until nobody writes.
    #[cold]
    #[inline(never)]
    fn read_contended<'a>(
        &'a self,
        mut guard: ReadGuard<'a, T, L, R>,
        frame: u64,
    ) -> Result<ReadGuard<'a, T, L, R>, ReadError> {
        loop {
            if let Some(guard) = self.leave_and_wait(guard, frame)? {
                return Ok(guard);
            }
            guard = self.come_in(frame)?;
        }
    }

    /// Takes the lock for reading if nobody writes.
    ///
    /// # Errors
    /// [`TryReadError::WouldBlock`] if somebody does; else as [`RwLock::read`].
    ///
    /// # Panics
    /// As [`RwLock::read`].
    #[inline(always)]
    pub fn try_read(&self) -> Result<ReadGuard<'_, T, L, R>, TryReadError> {
        let guard =
            self.come_in(arch::frame_address()).map_err(|full| TryReadError::Read(full.into()))?;
        match self.why_not_read(&guard) {
            None => Ok(guard),
            Some(why) => Err(why),
        }
    }

    /// Counts the calling task as a reader; whether it may read is to be seen.
    #[inline(always)]
    fn come_in(&self, frame: u64) -> Result<ReadGuard<'_, T, L, R>, LedgerFull> {
        let ledger = OwnLedger::<L>::current();
        // SAFETY: one more in the count is to be a reader in the sense of `READS`. The locked
        // increment is the reader's barrier, and Acquire for what the last writer wrote.
        let counted = unsafe {
            ledger.record_by(|at| arch::increment(self.readers.get(), Self::READS, at, frame))
        }?;
        let Some(place) = counted else { panic!("more than 2^63 readers of one lock") };
        Ok(ReadGuard::new(self, place))
    }

    /// Why a task that has come in may not read.
    #[inline(always)]
    fn why_not_read(&self, _: &ReadGuard<'_, T, L, R>) -> Option<TryReadError> {
        match self.word.state() {
            State::Free => None,
            state => self.why_not_read_now(state, OwnLedger::<L>::current().as_ledger()),
        }
    }

    #[cold]
    #[inline(never)]
    fn why_not_read_now(&self, state: State, ledger: &Ledger) -> Option<TryReadError> {
        let listed = ledger.held().filter(|entry| entry.resource() == self.as_read_resource());
        match state {
            State::Free => None,
            State::Owned(owner) if owner == owner_word::owner(ledger) => {
                Some(TryReadError::Read(ReadError::Recursive))
            }
            // Whoever reads already keeps all writers out.
            _ if listed.count() > 1 => None,
            State::OwnerDied => Some(TryReadError::Read(ReadError::OwnerDied)),
            State::NotRecoverable => Some(TryReadError::Read(ReadError::NotRecoverable)),
            State::Owned(_) => Some(TryReadError::WouldBlock),
        }
    }

    /// What a reader does that has come in while somebody writes: it may stay after all, or leaves
    /// and waits until it is worth coming in again.
    fn leave_and_wait<'a>(
        &'a self,
        guard: ReadGuard<'a, T, L, R>,
        frame: u64,
    ) -> Result<Option<ReadGuard<'a, T, L, R>>, ReadError> {
        match self.why_not_read(&guard) {
            None => return Ok(Some(guard)),
            Some(TryReadError::Read(error)) => return Err(error),
            Some(TryReadError::WouldBlock) => drop(guard),
        }
        let ledger = OwnLedger::<L>::current();
        let waiting = ledger.wait_for(self.word.as_resource());
        let result = R::wait_until(&self.waiters, frame, || {
            (!self.word.is_owned()).then_some(Ok::<_, LedgerFull>(()))
        });
        drop(waiting);
        Ok(result.map(|()| None)?)
    }
}
