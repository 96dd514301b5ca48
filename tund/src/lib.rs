//! `i2plan-tund`: carries packets between a TUN interface and the SAM bridge, inside WireGuard.
//!
//! The protocol is in [`tunnel`], which does no input or output; [`io`] moves packets, [`service`] answers
//! meshd, [`uapi`] answers `wg show`. The daemon is single-threaded: what takes time is the router, and a second
//! thread would keep the privileges that the first gives up.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use i2plan_ipc::Role;
use i2plan_ipc::access::{Access, Who};
use i2plan_ipc::api::tund::{MAX_STATIC_INTERFACE, STATIC_INTERFACE, StaticInterface};
use i2plan_ipc::daemon::activation::StoredFd;
use i2plan_ipc::daemon::notify::{Supervisor, Watchdog};
use i2plan_ipc::daemon::program::{self, End};
use i2plan_ipc::daemon::signals::Signals;
use i2plan_ipc::daemon::tasks::Tasks;
use i2plan_ipc::daemon::{activation, hardening, logging, users};
use i2plan_ipc::frame::decode_body;
use i2plan_ipc::server::{ConnectionLimits, serve};
use static_peers::StaticPeers;
use tokio::signal::unix::SignalKind;
use tokio::sync::mpsc;
use zeroize::Zeroizing;

pub mod batch;
pub mod device;
mod end_reason;
pub mod fd_store;
pub mod host;
pub mod interface;
pub mod io;
pub mod offload;
pub mod options;
pub mod path;
pub mod privileges;
pub mod readiness;
pub mod roster;
pub mod sandbox;
pub mod service;
pub mod session;
pub mod static_peers;
pub mod tunnel;
pub mod uapi;

pub use end_reason::EndReason;

/// How often it is looked whether the TUN driver has come.
const DRIVER_POLL: Duration = Duration::from_secs(2);

/// Runs the daemon until it is asked to stop.
///
/// # Errors
/// If it cannot start, or cannot go on.
pub fn run(options: &options::Options) -> Result<(), End> {
    hardening::harden()?;
    logging::init()?;
    privileges::start().map_err(EndReason::Privileges)?;
    let fixed_rate = options::fixed_rate(std::env::var_os(options::RATE_VARIABLE)).map_err(End::usage)?;
    let meshd =
        users::user_id(&options.meshd_user).map_err(|error| End::usage(format!("--meshd-user: {error}")))?;
    hardening::lock_memory();
    let supervisor = Supervisor::of_this_process();
    let activation::Passed { listener, named: for_wg, mut stored } =
        activation::passed(options.listen.as_deref(), Some(uapi::SOCKET_NAME))?;
    let configured = activation::take_named(&mut stored, STATIC_INTERFACE);
    let configured = configured.map(|fd| read_static(fd, &options.interface)).transpose()?;
    let static_peers = configured.as_ref().map(|interface| StaticPeers::new(interface.peers.clone()));
    let static_peers = static_peers.transpose().map_err(End::usage)?;
    let mut start = take_over(stored, supervisor, options, configured.as_ref())?;
    let static_device = start.static_device.take();
    let resumed = start.interface.is_some() || static_device.is_some();
    program::runtime()?.block_on(async {
        let mut signals = Signals::new()?;
        let listener = activation::into_tokio(listener)?;
        let for_wg = for_wg.map(|listener| uapi::Socket::open(listener, &options.interface)).transpose()?;
        let (fatal, mut reason) = mpsc::channel(1);
        let host = host::Host::open(options.allow_overlap)?;
        let service = service::Tund::new(
            &options.keyd_socket,
            options.interface.clone(),
            static_peers,
            options.bridge.clone(),
            supervisor,
            host,
            start,
            fatal.clone(),
        );
        let service = Arc::new(service.with_fixed_rate(fixed_rate));
        if resumed {
            sandbox::before_packets()?;
        } else {
            sandbox::before_the_interface()?;
        }
        supervisor.ready();
        if !resumed {
            watch_for_driver(fatal);
        }
        #[cfg(target_os = "linux")]
        if let Some(interface) = configured {
            let service = Arc::clone(&service);
            tokio::spawn(async move { service.run_static(interface, static_device).await });
        } else if resumed {
            let service = Arc::clone(&service);
            tokio::spawn(async move { service.resume().await });
        } else {
            supervisor.status("waiting for meshd to say what the interface is");
        }
        #[cfg(not(target_os = "linux"))]
        supervisor.status("waiting for meshd to say what the interface is");
        let mut tasks = Tasks::default();
        let access = Access::new([(Role::Meshd, Who::User(meshd))]);
        tasks.spawn("socket", serve(listener, Arc::clone(&service), access, ConnectionLimits::default()));
        if let Some(socket) = for_wg {
            tasks.spawn("WireGuard socket", socket.serve(Arc::clone(&service), 0));
        }
        let watching = Arc::clone(&service);
        tasks.spawn("host watch", async move { watching.watch_host().await });
        let watching = Arc::clone(&service);
        tasks.spawn("trust watch", async move { watching.watch_trust().await });
        let watching = Arc::clone(&service);
        tasks.spawn("member watch", async move { watching.watch_members().await });
        let mut watchdog = Watchdog::of_this_process();
        let signal = loop {
            tokio::select! {
                signal = signals.next() => break signal,
                ended = tasks.ended() => return Err(ended.into()),
                Some(reason) = reason.recv() => return Err(reason.into()),
                () = watchdog.due() => {
                    if service.works().await {
                        supervisor.alive();
                    }
                }
            }
        };
        supervisor.stopping(Duration::ZERO);
        // What is kept is for the next process: a restart ends this one with SIGTERM too. If it is the end, the supervisor
        // closes what it keeps.
        if signal == SignalKind::terminate() && supervisor.is_there() {
            service.drain().await;
        } else {
            service.quit().await;
        }
        Ok(())
    })
}

