//! What the proofs share in which somebody dies at every instruction: a process for each death.

pub mod fork;
