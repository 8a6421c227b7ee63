//! A task that is asked to end, before any of its instructions: it ends outside of its sections,
//! and soon.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use drop_registry::hosted::{Hosted, Machine, Stop};
use drop_registry::{Mutex, NoKill, safepoint};

const ROUNDS: u64 = 2;

/// Each instruction is looked at in a run of its own, so the time goes with the square of their
/// number: of what is compiled without optimization, a part must do.
const STRIDE: usize = if cfg!(debug_assertions) { 397 } else { 1 };

/// Two registers of a device that belong together.
struct Device {
    registers: [AtomicU64; 2],
    lock: Mutex<u64, Hosted>,
}

impl Device {
    fn new() -> Self {
        Self { registers: [const { AtomicU64::new(0) }; 2], lock: Mutex::new(0) }
    }

    fn read(&self) -> [u64; 2] {
        self.registers.each_ref().map(|register| register.load(Relaxed))
    }

    /// One write to each, in sections that nest and with a safepoint in the middle.
    fn write(&self, value: u64) {
        let _outer = NoKill::<Hosted>::enter().unwrap();
        let mut held = self.lock.lock().unwrap();
        self.registers[0].store(value, Relaxed);
        let inner = NoKill::<Hosted>::enter().unwrap();
        safepoint::<Hosted>();
        drop(inner);
        self.registers[1].store(value, Relaxed);
        *held = value;
    }
}

/// Asks a task to end before its instruction `k`. Returns whether there is such a one.
fn ask_before(k: u64) -> bool {
    let device: &'static Device = Box::leak(Box::new(Device::new()));
    #[expect(unsafe_code, reason = "makes a machine")]
    // SAFETY: the task keeps nothing in thread-locals and allocates nothing, and its device is
    // leaked.
    let mut machine = unsafe { Machine::new() };
    let task = machine.spawn(move || (1..=ROUNDS).for_each(|round| device.write(round)));
    for _ in 0..k {
        match machine.run(task, Some(1)) {
            Stop::BudgetSpent => {}
            Stop::Finished => return false,
            stop => panic!("{stop:?} before it is asked to, at {k}"),
        }
    }
    let [begun, _] = device.read();
    machine.pull_kill_switch(task);
    let stop = machine.run(task, None);
    let [first, second] = device.read();
    // Behind its last safepoint it comes to its end by itself.
    assert!(stop == Stop::Killed || stop == Stop::Finished && begun == ROUNDS, "{stop:?} at {k}");
    assert_eq!(first, second, "it has ended inside of a section, at {k}");
    assert!(first <= begun + 1, "it went on for {} rounds, at {k}", first - begun);
    let settled = if stop == Stop::Killed { machine.kill(task) } else { Vec::new() };
    assert!(settled.is_empty(), "{settled:?} at {k}");
    let next = device.lock.lock();
    assert!(next.is_ok_and(|value| *value == first), "at {k}");
    true
}

#[test]
fn who_is_asked_to_end_ends_outside_of_its_sections() {
    let asked = (0..).step_by(STRIDE).take_while(|k| ask_before(*k)).count();
    assert!(asked > 5 * ROUNDS as usize, "{asked} instructions are not all of them");
}
