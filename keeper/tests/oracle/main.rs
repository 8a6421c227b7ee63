//! Compiled tables of real images against gimli, at every address of their text.

mod image;
mod oracle;

use image::Image;
use oracle::{Addresses, compare};

/// What there is to compare in `image`, and that all of it is equal.
fn check(image: &Image, addresses: Addresses) {
    let tables = image.tables();
    let size = tables.compiled_size().unwrap();
    let mut memory = keeper::unwind::CompiledMemory::new(&size);
    let compiled = tables.compile(&mut memory).unwrap();
    let compared =
        compare(&image.eh_frame, image.eh_frame_address, image.text.clone(), compiled, addresses);
    println!("oracle image={} {compared} ({size})", image.name);
    assert_eq!(compared.different, 0);
    if addresses == Addresses::All {
        assert_eq!(compared.addresses, image.text.end - image.text.start);
    }
    assert!(compared.rows > size.functions as u64, "{compared}");
    assert!(compared.left_to_eh_frame * 100 < compared.addresses, "{compared}");
}

#[test]
fn every_address_of_this_binary_has_the_rules_that_gimli_gives() {
    check(&Image::open(&std::env::current_exe().unwrap()), Addresses::All);
}

#[test]
fn every_address_of_the_c_library_has_the_rules_that_gimli_gives() {
    check(&Image::open(&image::mapped("libc.so.6")), Addresses::All);
}

#[test]
fn every_row_of_cargo_has_the_rules_that_gimli_gives() {
    check(&Image::open(&image::cargo()), Addresses::EndsOfRows);
}

#[test]
#[cfg_attr(debug_assertions, ignore = "86 million addresses: with --release, in seconds")]
fn every_address_of_cargo_and_of_the_compiler_has_the_rules_that_gimli_gives() {
    for path in [image::cargo(), image::compiler()] {
        check(&Image::open(&path), Addresses::All);
    }
}
