//! Sets of tasks: a bit for each number.

use alloc::boxed::Box;
use core::iter;
use core::sync::atomic::{AtomicU64, Ordering};

/// A set of tasks, by number, with room for so many.
///
/// Every bit is set and cleared by one instruction, so whoever dies over it has done so or not.
/// Numbers beyond the room are never in it.
///
/// SeqCst throughout: what was written before a task was put in is there for who finds it in; and
/// who puts one in and then looks at another word, and who writes that word and then looks for the
/// task, do not miss each other. Where nothing of that is needed it costs nothing: on x86-64 all of
/// these are the same instructions.
#[derive(Debug)]
pub(crate) struct TaskSet(Box<[AtomicU64]>);

impl TaskSet {
    /// An empty set of the tasks with numbers below this.
    pub(crate) fn new(tasks: usize) -> Self {
        Self((0..tasks.div_ceil(64)).map(|_| AtomicU64::new(0)).collect())
    }

    #[inline]
    fn place(&self, number: u32) -> Option<(&AtomicU64, u64)> {
        Some((self.0.get(number as usize / 64)?, 1 << (number % 64)))
    }

    /// Puts a task in. Returns whether it was in already.
    #[inline]
    pub(crate) fn insert(&self, number: u32) -> bool {
        let set = |(word, bit): (&AtomicU64, u64)| word.fetch_or(bit, Ordering::SeqCst) & bit != 0;
        self.place(number).is_some_and(set)
    }

    /// Takes a task out. Returns whether it was in.
    #[inline]
    pub(crate) fn remove(&self, number: u32) -> bool {
        let clear =
            |(word, bit): (&AtomicU64, u64)| word.fetch_and(!bit, Ordering::SeqCst) & bit != 0;
        self.place(number).is_some_and(clear)
    }

    pub(crate) fn contains(&self, number: u32) -> bool {
        self.place(number).is_some_and(|(word, bit)| word.load(Ordering::SeqCst) & bit != 0)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.iter().map(|word| word.load(Ordering::SeqCst).count_ones() as usize).sum()
    }

    /// The first task in it from this number on; or if there is none, from 0 on.
    #[inline]
    pub(crate) fn next_from(&self, number: u32) -> Option<u32> {
        let [word] = &*self.0 else { return self.next_of_many(number) };
        let bits = word.load(Ordering::SeqCst);
        let ahead = bits.rotate_right(number).trailing_zeros();
        (bits != 0).then_some(number.wrapping_add(ahead) % 64)
    }

    /// As [`next_from`](Self::next_from), if there are several words.
    #[cold]
    fn next_of_many(&self, number: u32) -> Option<u32> {
        // One beyond the room is as 0.
        let number = if number as usize / 64 < self.0.len() { number } else { 0 };
        let (first, below) = (number as usize / 64, (1_u64 << (number % 64)) - 1);
        // The word of the number comes twice: from there on, and in the end what is below.
        let mut at = first;
        for round in 0..=self.0.len() {
            let all = self.0.get(at)?.load(Ordering::SeqCst);
            let bits = match round {
                0 => all & !below,
                _ if round == self.0.len() => all & below,
                _ => all,
            };
            if bits != 0 {
                return Some(at as u32 * 64 + bits.trailing_zeros());
            }
            at = if at + 1 == self.0.len() { 0 } else { at + 1 };
        }
        None
    }

    /// The tasks in it. Of those that come or go meanwhile, some.
    pub(crate) fn iter(&self) -> impl Iterator<Item = u32> {
        self.0.iter().zip((0..).step_by(64)).flat_map(|(word, base)| {
            numbers(word.load(Ordering::SeqCst)).map(move |bit| base + bit)
        })
    }
}

/// Pairs of tasks: for each task, the set of those that it has to do with.
pub(crate) struct TaskPairs(Box<[TaskSet]>);

impl TaskPairs {
    /// No pairs of the tasks with numbers below this.
    pub(crate) fn new(tasks: usize) -> Self {
        Self((0..tasks).map(|_| TaskSet::new(tasks)).collect())
    }

    pub(crate) fn insert(&self, one: u32, other: u32) {
        if let Some(others) = self.0.get(one as usize) {
            others.insert(other);
        }
    }

    /// Takes a pair out. Returns whether it was in.
    pub(crate) fn remove(&self, one: u32, other: u32) -> bool {
        self.0.get(one as usize).is_some_and(|others| others.remove(other))
    }

    /// Those that `one` has to do with.
    pub(crate) fn of(&self, one: u32) -> impl Iterator<Item = u32> {
        self.0.get(one as usize).into_iter().flat_map(TaskSet::iter)
    }
}

/// The numbers of the bits that are set.
pub(crate) fn numbers(bits: u64) -> impl Iterator<Item = u32> {
    let more = |left: &u64| Some(left & (left - 1)).filter(|left| *left != 0);
    iter::successors((bits != 0).then_some(bits), more).map(u64::trailing_zeros)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    #[test]
    fn what_is_put_in_is_in_until_it_is_taken_out() {
        let set = TaskSet::new(130);
        for number in [0, 63, 64, 129] {
            assert!(!set.insert(number) && set.insert(number));
        }
        assert_eq!(set.iter().collect::<Vec<_>>(), [0, 63, 64, 129]);
        assert!(set.remove(64) && !set.remove(64));
        assert!(set.contains(63) && !set.contains(64));
        assert_eq!(set.len(), 3);
    }

    #[test]
    fn there_is_nobody_beyond_the_room() {
        let set = TaskSet::new(64);
        assert!(!set.insert(64) && !set.contains(64) && !set.remove(64));
        assert_eq!((set.len(), set.next_from(64)), (0, None));
    }

    #[test]
    fn the_next_one_is_found_round_the_end() {
        for room in [64, 130] {
            let set = TaskSet::new(room);
            assert_eq!(set.next_from(7), None);
            set.insert(5);
            set.insert(40);
            let found = [0, 5, 6, 40, 41].map(|from| set.next_from(from));
            assert_eq!(found, [5, 5, 40, 40, 5].map(Some));
        }
        let set = TaskSet::new(130);
        set.insert(129);
        assert_eq!(set.next_from(0), Some(129));
        set.insert(3);
        assert_eq!((set.next_from(4), set.next_from(129)), (Some(129), Some(129)));
        set.remove(129);
        assert_eq!(set.next_from(129), Some(3));
    }
}
