//! Compiles the C code that is stepped through, twice.

#[cfg(not(feature = "hosted"))]
fn main() {}

#[cfg(feature = "hosted")]
fn main() {
    let source = "src/bodies/c_code.c";
    println!("cargo::rerun-if-changed={source}");
    for (name, level) in [("c_code_optimised", 2), ("c_code_unoptimised", 0)] {
        cc::Build::new().file(source).opt_level(level).define("C_CODE", name).compile(name);
    }
}
