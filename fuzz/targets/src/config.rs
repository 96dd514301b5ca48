//! `meshd`'s configuration: the file, then after a NUL each the values of environment variables.

use std::path::Path;
use std::time::Duration;

use i2plan_config::live::Live;
use i2plan_config::static_interface::{KeyFileError, key_of, sections};
use i2plan_config::{Config, ConfigError, KEYS, parse_duration};
use i2plan_proto::address::Ipv4Subnet;
use i2plan_proto::record::NodeName;

use crate::{Seeds, seed};

const VARIABLES: [&str; 40] = [
    "I2PLAN_TUNNEL_LENGTH",
    "I2PLAN_TUNNEL_SUBNET",
    "I2PLAN_HEARTBEAT_INTERVAL",
    "I2PLAN_SAM_ADDRESS",
    "I2PLAN_DATA_DIR",
    "I2PLAN_NODE_NAME",
    "I2PLAN_PEER_TIMEOUT",
    "I2PLAN_SHUTDOWN_TIMEOUT",
    "I2PLAN_CONTROL_RATE",
    "I2PLAN_MAX_PEERS",
    "I2PLAN_DRAIN_TIMEOUT",
    "I2PLAN_RPC_ENABLED",
    "I2PLAN_RPC_ORDERS",
    "I2PLAN_RPC_SOCKET",
    "I2PLAN_RPC_TCP_ADDRESS",
    "I2PLAN_ROUTER_ENABLED",
    "I2PLAN_ROUTER_SEED",
    "I2PLAN_ROUTER_RESEED",
    "I2PLAN_ROUTER_PORT",
    "I2PLAN_ROUTER_ADDRESS",
    "I2PLAN_ROUTER_BANDWIDTH",
    "I2PLAN_ROUTER_TRANSIT",
    "I2PLAN_ACCEPT_SUBNETS",
    "I2PLAN_ALLOW_OVERLAP",
    "I2PLAN_SAM_UDP_PORT",
    "I2PLAN_INTERFACE",
    "I2PLAN_SAM_USER",
    "I2PLAN_SAM_PASSWORD_FILE",
    "I2PLAN_TUNNEL_LENGTH_VARIANCE",
    "I2PLAN_TUNNEL_QUANTITY",
    "I2PLAN_TUNNEL_BACKUP_QUANTITY",
    "I2PLAN_METRICS_LISTEN",
    "I2PLAN_WEB_ENABLED",
    "I2PLAN_WEB_LISTEN",
    "I2PLAN_NAMES_ENABLED",
    "I2PLAN_MTU",
    "I2PLAN_WEB_TOKEN_FILE",
    "I2PLAN_WEB_ALLOW_REMOTE",
    "I2PLAN_WEB_TLS_CERTIFICATE",
    "I2PLAN_WEB_TLS_KEY",
];

/// Runs the target.
pub fn run(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let mut parts = text.split('\0');
    let file = parts.next().unwrap_or_default();
    let values: Vec<&str> = parts.collect();
    let environment = |variable: &'static str| {
        let index = VARIABLES.iter().position(|known| *known == variable).expect("a documented variable");
        // Without a name the host's own would be taken, which is another on every host.
        let fallback = (variable == "I2PLAN_NODE_NAME").then_some("host");
        values.get(index).copied().filter(|value| !value.is_empty()).or(fallback).map(str::to_owned)
    };
    match Config::from_parts(Path::new("fuzz.toml"), file, environment) {
        Ok(config) => {
            check(&config);
            change(config, file);
        }
        Err(error) => {
            let message = error.to_string();
            assert!(!message.contains(char::is_control), "not one line of text: {message:?}");
            check_error(&error, &message, file);
        }
    }
    check_interface(file);
    if let Some(duration) = parse_duration(file) {
        assert_eq!(parse_duration(&duration.as_secs().to_string()), Some(duration));
    }
}

/// An interface with static peers is read, or each fault has its line and a remedy.
fn check_interface(file: &str) {
    let read = |path: &Path| match path.to_str() {
        Some("/key") => Ok(key_of("yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=").expect("a key")),
        _ => Err(KeyFileError::NoKey("/empty".into())),
    };
    for of_file in [None, Some("wg0")] {
        match sections::parse(file, of_file, &[], &read) {
            Ok(content) => assert!(!content.interface.addresses.is_empty() && !content.peers.is_empty()),
            Err(faults) => {
                assert!(!faults.is_empty() && faults.is_sorted_by_key(|(line, _)| *line));
                for (line, problem) in faults {
                    let told = problem.to_string();
                    assert!((1..=file.matches('\n').count() + 1).contains(&line), "line {line}: {told}");
                    assert!(!told.contains(char::is_control), "not one line of text: {told:?}");
                    assert!(told.len() < 300 && !problem.remedy().is_empty(), "{told}");
                }
            }
        }
    }
}

