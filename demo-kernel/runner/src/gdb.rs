//! A client for the debugger's port of QEMU: the few packets that single-stepping takes
//! (GDB manual, appendix E, "Remote Serial Protocol").

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use task_model::{Gpr, RegisterFile};

/// How long QEMU may take to open its port.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a reply may take: a guest that waits for ever would never stop.
const REPLY: Duration = Duration::from_secs(30);

/// The most bytes to ask for in one packet; QEMU's packets have room for a few more.
const MAX_READ: usize = 2000;

/// The general-purpose registers in the order of the packet `g` for x86-64.
const ORDER: [Gpr; 16] = [
    Gpr::Rax,
    Gpr::Rbx,
    Gpr::Rcx,
    Gpr::Rdx,
    Gpr::Rsi,
    Gpr::Rdi,
    Gpr::Rbp,
    Gpr::Rsp,
    Gpr::R8,
    Gpr::R9,
    Gpr::R10,
    Gpr::R11,
    Gpr::R12,
    Gpr::R13,
    Gpr::R14,
    Gpr::R15,
];

/// The number of the flags, which come after these and `rip`.
const FLAGS: usize = ORDER.len() + 1;

/// A connection to a machine that stands still between two calls.
#[derive(Debug)]
pub(crate) struct Gdb {
    stream: UnixStream,
    received: Vec<u8>,
    timers: bool,
}

impl Gdb {
    /// Connects to the socket at `path`, once QEMU has made it.
    ///
    /// # Errors
    /// If it does not.
    pub(crate) fn connect(path: &Path) -> anyhow::Result<Self> {
        let started = Instant::now();
        let stream = loop {
            match UnixStream::connect(path) {
                Ok(stream) => break stream,
                Err(error) if started.elapsed() > PATIENCE => {
                    return Err(error).context("QEMU opens no port for a debugger");
                }
                Err(_) => thread::sleep(Duration::from_millis(5)),
            }
        };
        stream.set_read_timeout(Some(REPLY))?;
        let mut gdb = Self { stream, received: vec![], timers: true };
        // Single registers can be written only once the description of all has been asked for.
        gdb.command("qXfer:features:read:target.xml:0,400")?;
        gdb.set_timers(false)?;
        Ok(gdb)
    }

    /// Runs to the instruction at `address`. Returns whether it came there.
    pub(crate) fn run_to(&mut self, address: u64) -> anyhow::Result<bool> {
        self.set_breakpoint(address, true)?;
        let stopped = self.run()?;
        if stopped {
            self.set_breakpoint(address, false)?;
        }
        Ok(stopped)
    }

    /// Sets or removes a breakpoint.
    pub(crate) fn set_breakpoint(&mut self, address: u64, is_set: bool) -> anyhow::Result<()> {
        self.expect_ok(&format!("{}1,{address:x},1", if is_set { 'Z' } else { 'z' }))
    }

    /// Runs to the next breakpoint. Returns whether the machine still runs.
    ///
    /// The virtual clock leaps as in a step with timers.
    pub(crate) fn run(&mut self) -> anyhow::Result<bool> {
        self.resume("vCont;c")
    }

    /// Changes the flags.
    pub(crate) fn set_flags(&mut self, flags: u64) -> anyhow::Result<()> {
        let flags = (flags as u32).swap_bytes();
        self.expect_ok(&format!("P{FLAGS:x}={flags:08x}"))
    }

    /// Executes one instruction, or takes an interrupt. Returns whether the machine still runs.
    ///
    /// Without `timers` the virtual clock stands still, and no interrupt is taken. With them it
    /// leaps: between two steps the machine is idle, and QEMU takes idle time to its end.
    pub(crate) fn step(&mut self, timers: bool) -> anyhow::Result<bool> {
        if self.timers != timers {
            self.set_timers(timers)?;
        }
        self.resume("vCont;s")
    }

    /// Bit 0 is the single step itself, bit 1 holds interrupts back that are due, and bit 2 keeps
    /// timers from running meanwhile.
    fn set_timers(&mut self, timers: bool) -> anyhow::Result<()> {
        self.timers = timers;
        self.expect_ok(if timers { "Qqemu.sstep=1" } else { "Qqemu.sstep=7" })
    }

    fn resume(&mut self, how: &str) -> anyhow::Result<bool> {
        // A machine that has ended is gone, and its port with it.
        let Some(reply) = self.exchange(how)? else { return Ok(false) };
        match reply.first() {
            Some(b'T' | b'S') => Ok(true),
            Some(b'W' | b'X') => Ok(false),
            _ => bail!("QEMU answers {how} with {}", String::from_utf8_lossy(&reply)),
        }
    }

