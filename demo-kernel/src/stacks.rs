//! Stacks: a fixed pool, each with an unmapped guard page below it, where `stack_layout` says.
#![expect(unsafe_code, reason = "maps the memory of the stacks")]

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU64, Ordering};

use task_model::StackBounds;

use crate::memory;
use crate::stack_layout;
pub(crate) use crate::stack_layout::{COUNT, SIZE};

const PAGE: u64 = 4096;

#[repr(C, align(4096))]
struct Memory(UnsafeCell<[[u8; SIZE as usize]; COUNT]>);

// SAFETY: no Rust code names its contents; each stack's owner uses its part.
unsafe impl Sync for Memory {}

static MEMORY: Memory = Memory(UnsafeCell::new([[0; SIZE as usize]; COUNT]));

/// A set bit is a stack in use. One word, so that taking and freeing are single instructions
/// with nothing to tear.
static IN_USE: AtomicU64 = AtomicU64::new(0);
const _: () = assert!(COUNT < 64);

/// A stack of the pool, in use until it is given to [`free`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Stack(usize);

impl Stack {
    /// Where it lies.
    pub(crate) const fn bounds(&self) -> StackBounds {
        stack_layout::bounds(self.0)
    }
}

/// Maps all stacks; their guards stay unmapped. Once, at boot.
pub(crate) fn map_all() {
    for n in 0..COUNT {
        let base = Stack(n).bounds().base();
        let memory = MEMORY.0.get().cast::<[u8; SIZE as usize]>().wrapping_add(n).cast::<u8>();
        for offset in (0..SIZE).step_by(PAGE as usize) {
            let frame = memory::physical(memory.wrapping_add(offset as usize));
            // SAFETY: the memory is used through this mapping alone.
            unsafe { memory::map_data_page(base + offset, frame) };
        }
    }
}

/// Takes a free stack, if there is one. Its contents are whatever its last user left.
pub(crate) fn allocate() -> Option<Stack> {
    // Acquire pairs with the Release in `free`: the last user's writes come before ours.
    let before = IN_USE
        .fetch_update(Ordering::Acquire, Ordering::Relaxed, |used| {
            let free = used.trailing_ones() as usize;
            (free < COUNT).then(|| used | 1 << free)
        })
        .ok()?;
    Some(Stack(before.trailing_ones() as usize))
}

/// Gives a stack back.
pub(crate) fn free(stack: Stack) {
    // Release: see `allocate`.
    IN_USE.fetch_and(!(1 << stack.0), Ordering::Release);
}

/// Where all stacks lie, without their guards.
pub(crate) fn all() -> impl Iterator<Item = StackBounds> {
    (0..COUNT).map(|n| Stack(n).bounds())
}

/// How many stacks are in use.
pub(crate) fn in_use() -> u32 {
    IN_USE.load(Ordering::Relaxed).count_ones()
}
