//! The read-write locks, each as its users have it: ours, ours in `lock_api`'s hands, and spin's
//! behind ours.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use drop_registry::hosted::Hosted;
use drop_registry::lock_api::{RawRwLock, TrackedRawRwLock, write, write_tracked};
use drop_registry::{Exclusive, LockResult, RwLock, UntornByReaders};

use super::Waits;

/// Two words that are equal, but for somebody who is between changing the one and the other:
/// readers do so too, unless the lock is made for a value that they do not tear.
#[derive(Default)]
pub(super) struct Value([AtomicU64; 2]);

#[expect(unsafe_code, reason = "promises that readers do not tear a value")]
// SAFETY: those of a lock that is made so do not change it: see `rwlock::Site::enter`.
unsafe impl UntornByReaders for Value {}

impl Value {
    pub(super) fn change(&self) {
        for word in &self.0 {
            word.fetch_add(1, Relaxed);
        }
    }

    pub(super) fn is_whole(&self) -> bool {
        self.0[0].load(Relaxed) == self.0[1].load(Relaxed)
    }
}

/// A read-write lock, whatever its guards are.
pub(super) trait ReadWriteLock: 'static {
    /// What begins with the word that names the writer, and the number of readers.
    type Words: fmt::Debug;

    fn free() -> Self;
    /// As [`RwLock::new_untorn`].
    fn free_untorn() -> Self;
    fn read(&self) -> Option<impl Deref<Target = Value>>;
    fn try_read(&self) -> Option<impl Deref<Target = Value>>;
    fn write(&self) -> LockResult<impl Exclusive<Value = Value> + DerefMut<Target = Value>>;
    fn try_write(&self) -> Option<impl DerefMut<Target = Value>>;
    fn words(&self) -> &Self::Words;

    /// How many readers and writers the foreign lock behind it counts.
    fn foreign(&self) -> Option<Foreign> {
        None
    }
}

/// What a foreign lock counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Foreign {
    pub(super) readers: u64,
    pub(super) writers: u64,
}

pub(super) type Own<R> = RwLock<Value, Hosted, R>;

impl<R: Waits> ReadWriteLock for Own<R> {
    type Words = Self;

    fn free() -> Self {
        Self::new(Value::default())
    }

    fn free_untorn() -> Self {
        Self::new_untorn(Value::default())
    }

    fn read(&self) -> Option<impl Deref<Target = Value>> {
        Self::read(self).ok()
    }

    fn try_read(&self) -> Option<impl Deref<Target = Value>> {
        Self::try_read(self).ok()
    }

    fn write(&self) -> LockResult<impl Exclusive<Value = Value> + DerefMut<Target = Value>> {
        Self::write(self)
    }

    fn try_write(&self) -> Option<impl DerefMut<Target = Value>> {
        Self::try_write(self).ok()
    }

    fn words(&self) -> &Self {
        self
    }
}

pub(super) type Raw<R> = ::lock_api::RwLock<RawRwLock<Hosted, R>, Value>;
pub(super) type Tracked<R> =
    ::lock_api::RwLock<TrackedRawRwLock<spin::RwLock<()>, Hosted, R>, Value>;

/// By `lock_api`'s functions, but that a death is told of.
macro_rules! by_lock_api {
    ($lock:ident, $raw:ty, $write:ident, $($foreign:item)?) => {
        impl<R: Waits> ReadWriteLock for $lock<R> {
            type Words = $raw;

            fn free() -> Self {
                Self::new(Value::default())
            }

            #[expect(unsafe_code, reason = "promises that readers do not tear the value")]
            fn free_untorn() -> Self {
                // SAFETY: `Value` promises it.
                Self::from_raw(unsafe { <$raw>::new_untorn() }, Value::default())
            }

            fn read(&self) -> Option<impl Deref<Target = Value>> {
                Some(Self::read(self))
            }

            fn try_read(&self) -> Option<impl Deref<Target = Value>> {
                Self::try_read(self)
            }

            fn write(&self) -> LockResult<impl Exclusive<Value = Value> + DerefMut<Target = Value>> {
                $write(self)
            }

            fn try_write(&self) -> Option<impl DerefMut<Target = Value>> {
                Self::try_write(self)
            }

            #[expect(unsafe_code, reason = "looks at a raw lock")]
            fn words(&self) -> &Self::Words {
                // SAFETY: it is looked at, and not unlocked.
                unsafe { self.raw() }
            }

            $($foreign)?
        }
    };
}

by_lock_api!(Raw, RawRwLock<Hosted, R>, write,);
by_lock_api!(
    Tracked,
    TrackedRawRwLock<spin::RwLock<()>, Hosted, R>,
    write_tracked,
    #[expect(unsafe_code, reason = "looks at a foreign lock")]
    fn foreign(&self) -> Option<Foreign> {
        // SAFETY: it is looked at, and neither locked nor unlocked.
        let theirs = unsafe { self.words().theirs() };
        let (readers, writers) = (theirs.reader_count() as u64, theirs.writer_count() as u64);
        Some(Foreign { readers, writers })
    }
);
