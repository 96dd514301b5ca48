//! What the daemons use and log, over time.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use i2plan_ipc::api::meshd::{Session, SessionHealth, SessionState};
use tokio::time::{sleep, timeout};

use super::outage::Openings;
use super::schedule::DAEMONS;
use crate::Failure;
use crate::node::{Node, descriptors, resident};

/// Lines of each node that are kept, to be shown with an outage.
const KEPT_LINES: usize = 4000;

/// A log is emptied when it has this many bytes: the file system of a run is in memory.
const MAX_LOG: u64 = 16 << 20;

/// Most lines about ends and panics that are kept of each node.
const MAX_EVENTS: usize = 1000;

/// How often a node is asked for its sessions, and how long it may take to answer.
const ASK_EVERY: Duration = Duration::from_millis(500);
const ANSWER: Duration = Duration::from_secs(1);

/// What a process used each time that it was looked at.
#[derive(Debug, Default)]
pub struct Usage {
    /// Memory in use, bytes.
    pub memory: Vec<u64>,
    /// Open descriptors.
    pub descriptors: Vec<u64>,
    /// Files of state.
    pub files: Vec<u64>,
    /// Bytes in them.
    pub bytes: Vec<u64>,
}

/// Lines of a daemon.
#[derive(Debug, Default, Clone, Copy)]
pub struct LineCount {
    /// All.
    pub lines: u64,
    /// Those of level `WARN`.
    pub warnings: u64,
    /// Those of level `ERROR`.
    pub errors: u64,
}

/// A daemon that ended, as its supervisor tells.
#[derive(Debug, Clone)]
pub struct Exit {
    /// When.
    pub at: Duration,
    /// Which.
    pub daemon: String,
    /// The supervisor's line.
    pub line: String,
}

/// What is known of one node.
#[derive(Debug)]
pub struct WatchedNode {
    /// Its name.
    pub name: String,
    /// The users of its daemons.
    users: Vec<(&'static str, u32)>,
    state: PathBuf,
    log: LogFile,
    /// The last lines, each with the time at which it was read.
    lines: VecDeque<(Duration, String)>,
    /// By process.
    pub usage: BTreeMap<&'static str, Usage>,
    /// By daemon.
    pub counts: BTreeMap<String, LineCount>,
    /// Daemons that ended.
    pub exits: Vec<Exit>,
    /// Lines that tell of a panic.
    pub panics: Vec<(Duration, String)>,
}

/// A log that is read as it grows.
#[derive(Debug)]
struct LogFile {
    path: PathBuf,
    /// How far it has been read.
    read: u64,
    /// A line that has not ended.
    partial: Vec<u8>,
    /// Where a copy goes.
    copy: Option<File>,
}

impl LogFile {
    fn new(path: PathBuf, copy: Option<File>) -> Self {
        Self { path, read: 0, partial: Vec::new(), copy }
    }

    /// The lines that have come.
    fn lines(&mut self) -> Result<Vec<String>, Failure> {
        let mut file = File::options().read(true).write(true).open(&self.path)?;
        file.seek(SeekFrom::Start(self.read))?;
        let mut new = Vec::new();
        self.read += file.read_to_end(&mut new)? as u64;
        if let Some(copy) = &mut self.copy {
            copy.write_all(&new)?;
        }
        if self.read > MAX_LOG {
            // Whoever writes appends. A line that comes between reading and this is lost.
            file.set_len(0)?;
            self.read = 0;
        }
        self.partial.extend(new);
        let end = self.partial.iter().rposition(|byte| *byte == b'\n').map_or(0, |index| index + 1);
        let whole: Vec<_> = self.partial.drain(..end).collect();
        Ok(String::from_utf8_lossy(&whole).lines().map(ToOwned::to_owned).collect())
    }
}

impl WatchedNode {
    /// Watches a node from now on; what it logs is copied to the directory.
    ///
    /// # Errors
    /// If a copy of its log cannot be made.
    pub fn new(node: &Node, copies: Option<&Path>) -> Result<Self, Failure> {
        let copy = copies.map(|directory| File::create(directory.join(format!("{}.log", node.name))));
        let [keyd, meshd, tund] = node.uids;
        let users = DAEMONS.into_iter().zip([keyd, node.connector_uid, meshd, tund, node.rpc_uid]).collect();
        Ok(Self {
            name: node.name.clone(),
            users,
            state: node.state(""),
            log: LogFile::new(node.log(), copy.transpose()?),
            lines: VecDeque::new(),
            usage: BTreeMap::new(),
            counts: BTreeMap::new(),
            exits: Vec::new(),
            panics: Vec::new(),
        })
    }

