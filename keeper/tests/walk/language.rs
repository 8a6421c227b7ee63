//! Language tables: hand-made ones, those of GCC's output, and those of this very binary.

use std::arch::global_asm;
use std::hint::black_box;
use std::panic::{AssertUnwindSafe, catch_unwind};

use keeper::unwind::{
    Action, CallSite, EhFrameRules, FrameAddress, Landing, LoadedSection, Lsda, LsdaError, PadKind,
    TypeInfo, Walk,
};

use crate::image;
use crate::synthetic::{EH_FRAME, FUNCTION_SIZE, Image, LEAF, function};
use crate::task::{StoppedTask, Switch, stop_task};

/// Where the hand-made tables are, and their function.
const TABLE: u64 = 0xffff_ffff_8020_0000;
const FUNCTION: u64 = 0xffff_ffff_8010_0000;

fn section(bytes: &[u8]) -> LoadedSection<'_> {
    LoadedSection { bytes, address: TABLE }
}

fn parse(bytes: &[u8]) -> Lsda<'_> {
    Lsda::parse(section(bytes), TABLE, FUNCTION).unwrap()
}

/// A table without types, whose call sites are written with `encoding`.
fn table(encoding: u8, call_sites: &[u8], rest: &[u8]) -> Vec<u8> {
    [&[0xff, 0xff, encoding, call_sites.len() as u8], call_sites, rest].concat()
}

fn sites(bytes: &[u8]) -> Vec<(u64, u64, Option<u64>)> {
    let site = |site: Result<CallSite, LsdaError>| {
        let CallSite { start, end, landing_pad, .. } = site.unwrap();
        (start - FUNCTION, end - FUNCTION, landing_pad.map(|pad| pad - FUNCTION))
    };
    parse(bytes).call_sites().map(site).collect()
}

fn actions(bytes: &[u8], address: u64) -> Result<Vec<Action>, LsdaError> {
    let lsda = parse(bytes);
    lsda.actions(&lsda.find(FUNCTION + address)?.unwrap()).collect()
}

#[test]
fn call_sites_are_read_in_every_encoding() {
    let expected = [(0x10, 0x14, Some(0x80)), (0x14, 0x20, None)];
    let uleb = table(0x01, &[0x10, 4, 0x80, 1, 0, 0x14, 12, 0, 0], &[]);
    assert_eq!(sites(&uleb), expected);
    let fixed = |encoding: u8, size: usize| {
        let mut call_sites = vec![];
        for site in [[0x10u64, 4, 0x80], [0x14, 12, 0]] {
            for field in site {
                call_sites.extend(&field.to_le_bytes()[..size]);
            }
            call_sites.push(0);
        }
        sites(&table(encoding, &call_sites, &[]))
    };
    for (encoding, size) in
        [(0x00, 8), (0x02, 2), (0x03, 4), (0x04, 8), (0x0a, 2), (0x0b, 4), (0x0c, 8)]
    {
        assert_eq!(fixed(encoding, size), expected, "encoding {encoding:#x}");
    }
    let sleb = table(0x09, &[0x10, 4, 0x80, 1, 0, 0x14, 12, 0, 0], &[]);
    assert_eq!(sites(&sleb), expected);
}

#[test]
fn landing_pads_are_relative_to_what_the_table_says() {
    let pad = |head: &[u8]| {
        let bytes = [head, &[0xff, 1, 4, 0x10, 4, 0x08, 0]].concat();
        parse(&bytes).find(FUNCTION + 0x10).unwrap().unwrap().landing_pad
    };
    assert_eq!(pad(&[0xff]), Some(FUNCTION + 8));
    let absolute = [&[0x00][..], &0xffff_ffff_8030_0000u64.to_le_bytes()].concat();
    assert_eq!(pad(&absolute), Some(0xffff_ffff_8030_0008));
    let relative = [&[0x1b][..], &(-0x1000i32).to_le_bytes()].concat();
    assert_eq!(pad(&relative), Some(TABLE + 1 - 0x1000 + 8));
}

