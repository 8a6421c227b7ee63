//! The process that runs a guest, and what it writes.

use std::io::{self, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread;

/// A process that does not outlive this value.
#[derive(Debug)]
pub(crate) struct Guest(Child);

/// Some bytes that it wrote.
#[derive(Debug)]
pub(crate) enum Chunk {
    /// To its standard output, which is the guest's serial port.
    Output(Vec<u8>),
    /// To its standard error.
    Errors(Vec<u8>),
}

impl Guest {
    /// Starts `command` with its output piped and nothing to read.
    ///
    /// # Errors
    /// As [`Command::spawn`].
    pub(crate) fn start(command: &mut Command) -> io::Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().map(Self)
    }

    /// Everything it writes, as it comes; disconnected when it has closed both streams.
    ///
    /// To be called once: the streams go to the first receiver.
    pub(crate) fn output(&mut self) -> Receiver<Chunk> {
        // Bounded, so that a guest that floods is slowed down and not buffered.
        let (sender, chunks) = mpsc::sync_channel(64);
        if let Some(stdout) = self.0.stdout.take() {
            forward(stdout, Chunk::Output, sender.clone());
        }
        if let Some(stderr) = self.0.stderr.take() {
            forward(stderr, Chunk::Errors, sender);
        }
        chunks
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    /// As [`Child::try_wait`].
    pub(crate) fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        self.0.try_wait()
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // Nothing to be done if these fail: the process is ours, so it is gone already.
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

/// Sends what `stream` yields until it ends or nobody listens.
fn forward(
    mut stream: impl Read + Send + 'static,
    wrap: fn(Vec<u8>) -> Chunk,
    sender: SyncSender<Chunk>,
) {
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        loop {
            match stream.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) if sender.send(wrap(buffer[..n].to_vec())).is_ok() => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                _ => break,
            }
        }
    });
}