/// No value is out of its documented bounds.
fn check(config: &Config) {
    assert!(config.tunnel_length <= 7 && config.tunnel_length_variance.unsigned_abs() <= 2);
    assert!((1..=16).contains(&config.tunnel_quantity) && config.tunnel_backup_quantity <= 16);
    assert!((Duration::from_secs(1)..=Duration::from_secs(3600)).contains(&config.heartbeat_interval));
    assert!((Duration::from_secs(10)..=Duration::from_secs(86_400)).contains(&config.peer_timeout));
    assert!(config.shutdown_timeout <= Duration::from_secs(60));
    assert!(config.drain_timeout <= Duration::from_secs(60));
    assert!((200..=1_000_000).contains(&config.control_rate));
    assert!((1..=10_000).contains(&config.max_peers));
    assert!((1280..=7200).contains(&config.mtu));
    for address in [config.rpc_tcp_address, config.metrics_listen] {
        assert!(address.is_none_or(|address| address.ip().is_loopback()));
    }
    let has_tls = config.web_tls_certificate.is_some() && config.web_tls_key.is_some();
    assert!(!config.web_listen.is_remote() || config.web_allow_remote && has_tls);
    assert!(config.web_listen.socket().is_none_or(Path::is_absolute));
    assert!(config.router_port == 0 || config.router_port >= 1024);
    assert!((50_000..=1_000_000_000).contains(&config.router_bandwidth));
    let of_web = [&config.web_token_file, &config.web_tls_certificate, &config.web_tls_key];
    for path in of_web.into_iter().chain([&config.router_seed]) {
        assert!(path.as_ref().is_none_or(|path| path.is_absolute()));
    }
    assert!(config.data_dir.is_absolute());
    assert_eq!(config.name.to_string().parse::<NodeName>().as_ref(), Ok(&config.name));
    assert_eq!(config.tunnel_subnet.to_string().parse::<Ipv4Subnet>(), Ok(config.tunnel_subnet));
}

/// Whatever a key is set to, it has that value, or the error changes nothing; and a value that is shown can be set.
fn change(config: Config, value: &str) {
    let mut live = Live::new(config);
    for key in KEYS {
        let before = live.settings();
        match live.set(key.name, value) {
            Ok(changes) => {
                check(live.current());
                assert!(key.live && changes.len() <= 1);
                let now = live.settings().into_iter().find(|setting| setting.key == key.name);
                let now = now.and_then(|setting| setting.value).expect("what changes has a value");
                assert_eq!(live.set(key.name, &now), Ok(Vec::new()));
            }
            Err(error) => {
                assert!(!error.message.is_empty());
                assert_eq!(live.settings(), before);
            }
        }
    }
}

/// Every error says where it is.
fn check_error(error: &ConfigError, message: &str, file: &str) {
    match error {
        ConfigError::File { line, message: what, .. } => {
            assert!(message.starts_with(&format!("fuzz.toml:{line}: ")), "{message}");
            assert!((1..=file.matches('\n').count() + 1).contains(line), "{message}");
            assert!(!what.trim().is_empty());
        }
        ConfigError::Variable { variable, value, message: what } => {
            assert!(message.contains(variable) && !what.is_empty());
            assert!(message.contains(&format!("{value:?}")));
        }
        ConfigError::Read { .. } | ConfigError::UnknownVariable(_) => panic!("nothing was read: {message}"),
    }
}

/// What a fuzzer should begin with.
#[must_use]
pub fn seeds() -> Seeds {
    let full = "[node]\nname = \"web-1\"\ndata_dir = \"/srv/i2plan\"\n\n[i2p]\nsam_address = \"127.0.0.1:7656\"\n\
                tunnel_length = 2 # hops\n\n[mesh]\ntunnel_subnet = \"10.42.0.0/16\"\nheartbeat_interval = \"1m\"\n\
                peer_timeout = 120\nshutdown_timeout = \"5s\"\ncontrol_rate = 4096\nmax_peers = 0x10\n\n[rpc]\nenabled = false\n\
                socket = \"rpc.sock\"\ntcp_address = \"[::1]:7650\"\n";
    vec![
        seed("empty", ""),
        seed("full", full),
        seed("dotted", "node.name = 'a'\nmesh = { heartbeat_interval = 30 }\n"),
        seed("unknown-key", "[node]\nnmae = \"x\"\n"),
        seed("unknown-section", "[nodes]\n"),
        seed("twice", "[node]\nname = \"a\"\nname = \"b\"\n"),
        seed("type", "[i2p]\n\ntunnel_length = [1, 2]\n"),
        seed("value", "[i2p]\nsam_address = \"localhost\"\n"),
        seed("syntax", "[node\nname = \n"),
        seed("escape", "[node]\n\"na\\u001bme\" = \"\\u001b[2J\"\n"),
        seed("multi-line", "[node]\nname = \"\"\"\na\nb\"\"\"\n"),
        seed(
            "environment",
            [
                full,
                "3",
                "10.1.0.0/16",
                "90s",
                "[::1]:7656",
                "/srv",
                "host-2",
                "2m",
                "10s",
                "1024",
                "9",
                "1m",
                "true",
                "/r",
                "none",
            ]
            .join("\0"),
        ),
        seed("environment-bad", "\x008\x00\x00\x00\x00var\x00a b"),
        seed("wrong-section", "[mesh]\nname = \"x\"\n"),
        seed("nested", "[node.name]\nx = 1\n[[mesh]]\n"),
        seed("duration", "15m"),
        seed(
            "interface",
            "[interface]\nprivate_key_file = \"/key\"\naddresses = [\"10.9.0.1/24\"]\nmtu = 1280\ntable = \"off\"\n\
             style = \"raw\"\n\n[[peer]]\npublic_key = \"xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=\"\n\
             preshared_key_file = \"/key\"\nallowed_ips = [\"10.9.0.2/32\"]\npersistent_keepalive = 25\n\n[i2p]\n\
             tunnel_length = 2\n",
        ),
        seed(
            "interface-wrong",
            "interface = { name = \"wg1\", private_key = 1, addreses = [1, \"x\"] }\n[peer]\n[x]\n[[peers]]\n",
        ),
    ]
}
