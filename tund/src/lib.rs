//! `i2plan-tund`: carries packets between a TUN interface and the SAM bridge, inside WireGuard.
//!
//! The protocol is in [`tunnel`], which does no input or output; [`io`] moves packets, [`service`] answers
//! meshd, [`uapi`] answers `wg show`. The daemon is single-threaded: what takes time is the router, and a second
//! thread would keep the privileges that the first gives up.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use i2plan_ipc::Role;
use i2plan_ipc::access::{Access, Who};
use i2plan_ipc::daemon::activation::StoredFd;
use i2plan_ipc::daemon::notify::{Supervisor, Watchdog};
use i2plan_ipc::daemon::program::{self, End};
use i2plan_ipc::daemon::signals::Signals;
use i2plan_ipc::daemon::tasks::Tasks;
use i2plan_ipc::daemon::{activation, hardening, logging, users};
use i2plan_ipc::server::{ConnectionLimits, serve};
use tokio::signal::unix::SignalKind;
use tokio::sync::mpsc;

pub mod device;
mod end_reason;
pub mod fd_store;
pub mod host;
pub mod interface;
pub mod io;
pub mod options;
pub mod path;
pub mod privileges;
mod readiness;
pub mod roster;
pub mod sandbox;
pub mod service;
pub mod session;
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
    let activation::Passed { listener, named: for_wg, stored } =
        activation::passed(options.listen.as_deref(), Some(uapi::SOCKET_NAME))?;
    let start = take_over(stored, supervisor, options)?;
    let resumed = start.interface.is_some();
    program::runtime()?.block_on(async {
        let mut signals = Signals::new()?;
        let listener = activation::into_tokio(listener)?;
        let for_wg = for_wg.map(|listener| uapi::Socket::open(listener, &options.interface)).transpose()?;
        let (fatal, mut reason) = mpsc::channel(1);
        let host = host::Host::open(options.allow_overlap)?;
        let service = service::Tund::new(
            &options.keyd_socket,
            options.interface.clone(),
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
        if resumed {
            let service = Arc::clone(&service);
            tokio::spawn(async move { service.resume().await });
        } else {
            supervisor.status("waiting for meshd to say what the interface is");
            watch_for_driver(fatal);
        }
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

/// What the supervisor has kept. With the interface among it, privileges go before anything of it is parsed.
#[cfg(target_os = "linux")]
fn take_over(
    mut stored: Vec<StoredFd>,
    supervisor: &'static Supervisor,
    options: &options::Options,
) -> Result<service::Start, EndReason> {
    let device = fd_store::found::take_device(&mut stored, supervisor);
    if device.is_some() {
        privileges::drop_all()?;
    }
    fd_store::found::sort(device, stored, supervisor, &options.interface, &options.bridge)
        .map_err(EndReason::UnusableInterface)
}

#[cfg(not(target_os = "linux"))]
fn take_over(
    stored: Vec<StoredFd>,
    supervisor: &'static Supervisor,
    _: &options::Options,
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
