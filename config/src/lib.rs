//! i2plan's configuration: a TOML file, then the environment, which wins.
//!
//! Strict: an unknown key, a bad value or a bad variable is an error that says where it stands. No value falls back to a
//! default without an error.
//!
//! * `keys`: the table of keys. A key more is an entry more there.
//! * `file`: what a file sets, and on which line.
//! * [`save`]: how a value gets into a file.
//! * [`live`]: what changes while `meshd` runs.
//! * [`static_interface`]: interfaces with static peers, from a configuration file, a file of wg-quick(8) or options.

use std::io;
use std::path::{Path, PathBuf};

use i2plan_ipc::api::meshd::Source;
use i2plan_ipc::daemon::program::End;
use i2plan_ipc::daemon::trusted::{self, Untrusted};
use i2plan_ipc::paths;
use i2plan_proto::address::Ipv4Subnet;
use thiserror::Error;

mod file;
mod keys;
pub mod live;
pub mod save;
pub mod static_interface;

pub use keys::{Config, KEYS, Key, Kind, WebAddress, parse_duration};

/// A user's own, in the home directory, which comes before [`paths::CONFIG_FILE`].
pub const USER_PATH: &str = ".i2plan/config.toml";

/// What i2plan's variables begin with.
const PREFIX: &str = "I2PLAN_";

/// Variables that begin so and are no keys of the configuration.
const OTHER_VARIABLES: [&str; 4] = ["I2PLAN_SOCKET", "I2PLAN_LOG", "I2PLAN_LOG_FORMAT", "I2PLAN_LOG_FILE"];

/// What the variables of the laboratory begin with, which tests set around the daemons.
const LABORATORY: &str = "I2PLAN_LAB_";

/// Why web pages are not served where other hosts can reach them.
const REMOTE: &str = "an address of this host only, like 127.0.0.1:8080, is expected; for one that other hosts can \
                      reach set web.allow_remote = true, and web.tls_certificate and web.tls_key to the files of a \
                      certificate and its key";

/// How alike a misspelt name must be to what it may have been meant to be, from 0 to 1.
const ALIKE: f64 = 0.6;

/// Why there is no configuration.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read, or others can change it.
    #[error("cannot read {}: {}", path.display(), reason(path, source))]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Untrusted,
    },
    /// Something in the file is wrong.
    #[error("{}:{line}: {message}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        message: String,
    },
    /// An environment variable is wrong.
    #[error("environment variable {variable}={value:?}: {message}")]
    Variable {
        /// The variable.
        variable: &'static str,
        /// Its value.
        value: String,
        /// What is wrong with it.
        message: String,
    },
    /// There is no such environment variable.
    #[error("environment variable {0}")]
    UnknownVariable(String),
}

impl From<ConfigError> for End {
    fn from(error: ConfigError) -> Self {
        Self::usage(error)
    }
}

/// Where a configuration comes from, and what its defaults depend on: looked up once, so that reading the
/// configuration again takes nothing but reading the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Location {
    path: PathBuf,
    /// Whether the file must exist.
    required: bool,
    data_dir: PathBuf,
    host_name: String,
}

impl Location {
    fn new(path: PathBuf, required: bool, data_dir: PathBuf) -> Self {
        let host_name = rustix::system::uname().nodename().to_string_lossy().into_owned();
        Self { path, required, data_dir, host_name }
    }

    /// The file that is named, or the first of the usual ones that exists.
    fn find(path: Option<&Path>) -> Self {
        let own = trusted::home().map(|home| home.join(USER_PATH));
        let is_own = |path: &Path| own.as_deref() == Some(path);
        let (path, required) = match (path, &own) {
            (Some(path), _) => (path.to_owned(), true),
            // A link that leads nowhere is there, and so is what cannot be looked at.
            (None, Some(own)) if !is_absent(own) => (own.clone(), true),
            (None, _) => (paths::CONFIG_FILE.into(), false),
        };
        let data_dir = path.parent().filter(|_| is_own(&path)).unwrap_or(Path::new(paths::STATE_DIR)).into();
        Self::new(path, required, data_dir)
    }

    fn read(&self) -> Result<String, ConfigError> {
        match trusted::read(&self.path) {
            Ok(text) => Ok(text),
            Err(error) if error.is_not_found() && !self.required && is_absent(&self.path) => {
                Ok(String::new())
            }
            Err(source) => Err(ConfigError::Read { path: self.path.clone(), source }),
        }
    }

