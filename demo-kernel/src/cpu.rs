//! The per-CPU block, reached through the GS base.
//!
//! There is one CPU. The block is what several would each have one of; code that may migrate
//! reads single fields with one `gs:`-relative load, and never keeps the block.
#![expect(unsafe_code, reason = "GS-relative loads, and save areas that trap stubs write")]

use core::arch::asm;
use core::cell::UnsafeCell;
use core::mem::offset_of;
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

use drop_registry::{Cursor, Entry, Ledger};
use task_model::RegisterFile;
use x86_64::VirtAddr;
use x86_64::registers::model_specific::GsBase;

use crate::tasks::Task;
use crate::tracked::{BOOT_LEDGER, TRAP_LEDGER};

/// What one CPU keeps for itself.
///
/// The first fields have fixed offsets: assembly reads them. Atomics, because a non-maskable
/// interrupt may come between any two accesses; Relaxed, because only this CPU uses them.
#[repr(C)]
pub(crate) struct Cpu {
    /// Where the next trap saves the registers: the running task's record; in a trap, `nested`.
    save_area: AtomicPtr<RegisterFile>,
    /// The running task's ledger, or the boot ledger; in a trap, one that refuses.
    ledger: AtomicPtr<Ledger>,
    /// The cursor in that.
    cursor: AtomicPtr<Entry>,
    /// Always `nested`: what a trap stub puts into `save_area`.
    trap_area: AtomicPtr<RegisterFile>,
    /// This block.
    this: AtomicPtr<Self>,
    /// The running task; null before there is one.
    task: AtomicPtr<Task>,
    /// Whether that is to stop at its next safepoint.
    kill_switch: AtomicBool,
    /// Registers of boot code that traps, on its way to the first task or to the end.
    boot: UnsafeCell<RegisterFile>,
    /// Registers of a trap handler that is itself interrupted.
    nested: UnsafeCell<RegisterFile>,
}

/// Offset of the pointer to the current save area.
pub(crate) const SAVE_AREA: usize = offset_of!(Cpu, save_area);
/// Offset of the pointer to the current ledger.
pub(crate) const LEDGER: usize = offset_of!(Cpu, ledger);
/// Offset of the cursor in that.
const CURSOR: usize = offset_of!(Cpu, cursor);
/// Offset of the pointer to the save area for traps in traps.
pub(crate) const TRAP_AREA: usize = offset_of!(Cpu, trap_area);
const THIS: usize = offset_of!(Cpu, this);
const TASK: usize = offset_of!(Cpu, task);
const KILL_SWITCH: usize = offset_of!(Cpu, kill_switch);
const _: () = assert!(SAVE_AREA == 0 && LEDGER == 8);

// SAFETY: the save areas are written by trap stubs and read by the dispatcher of the same CPU,
// which do not overlap; the rest is atomic.
unsafe impl Sync for Cpu {}

static BOOT_CPU: Cpu = Cpu {
    save_area: AtomicPtr::new(ptr::null_mut()),
    ledger: AtomicPtr::new(ptr::null_mut()),
    cursor: AtomicPtr::new(ptr::null_mut()),
    trap_area: AtomicPtr::new(ptr::null_mut()),
    this: AtomicPtr::new(ptr::null_mut()),
    task: AtomicPtr::new(ptr::null_mut()),
    kill_switch: AtomicBool::new(false),
    boot: UnsafeCell::new(RegisterFile::new()),
    nested: UnsafeCell::new(RegisterFile::new()),
};

/// Fills the block of the boot CPU and points GS at it.
pub(crate) fn install() {
    let cpu = &BOOT_CPU;
    cpu.save_area.store(cpu.boot.get(), Ordering::Relaxed);
    cpu.trap_area.store(cpu.nested.get(), Ordering::Relaxed);
    cpu.this.store(ptr::from_ref(cpu).cast_mut(), Ordering::Relaxed);
    cpu.set_ledger(&BOOT_LEDGER, Cursor::first(&BOOT_LEDGER).as_ptr());
    GsBase::write(VirtAddr::from_ptr(cpu));
}

/// Reads the pointer at `gs:OFFSET`.
#[inline(always)]
fn gs_pointer<T, const OFFSET: usize>() -> *mut T {
    let pointer;
    // SAFETY: GS points at a `Cpu` from `install` on, and OFFSET is one of its pointer fields.
    unsafe {
        asm!(
            "mov {}, gs:[{offset}]",
            out(reg) pointer,
            offset = const OFFSET,
            options(pure, readonly, nostack, preserves_flags),
        );
    }
    pointer
}

