//! i2plan's connector: connects to the SAM bridge in `keyd`'s place, which makes no sockets.
//!
//! It waits for `keyd`'s dial requests, connects to the one bridge that it is configured with, and passes the sockets
//! to `keyd`. It reads and writes nothing on them and keeps none.
//!
//! * [`options`]: the command line.
//! * [`resolve`]: finds the addresses of the bridge's host.
//! * [`dial`]: makes a connection.
//! * [`service`]: asks `keyd` for dial requests, and carries them out.
//! * [`sandbox`]: what the process may do.

use std::sync::Arc;
use std::time::Duration;

use i2plan_ipc::daemon::notify::{Supervisor, Watchdog};
use i2plan_ipc::daemon::program::{self, End};
use i2plan_ipc::daemon::signals::Signals;
use i2plan_ipc::daemon::tasks::Tasks;
use i2plan_ipc::daemon::{hardening, logging};
use tokio::sync::Notify;

use crate::resolve::Addresses;

pub mod dial;
pub mod options;
pub mod resolve;
pub mod sandbox;
pub mod service;

/// Runs until the process is asked to stop.
///
/// # Errors
/// If it cannot start.
pub fn run(options: options::Options) -> Result<(), End> {
    hardening::harden()?;
    logging::init()?;
    program::refuse_root()?;
    program::runtime()?.block_on(async {
        let mut signals = Signals::new()?;
        let supervisor = Supervisor::of_this_process();
        // Before the sandbox, within which no name can be resolved.
        let addresses = Addresses::resolve(&options.bridge.address);
        sandbox::before_connecting(&addresses.list, options.bridge.address.port)?;
        supervisor.ready();
        let mut tasks = Tasks::default();
        let stale = Arc::new(Notify::new());
        tasks.spawn("dialing", service::serve(options, addresses, supervisor, Arc::clone(&stale)));
        let mut watchdog = Watchdog::of_this_process();
        loop {
            tokio::select! {
                _ = signals.next() => break,
                ended = tasks.ended() => return Err(ended.into()),
                () = stale.notified() => {
                    return Err(End::failed("the host name of the SAM bridge is to be resolved again"));
                }
                () = watchdog.due() => supervisor.alive(),
            }
        }
        supervisor.stopping(Duration::ZERO);
        Ok(())
    })
}
