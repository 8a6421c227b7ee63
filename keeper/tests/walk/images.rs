//! Several images, which come and go while others walk.

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::{ptr, slice, thread};

use keeper::hosted::library_tables;
use keeper::unwind::{
    AddError, CompiledMemory, EhFrameRules, Frame, FrameOrigin, ImageRules, Images, LoadedSection,
    RemoveError, RuleSource, UnwindTables, Walk, WalkEnd, WalkError,
};

use crate::image;
use crate::synthetic::{
    EH_FRAME, ENTRY, HEADER, Image, LEAF, Stack, TEXT, TEXT_SIZE, function, registers,
};
use crate::task::{StoppedTask, Switch, stop_task};

/// How far a module is above the kernel.
const MODULE: u64 = 0x100_0000;

fn image() -> Image {
    Image::new(&[ENTRY, LEAF, LEAF])
}

/// Where a caller in function `n` goes on.
fn after_call(n: u64) -> u64 {
    function(n) + 0x10
}

/// A stack on which the module was called by the kernel, twice.
fn to_and_fro() -> Stack {
    Stack::new(&[after_call(1), after_call(2) + MODULE, after_call(0), 0])
}

/// The functions of a walk that began in the module.
fn functions_to_and_fro() -> [u64; 4] {
    [function(1) + MODULE, function(1), function(2) + MODULE, function(0)]
}

fn walk(stack: &Stack, rip: u64, rules: &mut impl RuleSource) -> (Vec<Frame>, WalkEnd) {
    let mut walk = Walk::new(&registers(rip, stack.base), stack, rules);
    let frames = (&mut walk).collect();
    (frames, walk.end().unwrap())
}

fn functions(frames: &[Frame]) -> Vec<Option<u64>> {
    frames.iter().map(|frame| frame.function).collect()
}

#[test]
fn a_walk_goes_from_image_to_image_and_back() {
    let image = image();
    let (kernel, module) = (image.tables_at(0), image.tables_at(MODULE));
    let mut memory = CompiledMemory::new(&module.compiled_size().unwrap());
    let compiled = module.compile(&mut memory).unwrap();
    for module in [module, compiled] {
        let images: Images<'_, 2> = Images::new();
        images.add(kernel).unwrap();
        images.add(module).unwrap();
        let (frames, end) =
            walk(&to_and_fro(), after_call(1) + MODULE, &mut ImageRules::new(&images));
        assert_eq!(end, WalkEnd::Complete);
        assert_eq!(functions(&frames), functions_to_and_fro().map(Some));
    }
}

#[test]
fn one_image_among_many_is_as_one_alone() {
    let image = image();
    let images: Images<'_> = Images::new();
    for n in [1, 0, 2] {
        images.add(image.tables_at(n * MODULE)).unwrap();
    }
    let stack = Stack::new(&[after_call(2), after_call(1), after_call(0), 0]);
    let rip = after_call(2);
    let alone = walk(&stack, rip, &mut EhFrameRules::new(image.tables()));
    assert_eq!(alone.1, WalkEnd::Complete);
    assert_eq!(walk(&stack, rip, &mut ImageRules::new(&images)), alone);
}

#[test]
fn without_images_nothing_has_an_unwind_entry() {
    let images: Images<'_> = Images::new();
    let rip = after_call(1);
    let (frames, end) = walk(&to_and_fro(), rip, &mut ImageRules::new(&images));
    assert_eq!((frames.len(), end), (1, WalkEnd::Partial(WalkError::NoFde(rip))));
}

#[test]
fn frames_of_a_removed_image_end_the_walk_with_the_reason() {
    let image = image();
    let images: Images<'_, 2> = Images::new();
    images.add(image.tables_at(0)).unwrap();
    let module = images.add(image.tables_at(MODULE)).unwrap();
    assert!(images.text_contains(TEXT + MODULE));
    images.remove(module).unwrap();
    assert!(!images.text_contains(TEXT + MODULE));
    assert!(images.text_contains(TEXT));

    // Stopped there, or called from there.
    let rip = after_call(1) + MODULE;
    let (frames, end) = walk(&to_and_fro(), rip, &mut ImageRules::new(&images));
    assert_eq!((frames.len(), end), (1, WalkEnd::Partial(WalkError::NoFde(rip))));
    let stack = Stack::new(&to_and_fro().words[1..]);
    let (frames, end) = walk(&stack, after_call(1), &mut ImageRules::new(&images));
    let caller = after_call(2) + MODULE;
    assert_eq!(
        (frames.len(), end),
        (1, WalkEnd::Partial(WalkError::ReturnAddressNotInText(caller)))
    );
}

