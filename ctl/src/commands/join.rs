//! `i2planctl join`.

use std::ffi::OsString;
use std::fs::File;
use std::future::Future;
use std::io::{self, BufRead as _, BufReader, IsTerminal as _, Read, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use i2plan_ipc::api::meshd::{Event, EventKind, JoinStep, SessionState, Status};
use i2plan_ipc::node::{EventStream, Notice};
use i2plan_ipc::secret::SecretText;
use i2plan_ipc::terminal::Silence;
use i2plan_ipc::version::utc;
use i2plan_ipc::{ErrorKind, Node};
use i2plan_present::event::describe_step;
use i2plan_present::join::{describe, describe_invite};
use i2plan_present::status::{Warning, of_a_daemon, of_the_interface, of_the_sessions};
use i2plan_present::units;
use i2plan_proto::invite::{Invite, InviteError};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use serde_json::json;
use tokio::time::{Instant, sleep};
use zeroize::{Zeroize as _, Zeroizing};

use crate::daemon;
use crate::failure::{Failure, Kind};
use crate::output;

/// What `--help` adds.
pub(crate) const HELP: &str = "\
The code is asked for, or read from standard input if that is no terminal. It is not taken as an \
argument: every user of a machine can read those.

The network and its subnet are shown first, and a question is asked: packets of this host for the subnet go to the \
network's members from then on. Nothing is joined if the host uses addresses of the subnet, or mesh.accept_subnets does \
not contain it.

Examples:
  i2planctl join
  i2planctl join --file invite.txt
  ssh other-node i2planctl invite create | i2planctl join
  i2planctl join --yes < invite.txt             # in a script";

/// `i2planctl join`
#[derive(Debug, clap::Args)]
pub struct Join {
    /// Read the invite code from this file; - is standard input
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,

    /// Do not ask
    #[arg(long)]
    pub yes: bool,

    /// Taken only to be refused with an explanation.
    #[arg(hide = true)]
    pub code: Vec<OsString>,
}

/// Bytes that are read in search of a code, which has some 250; with a drawn QR code around it, there are 20,000.
const MAX_INPUT: u64 = 64 * 1024;

/// Bytes of a line that a terminal passes on at most.
const MAX_LINE: u64 = 4096;

/// How soon the next line of a text that is pasted comes.
const PASTE_GAP: Duration = Duration::from_millis(200);

/// How long the first tunnel to a member is waited for.
const FIRST_TUNNEL: Duration = Duration::from_secs(60);

/// Between two looks at what may keep the tunnel from coming.
const BETWEEN_CHECKS: Duration = Duration::from_secs(5);

/// How long the steps that were done may take to be told.
const LAST_STEPS: Duration = Duration::from_millis(200);

const WAITING: &str = "waiting for the first tunnel to a member; Ctrl-C stops the waiting, not the node";

/// Joins a network.
///
/// # Errors
/// If the code is none, has expired, or does not lead into the network.
pub async fn run(socket: Option<&Path>, json: bool, args: &Join) -> Result<(), Failure> {
    let text = read_code(args.file.as_deref()).await?;
    if text.trim().is_empty() {
        return Err(Failure::invalid("no invite code was given: the input is empty")
            .with_hint("paste all of what `i2planctl invite create` printed on the other node"));
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let invite = parse(&text)?;
    drop(text);
    let valid = check(&invite, now);
    let mut node = match (daemon::connect(socket).await, &valid) {
        (Ok(node), _) => node,
        (Err(_), Err(failure)) => return Err(failure.clone()),
        (Err(failure), Ok(())) => return Err(failure),
    };
    // What is wrong with the node, it says when it is to join.
    let network = node.status().await.ok().and_then(|status| status.network);
    let is_member = network.is_some();
    if let Some(network) = network.filter(|network| network.id == invite.network.to_string()) {
        // As when this program was interrupted, and the node was not.
        if json {
            return output::json::print(&json!({ "network": network, "already_member": true }));
        }
        output::note("this node is a member of the invite's network already");
        return output::print(&describe(&network));
    }
    valid?;
    // A member of another network is told by the node that it cannot.
    if !is_member {
        node.check_network(invite.network.to_string(), invite.subnet.to_string()).await?;
        if !args.yes {
            confirm(&invite).await?;
        }
    }
    let what = format!("joining network {} through {}", invite.name, invite.inviter.short());
    let code = SecretText::new(invite.to_code().to_string());
    drop(invite);

    let mut progress = Progress::begin(json, &what, node.events()).await;
    let network = progress.during(node.join(code)).await?;
    let network = network.map_err(|error| explain(error.into()))?;
    if json {
        return output::json::print(&json!({ "network": network, "already_member": false }));
    }
    let tunnel = progress.wait_for_tunnel(&mut node).await?;
    output::print(&describe(&network))?;
    match tunnel {
        FirstTunnel::Up => output::note("the first tunnel to a member is up"),
        FirstTunnel::NotYet => {
            output::note("there is no tunnel to a member yet: `i2planctl peers` shows when there is");
        }
        FirstTunnel::Obstructed(Warning { message, hint }) => {
            let message = format!("this node is a member, and no tunnel to another can come up: {message}");
            return Err(Failure::new(ErrorKind::Unavailable, message).with_hint(hint));
        }
    }
    Ok(())
}

/// Asks whether the network is the one that is meant. Until then nothing is changed, here or at the inviter.
async fn confirm(invite: &Invite) -> Result<(), Failure> {
    let stdin = io::stdin().is_terminal();
    // The code may have come by a pipe, and the person be there nevertheless.
    let terminal = if stdin || !io::stderr().is_terminal() { None } else { File::open("/dev/tty").ok() };
    if !stdin && terminal.is_none() {
        return Err(Failure::usage("there is no terminal to ask on whether this network is to be joined")
            .with_hint("say --yes if it is"));
    }
    output::note(&describe_invite(invite));
    let answer = read_line(terminal, || {
        let _ = write!(io::stderr(), "join this network? [y/N] ");
        Ok(())
    });
    match answer.await?.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err(Failure::invalid("nothing was joined: the answer was not y")),
    }
}

/// Adds what helps most, where the node had no advice of its own.
fn explain(failure: Failure) -> Failure {
    match failure {
        Failure { kind: Kind::Api(ErrorKind::Timeout | ErrorKind::Unavailable), hint: None, .. } => failure
            .with_hint(
                "the node that made the invite must be up and connected to I2P, and so must this one: \
             see `i2planctl status` here and there, then try again; the invite is not used up",
            ),
        _ => failure,
    }
}

/// The invite that a code is.
fn parse(code: &str) -> Result<Invite, Failure> {
    code.parse().map_err(|error: InviteError| {
        let hint = match error {
            InviteError::Scheme => "paste all of what `i2planctl invite create` printed on the other node",
            InviteError::Truncated { .. } | InviteError::Damaged => "copy it whole, or send it as a file",
            InviteError::Version(_) => {
                "install the version of i2plan that the other node runs, or a newer one"
            }
            InviteError::Outdated(_) => {
                "the inviter has to run this version: `i2planctl version` shows it here and there"
            }
        };
        Failure::invalid(error.to_string()).with_hint(hint)
    })
}

/// Whether it can be used at all: the answer comes at once here, after minutes from the other side of I2P.
fn check(invite: &Invite, now: u64) -> Result<(), Failure> {
    if invite.expires_at > now {
        return Ok(());
    }
    Err(Failure::invalid(format!(
        "the invite expired at {}, {} ago",
        utc(invite.expires_at),
        units::duration(now - invite.expires_at)
    ))
    .with_hint(format!(
        "have a new one made; if it should still be good, the clock may be wrong: it is {} here",
        utc(now)
    )))
}

async fn read_code(file: Option<&Path>) -> Result<Zeroizing<String>, Failure> {
    match file {
        Some(path) if path != Path::new("-") => {
            let unreadable =
                |error: io::Error| Failure::invalid(format!("cannot read {}: {error}", path.display()));
            read_text(File::open(path).map_err(unreadable)?).map_err(unreadable)
        }
        None if io::stdin().is_terminal() => prompt().await,
        _ => read_text(io::stdin().lock())
            .map_err(|error| Failure::invalid(format!("cannot read standard input: {error}"))),
    }
}

fn read_text(input: impl Read) -> io::Result<Zeroizing<String>> {
    // Read into a buffer that does not grow: growing leaves copies behind.
    let mut text = Zeroizing::new(String::with_capacity(MAX_INPUT as usize + 1));
    input.take(MAX_INPUT + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_INPUT {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is far too long to be an invite code"));
    }
    Ok(text)
}

/// Asks on the terminal, which does not show what is typed. A code that comes in several lines is read to its end: what
/// is left unread is run by the shell.
async fn prompt() -> Result<Zeroizing<String>, Failure> {
    let begin = || {
        let silence = Silence::new()?;
        let _ = write!(io::stderr(), "Invite code (it is not shown): ");
        Ok(silence)
    };
    let text = on_terminal(begin, || {
        let mut text = Zeroizing::new(String::with_capacity((MAX_INPUT + MAX_LINE) as usize));
        let mut has_asked = false;
        while (text.len() as u64) < MAX_INPUT && text.parse::<Invite>().is_err() {
            let before = text.len();
            io::stdin().lock().take(MAX_LINE).read_line(&mut text)?;
            if text.len() == before {
                break;
            }
            // A text that is pasted may have a blank line in it, and goes on without delay.
            let is_blank = text[before..].trim().is_empty();
            if is_blank && !more_follows()? {
                break;
            }
            let is_incomplete = !is_blank && text.parse::<Invite>().is_err();
            if is_incomplete && !more_follows()? && !std::mem::replace(&mut has_asked, true) {
                let _ = write!(io::stderr(), "\nthis is no whole code yet: paste the rest, or press Enter: ");
            }
        }
        let mut rest = Zeroizing::new(String::with_capacity(MAX_LINE as usize));
        while more_follows()? && io::stdin().lock().take(MAX_LINE).read_line(&mut rest)? > 0 {
            rest.zeroize();
        }
        Ok(text)
    });
    let text = text.await;
    output::note("");
    text
}

/// Whether there is more to read from standard input, or will be in a moment.
fn more_follows() -> io::Result<bool> {
    let stdin = io::stdin();
    let timeout = rustix::event::Timespec::try_from(PASTE_GAP).ok();
    let mut watched = [PollFd::new(&stdin, PollFlags::IN)];
    match poll(&mut watched, timeout.as_ref()) {
        Err(Errno::INTR) => Ok(false),
        answer => Ok(answer? > 0),
    }
}

/// Reads a line from a terminal, or else from standard input.
async fn read_line<T>(
    terminal: Option<File>,
    begin: impl FnOnce() -> io::Result<T>,
) -> Result<Zeroizing<String>, Failure> {
    let read = move || {
        let mut line = Zeroizing::new(String::with_capacity(MAX_LINE as usize + 1));
        match terminal {
            Some(terminal) => BufReader::new(terminal).take(MAX_LINE).read_line(&mut line)?,
            None => io::stdin().lock().take(MAX_LINE).read_line(&mut line)?,
        };
        Ok(line)
    };
    on_terminal(begin, read).await
}

/// Reads from a person, who can call it off with Ctrl-C. What `begin` returns is kept until it has been read.
async fn on_terminal<T>(
    begin: impl FnOnce() -> io::Result<T>,
    read: impl FnOnce() -> io::Result<Zeroizing<String>> + Send + 'static,
) -> Result<Zeroizing<String>, Failure> {
    let failed = |error: io::Error| Failure::invalid(format!("cannot read from the terminal: {error}"));
    let interrupt = output::interrupt()?;
    let begun = begin().map_err(failed)?;
    // A thread of its own, which an interrupt can leave behind: a blocked read cannot be called off.
    let (sender, receiver) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || _ = sender.send(read()));
    let text = tokio::select! {
        text = receiver => text.map_err(|_| Failure::internal("lost the terminal"))?.map_err(failed),
        () = interrupt => Err(Failure::invalid("interrupted; nothing was joined")),
    };
    drop(begun);
    text
}

/// What has come of the wait for the first tunnel.
enum FirstTunnel {
    Up,
    NotYet,
    /// This fault keeps it from coming.
    Obstructed(Warning),
}

/// What keeps every tunnel of the node from coming up, if something does.
fn find_obstacle(status: &Status) -> Option<Warning> {
    let daemons = status.daemons.iter().filter_map(of_a_daemon);
    // One that is silent is replaced, and one that is opened needs time.
    let down = (status.sam.data.state == SessionState::Down).then(|| of_the_sessions(status));
    daemons.chain(of_the_interface(status)).chain(down.into_iter().flatten()).next()
}

/// Shows on standard error how far the node is.
struct Progress {
    show: Show,
    started: Instant,
    /// None if the node does not stream events.
    events: Option<EventStream>,
    connected: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Show {
    Nothing,
    /// A line for each step.
    Lines,
    /// And one that moves, on a terminal.
    Spinner,
}

impl Progress {
    /// Begins before the node does, so that no step is missed.
    async fn begin(json: bool, what: &str, mut events: EventStream) -> Self {
        let terminal =
            io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        let show = match (json, terminal) {
            (true, _) => Show::Nothing,
            (false, false) => Show::Lines,
            (false, true) => Show::Spinner,
        };
        let begun = show != Show::Nothing && events.next().await == Notice::Resync;
        if show != Show::Nothing {
            output::note(&format!("{what}; this can take some minutes"));
        }
        Self { show, started: Instant::now(), events: begun.then_some(events), connected: false }
    }

    /// Waits for the node's answer. An interrupt ends the waiting, and not what the node does.
    async fn during<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Failure> {
        let mut work = std::pin::pin!(work);
        let mut interrupt = std::pin::pin!(output::interrupt()?);
        let result = loop {
            tokio::select! {
                biased;
                result = &mut work => break Ok(result),
                () = &mut interrupt => break Err(Failure::invalid("interrupted, but the node goes on joining")
                    .with_hint(
                        "`i2planctl join` with the same code shows how far it is, and `i2planctl status` whether it \
                         is a member",
                    )),
                () = self.proceed() => {}
            }
        };
        self.erase();
        result
    }

    /// Waits for a while until there is a tunnel, if the node tells, or it says why there can be none.
    async fn wait_for_tunnel(&mut self, node: &mut Node) -> Result<FirstTunnel, Failure> {
        if self.connected || self.events.is_none() {
            return Ok(if self.connected { FirstTunnel::Up } else { FirstTunnel::NotYet });
        }
        let mut interrupt = std::pin::pin!(output::interrupt()?);
        // The steps before this one are told a moment after the answer.
        let mut limit = LAST_STEPS;
        let mut obstacle = None;
        let end = Instant::now() + FIRST_TUNNEL;
        while !self.connected {
            let mut deadline = std::pin::pin!(sleep(limit));
            while !self.connected {
                tokio::select! {
                    () = &mut deadline => break,
                    () = &mut interrupt => {
                        self.erase();
                        return Ok(FirstTunnel::NotYet);
                    }
                    () = self.proceed() => {}
                }
            }
            self.erase();
            if self.connected {
                break;
            }
            if limit == LAST_STEPS {
                output::note(WAITING);
            }
            // A fault that is there twice in a row is none of the beginning.
            let found = node.status().await.ok().and_then(|status| find_obstacle(&status));
            if let (Some(found), true) = (&found, obstacle == found) {
                return Ok(FirstTunnel::Obstructed(found.clone()));
            }
            if Instant::now() >= end {
                return Ok(FirstTunnel::NotYet);
            }
            (obstacle, limit) = (found, BETWEEN_CHECKS);
        }
        Ok(FirstTunnel::Up)
    }

    /// Waits for what happens next, and shows it.
    async fn proceed(&mut self) {
        const FRAMES: [char; 10] = ['⠋', '⠙', '⠹', '⠸', '⠼', '⠴', '⠦', '⠧', '⠇', '⠏'];
        let elapsed = self.started.elapsed();
        let next = async {
            match &mut self.events {
                Some(events) => events.next().await,
                None => std::future::pending().await,
            }
        };
        let tick = async {
            match self.show {
                Show::Spinner => sleep(Duration::from_millis(100)).await,
                Show::Nothing | Show::Lines => std::future::pending().await,
            }
        };
        tokio::select! {
            notice = next => {
                let step = match notice {
                    Notice::Event(Event { kind: EventKind::JoinProgress { step }, .. }) => Some(step),
                    Notice::Event(Event { kind: EventKind::TunnelUp { .. }, .. }) => {
                        self.connected = true;
                        None
                    }
                    _ => None,
                };
                if let Some(step) = step {
                    self.connected |= step == JoinStep::Connected;
                    self.erase();
                    output::note(&format!("{:>5}  {}", units::duration(elapsed.as_secs()), describe_step(step)));
                }
            }
            () = tick => {
                let frame = FRAMES[(elapsed.as_millis() / 100) as usize % FRAMES.len()];
                let _ = write!(io::stderr(), "\r\x1b[K{frame} {}", units::duration(elapsed.as_secs()));
            }
        }
    }

    fn erase(&self) {
        if self.show == Show::Spinner {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use i2plan_proto::address::Ipv4Subnet;
    use i2plan_proto::destination::DestinationHash;
    use i2plan_proto::identity::{NetworkId, NodeId};
    use i2plan_proto::invite::InviteSecret;

    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn code(expires_at: u64) -> Zeroizing<String> {
        Invite {
            network: NetworkId([1; 32]),
            name: "office".parse().unwrap(),
            subnet: Ipv4Subnet::DEFAULT,
            inviter: NodeId([2; 32]),
            control: DestinationHash([3; 32]),
            secret: InviteSecret([4; 32]),
            expires_at,
        }
        .to_code()
    }

    #[test]
    fn an_expired_invite_says_when_and_suspects_the_clock() {
        let check = |expires_at| check(&parse(&code(expires_at)).unwrap(), NOW);
        let failure = check(NOW - 7200).unwrap_err();
        assert_eq!(failure.message, "the invite expired at 2027-01-15T06:00:00Z, 2h ago");
        assert!(failure.hint.unwrap().ends_with("the clock may be wrong: it is 2027-01-15T08:00:00Z here"));
        assert!(check(NOW).is_err());
        assert!(check(NOW + 1).is_ok());
    }

    #[test]
    fn what_is_no_code_is_named() {
        let code = code(NOW + 1);
        for (text, message) in [
            ("https://example.org/", "this is not an invite code"),
            (&code[..code.len() - 7], "the invite code is truncated: 7 of its"),
            (&code.replace("i2plan://", "i2plan://A"), "the invite code is damaged"),
            ("i2plan://AQAA", "the invite code has version 1, of an earlier version"),
        ] {
            let failure = parse(text).unwrap_err();
            assert!(failure.message.starts_with(message), "{}", failure.message);
            assert_eq!(failure.exit_code(), 1);
            assert!(failure.hint.is_some());
        }
    }

    #[test]
    fn endless_input_is_refused() {
        assert!(read_text(io::repeat(b'a')).is_err());
        assert_eq!(read_text(&b"abc\n"[..]).unwrap().as_str(), "abc\n");
        let error = read_text(&b"\xff\xfea\0"[..]).unwrap_err().to_string();
        assert!(error.contains("UTF-8"), "{error}");
    }
}
