//! Functions whose counts are known, and files that are refused.

use std::any::Any;
use std::env;
use std::fs;
use std::hint::black_box;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::*;

const TEXT: u64 = 0x1000;
const EH_FRAME: u64 = 0x2000;
const LANGUAGE_TABLES: u64 = 0x3000;

/// Two functions: one with a table at 0x1000, one without at 0x1020.
const CODE: [u8; 0x22] = [
    0x53, // push rbx
    0x8b, 0x07, // mov eax, [rdi]: can fault
    0x48, 0x8b, 0x3e, // mov rdi, [rsi]: can fault, covered
    0xe8, 0, 0, 0, 0, // call: covered
    0xf7, 0xf1, // div ecx: can fault
    0x5b, // pop rbx
    0xc3, // ret
    0x90, // nop
    0x8d, 0x47, 0x04, // lea eax, [rdi + 4]
    0xe8, 0, 0, 0, 0, // call, in a site without a landing pad
    0x0f, 0x0b, // ud2: can fault
    0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, // padding, in no function
    0x90, 0xc3, // the second function: nop, ret
];

/// Offsets and sizes from the function's start; landing pads; actions.
const CALL_SITES: [u8; 8] = [3, 8, 0x10, 0, 0x13, 5, 0, 0];

fn append_entry(eh_frame: &mut Vec<u8>, mut body: Vec<u8>) {
    body.resize(body.len().next_multiple_of(4), 0);
    eh_frame.extend((body.len() as u32).to_le_bytes());
    eh_frame.extend(body);
}

/// `.eh_frame` of these functions: address, size, and the address of the table if there is one.
fn eh_frame(functions: &[(u64, u32, Option<u64>)]) -> Vec<u8> {
    let mut section = vec![];
    for &(address, size, table) in functions {
        let cie = section.len() as u32;
        // Version 1; addresses are absolute and have 32 bits, the table's too.
        let mut body = vec![0, 0, 0, 0, 1];
        body.extend(if table.is_some() { &b"zLR\0"[..] } else { b"zR\0" });
        body.extend([1, 0x78, 16]);
        body.extend(if table.is_some() { &[2, 0x03, 0x03][..] } else { &[1, 0x03] });
        body.extend([0x0c, 7, 8, 0x90, 1]);
        append_entry(&mut section, body);
        let fde = section.len() as u32;
        let mut body = (fde + 4 - cie).to_le_bytes().to_vec();
        body.extend((address as u32).to_le_bytes());
        body.extend(size.to_le_bytes());
        match table {
            Some(table) => {
                body.push(4);
                body.extend((table as u32).to_le_bytes());
            }
            None => body.push(0),
        }
        append_entry(&mut section, body);
    }
    section.extend([0; 4]);
    section
}

/// A linked ELF file of these sections: name, type, flags, address, contents.
fn elf(sections: &[(&str, u32, u64, u64, &[u8])]) -> Vec<u8> {
    let mut names = b"\0.shstrtab\0".to_vec();
    let mut file = vec![0; 64];
    let mut headers = vec![[0; 64]];
    let mut header = |name: u32, kind: u32, flags: u64, address: u64, offset: u64, size: u64| {
        let mut header = [0; 64];
        header[..4].copy_from_slice(&name.to_le_bytes());
        header[4..8].copy_from_slice(&kind.to_le_bytes());
        for (n, field) in [flags, address, offset, size].into_iter().enumerate() {
            header[8 + 8 * n..][..8].copy_from_slice(&field.to_le_bytes());
        }
        headers.push(header);
    };
    for &(name, kind, flags, address, contents) in sections {
        let offset = file.len() as u64;
        header(names.len() as u32, kind, flags, address, offset, contents.len() as u64);
        names.extend(name.as_bytes());
        names.push(0);
        file.extend(contents);
    }
    header(1, 3, 0, 0, file.len() as u64, names.len() as u64);
    file.extend(names);
    let table = file.len() as u64;
    let count = headers.len() as u16;
    file.extend(headers.concat());

    // ELF64, little-endian, version 1; an executable for x86-64 (System V gABI, chapter 4).
    file[..7].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1, 1]);
    file[16..24].copy_from_slice(&[2, 0, 62, 0, 1, 0, 0, 0]);
    file[40..48].copy_from_slice(&table.to_le_bytes());
    file[52..54].copy_from_slice(&64u16.to_le_bytes());
    file[58..60].copy_from_slice(&64u16.to_le_bytes());
    file[60..62].copy_from_slice(&count.to_le_bytes());
    file[62..64].copy_from_slice(&(count - 1).to_le_bytes());
    file
}