#[test]
fn an_image_that_a_walk_is_in_is_not_removed_and_no_longer_found() {
    let image = image();
    let images: Images<'_, 2> = Images::new();
    let kernel = images.add(image.tables_at(0)).unwrap();
    let module = images.add(image.tables_at(MODULE)).unwrap();
    let stack = to_and_fro();
    let registers = registers(after_call(1) + MODULE, stack.base);
    let mut rules = ImageRules::new(&images);
    let mut walk = Walk::new(&registers, &stack, &mut rules);

    walk.next().unwrap();
    assert_eq!(images.remove(module), Err(RemoveError::Busy));
    assert_eq!(images.remove(module), Err(RemoveError::Busy));
    assert!(!images.text_contains(TEXT + MODULE));
    // The next frame is in the kernel, and that of its caller is not to be found.
    assert_eq!(walk.next().unwrap().cfa, None);
    assert_eq!(images.remove(module), Ok(()));
    assert_eq!(images.remove(module), Err(RemoveError::NoSuchImage));
    assert_eq!(images.remove(kernel), Err(RemoveError::Busy));
    let caller = after_call(2) + MODULE;
    assert_eq!(walk.end(), Some(WalkEnd::Partial(WalkError::ReturnAddressNotInText(caller))));
    drop(rules);
    assert_eq!(images.remove(kernel), Ok(()));
}

#[test]
fn an_image_can_go_between_the_step_that_names_a_frame_and_the_next() {
    let image = image();
    let images: Images<'_, 2> = Images::new();
    images.add(image.tables_at(0)).unwrap();
    let module = images.add(image.tables_at(MODULE)).unwrap();
    let stack = Stack::new(&to_and_fro().words[1..]);
    let registers = registers(after_call(1), stack.base);
    let mut rules = ImageRules::new(&images);
    let mut walk = Walk::new(&registers, &stack, &mut rules);
    assert!(walk.next().unwrap().cfa.is_some());
    images.remove(module).unwrap();
    assert_eq!(walk.next().unwrap().origin, FrameOrigin::Caller);
    let caller = after_call(2) + MODULE - 1;
    assert_eq!(walk.end(), Some(WalkEnd::Partial(WalkError::NoFde(caller))));
}

#[test]
fn rules_that_have_left_an_image_for_nowhere_know_it_no_more() {
    let image = image();
    let images: Images<'_, 1> = Images::new();
    let module = images.add(image.tables_at(MODULE)).unwrap();
    let mut rules = ImageRules::new(&images);
    assert!(rules.rules_at(TEXT + MODULE).is_ok());
    assert_eq!(rules.rules_at(TEXT), Err(WalkError::NoFde(TEXT)));
    assert_eq!(images.remove(module), Ok(()));
    assert!(!rules.text_contains(TEXT + MODULE));
    assert_eq!(rules.rules_at(TEXT + MODULE), Err(WalkError::NoFde(TEXT + MODULE)));
}

#[test]
fn a_walker_that_dies_in_an_image_keeps_that_one_and_no_other() {
    let image = image();
    let images: Images<'_, 2> = Images::new();
    let kernel = images.add(image.tables_at(0)).unwrap();
    let module = images.add(image.tables_at(MODULE)).unwrap();
    let mut rules = ImageRules::new(&images);
    rules.rules_at(TEXT + MODULE).unwrap();
    std::mem::forget(rules);
    for _ in 0..3 {
        assert_eq!(images.remove(module), Err(RemoveError::Busy));
    }
    // Its place is lost, and its addresses.
    let overlaps = Err(AddError::Overlaps(module));
    assert_eq!(images.remove(kernel), Ok(()));
    assert_eq!(images.add(image.tables_at(MODULE)), overlaps);
    let kernel = images.add(image.tables_at(0)).unwrap();
    assert_eq!(images.add(image.tables_at(2 * MODULE)), Err(AddError::Full));
    let rip = after_call(0);
    let (frames, end) = walk(&to_and_fro(), rip, &mut ImageRules::new(&images));
    assert_eq!((frames.len(), end), (1, WalkEnd::Complete));
    assert_eq!(images.remove(kernel), Ok(()));
}

