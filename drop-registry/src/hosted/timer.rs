//! The clock that takes the CPU from a task.
#![expect(unsafe_code, reason = "makes a timer of the system's")]

use core::ptr;
use core::time::Duration;

/// What the timer sends to the machine's thread.
pub(super) const SIGNAL: libc::c_int = libc::SIGVTALRM;

/// A timer that counts the CPU time of the thread that made it, and signals that thread.
///
/// CPU time, so that a slice is a slice however busy the system is.
#[derive(Debug)]
pub(super) struct Timer(libc::timer_t);

impl Timer {
    /// # Panics
    /// If the system has no timer left.
    pub(super) fn new() -> Self {
        let mut timer: libc::timer_t = ptr::null_mut();
        // SAFETY: all zero is a valid `sigevent`, filled in here; `timer` is where the id goes.
        let made = unsafe {
            let mut event: libc::sigevent = core::mem::zeroed();
            event.sigev_notify = libc::SIGEV_THREAD_ID;
            event.sigev_signo = SIGNAL;
            event.sigev_notify_thread_id = libc::gettid();
            libc::timer_create(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut event, &raw mut timer)
        };
        assert_eq!(made, 0, "no timer for the machine");
        Self(timer)
    }

    /// Signals after each `period`, until what this returns is dropped: once may come at a bad time.
    #[must_use]
    pub(super) fn arm(&self, period: Duration) -> Armed<'_> {
        // A period of zero would disarm it.
        let nanoseconds = period.subsec_nanos().max(u32::from(period.as_secs() == 0));
        self.set(libc::timespec {
            tv_sec: period.as_secs().cast_signed(),
            tv_nsec: nanoseconds.into(),
        });
        Armed(self)
    }

    fn set(&self, period: libc::timespec) {
        let times = libc::itimerspec { it_interval: period, it_value: period };
        // SAFETY: the timer is ours, and `times` is valid.
        let set = unsafe { libc::timer_settime(self.0, 0, &raw const times, ptr::null_mut()) };
        assert_eq!(set, 0, "the machine's timer can be set");
    }
}

/// An armed timer. No signal comes after this has been dropped.
pub(super) struct Armed<'a>(&'a Timer);

impl Drop for Armed<'_> {
    fn drop(&mut self) {
        self.0.set(libc::timespec { tv_sec: 0, tv_nsec: 0 });
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        // SAFETY: the timer is ours.
        unsafe { libc::timer_delete(self.0) };
    }
}