    /// Reads what was logged.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub fn read_log(&mut self, now: Duration) -> Result<(), Failure> {
        for line in self.log.lines()? {
            let LogLine { daemon, level } = LogLine::parse(&line);
            let count = self.counts.entry(daemon).or_default();
            count.lines += 1;
            count.warnings += u64::from(level == "WARN");
            count.errors += u64::from(level == "ERROR");
            if let Some(daemon) = ended(&line).filter(|_| self.exits.len() < MAX_EVENTS) {
                self.exits.push(Exit { at: now, daemon: daemon.to_owned(), line: line.clone() });
            }
            if line.contains("panicked") && self.panics.len() < MAX_EVENTS {
                self.panics.push((now, line.clone()));
            }
            if self.lines.len() == KEPT_LINES {
                self.lines.pop_front();
            }
            self.lines.push_back((now, line));
        }
        Ok(())
    }

    /// The lines that were logged in a time, at most so many of its beginning and as many of its end.
    #[must_use]
    pub fn excerpt(&self, from: Duration, to: Duration, most: usize) -> Vec<String> {
        let within = self.lines.iter().filter(|(at, _)| (from..=to).contains(at));
        let lines: Vec<_> = within.map(|(_, line)| format!("{}: {line}", self.name)).collect();
        if lines.len() <= 2 * most {
            return lines;
        }
        let left_out = format!("{}: … {} lines …", self.name, lines.len() - 2 * most);
        let (first, last) = (&lines[..most], &lines[lines.len() - most..]);
        [first, &[left_out], last].concat()
    }

    /// Looks at the processes of its daemons, these others, and the state files. What is not there now, such as a
    /// daemon that is being restarted, is left out.
    pub fn sample(&mut self, processes: &HashMap<u32, u32>, others: &[(&'static str, u32)]) {
        let daemons = self.users.iter().filter_map(|(name, user)| Some((*name, *processes.get(user)?)));
        for (name, pid) in daemons.chain(others.iter().copied()) {
            if let (Ok(memory), Ok(descriptors)) = (resident(pid), descriptors(pid)) {
                let usage = self.usage.entry(name).or_default();
                usage.memory.push(memory);
                usage.descriptors.push(descriptors as u64);
            }
        }
        for daemon in DAEMONS {
            if let Ok((files, bytes)) = size(&self.state.join(daemon)) {
                let usage = self.usage.entry(daemon).or_default();
                usage.files.push(files);
                usage.bytes.push(bytes);
            }
        }
    }

    /// The process of a daemon, if it runs.
    #[must_use]
    pub fn process(&self, daemon: &str, processes: &HashMap<u32, u32>) -> Option<u32> {
        let (_, user) = self.users.iter().find(|(name, _)| *name == daemon)?;
        processes.get(user).copied()
    }

    /// The processes of all daemons that run.
    #[must_use]
    pub fn processes(&self, processes: &HashMap<u32, u32>) -> Vec<u32> {
        self.users.iter().filter_map(|(_, user)| processes.get(user).copied()).collect()
    }
}

/// Whose a line is, and how grave.
#[derive(Debug, PartialEq, Eq)]
struct LogLine<'a> {
    daemon: String,
    level: &'a str,
}

impl<'a> LogLine<'a> {
    fn parse(line: &'a str) -> Self {
        let mut words = line.split_whitespace();
        let (Some(first), Some(level), Some(target)) = (words.next(), words.next(), words.next()) else {
            return Self { daemon: "other".to_owned(), level: "" };
        };
        if first == "i2planctl:" {
            return Self { daemon: "supervisor".to_owned(), level: "" };
        }
        let daemon = match target.split(':').next().unwrap_or_default() {
            "boringtun" => "tund",
            program => program.strip_prefix("i2plan_").unwrap_or("other"),
        };
        Self { daemon: daemon.to_owned(), level }
    }
}

/// The daemon that ended, if that is what the supervisor says.
fn ended(line: &str) -> Option<&str> {
    let event = line.strip_prefix("i2planctl: ")?;
    event.contains("; starting it again in ").then(|| event.split(' ').next())?
}

/// How many files there are below a directory, and how many bytes in them.
fn size(directory: &Path) -> Result<(u64, u64), Failure> {
    let (mut files, mut bytes) = (0, 0);
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        if metadata.is_dir() {
            let (more_files, more_bytes) = size(&entry.path())?;
            (files, bytes) = (files + more_files, bytes + more_bytes);
        } else {
            (files, bytes) = (files + 1, bytes + metadata.len());
        }
    }
    Ok((files, bytes))
}