    fn error(&self, line: usize, message: &str) -> ConfigError {
        ConfigError::File { path: self.path.clone(), line, message: one_line(message) }
    }
}

/// Whether there is nothing at a path, not even a link that leads nowhere.
fn is_absent(path: &Path) -> bool {
    path.symlink_metadata().is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// A value that somebody has set.
#[derive(Debug)]
pub(crate) struct Given {
    key: &'static str,
    text: String,
    source: Source,
}

impl Given {
    /// The value cannot be that of its key.
    fn error(&self, message: String) -> ConfigError {
        match &self.source {
            Source::File { path, line } => ConfigError::File {
                path: path.into(),
                line: *line,
                message: one_line(&format!("{}: {message}", self.key)),
            },
            Source::Default | Source::Environment | Source::Runtime => {
                let variable = find(self.key).map_or("", |key| key.variable);
                ConfigError::Variable { variable, value: self.text.clone(), message }
            }
        }
    }
}

impl Config {
    /// Reads `path`, or the user's own file ([`USER_PATH`]) or [`paths::CONFIG_FILE`] if that exists, then the environment.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn load(path: Option<&Path>) -> Result<Self, ConfigError> {
        let variables = std::env::vars_os()
            .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()));
        let of_others = check_variables(variables)?;
        let mut config = Self::read(Location::find(path))?;
        config.notes.extend(of_others.into_iter().map(|name| {
            format!(
                "{name} is passed over: it looks like a variable that Kubernetes or Docker sets for a service"
            )
        }));
        Ok(config)
    }

    /// What was taken otherwise than it stands, in sentences for people.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Whether the file describes an interface with static peers, which a program that takes no part in a mesh runs.
    #[must_use]
    pub fn has_interface(&self) -> bool {
        self.has_interface
    }

    /// Reads the same file again, and the environment.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn read_again(&self) -> Result<Self, ConfigError> {
        Self::read(self.location.clone())
    }

    fn read(location: Location) -> Result<Self, ConfigError> {
        let text = location.read()?;
        for key in KEYS {
            if let Some(value) = std::env::var_os(key.variable).filter(|value| value.to_str().is_none()) {
                let value = value.to_string_lossy().into_owned();
                let message = "it is not UTF-8".to_owned();
                return Err(ConfigError::Variable { variable: key.variable, value, message });
            }
        }
        Self::parse(location, &text, |variable| std::env::var(variable).ok())
    }

    /// The configuration that a file's text and an environment give.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn from_parts(
        path: &Path,
        text: &str,
        environment: impl Fn(&'static str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        Self::parse(Location::new(path.to_owned(), true, paths::STATE_DIR.into()), text, environment)
    }

    fn parse(
        location: Location,
        text: &str,
        environment: impl Fn(&'static str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        let mut given = Vec::new();
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        for entry in file::entries(text).map_err(|(line, message)| location.error(line, &message))? {
            let is_section = |key: &Key| key.parts().0 == entry.name;
            if entry.is_empty_section && KEYS.iter().any(is_section) {
                continue;
            }
            let Some(key) = find(&entry.name) else {
                return Err(location.error(entry.line, &unknown(&entry.name)));
            };
            let text = entry
                .value
                .map_err(|message| location.error(entry.line, &format!("{}: {message}", key.name)))?;
            let path = location.path.to_string_lossy().into_owned();
            let value = Given { key: key.name, text, source: Source::File { path, line: entry.line } };
            // Also of one that the environment wins over.
            (key.check)(&value.text).map_err(|message| value.error(message))?;
            given.push(value);
        }
        for key in KEYS {
            let value = environment(key.variable);
            if let Some(text) = value.filter(|value| !is_service_link(key.variable, value)) {
                given.retain(|given| given.key != key.name);
                given.push(Given { key: key.name, text, source: Source::Environment });
            }
        }
        let mut config = Self::build(&given, location)?;
        let is_guarded =
            config.web_allow_remote && config.web_tls_certificate.is_some() && config.web_tls_key.is_some();
        if config.web_listen.is_remote()
            && !is_guarded
            && let Some(listen) = given.iter().find(|given| given.key == "web.listen")
        {
            return Err(listen.error(REMOTE.to_owned()));
        }
        let host = &config.location.host_name;
        if config.source(&KEYS[0]) == Source::Default && config.name.as_str() != host {
            let note = format!(
                "the host's name {host:?} cannot be a node's name: {} is used; set node.name to choose another",
                config.name
            );
            config.notes.push(one_line(&note));
        }
        config.has_interface = static_interface::sections::has_sections(text);
        Ok(config)
    }

    /// The file that this was read from, if it is there.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.location.path
    }

    /// Where the value of a key comes from.
    fn source(&self, key: &Key) -> Source {
        let known = self.sources.iter().find(|(name, _)| *name == key.name);
        known.map_or(Source::Default, |(_, source)| source.clone())
    }

    /// The subnet of networks that this node founds, if somebody has set it.
    #[must_use]
    pub fn configured_subnet(&self) -> Option<Ipv4Subnet> {
        let is_set = self.sources.iter().any(|(name, _)| *name == "mesh.tunnel_subnet");
        is_set.then_some(self.tunnel_subnet)
    }

    fn set_source(&mut self, key: &Key, source: Source) {
        self.sources.retain(|(name, _)| *name != key.name);
        if source != Source::Default {
            self.sources.push((key.name, source));
        }
    }

    /// A file that sets nothing, with every key and its default in comments.
    #[must_use]
    pub fn example() -> String {
        let mut text = String::from(
            "# i2plan's configuration: every key, with its default. A variable wins over the file.\n\
             # After a change: `systemctl reload i2plan-meshd`, or SIGHUP to `i2planctl up`; `i2planctl config\n\
             # check FILE` checks a file. What is marked \"restart\" counts after a restart.\n",
        );
        let mut section = "";
        for key in KEYS {
            let (of, name) = key.parts();
            if section != of {
                section = of;
                text.push_str(&format!("\n[{section}]\n"));
            }
            for line in key.help {
                text.push_str(&format!("#{line}\n"));
            }
            let restart = if key.live { "" } else { ", restart" };
            let default = if key.default.is_empty() { "" } else { "; default: " };
            text.push_str(&format!("# ({}{restart}{default}{})\n", key.variable, key.default));
            text.push_str(&format!("#{name} = {}\n", key.example));
        }
        text + static_interface::sections::EXAMPLE
    }
}

