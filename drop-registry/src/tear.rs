//! What a type promises about a value whose owner, or one of whose readers, died in the middle of
//! something.
#![expect(unsafe_code, reason = "declares unsafe marker traits, and implements one")]

use core::sync::atomic;

use crate::{CurrentLedger, Mutex, WaitStrategy};

/// A type whose values the keeper may drop when their owner has died.
///
/// A panic leaves a value valid, because it happens at a call. A task that dies at an arbitrary
/// instruction can leave a value *torn*: a `&[u32]` with the new pointer and the old length is not
/// merely inconsistent, looking at it is undefined behaviour. Of two values that were being swapped,
/// each may own what the other does. So what has been lent by `&mut` is never dropped for a dead
/// task, whatever its type promises; its memory is quarantined. What has only been shared is
/// dropped if its type promises that this does not tear it.
///
/// Types without drop glue need no promise: their memory is freed without looking at the value.
/// To *read* a value whose owner died takes more, [`zerocopy::FromBytes`]: validity for every bit
/// pattern.
///
/// # Safety
/// Dropping a value of the type is sound when tasks that had no more than a shared reference have
/// stopped for ever at any instruction of what that lets safe code do, in the value or in what it
/// owns. That holds for a type without interior mutability, and for one whose every change through
/// a shared reference is by one instruction that leaves it whole.
///
/// `Send`, because the keeper drops the value, in a task of its own.
pub unsafe trait DropAfterTear: Send {}

/// A type whose values are whole wherever one who has no more than a shared reference stops.
///
/// A value without interior mutability is: whoever reads it changes nothing. So is an atomic, which
/// changes at once, and a lock of this crate, which tells of a death by itself. A lock of another
/// crate is not: a reader that dies while it holds that leaves the value behind it half-written,
/// and `&mut` and drop do not ask the lock.
///
/// It is for [`RwLock::new_untorn`](crate::RwLock::new_untorn).
///
/// # Safety
/// Whatever a shared reference to a value of the type lets safe code change, in the value or in
/// what it owns, changes by one instruction at a time; and with any number of these executed and no
/// more, the value may be used through `&mut`, and dropped.
pub unsafe trait UntornByReaders {}

macro_rules! untorn {
    ($($type:ty),* $(,)?) => {
        // SAFETY: plain values have nothing that a shared reference changes; an atomic has one
        // word, any of whose values may be there.
        $(unsafe impl UntornByReaders for $type {})*
    };
}

untorn!(
    (),
    bool,
    char,
    u8,
    u16,
    u32,
    u64,
    u128,
    usize,
    i8,
    i16,
    i32,
    i64,
    i128,
    isize,
    f32,
    f64,
    str
);
untorn!(atomic::AtomicBool, atomic::AtomicU8, atomic::AtomicU16, atomic::AtomicU32);
untorn!(atomic::AtomicU64, atomic::AtomicUsize, atomic::AtomicI8, atomic::AtomicI16);
untorn!(atomic::AtomicI32, atomic::AtomicI64, atomic::AtomicIsize);

// SAFETY: what lies behind it is not owned, and `&mut` of it gives no more than `&`.
unsafe impl<T: ?Sized> UntornByReaders for &T {}
// SAFETY: of element after element.
unsafe impl<T: UntornByReaders> UntornByReaders for [T] {}
// SAFETY: as above.
unsafe impl<T: UntornByReaders, const N: usize> UntornByReaders for [T; N] {}
// SAFETY: whether there is a value does not change through a shared reference.
unsafe impl<T: UntornByReaders> UntornByReaders for Option<T> {}
// SAFETY: the settlement leaves its mark before the lock comes free, and `get_mut` and drop look
// for that.
unsafe impl<T: ?Sized, L: CurrentLedger, R: WaitStrategy<L>> UntornByReaders for Mutex<T, L, R> {}
