//! Interfaces with static peers, as files and command lines describe them.
//!
//! * [`wg_quick`]: files of wg-quick(8), with endpoints in I2P.
//! * [`sections`]: `[interface]` and `[[peer]]` in TOML.
//! * [`options`]: an interface with one peer, on the command line.
//! * [`edit`]: how a peer gets into a file, or out of it.
//! * [`import`]: TOML from a file of wg-quick(8).
//!
//! All have the same meaning, [`StaticConfig`], and the same checks. All faults are found, each with its line and a remedy.
//! Nothing here changes the host.

use std::fmt;
use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use data_encoding::BASE64;
use i2plan_ipc::api::tund::{
    DEFAULT_STATIC_MTU, MAX_STATIC_PEERS, MTU, MTU_EXPECTED, StaticInterface, StaticPeer,
    check_interface_name,
};
use i2plan_ipc::daemon::trusted::{self, Untrusted};
use i2plan_ipc::secret::SecretKey;
use i2plan_proto::endpoint::{Endpoint, EndpointError};
use i2plan_proto::prefix::Prefix;
use i2plan_proto::sam::session::Style;
use thiserror::Error;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use crate::{one_line, reason};

pub mod edit;
pub mod import;
pub mod options;
pub mod sections;
pub mod wg_quick;

/// Seconds between keepalives unless a number is given: a router forgets a path that carries nothing.
const DEFAULT_KEEPALIVE: u16 = 25;

/// The routing table that every packet is looked up in last but one (rt_tables of iproute2).
const MAIN_TABLE: u32 = 254;

/// Longest key that an error repeats, characters: more than any has, and less than a key of WireGuard has in base64.
const MAX_KEY: usize = 24;

/// Longest file with a key, bytes: 44 characters, and blanks after them.
const MAX_KEY_FILE: u64 = 4096;

/// The name of an interface that a configuration file describes, unless it says another.
pub const DEFAULT_NAME: &str = "wg0";

/// Longest value that an error repeats, bytes: an IPv6 address with a prefix length. A key of WireGuard is longer.
const MAX_SHOWN: usize = 43;

/// An interface and its peers, as somebody describes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StaticConfig {
    /// The interface.
    pub interface: Interface,
    /// Its peers.
    pub peers: Vec<Peer>,
    /// What is set without effect, by line.
    pub ignored: Vec<(usize, Ignored)>,
}

impl StaticConfig {
    /// What `tund` is told of the interface, which has this name.
    ///
    /// # Errors
    /// [`TooManyPeers`].
    pub fn to_static(&self, name: &str) -> Result<StaticInterface, TooManyPeers> {
        if self.peers.len() > MAX_STATIC_PEERS {
            return Err(TooManyPeers(self.peers.len()));
        }
        let peers = self.peers.iter().map(|peer| StaticPeer {
            public_key: peer.public_key,
            preshared_key: peer.preshared_key.clone(),
            endpoint: peer.endpoint.clone(),
            allowed_ips: peer.allowed_ips.clone(),
            keepalive: peer.keepalive.unwrap_or(DEFAULT_KEEPALIVE),
        });
        Ok(StaticInterface {
            name: name.to_owned(),
            addresses: self.interface.addresses.clone(),
            mtu: self.interface.mtu.unwrap_or(DEFAULT_STATIC_MTU),
            table: match self.interface.table {
                Table::Auto => Some(MAIN_TABLE),
                Table::Off => None,
                Table::Number(table) => Some(table),
            },
            peers: peers.collect(),
        })
    }
}

/// More peers than an interface can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{0} peers are too many: an interface has {MAX_STATIC_PEERS} at most")]
pub struct TooManyPeers(usize);

/// An interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Its name, if it is given.
    pub name: Option<String>,
    /// The style of its datagrams, if it is given.
    pub style: Option<Style>,
    /// Its private key.
    pub private_key: SecretKey,
    /// Its addresses, with the prefixes of their networks.
    pub addresses: Vec<Prefix>,
    /// Its MTU, bytes, if it is given.
    pub mtu: Option<u16>,
    /// Where routes to the peers' allowed IPs go.
    pub table: Table,
}

/// Where routes to allowed IPs go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Table {
    /// To the main table.
    #[default]
    Auto,
    /// There are none.
    Off,
    /// To the table of this number.
    Number(u32),
}

