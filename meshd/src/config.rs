//! The configuration: a TOML file, then the environment, which wins.
//!
//! Strict: an unknown key, a bad value or a bad variable is an error that says where it stands. Nothing falls
//! back to a default without a word.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use i2plan_proto::address::Ipv4Subnet;
use i2plan_proto::record::NodeName;
use serde::{Deserialize, Deserializer};
use thiserror::Error;

/// Read when no file is named, if it exists.
pub const DEFAULT_PATH: &str = "/etc/i2plan/config.toml";

/// Where state is kept unless configured otherwise.
pub const DEFAULT_DATA_DIR: &str = "/var/lib/i2plan";

/// The configuration of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// `node.name`: what the node calls itself.
    pub name: NodeName,
    /// `node.data_dir`: where the daemons keep their state, each in a directory of its own.
    pub data_dir: PathBuf,
    /// `i2p.sam_address`: TCP address of the router's SAM bridge. A name is not taken: `keyd` compares it with
    /// the peer of the connection that it is handed, and has no network to look names up.
    pub sam_address: SocketAddr,
    /// `i2p.tunnel_length`: hops of the I2P tunnels in each direction, 0 to 7.
    pub tunnel_length: u8,
    /// `mesh.tunnel_subnet`: the IPv4 subnet of a network that this node founds.
    pub tunnel_subnet: Ipv4Subnet,
    /// `mesh.heartbeat_interval`: how often a member compares notes with another.
    pub heartbeat_interval: Duration,
    /// `mesh.peer_timeout`: how long after its last sign a member is held to be out of reach at the earliest.
    pub peer_timeout: Duration,
    /// `mesh.shutdown_timeout`: how long `meshd` may take to tell others that it stops.
    pub shutdown_timeout: Duration,
    /// `mesh.control_rate`: bytes of control messages that this node sends in a second on average.
    pub control_rate: u32,
}

/// Why there is no configuration.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
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
    /// The host's own name is not usable as the node's.
    #[error("the host's name {0:?} cannot be the node's name; set node.name or I2PLAN_NODE_NAME")]
    HostName(String),
}

