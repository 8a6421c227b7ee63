//! Where a task's stack is, and checked reads of it.

use core::fmt;

/// The addresses of a task's stack: `guard..base` is unmapped, `base..top` is mapped.
///
/// The stack grows down from `top`, which is one past its highest byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StackBounds {
    guard: u64,
    base: u64,
    top: u64,
    /// The first whole word, and how many there are.
    first_word: u64,
    words: u64,
}

/// The most words of a stack: half of what there are addresses for. No stack is larger, and the
/// number of a misaligned address is.
const MOST_WORDS: u64 = 1 << 60;

impl StackBounds {
    /// A stack of the bytes `base..top` with `guard_size` unmapped bytes below it.
    ///
    /// Returns `None` if the range is empty, or the guard would reach below address 0.
    #[inline]
    pub const fn new(base: u64, top: u64, guard_size: u64) -> Option<Self> {
        if base >= top || guard_size > base {
            return None;
        }
        // Where the stack ends before its first whole word does, there is none.
        let misalignment = base.wrapping_neg() % 8;
        let words = (top - base).saturating_sub(misalignment) / 8;
        let words = if words < MOST_WORDS { words } else { MOST_WORDS };
        let first_word = base.wrapping_add(misalignment);
        Some(Self { guard: base - guard_size, base, top, first_word, words })
    }

    /// Whether `address` is that of a whole, aligned word.
    #[inline]
    pub(crate) const fn has_word(&self, address: u64) -> bool {
        // One comparison says both: the bits of a misaligned address make the number huge.
        address.wrapping_sub(self.first_word).rotate_right(3) < self.words
    }

    /// The address of the word that begins so many words below `address`, if it is one of these.
    ///
    /// It is [`has_word`](Self::has_word) of another address, but where several words below one
    /// address are asked for, each costs one subtraction and one comparison.
    #[inline]
    pub(crate) const fn word_below(&self, address: u64, words: u8) -> Option<u64> {
        // Of a misaligned address, this is 2⁶¹ or more, and stays far above `MOST_WORDS` below.
        let end = address.wrapping_sub(self.first_word).rotate_right(3);
        let n = end.wrapping_sub(words as u64);
        if n < self.words { Some(self.first_word + 8 * n) } else { None }
    }

    /// The lowest mapped address.
    #[inline]
    pub const fn base(&self) -> u64 {
        self.base
    }

    /// One past the highest mapped address.
    #[inline]
    pub const fn top(&self) -> u64 {
        self.top
    }

    /// The mapped size in bytes.
    #[inline]
    pub const fn size(&self) -> u64 {
        self.top - self.base
    }

    /// Whether all of `size` bytes at `address` lie in the mapped part.
    #[inline]
    pub const fn contains(&self, address: u64, size: u64) -> bool {
        address >= self.base && address < self.top && size <= self.top - address
    }

    /// Whether `address` lies in the guard: an access there is a stack overflow.
    #[inline]
    pub const fn guard_contains(&self, address: u64) -> bool {
        address >= self.guard && address < self.base
    }
}

/// Why a word of a stack could not be read or written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReadError {
    /// The word does not lie within the stack's mapped part.
    OutOfStack(u64),
    /// The address is not a multiple of eight.
    Misaligned(u64),
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfStack(address) => write!(f, "{address:#x} is outside the task's stack"),
            Self::Misaligned(address) => write!(f, "{address:#x} is not aligned to 8"),
        }
    }
}

impl core::error::Error for ReadError {}

/// Checked reads of one task's stack: all the memory that a walk of its frames may look at.
pub trait StackMemory {
    /// The stack's bounds.
    fn bounds(&self) -> StackBounds;

    /// The eight bytes at `address`.
    ///
    /// # Errors
    /// If they do not all lie in the mapped part of the stack, or `address` is misaligned.
    fn read_u64(&self, address: u64) -> Result<u64, ReadError>;

    /// The word that begins so many words below `address`: of a frame, by its end.
    ///
    /// # Errors
    /// As [`read_u64`](Self::read_u64).
    #[inline]
    fn read_u64_below(&self, address: u64, words: u8) -> Result<u64, ReadError> {
        self.read_u64(address.wrapping_sub(8 * u64::from(words)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_refuse_the_impossible() {
        assert_eq!(StackBounds::new(0x1000, 0x1000, 0), None);
        assert_eq!(StackBounds::new(0x2000, 0x1000, 0), None);
        assert_eq!(StackBounds::new(0x1000, 0x2000, 0x1001), None);
    }

    #[test]
    fn the_last_word_is_inside_and_the_next_is_not() {
        let stack = StackBounds::new(0x1000, 0x2000, 0x1000).unwrap();
        assert!(stack.contains(0x1ff8, 8));
        assert!(!stack.contains(0x1ff9, 8));
        assert!(!stack.contains(0x2000, 8));
        assert!(!stack.contains(u64::MAX, 8));
        assert!(!stack.contains(0xff8, 8));
    }

    #[test]
    fn the_guard_ends_where_the_stack_begins() {
        let stack = StackBounds::new(0x2000, 0x3000, 0x1000).unwrap();
        assert!(stack.guard_contains(0x1000));
        assert!(stack.guard_contains(0x1fff));
        assert!(!stack.guard_contains(0xfff));
        assert!(!stack.guard_contains(0x2000));
    }
}
