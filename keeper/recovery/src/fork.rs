//! A child process for each boundary: it may do to its copy of the world what it likes.
#![expect(unsafe_code, reason = "forks")]

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Result, bail};

/// How many seconds of CPU time a child may take before it counts as stuck.
const TIME_LIMIT: libc::rlim_t = 10;

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// By itself, and with this to say.
    Said(u8),
    /// Its time was up.
    Stuck,
    /// By a signal.
    Crashed,
}

/// Children that are on their way, at most `jobs` of them.
#[derive(Debug)]
pub(crate) struct Children<B> {
    jobs: usize,
    running: VecDeque<(libc::pid_t, B)>,
}

impl<B> Children<B> {
    pub(crate) const fn new(jobs: usize) -> Self {
        Self { jobs, running: VecDeque::new() }
    }

    /// Runs `body` in a child. Returns how an earlier one ended, if it had to make room.
    pub(crate) fn spawn(
        &mut self,
        boundary: B,
        body: impl FnOnce() -> u8,
    ) -> Result<Option<(B, Exit)>> {
        let done = if self.running.len() >= self.jobs.max(1) { self.wait()? } else { None };
        // SAFETY: the one other thread of the process waits for this one, and holds nothing that the
        // child needs.
        match unsafe { libc::fork() } {
            -1 => bail!("no child process: {}", std::io::Error::last_os_error()),
            0 => {
                let limit = libc::rlimit { rlim_cur: TIME_LIMIT, rlim_max: libc::RLIM_INFINITY };
                // SAFETY: ends this child, by SIGXCPU, if it takes too long.
                unsafe { libc::setrlimit(libc::RLIMIT_CPU, &raw const limit) };
                let said = body();
                // SAFETY: ends the child without running the parent's exit handlers.
                unsafe { libc::_exit(said.into()) }
            }
            child => self.running.push_back((child, boundary)),
        }
        Ok(done)
    }

    /// Waits for the oldest child, if there is one.
    pub(crate) fn wait(&mut self) -> Result<Option<(B, Exit)>> {
        let Some((child, boundary)) = self.running.pop_front() else { return Ok(None) };
        let mut status = 0;
        // SAFETY: `child` is ours, and `status` is where its status goes.
        if unsafe { libc::waitpid(child, &raw mut status, 0) } != child {
            bail!("a child process is lost: {}", std::io::Error::last_os_error());
        }
        let exit = if libc::WIFEXITED(status) {
            Exit::Said(libc::WEXITSTATUS(status) as u8)
        } else if libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGXCPU {
            Exit::Stuck
        } else {
            Exit::Crashed
        };
        Ok(Some((boundary, exit)))
    }
}

/// Two counts that children add to.
#[derive(Debug)]
pub(crate) struct Tally(&'static [AtomicU64; 2]);

impl Tally {
    pub(crate) fn new() -> Result<Self> {
        // SAFETY: an anonymous mapping at an address of the system's choice touches nothing else.
        let page = unsafe {
            let (access, kind) =
                (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
            libc::mmap(std::ptr::null_mut(), 4096, access, kind, -1, 0)
        };
        if page == libc::MAP_FAILED {
            bail!("no shared memory: {}", std::io::Error::last_os_error());
        }
        // SAFETY: the page is mapped for ever, zero, aligned, and used as atomics alone.
        Ok(Self(unsafe { &*page.cast() }))
    }

    pub(crate) fn executed(&self) {
        self.0[0].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn killed(&self) {
        self.0[1].fetch_add(1, Ordering::Relaxed);
    }

    /// What was executed, and what killed.
    pub(crate) fn read(&self) -> (u64, u64) {
        (self.0[0].load(Ordering::Relaxed), self.0[1].load(Ordering::Relaxed))
    }
}
