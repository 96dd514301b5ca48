//! `i2planctl web`.

use std::path::Path;

use clap::Subcommand;
use i2plan_ipc::api::webd::{CreateLink, EndSessions, FORWARDED_PORT, Link, ListSessions, Session, WebdApi};
use i2plan_ipc::client::{Client, ClientError, Endpoint};
use i2plan_ipc::{Role, paths};
use i2plan_present::table::{Column, Table};
use i2plan_present::units;
use serde_json::json;

use crate::daemon;
use crate::failure::{Failure, Kind};
use crate::output;

/// What `--help` adds.
pub(crate) const HELP: &str = "\
web.enabled must be true in the configuration. The link opens a session once, within five minutes, in a browser on \
this host, or on another with TLS (web.allow_remote); the session ends with the browser, or after a day. Who has the \
link has the session: it is not to be passed on.

Examples:
  i2planctl web                  # to view
  i2planctl web --control        # to change things, too
  i2planctl web sessions
  i2planctl web end              # all sessions, and links that were not used";

const COLUMNS: &[Column] = &[
    Column::text("SESSION"),
    Column::text("MAY"),
    Column::text("OPENED"),
    Column::text("USED"),
    Column::text("ENDS IN"),
];

/// `i2planctl web`
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Web {
    /// A link for a session that may change things
    #[arg(long)]
    pub control: bool,

    /// What to do in place of making a link.
    #[command(subcommand)]
    pub command: Option<WebCommand>,
}

/// `i2planctl web …`
#[derive(Debug, Subcommand)]
pub enum WebCommand {
    /// List the sessions that are open
    Sessions,

    /// End a session, or all of them
    End {
        /// The session, as `web sessions` lists it [default: all, and links that were not used]
        session: Option<String>,
    },
}

/// Makes a link to the node's web pages, lists sessions, or ends them.
///
/// # Errors
/// If `webd` does not answer, or there is no such session.
pub async fn run(socket: Option<&Path>, json: bool, args: &Web) -> Result<(), Failure> {
    let path = paths::beside(&daemon::socket_path(socket), paths::WEB_SOCKET, "web");
    let endpoint = Endpoint::resolved(&path, Role::Webd);
    let mut webd = Client::<WebdApi>::connect(endpoint, Role::Client).await.map_err(explain)?;
    match &args.command {
        None => {
            let link = webd.call(CreateLink { control: args.control }).await.map_err(explain)?;
            if json {
                return output::json::print(&link);
            }
            output::print(&format!("{}\n", link.url.expose()))?;
            output::note(&how_to_open(&link));
            Ok(())
        }
        Some(WebCommand::Sessions) => {
            let sessions = webd.call(ListSessions).await.map_err(explain)?;
            if json {
                return output::json::print(&json!({ "sessions": sessions }));
            }
            if sessions.is_empty() {
                output::note("no session is open");
                return Ok(());
            }
            output::print(&table(&sessions))
        }
        Some(WebCommand::End { session }) => {
            let ended = webd.call(EndSessions { id: session.clone() }).await.map_err(explain)?;
            if json {
                return output::json::print(&json!({ "ended": ended }));
            }
            output::note(&format!("ended {}", units::counted(ended, "session")));
            Ok(())
        }
    }
}

/// What is to be known of a link, beside it.
fn how_to_open(link: &Link) -> String {
    let may = if link.control { "for control" } else { "to view only (--control for more)" };
    let url = link.url.expose();
    let place = if url.starts_with("http:") && link.socket.is_none() { " on this host" } else { "" };
    let time = units::duration(link.expires_in);
    let mut text = format!("open it in a browser{place}: {may}, once, within {time}");
    // What has another name is reached by what passes its connections on.
    let forwarded = format!("://localhost:{FORWARDED_PORT}/");
    if let Some(socket) = link.socket.as_ref().filter(|_| url.contains(&forwarded)) {
        text += &format!(
            "\nthe pages are at a unix socket: before that, on the machine with the browser, run\n\
             ssh -L {FORWARDED_PORT}:{socket} HOST\nwith the name of this host in place of HOST"
        );
    }
    if let Some(fingerprint) = &link.fingerprint {
        text += &format!(
            "\nno authority has signed the certificate: compare its SHA-256 fingerprint in the browser with\n\
             {fingerprint}"
        );
    }
    text
}

fn table(sessions: &[Session]) -> String {
    let mut table = Table::new(COLUMNS);
    for session in sessions {
        table.row([
            session.id.clone(),
            if session.control { "control" } else { "view" }.to_owned(),
            units::ago(Some(session.age)),
            units::ago(Some(session.idle)),
            units::duration(session.expires_in),
        ]);
    }
    table.render(&output::look(false)).text
}

fn explain(error: ClientError) -> Failure {
    match error {
        ClientError::Connect { .. } | ClientError::Broken { .. } => Failure::new(
            Kind::Unreachable,
            format!("the web interface does not run: {error}"),
        )
        .with_hint(
            "set web.enabled = true in the configuration, and restart the node; if it is set, see the log of \
                 i2plan-webd",
        ),
        error => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use i2plan_ipc::secret::SecretText;

    use super::*;

    #[test]
    fn what_is_said_of_a_link_leads_to_the_pages() {
        let link = |url: &str, socket: Option<&str>| Link {
            url: SecretText::new(url.to_owned()),
            expires_in: 300,
            control: false,
            fingerprint: None,
            socket: socket.map(str::to_owned),
        };
        let here = how_to_open(&link("http://127.0.0.1:8080/login?token=x", None));
        assert_eq!(
            here,
            "open it in a browser on this host: to view only (--control for more), once, within 5m"
        );
        let socket = Some("/run/i2plan/web-http.sock");
        let forwarded = how_to_open(&link("http://localhost:8080/login?token=x", socket));
        assert!(forwarded.starts_with("open it in a browser: "), "{forwarded}");
        let ssh = "\nssh -L 8080:/run/i2plan/web-http.sock HOST\n";
        assert!(forwarded.contains(ssh), "{forwarded}");
        // With a certificate for addresses alone.
        assert!(how_to_open(&link("https://localhost:8080/login?token=x", socket)).contains(ssh));
        assert!(!how_to_open(&link("https://node.example/login?token=x", socket)).contains("ssh"));
    }
}
