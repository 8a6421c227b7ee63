//! Where the stacks lie, for the kernel and for the program that steps through it from outside.
//!
//! ```text
//!  REGION                                                        + SLOT_SIZE
//!    │ guard (unmapped) │ SIZE bytes, 4 KiB pages, grows down ◄─ │ guard │ …
//! ```

use task_model::StackBounds;

/// Where the stacks are mapped: far from all that the identity map covers.
pub(crate) const REGION: u64 = 0x40_0000_0000;

/// What is left unmapped below each stack.
const GUARD: u64 = 4096;

/// The usable size of every stack.
pub(crate) const SIZE: u64 = 64 * 1024;

/// From each stack to the next.
pub(crate) const SLOT_SIZE: u64 = GUARD + SIZE;

/// A stack for each task, one for each trap stack, and some that may stay quarantined.
pub(crate) const COUNT: usize = 56;

static BOUNDS: [StackBounds; COUNT] = {
    let mut all = [computed(0); COUNT];
    let mut n = 0;
    while n < COUNT {
        all[n] = computed(n);
        n += 1;
    }
    all
};

const fn computed(n: usize) -> StackBounds {
    let base = REGION + n as u64 * SLOT_SIZE + GUARD;
    match StackBounds::new(base, base + SIZE, GUARD) {
        Some(bounds) => bounds,
        None => unreachable!(),
    }
}

/// Where stack `n` lies.
pub(crate) const fn bounds(n: usize) -> StackBounds {
    BOUNDS[n]
}
