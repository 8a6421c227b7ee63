//! Lines on the first serial port, and the `log` facade on top of them.
//!
//! A line is formatted first, on the writer's own stack and interruptible; then its bytes go out
//! with interrupts off. So lines of several tasks do not mix, a task that dies while formatting
//! writes nothing, and there is no lock that a dead task could leave held. This relies on there
//! being one CPU.
#![expect(unsafe_code, reason = "the port's I/O addresses")]

use core::fmt;

use log::{LevelFilter, Log, Metadata, Record};
use uart_16550::backend::PioBackend;
use uart_16550::{Config, Uart16550};

use crate::bounded_text::BoundedText;
use crate::interrupts::without_interrupts;

const COM1: u16 = 0x3f8;

/// The longest line in bytes; the rest of a longer one is cut off and marked.
const LINE: usize = 512;

/// A driver without history: each line takes a new one, so none can be left in a bad state.
fn port() -> Option<Uart16550<PioBackend>> {
    // SAFETY: on a PC these eight ports belong to the first UART; only this module uses them, and
    // (with interrupts off) one user at a time.
    unsafe { Uart16550::new_port(COM1) }.ok()
}

/// Sets the port up and makes it the destination of `log`.
pub(crate) fn init() {
    // Without a port there is nowhere to report that there is none; the kernel goes on, mute.
    let _ = port().map(|mut port| port.init(Config::default()));
    if log::set_logger(&SerialLog).is_ok() {
        log::set_max_level(LevelFilter::Info);
    }
}

/// Writes one line; safe in any context, traps included.
pub(crate) fn write_line(line: fmt::Arguments<'_>) {
    let text = BoundedText::<LINE>::format(line);
    let end = if text.is_cut() { "…\r\n" } else { "\r\n" };
    without_interrupts(|| {
        if let Some(mut port) = port() {
            port.send_bytes_exact(text.as_str().as_bytes());
            port.send_bytes_exact(end.as_bytes());
        }
    });
}

struct SerialLog;

impl Log for SerialLog {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        write_line(format_args!("{:<5} {}", record.level(), record.args()));
    }

    fn flush(&self) {}
}