#[test]
fn images_do_not_overlap_and_may_touch() {
    let image = image();
    let images: Images<'_, 4> = Images::new();
    let middle = images.add(image.tables_at(MODULE)).unwrap();
    for bias in [MODULE - TEXT_SIZE + 1, MODULE, MODULE + TEXT_SIZE - 1] {
        assert_eq!(images.add(image.tables_at(bias)), Err(AddError::Overlaps(middle)));
    }
    for bias in [MODULE - TEXT_SIZE, MODULE + TEXT_SIZE] {
        images.add(image.tables_at(bias)).unwrap();
    }
    let around = TEXT..TEXT + 2 * MODULE;
    let around = UnwindTables::new(image.header_section(), image.eh_frame_section(), around);
    assert_eq!(images.add(around.unwrap()), Err(AddError::Overlaps(middle)));
}

#[test]
fn there_is_room_for_as_many_as_it_says_and_for_another_when_one_has_gone() {
    let image = image();
    let images: Images<'_, 3> = Images::new();
    let [first, second, third] =
        [0, 1, 2].map(|n| images.add(image.tables_at(n * MODULE)).unwrap());
    for _ in 0..3 {
        assert_eq!(images.add(image.tables_at(3 * MODULE)), Err(AddError::Full));
    }
    images.remove(second).unwrap();
    let fourth = images.add(image.tables_at(3 * MODULE)).unwrap();
    // The same place, and not the same image.
    assert_eq!(images.remove(second), Err(RemoveError::NoSuchImage));
    for (n, id) in [(0, first), (2, third), (3, fourth)] {
        assert!(images.text_contains(TEXT + n * MODULE), "{n}");
        images.remove(id).unwrap();
        assert!(!images.text_contains(TEXT + n * MODULE), "{n}");
    }
}

/// A module's sections, in memory that is filled with something else once they are unloaded.
struct Module {
    header: Box<[u8]>,
    eh_frame: Box<[u8]>,
}

impl Module {
    fn load(&mut self, image: &Image) -> UnwindTables<'static> {
        self.header.copy_from_slice(&image.header);
        self.eh_frame.copy_from_slice(&image.eh_frame);
        let section = |bytes: &mut [u8], address| LoadedSection {
            // SAFETY: the test unloads the module when its tables are removed, and not before.
            bytes: unsafe { slice::from_raw_parts(bytes.as_mut_ptr(), bytes.len()) },
            address,
        };
        UnwindTables::new(
            section(&mut self.header, HEADER + MODULE),
            section(&mut self.eh_frame, EH_FRAME + MODULE),
            TEXT + MODULE..TEXT + MODULE + TEXT_SIZE,
        )
        .unwrap()
    }

    fn unload(&mut self) {
        self.header.fill(0xff);
        self.eh_frame.fill(0xff);
    }
}

/// Ends the other threads with this one, even if it fails.
struct SetWhenDropped<'a>(&'a AtomicBool);

impl Drop for SetWhenDropped<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn walks_see_an_image_that_comes_and_goes_whole_or_not_at_all() {
    const ROUNDS: usize = 2_000;
    let image = image();
    let images: Images<'_, 3> = Images::new();
    images.add(image.tables_at(0)).unwrap();
    let (done, whole, cut) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let rip = after_call(1) + MODULE;
    let callers = [after_call(1) + MODULE, after_call(2) + MODULE];
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let _done = SetWhenDropped(&done);
                let stack = to_and_fro();
                while !done.load(Ordering::Relaxed) {
                    let (frames, end) = walk(&stack, rip, &mut ImageRules::new(&images));
                    let known = functions(&frames).into_iter().flatten();
                    assert!(known.eq(functions_to_and_fro().into_iter().take(match end {
                        WalkEnd::Complete => {
                            whole.fetch_add(1, Ordering::Relaxed);
                            4
                        }
                        WalkEnd::Partial(
                            WalkError::NoFde(address) | WalkError::ReturnAddressNotInText(address),
                        ) => {
                            cut.fetch_add(1, Ordering::Relaxed);
                            assert!(callers.contains(&address) || callers.contains(&(address + 1)));
                            frames.iter().filter(|frame| frame.function.is_some()).count()
                        }
                        WalkEnd::Partial(error) => panic!("{error}"),
                    })));
                }
            });
        }
        let mut module =
            Module { header: image.header.clone().into(), eh_frame: image.eh_frame.clone().into() };
        let _done = SetWhenDropped(&done);
        for round in 0.. {
            let seen = whole.load(Ordering::Relaxed).min(cut.load(Ordering::Relaxed));
            if round >= ROUNDS && seen > 100 || done.load(Ordering::Relaxed) {
                break;
            }
            let id = images.add(module.load(&image)).unwrap();
            thread::yield_now();
            while images.remove(id) == Err(RemoveError::Busy) {
                thread::yield_now();
            }
            module.unload();
        }
    });
}

