//! The configuration of a `meshd` that runs: what may change meanwhile does, the rest waits for the next start.

use i2plan_ipc::api::meshd::{ConfigChange, Setting, Source};
use i2plan_ipc::{ApiError, ErrorKind, Remedy};

use super::{Config, ConfigError, KEYS, Key, find, unknown};

/// The configuration in force, and what the file and the environment say now.
#[derive(Debug)]
pub struct Live {
    current: Config,
    read: Config,
}

impl Live {
    /// What was read at the start is in force.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self { current: config.clone(), read: config }
    }

    /// The configuration in force.
    #[must_use]
    pub fn current(&self) -> &Config {
        &self.current
    }

    /// Every key as users see it.
    #[must_use]
    pub fn settings(&self) -> Vec<Setting> {
        let setting = |key: &Key| {
            let (value, read) = ((key.show)(&self.current), (key.show)(&self.read));
            Setting {
                key: key.name.to_owned(),
                variable: key.variable.to_owned(),
                pending: (value != read).then(|| given(read)),
                value,
                source: self.current.source(key),
                live: key.live,
            }
        };
        KEYS.iter().map(setting).collect()
    }

    /// Changes a key until `meshd` ends. Returns what is different now.
    ///
    /// # Errors
    /// If there is no such key, it takes a restart, or the value cannot be its.
    pub fn set(&mut self, name: &str, value: &str) -> Result<Vec<ConfigChange>, ApiError> {
        let Some(key) = find(name) else {
            return Err(ApiError::new(ErrorKind::NotFound, unknown(name)).with_remedy(Remedy::ListSettings));
        };
        (key.check)(value).map_err(|message| ApiError::invalid(format!("{}: {message}", key.name)))?;
        if !key.live {
            let path = self.read.path().display();
            return Err(ApiError::conflict(format!("{} cannot be changed while the node runs", key.name))
                .with_hint(format!("save it in {path}, then restart the node")));
        }
        let change = apply(&mut self.current, key, value);
        self.current.set_source(key, Source::Runtime);
        Ok(change.into_iter().collect())
    }

    /// Reads file and environment again. Returns what is different now, and what will be after a restart. What was
    /// [set](Self::set) stays so.
    ///
    /// # Errors
    /// [`ConfigError`]; everything stays as it is then.
    pub fn reload(&mut self) -> Result<Vec<ConfigChange>, ConfigError> {
        self.read.read_again().map(|read| self.adopt(read))
    }

    fn adopt(&mut self, read: Config) -> Vec<ConfigChange> {
        let mut changes = Vec::new();
        for key in KEYS {
            let (now, then) = ((key.show)(&self.current), (key.show)(&read));
            if self.current.source(key) == Source::Runtime {
                continue;
            }
            if now == then || key.live {
                changes.extend(apply(&mut self.current, key, &given(then)));
                self.current.set_source(key, read.source(key));
            } else {
                changes.push(ConfigChange {
                    key: key.name.to_owned(),
                    before: now,
                    after: then,
                    restart: true,
                });
            }
        }
        self.read = read;
        changes
    }
}

/// As it would be given.
fn given(value: Option<String>) -> String {
    value.unwrap_or_else(|| "none".to_owned())
}