const ALLOCATED: u64 = 2;
const EXECUTABLE: u64 = 6;

fn known_with(call_sites: &[u8]) -> Vec<u8> {
    let eh_frame = eh_frame(&[(TEXT, 0x1a, Some(LANGUAGE_TABLES)), (TEXT + 0x20, 2, None)]);
    let table = [&[0xff, 0xff, 1, call_sites.len() as u8], call_sites].concat();
    elf(&[
        (".text", 1, EXECUTABLE, TEXT, &CODE),
        (".eh_frame", 1, ALLOCATED, EH_FRAME, &eh_frame),
        (".gcc_except_table", 1, ALLOCATED, LANGUAGE_TABLES, &table),
    ])
}

fn known() -> Vec<u8> {
    known_with(&CALL_SITES)
}

const fn counted(all: u64, covered: u64) -> Counted {
    Counted { all, covered }
}

#[test]
fn a_known_functions_instructions_are_counted() {
    let coverage = Coverage::of(&known()).unwrap();
    let [first, second] = &coverage.details[..] else { panic!("{coverage:?}") };
    let expected =
        Counts { instructions: counted(11, 2), can_fault: counted(4, 1), calls: counted(2, 1) };
    assert_eq!((first.address, first.size, first.landing_pads), (TEXT, 0x1a, 1));
    assert_eq!(first.counts, expected);
    assert_eq!(second.counts, Counts { instructions: counted(2, 0), ..Counts::default() });
    assert_eq!(coverage.functions, counted(2, 1));
    assert_eq!(coverage.total.instructions, counted(13, 2));
    assert_eq!((coverage.bytes_without_entry, coverage.unreadable), (6, 0));
}

#[test]
fn entries_that_overlap_count_their_bytes_once() {
    let eh_frame = eh_frame(&[(TEXT, 0x1a, None), (TEXT + 0x10, 0xa, Some(0))]);
    let coverage = Coverage::of(&elf(&[
        (".text", 1, EXECUTABLE, TEXT, &CODE),
        (".eh_frame", 1, ALLOCATED, EH_FRAME, &eh_frame),
        (".gcc_except_table", 1, ALLOCATED, LANGUAGE_TABLES, &[0xff]),
    ]))
    .unwrap();
    assert_eq!((coverage.bytes_without_entry, coverage.unreadable), (8, 0));
}

#[test]
fn an_unreadable_table_is_counted_and_covers_nothing() {
    let coverage = Coverage::of(&known_with(&CALL_SITES[..7])).unwrap();
    assert_eq!(coverage.unreadable, 1);
    assert_eq!(coverage.total.instructions, counted(13, 0));
    assert!(coverage.details[0].unreadable.is_some());
    assert!(text(&coverage, 1).contains("1 functions have an unreadable language table"));
}

fn refusal(bytes: &[u8]) -> String {
    Coverage::of(bytes).unwrap_err().to_string()
}

#[test]
fn other_files_are_refused_with_the_reason() {
    assert_eq!(refusal(b""), "it is not an ELF file");
    assert_eq!(refusal(b"#!/bin/sh\n"), "it is not an ELF file");
    assert_eq!(refusal(&known()[..40]), "it is damaged");

    let with = |at: usize, byte: u8| {
        let mut bytes = known();
        bytes[at] = byte;
        bytes
    };
    assert_eq!(refusal(&with(18, 183)), "it is for Aarch64; only x86-64 is understood");
    assert_eq!(refusal(&with(16, 1)), "it is not linked yet: its tables mean nothing before that");

    let no_tables = elf(&[(".text", 1, EXECUTABLE, TEXT, &CODE)]);
    assert!(refusal(&no_tables).starts_with("it has no .eh_frame"));
    let astray = eh_frame(&[(0x9000, 4, None)]);
    let astray = elf(&[
        (".text", 1, EXECUTABLE, TEXT, &CODE),
        (".eh_frame", 1, ALLOCATED, EH_FRAME, &astray),
    ]);
    assert!(refusal(&astray).contains("at 0x9000, where there is no code"));
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = Coverage::of_file(Path::new("/no/such/file")).unwrap_err();
    assert_eq!(error.to_string(), "cannot read /no/such/file");
}

