//! A list that is whole wherever who writes it stops.

use core::fmt;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::{AtomicUsize, Ordering, compiler_fence};

/// A list of at most `N`, which whoever finds its writer dead can read and go on with.
///
/// What lies beyond the length is always some value, never nothing, so there are no bytes that are
/// none of `T`. An item is written first and counted then. So one whose writer died over it is not
/// there, or whole. One that is being *replaced* may be of the old and of the new in part: that is
/// for types of which every such mixture is a value, whose fields are numbers, enums without
/// fields, and options of these; and whoever goes on replaces it again.
pub struct Log<T, const N: usize> {
    items: [T; N],
    len: AtomicUsize,
}

impl<T: Copy, const N: usize> Log<T, N> {
    /// An empty one. `filler` is never seen.
    pub(crate) const fn new(filler: T) -> Self {
        Self { items: [filler; N], len: AtomicUsize::new(0) }
    }

    /// Appends an item. Returns whether there was room.
    #[inline]
    pub(crate) fn push(&mut self, item: T) -> bool {
        let len = *self.len.get_mut();
        let Some(place) = self.items.get_mut(len) else { return false };
        *place = item;
        // Release: the item is there for whoever sees it counted. They see it because the writer
        // has been frozen, so the order of its stores is what counts, and the compiler keeps that.
        self.len.store(len + 1, Ordering::Release);
        true
    }

    #[inline]
    pub(crate) fn has_none(&self) -> bool {
        // Acquire: see `deref`.
        self.len.load(Ordering::Acquire) == 0
    }

    #[inline]
    pub(crate) fn clear(&mut self) {
        self.len.store(0, Ordering::Relaxed);
        // What is written over the items from here on is written after that.
        compiler_fence(Ordering::SeqCst);
    }
}

impl<T, const N: usize> Deref for Log<T, N> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        // Acquire pairs with the Release in `push`.
        self.items.get(..self.len.load(Ordering::Acquire)).unwrap_or(&[])
    }
}

impl<T, const N: usize> DerefMut for Log<T, N> {
    fn deref_mut(&mut self) -> &mut [T] {
        let len = *self.len.get_mut();
        self.items.get_mut(..len).unwrap_or_default()
    }
}

impl<T: Copy, const N: usize> Clone for Log<T, N> {
    fn clone(&self) -> Self {
        Self { items: self.items, len: AtomicUsize::new(self.len.load(Ordering::Acquire)) }
    }
}

impl<T: fmt::Debug, const N: usize> fmt::Debug for Log<T, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_shows_what_was_appended_and_no_more_than_there_is_room_for() {
        let mut log = Log::<u8, 2>::new(9);
        assert!(log.is_empty());
        assert!(log.push(1) && log.push(2) && !log.push(3));
        assert_eq!(log.clone()[..], [1, 2]);
        log[1] = 5;
        assert_eq!(log[..], [1, 5]);
        log.clear();
        assert!(log.push(7));
        assert_eq!(log[..], [7]);
    }
}