    /// The general-purpose registers, `rip` and `rflags`.
    pub(crate) fn registers(&mut self) -> anyhow::Result<RegisterFile> {
        let reply = self.command("g")?;
        let bytes = decode(&reply).context("unreadable registers")?;
        let (words, _) = bytes.as_chunks::<8>();
        ensure!(words.len() > ORDER.len() + 1, "too few registers");
        let mut registers = RegisterFile::new();
        for (gpr, word) in ORDER.into_iter().zip(words) {
            registers[gpr] = u64::from_le_bytes(*word);
        }
        registers.rip = u64::from_le_bytes(words[16]);
        registers.rflags = u64::from_le_bytes(words[17]) & 0xffff_ffff;
        Ok(registers)
    }

    /// Fills `bytes` with what is at the virtual `address`.
    pub(crate) fn read(&mut self, bytes: &mut [u8], address: u64) -> anyhow::Result<()> {
        for (chunk, at) in bytes.chunks_mut(MAX_READ).zip((address..).step_by(MAX_READ)) {
            let reply = self.command(&format!("m{at:x},{:x}", chunk.len()))?;
            let read = decode(&reply).filter(|read| read.len() == chunk.len());
            chunk.copy_from_slice(&read.with_context(|| format!("no memory at {at:#x}"))?);
        }
        Ok(())
    }

    fn expect_ok(&mut self, command: &str) -> anyhow::Result<()> {
        let reply = self.command(command)?;
        ensure!(reply == b"OK", "QEMU refuses {command}: {}", String::from_utf8_lossy(&reply));
        Ok(())
    }

    /// Sends a packet and returns the contents of the answer.
    fn command(&mut self, command: &str) -> anyhow::Result<Vec<u8>> {
        self.exchange(command)?.context("QEMU has closed the debugger's port")
    }

    /// Sends a packet and returns the contents of the answer, or `None` if QEMU is gone. That it is
    /// silent is an error: then nobody knows what becomes of the machine.
    fn exchange(&mut self, command: &str) -> anyhow::Result<Option<Vec<u8>>> {
        use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
        match self.try_exchange(command) {
            Ok(reply) => Ok(Some(reply)),
            Err(error) if matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof) => {
                Ok(None)
            }
            Err(error) => Err(error).with_context(|| format!("QEMU does not answer {command}")),
        }
    }

    fn try_exchange(&mut self, command: &str) -> io::Result<Vec<u8>> {
        let sum = command.bytes().fold(0u8, u8::wrapping_add);
        self.stream.write_all(format!("${command}#{sum:02x}").as_bytes())?;
        loop {
            let start = self.received.iter().position(|byte| *byte == b'$');
            let end = self.received.iter().position(|byte| *byte == b'#');
            // Two digits of checksum follow; the socket keeps the bytes whole, so they are not
            // looked at.
            if let (Some(start), Some(end)) = (start, end)
                && self.received.len() >= end + 3
            {
                let reply = self.received[start + 1..end].to_vec();
                self.received.drain(..end + 3);
                self.stream.write_all(b"+")?;
                return Ok(reply);
            }
            let mut buffer = [0; 4096];
            let read = self.stream.read(&mut buffer)?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.received.extend_from_slice(&buffer[..read]);
        }
    }
}

/// Bytes from their hexadecimal digits.
fn decode(digits: &[u8]) -> Option<Vec<u8>> {
    let (pairs, []) = digits.as_chunks::<2>() else { return None };
    let byte = |pair| u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok();
    pairs.iter().map(|pair| byte(&pair[..])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connected() -> (Gdb, UnixStream) {
        let (stream, qemu) = UnixStream::pair().unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        (Gdb { stream, received: vec![], timers: true }, qemu)
    }

    #[test]
    fn a_machine_that_is_gone_has_ended_and_one_that_is_silent_has_not() {
        let (mut gdb, qemu) = connected();
        assert!(gdb.run().is_err());
        drop(qemu);
        assert!(!gdb.run().unwrap());
        assert!(gdb.registers().is_err(), "nothing else can be the answer to this");
    }

    #[test]
    fn digits_come_in_pairs() {
        assert_eq!(decode(b"00ff7a"), Some(vec![0, 255, 0x7a]));
        assert_eq!(decode(b"00f"), None);
        assert_eq!(decode(b"xx"), None);
    }
}