/// A peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its public key.
    pub public_key: [u8; 32],
    /// The preshared key, if there is one.
    pub preshared_key: Option<SecretKey>,
    /// The addresses that it may use, as networks.
    pub allowed_ips: Vec<Prefix>,
    /// Where it takes packets, if that is known.
    pub endpoint: Option<Endpoint>,
    /// Seconds between keepalives, 0 for none, if it is given.
    pub keepalive: Option<u16>,
}

/// What is set without effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Ignored {
    /// A UDP port.
    #[error("ListenPort is ignored: i2plan listens on no UDP port")]
    ListenPort,
}

/// What is wrong in a description.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The file and the line, from 1; none on the command line.
    pub place: Option<(PathBuf, usize)>,
    /// What is wrong there.
    pub problem: Problem,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((path, line)) = &self.place {
            write!(f, "{}:{line}: ", path.display())?;
        }
        self.problem.fmt(f)
    }
}

/// Why a description cannot be used.
#[derive(Debug, Error)]
pub enum StaticConfigError {
    /// Its file cannot be read, or others can change it.
    #[error("cannot read {}: {}", path.display(), reason(path, source))]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Untrusted,
    },
    /// What is wrong in it, by line; at least one thing.
    #[error("{}", _0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Faults(Vec<Fault>),
}