#[test]
fn an_address_is_found_in_its_site_and_in_no_other() {
    let bytes = table(0x01, &[0x10, 4, 0x40, 0, 0x20, 4, 0, 0], &[]);
    let lsda = parse(&bytes);
    let found = |address| lsda.find(FUNCTION + address).unwrap().map(|s| s.start - FUNCTION);
    for (address, expected) in [
        (0, None),
        (0xf, None),
        (0x10, Some(0x10)),
        (0x13, Some(0x10)),
        (0x14, None),
        (0x1f, None),
        (0x20, Some(0x20)),
        (0x23, Some(0x20)),
        (0x24, None),
    ] {
        assert_eq!(found(address), expected, "{address:#x}");
    }
}

#[test]
fn actions_are_followed_to_the_end_of_their_chain() {
    // The second record leads to the first: type 1, then a cleanup.
    let bytes = table(0x01, &[0, 4, 0x40, 1, 4, 4, 0x40, 0, 8, 4, 0, 0], &[0, 0]);
    assert_eq!(actions(&bytes, 0), Ok(vec![Action::Cleanup]));
    assert_eq!(actions(&bytes, 4), Ok(vec![Action::Cleanup]));
    assert_eq!(actions(&bytes, 8), Ok(vec![]), "no landing pad, no action");

    let types = [0x2000u32.to_le_bytes(), 0x1000u32.to_le_bytes(), 0u32.to_le_bytes()].concat();
    let call_sites = [0, 4, 0x40, 1, 4, 4, 0x40, 3, 8, 4, 0x40, 5, 12, 4, 0x40, 7];
    // Types 1, 2 and 3; the second record leads to the first. The filters' lists are after them.
    let records = [1, 0, 2, 0x7d, 0x7f, 0, 0x7e, 0];
    let tail = [&[1, call_sites.len() as u8], &call_sites[..], &records, &types].concat();
    let bytes = [&[0xff, 0x03, tail.len() as u8], &tail[..], &[0, 3, 0]].concat();
    assert_eq!(actions(&bytes, 0), Ok(vec![Action::Catch(TypeInfo::Any)]));
    assert_eq!(
        actions(&bytes, 4),
        Ok(vec![Action::Catch(TypeInfo::Direct(0x1000)), Action::Catch(TypeInfo::Any)])
    );
    assert_eq!(actions(&bytes, 8), Ok(vec![Action::Filter { empty: true }]));
    assert_eq!(actions(&bytes, 12), Ok(vec![Action::Filter { empty: false }]));
}

#[test]
fn what_is_wrong_with_a_table_is_said() {
    let error = |bytes: &[u8]| Lsda::parse(section(bytes), TABLE, FUNCTION).map(drop).unwrap_err();
    assert_eq!(error(&[]), LsdaError::OutsideSection(TABLE));
    assert_eq!(error(&[0xff, 0xff, 1]), LsdaError::Truncated);
    assert_eq!(error(&[0xff, 0xff, 1, 4, 0]), LsdaError::Truncated);
    assert_eq!(error(&[0x20, 0, 0]), LsdaError::UnsupportedEncoding(0x20));
    assert_eq!(error(&[0x9b, 0, 0, 0, 0]), LsdaError::UnsupportedEncoding(0x9b));
    assert_eq!(
        error(&[[0xff; 2].as_slice(), &[1], &[0xff; 9], &[2]].concat()),
        LsdaError::TooLarge
    );
    for address in [TABLE - 1, TABLE + 4, 0, u64::MAX] {
        let outside = Lsda::parse(section(&[0xff, 0xff, 1, 0]), address, FUNCTION).map(drop);
        assert_eq!(outside, Err(LsdaError::OutsideSection(address)));
    }

    let sites = |bytes: &[u8]| parse(bytes).call_sites().map(|s| s.err()).collect::<Vec<_>>();
    let unknown = table(0x05, &[0, 0, 0, 0], &[]);
    assert_eq!(sites(&unknown), [Some(LsdaError::UnsupportedEncoding(0x05))]);
    let cut = table(0x01, &[0, 4, 0, 0, 4, 4], &[]);
    assert_eq!(sites(&cut), [None, Some(LsdaError::Truncated)]);

    let ring = table(0x01, &[0, 4, 0x40, 1], &[0, 0x7f]);
    assert_eq!(actions(&ring, 0), Err(LsdaError::EndlessActions));
    let no_types = table(0x01, &[0, 4, 0x40, 1], &[1, 0]);
    assert_eq!(actions(&no_types, 0), Err(LsdaError::NoTypes));
    let far = table(0x01, &[0, 4, 0x40, 0x40], &[1, 0]);
    assert!(matches!(actions(&far, 0), Err(LsdaError::OutsideSection(_))));
}