/// The key with this name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// That there is no such key, and which may have been meant.
#[must_use]
pub fn unknown(name: &str) -> String {
    let meant = KEYS.iter().map(|key| (likeness(name, key.name), key.name));
    let meant = meant.filter(|(alike, _)| *alike >= ALIKE).max_by(|one, other| one.0.total_cmp(&other.0));
    match meant {
        Some((_, meant)) => format!("unknown key {name}; did you mean {meant}?"),
        None => format!("unknown key {name}"),
    }
}

/// How alike two keys are. A key in the wrong section, or without one, is hardly less alike.
fn likeness(name: &str, key: &str) -> f64 {
    let whole = strsim::normalized_damerau_levenshtein(name, key);
    let last = |name: &'_ str| name.rsplit('.').next().map(str::to_owned).unwrap_or_default();
    whole.max(0.95 * strsim::normalized_damerau_levenshtein(&last(name), &last(key)))
}

/// Checks that all variables of this environment that begin as i2plan's do are i2plan's. Returns those that are set for a
/// service of a container's surroundings.
fn check_variables(variables: impl Iterator<Item = (String, String)>) -> Result<Vec<String>, ConfigError> {
    let known = || KEYS.iter().map(|key| key.variable).chain(OTHER_VARIABLES);
    let mut of_others = Vec::new();
    for (name, value) in
        variables.filter(|(name, _)| name.starts_with(PREFIX) && !name.starts_with(LABORATORY))
    {
        if is_service_link(&name, &value) {
            of_others.push(name);
            continue;
        }
        if known().any(|known| known == name) {
            continue;
        }
        let meant = known().map(|known| (strsim::normalized_damerau_levenshtein(&name, known), known));
        let meant = meant.max_by(|one, other| one.0.total_cmp(&other.0)).map_or("", |(_, meant)| meant);
        let message = format!("{name} is unknown; did you mean {meant}? If not, unset it");
        return Err(ConfigError::UnknownVariable(one_line(&message)));
    }
    of_others.sort();
    Ok(of_others)
}

