//! The windows: where a task can stop between a locked instruction and its entry.
//!
//! A window is a stretch of assembly that begins with the one instruction that changes the
//! resource and ends when the ledger agrees. For each inlined copy of each window the assembly
//! puts a record into the section `drop_windows`:
//!
//! ```text
//!            lock cmpxchg [word], new     RIP here: nothing has happened
//!  commit:   jne  contended               RIP here: it has happened if ZF says so
//!  decided:  mov  [entry.operations], …   RIP here: it has happened; the entry is incomplete
//!            mov  [entry.frame], …
//!            mov  [entry.resource], …
//!  end:                                   RIP here: the ledger is right by itself
//! ```
//!
//! The record also says in which registers the resource, the operations and the entry are, so
//! that a task frozen between `commit` and `end` needs nothing but its saved registers to be
//! understood. The windows themselves are in `arch`.
#![expect(unsafe_code, reason = "reads a table between linker symbols")]

use core::fmt;
use core::slice;

use task_model::{Gpr, RegisterFile};

use crate::arch::WindowKind;

/// A window's record, as the assembly writes it: 20 bytes, the addresses relative to the field
/// that holds them.
#[repr(C)]
pub(crate) struct WindowRecord {
    commit: i32,
    decided: i32,
    end: i32,
    kind: u8,
    registers: [u8; 4],
    padding: [u8; 3],
}

const _: () = assert!(size_of::<WindowRecord>() == 20 && align_of::<WindowRecord>() == 4);

impl WindowRecord {
    fn commit(&self) -> u64 {
        relative(&self.commit)
    }

    fn decided(&self) -> u64 {
        relative(&self.decided)
    }

    fn end(&self) -> u64 {
        relative(&self.end)
    }

    /// Whether a task that stopped at `rip` had begun the window and not finished it.
    fn contains(&self, rip: u64) -> bool {
        if planted!(WindowEarly) && (self.commit() - 8..self.commit()).contains(&rip) {
            return true;
        }
        if planted!(WindowShort) && rip + 8 >= self.end() {
            return false;
        }
        if planted!(WindowLong) && rip == self.end() {
            return true;
        }
        (self.commit()..self.end()).contains(&rip)
    }

    /// The value that the window's register number `n` had.
    fn value(&self, n: usize, registers: &RegisterFile) -> Option<u64> {
        let number = self.registers[n];
        let number = if planted!(WrongRegister) && n == 0 { number ^ 1 } else { number };
        Gpr::from_encoding(number).map(|register| registers[register])
    }

    /// What a task that stopped in this window at `registers` left undone.
    fn pending(&self, registers: &RegisterFile) -> Option<Pending> {
        // Before `decided` the flags are those of the locked instruction.
        let undecided = registers.rip < self.decided();
        let last = undecided && registers.zero_flag() || planted!(OrdinaryIsLast);
        let last = last && !planted!(LastIsOrdinary);
        let zero = registers.zero_flag() || planted!(ZeroFlagIgnored);
        let first = self.value(0, registers)?;
        match WindowKind::from_u8(self.kind)? {
            WindowKind::Record if planted!(RecordOutsideWindow) => None,
            WindowKind::Erase if planted!(EraseOutsideWindow) => None,
            WindowKind::Record if undecided && !zero => None,
            WindowKind::Record => Some(Pending::Record {
                resource: first,
                operations: self.value(1, registers)?,
                entry: self.value(2, registers)?,
                frame: self.value(3, registers)?,
            }),
            WindowKind::Erase if undecided && !zero => None,
            WindowKind::Erase => Some(Pending::Erase { entry: first }),
            WindowKind::EraseOrConvert if !last => Some(Pending::Erase { entry: first }),
            WindowKind::Convert if undecided && !zero => None,
            WindowKind::EraseOrConvert | WindowKind::Convert => {
                Some(Pending::Convert { entry: first, operations: self.value(1, registers)? })
            }
        }
    }
}

fn relative(field: &i32) -> u64 {
    (core::ptr::from_ref(field).addr() as u64).wrapping_add_signed(i64::from(*field))
}

/// What the ledger lacks when its task stopped inside a window. Addresses, as the registers held
/// them: not yet checked against anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pending {
    /// The resource is held, and its entry not written yet.
    Record {
        /// The resource.
        resource: u64,
        /// Its operations.
        operations: u64,
        /// Where the entry belongs.
        entry: u64,
        /// The stack pointer to be recorded.
        frame: u64,
    },
    /// The resource is free, and its entry still there.
    Erase {
        /// The entry.
        entry: u64,
    },
    /// The resource is given up, and the entry is to stand for what is owed instead: to destroy the
    /// value whose last share that was, or to wake a waiter.
    Convert {
        /// The entry.
        entry: u64,
        /// The operations that it takes on.
        operations: u64,
    },
}

/// Where the windows of an image are.
#[derive(Clone, Copy)]
pub struct WindowTable {
    records: &'static [WindowRecord],
}

unsafe extern "C" {
    static __start_drop_windows: WindowRecord;
    static __stop_drop_windows: WindowRecord;
}

