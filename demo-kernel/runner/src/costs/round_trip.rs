//! One round trip of a resumed fault, instruction by instruction: whose each is, and when it comes.
//!
//! The kernel measures the whole by its clock, and cannot measure parts without being longer for
//! it. So the same round trip is stepped through from outside, by QEMU's debugger port, from the
//! first instruction of the trap's stub to the one that returns to the task.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, bail, ensure};

use super::Cost;
use super::owner::{Owner, Owners, Place};
use crate::gdb::Gdb;
use crate::qemu::Machine;

/// The most that the library and the stubs may take together, so that nobody makes it longer
/// without knowing.
const MOST: u64 = 500;

/// #UD, which the scenario raises.
const VECTOR: u8 = 6;

/// Which of the scenario's round trips it is: by then, all that is done once has been done.
const NUMBER: usize = 8;

/// What the kernel calls the whole of it.
const WHOLE: &str = "resume-round-trip-whole";

/// What the clock counts besides: the instruction that faults.
const FAULTING: u64 = 1;

/// A round trip that takes longer does not end.
const TOO_LONG: usize = 100_000;

/// The parts, in the order in which the way goes through them.
const PHASES: [&str; 3] =
    ["resume-trap-to-keeper", "resume-keeper-to-verdict", "resume-verdict-to-resumed"];

/// Where the instructions of a round trip went.
#[derive(Debug, Default)]
pub(crate) struct RoundTrip {
    phases: [u64; PHASES.len()],
    functions: HashMap<(Owner, String), u64>,
}

impl RoundTrip {
    /// Steps through one.
    ///
    /// # Errors
    /// If the machine cannot be stepped, or does not do what it should.
    pub(crate) fn step_through(
        machine: &Machine,
        kernel: &Path,
        scenario: &str,
    ) -> anyhow::Result<Self> {
        let owners = Owners::read(kernel)?;
        let directory = tempfile::tempdir().context("no place for a socket")?;
        let socket = directory.path().join("debugger");
        let mut guest = machine.start_stopped(scenario, &socket)?;
        // Nobody reads it, but the guest must be able to write. It does not write much until then.
        let _output = guest.output();
        let mut gdb = Gdb::connect(&socket)?;
        for _ in 0..NUMBER {
            // From where it stands it would not get away.
            gdb.step(false)?;
            ensure!(gdb.run_to(owners.stub_of(VECTOR))?, "the kernel ends before its fault");
        }
        Self::from_here(&mut gdb, &owners)
    }

    /// From the first instruction of the stub to the last one of the stub that returns to the task.
    fn from_here(gdb: &mut Gdb, owners: &Owners) -> anyhow::Result<Self> {
        let mut round_trip = Self::default();
        let mut places: HashMap<u64, Place> = HashMap::new();
        let mut registers = gdb.registers()?;
        // What the CPU has pushed, without an error code (Intel SDM volume 3, figure 7-9).
        let mut interrupted = [0; 8];
        gdb.read(&mut interrupted, registers.rsp() + 24)?;
        let interrupted = u64::from_le_bytes(interrupted);
        let (mut owner, mut phase) = (Owner::Stubs, 0);
        for _ in 0..TOO_LONG {
            let (address, sp) = (registers.rip, registers.rsp());
            let place = match places.get(&address) {
                Some(place) => place.clone(),
                None => places.entry(address).or_insert(owners.place(address)?).clone(),
            };
            // What has no owner of its own belongs to who came before it, which has called it.
            owner = place.owner.unwrap_or(owner);
            round_trip.phases[phase] += 1;
            *round_trip.functions.entry((owner, place.function)).or_default() += 1;

            ensure!(gdb.step(false)?, "the kernel ends before the task goes on");
            registers = gdb.registers()?;
            let next = owners.place(registers.rip)?.owner.unwrap_or(owner);
            match owner {
                // A stub calls the dispatcher, or returns to a task.
                Owner::Stubs if next != Owner::Stubs && registers.rsp() != sp - 8 => {
                    if registers.rsp() == interrupted {
                        ensure!(phase == 2, "the task goes on before there is a verdict");
                        return Ok(round_trip);
                    }
                    ensure!(phase == 0, "another task comes in between");
                    phase = 1;
                }
                Owner::Policy if next != Owner::Policy => phase = 2,
                _ => {}
            }
        }
        bail!("the task does not go on");
    }