/// Gives a key a value that can be its.
fn apply(config: &mut Config, key: &Key, value: &str) -> Option<ConfigChange> {
    let before = (key.show)(config);
    // What was shown or checked can be assigned.
    let _ = (key.assign)(config, value);
    let after = (key.show)(config);
    (before != after).then(|| ConfigChange { key: key.name.to_owned(), before, after, restart: false })
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use super::*;

    fn read(text: &str) -> Config {
        Config::from_parts(Path::new("/c.toml"), text, |variable| {
            (variable == "I2PLAN_MAX_PEERS").then(|| "7".to_owned())
        })
        .unwrap()
    }

    const BEFORE: &str = "node.name = 'a'\nmesh.peer_timeout = 60\nrpc.tcp_address = '127.0.0.1:1'";

    fn in_words(changes: &[ConfigChange]) -> Vec<String> {
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        changes
            .iter()
            .map(|change| {
                let restart = if change.restart { " later" } else { "" };
                format!("{}: {} > {}{restart}", change.key, text(&change.before), text(&change.after))
            })
            .collect()
    }

    fn setting(live: &Live, key: &str) -> Setting {
        live.settings().into_iter().find(|setting| setting.key == key).unwrap()
    }

    #[test]
    fn settings_say_where_they_come_from() {
        let live = Live::new(read(BEFORE));
        assert_eq!(live.settings().len(), KEYS.len());
        let source = |key| setting(&live, key).source;
        assert_eq!(source("mesh.peer_timeout"), Source::File { path: "/c.toml".to_owned(), line: 2 });
        assert_eq!(source("mesh.max_peers"), Source::Environment);
        assert_eq!(source("mesh.control_rate"), Source::Default);
        assert!(live.settings().iter().all(|setting| setting.pending.is_none()));
    }

    #[test]
    fn a_reload_changes_what_it_can_and_says_what_waits() {
        let mut live = Live::new(read(BEFORE));
        let changes = live.adopt(read("i2p.tunnel_length = 3\nnode.name = 'b'"));
        assert_eq!(
            in_words(&changes),
            [
                "node.name: a > b",
                "i2p.tunnel_length: 1 > 3 later",
                "mesh.peer_timeout: 60s > 300s",
                "rpc.tcp_address: 127.0.0.1:1 >  later",
            ]
        );
        assert_eq!((live.current().name.to_string().as_str(), live.current().tunnel_length), ("b", 1));
        assert_eq!(live.current().peer_timeout, Duration::from_secs(300));
        let length = setting(&live, "i2p.tunnel_length");
        assert_eq!((length.value.as_deref(), length.pending.as_deref()), (Some("1"), Some("3")));
        assert_eq!(setting(&live, "rpc.tcp_address").pending.as_deref(), Some("none"));
        assert_eq!(setting(&live, "mesh.peer_timeout").source, Source::Default);
        // Put back, nothing waits any more.
        assert_eq!(
            in_words(&live.adopt(read(BEFORE))),
            ["node.name: b > a", "mesh.peer_timeout: 300s > 60s"]
        );
        assert!(live.settings().iter().all(|setting| setting.pending.is_none()));
    }

    #[test]
    fn what_is_set_stays_over_a_reload() {
        let mut live = Live::new(read(BEFORE));
        assert_eq!(
            in_words(&live.set("mesh.peer_timeout", "2m").unwrap()),
            ["mesh.peer_timeout: 60s > 120s"]
        );
        assert_eq!(live.set("mesh.peer_timeout", "120").unwrap(), []);
        assert_eq!(in_words(&live.adopt(read("node.name = 'a'"))), ["rpc.tcp_address: 127.0.0.1:1 >  later"]);
        let timeout = setting(&live, "mesh.peer_timeout");
        assert_eq!((timeout.value.as_deref(), timeout.source), (Some("120s"), Source::Runtime));
        assert_eq!(timeout.pending.as_deref(), Some("300s"));
    }

    #[test]
    fn what_cannot_be_set_is_refused_and_changes_nothing() {
        let mut live = Live::new(read(BEFORE));
        for (key, value, kind, says) in [
            ("mesh.peer_timeuot", "1m", ErrorKind::NotFound, "did you mean mesh.peer_timeout?"),
            ("mesh.peer_timeout", "1w", ErrorKind::Invalid, "mesh.peer_timeout: a duration from 10 s"),
            ("i2p.tunnel_length", "9", ErrorKind::Invalid, "0 to 7"),
            ("i2p.tunnel_length", "2", ErrorKind::Conflict, "cannot be changed while the node runs"),
        ] {
            let error = live.set(key, value).unwrap_err();
            assert_eq!(error.kind, kind);
            assert!(error.message.contains(says), "{error}");
        }
        assert_eq!(live.current(), &read(BEFORE));
    }

    #[test]
    fn a_reload_that_fails_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.toml");
        std::fs::write(&path, BEFORE).unwrap();
        let mut live = Live::new(Config::from_parts(&path, BEFORE, |_| None).unwrap());
        let settings = live.settings();
        std::fs::write(&path, "node.name = 'b'\nmesh.max_peers = 0").unwrap();
        let error = live.reload().unwrap_err().to_string();
        assert!(error.contains("c.toml:2: mesh.max_peers: a number of peers"), "{error}");
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(live.reload(), Err(ConfigError::Read { .. })));
        assert_eq!(live.settings(), settings);
    }
}
