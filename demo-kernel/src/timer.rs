//! The local APIC's timer, which preempts tasks.
//!
//! Registers: Intel SDM volume 3, table 11-1 (xAPIC, memory-mapped).
#![expect(unsafe_code, reason = "device registers")]

use core::ptr;
use core::sync::atomic::{AtomicU64, Ordering};

use spin::Once;
use x86_64::instructions::port::Port;

use crate::traps::Vector;

const APIC_BASE: usize = 0xfee0_0000;
const END_OF_INTERRUPT: usize = 0xb0;
const SPURIOUS: usize = 0xf0;
const TIMER_ENTRY: usize = 0x320;
const INITIAL_COUNT: usize = 0x380;
const DIVIDE: usize = 0x3e0;

const SOFTWARE_ENABLE: u32 = 1 << 8;
const PERIODIC: u32 = 1 << 17;
const DIVIDE_BY_1: u32 = 0b1011;

/// The timer's period. QEMU's APIC counts nanoseconds of virtual time, and under
/// `-icount shift=0` an instruction takes one, so this is also a number of instructions. Other
/// machines would have to measure their bus.
const PERIOD: u32 = 100_000;

static TICKS: AtomicU64 = AtomicU64::new(0);

fn write(register: usize, value: u32) {
    let register = ptr::with_exposed_provenance_mut::<u32>(APIC_BASE + register);
    // SAFETY: the boot map has the APIC's page at its physical address, uncached, and these are
    // its registers; only this module uses them.
    unsafe { register.write_volatile(value) }
}

/// Silences the legacy interrupt controllers and starts the periodic tick.
pub(crate) fn start() {
    for mask in [0x21, 0xa1] {
        // SAFETY: the mask registers of the two 8259s; all ones masks every line.
        unsafe { Port::<u8>::new(mask).write(0xff) };
    }
    write(SPURIOUS, SOFTWARE_ENABLE | u32::from(Vector::SPURIOUS));
    write(DIVIDE, DIVIDE_BY_1);
    write(TIMER_ENTRY, PERIODIC | u32::from(Vector::TIMER));
    write(INITIAL_COUNT, PERIOD);
}

/// Counts a tick and lets the APIC send the next; for the timer's trap. Returns the ticks so far.
pub(crate) fn tick() -> u64 {
    write(END_OF_INTERRUPT, 0);
    // Relaxed: a clock, which orders nothing else.
    TICKS.fetch_add(1, Ordering::Relaxed) + 1
}

/// What is called at each tick, in the trap.
static HOOK: Once<fn()> = Once::new();

/// Has `hook` called at each tick, in the trap; there is room for one.
pub(crate) fn at_each_tick(hook: fn()) {
    HOOK.call_once(|| hook);
}

/// Calls it, if there is one.
pub(crate) fn call_hook() {
    if let Some(hook) = HOOK.get() {
        hook();
    }
}

/// Ticks since boot.
pub(crate) fn ticks() -> u64 {
    TICKS.load(Ordering::Relaxed)
}

/// The time-stamp counter: under `-icount shift=0`, the number of instructions executed.
#[inline]
pub(crate) fn now() -> u64 {
    // SAFETY: every x86-64 has the counter, and nothing forbids reading it here.
    unsafe { core::arch::x86_64::_rdtsc() }
}