/// Whether a variable is one of those that Kubernetes sets in every container for each service, and Docker for links: of a
/// service `i2plan` or `i2plan-router` they begin as i2plan's own do.
fn is_service_link(name: &str, value: &str) -> bool {
    const PROTOCOLS: [&str; 3] = ["TCP", "UDP", "SCTP"];
    let is_url = PROTOCOLS.iter().any(|protocol| {
        value.strip_prefix(&protocol.to_lowercase()).is_some_and(|rest| rest.starts_with("://"))
    });
    let of_a_port = || {
        let (_, port) = name.rsplit_once("_PORT_")?;
        let (number, rest) = port.split_once('_')?;
        let mut parts = rest.splitn(2, '_');
        let protocol = parts.next().is_some_and(|protocol| PROTOCOLS.contains(&protocol));
        let what = parts.next().is_none_or(|what| ["PROTO", "PORT", "ADDR"].contains(&what));
        Some(number.parse::<u16>().is_ok() && protocol && what)
    };
    name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || name.ends_with("_PORT") && is_url
        || of_a_port() == Some(true)
}

/// Why a file cannot be read, without its path again if it is that which is not there.
fn reason(path: &Path, error: &Untrusted) -> String {
    match error {
        Untrusted::Io { path: culprit, source } if error.is_not_found() || culprit == path => {
            source.to_string()
        }
        _ => one_line(&error.to_string()),
    }
}

