//! The table of keys. Everything that is known of a key stands in its entry: parsing, the list of settings, the
//! example file, suggestions and what may change at run time follow from it.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use i2plan_ipc::api::meshd::Source;
use i2plan_ipc::api::tund::{DEFAULT_MTU, INTERFACE, MTU, MTU_EXPECTED, check_interface_name};
use i2plan_ipc::bridge::{BridgeAddress, parse_udp_port};
use i2plan_proto::address::Ipv4Subnet;
use i2plan_proto::record::NodeName;
use i2plan_proto::sam::session::hello_with_login;

use super::{ConfigError, Given, Location};

/// One key of the configuration.
#[derive(Debug)]
pub struct Key {
    /// `section.key`.
    pub name: &'static str,
    /// The environment variable that wins over the file.
    pub variable: &'static str,
    /// What it is for, a line of text each.
    pub help: &'static [&'static str],
    /// The default, as TOML; where there is none that is the same everywhere, what it may look like.
    pub example: &'static str,
    /// The default in words, if it is not the example.
    pub default: &'static str,
    /// Whether it can be changed without a restart.
    pub live: bool,
    /// What its values are.
    pub kind: Kind,
    pub(super) check: fn(&str) -> Result<(), String>,
    pub(super) assign: fn(&mut Config, &str) -> Result<(), String>,
    pub(super) show: fn(&Config) -> Option<String>,
}

impl Key {
    /// The section and the name in it.
    #[must_use]
    pub fn parts(&self) -> (&'static str, &'static str) {
        self.name.split_once('.').unwrap_or(("", self.name))
    }
}

/// What the values of a key are, for those who read them as JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Text.
    Text,
    /// Whole numbers.
    Number,
    /// `true` or `false`.
    Flag,
    /// Texts, with commas between them.
    List,
}

