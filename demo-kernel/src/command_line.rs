//! The kernel's command line: words of the form `key=value`.
#![expect(unsafe_code, reason = "reads the loader's start info")]

use spin::Once;

use crate::boot::StartInfo;

const CAPACITY: usize = 256;

/// A copy, because the low 2 MiB, where the loader left the text, are unmapped soon after.
struct CommandLine {
    text: [u8; CAPACITY],
    length: usize,
}

static COMMAND_LINE: Once<CommandLine> = Once::new();

/// Copies the command line out of the loader's memory; a longer one than fits is cut.
///
/// To be called once, at boot, before the low memory is unmapped.
pub(crate) fn read(start_info: u64) {
    // SAFETY: `kernel_main` passes on what the loader left, and `memory` comes after.
    let source = unsafe { StartInfo::command_line(start_info) };
    let length = source.len().min(CAPACITY);
    let mut text = [0; CAPACITY];
    text[..length].copy_from_slice(&source[..length]);
    COMMAND_LINE.call_once(|| CommandLine { text, length });
}

/// The value of the first word `key=value`, if there is one.
pub(crate) fn value(key: &str) -> Option<&'static str> {
    let line = COMMAND_LINE.get()?;
    let text = str::from_utf8(&line.text[..line.length]).ok()?;
    text.split_ascii_whitespace().find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
}
