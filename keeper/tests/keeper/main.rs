//! The keeper, and tasks that run and die, in a hosted kernel.
#![expect(unsafe_code, reason = "tasks that fault, and an allocator that counts")]

mod chain;
mod deadlock;
mod deaths;
mod ends;
mod fault_path;
mod faults;
mod keeper_tasks;
mod kills;
mod landing_pads;
mod meters;
mod peers;
mod post_mortem;
mod recovery;
mod rulings;
mod verdicts;
