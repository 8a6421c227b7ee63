//! Links the kernel as a freestanding static image by its own script, and makes the module that it
//! loads.

use std::env;
use std::path::Path;
use std::process::Command;

fn main() {
    compile_module();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/kernel.ld");
    println!("cargo::rerun-if-changed={script}");
    println!("cargo::rustc-link-arg-bins=-Wl,--script={script}");
    for argument in [
        "-nostartfiles",
        "-nostdlib",
        "-static",
        "-no-pie",
        // The sorted index of the unwind tables, which a walk of a dead task's frames searches.
        "-Wl,--eh-frame-hdr",
        "-Wl,--build-id=none",
        "-Wl,-z,max-page-size=4096",
        "-Wl,-z,norelro",
    ] {
        println!("cargo::rustc-link-arg-bins={argument}");
    }
}

/// A shared object that needs nothing but to be copied: `scenarios::module_faults` has its bytes.
fn compile_module() {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/module/module.rs");
    println!("cargo::rerun-if-changed={source}");
    let directory = env::var_os("OUT_DIR").expect("cargo names a directory");
    let status = Command::new(env::var_os("RUSTC").expect("cargo names a compiler"))
        .args([source, "--edition=2024", "--crate-type=cdylib", "--crate-name=module"])
        .args(["-Copt-level=2", "-Cpanic=abort", "-Cforce-unwind-tables=yes"])
        .args(["-Clink-args=-nostartfiles -nostdlib -Wl,--eh-frame-hdr -Wl,-e,module_main"])
        .args(["-Clink-args=-Wl,--build-id=none -Wl,-z,norelro -Wl,-z,max-page-size=4096"])
        .arg("-o")
        .arg(Path::new(&directory).join("module.so"))
        .status()
        .expect("the compiler can be run");
    assert!(status.success(), "the module does not compile");
}