impl WindowTable {
    /// The windows of the image that this code is linked into.
    ///
    /// The linker bounds the section by itself, for its name is a C identifier. A linker script
    /// that names its input sections must keep it: `KEEP(*(drop_windows))` between the symbols
    /// `__start_drop_windows` and `__stop_drop_windows`, aligned to 4.
    pub fn linked() -> Self {
        let start = &raw const __start_drop_windows;
        let stop = &raw const __stop_drop_windows;
        let len = (stop.addr() - start.addr()) / size_of::<WindowRecord>();
        // SAFETY: everything in the section is written by the `record!` macro of `arch`, 20
        // aligned bytes at a time, and never changes.
        Self { records: unsafe { slice::from_raw_parts(start, len) } }
    }

    /// How many windows there are; each inlined copy counts.
    pub const fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// What the ledger of a task that stopped at `registers` lacks; `None` if it is right as it
    /// stands, because the task stopped outside all windows, or before one's locked instruction.
    ///
    /// Looks at every record: windows are few (one for each place that takes a lock), and the
    /// time is the same for every death.
    pub fn pending(&self, registers: &RegisterFile) -> Option<Pending> {
        self.records.iter().find(|record| record.contains(registers.rip))?.pending(registers)
    }
}

#[cfg(test)]
impl WindowTable {
    /// For each window of a kind, an address at which its flags no longer matter.
    pub(crate) fn decided_addresses(&self, kind: WindowKind) -> impl Iterator<Item = u64> {
        self.records.iter().filter(move |r| r.kind == kind as u8).map(WindowRecord::decided)
    }
}

impl fmt::Debug for WindowTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WindowTable").field("len", &self.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Ledger;
    use crate::OwnLedger;
    use crate::arch;
    use crate::testing::{NOTHING, TestTask, as_task_of};
    use core::sync::atomic::{AtomicU64, Ordering};
    use std::vec::Vec;

    /// Runs one window so that its record exists, and returns all records of a kind.
    fn records(kind: WindowKind) -> Vec<&'static WindowRecord> {
        let (ledger, word) = (Ledger::new(), AtomicU64::new(0));
        // SAFETY: the ledger and the word are this test's own.
        unsafe {
            let place = as_task_of(&ledger, || OwnLedger::<TestTask>::current().room().unwrap());
            assert!(arch::acquire(&word, 0, 1, &NOTHING, place));
            let entry = ledger.held().next().expect("recorded");
            assert_eq!(entry.resource().cast_const(), word.as_ptr().cast_const().cast());
            assert!(entry.has(&NOTHING) && word.load(Ordering::Relaxed) == 1);
            arch::release_last(&word, 0, ledger.entry(0).unwrap());
        }
        assert!(ledger.is_empty());
        let table = WindowTable::linked();
        table.records.iter().filter(|record| record.kind == kind as u8).collect()
    }

    fn stopped_at(rip: u64, zero: bool) -> RegisterFile {
        let mut registers = RegisterFile::new();
        registers.rip = rip;
        registers.rflags = if zero { RegisterFile::ZERO_FLAG } else { 0 };
        for register in Gpr::ALL {
            registers[register] = 1000 + register as u64;
        }
        registers
    }

    #[test]
    fn a_conditional_acquire_is_decided_by_the_zero_flag_and_then_by_the_address() {
        let table = WindowTable::linked();
        let acquires = records(WindowKind::Record);
        let conditional: Vec<_> = acquires.iter().filter(|r| r.decided() > r.commit()).collect();
        assert!(!conditional.is_empty());
        for record in conditional {
            assert!(table.pending(&stopped_at(record.commit(), true)).is_some());
            assert!(table.pending(&stopped_at(record.commit(), false)).is_none());
            assert!(table.pending(&stopped_at(record.decided(), false)).is_some());
            assert!(table.pending(&stopped_at(record.end(), true)).is_none());
        }
    }

    #[test]
    fn a_record_names_the_registers_that_the_compiler_chose() {
        for record in records(WindowKind::Record) {
            let registers = stopped_at(record.decided(), true);
            let Some(Pending::Record { resource, operations, entry, frame }) =
                WindowTable::linked().pending(&registers)
            else {
                panic!("an acquire window records");
            };
            assert!((1000..1016).contains(&frame));
            for value in [resource, operations, entry] {
                assert!((1000..1016).contains(&value) && value != registers.rsp());
            }
            assert!(resource != operations && operations != entry && entry != resource);
        }
    }

    #[test]
    fn a_release_is_pending_from_its_store_on() {
        let releases: Vec<_> = records(WindowKind::Erase)
            .into_iter()
            .filter(|release| release.decided() == release.commit())
            .collect();
        assert!(!releases.is_empty());
        for record in releases {
            let table = WindowTable::linked();
            assert!(matches!(
                table.pending(&stopped_at(record.commit(), false)),
                Some(Pending::Erase { entry: 1000..1016 })
            ));
            assert_eq!(table.pending(&stopped_at(record.end(), true)), None);
        }
    }
}
