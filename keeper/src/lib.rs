//! A keeper for kernel tasks: what is done about one that died.
//!
//! In KeyKOS every domain names a *keeper*: another domain, with its own good stack, that receives
//! the trap when the first one stops, can read and change its registers and memory, and decides
//! what becomes of it (Hardy, "KeyKOS architecture", Operating Systems Review 1985). This crate
//! brings that to Rust kernels, and adds what KeyKOS never had to do: putting back the locks and
//! counts that the dead task's frames held.
//!
//! # A fault's way
//! ```text
//!  trap stub ──► Keepers::post ──► inbox ──► Seat::serve, in the keeper's own task
//!  (saves all registers;                       │
//!   the task is frozen)                        ├─ Platform::seize   the task cannot run
//!                                              ├─ Policy::rule      resume? ──► Platform::resume
//!                                              │    (try next ──► the same, at the keeper above)
//!                                              ├─ settle            locks and counts are free
//!                                              ├─ Walk              the frames have names
//!                                              ├─ reclaim           memory is free
//!                                              └─ Platform::retire, restart or hold
//!                                                     └──► Report
//! ```
//! A policy that wants to see the frames and the resources before it rules has the task settled
//! [first](Case::settle).
//!
//! Until the dead task's locks and counts are free, nothing on this way allocates, takes a lock,
//! blocks, or runs on the dead task's stack. Releasing them does not depend on the walk: the
//! ledger says what is held; the walk says by which frame.
//!
//! # What is in it
//! | | |
//! | --- | --- |
//! | [`Keepers`], [`Seat`] | the keepers of a kernel, and the place from which one serves |
//! | [`Platform`], [`Stopped`] | what an embedder provides: the one unsafe trait |
//! | [`Policy`], [`policy`] | who decides, and the ready-made ones |
//! | [`supervisor`] | what the failure of one task means to others: supervision trees |
//! | [`Case`], [`Verdict`], [`Token`] | about what, what can be decided, and the right to do it later |
//! | [`Orders`] | what a policy may do about other tasks |
//! | [`Meter`], [`Usage`] | how much a task may run, and how long it may hold locks |
//! | [`Keepers::monitor`], [`Keepers::link`], [`End`] | tasks that watch each other, or die together |
//! | [`Report`], [`FrameReport`], [`Resource`] | what was found, and what was done |
//! | `post_mortem` | with the feature `post-mortem`: reports in memory that may outlive a reset |
//! | [`unwind`] | walking frames from outside |
//! | `hosted` | with the feature of that name: a kernel in a Linux process, to test policies in |
//!
//! `task-model` has the vocabulary, and `drop-registry` what tasks hold.

#![no_std]

#[cfg(feature = "alloc")]
extern crate alloc;
#[cfg(any(test, feature = "hosted"))]
extern crate std;

#[cfg(feature = "alloc")]
mod case;
#[cfg(feature = "alloc")]
mod chain;
#[cfg(feature = "alloc")]
mod docket;
#[cfg(all(feature = "hosted", target_os = "linux", target_arch = "x86_64"))]
pub mod hosted;
#[cfg(feature = "alloc")]
mod inbox;
#[cfg(feature = "alloc")]
mod keepers;
#[cfg(feature = "alloc")]
mod log;
#[cfg(feature = "alloc")]
mod meter;
#[cfg(feature = "alloc")]
mod orders;
#[cfg(feature = "alloc")]
mod peers;
#[cfg(feature = "alloc")]
mod platform;
#[cfg(feature = "alloc")]
pub mod policy;
#[cfg(feature = "post-mortem")]
pub mod post_mortem;
#[cfg(feature = "alloc")]
mod report;
#[cfg(feature = "alloc")]
pub mod supervisor;
#[cfg(feature = "alloc")]
mod task_set;
#[cfg(feature = "alloc")]
mod token;
pub mod unwind;
#[cfg(feature = "alloc")]
mod verdict;

#[cfg(feature = "alloc")]
pub use case::Case;
#[cfg(feature = "alloc")]
pub use chain::{KeeperId, RegisterError};
#[cfg(feature = "alloc")]
pub use inbox::PostError;
#[cfg(feature = "alloc")]
pub use keepers::{Capacity, Keepers, Seat};
#[cfg(feature = "alloc")]
pub use log::Log;
#[cfg(feature = "alloc")]
pub use meter::{CpuBudget, HoldBudget, Meter, Usage};
#[cfg(feature = "alloc")]
pub use orders::Orders;
#[cfg(feature = "alloc")]
pub use peers::{End, PeerError};
#[cfg(feature = "alloc")]
pub use platform::{CannotRestart, NoSuchTask, Platform, Stopped};
#[cfg(feature = "alloc")]
pub use policy::Policy;
#[cfg(feature = "alloc")]
pub use report::{FrameCoverage, FrameReport, Report, Resource};
#[cfg(feature = "alloc")]
pub use token::{Token, TooLate};
#[cfg(feature = "alloc")]
pub use verdict::{Refusal, Verdict};

/// The workspace's README, so that its example is compiled.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
