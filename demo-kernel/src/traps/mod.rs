//! Every way out of a task.
//!
//! ```text
//!  exception, interrupt, int N      all registers into         the dispatcher picks
//!  ──► stub (own stack, IST) ──────► the save area ──► dispatch ──► whose registers to restore
//! ```
//!
//! All switches between tasks go through here, so a task that does not run has its whole
//! register file in its record. While a trap is handled the save area is the CPU's nested one: a
//! second trap finds its place there and spoils nothing.

mod dispatch;
mod software;
mod stubs;

pub(crate) use software::{exit, killed, panicked, park, sleep, yield_now};
pub(crate) use stubs::stub_address;

/// The vectors that this kernel tells apart.
#[derive(Debug)]
pub(crate) struct Vector;

impl Vector {
    /// NMI.
    pub(crate) const NON_MASKABLE: u8 = 2;
    /// #DF.
    pub(crate) const DOUBLE_FAULT: u8 = 8;
    /// #PF.
    pub(crate) const PAGE_FAULT: u8 = 14;
    /// #MC.
    pub(crate) const MACHINE_CHECK: u8 = 18;
    /// The local APIC's timer.
    pub(crate) const TIMER: u8 = 0x30;
    /// Software: the task gives up the CPU.
    pub(crate) const YIELD: u8 = 0x40;
    /// Software: the task waits for an unpark.
    pub(crate) const PARK: u8 = 0x41;
    /// Software: the task waits for the tick in `rdi`.
    pub(crate) const SLEEP: u8 = 0x42;
    /// Software: the task has finished.
    pub(crate) const EXIT: u8 = 0x43;
    /// Software: the task's code panicked.
    pub(crate) const PANICKED: u8 = 0x44;
    /// Software: the task has killed itself.
    pub(crate) const KILLED: u8 = 0x45;
    /// What the local APIC sends when an interrupt was withdrawn.
    pub(crate) const SPURIOUS: u8 = 0xff;
}
