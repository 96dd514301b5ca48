//! `i2planctl ping`.

use std::net::IpAddr;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap_complete::engine::ArgValueCandidates;
use i2plan_ipc::api::meshd::Peer;
use i2plan_present::text::clean;
use serde::Serialize;
use tokio::time::{Instant, sleep_until};

use super::completions;
use crate::daemon;
use crate::failure::Failure;
use crate::output;
use crate::ping::echo::{PAYLOAD, Token};
use crate::ping::series::{PingAction, Plan, Series, Summary, wire};
use crate::ping::socket::EchoSocket;
use crate::ping::summary::{millis, reason, render};
use crate::values::{parse_interval, parse_time, parse_timeout};

/// What `--help` adds.
pub(crate) const HELP: &str = "\
Needs no privileges where net.ipv4.ping_group_range has the user's group, as it has on most systems, and root \
elsewhere. With an address no node needs to run here.

The exit status is 0 if anything was answered, and 1 if nothing was.

Examples:
  i2planctl ping web
  i2planctl ping web -6 -c 10 -i 0.2
  i2planctl ping web -c 1 -w 1m        # wait until it answers";

/// `i2planctl ping`
#[derive(Debug, clap::Args)]
pub struct Ping {
    /// The member: name, address, node id or the beginning of one; or any address
    #[arg(value_name = "MEMBER", add = ArgValueCandidates::new(completions::members))]
    pub target: String,

    /// Stop after so many requests; with --deadline, after so many replies [default: at Ctrl-C]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub count: Option<u32>,

    /// Time between requests: 0.5, 200ms, 1s or 1m, at least 10ms
    #[arg(short, long, value_name = "TIME", default_value = "1s", value_parser = parse_interval)]
    pub interval: Duration,

    /// How long a reply may take, at most 5m
    #[arg(short = 'W', long, value_name = "TIME", default_value = "10s", value_parser = parse_timeout)]
    pub timeout: Duration,

    /// Stop after this time, whatever was answered
    #[arg(short = 'w', long, value_name = "TIME", value_parser = parse_time)]
    pub deadline: Option<Duration>,

    /// Use the member's IPv4 address
    #[arg(short = '4', long, conflicts_with = "ipv6")]
    pub ipv4: bool,

    /// Use the member's IPv6 address
    #[arg(short = '6', long)]
    pub ipv6: bool,
}

impl Ping {
    /// What is to be sent.
    #[must_use]
    pub fn plan(&self) -> Plan {
        Plan { count: self.count, interval: self.interval, timeout: self.timeout, deadline: self.deadline }
    }
}

/// Exit status if nothing has answered.
const SILENCE: u8 = 1;

/// When nothing is to be done, it is looked again after so long.
const IDLE: Duration = Duration::from_secs(3600);

/// Whom to ping.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Target {
    address: IpAddr,
    /// What the member calls itself, if it was named by something else than its address.
    name: Option<String>,
    node_id: Option<String>,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report {
    target: Target,
    #[serde(flatten)]
    summary: Summary,
    /// Seconds.
    took: f64,
}

/// Pings a member through the tunnel.
///
/// # Errors
/// If there is no such member, or this user may not send echo requests.
pub async fn run(socket: Option<&Path>, json: bool, args: &Ping) -> Result<ExitCode, Failure> {
    let (target, known) = find(socket, args).await?;
    let token = Token(
        getrandom::u64()
            .map_err(|error| Failure::internal(format!("no random numbers: {error}")))?
            .to_ne_bytes(),
    );
    let echo = EchoSocket::open(target.address, token)?;
    if !json {
        output::print(&format!("PING {}: {PAYLOAD} bytes of data\n", title(&target)))?;
    }
    let started = Instant::now();
    let mut series = Series::new(args.plan());
    series_of(&mut series, &echo, started, json.then_some(()).is_none(), target.address).await?;
    let (summary, took) = (series.summary(), started.elapsed());
    let answered = summary.received > 0;
    if json {
        output::json::print(&Report { target, summary, took: took.as_secs_f64() })?;
    } else {
        output::print(&render(&title(&target), &summary, took))?;
        if !answered {
            output::note(&format!("hint: {}", known.hint()));
        }
    }
    Ok(if answered { ExitCode::SUCCESS } else { ExitCode::from(SILENCE) })
}

