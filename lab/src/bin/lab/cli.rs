//! The command line: the demo, the benchmark, and what they are made of.

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use i2plan_ipc::Role;
use lab::demo::Options;
use lab::i2p::LOG_VARIABLE;
use lab::i2p::kind::{ROUTER_VARIABLE, Routers};
use lab::node::PROGRAMS_VARIABLE;
use lab::{
    Failure, attack, bench, bench_ctl, bench_null, bench_path, build, copy_tunnel, demo, i2p, intruder, load,
    machines, probe, process, sandbox, sim, sizes, soak, systemd,
};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// Exit status if the machine lacks something.
const LACKING: u8 = 3;

/// What `soak` judges.
const SOAK_HELP: &str = "The exit status is 1 if an outage lasts more than 15 s after its fault is over (for a router or \
    a node that starts: after the router's bridge accepts a session), less what routers take to open sessions, if memory or descriptors of a daemon grow in every \
    quarter of a run of half an hour or more, if a daemon exits unexpectedly or panics, or if a transfer has a wrong hash.";

/// i2plan's laboratory: nodes of real daemons on a private network of real I2P routers, in namespaces that
/// are gone when it ends.
#[derive(Parser)]
#[command(
    version,
    after_help = "Needs root, or user namespaces with a range in /etc/subuid; and /dev/net/tun.\n\
                  Exit status: 0 it worked, 1 it did not, 2 wrong usage, 3 the machine lacks something."
)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start nodes, join them by invite, send traffic between all of them, take everything down
    Demo {
        /// How many nodes
        #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(2..=20))]
        nodes: u8,
        /// Hops of their tunnels; emissary takes 1 or more
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(0..=7))]
        tunnel_length: u8,
        #[command(flatten)]
        router: RouterOption,
        /// Leave it running at the end, until Ctrl-C
        #[arg(long)]
        keep: bool,
        /// Print the result for a program
        #[arg(long)]
        json: bool,
    },
    /// Start an I2P network with machines on it, and no nodes: to run those by hand
    Network {
        /// How many machines
        #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=20))]
        machines: u8,
        #[command(flatten)]
        router: RouterOption,
    },
    /// Compare the tunnel with what the I2P routers can carry
    Bench {
        /// Measure bare repliable datagrams of different sizes instead, alone and beside other traffic
        #[arg(long)]
        sizes: bool,
        /// The MTU of both nodes' interfaces, in place of the default. On an emulated path losses are then those of the
        /// messages of about 1 KB that I2P cuts datagrams into
        #[arg(long, conflicts_with = "sizes", value_parser = clap::value_parser!(u16).range(1280..=7200))]
        mtu: Option<u16>,
        /// Measure the tunnel over an emulated path instead, which is not I2P
        #[arg(long, value_enum, group = "timed", conflicts_with = "sizes")]
        path: Option<bench_path::PathName>,
        /// Measure the tunnel over a bridge that only copies instead, beside a tunnel that only copies, boringtun and
        /// wireguard-go
        #[arg(long, group = "timed", conflicts_with_all = ["sizes", "router"])]
        null: bool,
        /// How long each load lasts on an emulated path [default: 60; some paths take longer], or each connection with
        /// --null [default: 10]
        #[arg(long, requires = "timed", value_parser = clap::value_parser!(u64).range(6..=600))]
        seconds: Option<u64>,
        /// How often everything is measured in turn, for medians [default: 1; with --null: 3]
        #[arg(long, conflicts_with_all = ["path", "sizes"], value_parser = clap::value_parser!(u32).range(1..=20))]
        alternations: Option<u32>,
        /// The queue of the emulated path, in seconds at its rate [default: 1; `lab`: 0.1]
        #[arg(long, requires = "path", value_parser = queue)]
        queue: Option<f64>,
        /// A load that is measured on the emulated path; several can be given [default: all that the path has]
        #[arg(long = "load", requires = "path", value_parser = bench_path::load_names())]
        loads: Vec<String>,
        /// Draw what happened over time on the emulated path, as SVG
        #[arg(long, requires = "path", value_name = "FILE")]
        plot: Option<PathBuf>,
        /// All chance on the emulated path follows from it
        #[arg(long, default_value_t = 1, requires = "path", value_parser = clap::value_parser!(u64).range(..=u64::from(u32::MAX)))]
        seed: u64,
        /// With how many seeds the emulated path is measured, for medians: `--seed` and those after it
        #[arg(long, default_value_t = 1, requires = "path", value_parser = clap::value_parser!(u32).range(1..=20))]
        seeds: u32,
        #[command(flatten)]
        router: RouterOption,
        /// Print the result for a program
        #[arg(long)]
        json: bool,
    },
    /// Measure how long i2planctl takes with a node that knows a thousand members
    BenchCtl {
        /// Print the result for a program
        #[arg(long)]
        json: bool,
    },
    /// Join a private network as a member that attacks it in every way that is known, and see that none has an effect
    Attack {
        /// Print one JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Simulate a large mesh in virtual time: the daemon's own core, on a modelled I2P
    Sim {
        /// Members at the beginning
        #[arg(long, default_value_t = 200)]
        nodes: usize,
        /// Everything that happens follows from it
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// How likely a datagram is lost, 0 to 0.9
        #[arg(long, default_value_t = 0.02)]
        loss: f64,
        /// What happens
        #[arg(long, value_enum, default_value_t = sim::Scenario::Calm)]
        scenario: sim::Scenario,
        /// How many minutes each thing that happens is given
        #[arg(long, default_value_t = 8)]
        pause: u32,
        /// How many members lie in `malicious`: 1 to half of them [default: 20, or a fifth if that is less]
        #[arg(long)]
        liars: Option<usize>,
        /// Print the result for a program
        #[arg(long)]
        json: bool,
    },
    /// Keep a private network under traffic, inject faults at random, and report outages, growth and crashes
    #[command(after_help = SOAK_HELP)]
    Soak {
        #[command(flatten)]
        options: soak::Options,
        #[command(flatten)]
        router: RouterOption,
    },
    /// Install the packages on real systems under systemd, and see what restarts, upgrades and faults do to traffic
    Systemd(systemd::Options),
    /// Run a program in the sandbox, which it must enter by itself
    #[command(name = "__sandbox", hide = true)]
    Sandbox {
        program: PathBuf,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Run a program in a node's network namespace
    #[command(name = "__in", hide = true)]
    In {
        namespace: String,
        program: OsString,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Run a shell, or another program, on a machine of `network`
    #[command(name = "__machine", hide = true)]
    Machine {
        machine: String,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<OsString>,
    },
    /// Be the first process of a machine of `network`
    #[command(name = "__init", hide = true)]
    Init,
    /// Run I2P routers
    #[command(name = "__router", hide = true)]
    Router { config: PathBuf },
    /// Try something that a daemon's sandbox forbids
    #[command(name = "__intrude", hide = true)]
    Intrude(intruder::Intrusion),
    #[command(name = "__serve-tcp", hide = true)]
    ServeTcp { address: SocketAddr },
    #[command(name = "__send-tcp", hide = true)]
    SendTcp {
        address: SocketAddr,
        bytes: u64,
        #[arg(long)]
        rate: Option<u32>,
    },
    #[command(name = "__udp-sink", hide = true)]
    UdpSink { address: SocketAddr },
    #[command(name = "__udp-source", hide = true)]
    UdpSource {
        address: SocketAddr,
        len: usize,
        seconds: u64,
        #[arg(long)]
        rate: Vec<u32>,
    },
    #[command(name = "__tcp-sink", hide = true)]
    TcpSink { address: SocketAddr, warm: u64, seconds: u64 },
    #[command(name = "__udp-count", hide = true)]
    UdpCount { address: SocketAddr, warm: u64, seconds: u64 },
    #[command(name = "__tcp-source", hide = true)]
    TcpSource { address: SocketAddr, flows: usize, congestion: String, seconds: u64 },
    #[command(name = "__has-congestion-control", hide = true)]
    HasCongestionControl { name: String },
    #[command(name = "__udp-echo", hide = true)]
    UdpEcho { address: SocketAddr },
    #[command(name = "__udp-ping", hide = true)]
    UdpPing { address: SocketAddr, every_ms: u64, seconds: u64 },
    #[command(name = "__copy-tunnel", hide = true)]
    CopyTunnel { name: String, address: Ipv4Addr, mtu: u16 },
    #[command(name = "__raw-sink", hide = true)]
    RawSink,
    #[command(name = "__raw-ping", hide = true)]
    RawPing { destination: String },
    #[command(name = "__datagram-echo", hide = true)]
    DatagramEcho,
    #[command(name = "__datagram-source", hide = true)]
    DatagramSource {
        // A destination is base64 of I2P's alphabet, which has the hyphen.
        #[arg(allow_hyphen_values = true)]
        destination: String,
    },
    /// Try what an intruder would, as this user and group
    #[command(name = "__attack-ipc", hide = true)]
    AttackIpc {
        uid: u32,
        gid: u32,
        /// The directory of a node's sockets
        run: PathBuf,
        #[command(subcommand)]
        attack: IpcAttack,
    },
    #[command(name = "__attack-control", hide = true)]
    AttackControl,
    #[command(name = "__attack-data", hide = true)]
    AttackData,
    #[command(name = "__raw-source", hide = true)]
    RawSource {
        #[arg(allow_hyphen_values = true)]
        destination: String,
        len: usize,
        seconds: u64,
        #[arg(long)]
        rate: Vec<u32>,
    },
}

/// Which routers a command starts.
#[derive(clap::Args)]
struct RouterOption {
    /// The I2P routers of the network [default: I2PLAN_LAB_ROUTER, or else emissary]
    #[arg(long, value_enum)]
    router: Option<Routers>,
}

#[derive(Subcommand)]
enum IpcAttack {
    Knock,
    AskAsMeshd,
    ReplayAsMeshd,
    AskTundAsMeshd { network: String },
    AskAsTund,
    AskAsConnector,
    Siege { daemon: Daemon, role: Daemon },
    Watch { daemon: Daemon, role: Daemon },
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Daemon {
    Keyd,
    Meshd,
    Tund,
    Client,
}

impl From<Daemon> for Role {
    fn from(daemon: Daemon) -> Self {
        match daemon {
            Daemon::Keyd => Self::Keyd,
            Daemon::Meshd => Self::Meshd,
            Daemon::Tund => Self::Tund,
            Daemon::Client => Self::Client,
        }
    }
}

/// Runs the program.
pub(crate) fn run() -> ExitCode {
    let args = Args::parse();
    match args.command {
        Command::Demo { router, .. }
        | Command::Network { router, .. }
        | Command::Bench { router, .. }
        | Command::Soak { router, .. }
            if !sandbox::is_inner() =>
        {
            outer(router.router)
        }
        Command::BenchCtl { .. } | Command::Attack { .. } if !sandbox::is_inner() => outer(None),
        Command::Demo { nodes, tunnel_length, router: _, keep, json } => {
            inner(demo::run(Options { nodes, tunnel_length, keep, json }))
        }
        Command::Network { machines, router: _ } => inner(machines::run(machines)),
        Command::Bench { path: Some(path), mtu, seconds, queue, loads, plot, seed, seeds, json, .. } => {
            let seconds = seconds.unwrap_or(60);
            let options = bench_path::Options { path, mtu, seconds, queue, seed, seeds, loads, plot, json };
            inner(bench_path::run(options))
        }
        Command::Bench { null: true, mtu, seconds, alternations, json, .. } => {
            let (seconds, alternations) = (seconds.unwrap_or(10), alternations.unwrap_or(3));
            inner(bench_null::run(bench_null::Options { mtu, seconds, alternations, json }))
        }
        Command::Bench { sizes: false, mtu, alternations, json, .. } => {
            inner(bench::run(mtu, alternations.unwrap_or(1), json))
        }
        Command::Bench { sizes: true, json, .. } => inner(sizes::run(json)),
        Command::BenchCtl { json } => inner(bench_ctl::run(json)),
        Command::Attack { json } => inner(attack::mesh::run(json)),
        Command::Soak { options, router: _ } => in_sandbox(soak::run(options)),
        Command::Systemd(options) if !sandbox::is_inner() => systemd_outer(&options),
        Command::Systemd(options) => inner(systemd::run(options)),
        Command::Sim { nodes, seed, loss, scenario, pause, liars, json } => {
            end(simulate(sim::Options { nodes, seed, loss, scenario, pause, liars }, json))
        }
        Command::Sandbox { program, args } => sandboxed(&program, &args, &[]),
        Command::In { namespace, program, args } => end(Err(process::become_in(&namespace, &program, &args))),
        Command::Machine { machine, command } => match machines::run_on(&machine, &command) {
            // As a shell tells it.
            Ok(status) => {
                let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
                ExitCode::from(u8::try_from(code).unwrap_or(1))
            }
            Err(failure) => end(Err(failure)),
        },
        Command::Init => end(machines::init()),
        Command::Router { config } => end(router(&config)),
        Command::Intrude(intrusion) => end(intruder::run(&intrusion)),
        Command::ServeTcp { address } => end(probe::serve_tcp(address)),
        Command::SendTcp { address, bytes, rate } => end(probe::send_tcp(address, bytes, rate)),
        Command::UdpSink { address } => end(probe::udp_sink(address)),
        Command::UdpSource { address, len, seconds, rate } => {
            end(block_on(probe::udp_source(address, len, &rate, Duration::from_secs(seconds))))
        }
        Command::TcpSink { address, warm, seconds } => {
            end(load::tcp_sink(address, Duration::from_secs(warm), Duration::from_secs(seconds)))
        }
        Command::UdpCount { address, warm, seconds } => {
            end(load::udp_count(address, Duration::from_secs(warm), Duration::from_secs(seconds)))
        }
        Command::TcpSource { address, flows, congestion, seconds } => {
            end(load::tcp_source(address, flows, &congestion, Duration::from_secs(seconds)))
        }
        Command::HasCongestionControl { name } => end(load::has_congestion_control(&name)),
        Command::UdpEcho { address } => end(load::udp_echo(address)),
        Command::UdpPing { address, every_ms, seconds } => {
            end(load::udp_ping(address, Duration::from_millis(every_ms), Duration::from_secs(seconds)))
        }
        Command::CopyTunnel { name, address, mtu } => end(block_on(copy_tunnel::run(name, address, mtu))),
        Command::RawSink => end(block_on(probe::raw_sink())),
        Command::RawPing { destination } => end(block_on(probe::raw_ping(&destination))),
        Command::DatagramEcho => end(block_on(sizes::echo())),
        Command::DatagramSource { destination } => end(block_on(sizes::source(&destination))),
        Command::AttackIpc { uid, gid, run, attack: what } => {
            end(attack_ipc(&run, what, || attack::become_user(uid, gid)))
        }
        Command::AttackControl => end(block_on(attack::network::control())),
        Command::AttackData => end(block_on(attack::network::data())),
        Command::RawSource { destination, len, seconds, rate } => {
            end(block_on(probe::raw_source(&destination, len, &rate, Duration::from_secs(seconds))))
        }
    }
}

/// Reads the length of a queue in seconds.
fn queue(text: &str) -> Result<f64, String> {
    let queue = text.parse().ok().filter(|queue| (0.01..=10.0).contains(queue));
    queue.ok_or_else(|| "must be a number of seconds from 0.01 to 10".to_owned())
}

fn simulate(options: sim::Options, json: bool) -> Result<(), Failure> {
    let started = std::time::Instant::now();
    let report = sim::run(options)?;
    if json {
        let text = serde_json::to_string_pretty(&report).map_err(|error| Failure::new(error.to_string()))?;
        println!("{text}");
    } else {
        sim::print(&report, started);
    }
    Ok(())
}

fn attack_ipc(
    run: &Path,
    what: IpcAttack,
    become_user: impl FnOnce() -> Result<(), Failure>,
) -> Result<(), Failure> {
    let to_itself = attack::ipc::ToItself::new()?;
    become_user()?;
    match what {
        IpcAttack::Knock => block_on(attack::ipc::knock(run)),
        IpcAttack::AskAsMeshd => block_on(attack::ipc::ask_keyd_as_meshd(run, &to_itself)),
        IpcAttack::ReplayAsMeshd => block_on(attack::ipc::replay_to_keyd(run)),
        IpcAttack::AskTundAsMeshd { network } => {
            block_on(attack::ipc::ask_tund_as_meshd(run, &network, &to_itself))
        }
        IpcAttack::AskAsTund => block_on(attack::ipc::ask_keyd_as_tund(run, &to_itself)),
        IpcAttack::AskAsConnector => block_on(attack::ipc::ask_keyd_as_connector(run, &to_itself)),
        IpcAttack::Siege { daemon, role } => attack::siege::lay(run, daemon.into(), role.into()),
        IpcAttack::Watch { daemon, role } => block_on(attack::siege::watch(run, daemon.into(), role.into())),
    }
}

fn end(result: Result<(), Failure>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("lab: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// Builds the daemons and runs this command again in the sandbox, where the environment names the routers.
fn outer(routers: Option<Routers>) -> ExitCode {
    let routers = match routers.map_or_else(Routers::from_env, |routers| routers.check().map(|()| routers)) {
        Ok(routers) => routers,
        Err(failure) => {
            eprintln!("lab: {failure}");
            return ExitCode::from(LACKING);
        }
    };
    eprintln!("building the daemons in the profile {}", build::PROFILE);
    let programs = build::build().and_then(|programs| {
        serde_json::to_string(&programs).map_err(|error| Failure::new(error.to_string()))
    });
    let programs = match programs {
        Ok(programs) => programs,
        Err(failure) => return end(Err(failure)),
    };
    let args: Vec<_> = std::env::args_os().skip(1).collect();
    let variables = [(PROGRAMS_VARIABLE, programs.into()), (ROUTER_VARIABLE, routers.name().into())];
    sandboxed(Path::new("/proc/self/exe"), &args, &variables)
}

/// Builds the packages and the systems that they are installed on, and runs this command again in the sandbox.
fn systemd_outer(options: &systemd::Options) -> ExitCode {
    let host = match systemd::host::prepare(options) {
        Ok(host) => host,
        Err(failure) => {
            eprintln!("lab: {failure}");
            return ExitCode::from(LACKING);
        }
    };
    let args: Vec<_> = std::env::args_os().skip(1).collect();
    let code = sandboxed(Path::new("/proc/self/exe"), &args, &host.variables());
    // Every process is gone by now; control groups are the one thing that outlives them.
    drop(host);
    code
}

fn sandboxed(program: &Path, args: &[OsString], variables: &[(&str, OsString)]) -> ExitCode {
    match sandbox::run(program, args, variables) {
        Ok(status) => {
            status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from)
        }
        Err(failure) => {
            eprintln!("lab: {failure}");
            ExitCode::from(LACKING)
        }
    }
}

/// Runs this in the sandbox until it is done, or until the user wants no more.
fn inner(work: impl Future<Output = Result<(), Failure>>) -> ExitCode {
    in_sandbox(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        tokio::select! {
            result = work => result.inspect_err(|_| sandbox::print_logs()),
            // All processes and files go with this one.
            _ = terminate.recv() => Err(Failure::new("stopped")),
            _ = interrupt.recv() => Err(Failure::new("stopped")),
        }
    })
}

/// Runs this in the sandbox; it takes the signals that end it.
fn in_sandbox(work: impl Future<Output = Result<(), Failure>>) -> ExitCode {
    match sandbox::enter() {
        Ok(()) => end(block_on(work)),
        Err(failure) => end(Err(failure.during("entering the sandbox"))),
    }
}

fn block_on(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}

fn router(config: &Path) -> Result<(), Failure> {
    let filter = std::env::var(LOG_VARIABLE).unwrap_or_else(|_| "warn".to_owned());
    let filter: Targets = filter.parse().map_err(|error| Failure::new(format!("{LOG_VARIABLE}: {error}")))?;
    let format = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(false);
    tracing_subscriber::registry().with(filter).with(format).init();
    let text = std::fs::read_to_string(config)?;
    let config = serde_json::from_str(&text).map_err(|error| Failure::new(error.to_string()))?;
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(i2p::router::run(config))
}
