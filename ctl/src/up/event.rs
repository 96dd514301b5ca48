//! What `i2planctl up` tells: lines on standard error, or with `--json` objects on standard output.

use i2plan_ipc::escape::escape_json;
use i2plan_supervisor::Relay;
use serde::Serialize;

use super::NAME;

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum UpEvent<'a> {
    /// The node is being stopped.
    Stopping {
        /// Why.
        reason: String,
    },
    /// SIGHUP came: the configuration is read again, and the log file, if there is one, opened again.
    Reloading {
        /// Why the log file was not.
        error: Option<String>,
    },
    /// Something happened to a daemon.
    #[serde(untagged)]
    Daemon(&'a i2plan_supervisor::DaemonEvent),
}

impl std::fmt::Display for UpEvent<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Stopping { reason } => write!(f, "stopping: {reason}"),
            Self::Reloading { error: None } => f.write_str(
                "SIGHUP came: the configuration is read again; to restart the node, stop and start it",
            ),
            Self::Reloading { error: Some(error) } => write!(f, "SIGHUP came: {error}"),
            Self::Daemon(event) => event.fmt(f),
        }
    }
}

/// Where events go.
#[derive(Debug, Clone)]
pub struct Events {
    /// For lines: those of the daemons, and of events if there is no other place for them.
    pub lines: Relay,
    /// For events as JSON.
    pub json: Option<Relay>,
}

impl Events {
    /// Tells one.
    pub fn tell(&self, event: &UpEvent<'_>) {
        match &self.json {
            None => self.lines.line(&format!("{NAME}: {event}")),
            Some(json) => {
                if let Ok(line) = serde_json::to_string(event) {
                    json.line(&escape_json(&line));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_of_daemons_look_like_all_others() {
        for (event, line, json) in [
            (
                UpEvent::Daemon(&i2plan_supervisor::DaemonEvent::Started { daemon: "tund", pid: 7 }),
                "tund started, pid 7",
                r#"{"event":"started","daemon":"tund","pid":7}"#,
            ),
            (
                UpEvent::Stopping { reason: "SIGINT came".to_owned() },
                "stopping: SIGINT came",
                r#"{"event":"stopping","reason":"SIGINT came"}"#,
            ),
        ] {
            assert_eq!(event.to_string(), line);
            assert_eq!(serde_json::to_string(&event).unwrap(), json);
        }
    }
}