/// Sends and receives until the series is done or the user wants no more.
async fn series_of(
    series: &mut Series,
    echo: &EchoSocket,
    started: Instant,
    tell: bool,
    address: IpAddr,
) -> Result<(), Failure> {
    let say = |line: String| if tell { output::print(&line) } else { Ok(()) };
    let mut interrupt = std::pin::pin!(output::interrupt()?);
    loop {
        while let Some(step) = series.on_time(started.elapsed()) {
            match step {
                PingAction::Send(number) => {
                    if let Err(error) = echo.send(wire(number)).await {
                        series.on_failed(number);
                        say(format!("not sent: seq={number}: {}\n", reason(&error)))?;
                    }
                }
                PingAction::Lost(number) => say(format!("no reply: seq={number}\n"))?,
            }
        }
        if series.is_done(started.elapsed()) || output::reader_is_gone() {
            return Ok(());
        }
        let wake = started + series.wake_at().unwrap_or_else(|| started.elapsed() + IDLE);
        tokio::select! {
            sequence = echo.receive() => {
                let sequence = sequence
                    .map_err(|error| Failure::internal(format!("cannot receive echo replies: {error}")))?;
                if let Some((number, time)) = series.on_reply(sequence, started.elapsed()) {
                    say(format!("reply from {address}: seq={number} time={}\n", millis(time)))?;
                }
            }
            () = &mut interrupt => return Ok(()),
            () = sleep_until(wake) => {}
        }
    }
}

/// What is known of whom is pinged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    Member,
    Banned,
    /// No member has this address.
    Stranger,
    /// The node was not asked, or does not answer.
    Unasked,
}

impl Known {
    /// What to do if it does not answer.
    fn hint(self) -> &'static str {
        match self {
            Self::Member | Self::Unasked => {
                "see `i2planctl peers` whether it is up, and `i2planctl doctor`; the first packet to a member waits \
                 for a handshake over I2P, which can take some seconds"
            }
            Self::Banned => "this node has banned it, and sends it nothing: see `i2planctl ban list`",
            Self::Stranger => "no member that is known has this address: see `i2planctl peers`",
        }
    }
}

impl From<&Peer> for Known {
    fn from(peer: &Peer) -> Self {
        if peer.banned { Self::Banned } else { Self::Member }
    }
}

/// Whose address it is. The ping goes there whatever the node says.
async fn look_up(socket: Option<&Path>, address: IpAddr) -> Result<Known, Failure> {
    let mut node = daemon::connect(socket).await?;
    let own = node.status().await?.network;
    if own.is_some_and(|own| address == IpAddr::V4(own.ipv4) || address == IpAddr::V6(own.ipv6)) {
        return Ok(Known::Unasked);
    }
    let peers = node.peers().await?;
    let peer = peers.iter().find(|peer| address == IpAddr::V4(peer.ipv4) || address == IpAddr::V6(peer.ipv6));
    Ok(peer.map_or(Known::Stranger, Known::from))
}

/// The address that is meant, and whose it is.
async fn find(socket: Option<&Path>, args: &Ping) -> Result<(Target, Known), Failure> {
    if let Ok(address) = args.target.parse::<IpAddr>() {
        if (args.ipv4 && address.is_ipv6()) || (args.ipv6 && address.is_ipv4()) {
            return Err(Failure::usage(format!("{address} is an address of the other kind"))
                .with_hint("leave out -4 and -6 with an address"));
        }
        let known = look_up(socket, address).await.unwrap_or(Known::Unasked);
        return Ok((Target { address, name: None, node_id: None }, known));
    }
    let mut node = daemon::connect(socket).await?;
    let member = node.find_member(&args.target).await?;
    let known = Known::from(&member);
    let address = if args.ipv6 { IpAddr::V6(member.ipv6) } else { IpAddr::V4(member.ipv4) };
    Ok((Target { address, name: Some(member.name), node_id: Some(member.node_id) }, known))
}

fn title(target: &Target) -> String {
    match &target.name {
        Some(name) => format!("{} ({})", clean(name), target.address),
        None => target.address.to_string(),
    }
}
