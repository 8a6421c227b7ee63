//! Supervision trees, of tasks that run and die in a hosted kernel.
#![expect(unsafe_code, reason = "tasks that fault")]

mod bad_input;
mod family;
mod intensity;
mod kinds;
mod nested;
mod strategies;