/// Why there is no key in a file.
#[derive(Debug, Error)]
pub enum KeyFileError {
    /// It cannot be read, or others can read or change it.
    #[error(transparent)]
    Read(#[from] Untrusted),
    /// It holds something else.
    #[error("{} holds no key, which is 44 characters of base64", _0.display())]
    NoKey(PathBuf),
}

/// What is wrong with a line. Keys and preshared keys are not repeated.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[expect(missing_docs, reason = "the messages say what they are")]
pub enum Problem {
    #[error("not a section, and not `key = value`")]
    Syntax,
    #[error("no TOML: {0}")]
    Toml(String),
    #[error("unknown section {0}")]
    Section(String),
    #[error("{0} is for the configuration, and this is the file of an interface")]
    OtherSection(String),
    #[error("{0} stands before any section")]
    Outside(String),
    #[error("unknown key {key} in {section}{}", meant.map(|meant| format!("; did you mean {meant}?")).unwrap_or_default())]
    Key { section: &'static str, key: String, meant: Option<&'static str> },
    #[error("another [Interface]; the first is on line {0}")]
    SecondInterface(usize),
    #[error("{found} is no section {expected}")]
    Form { found: &'static str, expected: &'static str },
    #[error("{key}: {expected} is expected")]
    Type { key: &'static str, expected: &'static str },
    #[error("{0} is set already, on line {1}")]
    Repeated(&'static str, usize),
    #[error("{0} is missing in this section")]
    Missing(&'static str),
    #[error("{0} is missing")]
    NoInterface(&'static str),
    #[error("{0} is missing")]
    NoPeer(&'static str),
    #[error("{0}: keys stand in files of their own")]
    KeyInText(&'static str),
    #[error("{0}: {1}")]
    KeyFile(&'static str, String),
    #[error("{0}: no key, which is 44 characters of base64")]
    NoKey(&'static str),
    #[error("{0}: the key is zero, or another that WireGuard cannot use")]
    WeakKey(&'static str),
    #[error("{0}: no private key as `wg genkey` makes them; is it a public key?")]
    NotPrivate(&'static str),
    #[error("{key}: it is the public key of the peer{at}", key = .0, at = on_line(*.1))]
    PrivateIsPublic(&'static str, usize),
    #[error("{0}: it is this interface's own")]
    OwnKey(&'static str),
    #[error("{key}: this peer is a duplicate of the one{at}", key = .0, at = on_line(*.1))]
    DuplicatePeer(&'static str, usize),
    #[error("others than the owner can read this file, and the private key in it (mode {0:03o})")]
    Readable(u32),
    #[error("{key}: {value:?} is no {expected}")]
    Value { key: &'static str, value: String, expected: &'static str },
    #[error("{0}: {1}")]
    Name(&'static str, String),
    #[error("{key}: this is the file of the interface {of_file}, by its name")]
    OtherName { key: &'static str, of_file: String },
    #[error("{0}: no interface can have {1}")]
    Address(&'static str, IpAddr),
    #[error("DNS: i2plan does not change the host's name servers")]
    Dns,
    #[error("{0}: i2plan runs no commands from a configuration")]
    Command(&'static str),
    #[error("FwMark: i2plan sends no UDP packets that could be marked")]
    FwMark,
    #[error("SaveConfig: i2plan does not write this file")]
    SaveConfig,
    #[error("{0}: {1}")]
    Endpoint(&'static str, EndpointError),
    #[error("{key}: {prefix} overlaps {other} of the peer{}", on_line(*line))]
    Overlap { key: &'static str, prefix: Prefix, other: Prefix, line: usize },
    #[error("{0}: {1} captures the route to the I2P router, at {2}")]
    CapturesRouter(&'static str, Prefix, IpAddr),
    #[error("{0}: {1} and what the others have capture the routes of the I2P router to its own peers")]
    CapturesInternet(&'static str, Prefix),
}

/// Where something is, unless it is on the command line, which has no lines.
fn on_line(line: usize) -> String {
    if line == 0 { String::new() } else { format!(" on line {line}") }
}

impl Problem {
    /// What to do about it.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Syntax => "write `key = value`, or begin a comment with '#'",
            Self::Toml(_) => "correct the line; text and addresses stand in quotes, lists in brackets",
            Self::Section(section) if section.starts_with("[[") => "[interface] and [[peer]] are known",
            Self::Section(_) => "[Interface] and [Peer] are known",
            Self::OtherSection(_) => "put it into config.toml, or all of this file",
            Self::Outside(_) => "put [Interface] or [Peer] before it",
            Self::Key { meant: Some(_), .. } => "correct or remove the line",
            Self::Key { section: "[interface]" | "[[peer]]", .. } => {
                "correct or remove the line; i2plan.toml(5) has the keys"
            }
            Self::Key { .. } => "correct or remove the line; wg-quick(8) has the keys",
            Self::SecondInterface(_) => "use a file for each interface",
            Self::Form { expected: "[interface]", .. } => "write [interface], once in a file",
            Self::Form { .. } => "write [[peer]], with two brackets on each side",
            Self::Type { .. } => "correct the value",
            Self::Repeated(..) => "remove one of the lines",
            Self::Missing("PrivateKey") => "add it; `wg genkey` makes one",
            Self::Missing("interface.private_key_file") => {
                "add it, with the path of a file that holds what `wg genkey` makes"
            }
            Self::Missing("PublicKey" | "peer.public_key") => "add it; on the peer, `wg pubkey` tells it",
            Self::Missing(_) => "add it",
            Self::NoInterface("[Interface]") => "add it, with PrivateKey and Address",
            Self::NoInterface(_) => "add it, with private_key_file and addresses",
            Self::NoPeer("[Peer]") => "add one, with PublicKey and AllowedIPs",
            Self::NoPeer(_) => "add one, with public_key and allowed_ips",
            Self::KeyInText("interface.private_key") => {
                "put the key into a file of mode 600, and the path of that into private_key_file; if others may have \
                 read the key, make another"
            }
            Self::KeyInText(_) => {
                "put the key into a file of mode 600, and the path of that into preshared_key_file; if others may have \
                 read the key, make another"
            }
            Self::KeyFile(..) => {
                "name a file of your own or root's, with mode 600, that holds the key in base64; `wg genkey` makes a \
                 private key, `wg genpsk` a preshared one"
            }
            Self::NoKey(_) => "copy the key as a whole, with the '=' at its end",
            Self::WeakKey("PublicKey" | "peer.public_key" | "--peer-public-key") => {
                "ask the peer for its public key"
            }
            Self::WeakKey(_) => "make another with `wg genkey`",
            Self::NotPrivate(_) => "put in the private key from which this interface's public key was made",
            Self::PrivateIsPublic(..) => "put in this interface's own private key, which no peer has",
            Self::OwnKey(_) => "put in the peer's public key; this one's belongs into the peer's file",
            Self::DuplicatePeer(..) => "put all allowed IPs of the peer into one section",
            Self::Readable(_) => "`chmod 600` the file; if others may have read the key, make another",
            Self::Value { .. } | Self::Address(..) | Self::Name(..) => "correct the value",
            Self::OtherName { .. } => "remove the line, or rename the file",
            Self::Dns => "remove the line, and set the name server by the host's own means",
            Self::Command(_) => "remove the line, and run the command by the host's own means",
            Self::FwMark => "remove the line",
            Self::SaveConfig => "remove the line",
            Self::Endpoint(_, error) => match error {
                EndpointError::Clearnet | EndpointError::AddressBook => {
                    "ask the peer for its I2P endpoint, NAME.b32.i2p or a destination in base64"
                }
                EndpointError::Port => "leave out ':' and the port",
                EndpointError::Encrypted => "ask the peer for a destination with an ordinary lease set",
                EndpointError::Trailing(_) => {
                    "put in the destination alone; if it was the peer's private keys, the peer needs new ones"
                }
                _ => "copy the endpoint again, as a whole",
            },
            Self::Overlap { .. } => "give each address to one peer",
            Self::CapturesRouter(..) => "leave the router's address out",
            Self::CapturesInternet(..) => {
                "name the networks behind the peers; all traffic cannot go through a tunnel that the router carries"
            }
        }
    }
}

/// Forms of a file that describes an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Of wg-quick(8).
    WgQuick,
    /// TOML that says nothing else. Its name is the interface's.
    Toml,
    /// A configuration file, in which these sections stand beside others.
    Configuration,
}

/// A file that describes an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InterfaceFile {
    /// Where it is.
    pub path: PathBuf,
    /// What it is.
    pub format: Format,
}

impl InterfaceFile {
    /// A file that describes an interface alone: TOML if its name ends in `.toml`, else one of wg-quick(8).
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        let is_toml = path.extension().is_some_and(|extension| extension == "toml");
        Self { path, format: if is_toml { Format::Toml } else { Format::WgQuick } }
    }

    /// A configuration file.
    #[must_use]
    pub fn configuration(path: PathBuf) -> Self {
        Self { path, format: Format::Configuration }
    }

    /// Returns the name of the interface that it describes.
    ///
    /// # Errors
    /// If its own name is that of no interface.
    pub fn name(&self, content: &StaticConfig) -> Result<String, String> {
        let name = content.interface.name.as_deref().unwrap_or(match self.format {
            Format::Configuration => DEFAULT_NAME,
            Format::WgQuick | Format::Toml => self.stem(),
        });
        check_interface_name(name).map(|()| name.to_owned())
    }

    fn stem(&self) -> &str {
        self.path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default()
    }

    /// Reads it. The SAM bridge of the I2P router is at these addresses.
    ///
    /// # Errors
    /// [`StaticConfigError`].
    pub fn load(&self, routers: &[IpAddr]) -> Result<StaticConfig, StaticConfigError> {
        let text = self.read()?;
        let parsed = self.parse(&text, routers);
        let mut faults = parsed.as_ref().err().cloned().unwrap_or_default();
        let secret = wg_quick::line_of_secret(&text).filter(|_| self.format == Format::WgQuick);
        if let (Some(line), Some(mode)) = (secret, mode_for_others(&self.path)) {
            faults.push((line, Problem::Readable(mode)));
        }
        if faults.is_empty()
            && let Ok(content) = parsed
        {
            return Ok(content);
        }
        faults.sort_by_key(|(line, _)| *line);
        let fault = |(line, problem)| Fault { place: Some((self.path.clone(), line)), problem };
        Err(StaticConfigError::Faults(faults.into_iter().map(fault).collect()))
    }

    /// Reads its text.
    ///
    /// # Errors
    /// [`StaticConfigError::Read`].
    pub fn read(&self) -> Result<Zeroizing<String>, StaticConfigError> {
        let failed = |source| StaticConfigError::Read { path: self.path.clone(), source };
        trusted::read(&self.path).map(Zeroizing::new).map_err(failed)
    }

    /// Reads a text as it would stand in it.
    fn parse(&self, text: &str, routers: &[IpAddr]) -> Result<StaticConfig, Vec<(usize, Problem)>> {
        let of_file = match self.format {
            Format::WgQuick => return wg_quick::parse(text, routers),
            Format::Toml => Some(self.stem()),
            Format::Configuration => None,
        };
        sections::parse(text, of_file, routers, &|path| read_key(path))
    }
}

/// Reads the key in a file, which nobody but root and the own user can read or change.
///
/// # Errors
/// [`KeyFileError`].
pub fn read_key(path: &Path) -> Result<SecretKey, KeyFileError> {
    let file = trusted::open_secret(path)?;
    // All of it at once: a vector that grows leaves its bytes where it was.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_KEY_FILE as usize));
    file.take(MAX_KEY_FILE)
        .read_to_end(&mut bytes)
        .map_err(|source| Untrusted::Io { path: path.to_owned(), source })?;
    let text = str::from_utf8(&bytes).unwrap_or_default();
    key_of(text.trim()).ok_or_else(|| KeyFileError::NoKey(path.to_owned()))
}

/// The permission bits of a file that others than its owner can read, as far as they can get to it.
fn mode_for_others(path: &Path) -> Option<u32> {
    let path = path.canonicalize().ok()?;
    let mode = |path: &Path| path.metadata().map(|found| found.mode() & 0o777).ok();
    let (file, directory) = (mode(&path)?, mode(path.parent()?)?);
    // The group may be the same for both, or not.
    let group = file & 0o040 != 0 && directory & 0o011 != 0;
    let others = file & 0o004 != 0 && directory & 0o001 != 0;
    (group || others).then_some(file)
}

/// A value, and the line that it is on.
type On<T> = Option<(usize, T)>;

/// What is known of `[Interface]`.
#[derive(Default)]
struct InterfaceSection {
    line: usize,
    name: On<String>,
    style: On<Style>,
    /// It is set, maybe to something that is wrong.
    has_private_key: bool,
    /// The same.
    has_address: bool,
    private_key: On<SecretKey>,
    addresses: Vec<Prefix>,
    mtu: On<u16>,
    table: On<Table>,
    listen_port: On<u16>,
}

/// What is known of a `[Peer]`.
#[derive(Default)]
struct PeerSection {
    line: usize,
    /// It is set, maybe to something that is wrong.
    has_public_key: bool,
    public_key: On<[u8; 32]>,
    preshared_key: On<SecretKey>,
    allowed_ips: Vec<(usize, Prefix)>,
    endpoint: On<Endpoint>,
    keepalive: On<u16>,
}

/// What a form of description calls its sections and keys.
#[derive(Debug)]
struct Names {
    interface: &'static str,
    peer: &'static str,
    private_key: &'static str,
    addresses: &'static str,
    public_key: &'static str,
    allowed_ips: &'static str,
}

/// What is known of an interface and its peers while a description is read.
struct Draft {
    names: &'static Names,
    interface: Option<InterfaceSection>,
    peers: Vec<PeerSection>,
    faults: Vec<(usize, Problem)>,
}

impl Draft {
    fn new(names: &'static Names) -> Self {
        Self { names, interface: None, peers: Vec::new(), faults: Vec::new() }
    }

    /// Notes a fault on this line, if there is one.
    fn note(&mut self, line: usize, result: Result<(), Problem>) {
        self.faults.extend(result.err().map(|problem| (line, problem)));
    }

    /// Compares all with all. What is missing as a whole is missing on the last line.
    fn finish(mut self, last: usize, routers: &[IpAddr]) -> Result<StaticConfig, Vec<(usize, Problem)>> {
        let (faults, names) = (&mut self.faults, self.names);
        let is_there = self.interface.is_some();
        let interface = self.interface.unwrap_or_else(|| {
            faults.push((last, Problem::NoInterface(names.interface)));
            InterfaceSection::default()
        });
        let missing =
            [(names.private_key, interface.has_private_key), (names.addresses, interface.has_address)];
        for (key, _) in missing.into_iter().filter(|(_, has)| is_there && !has) {
            faults.push((interface.line, Problem::Missing(key)));
        }
        if self.peers.is_empty() {
            faults.push((last, Problem::NoPeer(names.peer)));
        }
        let table = interface.table.map_or(Table::Auto, |(_, table)| table);
        check_keys(names, interface.private_key.as_ref(), &self.peers, faults);
        check_overlaps(names, &self.peers, faults);
        if matches!(table, Table::Auto | Table::Number(MAIN_TABLE)) {
            check_routes(names, &self.peers, routers, faults);
        }
        let (Some((_, private_key)), true) = (interface.private_key, faults.is_empty()) else {
            faults.sort_by_key(|(line, _)| *line);
            return Err(self.faults);
        };
        let of_peer = |peer: PeerSection| Peer {
            // Missing ones are faults.
            public_key: peer.public_key.map(|(_, key)| key).unwrap_or_default(),
            preshared_key: peer.preshared_key.map(|(_, key)| key),
            allowed_ips: peer.allowed_ips.into_iter().map(|(_, prefix)| prefix).collect(),
            endpoint: peer.endpoint.map(|(_, endpoint)| endpoint),
            keepalive: peer.keepalive.map(|(_, seconds)| seconds),
        };
        Ok(StaticConfig {
            interface: Interface {
                name: interface.name.map(|(_, name)| name),
                style: interface.style.map(|(_, style)| style),
                private_key,
                addresses: interface.addresses,
                mtu: interface.mtu.map(|(_, mtu)| mtu),
                table,
            },
            peers: self.peers.into_iter().map(of_peer).collect(),
            ignored: interface.listen_port.map(|(line, _)| (line, Ignored::ListenPort)).into_iter().collect(),
        })
    }
}

// Each takes what the description calls the key, and the line.
impl InterfaceSection {
    fn set_private_key(&mut self, key: &'static str, line: usize, text: &str) -> Result<(), Problem> {
        self.has_private_key = true;
        set(&mut self.private_key, key, line, private_key(key, key_of(text).ok_or(Problem::NoKey(key))?)?)
    }

    fn set_private_key_file(
        &mut self,
        key: &'static str,
        line: usize,
        path: &str,
        read: &ReadKey<'_>,
    ) -> Result<(), Problem> {
        self.has_private_key = true;
        set(&mut self.private_key, key, line, private_key(key, key_file(key, path, read)?)?)
    }

    fn add_address(&mut self, key: &'static str, text: &str) -> Result<(), Problem> {
        let prefix: Prefix = text.parse().map_err(|_| wrong(key, text, "IP address with a prefix length"))?;
        let address = prefix.address();
        if address.is_unspecified() || address.is_multicast() || address.is_loopback() {
            return Err(Problem::Address(key, address));
        }
        self.addresses.push(prefix);
        Ok(())
    }

    fn set_mtu(&mut self, key: &'static str, line: usize, text: &str) -> Result<(), Problem> {
        let mtu = number(text).filter(|mtu| MTU.contains(mtu));
        let mtu = mtu.ok_or_else(|| wrong(key, text, MTU_EXPECTED))?;
        set(&mut self.mtu, key, line, mtu)
    }

    fn set_table(&mut self, key: &'static str, line: usize, text: &str) -> Result<(), Problem> {
        let table = match &*text.to_ascii_lowercase() {
            "auto" => Some(Table::Auto),
            "off" => Some(Table::Off),
            // Table 0 is no table, and 255 is the kernel's own.
            _ => number(text).filter(|table| ![0, 255].contains(table)).map(Table::Number),
        };
        let table = table.ok_or_else(|| wrong(key, text, "number of a table, auto or off"))?;
        set(&mut self.table, key, line, table)
    }
}

impl PeerSection {
    fn set_public_key(&mut self, key: &'static str, line: usize, text: &str) -> Result<(), Problem> {
        self.has_public_key = true;
        let public_key = key_of(text).ok_or(Problem::NoKey(key))?;
        if is_weak(&public_key) {
            return Err(Problem::WeakKey(key));
        }
        set(&mut self.public_key, key, line, public_key.0)
    }

    fn set_preshared_key(&mut self, key: &'static str, line: usize, text: &str) -> Result<(), Problem> {
        set(&mut self.preshared_key, key, line, key_of(text).ok_or(Problem::NoKey(key))?)
    }

    fn set_preshared_key_file(
        &mut self,
        key: &'static str,
        line: usize,
        path: &str,
        read: &ReadKey<'_>,
    ) -> Result<(), Problem> {
        set(&mut self.preshared_key, key, line, key_file(key, path, read)?)
    }

    fn add_allowed_ip(&mut self, key: &'static str, line: usize, text: &str) -> Result<(), Problem> {
        let prefix: Prefix = text.parse().map_err(|_| wrong(key, text, "IP address with a prefix length"))?;
        self.allowed_ips.push((line, prefix.network()));
        Ok(())
    }

    fn set_endpoint(&mut self, key: &'static str, line: usize, text: &str) -> Result<(), Problem> {
        let endpoint = text.parse().map_err(|error| Problem::Endpoint(key, error))?;
        set(&mut self.endpoint, key, line, endpoint)
    }

    fn set_keepalive(&mut self, key: &'static str, line: usize, text: &str) -> Result<(), Problem> {
        let seconds = if text.eq_ignore_ascii_case("off") { Some(0) } else { number(text) };
        let seconds = seconds.ok_or_else(|| wrong(key, text, "number of seconds up to 65535, or off"))?;
        set(&mut self.keepalive, key, line, seconds)
    }
}

/// Reads the key in a file.
pub type ReadKey<'a> = dyn Fn(&Path) -> Result<SecretKey, KeyFileError> + 'a;

fn key_file(key: &'static str, path: &str, read: &ReadKey<'_>) -> Result<SecretKey, Problem> {
    // What begins otherwise may be a key that was put where its file belongs.
    if !path.starts_with('/') || key_of(path).is_some() {
        return Err(Problem::Value { key, value: "…".to_owned(), expected: "absolute path of a file" });
    }
    read(Path::new(path)).map_err(|error| Problem::KeyFile(key, one_line(&error.to_string())))
}

fn set<T>(place: &mut On<T>, key: &'static str, line: usize, value: T) -> Result<(), Problem> {
    if let Some((before, _)) = place {
        return Err(Problem::Repeated(key, *before));
    }
    *place = Some((line, value));
    Ok(())
}

fn wrong(key: &'static str, value: &str, expected: &'static str) -> Problem {
    let value = if value.len() <= MAX_SHOWN { one_line(value) } else { "…".to_owned() };
    Problem::Value { key, value, expected }
}

/// A number of decimal digits alone.
fn number<T: std::str::FromStr>(value: &str) -> Option<T> {
    let digits = value.bytes().all(|byte| byte.is_ascii_digit());
    value.parse().ok().filter(|_| digits)
}

/// A key in base64, as WireGuard's tools write it.
#[must_use]
pub fn key_of(text: &str) -> Option<SecretKey> {
    if text.len() != 44 {
        return None;
    }
    // Base64 has room for three bytes in four characters.
    let mut bytes = Zeroizing::new([0; 33]);
    let len = BASE64.decode_mut(text.as_bytes(), &mut bytes[..]).ok()?;
    let mut key = SecretKey([0; 32]);
    key.0.copy_from_slice(bytes[..len].get(..32).filter(|_| len == 32)?);
    Some(key)
}

/// A key in base64.
#[must_use]
pub fn key_text(key: &[u8; 32]) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(44));
    BASE64.encode_append(key, &mut text);
    text
}

/// The public key of a private key (X25519, RFC 7748).
#[must_use]
pub fn public_key(private_key: &SecretKey) -> [u8; 32] {
    PublicKey::from(&StaticSecret::from(private_key.0)).to_bytes()
}

/// Sets the bits of a private key that are the same in all (RFC 7748, section 5).
pub fn clamp(key: &mut SecretKey) {
    key.0[0] &= 248;
    key.0[31] = key.0[31] & 127 | 64;
}

/// Checks a private key. One in 32 public keys looks like one, too.
fn private_key(name: &'static str, key: SecretKey) -> Result<SecretKey, Problem> {
    let mut clamped = key.clone();
    clamp(&mut clamped);
    if key.0 == [0; 32] {
        Err(Problem::WeakKey(name))
    } else if clamped == key {
        Ok(key)
    } else {
        Err(Problem::NotPrivate(name))
    }
}

/// Whether a public key is one of those few with which every secret is the same.
fn is_weak(public_key: &SecretKey) -> bool {
    !StaticSecret::from([0x42; 32]).diffie_hellman(&PublicKey::from(public_key.0)).was_contributory()
}

/// Compares the keys with each other.
fn check_keys(
    names: &Names,
    private: Option<&(usize, SecretKey)>,
    peers: &[PeerSection],
    faults: &mut Vec<(usize, Problem)>,
) {
    let own = private.map(|(_, key)| public_key(key));
    let mut known = std::collections::HashMap::new();
    for peer in peers {
        if !peer.has_public_key {
            faults.push((peer.line, Problem::Missing(names.public_key)));
        }
        let Some((line, key)) = peer.public_key else { continue };
        if let Some((at, private)) = private
            && private.0 == key
        {
            faults.push((*at, Problem::PrivateIsPublic(names.private_key, line)));
        }
        if own == Some(key) {
            faults.push((line, Problem::OwnKey(names.public_key)));
        }
        match known.entry(key) {
            std::collections::hash_map::Entry::Occupied(first) => {
                faults.push((line, Problem::DuplicatePeer(names.public_key, *first.get())));
            }
            std::collections::hash_map::Entry::Vacant(entry) => drop(entry.insert(line)),
        }
    }
}

/// All allowed IPs, those of one network one after the other and the wider before the narrower, with the line of the
/// prefix and that of its peer.
fn sorted(peers: &[PeerSection]) -> Vec<(usize, Prefix, usize)> {
    let mut all: Vec<_> = peers
        .iter()
        .flat_map(|peer| peer.allowed_ips.iter().map(|(line, prefix)| (*line, *prefix, peer.line)))
        .collect();
    all.sort_by_key(|(line, prefix, _)| {
        (prefix.address().is_ipv6(), prefix.leading_bits(), prefix.length(), *line)
    });
    all
}

/// Finds addresses that two peers have.
fn check_overlaps(names: &Names, peers: &[PeerSection], faults: &mut Vec<(usize, Problem)>) {
    // The networks around the present one, the widest first.
    let mut around: Vec<(usize, Prefix, usize)> = Vec::new();
    for (line, prefix, peer) in sorted(peers) {
        while around.last().is_some_and(|(_, outer, _)| !outer.overlaps(&prefix)) {
            around.pop();
        }
        if let Some((at, other, of)) = around.iter().find(|(.., of)| *of != peer) {
            // It is said of the one that comes later in the file.
            let (line, prefix, other, of) =
                if *at > line { (*at, *other, prefix, peer) } else { (line, prefix, *other, *of) };
            faults.push((line, Problem::Overlap { key: names.allowed_ips, prefix, other, line: of }));
        }
        around.push((line, prefix, peer));
    }
}

/// Finds allowed IPs whose routes would lead the router's own packets into the tunnel that it carries.
fn check_routes(
    names: &Names,
    peers: &[PeerSection],
    routers: &[IpAddr],
    faults: &mut Vec<(usize, Problem)>,
) {
    let key = names.allowed_ips;
    // All of IPv4, and what IPv6 has for the Internet. Half of it is more than any network has.
    let internets = [
        Prefix::new(Ipv4Addr::UNSPECIFIED.into(), 0),
        Prefix::new(Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0).into(), 3),
    ];
    let all = sorted(peers);
    for internet in internets {
        // In addresses of IPv4, or networks of 64 bits of IPv6.
        let size = |prefix: &Prefix| {
            let least: u8 = if prefix.address().is_ipv4() { 32 } else { 64 };
            1_u128 << least.saturating_sub(prefix.length())
        };
        let mut captured = 0;
        let mut last: Option<Prefix> = None;
        let mut widest: Option<(usize, Prefix)> = None;
        for (line, prefix, _) in all.iter().filter(|(_, prefix, _)| prefix.overlaps(&internet)) {
            if last.is_some_and(|last| last.overlaps(prefix)) {
                continue;
            }
            last = Some(*prefix);
            captured += size(prefix).min(size(&internet));
            if widest.is_none_or(|(_, widest)| prefix.length() < widest.length()) {
                widest = Some((*line, *prefix));
            }
        }
        let captures = |router: &IpAddr| {
            let (line, prefix, _) =
                all.iter().find(|(_, prefix, _)| prefix.overlaps(&Prefix::host(*router)))?;
            Some((*line, Problem::CapturesRouter(key, *prefix, *router)))
        };
        let mut of_family = routers.iter().filter(|router| router.is_ipv4() == internet.address().is_ipv4());
        if let Some((line, prefix)) = widest
            && captured >= size(&internet) / 2
        {
            faults.push((line, Problem::CapturesInternet(key, prefix)));
        } else if let Some(fault) = of_family.find_map(captures) {
            faults.push(fault);
        }
    }
}

#[cfg(test)]
mod tests;
