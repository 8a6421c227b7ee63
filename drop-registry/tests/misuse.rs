//! What the types refuse: each file in `misuse/` is a mistake, and must not compile.

#[test]
fn misuse_does_not_compile() {
    trybuild::TestCases::new().compile_fail("tests/misuse/*.rs");
}
