//! Files of wg-quick(8), with endpoints in I2P.
//!
//! All that is wrong in a file is found, each with its line and what to do. Nothing here changes the host.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use data_encoding::BASE64;
use i2plan_ipc::api::tund::{MAX_STATIC_PEERS, StaticInterface, StaticPeer};
use i2plan_ipc::daemon::trusted::{self, Untrusted};
use i2plan_ipc::secret::SecretKey;
use i2plan_proto::endpoint::{Endpoint, EndpointError};
use i2plan_proto::prefix::Prefix;
use thiserror::Error;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use crate::{one_line, reason};

pub mod edit;

/// Least and greatest MTU, bytes.
const MTU: std::ops::RangeInclusive<u16> = 1280..=9000;

/// The MTU unless one is given, bytes: the least that IPv6 allows. A WireGuard packet of it is 1312 bytes.
const DEFAULT_MTU: u16 = 1280;

/// Seconds between keepalives unless a number is given: a router forgets a path that carries nothing.
const DEFAULT_KEEPALIVE: u16 = 25;

/// The routing table that every packet is looked up in last but one (rt_tables of iproute2).
const MAIN_TABLE: u32 = 254;

/// Longest key before '=', characters: more than any has, and less than a key of WireGuard has in base64.
const MAX_KEY: usize = 24;

/// Longest value that an error repeats, bytes: an IPv6 address with a prefix length. A key of WireGuard is longer.
const MAX_SHOWN: usize = 43;

/// A file that says what an interface and its peers are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WgQuick {
    /// Its `[Interface]`.
    pub interface: Interface,
    /// Its `[Peer]`s.
    pub peers: Vec<Peer>,
    /// What it sets that has no effect, by line.
    pub ignored: Vec<(usize, Ignored)>,
}

impl WgQuick {
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
            mtu: self.interface.mtu.unwrap_or(DEFAULT_MTU),
            table: match self.interface.table {
                Table::Auto => Some(MAIN_TABLE),
                Table::Off => None,
                Table::Number(table) => Some(table),
            },
            peers: peers.collect(),
        })
    }
}

/// A file has more peers than an interface can.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{0} peers are too many: an interface has {MAX_STATIC_PEERS} at most")]
pub struct TooManyPeers(usize);

/// An interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
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

/// What is wrong in a file.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{}:{line}: {problem}", path.display())]
pub struct Fault {
    /// The file.
    pub path: PathBuf,
    /// The line, from 1.
    pub line: usize,
    /// What is wrong there.
    pub problem: Problem,
}