impl Config {
    /// Reads `path`, or [`DEFAULT_PATH`] if that exists, then the environment.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn load(path: Option<&Path>) -> Result<Self, ConfigError> {
        let (path, required) = path.map_or((Path::new(DEFAULT_PATH), false), |path| (path, true));
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !required => String::new(),
            Err(source) => return Err(ConfigError::Read { path: path.to_owned(), source }),
        };
        Self::from_parts(path, &text, |variable| {
            std::env::var_os(variable).map(|value| value.to_string_lossy().into_owned())
        })
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
        let file: File = toml::from_str(text).map_err(|error| {
            let line =
                error.span().map_or(1, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
            let key = key_at(text, line);
            let message = match key {
                Some(key) if !error.message().starts_with("unknown field") => {
                    format!("{key}: {}", error.message())
                }
                _ => error.message().to_owned(),
            };
            ConfigError::File { path: path.to_owned(), line, message: one_line(&message) }
        })?;
        let name = match variable(&environment, "I2PLAN_NODE_NAME", parse_name)?
            .or(file.node.name.map(|Name(name)| name))
        {
            Some(name) => name,
            None => host_name()?,
        };
        Ok(Self {
            name,
            data_dir: variable(&environment, "I2PLAN_DATA_DIR", parse_directory)?
                .or(file.node.data_dir.map(|Directory(path)| path))
                .unwrap_or_else(|| DEFAULT_DATA_DIR.into()),
            sam_address: variable(&environment, "I2PLAN_SAM_ADDRESS", parse_address)?
                .or(file.i2p.sam_address.map(|Address(address)| address))
                .unwrap_or(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7656)),
            tunnel_length: variable(&environment, "I2PLAN_TUNNEL_LENGTH", parse_tunnel_length)?
                .or(file.i2p.tunnel_length.map(|TunnelLength(length)| length))
                .unwrap_or(1),
            tunnel_subnet: variable(&environment, "I2PLAN_TUNNEL_SUBNET", parse_subnet)?
                .or(file.mesh.tunnel_subnet.map(|Subnet(subnet)| subnet))
                .unwrap_or(Ipv4Subnet::DEFAULT),
            heartbeat_interval: variable(&environment, "I2PLAN_HEARTBEAT_INTERVAL", parse_heartbeat)?
                .or(file.mesh.heartbeat_interval.map(|Heartbeat(interval)| interval))
                .unwrap_or(Duration::from_secs(30)),
            peer_timeout: variable(&environment, "I2PLAN_PEER_TIMEOUT", parse_peer_timeout)?
                .or(file.mesh.peer_timeout.map(|PeerTimeout(timeout)| timeout))
                .unwrap_or(Duration::from_secs(300)),
            shutdown_timeout: variable(&environment, "I2PLAN_SHUTDOWN_TIMEOUT", parse_shutdown_timeout)?
                .or(file.mesh.shutdown_timeout.map(|ShutdownTimeout(timeout)| timeout))
                .unwrap_or(Duration::from_secs(5)),
            control_rate: variable(&environment, "I2PLAN_CONTROL_RATE", parse_control_rate)?
                .or(file.mesh.control_rate.map(|ControlRate(rate)| rate))
                .unwrap_or(2000),
        })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    node: NodeSection,
    #[serde(default)]
    i2p: I2pSection,
    #[serde(default)]
    mesh: MeshSection,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct NodeSection {
    name: Option<Name>,
    data_dir: Option<Directory>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct I2pSection {
    sam_address: Option<Address>,
    tunnel_length: Option<TunnelLength>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct MeshSection {
    tunnel_subnet: Option<Subnet>,
    heartbeat_interval: Option<Heartbeat>,
    peer_timeout: Option<PeerTimeout>,
    shutdown_timeout: Option<ShutdownTimeout>,
    control_rate: Option<ControlRate>,
}

/// A value as a file may write it: text or a number.
#[derive(Deserialize)]
#[serde(untagged, expecting = "text or a whole number is expected")]
enum Value {
    Text(String),
    Number(i64),
}

/// One type for each key, so that the parser knows the place of a bad value.
macro_rules! value {
    ($name:ident, $type:ty, $parse:path) => {
        struct $name($type);

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = match Value::deserialize(deserializer)? {
                    Value::Text(text) => text,
                    Value::Number(number) => number.to_string(),
                };
                $parse(&text).map(Self).map_err(serde::de::Error::custom)
            }
        }
    };
}

value!(Name, NodeName, parse_name);
value!(Directory, PathBuf, parse_directory);
value!(Address, SocketAddr, parse_address);
value!(TunnelLength, u8, parse_tunnel_length);
value!(Subnet, Ipv4Subnet, parse_subnet);
value!(Heartbeat, Duration, parse_heartbeat);
value!(PeerTimeout, Duration, parse_peer_timeout);
value!(ShutdownTimeout, Duration, parse_shutdown_timeout);
value!(ControlRate, u32, parse_control_rate);

fn parse_name(text: &str) -> Result<NodeName, String> {
    text.parse::<NodeName>().map_err(|error| error.to_string())
}

fn parse_directory(text: &str) -> Result<PathBuf, String> {
    if text.starts_with('/') { Ok(text.into()) } else { Err("an absolute path is expected".to_owned()) }
}

fn parse_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "an IP address and port like 127.0.0.1:7656 is expected".to_owned())
}

fn parse_tunnel_length(text: &str) -> Result<u8, String> {
    match text.parse() {
        Ok(length @ 0..=7) => Ok(length),
        _ => Err("a number of hops from 0 to 7 is expected".to_owned()),
    }
}

fn parse_subnet(text: &str) -> Result<Ipv4Subnet, String> {
    text.parse::<Ipv4Subnet>().map_err(|error| error.to_string())
}

fn parse_heartbeat(text: &str) -> Result<Duration, String> {
    match parse_duration(text) {
        Some(interval) if (1..=3600).contains(&interval.as_secs()) => Ok(interval),
        _ => Err("a duration from 1 s to 1 h is expected: seconds, or a number with s, m or h".to_owned()),
    }
}