#[test]
fn of_two_images_that_overlap_and_are_added_at_once_one_is_refused() {
    let image = image();
    let images: Images<'_, 2> = Images::new();
    const ROUNDS: u64 = 2_000;
    let (arrived, added) = (AtomicU64::new(0), AtomicU64::new(0));
    let (rounds_with_one, rounds_with_both) = (AtomicU64::new(0), AtomicU64::new(0));
    // Both go on within nanoseconds of one another, if both run.
    let meet = || {
        let both = arrived.fetch_add(1, Ordering::SeqCst) / 2 * 2 + 2;
        for n in 1u64.. {
            if arrived.load(Ordering::SeqCst) >= both {
                break;
            }
            if n.is_multiple_of(10_000) {
                thread::yield_now();
            }
        }
    };
    let add = |bias: u64| {
        for _ in 0..ROUNDS {
            meet();
            let id = images.add(image.tables_at(bias));
            added.fetch_add(u64::from(id.is_ok()), Ordering::SeqCst);
            meet();
            match (id.is_ok(), added.load(Ordering::SeqCst)) {
                (true, 1) => rounds_with_one.fetch_add(1, Ordering::SeqCst),
                (true, 2) => rounds_with_both.fetch_add(1, Ordering::SeqCst),
                _ => 0,
            };
            meet();
            if let Ok(id) = id {
                let _ = images.remove(id);
                added.store(0, Ordering::SeqCst);
            }
        }
    };
    thread::scope(|scope| {
        scope.spawn(|| add(0));
        scope.spawn(|| add(TEXT_SIZE / 2));
    });
    assert_eq!(rounds_with_both.into_inner(), 0);
    assert!(rounds_with_one.into_inner() > 0);
}

extern "C" fn stop_instead_of_comparing(
    _: *const libc::c_void,
    _: *const libc::c_void,
    switch: *mut libc::c_void,
) -> libc::c_int {
    // SAFETY: `qsort_r` passes on what `sort` was given.
    unsafe { stop_task(switch.cast()) }
}

unsafe extern "C" {
    fn qsort_r(
        base: *mut libc::c_void,
        count: usize,
        size: usize,
        compare: extern "C" fn(
            *const libc::c_void,
            *const libc::c_void,
            *mut libc::c_void,
        ) -> libc::c_int,
        argument: *mut libc::c_void,
    );
}

extern "C" fn sort(switch: *mut Switch) -> ! {
    let mut values = black_box([5u64, 3, 9, 1]);
    // SAFETY: four values of eight bytes. The comparison does not return.
    unsafe {
        qsort_r(ptr::from_mut(&mut values).cast(), 4, 8, stop_instead_of_comparing, switch.cast());
    }
    unreachable!("the task stops in the comparison");
}

#[test]
fn a_real_walk_goes_through_libc_once_its_tables_are_added() {
    let mut task = StoppedTask::run(sort);
    let frozen = task.frozen();
    let images: Images<'static> = Images::new();
    images.add(image::tables()).unwrap();
    let walk = || {
        let mut rules = ImageRules::new(&images);
        let mut walk = Walk::new(frozen.registers(), &frozen, &mut rules);
        let frames: Vec<_> = (&mut walk).collect();
        (frames, walk.end().unwrap())
    };
    let (frames_without, end_without) = walk();

    let ids: Vec<_> =
        library_tables().into_iter().map(|library| images.add(library).unwrap()).collect();
    assert!(!ids.is_empty());
    let (frames, end) = walk();
    assert_eq!(end, WalkEnd::Complete);
    let names = functions(&frames);
    assert!(names.contains(&Some(sort as *const () as u64)));
    let in_library = frames[frames_without.len()].address;
    assert!(!image::tables().text_contains(in_library.address()));
    let reason = WalkError::ReturnAddressNotInText(in_library.address());
    assert_eq!(end_without, WalkEnd::Partial(reason));

    for id in ids {
        images.remove(id).unwrap();
    }
    assert_eq!(walk(), (frames_without, end_without));
}
