//! A child process for each boundary: it may do to its copy of the world what it likes.
#![expect(unsafe_code, reason = "forks")]

use std::collections::VecDeque;
use std::marker::PhantomData;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Result, bail};

/// How many seconds of CPU time a child may take before it counts as stuck. Not of the clock: that
/// goes on while a busy machine runs something else.
const TIME_LIMIT: libc::rlim_t = 10;

/// Bytes of a page.
const PAGE: usize = 4096;

/// What a child has to say, in a byte; and what is said of one that could say nothing.
pub trait Outcome {
    /// Its time was up.
    const STUCK: Self;
    /// It was ended by a signal.
    const CRASHED: Self;

    /// What goes to the parent.
    fn to_byte(self) -> u8;

    /// What has come from the child.
    fn from_byte(byte: u8) -> Self;
}

/// Children that are on their way, at most `jobs` of them, each for one boundary.
#[derive(Debug)]
pub struct Children<B, O> {
    jobs: usize,
    running: VecDeque<(libc::pid_t, B)>,
    outcome: PhantomData<O>,
}

impl<B, O: Outcome> Children<B, O> {
    /// None yet, of at most so many at a time.
    pub const fn new(jobs: usize) -> Self {
        Self { jobs, running: VecDeque::new(), outcome: PhantomData }
    }

    /// Runs `body` in a child. Returns what an earlier one found, if it had to make room.
    ///
    /// Other threads of the process are not in the child: they must wait for this one, and hold
    /// nothing that the child needs.
    ///
    /// # Errors
    /// If the system has no room for another process.
    pub fn spawn(&mut self, boundary: B, body: impl FnOnce() -> O) -> Result<Option<(B, O)>> {
        let done = if self.running.len() >= self.jobs.max(1) { self.wait()? } else { None };
        // SAFETY: what the child's code needs is no other thread's: see above.
        match unsafe { libc::fork() } {
            -1 => bail!("no child process: {}", std::io::Error::last_os_error()),
            0 => {
                let limit = libc::rlimit { rlim_cur: TIME_LIMIT, rlim_max: libc::RLIM_INFINITY };
                // SAFETY: ends this child, by SIGXCPU, if it takes too long.
                unsafe { libc::setrlimit(libc::RLIMIT_CPU, &raw const limit) };
                let said = body().to_byte();
                // SAFETY: ends the child without running the parent's exit handlers.
                unsafe { libc::_exit(said.into()) }
            }
            child => self.running.push_back((child, boundary)),
        }
        Ok(done)
    }

    /// Waits for the oldest child, if there is one.
    ///
    /// # Errors
    /// If it is lost.
    pub fn wait(&mut self) -> Result<Option<(B, O)>> {
        let Some((child, boundary)) = self.running.pop_front() else { return Ok(None) };
        let mut status = 0;
        // SAFETY: `child` is ours, and `status` is where its status goes.
        if unsafe { libc::waitpid(child, &raw mut status, 0) } != child {
            bail!("a child process is lost: {}", std::io::Error::last_os_error());
        }
        let outcome = if libc::WIFEXITED(status) {
            O::from_byte(libc::WEXITSTATUS(status) as u8)
        } else if libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGXCPU {
            O::STUCK
        } else {
            O::CRASHED
        };
        Ok(Some((boundary, outcome)))
    }
}

/// Two counts that children add to.
#[derive(Debug)]
pub struct Tally(NonNull<[AtomicU64; 2]>);

impl Tally {
    /// Both 0.
    ///
    /// # Errors
    /// If the system has no memory to share.
    pub fn new() -> Result<Self> {
        // SAFETY: an anonymous mapping at an address of the system's choice touches nothing else.
        let page = unsafe {
            let (access, kind) =
                (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
            libc::mmap(std::ptr::null_mut(), PAGE, access, kind, -1, 0)
        };
        match NonNull::new(page) {
            Some(page) if page.as_ptr() != libc::MAP_FAILED => Ok(Self(page.cast())),
            _ => bail!("no shared memory: {}", std::io::Error::last_os_error()),
        }
    }

    fn counts(&self) -> &[AtomicU64; 2] {
        // SAFETY: the page is zero at first, aligned, used as atomics alone, and mapped as long as
        // `self` is there.
        unsafe { self.0.as_ref() }
    }

    /// Counts a boundary that was come to.
    pub fn executed(&self) {
        self.counts()[0].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a death there.
    pub fn killed(&self) {
        self.counts()[1].fetch_add(1, Ordering::Relaxed);
    }

    /// What was executed, and what killed.
    pub fn read(&self) -> (u64, u64) {
        (self.counts()[0].load(Ordering::Relaxed), self.counts()[1].load(Ordering::Relaxed))
    }
}

impl Drop for Tally {
    /// Else every later fork would copy this mapping, too.
    fn drop(&mut self) {
        // SAFETY: it is this one's page, and nobody has a reference to it any more.
        unsafe { libc::munmap(self.0.as_ptr().cast(), PAGE) };
    }
}