/// A message that repeats parts of the file, fit for a terminal and a log: one line, with no control characters
/// in it.
fn one_line(message: &str) -> String {
    let mut line = String::with_capacity(message.len());
    for char in message.chars() {
        match char {
            '\n' => line.push(' '),
            char if char.is_control() => line.extend(char.escape_default()),
            char => line.push(char),
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::static_interface::sections::{INTERFACE_KEYS, PEER_KEYS};
    use super::*;

    fn read(text: &str) -> Result<Config, ConfigError> {
        Config::from_parts(Path::new("c.toml"), text, |variable| {
            (variable == "I2PLAN_NODE_NAME").then(|| "host".to_owned())
        })
    }

    fn message(text: &str) -> String {
        read(text).unwrap_err().to_string()
    }

    #[test]
    fn defaults_are_as_documented() {
        let config = read("").unwrap();
        assert_eq!((config.sam_address.to_string().as_str(), config.sam_udp_port), ("127.0.0.1:7656", None));
        assert_eq!(config.data_dir, Path::new("/var/lib/i2plan"));
        assert_eq!(config.tunnel_length, 1);
        assert_eq!(config.tunnel_subnet.to_string(), "10.42.0.0/16");
        assert_eq!(config.heartbeat_interval, Duration::from_secs(30));
        assert_eq!(config.peer_timeout, Duration::from_secs(300));
        assert_eq!(config.max_peers, 50);
        assert_eq!(config.shutdown_timeout, Duration::from_secs(5));
        assert_eq!(config.drain_timeout, Duration::from_secs(10));
        assert_eq!(config.control_rate, 2000);
        assert!(config.accept_subnets.accept("192.168.1.0/29".parse().unwrap()));
        assert_eq!((config.configured_subnet(), config.allow_overlap), (None, false));
        assert_eq!(config.interface, "i2plan0");
        assert!(config.rpc_enabled);
        assert_eq!(config.rpc_socket, Path::new("rpc.sock"));
        assert_eq!(config.rpc_tcp_address, None);
    }

    #[test]
    fn an_interface_may_be_described_beside_the_keys() {
        let text = "[interface]\nmtu = 1\n[[peer]]\nx = 1\n[mesh]\nmax_peers = 5\n";
        let config = read(text).unwrap();
        assert_eq!((config.has_interface(), config.max_peers), (true, 5));
        assert!(!read("[mesh]\nmax_peers = 5\n").unwrap().has_interface());
        // What is no section is a key that there is not.
        assert_eq!(
            message("interface = \"i2plan0\"\n"),
            "c.toml:1: unknown key interface; did you mean tun.interface?"
        );
        assert_eq!(
            message("[[interface]]\nmtu = 1\n"),
            "c.toml:1: unknown key interface; did you mean tun.interface?"
        );
    }

    #[test]
    fn the_table_is_in_order() {
        let mut sections = Vec::new();
        for key in KEYS {
            let (section, name) = key.parts();
            if sections.last() != Some(&section) {
                assert!(!sections.contains(&section), "{section} is in two places");
                sections.push(section);
            }
            let variable = match key.name {
                _ if ["rpc", "metrics", "web", "names", "router"].contains(&section) => {
                    format!("{section}_{name}")
                }
                "node.name" => "node_name".to_owned(),
                _ => name.to_owned(),
            };
            assert_eq!(key.variable, format!("I2PLAN_{}", variable.to_uppercase()));
            // The example is the default, or another value that can be.
            let defaults = read("").unwrap();
            let example = read(&format!("{} = {}", key.name, key.example)).unwrap();
            if key.default.is_empty() {
                assert_eq!((key.show)(&example), (key.show)(&defaults), "{}", key.name);
            }
            // What is shown can be given again.
            let mut again = defaults.clone();
            if let Some(shown) = (key.show)(&example) {
                (key.assign)(&mut again, &shown).unwrap();
                if key.name != "node.name" {
                    assert_eq!((key.show)(&again), Some(shown));
                }
            }
        }
    }

    #[test]
    fn the_documentation_has_every_key() {
        let documentation = include_str!("../../docs/configuration.md");
        for key in KEYS {
            let row = format!("| `{}` | `{}` |", key.name, key.variable);
            assert!(documentation.contains(&row), "docs/configuration.md lacks {row}");
        }
        let page = include_str!("../../packaging/man/i2plan.toml.5.in");
        let (of_interface, of_peer) = page.split_once(".SS [[peer]]\n").unwrap();
        for (section, keys, part) in
            [("interface", &INTERFACE_KEYS[..], of_interface), ("peer", &PEER_KEYS, of_peer)]
        {
            for key in keys {
                assert!(documentation.contains(&format!("| `{section}.{key}` |")), "{key} is not documented");
                assert!(part.contains(&format!(".B {key}\n")), "i2plan.toml(5) lacks {key}");
            }
        }
    }

    #[test]
    fn the_files_that_ship_can_be_used() {
        let ships = [
            ("example", include_str!("../../packaging/config/example.toml")),
            ("minimal", include_str!("../../packaging/config/minimal.toml")),
            ("production", include_str!("../../packaging/config/production.toml")),
        ];
        for (name, text) in ships {
            let config = Config::from_parts(Path::new(name), text, |_| None);
            assert!(config.is_ok(), "{config:?}");
        }
        assert_eq!(
            ships[0].1,
            Config::example(),
            "make it anew: cargo run -p i2plan-config --example example > packaging/config/example.toml"
        );
        // And with every comment taken off.
        let set: String = Config::example()
            .lines()
            .map(|line| line.strip_prefix('#').filter(|line| !line.starts_with(' ')).unwrap_or(line))
            .fold(String::new(), |text, line| text + line + "\n");
        let all = read(&set).unwrap();
        assert_eq!((all.sources.len(), all.has_interface()), (KEYS.len(), true));
        let key = static_interface::key_of("yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=").unwrap();
        let interface = static_interface::sections::parse(&set, None, &[], &|_| Ok(key.clone())).unwrap();
        assert!(interface.peers[0].preshared_key.is_some() && interface.interface.style.is_some());
    }

    #[test]
    fn a_name_that_means_something_else_is_refused_but_not_as_a_hosts() {
        for (name, why) in
            [("LOCALHOST", "are reserved"), ("10.42.0.1", "it is an IP address"), ("a b", "use letters")]
        {
            let message = message(&format!("[node]\nname = {name:?}"));
            assert!(message.starts_with("c.toml:2: node.name: ") && message.contains(why), "{message}");
        }
        let named = |host: &str| {
            let location =
                Location { host_name: host.to_owned(), ..Location::find(Some(Path::new("c.toml"))) };
            let config = Config::parse(location, "", |_| None)?;
            assert_eq!(config.notes().is_empty(), config.name.as_str() == host, "{:?}", config.notes());
            Ok::<_, ConfigError>(config.name.to_string())
        };
        assert_eq!(named("localhost").unwrap(), "localhost-node");
        assert_eq!(named("web").unwrap(), "web");
        assert_eq!(named("a b").unwrap(), "a-b");
    }

    #[test]
    fn values_out_of_range_are_refused() {
        for bad in [
            "mesh.peer_timeout = 9",
            "mesh.peer_timeout = \"2d\"",
            "mesh.shutdown_timeout = 61",
            "mesh.drain_timeout = -1",
            "mesh.control_rate = 100",
            "mesh.max_peers = 0",
            "mesh.accept_subnets = \"\"",
            "tun.allow_overlap = 1",
            "tun.interface = \"a/b\"",
            "rpc.socket = \"a/b\"",
            "rpc.enabled = \"yes\"",
            "rpc.tcp_address = \"0.0.0.0:7650\"",
            "metrics.listen = \"192.0.2.1:7651\"",
            "web.listen = \"0.0.0.0:8080\"",
            "web.listen = \"none\"",
            "web.listen = \"unix:\"",
            "web.listen = \"unix:web-http.sock\"",
            "i2p.tunnel_length = 0x8",
            "i2p.sam_udp_port = 0",
            "i2p.sam_udp_port = \"127.0.0.1:7655\"",
            "node.data_dir = \"var\"",
        ] {
            let (key, _) = bad.split_once(' ').unwrap();
            let message = message(&format!("\n{bad}"));
            assert!(message.starts_with(&format!("c.toml:2: {key}: ")), "{message}");
            assert!(message.contains("expected"), "{message}");
        }
    }

    #[test]
    fn other_hosts_reach_the_web_pages_with_tls_and_leave_alone() {
        let keys = ["allow_remote = true", "tls_certificate = '/c'", "tls_key = '/k'"];
        let with =
            |listen: &str, keys: &[&str]| read(&format!("[web]\nlisten = '{listen}'\n{}", keys.join("\n")));
        for listen in ["192.0.2.1:443", "0.0.0.0:8443", "[::]:8443", "[fd00::1]:1"] {
            assert_eq!(with(listen, &keys).unwrap().web_listen.to_string(), listen);
            for missing in 0..3 {
                let mut keys = keys.to_vec();
                keys.remove(missing);
                let message = with(listen, &keys).unwrap_err().to_string();
                assert!(
                    message.starts_with("c.toml:2: web.listen: an address of this host only"),
                    "{message}"
                );
                assert!(message.contains("web.allow_remote = true"), "{message}");
            }
            assert!(with(listen, &["allow_remote = false", keys[1], keys[2]]).is_err());
        }
        assert!(with("127.0.0.1:8443", &keys[1..]).is_ok(), "TLS on loopback");
        let socket = with("unix:/run/i2plan/web-http.sock", &[]).unwrap().web_listen;
        assert_eq!(socket.socket(), Some(Path::new("/run/i2plan/web-http.sock")));
        assert_eq!(socket.to_string(), "unix:/run/i2plan/web-http.sock");
    }

    #[test]
    fn subnets_that_are_accepted_are_a_list() {
        let accepted = |list: &str| read(&format!("mesh.accept_subnets = {list:?}")).unwrap().accept_subnets;
        let accepts = |list: &str, subnet: &str| accepted(list).accept(subnet.parse().unwrap());
        for list in ["10.42.0.0/16", "192.168.0.0/16,10.0.0.0/8", " any"] {
            assert!(accepts(list, "10.42.0.0/16") && accepts(list, "10.42.8.0/24"), "{list}");
        }
        assert!(!accepts("10.42.0.0/16", "10.0.0.0/8") && !accepts("10.42.0.0/16", "192.168.1.0/29"));
        assert_eq!(accepted("10.0.0.0/8,192.168.0.0/16").to_string(), "10.0.0.0/8, 192.168.0.0/16");
        assert!(message("mesh.accept_subnets = \"10.0.0.0/8, \"").contains("mesh.accept_subnets: \"\": "));
        let configured = read("mesh.tunnel_subnet = \"10.42.0.0/16\"").unwrap().configured_subnet();
        assert_eq!(configured, Some(Ipv4Subnet::DEFAULT));
    }

    #[test]
    fn durations_are_seconds_or_text() {
        for text in ["heartbeat_interval = 90", "heartbeat_interval = \"90s\"", "heartbeat_interval = \"90\""]
        {
            assert_eq!(read(&format!("[mesh]\n{text}")).unwrap().heartbeat_interval, Duration::from_secs(90));
        }
        assert_eq!(parse_duration("7d"), Some(Duration::from_secs(7 * 86_400)));
        assert_eq!(parse_duration("h"), None);
        assert_eq!(parse_duration("1w"), None);
        assert_eq!(parse_duration("99999999999999999999d"), None);
    }

    #[test]
    fn errors_name_file_line_and_key() {
        assert_eq!(
            message("[i2p]\n\ntunnel_length = 8"),
            "c.toml:3: i2p.tunnel_length: a number of hops from 0 to 7 is expected"
        );
        for (text, end) in [
            ("[node]\nnmae = \"x\"", "2: unknown key node.nmae; did you mean node.name?"),
            ("[mesh]\nname = \"x\"", "2: unknown key mesh.name; did you mean node.name?"),
            ("\nname = \"x\"", "2: unknown key name; did you mean node.name?"),
            (
                "[i2p]\ntunnel_lenght = 9\n[page]\nlisten = 1",
                "2: unknown key i2p.tunnel_lenght; did you mean i2p.tunnel_length?",
            ),
            ("[nod]\nname = 1", "2: unknown key nod.name; did you mean node.name?"),
            ("[page]\ncolour = 1", "2: unknown key page.colour"),
            ("[nodes]", "1: unknown key nodes"),
            (
                "[node.name]\nx = 1",
                "1: node.name: this is a section; text, a whole number, or true or false is expected",
            ),
            (
                "[node]\nname = [1]",
                "2: node.name: this is a list; text, a whole number, or true or false is expected",
            ),
            (
                "[i2p]\ntunnel_length = 1.0",
                "2: i2p.tunnel_length: 1.0 is no whole number; text, a whole number, or true or false is expected",
            ),
            (
                "[mesh]\nmax_peers = 12345678901234567890",
                "2: mesh.max_peers: the number 12345678901234567890 is too large",
            ),
            ("[[mesh]]\nmax_peers = 1", "1: unknown key mesh"),
        ] {
            assert!(message(text).ends_with(end), "{}", message(text));
        }
        assert!(message("[node\n").starts_with("c.toml:1: "));
        assert!(message("[node]\nname = \"a\"\nname = \"b\"").starts_with("c.toml:3: "));
        assert!(
            message("[i2p]\nsam_address = \"localhost\"")
                .contains("i2p.sam_address: \"localhost\" is no host and port")
        );
    }

    #[test]
    fn errors_are_one_line_fit_for_a_terminal() {
        for text in ["[node]\n\"na\\u001bme\" = \"x\"", "\"a\\nb\" = 1", "[node]\n\u{1b}[2Jname = 1\r2"] {
            let message = message(text);
            assert!(!message.contains(char::is_control), "{message:?}");
        }
    }

    #[test]
    fn what_is_there_twice_is_named() {
        let text = "[names]\n\n[node]\nname = \"x\"\n[names]\nenabled = true\n";
        assert_eq!(message(text), "c.toml:5: names is there twice: put what belongs together in one place");
    }

    #[test]
    fn the_environment_wins_and_is_checked() {
        let with = |value: &'static str| {
            Config::from_parts(Path::new("c"), "[i2p]\ntunnel_length = 3", move |variable| match variable {
                "I2PLAN_NODE_NAME" => Some("host".to_owned()),
                "I2PLAN_TUNNEL_LENGTH" => Some(value.to_owned()),
                _ => None,
            })
        };
        assert_eq!(with("2").unwrap().tunnel_length, 2);
        assert_eq!(
            with("x").unwrap_err().to_string(),
            "environment variable I2PLAN_TUNNEL_LENGTH=\"x\": a number of hops from 0 to 7 is expected"
        );
    }

    #[test]
    fn misspelt_variables_are_named_with_what_was_meant() {
        let check = |name: &str| check_variables([(name.to_owned(), "1".to_owned())].into_iter());
        for known in ["I2PLAN_LOG", "I2PLAN_SAM_ADDRESS", "I2PLAN_LAB_PROGRAM", "PATH", "I2P_SAM_ADRESS"] {
            assert!(check(known).is_ok(), "{known}");
        }
        assert_eq!(
            check("I2PLAN_SAM_ADRESS").unwrap_err().to_string(),
            "environment variable I2PLAN_SAM_ADRESS is unknown; did you mean I2PLAN_SAM_ADDRESS? If not, unset it"
        );
    }

    #[test]
    fn variables_for_services_of_the_same_name_are_passed_over() {
        let of_kubernetes = [
            ("I2PLAN_SERVICE_HOST", "10.0.0.1"),
            ("I2PLAN_SERVICE_PORT", "7656"),
            ("I2PLAN_SERVICE_PORT_SAM", "7656"),
            ("I2PLAN_PORT", "tcp://10.0.0.1:7656"),
            ("I2PLAN_PORT_7656_TCP", "tcp://10.0.0.1:7656"),
            ("I2PLAN_PORT_7656_TCP_PROTO", "tcp"),
            ("I2PLAN_PORT_7656_UDP_PORT", "7656"),
            ("I2PLAN_PORT_7656_TCP_ADDR", "10.0.0.1"),
            ("I2PLAN_ROUTER_PORT", "tcp://10.0.0.1:7656"),
            ("I2PLAN_ROUTER_SERVICE_HOST", "10.0.0.1"),
        ];
        let owned = |pairs: &[(&str, &str)]| -> Vec<_> {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        let passed_over = check_variables(owned(&of_kubernetes).into_iter()).unwrap();
        assert_eq!(passed_over.len(), of_kubernetes.len());
        // The port of the node's own router has the same name as the link to a service.
        let port = |value: &'static str| {
            let set = |variable| (variable == "I2PLAN_ROUTER_PORT").then(|| value.to_owned());
            Config::from_parts(Path::new("c"), "", set).map(|config| config.router_port)
        };
        assert_eq!(port("tcp://10.0.0.1:7656").unwrap(), read("").unwrap().router_port);
        assert_eq!(check_variables(owned(&[("I2PLAN_ROUTER_PORT", "4000")]).into_iter()).unwrap().len(), 0);
        assert_ne!(port("4000").unwrap(), read("").unwrap().router_port);
        for misspelt in ["I2PLAN_SAM_PORT", "I2PLAN_PORT_A_TCP", "I2PLAN_HOST"] {
            assert!(check_variables(owned(&[(misspelt, "1")]).into_iter()).is_err(), "{misspelt}");
        }
    }

    #[test]
    fn what_is_there_and_cannot_be_read_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        let read = |required| Location::new(path.clone(), required, paths::STATE_DIR.into()).read();
        assert_eq!(read(false).unwrap(), "");
        assert!(read(true).is_err());
        std::os::unix::fs::symlink("nowhere", &path).unwrap();
        assert!(read(false).is_err());
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert!(read(false).is_err());
    }

    #[test]
    fn a_file_in_another_encoding_says_where_and_what() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        let load = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            Config::load(Some(&path)).map(drop).map_err(|error| error.to_string())
        };
        let latin = load(b"[mesh]\n# caf\xe9\nmax_peers = 7\n").unwrap_err();
        assert!(latin.contains("line 2, column 6") && latin.contains("UTF-8"), "{latin}");
        for wide in [&b"\xff\xfe[\0m\0"[..], b"\xfe\xff\0[\0m"] {
            let error = load(wide).unwrap_err();
            assert!(error.contains("UTF-16"), "{error}");
        }
        load(b"\xef\xbb\xbf[mesh]\r\nmax_peers = 7\r\n").unwrap();
    }

    #[test]
    fn a_user_has_a_file_and_state_of_their_own() {
        let home = trusted::home().unwrap();
        let own = Location::find(Some(&home.join(USER_PATH)));
        assert_eq!(own.data_dir, home.join(".i2plan"));
        assert_eq!(Location::find(Some(Path::new("/x/config.toml"))).data_dir, Path::new(paths::STATE_DIR));
    }

    proptest! {
        #[test]
        fn arbitrary_text_is_no_panic(text in ".*", value in ".*") {
            let _ = read(&text);
            let _ = read(&format!("[mesh]\nheartbeat_interval = {value}\n"));
            let _ = parse_duration(&value);
            let _ = check_variables([(format!("I2PLAN_{text}"), value)].into_iter());
        }
    }
}