macro_rules! keys {
    ($(
        $(#[doc = $help:literal])+
        $name:literal, $variable:literal => $field:ident: $type:ty {
            default: $default:expr,
            example: $example:literal $(or $otherwise:literal)?,
            live: $live:literal,
            parse: $parse:expr,
        }
    )+) => {
        /// The configuration of a node.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct Config {
            $(
                #[doc = concat!("`", $name, "`:")]
                $(#[doc = $help])+
                pub $field: $type,
            )+
            pub(super) sources: Vec<(&'static str, Source)>,
            pub(super) location: Location,
            pub(super) notes: Vec<String>,
            pub(super) has_interface: bool,
        }

        /// All keys, in the order in which they are shown.
        pub const KEYS: &[Key] = &[$(
            Key {
                name: $name,
                variable: $variable,
                help: &[$($help),+],
                example: $example,
                default: concat!("" $(, $otherwise)?),
                live: $live,
                kind: <$type as Show>::KIND,
                check: |text| {
                    let parse: fn(&str) -> Result<$type, String> = $parse;
                    parse(text).map(drop)
                },
                assign: |config, text| {
                    let parse: fn(&str) -> Result<$type, String> = $parse;
                    parse(text).map(|value| config.$field = value)
                },
                show: |config| Show::show(&config.$field),
            },
        )+];

        impl Config {
            /// What has been given, and defaults for the rest.
            pub(super) fn build(given: &[Given], location: Location) -> Result<Self, ConfigError> {
                Ok(Self {
                    $(
                        $field: match given.iter().find(|given| given.key == $name) {
                            Some(given) => {
                                let parse: fn(&str) -> Result<$type, String> = $parse;
                                parse(&given.text).map_err(|message| given.error(message))?
                            }
                            None => {
                                let default: fn(&Location) -> Result<$type, ConfigError> = $default;
                                default(&location)?
                            }
                        },
                    )+
                    sources: given.iter().map(|given| (given.key, given.source.clone())).collect(),
                    location,
                    notes: Vec::new(),
                    has_interface: false,
                })
            }
        }
    };
}

keys! {
    /// What the node calls itself: 1 to 63 letters, digits, hyphens, underscores and dots. Not an IP address, a node
    /// id, or one of the words self, me, all, any, none, founder and localhost: such a host's name gets -node appended,
    /// and a hyphen takes the place of what a name cannot have.
    "node.name", "I2PLAN_NODE_NAME" => name: NodeName {
        default: |location| Ok(NodeName::of_host(&location.host_name)),
        example: "\"web-1\"" or "the host's name",
        live: true,
        parse: |text| text.parse::<NodeName>().map_err(|error| error.to_string()),
    }
    /// Where the daemons keep their state, each in a directory of its own. For services their units say that too.
    "node.data_dir", "I2PLAN_DATA_DIR" => data_dir: PathBuf {
        default: |location| Ok(location.data_dir.clone()),
        example: "\"/var/lib/i2plan\"" or "/var/lib/i2plan; with a file in ~/.i2plan, that directory",
        live: false,
        parse: directory,
    }
    /// The router's SAM bridge: an IP address or a host name, and a TCP port. The connector resolves a name; keyd, which
    /// cannot, then hands private keys to whatever address the connector says it has.
    "i2p.sam_address", "I2PLAN_SAM_ADDRESS" => sam_address: BridgeAddress {
        default: |_| Ok(BridgeAddress::DEFAULT),
        example: "\"127.0.0.1:7656\"",
        live: false,
        parse: |text| text.parse::<BridgeAddress>().map_err(|error| error.to_string()),
    }
    /// Where that bridge takes datagrams, and from where it sends them: a UDP port at the same IP address, 1 to 65535, or
    /// "auto" to try 7655 and the one below that of TCP.
    "i2p.sam_udp_port", "I2PLAN_SAM_UDP_PORT" => sam_udp_port: Option<u16> {
        default: |_| Ok(None),
        example: "7655" or "auto",
        live: false,
        parse: parse_udp_port,
    }
    /// The user that a bridge with a password wants (Java I2P: sam.auth), or "none".
    "i2p.sam_user", "I2PLAN_SAM_USER" => sam_user: Option<String> {
        default: |_| Ok(None),
        example: "\"i2plan\"" or "none",
        live: false,
        parse: |text| match text {
            "none" => Ok(None),
            _ => hello_with_login(text, "-").map(|_| Some(text.to_owned())).map_err(|error| error.to_string()),
        },
    }
    /// The file with that user's password, in its first line: an absolute path, or "none". Its owner is root, or who runs
    /// `i2planctl up`, and no one else may read it. For services it is keyd's credential sam-password.
    "i2p.sam_password_file", "I2PLAN_SAM_PASSWORD_FILE" => sam_password_file: Option<PathBuf> {
        default: |_| Ok(None),
        example: "\"/etc/i2plan/sam-password\"" or "none",
        live: false,
        parse: file,
    }
    /// Hops of the I2P tunnels in each direction, 0 to 7. One is for members who trust each other; where they must not
    /// find each other, two or three. For services this is for /etc/i2plan/environment to say: keyd opens no session
    /// with fewer.
    "i2p.tunnel_length", "I2PLAN_TUNNEL_LENGTH" => tunnel_length: u8 {
        default: |_| Ok(1),
        example: "1",
        live: false,
        parse: |text| match text.parse() {
            Ok(length @ 0..=7) => Ok(length),
            _ => Err("a number of hops from 0 to 7 is expected".to_owned()),
        },
    }
    /// How many hops more each of them may have, at random: 0 to 2 for none to as many; -1 and -2 for as many more or
    /// fewer, but no fewer than keyd allows. Routers other than i2pd and Java I2P ignore it.
    "i2p.tunnel_length_variance", "I2PLAN_TUNNEL_LENGTH_VARIANCE" => tunnel_length_variance: i8 {
        default: |_| Ok(0),
        example: "0",
        live: false,
        parse: |text| match text.parse() {
            Ok(variance @ -2..=2) => Ok(variance),
            _ => Err("a number of hops from -2 to 2 is expected".to_owned()),
        },
    }
    /// Tunnels of each session in each direction, 1 to 16. More survive the loss of a router better, and cost more.
    "i2p.tunnel_quantity", "I2PLAN_TUNNEL_QUANTITY" => tunnel_quantity: u8 {
        default: |_| Ok(3),
        example: "3",
        live: false,
        parse: |text| match text.parse() {
            Ok(quantity @ 1..=16) => Ok(quantity),
            _ => Err("a number of tunnels from 1 to 16 is expected".to_owned()),
        },
    }
    /// Tunnels in reserve beside these, 0 to 16. Routers other than Java I2P ignore it.
    "i2p.tunnel_backup_quantity", "I2PLAN_TUNNEL_BACKUP_QUANTITY" => tunnel_backup_quantity: u8 {
        default: |_| Ok(0),
        example: "0",
        live: false,
        parse: |text| match text.parse() {
            Ok(quantity @ 0..=16) => Ok(quantity),
            _ => Err("a number of tunnels from 0 to 16 is expected".to_owned()),
        },
    }
    /// The IPv4 subnet of a network that this node founds. Who joins a network takes over its subnet. Where none is set
    /// and the host uses addresses of the default, the founder takes another of 10.0.0.0/8, 172.16.0.0/12 or
    /// 192.168.0.0/16.
    "mesh.tunnel_subnet", "I2PLAN_TUNNEL_SUBNET" => tunnel_subnet: Ipv4Subnet {
        default: |_| Ok(Ipv4Subnet::DEFAULT),
        example: "\"10.42.0.0/16\"",
        live: false,
        parse: |text| text.parse::<Ipv4Subnet>().map_err(|error| error.to_string()),
    }
    /// The subnets that a network may have which this node joins: any, or prefixes like 10.0.0.0/8 with commas between
    /// them, within one of which its subnet must lie.
    "mesh.accept_subnets", "I2PLAN_ACCEPT_SUBNETS" => accept_subnets: AcceptedSubnets {
        default: |_| Ok(AcceptedSubnets::default()),
        example: "\"any\"",
        live: false,
        parse: |text| text.parse(),
    }
    /// How often this node compares its state with another member's and asks one whether it is there: seconds, or a
    /// number with s, m or h; 1 s to 1 h.
    "mesh.heartbeat_interval", "I2PLAN_HEARTBEAT_INTERVAL" => heartbeat_interval: Duration {
        default: |_| Ok(Duration::from_secs(30)),
        example: "\"30s\"",
        live: true,
        parse: |text| duration(text, 1, 3600, "from 1 s to 1 h"),
    }
    /// How long after its last message a member counts as unreachable at the earliest: 10 s to 1 d.
    "mesh.peer_timeout", "I2PLAN_PEER_TIMEOUT" => peer_timeout: Duration {
        default: |_| Ok(Duration::from_secs(300)),
        example: "\"300s\"",
        live: true,
        parse: |text| duration(text, 10, 86_400, "from 10 s to 1 d"),
    }
    /// Members with which a tunnel is kept open at once, 1 to 10000.
    "mesh.max_peers", "I2PLAN_MAX_PEERS" => max_peers: u32 {
        default: |_| Ok(50),
        example: "50",
        live: true,
        parse: |text| match text.parse() {
            Ok(count @ 1..=10_000) => Ok(count),
            _ => Err("a number of peers from 1 to 10000 is expected".to_owned()),
        },
    }
    /// How long telling the others that this node stops may take: at most 60 s.
    "mesh.shutdown_timeout", "I2PLAN_SHUTDOWN_TIMEOUT" => shutdown_timeout: Duration {
        default: |_| Ok(Duration::from_secs(5)),
        example: "\"5s\"",
        live: true,
        parse: |text| duration(text, 0, 60, "of at most 60 s"),
    }
    /// How long packets that wait may still be sent when this node stops: at most 60 s.
    "mesh.drain_timeout", "I2PLAN_DRAIN_TIMEOUT" => drain_timeout: Duration {
        default: |_| Ok(Duration::from_secs(10)),
        example: "\"10s\"",
        live: true,
        parse: |text| duration(text, 0, 60, "of at most 60 s"),
    }
    /// Bytes of control messages that this node sends in a second on average, 200 to 1000000.
    "mesh.control_rate", "I2PLAN_CONTROL_RATE" => control_rate: u32 {
        default: |_| Ok(2000),
        example: "2000",
        live: true,
        parse: |text| match text.parse() {
            Ok(rate @ 200..=1_000_000) => Ok(rate),
            _ => Err("a number of bytes from 200 to 1000000 is expected".to_owned()),
        },
    }
    /// The name of the tunnel interface: 1 to 15 letters, digits, '-', '_' or '.'. On OpenBSD tun0 to tun255; any other
    /// stands for the first that is free. For services this is for /etc/i2plan/environment to say.
    "tun.interface", "I2PLAN_INTERFACE" => interface: String {
        default: |_| Ok(INTERFACE.to_owned()),
        example: "\"i2plan0\"",
        live: false,
        parse: |text| check_interface_name(text).map(|()| text.to_owned()),
    }
    /// The MTU of the tunnel interface, bytes, 1280 to 7200. Members may have different ones.
    "tun.mtu", "I2PLAN_MTU" => mtu: u16 {
        default: |_| Ok(DEFAULT_MTU),
        example: "2800",
        live: false,
        parse: |text| match text.parse() {
            Ok(mtu) if MTU.contains(&mtu) => Ok(mtu),
            _ => Err(format!("a {MTU_EXPECTED} is expected")),
        },
    }
    /// Whether the tunnel interface may have addresses that the host uses otherwise. It gets the host's packets for
    /// them then, which members see. For services this is for /etc/i2plan/environment to say.
    "tun.allow_overlap", "I2PLAN_ALLOW_OVERLAP" => allow_overlap: bool {
        default: |_| Ok(false),
        example: "false",
        live: false,
        parse: choice,
    }
    /// Whether JSON-RPC is served.
    "rpc.enabled", "I2PLAN_RPC_ENABLED" => rpc_enabled: bool {
        default: |_| Ok(true),
        example: "true",
        live: false,
        parse: choice,
    }
    /// Its unix socket: a path, or a name in the directory of the daemons' sockets.
    "rpc.socket", "I2PLAN_RPC_SOCKET" => rpc_socket: PathBuf {
        default: |_| Ok("rpc.sock".into()),
        example: "\"rpc.sock\"",
        live: false,
        parse: socket,
    }
    /// Its TCP address, an IP address of this host only and a port, for clients that have the token; or "none".
    "rpc.tcp_address", "I2PLAN_RPC_TCP_ADDRESS" => rpc_tcp_address: Option<SocketAddr> {
        default: |_| Ok(None),
        example: "\"127.0.0.1:7650\"" or "none",
        live: false,
        parse: loopback,
    }
    /// Whether JSON-RPC may end memberships, make this node leave, and delegate without limit: its clients then give
    /// the orders that keyd otherwise has a person confirm. For services this is for /etc/i2plan/environment to say.
    "rpc.orders", "I2PLAN_RPC_ORDERS" => rpc_orders: bool {
        default: |_| Ok(false),
        example: "false",
        live: false,
        parse: choice,
    }
    /// Where metrics for Prometheus are served, to every user of this host: an IP address of this host only and a port;
    /// or "none". rpcd serves them, so rpc.enabled must be true.
    "metrics.listen", "I2PLAN_METRICS_LISTEN" => metrics_listen: Option<SocketAddr> {
        default: |_| Ok(None),
        example: "\"127.0.0.1:7651\"" or "none",
        live: false,
        parse: loopback,
    }
    /// Whether web pages are served.
    "web.enabled", "I2PLAN_WEB_ENABLED" => web_enabled: bool {
        default: |_| Ok(false),
        example: "false",
        live: false,
        parse: choice,
    }
    /// Where: an IP address and a port, or unix: and the absolute path of a unix socket, for services that of
    /// i2plan-webd-http.socket. An address that other hosts can reach needs the three keys that follow.
    "web.listen", "I2PLAN_WEB_LISTEN" => web_listen: WebAddress {
        default: |_| Ok(WebAddress::Tcp(SocketAddr::from(([127, 0, 0, 1], 8080)))),
        example: "\"127.0.0.1:8080\"",
        live: false,
        parse: str::parse,
    }
    /// Whether other hosts may reach the web pages: then web.listen may be any address, with TLS.
    "web.allow_remote", "I2PLAN_WEB_ALLOW_REMOTE" => web_allow_remote: bool {
        default: |_| Ok(false),
        example: "false",
        live: false,
        parse: choice,
    }
    /// A file with the certificate for TLS, in PEM, and after it those of the authorities above it. An absolute path,
    /// or "none" for plain HTTP.
    "web.tls_certificate", "I2PLAN_WEB_TLS_CERTIFICATE" => web_tls_certificate: Option<PathBuf> {
        default: |_| Ok(None),
        example: "\"/etc/i2plan/web/web.crt\"" or "none",
        live: false,
        parse: file,
    }
    /// A file with its private key, in PEM, which webd's user alone can read. An absolute path, or "none".
    "web.tls_key", "I2PLAN_WEB_TLS_KEY" => web_tls_key: Option<PathBuf> {
        default: |_| Ok(None),
        example: "\"/etc/i2plan/web/web.key\"" or "none",
        live: false,
        parse: file,
    }
    /// A file with the token by which programs use /rpc and /metrics without a session: one line of 32 to 256 letters,
    /// digits and -._~+/=, in a file that webd's user alone can read. An absolute path, or "none".
    "web.token_file", "I2PLAN_WEB_TOKEN_FILE" => web_token_file: Option<PathBuf> {
        default: |_| Ok(None),
        example: "\"/etc/i2plan/web.token\"" or "none",
        live: false,
        parse: file,
    }
    /// Whether the members' names are told to this host, as NAME.NETWORK.internal: a name server of the node answers at its
    /// addresses. For services also: `systemctl enable --now i2plan-named`.
    "names.enabled", "I2PLAN_NAMES_ENABLED" => names_enabled: bool {
        default: |_| Ok(false),
        example: "false",
        live: false,
        parse: choice,
    }
    /// Whether `i2planctl up` starts an I2P router of the node's own. For services that is for systemctl to say:
    /// `systemctl enable --now i2plan-routerd`.
    "router.enabled", "I2PLAN_ROUTER_ENABLED" => router_enabled: bool {
        default: |_| Ok(false),
        example: "false",
        live: false,
        parse: choice,
    }
    /// Where it learns of other routers at first: a bundle as reseed servers give them (i2pseeds.su3), a file with a
    /// router info, or a directory of such files, as the netDb of another router is. An absolute path, or "none".
    "router.seed", "I2PLAN_ROUTER_SEED" => router_seed: Option<PathBuf> {
        default: |_| Ok(None),
        example: "\"/etc/i2plan/seed\"" or "none",
        live: false,
        parse: file,
    }
    /// Whether I2P's reseed servers are asked, by HTTPS, while it knows fewer than 25 routers. Who watches this host's
    /// network sees that.
    "router.reseed", "I2PLAN_ROUTER_RESEED" => router_reseed: bool {
        default: |_| Ok(true),
        example: "true",
        live: false,
        parse: choice,
    }
    /// Its port, for TCP and UDP: 1024 to 65535, or 0 for one that is free.
    "router.port", "I2PLAN_ROUTER_PORT" => router_port: u16 {
        default: |_| Ok(0),
        example: "0",
        live: false,
        parse: |text| match text.parse() {
            Ok(port @ (0 | 1024..)) => Ok(port),
            _ => Err("a port from 1024 to 65535, or 0, is expected".to_owned()),
        },
    }
    /// The IPv4 address at which other routers reach that port, or "none": then it finds out whether they do.
    "router.address", "I2PLAN_ROUTER_ADDRESS" => router_address: Option<Ipv4Addr> {
        default: |_| Ok(None),
        example: "\"192.0.2.1\"" or "none",
        live: false,
        parse: |text| match text {
            "none" => Ok(None),
            _ => text.parse().map(Some).map_err(|_| "an IPv4 address, or none, is expected".to_owned()),
        },
    }
    /// Bytes a second that it takes of the line, in each direction: 50000 to 1000000000.
    "router.bandwidth", "I2PLAN_ROUTER_BANDWIDTH" => router_bandwidth: u32 {
        default: |_| Ok(1_000_000),
        example: "1000000",
        live: false,
        parse: |text| match text.parse() {
            Ok(rate @ 50_000..=1_000_000_000) => Ok(rate),
            _ => Err("a number of bytes from 50000 to 1000000000 is expected".to_owned()),
        },
    }
    /// Whether it carries other routers' tunnels too, with up to half of that. Without them, all that it sends and
    /// receives is this node's.
    "router.transit", "I2PLAN_ROUTER_TRANSIT" => router_transit: bool {
        default: |_| Ok(true),
        example: "true",
        live: false,
        parse: choice,
    }
}

/// The subnets that this node may join; none for any.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AcceptedSubnets(Vec<Ipv4Subnet>);

impl AcceptedSubnets {
    /// Whether a network may have this subnet.
    #[must_use]
    pub fn accept(&self, subnet: Ipv4Subnet) -> bool {
        self.0.is_empty() || self.0.iter().any(|accepted| accepted.range().covers(&subnet.range()))
    }
}

impl FromStr for AcceptedSubnets {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.trim() == "any" {
            return Ok(Self::default());
        }
        let subnet = |text: &str| {
            let text = text.trim();
            text.parse::<Ipv4Subnet>().map_err(|error| format!("{text:?}: {error}; or any is expected"))
        };
        text.split(',').map(subnet).collect::<Result<_, _>>().map(Self)
    }
}

impl fmt::Display for AcceptedSubnets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("any");
        }
        let subnets: Vec<_> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&subnets.join(", "))
    }
}

