//! What a task said when it panicked, and where.

use std::boxed::Box;
use std::cell::Cell;
use std::format;
use std::panic::{PanicHookInfo, set_hook, take_hook};
use std::string::String;
use std::sync::Once;
use std::thread_local;

use super::signals;

thread_local! {
    /// The last panic of the running task. Leaked, and one word: the task may be killed in the
    /// middle.
    pub(super) static PANIC_NOTE: Cell<Option<&'static String>> = const { Cell::new(None) };
}

/// Has panics of tasks noted from now on, before whatever the process does about panics by now.
pub(super) fn note_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let others = take_hook();
        set_hook(Box::new(move |panic| {
            if signals::in_task() {
                PANIC_NOTE.set(Some(Box::leak(Box::new(note_of(panic)))));
            }
            others(panic);
        }));
    });
}

fn note_of(panic: &PanicHookInfo<'_>) -> String {
    let message = panic.payload_as_str().unwrap_or("not a text");
    match panic.location() {
        Some(place) => format!("{message} ({place})"),
        None => String::from(message),
    }
}
