//! Real stacks of real code, against what libgcc's unwinder says of them from inside.

use std::ffi::c_void;
use std::fmt;
use std::hint::black_box;

use keeper::unwind::{EhFrameRules, FrameAddress, FrameOrigin, Walk, WalkEnd};
use task_model::{Gpr, StackMemory};

use crate::image;
use crate::task::{StoppedTask, Switch, stop_task};

/// One frame as libgcc sees it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct OracleFrame {
    pub(crate) ip: u64,
    pub(crate) sp: u64,
    /// As in [`CALLEE_SAVED`].
    pub(crate) registers: [u64; 6],
}

const CALLEE_SAVED: [Gpr; 6] = [Gpr::Rbx, Gpr::Rbp, Gpr::R12, Gpr::R13, Gpr::R14, Gpr::R15];
/// The same six by their DWARF numbers.
const CALLEE_SAVED_DWARF: [i32; 6] = [3, 6, 12, 13, 14, 15];

type Context = c_void;

unsafe extern "C" {
    fn _Unwind_Backtrace(
        each: extern "C" fn(*mut Context, *mut c_void) -> i32,
        argument: *mut c_void,
    ) -> i32;
    fn _Unwind_GetIP(context: *mut Context) -> u64;
    fn _Unwind_GetCFA(context: *mut Context) -> u64;
    fn _Unwind_GetGR(context: *mut Context, register: i32) -> u64;
}

extern "C" fn note(context: *mut Context, switch: *mut c_void) -> i32 {
    // SAFETY: libgcc passes on what `bottom` gave it, which nobody else uses meanwhile, and its
    // own context, which is valid during this call.
    unsafe {
        let ip = _Unwind_GetIP(context);
        // libgcc also calls for what is above the entry, with a null address.
        if ip == 0 {
            return 0;
        }
        let switch = &mut *switch.cast::<Switch>();
        switch.notes.push(OracleFrame {
            ip,
            sp: _Unwind_GetCFA(context),
            registers: CALLEE_SAVED_DWARF.map(|register| _Unwind_GetGR(context, register)),
        });
    }
    0
}

#[inline(never)]
fn bottom(switch: *mut Switch) -> u64 {
    // SAFETY: `note` is made for this argument.
    unsafe { _Unwind_Backtrace(note, switch.cast()) };
    // SAFETY: all functions here run in the task that `StoppedTask::run` gave this switch to.
    unsafe { stop_task(switch) }
}

/// Keeps many values live over the call.
#[inline(never)]
fn many_registers(switch: *mut Switch, a: u64, b: u64, c: u64, d: u64, e: u64) -> u64 {
    let (p, q, r) = (black_box(a + b), black_box(b * c), black_box(c ^ d));
    let depth = bottom(switch);
    depth.wrapping_add(p).wrapping_mul(q) ^ r.wrapping_add(a) ^ b ^ c ^ d ^ e
}

/// A frame of more than a page, aligned to more than the stack is.
#[inline(never)]
fn large_and_aligned(switch: *mut Switch) -> u64 {
    #[repr(align(64))]
    struct Buffer([u8; 9000]);
    let mut buffer = Buffer([1; 9000]);
    black_box(&mut buffer);
    many_registers(switch, 1, 2, 3, 4, 5).wrapping_add(buffer.0[black_box(17)].into())
}

struct CallsFromFmt(*mut Switch);

impl fmt::Display for CallsFromFmt {
    #[inline(never)]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", large_and_aligned(self.0))
    }
}

/// Through `core::fmt::write`, which is in the prebuilt core.
#[inline(never)]
fn through_prebuilt_core(switch: *mut Switch) -> u64 {
    black_box(format!("{:>8}|{}", black_box(3), CallsFromFmt(switch)).len() as u64)
}

/// Through a comparison closure of `slice::sort_by`.
#[inline(never)]
fn through_a_closure(switch: *mut Switch) -> u64 {
    let mut values = black_box([5u64, 3, 9, 1]);
    values.sort_by(|a, b| (a ^ through_prebuilt_core(switch)).cmp(b));
    values[0]
}

#[inline(never)]
fn recursion(switch: *mut Switch, n: u64) -> u64 {
    if n == 0 {
        return through_a_closure(switch);
    }
    recursion(switch, black_box(n - 1)).wrapping_mul(n)
}

pub(crate) extern "C" fn entry(switch: *mut Switch) -> ! {
    black_box(recursion(switch, 4));
    unreachable!("the task stops at the bottom");
}

#[test]
fn every_frame_of_a_live_stack_is_what_libgcc_says() {
    let mut task = StoppedTask::run(entry);
    let frozen = task.frozen();
    let [ours, compiled] = image::both().map(|tables| {
        let mut rules = EhFrameRules::new(tables);
        let mut walk = Walk::new(frozen.registers(), &frozen, &mut rules);
        let mut frames = Vec::new();
        while let Some(frame) = walk.next() {
            frames.push((frame, *walk.registers()));
        }
        assert_eq!(walk.end(), Some(WalkEnd::Complete));
        frames
    });
    assert_eq!(ours, compiled);
    let theirs = task.notes();

    // Ours begins in `stop_task`, which theirs has not seen; `bottom` called both, so that its own
    // address and registers differ. From its caller on, all has to be equal.
    assert!(theirs.len() > 10, "{theirs:#x?}");
    assert_eq!(ours.len() - 1, theirs.len());
    assert_eq!(ours[0].0.origin, FrameOrigin::Stopped);
    assert_eq!(ours[1].0.sp, theirs[0].sp);
    for ((frame, registers), oracle) in ours[2..].iter().zip(&theirs[1..]) {
        assert_eq!(frame.address, FrameAddress::ReturnAddress(oracle.ip));
        assert_eq!(frame.origin, FrameOrigin::Caller);
        assert_eq!(frame.sp, oracle.sp);
        let values = CALLEE_SAVED.map(|gpr| registers.get(gpr));
        assert_eq!(values, oracle.registers.map(Some), "at {:#x}", oracle.ip);
        assert_eq!(registers.get(Gpr::Rax), None, "a callee may have changed it");
    }
}

#[test]
fn frames_meet_without_gap_or_overlap() {
    let mut task = StoppedTask::run(entry);
    let frozen = task.frozen();
    let mut rules = EhFrameRules::new(image::compiled());
    let frames: Vec<_> = Walk::new(frozen.registers(), &frozen, &mut rules).collect();
    for pair in frames.windows(2) {
        assert_eq!(pair[0].cfa, Some(pair[1].sp));
    }
    assert_eq!(frames.last().unwrap().cfa, Some(frozen.bounds().top()));
}

#[test]
fn each_frame_names_the_function_it_is_in() {
    let mut task = StoppedTask::run(entry);
    let frozen = task.frozen();
    let mut rules = EhFrameRules::new(image::tables());
    let functions: Vec<_> =
        Walk::new(frozen.registers(), &frozen, &mut rules).map(|f| f.function.unwrap()).collect();
    assert_eq!(functions[0], frozen.registers().rip);
    for function in [
        bottom as *const () as u64,
        many_registers as *const () as u64,
        large_and_aligned as *const () as u64,
        through_prebuilt_core as *const () as u64,
        through_a_closure as *const () as u64,
        entry as *const () as u64,
    ] {
        assert!(functions.contains(&function), "{function:#x} not in {functions:#x?}");
    }
}