// `int catches(int n)` and `void never_throws(int n) noexcept` with a guard each, as g++ 12 -O1
// compiles them; what they call is of no matter, and they are never run.
global_asm!(
    ".pushsection .text.language,\"ax\",@progbits",
    ".global language_catches",
    ".global language_call_in_try",
    ".global language_catch_pad",
    ".global language_call_in_catch",
    ".global language_cleanup_pad",
    ".global language_destructor",
    ".global language_resume",
    ".global language_never_throws",
    ".global language_no_table",
    "language_catches:",
    ".cfi_startproc",
    ".cfi_lsda 0x1b, language_lsda0",
    "push rbx",
    ".cfi_def_cfa_offset 16",
    ".cfi_offset rbx, -16",
    "sub rsp, 16",
    ".cfi_def_cfa_offset 32",
    "mov ebx, edi",
    "language_call_in_try:",
    "call language_catches",
    "language_ehe0:",
    "jmp 4f",
    "language_catch_pad:",
    "mov rdi, rax",
    "cmp rdx, 1",
    "jne 3f",
    "call language_catches",
    "4:",
    "lea rdi, [rsp + 15]",
    "language_destructor:",
    "call language_catches",
    "add rsp, 16",
    ".cfi_remember_state",
    ".cfi_def_cfa_offset 16",
    "pop rbx",
    ".cfi_def_cfa_offset 8",
    "ret",
    "3:",
    ".cfi_restore_state",
    "call language_catches",
    "language_call_in_catch:",
    "call language_catches",
    "language_ehe1:",
    "jmp 4b",
    "language_cleanup_pad:",
    "mov rbx, rax",
    "language_resume:",
    "call language_catches",
    "language_ehe2:",
    ".cfi_endproc",
    "language_never_throws:",
    ".cfi_startproc",
    ".cfi_lsda 0x1b, language_lsda1",
    "call language_catches",
    "ret",
    ".cfi_endproc",
    "language_no_table:",
    ".cfi_startproc",
    "call language_catches",
    "ret",
    ".cfi_endproc",
    ".popsection",
    ".pushsection .data.rel.ro.language,\"aw\",@progbits",
    ".global language_type_reference",
    "language_type_reference: .quad language_catches",
    ".popsection",
    ".pushsection .gcc_except_table,\"a\",@progbits",
    ".p2align 2",
    "language_lsda0:",
    ".byte 0xff, 0x9b",
    ".uleb128 language_types0 - language_types_distance0",
    "language_types_distance0:",
    ".byte 0x01",
    ".uleb128 language_sites_end0 - language_sites0",
    "language_sites0:",
    ".uleb128 language_call_in_try - language_catches",
    ".uleb128 language_ehe0 - language_call_in_try",
    ".uleb128 language_catch_pad - language_catches",
    ".uleb128 3",
    ".uleb128 language_call_in_catch - language_catches",
    ".uleb128 language_ehe1 - language_call_in_catch",
    ".uleb128 language_cleanup_pad - language_catches",
    ".uleb128 0",
    ".uleb128 language_resume - language_catches",
    ".uleb128 language_ehe2 - language_resume",
    ".uleb128 0",
    ".uleb128 0",
    "language_sites_end0:",
    ".byte 2, 0, 1, 0x7d",
    ".p2align 2",
    ".long 0",
    ".long language_type_reference - .",
    "language_types0:",
    ".p2align 2",
    "language_lsda1:",
    ".byte 0xff, 0xff, 0x01, 0x00",
    ".popsection",
);

