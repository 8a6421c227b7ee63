//! What stands on a task's stack for a recovery point.

use core::mem::{MaybeUninit, offset_of};
use core::ptr;

use task_model::{FaultInfo, FrozenTask, StackMemory};

use crate::arch::{self, SAVED_WORDS, SavedWords};

/// What a task comes back with. It lies in the frame of `catch_fault`, and is written before the
/// ledger lists it.
#[repr(C)]
pub(super) struct Point {
    /// What [`arch::enter`] saves. First, since it is called with this.
    pub(super) saved: SavedWords,
    /// What the task waited for.
    waiting: *mut (),
    /// Made of all that, so that the keeper sees if somebody has written over it.
    seal: u64,
    /// Why the task came back; written by its keeper.
    fault: MaybeUninit<FaultInfo>,
}

impl Point {
    pub(super) const fn new() -> Self {
        Self {
            saved: [0; SAVED_WORDS],
            waiting: ptr::null_mut(),
            seal: 0,
            fault: MaybeUninit::uninit(),
        }
    }

    /// Completes it, once the registers have been saved.
    pub(super) fn seal(&mut self, waiting: *mut ()) {
        self.waiting = waiting;
        let address = ptr::from_ref(self).addr() as u64;
        self.seal = seal_of(address, &self.saved, waiting.addr() as u64);
    }

    /// Why the task came back.
    ///
    /// # Safety
    /// It did: [`Intact::write_fault`] was called for it.
    pub(super) unsafe fn fault(&self) -> FaultInfo {
        // SAFETY: by the contract.
        unsafe { self.fault.assume_init() }
    }
}

/// Every step is a bijection, so no change of a single word goes unnoticed.
fn seal_of(address: u64, saved: &SavedWords, waiting: u64) -> u64 {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    saved
        .iter()
        .chain([&waiting])
        .fold(address ^ ODD, |sum, word| (sum ^ word).wrapping_mul(ODD).rotate_left(29))
}

/// A point of a stopped task that is as it was written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Intact {
    address: u64,
    pub(super) saved: SavedWords,
    pub(super) waiting: u64,
}

impl Intact {
    /// The point at `address` of the task's stack, if there is an intact one in a frame that the
    /// task has not left.
    pub(super) fn read(task: &FrozenTask<'_>, address: u64) -> Option<Self> {
        let word = |offset: usize| task.read_u64(address.checked_add(offset as u64)?).ok();
        let mut saved = [0; SAVED_WORDS];
        for (n, value) in saved.iter_mut().enumerate() {
            *value = word(offset_of!(Point, saved) + 8 * n)?;
        }
        let waiting = word(offset_of!(Point, waiting))?;
        let (stack_pointer, returns_to) = arch::return_slot(&saved);
        let holds = word(offset_of!(Point, seal))? == seal_of(address, &saved, waiting)
            // Where the fault goes to.
            && task.bounds().contains(address, size_of::<Point>() as u64)
            && task.registers().rsp() <= stack_pointer
            && stack_pointer < address
            && task.read_u64(stack_pointer) == Ok(returns_to);
        holds.then_some(Self { address, saved, waiting })
    }

    pub(super) fn address(&self) -> u64 {
        self.address
    }

    /// The stack pointer with which the task comes back.
    pub(super) fn stack_pointer(&self) -> u64 {
        arch::return_slot(&self.saved).0
    }

    /// Tells the task why it comes back.
    pub(super) fn write_fault(&self, task: &mut FrozenTask<'_>, fault: FaultInfo) {
        let place = self.address + offset_of!(Point, fault) as u64;
        let written = task.write(place, fault);
        debug_assert!(written.is_ok(), "an intact point lies in the stack");
    }
}

const _: () = assert!(offset_of!(Point, saved) == 0 && align_of::<Point>() == 8);
