//! A Rust panic: a fault of the task whose code panicked.

use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, Ordering};

use crate::cpu;
use crate::exit::{ExitStatus, exit};
use crate::serial::write_line;
use crate::traps;

/// Nothing is printed, unwound or released by the task itself: it leaves a note in its record
/// and traps. Code that is no task's ends the machine.
#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    match cpu::current_task() {
        Some(task) if !cpu::in_trap() => {
            task.note_panic(info);
            traps::panicked()
        }
        _ => {
            static REPORTING: AtomicBool = AtomicBool::new(false);
            // Relaxed: one CPU. A panic of the report itself leaves without another.
            if !REPORTING.swap(true, Ordering::Relaxed) {
                write_line(format_args!("kernel {info}"));
            }
            exit(ExitStatus::Failure)
        }
    }
}
