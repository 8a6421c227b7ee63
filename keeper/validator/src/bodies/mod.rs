//! The code that the hosted run steps through.
//!
//! Each body runs on a stack of its own, from an entry whose return address the tables call
//! undefined. A breakpoint at its beginning and one at its end tell the tracer.
#![expect(unsafe_code, reason = "changes stacks, and has code in assembly")]

mod assembled;
mod registry;
mod rust_code;
mod system;

use std::arch::naked_asm;

/// The size of a body's stack.
pub const STACK_BYTES: usize = 512 * 1024;

/// Some code to step through.
#[derive(Debug, Clone, Copy)]
pub struct Body {
    /// What it exercises, in one word.
    pub name: &'static str,
    run: extern "C" fn(),
}

/// All bodies.
pub const BODIES: &[Body] = &[
    Body { name: "formatting", run: rust_code::formatting },
    Body { name: "sorting", run: rust_code::sorting },
    Body { name: "maps", run: rust_code::maps },
    Body { name: "strings", run: rust_code::strings },
    Body { name: "arithmetic", run: rust_code::arithmetic },
    Body { name: "recursion", run: rust_code::recursion },
    Body { name: "closures", run: rust_code::closures },
    Body { name: "panic", run: rust_code::panic },
    Body { name: "assembled", run: assembled::frames },
    Body { name: "registry", run: registry::registry },
    Body { name: "signals", run: system::signals },
    Body { name: "c-code", run: system::c_code },
];

/// Bodies in which the tables are wrong on purpose.
pub const PLANTED: &[Body] = &[
    Body { name: "planted-frame-size", run: assembled::planted_frame_size },
    Body { name: "planted-register", run: assembled::planted_register },
];

/// Comes to the body of this name, for a tracer; returns whether there is one.
pub fn be(name: &str) -> bool {
    let Some(body) = BODIES.iter().chain(PLANTED).find(|body| body.name == name) else {
        return false;
    };
    let mut stack = vec![0u128; STACK_BYTES / 16];
    let top = stack.as_mut_ptr_range().end;
    // SAFETY: the stack is aligned to 16 and ours until the call returns.
    unsafe { on_stack(body.run, top) };
    true
}

/// Calls `body` on the stack that ends at `top`, between breakpoints.
#[unsafe(naked)]
unsafe extern "C" fn on_stack(body: extern "C" fn(), top: *mut u128) {
    naked_asm!(
        ".cfi_startproc",
        "push rbx",
        ".cfi_def_cfa_offset 16",
        ".cfi_offset rbx, -16",
        "mov rbx, rsp",
        "mov rsp, rsi",
        ".cfi_undefined rip",
        "int3",
        "call rdi",
        "int3",
        "mov rsp, rbx",
        "pop rbx",
        "ret",
        ".cfi_endproc",
    )
}
