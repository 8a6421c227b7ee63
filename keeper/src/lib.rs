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
//!  trap stub ──► Keeper::post ──► mailbox ──► Keeper::serve, in the keeper's own task
//!  (saves all registers;                        │
//!   the task is frozen)                         ├─ Platform::seize   the task cannot run
//!                                               ├─ settle            locks and counts are free
//!                                               ├─ Walk              the frames have names
//!                                               ├─ Policy::rule      exit, restart, hold
//!                                               ├─ reclaim           memory is free
//!                                               └─ Platform::retire, restart or hold
//!                                                      └──► Report
//! ```
//! Until the dead task's locks and counts are free, nothing on this way allocates, takes a lock,
//! blocks, or runs on the dead task's stack. Releasing them does not depend on the walk: the
//! ledger says what is held; the walk says by which frame.
//!
//! # What is in it
//! | | |
//! | --- | --- |
//! | [`Keeper`] | posts and serves |
//! | [`Platform`], [`Stopped`] | what an embedder provides: the one unsafe trait |
//! | [`Policy`], [`Verdict`], [`policy`] | who decides, what can be decided, and the ready-made ones |
//! | [`Report`], [`FrameReport`], [`Resource`] | what was found, and what was done |
//! | [`unwind`] | walking frames from outside |
//! | `hosted` | with the feature of that name: a kernel in a Linux process, to test policies in |
//!
//! `task-model` has the vocabulary, and `drop-registry` what tasks hold.

#![no_std]

#[cfg(feature = "alloc")]
extern crate alloc;
#[cfg(any(test, feature = "hosted"))]
extern crate std;

#[cfg(all(feature = "hosted", target_os = "linux", target_arch = "x86_64"))]
pub mod hosted;
#[cfg(feature = "alloc")]
mod keeper;
#[cfg(feature = "alloc")]
mod mailbox;
#[cfg(feature = "alloc")]
mod platform;
#[cfg(feature = "alloc")]
pub mod policy;
#[cfg(feature = "alloc")]
mod report;
pub mod unwind;

#[cfg(feature = "alloc")]
pub use keeper::Keeper;
#[cfg(feature = "alloc")]
pub use mailbox::{Cause, MailboxFull, Notice};
#[cfg(feature = "alloc")]
pub use platform::{CannotRestart, NoSuchTask, Platform, Stopped};
#[cfg(feature = "alloc")]
pub use policy::{Policy, Verdict};
#[cfg(feature = "alloc")]
pub use report::{FrameCoverage, FrameReport, Report, Resource};

/// The workspace's README, so that its example is compiled.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
