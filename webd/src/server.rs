//! The process.

use std::os::unix::net::UnixListener as StdUnixListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use i2plan_config::WebAddress;
use i2plan_ipc::Role;
use i2plan_ipc::access::{Access, Who};
use i2plan_ipc::api::webd::expiry_warning;
use i2plan_ipc::daemon::activation::into_tokio;
use i2plan_ipc::daemon::descriptors;
use i2plan_ipc::daemon::notify::{Supervisor, Watchdog};
use i2plan_ipc::daemon::program::End;
use i2plan_ipc::daemon::signals::Signals;
use i2plan_ipc::daemon::tasks::Tasks;
use i2plan_ipc::server::{ConnectionLimits, accept, serve};
use i2plan_rpcd::token::Token;
use tokio::net::TcpListener;
use tokio::signal::unix::SignalKind;
use tokio::time::interval;
use tracing::{info, warn};

use super::control::Control;
use super::http::Web;
use super::site::{Site, Tls};
use super::{http, live, sandbox};

/// How often it is looked whether the certificate expires.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// What the process is told at its start.
#[derive(Debug)]
pub struct Options {
    /// `meshd`'s socket.
    pub meshd: PathBuf,
    /// `web.listen`.
    pub address: WebAddress,
    /// `web.tls_certificate` and `web.tls_key`.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// `web.token_file`: the file with the token that programs show.
    pub token: Option<PathBuf>,
}

/// The listening sockets.
#[derive(Debug)]
pub struct Listeners {
    /// Where links are asked for.
    pub control: StdUnixListener,
    /// Where browsers and programs connect, if `web.listen` is a unix socket.
    pub pages: Option<StdUnixListener>,
}

/// Serves until a signal ends it.
///
/// # Errors
/// If it cannot start, or cannot go on.
pub async fn run(options: Options, listeners: Listeners) -> Result<(), End> {
    let mut signals = Signals::and(&[SignalKind::hangup()])?;
    let supervisor = Supervisor::of_this_process();
    let Listeners { control: listener, pages } = listeners;
    for listener in [Some(&listener), pages.as_ref()].into_iter().flatten() {
        descriptors::refuse(listener);
    }
    let listener = into_tokio(listener)?;
    let Options { meshd, mut address, tls, token } = options;
    if let (WebAddress::Unix(configured), Some(pages)) = (&mut address, &pages) {
        let given = pages.local_addr()?;
        // Links name the place where browsers' connections come in.
        if let Some(given) = given.as_pathname().filter(|given| given != configured) {
            warn!(configured = %configured.display(), "pages are at another socket than web.listen");
            given.clone_into(configured);
        }
    }
    let pages = pages.map(into_tokio).transpose()?;
    let files = tls;
    let read = |(certificate, key): &(PathBuf, PathBuf)| Tls::read(certificate, key);
    let tls = files.as_ref().map(read).transpose().map_err(End::failed)?;
    let token = token.as_deref().map(Token::read).transpose();
    let token = token.map_err(|error| End::failed(format!("web.token_file: {error}")))?;
    let tcp = match &address {
        WebAddress::Unix(_) => None,
        WebAddress::Tcp(address) => {
            let listener = TcpListener::bind(address).await;
            let failed = |error| End::failed(format!("cannot listen on {address} (web.listen): {error}"));
            Some(listener.map_err(failed)?)
        }
    };
    info!(%address, tls = tls.is_some(), "web pages");
    // It looks users up, in files.
    let web = Web::new(&meshd, Site::new(address, tls), token);
    let renewed: Vec<_> =
        files.iter().flat_map(|(certificate, key)| [certificate.as_path(), key.as_path()]).collect();
    sandbox::before_serving(&renewed)?;
    supervisor.ready();
    // The mode and group of the socket file say who may ask for links.
    let access = Access::new([(Role::Client, Who::Anyone)]);
    let control = Arc::new(Control { web: Arc::clone(&web) });
    let site = Arc::clone(&web);
    let mut tasks = Tasks::default();
    tasks.spawn("control socket", serve(listener, control, access, ConnectionLimits::default()));
    tasks.spawn("live updates", live::follow(Arc::clone(&web)));
    match (tcp, pages) {
        (Some(tcp), None) => tasks.spawn("HTTP", http::serve(tcp, web)),
        (None, Some(pages)) => tasks.spawn("HTTP", http::serve(pages, web)),
        (None, None) => return Err(End::failed("there is no socket for web.listen")),
        (Some(tcp), Some(unused)) => {
            warn!("the socket for pages is not in use: web.listen is another address");
            tasks.spawn("HTTP", http::serve(tcp, web));
            // Nobody is to wait there for an answer.
            tasks.spawn("unused socket", async move {
                loop {
                    drop(accept(|| unused.accept()).await);
                }
            });
        }
    }
    let mut watchdog = Watchdog::of_this_process();
    let mut daily = interval(DAY);
    loop {
        tokio::select! {
            signal = signals.next() => match &files {
                _ if signal != SignalKind::hangup() => break,
                None => info!("there is no certificate to read again"),
                Some(files) => match read(files) {
                    Ok(tls) => {
                        site.site().renew(tls);
                        info!("read the certificate again");
                        daily.reset_immediately();
                    }
                    Err(error) => warn!(
                        %error,
                        "the certificate is still the one before; files in other directories take a new start"
                    ),
                },
            },
            _ = daily.tick() => warn_of_expiry(site.site()),
            ended = tasks.ended() => return Err(ended.into()),
            () = watchdog.due() => supervisor.alive(),
        }
    }
    supervisor.stopping(Duration::ZERO);
    Ok(())
}

/// Tells the log if the certificate expires soon, or has.
fn warn_of_expiry(site: &Site) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
    let expires = site.tls().and_then(|tls| tls.expires());
    if let Some(warning) = expires.and_then(|expires| expiry_warning(expires, now)) {
        warn!("{warning}: renew it, and have it read again by SIGHUP");
    }
}
