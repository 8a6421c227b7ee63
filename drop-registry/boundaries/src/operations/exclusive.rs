//! The mutexes, each as its users have it: ours, ours in `lock_api`'s hands, and spin's behind
//! ours; and what they answer.

use std::fmt;
use std::ops::DerefMut;

use drop_registry::hosted::Hosted;
use drop_registry::lock_api::{RawMutex, TrackedRawMutex, lock, lock_tracked};
use drop_registry::{Exclusive, LockError, LockResult, Mutex, OwnerDied};

use super::Waits;

/// A mutex around a number, whatever its guards are.
pub(super) trait ExclusiveLock: 'static {
    /// What begins with the word that names the owner.
    type Word: fmt::Debug;

    /// What the lock answers after its owner has died, and one has tried to lock it.
    const TRIED_AFTER_A_DEATH: Answer;

    fn free() -> Self;
    /// Tells of a death.
    fn lock(&self) -> LockResult<impl Exclusive<Value = u64> + DerefMut<Target = u64>>;
    fn try_lock(&self) -> Option<impl DerefMut<Target = u64>>;
    fn is_locked(&self) -> bool;
    fn word(&self) -> &Self::Word;

    /// Whether the foreign lock behind it is locked.
    fn is_foreign_locked(&self) -> Option<bool> {
        None
    }
}

/// What a lock answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// It is held, as usual.
    Held,
    /// It is held, and its last owner died.
    OwnerDied,
    /// It is given up.
    NotRecoverable,
    /// Something else.
    Refused,
}

/// Takes the lock as the next owner would, and leaves it in good order if it can.
pub(super) fn next_answer<K: ExclusiveLock>(lock: &K) -> Answer {
    match lock.lock() {
        Ok(_) => Answer::Held,
        Err(LockError::OwnerDied(died)) => {
            drop(OwnerDied::replace(died, 0));
            Answer::OwnerDied
        }
        Err(LockError::NotRecoverable) => Answer::NotRecoverable,
        Err(_) => Answer::Refused,
    }
}

pub(super) type Own<R> = Mutex<u64, Hosted, R>;

impl<R: Waits> ExclusiveLock for Own<R> {
    type Word = Self;

    /// Told of it, one gives the value up.
    const TRIED_AFTER_A_DEATH: Answer = Answer::NotRecoverable;

    fn free() -> Self {
        Self::new(0)
    }

    fn lock(&self) -> LockResult<impl Exclusive<Value = u64> + DerefMut<Target = u64>> {
        Self::lock(self)
    }

    fn try_lock(&self) -> Option<impl DerefMut<Target = u64>> {
        Self::try_lock(self).ok()
    }

    fn is_locked(&self) -> bool {
        Self::is_locked(self)
    }

    fn word(&self) -> &Self {
        self
    }
}

pub(super) type Raw<R> = ::lock_api::Mutex<RawMutex<Hosted, R>, u64>;
pub(super) type Tracked<R> = ::lock_api::Mutex<TrackedRawMutex<spin::Mutex<()>, Hosted, R>, u64>;

/// By `lock_api`'s functions, but that a death is told of.
macro_rules! by_lock_api {
    ($lock:ident, $raw:ty, $take:ident, $($foreign:item)?) => {
        impl<R: Waits> ExclusiveLock for $lock<R> {
            type Word = $raw;

            /// One is refused.
            const TRIED_AFTER_A_DEATH: Answer = Answer::OwnerDied;

            fn free() -> Self {
                Self::new(0)
            }

            fn lock(&self) -> LockResult<impl Exclusive<Value = u64> + DerefMut<Target = u64>> {
                $take(self)
            }

            fn try_lock(&self) -> Option<impl DerefMut<Target = u64>> {
                Self::try_lock(self)
            }

            fn is_locked(&self) -> bool {
                Self::is_locked(self)
            }

            #[expect(unsafe_code, reason = "looks at a raw lock")]
            fn word(&self) -> &Self::Word {
                // SAFETY: it is looked at, and not unlocked.
                unsafe { self.raw() }
            }

            $($foreign)?
        }
    };
}

by_lock_api!(Raw, RawMutex<Hosted, R>, lock,);
by_lock_api!(
    Tracked,
    TrackedRawMutex<spin::Mutex<()>, Hosted, R>,
    lock_tracked,
    #[expect(unsafe_code, reason = "looks at a foreign lock")]
    fn is_foreign_locked(&self) -> Option<bool> {
        // SAFETY: it is looked at, and neither locked nor unlocked.
        Some(unsafe { self.word().theirs() }.is_locked())
    }
);