/// Why a file cannot be used.
#[derive(Debug, Error)]
pub enum WgQuickError {
    /// It cannot be read, or others can change it.
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

/// What is wrong with a line. Keys and preshared keys are not repeated.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[expect(missing_docs, reason = "the messages say what they are")]
pub enum Problem {
    #[error("not a section, and not `key = value`")]
    Syntax,
    #[error("unknown section {0}")]
    Section(String),
    #[error("{0} stands before any section")]
    Outside(String),
    #[error("unknown key {key} in [{section}]")]
    Key { section: &'static str, key: String },
    #[error("another [Interface]; the first is on line {0}")]
    SecondInterface(usize),
    #[error("{0} is set already, on line {1}")]
    Repeated(&'static str, usize),
    #[error("{0} is missing in this section")]
    Missing(&'static str),
    #[error("[Interface] is missing")]
    NoInterface,
    #[error("[Peer] is missing")]
    NoPeer,
    #[error("{0}: no key, which is 44 characters of base64")]
    NoKey(&'static str),
    #[error("{0}: the key is zero, or another that WireGuard cannot use")]
    WeakKey(&'static str),
    #[error("PrivateKey: no private key as `wg genkey` makes them; is it a public key?")]
    NotPrivate,
    #[error("PrivateKey: it is the public key of the peer on line {0}")]
    PrivateIsPublic(usize),
    #[error("PublicKey: it is this interface's own")]
    OwnKey,
    #[error("PublicKey: this peer is a duplicate of the one on line {0}")]
    DuplicatePeer(usize),
    #[error("others than the owner can read this file, and the private key in it (mode {0:03o})")]
    Readable(u32),
    #[error("{key}: {value:?} is no {expected}")]
    Value { key: &'static str, value: String, expected: &'static str },
    #[error("Address: no interface can have {0}")]
    Address(IpAddr),
    #[error("DNS: i2plan does not change the host's name servers")]
    Dns,
    #[error("{0}: i2plan runs no commands from a configuration")]
    Command(&'static str),
    #[error("FwMark: i2plan sends no UDP packets that could be marked")]
    FwMark,
    #[error("SaveConfig: i2plan does not write this file")]
    SaveConfig,
    #[error("Endpoint: {0}")]
    Endpoint(EndpointError),
    #[error("AllowedIPs: {prefix} overlaps {other} of the peer on line {line}")]
    Overlap { prefix: Prefix, other: Prefix, line: usize },
    #[error("AllowedIPs: {0} captures the route to the I2P router, at {1}")]
    CapturesRouter(Prefix, IpAddr),
    #[error("AllowedIPs: {0} and what the others have capture the routes of the I2P router to its own peers")]
    CapturesInternet(Prefix),
}

impl Problem {
    /// What to do about it.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Syntax => "write `key = value`, or begin a comment with '#'",
            Self::Section(_) => "[Interface] and [Peer] are known",
            Self::Outside(_) => "put [Interface] or [Peer] before it",
            Self::Key { .. } => "correct or remove the line; wg-quick(8) has the keys",
            Self::SecondInterface(_) => "use a file for each interface",
            Self::Repeated(..) => "remove one of the lines",
            Self::Missing("PrivateKey") => "add it; `wg genkey` makes one",
            Self::Missing("PublicKey") => "add it; on the peer, `wg pubkey` tells it",
            Self::Missing(_) => "add it",
            Self::NoInterface => "add it, with PrivateKey and Address",
            Self::NoPeer => "add one, with PublicKey and AllowedIPs",
            Self::NoKey(_) => "copy the key as a whole, with the '=' at its end",
            Self::WeakKey("PublicKey") => "ask the peer for its public key",
            Self::WeakKey(_) => "make another with `wg genkey`",
            Self::NotPrivate => "put in the private key from which this interface's public key was made",
            Self::PrivateIsPublic(_) => "put in this interface's own private key, which no peer has",
            Self::OwnKey => "put in the peer's public key; this one's belongs into the peer's file",
            Self::DuplicatePeer(_) => "put all AllowedIPs of the peer into one section",
            Self::Readable(_) => "`chmod 600` the file; if others may have read the key, make another",
            Self::Value { .. } | Self::Address(_) => "correct the value",
            Self::Dns => "remove the line, and set the name server by the host's own means",
            Self::Command(_) => "remove the line, and run the command by the host's own means",
            Self::FwMark => "remove the line",
            Self::SaveConfig => "remove the line",
            Self::Endpoint(error) => match error {
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
            Self::CapturesInternet(_) => {
                "name the networks behind the peers; all traffic cannot go through a tunnel that the router carries"
            }
        }
    }
}

/// Returns whether a text is a file of wg-quick rather than `config.toml`: its first section says so.
#[must_use]
pub fn is_wg_quick(text: &str) -> bool {
    let first = text.lines().map(meaning).find(|line| line.starts_with('['));
    first.is_some_and(|line| section_of(line).is_some())
}

/// Reads a file. The SAM bridge of the I2P router is at these addresses.
///
/// # Errors
/// [`WgQuickError`].
pub fn load(path: &Path, routers: &[IpAddr]) -> Result<WgQuick, WgQuickError> {
    let failed = |source| WgQuickError::Read { path: path.to_owned(), source };
    let text = Zeroizing::new(trusted::read(path).map_err(failed)?);
    let parsed = parse(&text, routers);
    let mut faults = parsed.as_ref().err().cloned().unwrap_or_default();
    let secret = text.lines().position(|line| {
        let key = meaning(line).split('=').next().unwrap_or_default().trim();
        ["PrivateKey", "PresharedKey"].iter().any(|secret| key.eq_ignore_ascii_case(secret))
    });
    if let (Some(line), Some(mode)) = (secret, mode_for_others(path)) {
        faults.push((line + 1, Problem::Readable(mode)));
    }
    if faults.is_empty()
        && let Ok(file) = parsed
    {
        return Ok(file);
    }
    faults.sort_by_key(|(line, _)| *line);
    let fault = |(line, problem)| Fault { path: path.to_owned(), line, problem };
    Err(WgQuickError::Faults(faults.into_iter().map(fault).collect()))
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

/// Reads the text of a file.
///
/// # Errors
/// All that is wrong, with the lines.
pub fn parse(text: &str, routers: &[IpAddr]) -> Result<WgQuick, Vec<(usize, Problem)>> {
    let mut parser = Parser::default();
    for (at, line) in text.lines().enumerate() {
        parser.line = at + 1;
        if let Err(problem) = parser.handle_line(meaning(line)) {
            parser.faults.push((parser.line, problem));
        }
    }
    parser.finish(routers)
}

/// A line without its comment.
fn meaning(line: &str) -> &str {
    line.split('#').next().unwrap_or_default().trim()
}

/// The sections that there are.
fn section_of(line: &str) -> Option<&'static str> {
    let name = line.strip_prefix('[')?.strip_suffix(']')?.trim();
    ["Interface", "Peer"].into_iter().find(|known| known.eq_ignore_ascii_case(name))
}

/// A value, and the line that it is on.
type On<T> = Option<(usize, T)>;

/// What is known of `[Interface]`.
#[derive(Default)]
struct InterfaceSection {
    line: usize,
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

enum Section {
    /// Before any, or one that is unknown.
    None,
    Interface,
    Peer,
}

#[derive(Default)]
struct Parser {
    line: usize,
    section: Option<Section>,
    interface: Option<InterfaceSection>,
    peers: Vec<PeerSection>,
    faults: Vec<(usize, Problem)>,
}

impl Parser {
    fn handle_line(&mut self, line: &str) -> Result<(), Problem> {
        if line.is_empty() {
            return Ok(());
        }
        if line.starts_with('[') {
            return self.handle_section(line);
        }
        let (key, value) = line.split_once('=').ok_or(Problem::Syntax)?;
        let (key, value) = (key.trim(), value.trim());
        // What else ends in '=' may be a key of WireGuard, and is not repeated.
        if !(1..=MAX_KEY).contains(&key.len()) || !key.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(Problem::Syntax);
        }
        match (&self.section, &mut self.interface, self.peers.last_mut()) {
            (Some(Section::Interface), Some(interface), _) => interface.handle_key(key, value, self.line),
            (Some(Section::Peer), _, Some(peer)) => peer.handle_key(key, value, self.line),
            // What is in a section that is unknown or one too many has been refused with it.
            (Some(_), ..) => Ok(()),
            (None, ..) => Err(Problem::Outside(key.to_owned())),
        }
    }

    fn handle_section(&mut self, line: &str) -> Result<(), Problem> {
        self.section = Some(Section::None);
        match section_of(line) {
            None => {
                let short = line.len() <= MAX_KEY && line.is_ascii();
                Err(Problem::Section(if short { one_line(line) } else { "[…]".to_owned() }))
            }
            Some("Interface") => {
                if let Some(interface) = &self.interface {
                    return Err(Problem::SecondInterface(interface.line));
                }
                self.section = Some(Section::Interface);
                self.interface = Some(InterfaceSection { line: self.line, ..InterfaceSection::default() });
                Ok(())
            }
            Some(_) => {
                self.section = Some(Section::Peer);
                self.peers.push(PeerSection { line: self.line, ..PeerSection::default() });
                Ok(())
            }
        }
    }

    fn finish(mut self, routers: &[IpAddr]) -> Result<WgQuick, Vec<(usize, Problem)>> {
        let faults = &mut self.faults;
        let last = self.line.max(1);
        let interface = self.interface.unwrap_or_else(|| {
            faults.push((last, Problem::NoInterface));
            InterfaceSection::default()
        });
        let missing = [("PrivateKey", interface.has_private_key), ("Address", interface.has_address)];
        for (key, _) in missing.into_iter().filter(|(_, has)| interface.line > 0 && !has) {
            faults.push((interface.line, Problem::Missing(key)));
        }
        if self.peers.is_empty() {
            faults.push((last, Problem::NoPeer));
        }
        let table = interface.table.map_or(Table::Auto, |(_, table)| table);
        check_keys(interface.private_key.as_ref(), &self.peers, faults);
        check_overlaps(&self.peers, faults);
        if matches!(table, Table::Auto | Table::Number(MAIN_TABLE)) {
            check_routes(&self.peers, routers, faults);
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
        Ok(WgQuick {
            interface: Interface {
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

impl InterfaceSection {
    fn handle_key(&mut self, key: &str, value: &str, line: usize) -> Result<(), Problem> {
        let commands = ["PreUp", "PostUp", "PreDown", "PostDown"];
        if let Some(command) = commands.into_iter().find(|command| command.eq_ignore_ascii_case(key)) {
            return Err(Problem::Command(command));
        }
        match &*key.to_ascii_lowercase() {
            "privatekey" => {
                self.has_private_key = true;
                set(&mut self.private_key, "PrivateKey", line, private_key(value)?)
            }
            "address" => {
                self.has_address = true;
                for text in list(value) {
                    let prefix: Prefix = text
                        .parse()
                        .map_err(|_| wrong("Address", text, "IP address with a prefix length"))?;
                    let address = prefix.address();
                    if address.is_unspecified() || address.is_multicast() || address.is_loopback() {
                        return Err(Problem::Address(address));
                    }
                    self.addresses.push(prefix);
                }
                Ok(())
            }
            "mtu" => {
                let mtu = number(value).filter(|mtu| MTU.contains(mtu));
                let mtu = mtu.ok_or_else(|| wrong("MTU", value, "number of bytes from 1280 to 9000"))?;
                set(&mut self.mtu, "MTU", line, mtu)
            }
            "table" => {
                let table = match &*value.to_ascii_lowercase() {
                    "auto" => Some(Table::Auto),
                    "off" => Some(Table::Off),
                    // Table 0 is no table, and 255 is the kernel's own.
                    _ => number(value).filter(|table| ![0, 255].contains(table)).map(Table::Number),
                };
                let table = table.ok_or_else(|| wrong("Table", value, "number of a table, auto or off"))?;
                set(&mut self.table, "Table", line, table)
            }
            "listenport" => {
                let port = number(value).ok_or_else(|| wrong("ListenPort", value, "port"))?;
                set(&mut self.listen_port, "ListenPort", line, port)
            }
            "fwmark" if ["0", "0x0", "off"].contains(&&*value.to_ascii_lowercase()) => Ok(()),
            "fwmark" => Err(Problem::FwMark),
            "dns" => Err(Problem::Dns),
            "saveconfig" if value.eq_ignore_ascii_case("false") => Ok(()),
            "saveconfig" => Err(Problem::SaveConfig),
            _ => Err(Problem::Key { section: "Interface", key: key.to_owned() }),
        }
    }
}

impl PeerSection {
    fn handle_key(&mut self, key: &str, value: &str, line: usize) -> Result<(), Problem> {
        match &*key.to_ascii_lowercase() {
            "publickey" => {
                self.has_public_key = true;
                let public_key = key_of(value).ok_or(Problem::NoKey("PublicKey"))?;
                if is_weak(&public_key) {
                    return Err(Problem::WeakKey("PublicKey"));
                }
                set(&mut self.public_key, "PublicKey", line, public_key.0)
            }
            "presharedkey" => {
                let preshared_key = key_of(value).ok_or(Problem::NoKey("PresharedKey"))?;
                set(&mut self.preshared_key, "PresharedKey", line, preshared_key)
            }
            "allowedips" => {
                for text in list(value) {
                    let prefix: Prefix = text
                        .parse()
                        .map_err(|_| wrong("AllowedIPs", text, "IP address with a prefix length"))?;
                    self.allowed_ips.push((line, prefix.network()));
                }
                Ok(())
            }
            "endpoint" => {
                let endpoint = value.parse().map_err(Problem::Endpoint)?;
                set(&mut self.endpoint, "Endpoint", line, endpoint)
            }
            "persistentkeepalive" => {
                let seconds = if value.eq_ignore_ascii_case("off") { Some(0) } else { number(value) };
                let seconds = seconds.ok_or_else(|| {
                    wrong("PersistentKeepalive", value, "number of seconds up to 65535, or off")
                })?;
                set(&mut self.keepalive, "PersistentKeepalive", line, seconds)
            }
            _ => Err(Problem::Key { section: "Peer", key: key.to_owned() }),
        }
    }
}

fn set<T>(place: &mut On<T>, key: &'static str, line: usize, value: T) -> Result<(), Problem> {
    if let Some((before, _)) = place {
        return Err(Problem::Repeated(key, *before));
    }
    *place = Some((line, value));
    Ok(())
}

/// The parts of a list, without empty ones.
fn list(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').map(str::trim).filter(|part| !part.is_empty())
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

/// A private key. One in 32 public keys looks like one, too.
fn private_key(value: &str) -> Result<SecretKey, Problem> {
    let key = key_of(value).ok_or(Problem::NoKey("PrivateKey"))?;
    let mut clamped = key.clone();
    clamp(&mut clamped);
    if key.0 == [0; 32] {
        Err(Problem::WeakKey("PrivateKey"))
    } else if clamped == key {
        Ok(key)
    } else {
        Err(Problem::NotPrivate)
    }
}

/// Whether a public key is one of those few with which every secret is the same.
fn is_weak(public_key: &SecretKey) -> bool {
    !StaticSecret::from([0x42; 32]).diffie_hellman(&PublicKey::from(public_key.0)).was_contributory()
}

/// Compares the keys with each other.
fn check_keys(
    private: Option<&(usize, SecretKey)>,
    peers: &[PeerSection],
    faults: &mut Vec<(usize, Problem)>,
) {
    let own = private.map(|(_, key)| public_key(key));
    let mut known = std::collections::HashMap::new();
    for peer in peers {
        if !peer.has_public_key {
            faults.push((peer.line, Problem::Missing("PublicKey")));
        }
        let Some((line, key)) = peer.public_key else { continue };
        if let Some((at, private)) = private
            && private.0 == key
        {
            faults.push((*at, Problem::PrivateIsPublic(line)));
        }
        if own == Some(key) {
            faults.push((line, Problem::OwnKey));
        }
        match known.entry(key) {
            std::collections::hash_map::Entry::Occupied(first) => {
                faults.push((line, Problem::DuplicatePeer(*first.get())));
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
fn check_overlaps(peers: &[PeerSection], faults: &mut Vec<(usize, Problem)>) {
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
            faults.push((line, Problem::Overlap { prefix, other, line: of }));
        }
        around.push((line, prefix, peer));
    }
}

/// Finds allowed IPs whose routes would lead the router's own packets into the tunnel that it carries.
fn check_routes(peers: &[PeerSection], routers: &[IpAddr], faults: &mut Vec<(usize, Problem)>) {
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
            Some((*line, Problem::CapturesRouter(*prefix, *router)))
        };
        let mut of_family = routers.iter().filter(|router| router.is_ipv4() == internet.address().is_ipv4());
        if let Some((line, prefix)) = widest
            && captured >= size(&internet) / 2
        {
            faults.push((line, Problem::CapturesInternet(prefix)));
        } else if let Some(fault) = of_family.find_map(captures) {
            faults.push(fault);
        }
    }
}

#[cfg(test)]
mod tests;
