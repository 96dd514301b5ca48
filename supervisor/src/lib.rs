//! Runs the daemons of one node on a machine without systemd.
//!
//! * [`backoff`]: when a daemon that has ended is started again.
//! * [`users`]: whom the daemons run as.
//! * [`layout`]: directories and sockets, and who may use them.
//! * [`daemon`]: one daemon's process.
//! * [`launch`]: the steps between its start and its becoming the daemon.
//! * [`ear`]: what a daemon tells, and what it has kept.
//! * [`event`]: what is told to the user.
//! * [`relay`]: the way of the daemons' lines to a terminal; [`log`]: the file that they may go to.

use std::ffi::{OsStr, OsString};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use i2plan_ipc::passphrase::Passphrase;
use nix::sys::signal::Signal;
use tokio::signal::unix::{self, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::failure::Failure;
use daemon::{Daemon, Goal, find_program};
use ear::Ear;
use event::{Event, Events};
use layout::{Directories, NotifySocket, Socket, Sockets};
use log::LogFile;
use users::{Account, Accounts};

pub mod backoff;
pub mod daemon;
pub mod ear;
pub mod event;
pub mod launch;
pub mod layout;
pub mod log;
pub mod relay;
pub mod users;

/// A node to run.
#[derive(Debug)]
pub struct Node {
    /// The configuration file, for `meshd`, `rpcd` and `routerd`.
    pub config: Option<PathBuf>,
    /// Where the daemons keep their state.
    pub data: PathBuf,
    /// Where their sockets are.
    pub run: PathBuf,
    /// Whom they run as.
    pub accounts: Accounts,
    /// The group that may control the node, 0 for root alone.
    pub group: u32,
    /// The router's SAM bridge.
    pub sam_address: SocketAddr,
    /// That bridge's UDP port.
    pub sam_udp_port: u16,
    /// Hops of its tunnels, in each direction.
    pub tunnel_length: u8,
    /// The name of the interface.
    pub interface: String,
    /// Whether the interface may have addresses that the host uses otherwise.
    pub allow_overlap: bool,
    /// Whether `rpcd` may give orders.
    pub rpc_orders: bool,
    /// Where `rpcd` listens, if it runs; a relative path is below `run`.
    pub rpc_socket: PathBuf,
    /// The passphrase of `keyd`'s keys.
    pub passphrase: Option<Passphrase>,
    /// How the daemons' log lines look, if the environment does not say.
    pub log_format: Option<&'static str>,
    /// How long `meshd` may take to tell others that the node stops.
    pub shutdown_timeout: Duration,
    /// How long `tund` may take after that to send the packets that wait.
    pub drain_timeout: Duration,
}

/// Runs a node until a signal stops it.
///
/// # Errors
/// If it cannot be started, or one of its daemons refuses its configuration.
pub async fn run(node: &Node, events: &Events, log: Option<&LogFile>) -> Result<(), Failure> {
    let mut signals = Signals::new()?;
    let launcher = std::env::current_exe()
        .map_err(|error| Failure::internal(format!("cannot find this program's own file: {error}")))?;
    let directories = Directories::prepare(&node.data, &node.run, &node.accounts)?;
    // Removed when this returns, after all daemons have.
    let (accounts, rpc) = (&node.accounts, &node.rpc_socket);
    let sockets = Sockets::listen(&directories.run, rpc, accounts, node.group, node.rpc_orders).await?;

    let (failed, mut failure) = mpsc::channel(1);
    let (hangup, _) = watch::channel(());
    let mut running = Vec::new();
    for daemon in daemons(node, &directories, &sockets, &launcher, &hangup)? {
        running.push(Running::start(daemon, events.clone(), failed.clone()));
    }
    drop(failed);

    let result = loop {
        tokio::select! {
            signal = signals.next() => match signal {
                Received::Hangup => {
                    let reopened = log.map_or(Ok(()), LogFile::reopen);
                    let error = reopened.err().map(|error| format!("the log file cannot be opened again, and the old one is used: {error}"));
                    events.tell(&Event::Reloading { error });
                    hangup.send_replace(());
                }
                Received::Interrupt => {
                    events.tell(&Event::Stopping { reason: "SIGINT came".to_owned() });
                    break Ok(());
                }
                Received::Terminate => {
                    events.tell(&Event::Stopping { reason: "SIGTERM came".to_owned() });
                    break Ok(());
                }
            },
            Some(failure) = failure.recv() => {
                events.tell(&Event::Stopping { reason: failure.message.clone() });
                break Err(failure);
            }
        }
    };
    stop(running, signals).await;
    result
}

/// The daemons, in the order of their start: who is asked starts before who asks.
fn daemons(
    node: &Node,
    directories: &Directories,
    sockets: &Sockets,
    launcher: &Path,
    hangup: &watch::Sender<()>,
) -> Result<Vec<Daemon>, Failure> {
    let Accounts { keyd, meshd, tund, connector, rpc, router } = node.accounts;
    let meshd_uid = meshd.uid.to_string();
    let (sam_address, sam_udp_port) = (node.sam_address.to_string(), node.sam_udp_port.to_string());
    let mut for_keyd = words(&[
        (&"--store", &directories.data.join("keyd")),
        (&"--sam-address", &sam_address),
        (&"--sam-udp-port", &sam_udp_port),
        (&"--tunnel-length", &node.tunnel_length.to_string()),
        (&"--meshd-user", &meshd_uid),
        (&"--tund-user", &tund.uid.to_string()),
        (&"--connector-user", &connector.uid.to_string()),
    ]);
    if let Some(rpc) = rpc {
        for_keyd.extend(words(&[(&"--rpc-user", &rpc.uid.to_string())]));
    }
    if let Some(router) = router {
        for_keyd.extend(words(&[(&"--refuse", &router.uid.to_string())]));
    }
    if node.rpc_orders {
        for_keyd.extend(words(&[(&"--rpc-orders", &"true")]));
    }
    if node.passphrase.is_some() {
        for_keyd.extend(words(&[(&"--passphrase-fd", &"0")]));
    }
    let for_connector = words(&[
        (&"--sam-address", &sam_address),
        (&"--sam-udp-port", &sam_udp_port),
        (&"--keyd-socket", &sockets.keyd_connector.path),
    ]);
    let mut for_tund = words(&[
        (&"--keyd-socket", &sockets.keyd_tund.path),
        (&"--meshd-user", &meshd_uid),
        (&"--sam-address", &sam_address),
        (&"--sam-udp-port", &sam_udp_port),
        (&"--interface", &node.interface),
    ]);
    if node.allow_overlap {
        for_tund.extend(words(&[(&"--allow-overlap", &"true")]));
    }
    let mut for_meshd = words(&[
        (&"--state", &directories.data.join("meshd")),
        (&"--keyd-socket", &sockets.keyd_meshd.path),
        (&"--tund-socket", &sockets.tund.path),
    ]);
    let mut for_rpcd =
        words(&[(&"--state", &directories.data.join("rpc")), (&"--meshd-socket", &sockets.meshd.path)]);
    for_rpcd.extend(words(&[(&"--keyd-socket", &sockets.keyd_control.path)]));
    let mut for_routerd = words(&[(&"--state", &directories.data.join("routerd"))]);
    if let Some(config) = &node.config {
        // A daemon works in the root directory.
        let config = std::path::absolute(config)
            .map_err(|error| Failure::invalid(format!("--config is no path: {error}")))?;
        for_meshd.extend(words(&[(&"--config", &config)]));
        for_rpcd.extend(words(&[(&"--config", &config)]));
        for_routerd.extend(words(&[(&"--config", &config)]));
    }
    let daemon = |name, user, sockets: &[(&'static str, &Socket)], arguments| {
        let share = |(name, socket): &(_, &Socket)| socket.share().map(|fd| (*name, fd));
        Ok::<_, Failure>(Daemon {
            name,
            program: find_program(launcher, &OsString::from(format!("i2plan-{name}")))?,
            arguments,
            user,
            net_admin: name == "tund",
            sockets: sockets.iter().map(share).collect::<Result<_, Failure>>()?,
            ear: Ear::new(NotifySocket::bind(directories.run.join(format!("{name}.notify")), user)?),
            // For tund any other end is a restart, before which it leaves open what it has kept.
            farewell: if name == "tund" { Signal::SIGINT } else { Signal::SIGTERM },
            log_format: node.log_format,
            passphrase: node.passphrase.clone().filter(|_| name == "keyd"),
            last_work: match name {
                "meshd" => node.shutdown_timeout,
                "tund" => node.drain_timeout,
                _ => Duration::ZERO,
            },
            launcher: launcher.to_owned(),
            hangup: (name == "meshd").then(|| hangup.subscribe()),
        })
    };
    let mut daemons = Vec::new();
    if let Some(router) = router {
        daemons.push(daemon("routerd", router, &[], for_routerd)?);
    }
    let of_keyd = [
        ("meshd", &sockets.keyd_meshd),
        ("tund", &sockets.keyd_tund),
        ("connector", &sockets.keyd_connector),
        ("control", &sockets.keyd_control),
    ];
    daemons.extend([
        daemon("keyd", keyd, &of_keyd, for_keyd)?,
        daemon("connector", connector, &[], for_connector)?,
        daemon("tund", tund, &[("listener", &sockets.tund)], for_tund)?,
        daemon("meshd", meshd, &[("listener", &sockets.meshd)], for_meshd)?,
    ]);
    if let (Some(rpc), Some(socket)) = (rpc, &sockets.rpc) {
        // As a member of the control group, which is how it gets in at meshd.
        let gid = if node.group == 0 { rpc.gid } else { node.group };
        daemons.push(daemon("rpcd", Account { gid, ..rpc }, &[("listener", socket)], for_rpcd)?);
    }
    Ok(daemons)
}

/// Options and their values as arguments.
fn words(options: &[(&dyn AsRef<OsStr>, &dyn AsRef<OsStr>)]) -> Vec<OsString> {
    options
        .iter()
        .flat_map(|(option, value)| [option.as_ref().to_owned(), value.as_ref().to_owned()])
        .collect()
}

/// Stops them one after the other, the last that was started first. An interrupt while that goes on is a person
/// at a keyboard who does not want to wait; other signals are also sent twice without meaning anything by it.
async fn stop(mut running: Vec<Running>, mut signals: Signals) {
    while let Some(mut daemon) = running.pop() {
        daemon.goal.send_if_modified(|goal| {
            let shall_stop = *goal == Goal::Run;
            if shall_stop {
                *goal = Goal::Stop;
            }
            shall_stop
        });
        loop {
            tokio::select! {
                _ = &mut daemon.task => break,
                signal = signals.next() => if signal == Received::Interrupt {
                    for daemon in running.iter().chain([&daemon]) {
                        daemon.goal.send_replace(Goal::Kill);
                    }
                }
            }
        }
    }
}

/// A daemon that is being supervised.
struct Running {
    goal: watch::Sender<Goal>,
    task: JoinHandle<()>,
}

impl Running {
    fn start(daemon: Daemon, events: Events, failed: mpsc::Sender<Failure>) -> Self {
        let (goal, shall) = watch::channel(Goal::Run);
        let name = daemon.name;
        let supervising = tokio::spawn(daemon.supervise(shall, events));
        let task = tokio::spawn(async move {
            // A panic ends the daemon's process too, which a node cannot be left without.
            let result = supervising.await.unwrap_or_else(|error| {
                Err(Failure::internal(format!("the supervision of {name} failed: {error}")))
            });
            if let Err(failure) = result {
                // Full if another has failed before: one is enough to stop all.
                let _ = failed.try_send(failure);
            }
        });
        Self { goal, task }
    }
}

/// The signals that a supervisor takes.
struct Signals {
    interrupt: unix::Signal,
    terminate: unix::Signal,
    hangup: unix::Signal,
}

impl Signals {
    fn new() -> Result<Self, Failure> {
        let listen = |kind| {
            signal(kind).map_err(|error| Failure::internal(format!("cannot listen for signals: {error}")))
        };
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Received {
        tokio::select! {
            _ = self.interrupt.recv() => Received::Interrupt,
            _ = self.terminate.recv() => Received::Terminate,
            _ = self.hangup.recv() => Received::Hangup,
        }
    }
}

/// A signal that came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Received {
    Interrupt,
    Terminate,
    Hangup,
}
