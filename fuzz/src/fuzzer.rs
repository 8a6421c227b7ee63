//! libFuzzer's side: runs the target that the environment names.
#![no_main]

use std::sync::OnceLock;

use fuzz_targets::{TARGET_VARIABLE, find};

static TARGET: OnceLock<fn(&[u8])> = OnceLock::new();

/// The target's function.
fn target() -> fn(&[u8]) {
    *TARGET.get_or_init(|| {
        let name = std::env::var(TARGET_VARIABLE).unwrap_or_default();
        let target = find(&name);
        target.unwrap_or_else(|| panic!("{TARGET_VARIABLE} names no target: {name:?}")).run
    })
}

libfuzzer_sys::fuzz_target!(init: { target(); }, |bytes: &[u8]| target()(bytes));