/// What the administrator says of an interface with static peers, from a descriptor that the supervisor passes.
fn read_static(fd: OwnedFd, name: &str) -> Result<StaticInterface, End> {
    if !cfg!(target_os = "linux") {
        return Err(End::usage("static interfaces are for Linux alone"));
    }
    // All at once: a vector that grows leaves keys where it was.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_STATIC_INTERFACE + 1));
    let read = File::from(fd).take(MAX_STATIC_INTERFACE as u64 + 1).read_to_end(&mut bytes);
    read.map_err(|error| End::usage(format!("{STATIC_INTERFACE}: {error}")))?;
    if bytes.len() > MAX_STATIC_INTERFACE {
        return Err(End::usage(format!("{STATIC_INTERFACE}: longer than {MAX_STATIC_INTERFACE} bytes")));
    }
    let configured: StaticInterface =
        decode_body(&bytes).map_err(|error| End::usage(format!("{STATIC_INTERFACE}: {error}")))?;
    interface::check_static(&configured).map_err(End::usage)?;
    if configured.name != name {
        let found = configured.name;
        return Err(End::usage(format!("{STATIC_INTERFACE} is for {found}, and --interface says {name}")));
    }
    Ok(configured)
}

/// What the supervisor has kept. With the interface among it, privileges go before anything of it is parsed.
#[cfg(target_os = "linux")]
fn take_over(
    mut stored: Vec<StoredFd>,
    supervisor: &'static Supervisor,
    options: &options::Options,
    configured: Option<&StaticInterface>,
) -> Result<service::Start, EndReason> {
    let device = fd_store::found::take_device(&mut stored, supervisor);
    if device.is_some() {
        privileges::drop_all()?;
    }
    let wanted = match configured {
        Some(interface) => fd_store::found::Wanted::Static(interface),
        None => fd_store::found::Wanted::Mesh(&options.interface),
    };
    fd_store::found::sort(device, stored, supervisor, wanted, &options.bridge)
        .map_err(EndReason::UnusableInterface)
}

#[cfg(not(target_os = "linux"))]
fn take_over(
    stored: Vec<StoredFd>,
    supervisor: &'static Supervisor,
    _: &options::Options,
    _: Option<&StaticInterface>,
) -> Result<service::Start, EndReason> {
    for stored in stored {
        stored.refuse(supervisor, "nothing is stored on this system");
    }
    Ok(service::Start::fresh(supervisor))
}

/// Ends the process when the TUN driver comes that was not there when the sandbox was set up.
fn watch_for_driver(fatal: mpsc::Sender<EndReason>) {
    let driver = Path::new("/dev/net/tun");
    if cfg!(target_os = "linux") && !driver.parent().is_some_and(Path::exists) {
        tokio::spawn(async move {
            while !driver.exists() {
                tokio::time::sleep(DRIVER_POLL).await;
            }
            let _ = fatal.try_send(EndReason::Driver);
        });
    }
}
