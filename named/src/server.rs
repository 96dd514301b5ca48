//! The process.

use std::path::Path;
use std::time::Duration;

use i2plan_ipc::Role;
use i2plan_ipc::client::Endpoint;
use i2plan_ipc::daemon::notify::{Supervisor, Watchdog};
use i2plan_ipc::daemon::program::End;
use i2plan_ipc::daemon::signals::Signals;
use i2plan_ipc::daemon::tasks::Tasks;
use tokio::sync::watch;
use tracing::info;

use super::listen::Sockets;
use super::node::{follow, wait_for_network};
use super::{privileges, sandbox};

/// Where name servers are asked.
pub const PORT: u16 = 53;

/// Serves until a signal ends it.
///
/// # Errors
/// If it cannot start, or cannot go on.
pub async fn run(meshd: &Path) -> Result<(), End> {
    let mut signals = Signals::new()?;
    let supervisor = Supervisor::of_this_process();
    // It looks users up, in files.
    let meshd = Endpoint::resolved(meshd, Role::Meshd);
    sandbox::before_the_address()?;
    supervisor.ready();
    supervisor.status("waiting for the node to be in a network");
    let mut watchdog = Watchdog::of_this_process();
    let waiting = wait_for_network(meshd.clone());
    tokio::pin!(waiting);
    let place = loop {
        tokio::select! {
            _ = signals.next() => return Ok(()),
            place = &mut waiting => break place,
            () = watchdog.due() => supervisor.alive(),
        }
    };
    let sockets = Sockets::open(place.addresses()).map_err(|(address, error)| {
        End::failed(format!("cannot listen on {address}, port {PORT}: {error}"))
    })?;
    privileges::drop_all().map_err(End::failed)?;
    sandbox::before_serving()?;
    info!(ipv4 = %place.ipv4, ipv6 = %place.ipv6, "answers for the members of the network");
    supervisor.status("");
    let (sender, zone) = watch::channel(None);
    let mut tasks = Tasks::default();
    sockets.serve(&mut tasks, &zone);
    let follows = follow(meshd, place, sender);
    tokio::pin!(follows);
    loop {
        tokio::select! {
            _ = signals.next() => break,
            ended = tasks.ended() => return Err(ended.into()),
            () = &mut follows => {
                return Err(End::restart("the node has another address, or is in no network: starting again"));
            }
            () = watchdog.due() => supervisor.alive(),
        }
    }
    supervisor.stopping(Duration::ZERO);
    Ok(())
}
