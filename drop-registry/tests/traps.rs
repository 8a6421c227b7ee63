//! Traps that only a whole process can raise, in a hosted task.
#![expect(unsafe_code, reason = "maps a file beyond its end")]

use std::ptr;

use drop_registry::hosted::{Hosted, Machine, Stop};
use drop_registry::{LockError, Mutex, Outcome};
use task_model::FaultKind;

static LOCK: Mutex<u32, Hosted> = Mutex::new(1);

/// A page of a file that has none: to touch it raises SIGBUS.
fn page_of_an_empty_file() -> *const u8 {
    // SAFETY: a new file without a name, mapped where the system chooses; nothing else uses either.
    unsafe {
        let file = libc::memfd_create(c"empty".as_ptr(), 0);
        assert!(file >= 0, "{}", std::io::Error::last_os_error());
        let (protection, flags) = (libc::PROT_READ, libc::MAP_SHARED);
        let page = libc::mmap(ptr::null_mut(), 4096, protection, flags, file, 0);
        assert_ne!(page, libc::MAP_FAILED, "{}", std::io::Error::last_os_error());
        page.cast_const().cast()
    }
}

#[test]
fn a_task_that_reads_beyond_a_file_s_end_faults_and_is_settled() {
    let page = page_of_an_empty_file().expose_provenance();
    // SAFETY: tasks here keep nothing in thread-locals, and none is stopped by the instruction.
    // Their lock is static.
    let mut machine = unsafe { Machine::new() };
    let task = machine.spawn(move || {
        let mut held = LOCK.lock().unwrap();
        // SAFETY: none: the page is not there. It is read for that.
        *held += u32::from(unsafe { ptr::with_exposed_provenance::<u8>(page).read_volatile() });
    });
    let Stop::Faulted(fault) = machine.run(task, None) else { panic!("no fault") };
    assert_eq!(fault.kind, FaultKind::PageFault);
    assert_eq!(fault.address, Some(page as u64));
    let outcomes: Vec<_> = machine.kill(task).iter().map(|one| one.outcome).collect();
    assert_eq!(outcomes, [Outcome::OwnerDied]);
    let next = machine.spawn(|| assert!(matches!(LOCK.lock(), Err(LockError::OwnerDied(_)))));
    assert_eq!(machine.run(next, None), Stop::Finished);
}