/// Where web pages are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WebAddress {
    /// At an IP address.
    Tcp(SocketAddr),
    /// At a unix socket, an absolute path.
    Unix(PathBuf),
}

impl WebAddress {
    /// What the path of a unix socket follows.
    const UNIX: &str = "unix:";

    /// The path of the unix socket, if it is one.
    #[must_use]
    pub fn socket(&self) -> Option<&Path> {
        match self {
            Self::Tcp(_) => None,
            Self::Unix(path) => Some(path),
        }
    }

    /// Whether other hosts can reach it without a program of this host in between.
    #[must_use]
    pub fn is_remote(&self) -> bool {
        matches!(self, Self::Tcp(address) if !address.ip().is_loopback())
    }
}

impl FromStr for WebAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let socket = text.strip_prefix(Self::UNIX).and_then(|path| directory(path).ok());
        socket.map(Self::Unix).or_else(|| text.parse().ok().map(Self::Tcp)).ok_or_else(|| {
            "an IP address with a port, like 127.0.0.1:8080, or unix: and an absolute path is expected; web.enabled \
             switches it off"
                .to_owned()
        })
    }
}

impl fmt::Display for WebAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "{}{}", Self::UNIX, path.display()),
        }
    }
}

/// A value as it would stand in the environment; none for one that is not set.
trait Show {
    const KIND: Kind;

