//! Leaving the machine, through QEMU's `isa-debug-exit` device at port 0xf4.
#![expect(unsafe_code, reason = "writes to an I/O port")]

use x86_64::instructions::{hlt, interrupts, port::Port};

/// How the kernel ends; QEMU's own exit status is `2 * value + 1`.
#[derive(Debug, Clone, Copy)]
#[repr(u32)]
pub(crate) enum ExitStatus {
    /// All that was asked for holds: status 33.
    Success = 0x10,
    /// Something does not: status 35.
    Failure = 0x11,
}

/// Begins anew from the firmware, with the memory as it is: by the chipset's reset control
/// register, port 0xcf9 (Intel 9 Series Chipset Family PCH datasheet, 13.7.5).
pub(crate) fn reset() -> ! {
    interrupts::disable();
    // SAFETY: the machine ends with this; nothing is lost that is wanted. First "system reset",
    // then with the bit that sets it off.
    unsafe {
        Port::new(0xcf9).write(0x02_u8);
        Port::new(0xcf9).write(0x06_u8);
    }
    loop {
        hlt();
    }
}

/// Ends the machine.
pub(crate) fn exit(status: ExitStatus) -> ! {
    // SAFETY: nothing but the exit device answers at this port, and it touches no memory.
    unsafe { Port::new(0xf4).write(status as u32) };
    // Reached only where there is no such device.
    interrupts::disable();
    loop {
        hlt();
    }
}