    fn of(&self, owners: &[Owner]) -> u64 {
        let counts = self.functions.iter().filter(|((owner, _), _)| owners.contains(owner));
        counts.map(|(_, count)| count).sum()
    }

    /// The library's part and the stubs' together.
    fn library_and_stubs(&self) -> u64 {
        self.of(&[Owner::Library, Owner::Stubs])
    }

    /// Its figures.
    pub(crate) fn costs(&self) -> Vec<Cost> {
        let parts = [
            ("resume-round-trip", self.library_and_stubs()),
            ("resume-round-trip-stubs", self.of(&[Owner::Stubs])),
            ("resume-round-trip-kernel", self.of(&[Owner::Kernel])),
            ("resume-round-trip-policy", self.of(&[Owner::Policy])),
        ];
        let phases = PHASES.into_iter().zip(self.phases);
        parts
            .into_iter()
            .chain(phases)
            .map(|(name, count)| Cost::instructions(name, count))
            .collect()
    }

    /// Sees to it that these figures add up to what the kernel has `measured`.
    ///
    /// # Errors
    /// If they do not.
    pub(crate) fn agrees_with(&self, measured: &[Cost]) -> anyhow::Result<()> {
        let whole = measured.iter().find(|cost| cost.name == WHOLE);
        let whole = whole.context("the kernel has not measured a round trip")?.amount;
        let stepped: u64 = self.functions.values().sum();
        ensure!(
            whole.checked_sub(stepped) == Some(FAULTING),
            "the round trip has {stepped} instructions, and takes {whole} by the clock"
        );
        Ok(())
    }

    /// Sees to it that it is within the bar.
    ///
    /// # Errors
    /// If it is not.
    pub(crate) fn is_short_enough(&self) -> anyhow::Result<()> {
        let taken = self.library_and_stubs();
        ensure!(taken <= MOST, "library and stubs take {taken} instructions, and may take {MOST}");
        Ok(())
    }

    /// How many instructions are in which function, the most first.
    pub(crate) fn functions(&self) -> String {
        let mut functions: Vec<_> = self.functions.iter().collect();
        functions.sort_by_key(|((owner, function), count)| (Reverse(*count), *owner, function));
        let mut text = String::new();
        for ((owner, function), count) in functions {
            // Writing to a `String` cannot fail.
            _ = writeln!(text, "{count:5} {owner:8} {function}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(library: u64) -> RoundTrip {
        let parts = [(Owner::Library, library), (Owner::Stubs, 140), (Owner::Kernel, 400)];
        let functions = parts.map(|(owner, count)| ((owner, "f".to_owned()), count));
        RoundTrip { phases: [library + 540, 0, 0], functions: functions.into() }
    }

    fn measured(whole: u64) -> [Cost; 1] {
        [Cost::instructions(WHOLE, whole)]
    }

    #[test]
    fn the_parts_must_add_up_to_what_the_clock_says() {
        assert!(round_trip(300).agrees_with(&measured(841)).is_ok());
        for whole in [0, 840, 842] {
            assert!(round_trip(300).agrees_with(&measured(whole)).is_err(), "{whole}");
        }
        assert!(round_trip(300).agrees_with(&[]).is_err());
    }

    #[test]
    fn the_bar_is_for_the_library_and_the_stubs() {
        let most = MOST - 140;
        assert!(round_trip(most).is_short_enough().is_ok());
        assert!(round_trip(most + 1).is_short_enough().is_err());
        assert_eq!(
            round_trip(300).costs()[0].to_string(),
            "cost resume-round-trip instructions=440"
        );
    }

    #[test]
    fn functions_are_listed_by_what_they_take() {
        assert_eq!(
            round_trip(300).functions(),
            "  400 kernel   f\n  300 library  f\n  140 stubs    f\n"
        );
    }
}
