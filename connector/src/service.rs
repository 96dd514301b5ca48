//! Asks `keyd` for dial requests, and carries them out.

use std::convert::Infallible;
use std::os::fd::AsFd as _;
use std::time::Duration;

use i2plan_ipc::Role;
use i2plan_ipc::api::keyd::{AwaitOrder, Connected, Connector, KeydApi, NotConnected};
use i2plan_ipc::bridge::Bridge;
use i2plan_ipc::client::{Client, ClientError};
use i2plan_ipc::daemon::notify::Supervisor;
use i2plan_ipc::hello::Landlock;
use i2plan_ipc::log_limit::LogLimit;
use i2plan_ipc::version::Version;
use i2plan_ipc::warn_limited;
use tokio::time::{Instant, sleep};
use tracing::{debug, info, warn};

use crate::dial::dial;
use crate::options::Options;

/// First wait before `keyd` is connected to again.
const FIRST_RETRY: Duration = Duration::from_millis(200);

/// Longest wait before `keyd` is connected to again.
const LAST_RETRY: Duration = Duration::from_secs(5);

/// Serves `keyd` for as long as the process lives.
pub async fn serve(options: Options, supervisor: &'static Supervisor) {
    let mut retry = FIRST_RETRY;
    let (mut limit, begun) = (LogLimit::default(), Instant::now());
    loop {
        let started = Instant::now();
        let error = match Client::<KeydApi>::connect(&options.keyd_socket, Role::Connector).await {
            Ok(mut keyd) => {
                info!(bridge = %options.bridge.address, "connected to keyd");
                supervisor.status(&format!("connects to the SAM bridge at {}", options.bridge.address));
                let Err(error) = carry_out(&mut keyd, &options.bridge).await;
                error
            }
            Err(error) => error,
        };
        if started.elapsed() > LAST_RETRY {
            retry = FIRST_RETRY;
        }
        let retry_ms = retry.as_millis();
        warn_limited!(limit, begun.elapsed(), &error.to_string(), retry_ms, "keyd is not there");
        supervisor.status(&format!("waiting for keyd: {error}"));
        sleep(retry).await;
        retry = (retry * 2).min(LAST_RETRY);
    }
}

/// Carries out one dial request after the other, until the connection to `keyd` breaks.
async fn carry_out(keyd: &mut Client<KeydApi>, bridge: &Bridge) -> Result<Infallible, ClientError> {
    loop {
        let connector = Connector {
            pid: std::process::id(),
            version: Version::current(),
            landlock: Landlock::of_this_process(),
        };
        let Some(number) = keyd.call(AwaitOrder(connector)).await? else { continue };
        let passed = match dial(bridge).await {
            Ok([stream, datagrams]) => {
                debug!(dial = number, "connected to the SAM bridge");
                let fds = [stream.as_fd(), datagrams.as_fd()];
                keyd.call_with_fds(Connected(number), &fds).await
            }
            Err(error) => {
                debug!(dial = number, %error, "cannot connect to the SAM bridge");
                let errno = error.raw_os_error();
                keyd.call(NotConnected { order: number, errno }).await
            }
        };
        match passed {
            // It says in its reply what it does not like.
            Err(ClientError::Api(error)) => warn!(dial = number, %error, "keyd refused a connection"),
            other => other?,
        }
    }
}