macro_rules! labels {
    ($($name:ident)*) => {
        mod label {
            unsafe extern "C" { $(pub(super) safe static $name: u8;)* }
        }
        $(
            fn $name() -> u64 {
                (&raw const label::$name).addr() as u64
            }
        )*
    };
}

labels! {
    language_catches language_call_in_try language_catch_pad language_call_in_catch
    language_cleanup_pad language_destructor language_resume language_never_throws
    language_no_table language_type_reference
}

fn at(address: u64) -> Landing {
    image::tables().landing(FrameAddress::InstructionPointer(address))
}

#[test]
fn gccs_tables_say_what_gcc_meant() {
    let pad = |address, kind| Landing::Pad { address, kind };
    assert_eq!(at(language_catches()), Landing::NoCallSite);
    assert_eq!(at(language_call_in_try()), pad(language_catch_pad(), PadKind::Catch));
    assert_eq!(at(language_catch_pad()), Landing::NoCallSite);
    assert_eq!(at(language_destructor()), Landing::NoCallSite, "a destructor does not throw");
    assert_eq!(at(language_call_in_catch()), pad(language_cleanup_pad(), PadKind::Cleanup));
    assert_eq!(at(language_resume()), Landing::NoPad);
    assert_eq!(at(language_never_throws()), Landing::NoCallSite);
    assert_eq!(at(language_no_table()), Landing::NoTable);
    assert_eq!(at(0), Landing::Unknown);
    let image = Image::new(&[LEAF]);
    let unknown = image.tables().landing(FrameAddress::InstructionPointer(function(0)));
    assert_eq!(unknown, Landing::Unknown, "the image's language tables are not known");
}

#[test]
fn a_return_address_belongs_to_the_call_before_it() {
    // The call in the `try` is the last instruction of its site.
    let after = language_call_in_try() + 5;
    assert_eq!(at(after), Landing::NoCallSite);
    assert_eq!(
        image::tables().landing(FrameAddress::ReturnAddress(after)),
        Landing::Pad { address: language_catch_pad(), kind: PadKind::Catch }
    );
}

#[test]
fn a_try_with_two_catches_has_both_in_their_order() {
    let lsda = image::tables().lsda(language_catches()).unwrap().unwrap().unwrap();
    let site = lsda.find(language_call_in_try()).unwrap().unwrap();
    let actions: Result<Vec<_>, _> = lsda.actions(&site).collect();
    assert_eq!(
        actions,
        Ok(vec![
            Action::Catch(TypeInfo::Indirect(language_type_reference())),
            Action::Catch(TypeInfo::Any)
        ])
    );
}

/// An image in the higher half of one function, whose entry has a relative pointer to its table.
fn image_with(table: Option<u64>) -> Image {
    let mut image = Image::new(&[LEAF]);
    // The CIE: version 1, "zLR", both pointers relative and of 32 bits, as `LEAF` otherwise.
    let cie = b"\0\0\0\0\x01zLR\0\x01\x78\x10\x02\x1b\x1b\x0c\x07\x08\x90\x01";
    let fde = EH_FRAME + 4 + cie.len() as u64;
    let distance = |to: u64, from: u64| (to.wrapping_sub(from) as i32).to_le_bytes();
    let table = table.map_or([0; 4], |table| distance(table, fde + 17));
    image.eh_frame = [
        &(cie.len() as u32).to_le_bytes()[..],
        cie,
        &20u32.to_le_bytes(),
        &(4 + 4 + cie.len() as u32).to_le_bytes(),
        &distance(function(0), fde + 8),
        &(FUNCTION_SIZE as u32).to_le_bytes(),
        &[4],
        &table,
        &[0; 7],
    ]
    .concat();
    image
}

