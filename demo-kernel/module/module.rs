//! A module: compiled and linked by itself, with unwind tables of its own, and loaded by the kernel
//! once it runs. It knows nothing of the kernel but what it is called with.
//!
//! The build script compiles it to a shared object without imports and relocations.

#![no_std]
#![no_main]

use core::hint::black_box;
use core::panic::PanicInfo;
use core::ptr;

/// Where nothing is ever mapped.
const UNMAPPED: usize = 0x50_0000_0000;

/// What the kernel does for the module: calls a function of it, with a value that is locked.
type WithLock = extern "C" fn(extern "C" fn(&mut u64));

/// The entry.
#[unsafe(no_mangle)]
extern "C" fn module_main(with_lock: WithLock) {
    with_lock(change);
    // Something is to come after the call, so that it is one.
    black_box(());
}

/// Changes the value, and faults before it has changed it back.
extern "C" fn change(value: &mut u64) {
    // SAFETY: it is a reference.
    unsafe { ptr::write_volatile(value, 7) };
    // SAFETY: the store faults, so it changes no memory, and nobody goes on after it.
    unsafe { ptr::write_volatile(ptr::without_provenance_mut::<u8>(UNMAPPED), 1) };
    *value = 0;
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    loop {}
}
