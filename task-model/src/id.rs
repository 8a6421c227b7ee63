//! Task identity.

use core::fmt;

/// Names one life of one task slot.
///
/// A kernel keeps its tasks in numbered slots and reuses them; the generation tells the lives
/// apart, so that a handle kept across a restart no longer matches and is refused.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TaskId {
    /// The slot.
    pub index: u32,
    /// Which life of that slot; counts up by one at each reuse, wrapping.
    pub generation: u32,
}

impl TaskId {
    /// The id of the first life in slot `index`.
    pub const fn first(index: u32) -> Self {
        Self { index, generation: 0 }
    }

    /// The id as one word, to be kept in an atomic: the slot in the upper half.
    #[inline]
    pub const fn to_word(self) -> u64 {
        (self.index as u64) << 32 | self.generation as u64
    }

    /// The id that [`to_word`](Self::to_word) has made this of.
    #[inline]
    pub const fn from_word(word: u64) -> Self {
        Self { index: (word >> 32) as u32, generation: word as u32 }
    }

    /// The id of the life after this one, in the same slot.
    #[must_use]
    pub const fn next_generation(self) -> Self {
        Self { index: self.index, generation: self.generation.wrapping_add(1) }
    }
}

/// Writes `index.generation`.
impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.index, self.generation)
    }
}

impl fmt::Debug for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TaskId({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restarted_slot_has_another_id() {
        let old = TaskId::first(3);
        let new = old.next_generation();
        assert_ne!(old, new);
        assert_eq!(old.index, new.index);
    }

    #[test]
    fn a_word_says_all_of_it() {
        let id = TaskId { index: 0x0123_4567, generation: 0x89ab_cdef };
        assert_eq!(id.to_word(), 0x0123_4567_89ab_cdef);
        assert_eq!(TaskId::from_word(id.to_word()), id);
    }

    #[test]
    fn generations_wrap_instead_of_panicking() {
        let last = TaskId { index: 0, generation: u32::MAX };
        assert_eq!(last.next_generation(), TaskId::first(0));
    }
}