/// Whether the router is opening a session: one that there is not, or another for one that is of no use.
fn opens(session: &Session) -> bool {
    session.state == SessionState::Opening || session.health == SessionHealth::Replacing
}

/// Asks a node again and again which sessions it has, and keeps when its router was opening one. A node that does not
/// answer has none that is being opened.
pub async fn watch_openings(socket: &Path, started: Instant, openings: &RefCell<Openings>) {
    let status = async || i2plan_ipc::Node::connect(socket).await?.status().await;
    let mut before = started.elapsed();
    loop {
        sleep(ASK_EVERY).await;
        let answer = timeout(ANSWER, status()).await;
        let now = started.elapsed();
        if let Ok(Ok(status)) = answer
            && [&status.sam.control, &status.sam.data].into_iter().any(opens)
        {
            openings.borrow_mut().handle_seen(before, now);
        }
        before = now;
    }
}

/// The running processes, by user; of a user who has several, one.
///
/// # Errors
/// If they cannot be listed.
pub fn running() -> Result<HashMap<u32, u32>, Failure> {
    let mut found = HashMap::new();
    for entry in std::fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
        // Gone meanwhile.
        let Ok(status) = std::fs::read_to_string(format!("/proc/{pid}/status")) else { continue };
        let field = |name| status.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next());
        if let Some(user) = field("Uid:").and_then(|user| user.parse().ok())
            && field("State:") != Some("Z")
        {
            found.insert(user, pid);
        }
    }
    Ok(found)
}

/// The time of the day at a time of the run, in UTC, as in the daemons' logs.
#[must_use]
pub fn clock(started: SystemTime, at: Duration) -> String {
    let since = started.duration_since(UNIX_EPOCH).unwrap_or_default() + at;
    let seconds = since.as_secs();
    format!("{:02}:{:02}:{:02}Z", seconds / 3600 % 24, seconds / 60 % 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_counted_for_who_logged_them() {
        for (line, daemon, level) in [
            ("2026-11-29T23:05:34.123456Z  INFO i2plan_meshd::shell: session opened", "meshd", "INFO"),
            ("2026-11-29T23:05:34.123456Z  WARN boringtun::noise: HANDSHAKE", "tund", "WARN"),
            ("2026-11-29T23:05:34.123456Z ERROR i2plan_ipc::daemon: panicked", "ipc", "ERROR"),
            ("i2planctl: keyd started, pid 12", "supervisor", ""),
            ("what", "other", ""),
        ] {
            assert_eq!(LogLine::parse(line), LogLine { daemon: daemon.to_owned(), level }, "{line}");
        }
    }

    #[test]
    fn ends_of_daemons_are_found_in_the_supervisors_lines() {
        let line = "i2planctl: tund exited with code 1; starting it again in 0.2 s";
        assert_eq!(ended(line), Some("tund"));
        assert_eq!(ended("i2planctl: tund stopped: it exited with code 0"), None);
        assert_eq!(ended("2026 INFO i2plan_tund: i; starting it again in 0.2 s"), None);
    }

    #[test]
    fn the_day_starts_again_after_a_day() {
        let started = UNIX_EPOCH + Duration::from_secs(86_400 * 3 - 1);
        assert_eq!(clock(started, Duration::ZERO), "23:59:59Z");
        assert_eq!(clock(started, Duration::from_secs(62)), "00:01:01Z");
    }
}