    fn show(&self) -> Option<String>;
}

macro_rules! show {
    ($($type:ty => $kind:ident |$value:ident| $text:expr;)+) => {
        $(impl Show for $type {
            const KIND: Kind = Kind::$kind;

            fn show(&self) -> Option<String> {
                let $value = self;
                Some($text)
            }
        })+
    };
}

show! {
    NodeName => Text |name| name.to_string();
    String => Text |text| text.clone();
    PathBuf => Text |path| path.to_string_lossy().into_owned();
    SocketAddr => Text |address| address.to_string();
    WebAddress => Text |address| address.to_string();
    BridgeAddress => Text |address| address.to_string();
    Ipv4Subnet => Text |subnet| subnet.to_string();
    AcceptedSubnets => List |subnets| subnets.to_string();
    Duration => Text |duration| format!("{}s", duration.as_secs());
    Ipv4Addr => Text |address| address.to_string();
    i8 => Number |number| number.to_string();
    u8 => Number |number| number.to_string();
    u16 => Number |number| number.to_string();
    u32 => Number |number| number.to_string();
    bool => Flag |choice| choice.to_string();
}

impl<T: Show> Show for Option<T> {
    const KIND: Kind = T::KIND;

    fn show(&self) -> Option<String> {
        self.as_ref().and_then(Show::show)
    }
}

