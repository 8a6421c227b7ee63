//! The records that survive a warm reset.
#![expect(unsafe_code, reason = "names a section of the linker script")]

use keeper::post_mortem::{Ring, Slot};
use spin::Once;

/// In a section that is not loaded, so that neither the loader nor the boot code writes on it
/// (`kernel.ld`). A slot may have any contents.
// SAFETY: the section is for nothing else, and is writable memory.
#[unsafe(link_section = ".post_mortem")]
static MEMORY: [Slot; 8] = [const { Slot::new() }; 8];

/// The ring of records, with those of earlier boots.
pub(crate) fn ring() -> &'static Ring {
    static RING: Once<Ring> = Once::new();
    RING.call_once(|| Ring::new(&MEMORY))
}
