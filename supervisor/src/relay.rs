//! The way of lines from the daemons and the supervising program to a terminal, a pipe or a file.
//!
//! No daemon holds a descriptor of the administrator's terminal: one that is broken into could read there what is typed.
//! Each writes into a pipe, which the supervisor reads, and a thread writes on. What comes out is escaped and bounded,
//! since a daemon may have been broken into. A terminal that is stopped or slow holds up that thread and nothing else:
//! each source may have 256 KiB waiting, and what comes then is dropped and counted.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use i2plan_ipc::escape::{escape, escape_bytes};
use rustix::io::ioctl_fionbio;
use rustix::pipe::fcntl_setpipe_size;
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Longest line of a daemon, bytes. What is beyond that is cut off, and its length told.
const MAX_LINE: usize = 8192;

/// Most that may wait of one source, bytes.
const MAX_WAITING: usize = 256 * 1024;

/// Room of a daemon's pipe, for when the supervisor is busy. The daemon does not wait when it is full.
const PIPE_SIZE: usize = 256 * 1024;

/// How long the last lines of a process may take to come, once it has ended. Only a descriptor that somebody keeps makes
/// it longer.
const LAST_LINES: Duration = Duration::from_secs(1);

/// How long the last lines of all may take to be written.
const LAST_WRITES: Duration = Duration::from_secs(2);

/// What writes the lines.
pub trait Sink: Send + 'static {
    /// Writes some lines. It may take its time.
    fn write(&mut self, lines: &str);
}

/// A way for lines that never makes anybody wait.
#[derive(Debug, Clone)]
pub struct Relay {
    queue: Arc<Queue>,
}

/// Writes what is left when this is dropped.
#[derive(Debug)]
pub struct Writer {
    relay: Relay,
    /// Hangs up when all has been written.
    written: Receiver<()>,
}

impl Relay {
    /// Starts the thread that writes. `name` is this program's, as a source of lines.
    pub fn start(name: &'static str, mut sink: impl Sink) -> (Self, Writer) {
        let relay =
            Self { queue: Arc::new(Queue { name, waiting: Mutex::default(), changed: Condvar::new() }) };
        let (done, written) = channel();
        let queue = Arc::clone(&relay.queue);
        std::thread::spawn(move || {
            while let Some(line) = queue.wait_for_next() {
                sink.write(&line);
            }
            drop(done);
        });
        (relay.clone(), Writer { relay, written })
    }

    /// Passes a line of this program on, which is escaped as far as need be.
    pub fn line(&self, line: &str) {
        self.pass_on(self.queue.name, line);
    }

    fn pass_on(&self, source: &'static str, line: &str) {
        self.queue.push(source, format!("{}\n", escape(line)));
    }

    /// A pipe for what a process prints, whose lines are passed on.
    ///
    /// # Errors
    /// If there is no pipe to be had.
    pub(crate) fn pipe(&self, source: &'static str) -> io::Result<(OwnedFd, Printed)> {
        let (reader, writer) = io::pipe()?;
        // A supervisor that is stopped (Ctrl-Z) does not read: the daemon goes on, and counts the lines that it loses.
        ioctl_fionbio(&writer, true)?;
        // With less, bursts are lost sooner.
        let _ = fcntl_setpipe_size(&writer, PIPE_SIZE);
        let reader = pipe::Receiver::from_owned_fd(reader.into())?;
        let copying = tokio::spawn(copy(reader, source, self.clone()));
        Ok((writer.into(), Printed(copying)))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.relay.queue.close();
        let _ = self.written.recv_timeout(LAST_WRITES);
    }
}

/// What a process prints. When this is dropped nobody reads it any more.
#[derive(Debug)]
pub(crate) struct Printed(JoinHandle<()>);

impl Printed {
    /// Waits for the last lines of a process that has ended.
    pub(crate) async fn finish(mut self) {
        let _ = timeout(LAST_LINES, &mut self.0).await;
    }
}

impl Drop for Printed {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn copy(mut reader: pipe::Receiver, source: &'static str, relay: Relay) {
    let mut lines = Lines::default();
    let mut buffer = vec![0; MAX_LINE];
    // An error is the end as well: there is no other in reading a pipe.
    while let Ok(count @ 1..) = reader.read(&mut buffer).await {
        lines.take(&buffer[..count], |line| relay.pass_on(source, &line));
    }
    lines.end(|line| relay.pass_on(source, &line));
}

/// Makes lines of bytes.
#[derive(Debug, Default)]
struct Lines {
    line: Vec<u8>,
    /// How many bytes of it are too many.
    excess: u64,
}

impl Lines {
    fn take(&mut self, bytes: &[u8], mut tell: impl FnMut(String)) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, ends) = part.strip_suffix(b"\n").map_or((part, false), |text| (text, true));
            let room = (MAX_LINE - self.line.len()).min(text.len());
            self.line.extend_from_slice(&text[..room]);
            self.excess += (text.len() - room) as u64;
            if ends {
                tell(self.next());
            }
        }
    }

    fn end(&mut self, mut tell: impl FnMut(String)) {
        if !self.line.is_empty() {
            tell(self.next());
        }
    }

    fn next(&mut self) -> String {
        let mut line = escape_bytes(&self.line).into_owned();
        match std::mem::take(&mut self.excess) {
            0 => {}
            excess => line += &format!("… ({excess} bytes more)"),
        }
        self.line.clear();
        line
    }
}