/// The block of the CPU that executes this. For trap handlers, which do not migrate.
pub(crate) fn this() -> &'static Cpu {
    // SAFETY: `this` is set by `install`, and blocks are statics.
    unsafe { &*gs_pointer::<Cpu, THIS>() }
}

/// The task that executes this, in one load; none at boot. In a trap: the interrupted task.
#[inline]
pub(crate) fn current_task() -> Option<&'static Task> {
    // SAFETY: null, or a record of the task table, which is a static.
    unsafe { gs_pointer::<Task, TASK>().as_ref() }
}

/// The ledger of the task that executes this, in one load; the boot ledger before tasking.
#[inline(always)]
pub(crate) fn current_ledger() -> *mut Ledger {
    gs_pointer::<Ledger, LEDGER>()
}

/// Where the next entry of the task that executes this goes, in one load.
#[inline(always)]
pub(crate) fn cursor() -> *mut Entry {
    gs_pointer::<Entry, CURSOR>()
}

/// Sets that, by one store.
///
/// # Safety
/// [`CurrentLedger::set_cursor`](drop_registry::CurrentLedger::set_cursor).
#[inline(always)]
pub(crate) unsafe fn set_cursor(cursor: Cursor) {
    // SAFETY: GS points at a `Cpu`, and this is its field.
    unsafe {
        asm!(
            "mov gs:[{offset}], {}",
            in(reg) cursor.as_ptr(),
            offset = const CURSOR,
            options(nostack, preserves_flags),
        );
    }
}

/// Whether the task that executes this is to stop at its next safepoint, in one load.
#[inline(always)]
pub(crate) fn kill_switch() -> bool {
    let pulled: u8;
    // SAFETY: GS points at a `Cpu`, and this is one of its bytes.
    unsafe {
        asm!(
            "mov {}, gs:[{offset}]",
            out(reg_byte) pulled,
            offset = const KILL_SWITCH,
            options(readonly, nostack, preserves_flags),
        );
    }
    pulled != 0
}

/// Whether a trap is being handled.
pub(crate) fn in_trap() -> bool {
    gs_pointer::<u8, SAVE_AREA>() == gs_pointer::<u8, TRAP_AREA>()
}

impl Cpu {
    /// Whether `area` is where a trap in a trap saves its registers.
    pub(crate) fn is_nested(&self, area: *const RegisterFile) -> bool {
        ptr::eq(area, self.nested.get())
    }

    /// The task that the next return from a trap goes to.
    pub(crate) fn task(&self) -> Option<&'static Task> {
        // SAFETY: as in `current_task`.
        unsafe { self.task.load(Ordering::Relaxed).as_ref() }
    }

    /// From here to the end of the trap, nothing tracked is acquired. In a trap in a trap, which is
    /// the end of everything, that is so already.
    pub(crate) fn forbid_tracking(&self, in_trap: bool) {
        // Boot code is never returned to.
        if let (Some(task), false) = (self.task(), in_trap) {
            task.keep_cursor(self.cursor.load(Ordering::Relaxed));
        }
        self.set_ledger(&TRAP_LEDGER, Cursor::nowhere(&TRAP_LEDGER).as_ptr());
    }

    /// Makes `task` the one that the next return from a trap goes to.
    ///
    /// The save area is not touched: the trap stub sets it with its last instructions.
    pub(crate) fn set_task(&self, task: &'static Task) {
        self.task.store(ptr::from_ref(task).cast_mut(), Ordering::Relaxed);
        self.note_kill_switch(task);
        self.set_ledger(task.ledger(), task.cursor());
    }

    /// Puts the task's switch to where its code looks for it.
    fn note_kill_switch(&self, task: &Task) {
        self.kill_switch.store(task.is_wanted_dead(), Ordering::Relaxed);
    }

    /// The same, if it is the one that runs.
    pub(crate) fn kill_switch_pulled(&self, task: &Task) {
        if self.task().is_some_and(|running| ptr::eq(running, task)) {
            self.note_kill_switch(task);
        }
    }

    fn set_ledger(&self, ledger: &'static Ledger, cursor: *mut Entry) {
        self.ledger.store(ptr::from_ref(ledger).cast_mut(), Ordering::Relaxed);
        self.cursor.store(cursor, Ordering::Relaxed);
    }
}