#[test]
fn any_damaged_byte_is_refused_or_counted() {
    let whole = known();
    let (mut refused, mut counted) = (0, 0);
    for at in 0..whole.len() {
        for byte in [0, 0x7f, 0xff, whole[at] ^ 1] {
            let mut damaged = whole.clone();
            damaged[at] = byte;
            match Coverage::of(&damaged) {
                Ok(coverage) => {
                    counted += 1;
                    let total = coverage.total;
                    for part in [total.instructions, total.can_fault, total.calls] {
                        assert!(part.covered <= part.all && part.all <= total.instructions.all);
                    }
                }
                Err(_) => refused += 1,
            }
        }
        _ = Coverage::of(&whole[..at]);
    }
    assert!(refused > 100 && counted > 100, "{refused} refused, {counted} counted");
}

struct Owned(u64);

impl Drop for Owned {
    fn drop(&mut self) {
        black_box(self.0);
    }
}

#[inline(never)]
fn coverage_test_owns(call: fn()) -> u64 {
    let owned = Owned(black_box(3));
    black_box(call)();
    owned.0
}

#[inline(never)]
fn coverage_test_owns_nothing(call: fn()) -> u64 {
    black_box(call)();
    black_box(4)
}

#[inline(never)]
fn coverage_test_catches(call: fn()) -> Option<Box<dyn Any + Send>> {
    catch_unwind(AssertUnwindSafe(black_box(call))).err()
}

#[test]
fn this_very_programs_functions_are_counted_by_name() {
    coverage_test_owns(|| {});
    coverage_test_owns_nothing(|| {});
    coverage_test_catches(|| {});
    let coverage = Coverage::of(&fs::read(env::current_exe().unwrap()).unwrap()).unwrap();
    assert_eq!(coverage.unreadable, 0);
    assert!(coverage.functions.all > 1000, "{:?}", coverage.functions);
    let total = coverage.total;
    assert!(total.calls.covered > 100 && total.calls.covered < total.calls.all, "{total:?}");

    let named = |name: &str| {
        let mut found = coverage
            .details
            .iter()
            .filter(|function| function.name.as_ref().is_some_and(|known| known.ends_with(name)));
        let function = found.next().unwrap_or_else(|| panic!("no function {name}"));
        assert!(found.next().is_none(), "two functions {name}");
        function
    };
    let owns = named("::coverage_test_owns");
    assert!(owns.landing_pads > 0 && owns.counts.calls.covered > 0, "{owns:?}");
    assert!(owns.counts.calls.covered < owns.counts.calls.all, "the pad's own calls: {owns:?}");
    let nothing = named("::coverage_test_owns_nothing");
    assert_eq!((nothing.landing_pads, nothing.counts.instructions.covered), (0, 0));
    assert!(nothing.counts.calls.all > 0);
}

#[test]
fn the_text_names_the_functions_that_are_most_out_of_reach() {
    let coverage = Coverage::of(&known()).unwrap();
    let text = text(&coverage, 1);
    let text = console::strip_ansi_codes(&text);
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[2].ends_with("13            2    15.4 %"), "{text}");
    assert!(lines[3].ends_with("4            1    25.0 %"), "{text}");
    assert_eq!(
        lines.last().unwrap().split_whitespace().collect::<Vec<_>>(),
        ["4", "3", "1/2", "0x1000"]
    );
    assert!(lines.iter().all(|line| line.chars().count() <= 100));
}

#[test]
fn json_has_the_totals_and_every_function() {
    let json = serde_json::to_value(Coverage::of(&known()).unwrap()).unwrap();
    assert_eq!(json["functions"], serde_json::json!({ "all": 2, "covered": 1 }));
    assert_eq!(json["can_fault"], serde_json::json!({ "all": 4, "covered": 1 }));
    assert_eq!(json["by_function"][0]["calls"], serde_json::json!({ "all": 2, "covered": 1 }));
    assert_eq!(json["by_function"][1]["address"], TEXT + 0x20);
}

#[test]
fn some_functions_can_be_asked_for() {
    let coverage = Coverage::of(&known()).unwrap().only("no such name");
    assert_eq!((coverage.functions, coverage.details.len()), (counted(0, 0), 0));
}
