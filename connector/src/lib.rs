//! i2plan's connector: connects to the SAM bridge in `keyd`'s place, which makes no sockets.
//!
//! It waits for `keyd`'s orders, connects to the one bridge that it is configured with, and passes the sockets to
//! `keyd`. It reads and writes nothing on them and keeps none.
//!
//! * [`options`]: the command line.
//! * [`dial`]: makes a connection.
//! * [`service`]: asks `keyd` for orders, and carries them out.
//! * [`walls`]: what the process may do.

use std::time::Duration;

use i2plan_ipc::daemon::notify::{Supervisor, Watchdog};
use i2plan_ipc::daemon::program::End;
use i2plan_ipc::daemon::{hardening, logging};
use tokio::signal::unix::{SignalKind, signal};

pub mod dial;
pub mod options;
pub mod service;
pub mod walls;

/// Runs until the process is asked to stop.
///
/// # Errors
/// If it cannot start.
pub fn run(options: &options::Options) -> Result<(), End> {
    hardening::harden().map_err(|error| End::failed(format!("cannot give up privileges: {error}")))?;
    logging::init().map_err(End::usage)?;
    if rustix::process::geteuid().is_root() {
        return Err(End::usage(
            "it must not run as root: start it by `i2planctl up` or a service, as a user of its own",
        ));
    }
    let supervisor = Supervisor::of_this_process();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(End::failed)?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).map_err(End::failed)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(End::failed)?;
        walls::before_connecting(&options.bridge).map_err(End::failed)?;
        supervisor.ready();
        let serving = service::serve(options, supervisor);
        tokio::pin!(serving);
        let mut watchdog = Watchdog::of_this_process();
        loop {
            tokio::select! {
                never = &mut serving => match never {},
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                () = watchdog.due() => supervisor.alive(),
            }
        }
        supervisor.stopping(Duration::ZERO);
        Ok(())
    })
}