fn choice(text: &str) -> Result<bool, String> {
    text.parse().map_err(|_| "true or false is expected".to_owned())
}

fn directory(text: &str) -> Result<PathBuf, String> {
    if text.starts_with('/') { Ok(text.into()) } else { Err("an absolute path is expected".to_owned()) }
}

fn file(text: &str) -> Result<Option<PathBuf>, String> {
    if text == "none" { Ok(None) } else { directory(text).map(Some) }
}

fn socket(text: &str) -> Result<PathBuf, String> {
    if text.starts_with('/') || (!text.is_empty() && !text.contains('/') && text != "." && text != "..") {
        Ok(text.into())
    } else {
        Err("an absolute path, or a name without a slash, is expected".to_owned())
    }
}

fn loopback(text: &str) -> Result<Option<SocketAddr>, String> {
    if text == "none" {
        return Ok(None);
    }
    match text.parse::<SocketAddr>() {
        Ok(address) if address.ip().is_loopback() => Ok(Some(address)),
        _ => {
            Err("an address of this host only with a port, like 127.0.0.1:7650, or none is expected"
                .to_owned())
        }
    }
}

fn duration(text: &str, least: u64, most: u64, bounds: &str) -> Result<Duration, String> {
    match parse_duration(text) {
        Some(duration) if (least..=most).contains(&duration.as_secs()) => Ok(duration),
        _ => Err(format!("a duration {bounds} is expected: seconds, or a number with s, m, h or d")),
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
