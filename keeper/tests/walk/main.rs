//! The walker, from outside: live stacks, hand-assembled frames, hand-made tables, and garbage.
#![expect(unsafe_code, reason = "tasks on stacks of their own, and this binary's own sections")]

mod allocation;
mod assembled;
mod calls;
mod corrupted;
mod errors;
mod gcc_shapes;
mod image;
mod images;
mod language;
mod live;
mod shapes;
mod synthetic;
mod tables;
mod task;