#[test]
fn a_relative_pointer_leads_to_the_table_and_a_null_one_to_none() {
    let bytes = table(0x01, &[0, 4, 0x40, 0], &[]);
    let landing = |table| {
        let image = image_with(table);
        let tables = image.tables().with_language_tables(section(&bytes));
        tables.landing(FrameAddress::InstructionPointer(function(0)))
    };
    assert_eq!(landing(None), Landing::NoTable);
    let pad = Landing::Pad { address: function(0) + 0x40, kind: PadKind::Cleanup };
    assert_eq!(landing(Some(TABLE)), pad);
    let astray = landing(Some(TABLE + 0x1000));
    assert_eq!(astray, Landing::Unreadable(LsdaError::OutsideSection(TABLE + 0x1000)));
}

/// Something to drop.
struct Owned(u64);

impl Drop for Owned {
    fn drop(&mut self) {
        black_box(self.0);
    }
}

#[inline(never)]
fn stops(switch: *mut Switch) {
    if black_box(true) {
        // SAFETY: all functions here run in the task that `StoppedTask::run` gave this switch to.
        unsafe { stop_task(switch) }
    }
    // Without this an optimiser sees that nothing here unwinds, and makes no landing pads.
    assert!(black_box(true), "it may unwind");
}

#[inline(never)]
fn owns_something(switch: *mut Switch) -> u64 {
    let owned = Owned(black_box(1));
    stops(switch);
    owned.0
}

#[inline(never)]
fn owns_nothing(switch: *mut Switch) -> u64 {
    owns_something(switch).wrapping_add(black_box(2))
}

#[inline(never)]
fn has_dropped_it(switch: *mut Switch) -> u64 {
    drop(Owned(black_box(1)));
    owns_nothing(switch).wrapping_mul(black_box(3))
}

#[inline(never)]
fn catches(switch: *mut Switch) -> u64 {
    catch_unwind(AssertUnwindSafe(|| has_dropped_it(switch))).unwrap_or(black_box(4))
}

extern "C" fn entry(switch: *mut Switch) -> ! {
    black_box(catches(switch));
    unreachable!("the task stops at the bottom");
}

#[test]
fn frames_of_rust_functions_have_the_pads_that_their_source_asks_for() {
    let mut task = StoppedTask::run(entry);
    let frozen = task.frozen();
    let tables = image::tables();
    let mut rules = EhFrameRules::new(tables);
    let frames: Vec<_> = Walk::new(frozen.registers(), &frozen, &mut rules)
        .map(|frame| (frame.function.unwrap(), tables.landing(frame.address)))
        .collect();
    let landing_in = |function: u64| {
        let found = frames.iter().find(|(start, _)| *start == function);
        found.unwrap_or_else(|| panic!("{function:#x} is not in {frames:#x?}")).1
    };
    let pad_in = |function: fn(*mut Switch) -> u64| match landing_in(function as usize as u64) {
        Landing::Pad { address, kind } => {
            assert!(tables.lsda(address).is_some(), "the pad is code of a function");
            Some(kind)
        }
        _ => None,
    };
    assert_eq!(pad_in(owns_something), Some(PadKind::Cleanup));
    assert_eq!(pad_in(owns_nothing), None);
    assert_eq!(pad_in(has_dropped_it), None, "it is gone at this call");
    // The intrinsic behind `catch_unwind` is inlined here or in a function of std.
    let catching = frames
        .iter()
        .filter(|(_, landing)| matches!(landing, Landing::Pad { kind: PadKind::Catch, .. }));
    assert_eq!(catching.count(), 1, "{frames:#x?}");
}