fn parse_peer_timeout(text: &str) -> Result<Duration, String> {
    match parse_duration(text) {
        Some(timeout) if (10..=86_400).contains(&timeout.as_secs()) => Ok(timeout),
        _ => {
            Err("a duration from 10 s to 1 d is expected: seconds, or a number with s, m, h or d".to_owned())
        }
    }
}

fn parse_shutdown_timeout(text: &str) -> Result<Duration, String> {
    match parse_duration(text) {
        Some(timeout) if timeout.as_secs() <= 60 => Ok(timeout),
        _ => Err("a duration of at most 60 s is expected: seconds, or a number with s or m".to_owned()),
    }
}

fn parse_control_rate(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(rate @ 200..=1_000_000) => Ok(rate),
        _ => Err("a number of bytes from 200 to 1000000 is expected".to_owned()),
    }
}

/// `90`, `90s`, `15m`, `24h` or `7d`.
#[must_use]
pub fn parse_duration(text: &str) -> Option<Duration> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let seconds: u64 = match unit {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(seconds).map(Duration::from_secs)
}

fn variable<T>(
    environment: &impl Fn(&'static str) -> Option<String>,
    variable: &'static str,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<Option<T>, ConfigError> {
    let Some(value) = environment(variable) else { return Ok(None) };
    parse(&value).map(Some).map_err(|message| ConfigError::Variable { variable, value, message })
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

fn host_name() -> Result<NodeName, ConfigError> {
    let name = nix::unistd::gethostname().unwrap_or_default();
    let name = name.to_string_lossy();
    name.parse().map_err(|_| ConfigError::HostName(name.into_owned()))
}

/// The key that is set on a line, with its section.
fn key_at(text: &str, line: usize) -> Option<String> {
    let lines: Vec<&str> = text.lines().take(line).collect();
    let (key, _) = lines.last()?.split_once('=')?;
    let section = lines.iter().rev().find_map(|line| line.trim().strip_prefix('[')?.split_once(']'));
    Some(match section {
        Some((section, _)) => format!("{}.{}", section.trim(), key.trim()),
        None => key.trim().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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
        assert_eq!(config.sam_address.to_string(), "127.0.0.1:7656");
        assert_eq!(config.data_dir, Path::new("/var/lib/i2plan"));
        assert_eq!(config.tunnel_length, 1);
        assert_eq!(config.tunnel_subnet.to_string(), "10.42.0.0/16");
        assert_eq!(config.heartbeat_interval, Duration::from_secs(30));
        assert_eq!(config.peer_timeout, Duration::from_secs(300));
        assert_eq!(config.shutdown_timeout, Duration::from_secs(5));
        assert_eq!(config.control_rate, 2000);
    }

    #[test]
    fn values_out_of_range_are_refused() {
        for bad in
            ["peer_timeout = 9", "peer_timeout = \"2d\"", "shutdown_timeout = 61", "control_rate = 100"]
        {
            let key = bad.split(' ').next().unwrap();
            let message = message(&format!("[mesh]\n{bad}"));
            assert!(message.starts_with(&format!("c.toml:2: mesh.{key}: a ")), "{message}");
        }
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
        let unknown = message("[node]\nnmae = \"x\"");
        assert!(unknown.starts_with("c.toml:2: unknown field `nmae`, expected"), "{unknown}");
        assert!(message("[node]\nname = [1]").starts_with("c.toml:2: node.name: "));
        assert!(message("[node\n").starts_with("c.toml:1: "));
        assert!(
            message("[i2p]\nsam_address = \"localhost:7656\"").contains("i2p.sam_address: an IP address")
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

    proptest! {
        #[test]
        fn arbitrary_text_is_no_panic(text in ".*", value in ".*") {
            let _ = read(&text);
            let _ = read(&format!("[mesh]\nheartbeat_interval = {value}\n"));
            let _ = parse_duration(&value);
        }
    }
}