/// Lines that wait to be written.
#[derive(Debug)]
struct Queue {
    /// The supervising program.
    name: &'static str,
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    lines: VecDeque<(&'static str, String)>,
    sources: BTreeMap<&'static str, Share>,
    closed: bool,
}

/// What waits of one source.
#[derive(Debug, Default)]
struct Share {
    bytes: usize,
    /// Lines that were dropped after the last of those.
    dropped: u64,
}

impl Waiting {
    /// Adds a line, unless its source has too much waiting. Then this and all that follow are dropped until the rest is
    /// written, so that what is missing is missing in one place.
    fn push(&mut self, source: &'static str, line: String) {
        let share = self.sources.entry(source).or_default();
        if share.dropped > 0 || share.bytes + line.len() > MAX_WAITING {
            share.dropped += 1;
            return;
        }
        share.bytes += line.len();
        self.lines.push_back((source, line));
    }

    /// The next line. What is missing is told in the name of `teller`.
    fn pop(&mut self, teller: &str) -> Option<String> {
        let (source, mut line) = self.lines.pop_front()?;
        let share = self.sources.entry(source).or_default();
        share.bytes -= line.len();
        if share.bytes == 0 {
            let dropped = std::mem::take(&mut share.dropped);
            if dropped > 0 {
                line +=
                    &format!("{teller}: {dropped} lines of {source} were dropped: the output is too slow\n");
            }
        }
        Some(line)
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, source: &'static str, line: String) {
        self.lock().push(source, line);
        self.changed.notify_one();
    }

    fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_one();
    }

    /// The next line; none when all are written and no more can come.
    fn wait_for_next(&self) -> Option<String> {
        let mut waiting = self.lock();
        loop {
            if let Some(line) = waiting.pop(self.name) {
                return Some(line);
            }
            if waiting.closed {
                return None;
            }
            waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_become_escaped_and_bounded_lines() {
        let mut told = Vec::new();
        let mut lines = Lines::default();
        let long = [vec![b'x'; MAX_LINE + 7], b"\nb\x1b[2J\xff\n\nlast".to_vec()].concat();
        for part in [b"a".as_slice(), b"\n", &long] {
            lines.take(part, |line| told.push(line));
        }
        lines.end(|line| told.push(line));
        lines.end(|line| told.push(line));
        let cut = format!("{}… (7 bytes more)", "x".repeat(MAX_LINE));
        assert_eq!(told, ["a", &cut, "b\\u{1b}[2J\\xff", "", "last"]);
    }

    #[test]
    fn a_source_that_floods_costs_itself_lines_and_nobody_else() {
        let mut waiting = Waiting::default();
        let line = format!("{}\n", "x".repeat(1023));
        for _ in 0..1000 {
            waiting.push("meshd", line.clone());
        }
        waiting.push("keyd", "k\n".to_owned());
        let mut written = String::new();
        while let Some(line) = waiting.pop("program") {
            written += &line;
        }
        waiting.push("meshd", "again\n".to_owned());
        written += &waiting.pop("program").unwrap();
        let end = "x\nprogram: 744 lines of meshd were dropped: the output is too slow\nk\nagain\n";
        assert!(written.ends_with(end), "{}", &written[written.len() - 200..]);
        assert_eq!(written.len(), MAX_WAITING + end.len() - 2);
    }

    /// Writes nothing until it is told to.
    struct Stuck(Receiver<()>, std::sync::mpsc::Sender<String>);

    impl Sink for Stuck {
        fn write(&mut self, lines: &str) {
            let _ = self.0.recv();
            let _ = self.1.send(lines.to_owned());
        }
    }

    #[test]
    fn nobody_waits_for_a_terminal_that_is_stopped() {
        let (go, stopped) = channel();
        let (sender, written) = channel();
        let (relay, writer) = Relay::start("program", Stuck(stopped, sender));
        for _ in 0..100 {
            relay.pass_on("tund", &"x".repeat(MAX_LINE));
        }
        relay.line("still there");
        drop(go);
        drop(writer);
        let written: String = written.iter().collect();
        assert!(written.contains("program: 6") && written.ends_with("still there\n"));
    }
}
