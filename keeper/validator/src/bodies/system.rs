//! What the system does to a stack: signals. And C code, by the compiler for C.

use std::hint::black_box;

extern "C" fn on_signal(signal: libc::c_int) {
    black_box(signal + 1);
    if signal == libc::SIGUSR1 {
        raise(libc::SIGUSR2);
    }
}

fn raise(signal: libc::c_int) {
    // SAFETY: the signal has a handler, which may run at any place.
    unsafe { libc::raise(signal) };
}

/// A signal in the handler of another one, both on the stack that they interrupt.
pub(super) extern "C" fn signals() {
    for signal in [libc::SIGUSR1, libc::SIGUSR2] {
        // SAFETY: the handler has this signature and does nothing that it may not do.
        unsafe { libc::signal(signal, on_signal as *const () as libc::sighandler_t) };
    }
    raise(libc::SIGUSR1);
}

unsafe extern "C" {
    safe fn c_code_optimised(n: libc::c_int) -> libc::c_int;
    safe fn c_code_unoptimised(n: libc::c_int) -> libc::c_int;
}

pub(super) extern "C" fn c_code() {
    black_box(c_code_optimised(5) + c_code_unoptimised(5));
}
