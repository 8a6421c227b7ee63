//! The frames that compilers make.
//!
//! They use the registers that a function must give back in one order, and push them in one order,
//! so that few of all possible frames are ever seen. For each of those a walk has code that reads
//! just its slots: a row says which, and no register is asked whether it has one.

use super::registers::CALLEE_SAVED;

/// For each of [`CALLEE_SAVED`]: 0, the register is live; or its slot is so many words below the
/// CFA.
pub(super) type Slots = [u8; CALLEE_SAVED.len()];

/// They are 99% of the rows of a Rust program, of `libc` and of `cargo`.
pub(super) const USUAL: [Slots; 16] = [
    // RBX, RBP, R12, R13, R14, R15. LLVM takes RBX, R14, R15, R12, R13 in that order,
    [0, 0, 0, 0, 0, 0],
    [2, 0, 0, 0, 0, 0],
    [3, 0, 0, 0, 2, 0],
    [4, 0, 0, 0, 3, 2],
    [5, 0, 4, 0, 3, 2],
    [6, 0, 5, 4, 3, 2],
    // and the same after RBP, be that a frame pointer or not.
    [0, 2, 0, 0, 0, 0],
    [3, 2, 0, 0, 0, 0],
    [4, 2, 0, 0, 3, 0],
    [5, 2, 0, 0, 4, 3],
    [6, 2, 5, 0, 4, 3],
    [7, 2, 6, 5, 4, 3],
    // GCC takes RBX, RBP, and R12 to R15.
    [4, 3, 2, 0, 0, 0],
    [5, 4, 3, 2, 0, 0],
    [6, 5, 4, 3, 2, 0],
    [7, 6, 5, 4, 3, 2],
];

/// Which of [`USUAL`] it is; none, if the number is as large as there are.
pub(super) fn which(slots: Slots) -> u8 {
    USUAL.iter().position(|usual| *usual == slots).unwrap_or(USUAL.len()) as u8
}

/// `$body` for `$slots`: once for each of [`USUAL`], where they are constants, and once for all
/// others. `$usual` says [`which`] it is.
macro_rules! match_usual {
    ($usual:expr, $all:expr, |$slots:ident| $body:block) => {
        match_usual!($usual, $all, |$slots| $body, 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15)
    };
    ($usual:expr, $all:expr, |$slots:ident| $body:block, $($n:literal)*) => {
        match $usual {
            $($n => {
                let $slots = const { $crate::unwind::usual::USUAL[$n] };
                $body
            })*
            _ => {
                let $slots = $all;
                $body
            }
        }
    };
}
pub(super) use match_usual;
