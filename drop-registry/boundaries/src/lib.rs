//! What the proofs share in which somebody dies at every instruction: a process for each death, and
//! where a death can make a difference.

pub mod fork;
pub mod writes;
