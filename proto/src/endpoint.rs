//! Endpoints of peers as people write them: any I2P destination, or its hash.
//!
//! Source: the I2P common structures specification (destination, certificate, key certificate); for addresses of
//! encrypted lease sets, "B32 for Encrypted Leasesets".

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use thiserror::Error;

use crate::codec::{DecodeError, serde_as_text};
use crate::destination::{Destination, DestinationHash, base64, hash_of};
use crate::identity::BASE32;

/// Encryption key field and signing key field of a destination, bytes.
const KEY_FIELDS: usize = 384;

/// The end of a name that is a hash.
const B32: &str = ".b32.i2p";

/// An I2P destination, whatever its certificate, keys and padding.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct AnyDestination(Box<[u8]>);

impl AnyDestination {
    /// Reads the bytes that routers know.
    ///
    /// # Errors
    /// [`EndpointError`] if they are not a destination and nothing more.
    pub fn from_i2p(bytes: &[u8]) -> Result<Self, EndpointError> {
        let (destination, rest) = Self::split_from(bytes)?;
        match rest.len() {
            0 => Ok(destination),
            more => Err(EndpointError::Trailing(more)),
        }
    }

    /// Reads the destination that these bytes begin with, as those of private keys do. Also returns what follows it.
    ///
    /// # Errors
    /// [`EndpointError`] if they begin with no destination.
    pub fn split_from(bytes: &[u8]) -> Result<(Self, &[u8]), EndpointError> {
        let (destination, rest) = bytes.split_at(len_of(bytes)?);
        Ok((Self(destination.into()), rest))
    }

    /// The bytes that routers know.
    #[must_use]
    pub fn as_i2p(&self) -> &[u8] {
        &self.0
    }

    /// I2P's base64 of these: how SAM names a destination.
    #[must_use]
    pub fn to_base64(&self) -> String {
        base64().encode(&self.0)
    }

    /// Its hash, which is its address.
    #[must_use]
    pub fn hash(&self) -> DestinationHash {
        hash_of(&self.0)
    }
}

impl From<Destination> for AnyDestination {
    fn from(destination: Destination) -> Self {
        Self(destination.to_i2p().into())
    }
}

impl TryFrom<&AnyDestination> for Destination {
    type Error = DecodeError;

    fn try_from(destination: &AnyDestination) -> Result<Self, DecodeError> {
        Self::from_i2p(&destination.0)
    }
}

impl fmt::Debug for AnyDestination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AnyDestination({})", self.hash().short())
    }
}

/// Where a peer takes packets.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// The hash of its destination, `….b32.i2p`: the router looks the destination up.
    Hash(DestinationHash),
    /// Its destination.
    Destination(AnyDestination),
}

/// Why a text is no endpoint of a peer.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EndpointError {
    /// An IP address, or the name of a host outside of I2P.
    #[error("a clearnet endpoint: i2plan does not carry WireGuard over UDP")]
    Clearnet,
    /// An I2P name with a port.
    #[error("an I2P endpoint has no port")]
    Port,
    /// A name of an address book, which every router has its own of.
    #[error("a name of an address book, not a destination")]
    AddressBook,
    /// Not 52 letters and digits of base32 before `.b32.i2p`.
    #[error("no hash before .b32.i2p: 52 letters a to z and digits 2 to 7 are expected")]
    Hash,
    /// The address of an encrypted lease set, whose checksum is wrong.
    #[error("the checksum of this address is wrong")]
    Checksum,
    /// The address of an encrypted lease set.
    #[error("the address of an encrypted lease set, which cannot be an endpoint")]
    Encrypted,
    /// Base64 as other programs than I2P's write it.
    #[error("base64 with '+' and '/', where I2P's has '-' and '~'")]
    OtherBase64,
    /// Not I2P's base64, or cut off.
    #[error("no base64 of a whole destination")]
    Base64,
    /// The bytes end before the destination does.
    #[error("a destination that is cut off: {0} bytes")]
    Short(usize),
    /// Its certificate is of a type that does not exist, or is not what its type says.
    #[error("a destination whose certificate is wrong")]
    Certificate,
    /// Its key certificate names a type of signing key that does not exist.
    #[error("a destination whose type of signing key, {0}, does not exist")]
    KeyType(u16),
    /// More follows a destination: its private keys, maybe. They are not repeated.
    #[error("more than a destination: {0} bytes follow it, as in a file of private keys")]
    Trailing(usize),
}

impl Endpoint {
    /// The hash of the destination.
    #[must_use]
    pub fn hash(&self) -> DestinationHash {
        match self {
            Self::Hash(hash) => *hash,
            Self::Destination(destination) => destination.hash(),
        }
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        if text.parse::<IpAddr>().is_ok() || text.parse::<SocketAddr>().is_ok() {
            return Err(EndpointError::Clearnet);
        }
        let (host, port) = text.split_once(':').map_or((text, false), |(host, _)| (host, true));
        let host = host.to_ascii_lowercase();
        if host.ends_with(".i2p") && port {
            return Err(EndpointError::Port);
        }
        if let Some(hash) = host.strip_suffix(B32) {
            return of_hash(hash);
        }
        if host.ends_with(".i2p") {
            return Err(EndpointError::AddressBook);
        }
        // No host name is as long as a destination.
        if port || text.contains('.') || text.len() < 64 {
            return Err(EndpointError::Clearnet);
        }
        if text.contains(['+', '/']) {
            return Err(EndpointError::OtherBase64);
        }
        let bytes = base64().decode(text.as_bytes()).map_err(|_| EndpointError::Base64)?;
        AnyDestination::from_i2p(&bytes).map(Self::Destination)
    }
}

fn of_hash(text: &str) -> Result<Endpoint, EndpointError> {
    if let Ok(hash) = text.parse() {
        return Ok(Endpoint::Hash(hash));
    }
    // Three bytes of flags and key types, with a checksum in them, then a public key.
    let bytes = BASE32.decode(text.as_bytes()).ok().filter(|bytes| bytes.len() >= 35);
    let Some((head, key)) = bytes.as_ref().and_then(|bytes| bytes.split_first_chunk::<3>()) else {
        return Err(EndpointError::Hash);
    };
    let checksum = crc32(key).to_le_bytes();
    let [flags, signing, blinded] = [0, 1, 2].map(|at| head[at] ^ checksum[at]);
    // Two types of keys can be blinded: Ed25519 and RedDSA.
    let known = flags & !7 == 0 && [7, 11].contains(&signing) && [7, 11].contains(&blinded);
    Err(if known { EndpointError::Encrypted } else { EndpointError::Checksum })
}

/// CRC-32 of IEEE 802.3, as in gzip.
fn crc32(bytes: &[u8]) -> u32 {
    let update = |crc: u32, byte: &u8| {
        let shift = |crc: u32, _| crc >> 1 ^ if crc & 1 == 1 { 0xedb8_8320 } else { 0 };
        (0..8).fold(crc ^ u32::from(*byte), shift)
    };
    !bytes.iter().fold(!0, update)
}

/// The length of the destination that these bytes begin with.
fn len_of(bytes: &[u8]) -> Result<usize, EndpointError> {
    let short = EndpointError::Short(bytes.len());
    let (kind, rest) = bytes.get(KEY_FIELDS..).and_then(<[u8]>::split_first).ok_or(short.clone())?;
    let (len, rest) = rest.split_first_chunk().ok_or(short.clone())?;
    let len = usize::from(u16::from_be_bytes(*len));
    let certificate = rest.get(..len).ok_or(short)?;
    match (kind, certificate) {
        // Null.
        (0, []) => {}
        // Key: the types of both keys, then what of these does not fit into their fields.
        (5, [high, low, _, _, excess @ ..]) => {
            let kind = u16::from_be_bytes([*high, *low]);
            let key_len = signing_key_len(kind).ok_or(EndpointError::KeyType(kind))?;
            if excess.len() < key_len.saturating_sub(128) {
                return Err(EndpointError::Certificate);
            }
        }
        // Hashcash, hidden, signed and multiple, which nobody makes.
        _ => return Err(EndpointError::Certificate),
    }
    Ok(bytes.len() - rest.len() + len)
}

/// The length of a signing key, bytes, by its type.
fn signing_key_len(kind: u16) -> Option<usize> {
    Some(match kind {
        0 => 128,
        1 => 64,
        2 => 96,
        3 => 132,
        4 => 256,
        5 => 384,
        6 => 512,
        7 | 8 | 11 => 32,
        9 | 10 => 64,
        _ => return None,
    })
}

serde_as_text!(Endpoint);

/// A hash as a name, a destination as base64: what [`FromStr`] reads.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hash(hash) => f.write_str(&hash.b32()),
            Self::Destination(destination) => f.write_str(&destination.to_base64()),
        }
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint({})", self.hash().short())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Result<Endpoint, EndpointError> {
        text.parse()
    }

    /// A destination with this certificate.
    fn destination(certificate: &[u8]) -> String {
        base64().encode(&[&[7; KEY_FIELDS][..], certificate].concat())
    }

    #[test]
    fn destinations_of_every_make_are_read() {
        let ours = Destination { padding: [1; 32], signing_key: [2; 32] };
        let endpoint = read(&ours.to_base64()).unwrap();
        assert_eq!((endpoint.hash(), endpoint.to_string()), (ours.hash(), ours.to_base64()));
        assert_eq!(read(&ours.hash().b32()), Ok(Endpoint::Hash(ours.hash())));
        assert_eq!(read(&ours.hash().b32().to_uppercase()), Ok(Endpoint::Hash(ours.hash())));
        // DSA, as i2pd makes by default; ECDSA P-521, of whose key 4 bytes are in the certificate; X25519 named there.
        for certificate in [&[0, 0, 0][..], &[5, 0, 8, 0, 3, 0, 0, 1, 2, 3, 4], &[5, 0, 4, 0, 7, 0, 4]] {
            let text = destination(certificate);
            assert_eq!(read(&text).map(|endpoint| endpoint.to_string()), Ok(text));
        }
    }

    #[test]
    fn what_is_no_endpoint_says_why() {
        use EndpointError::{
            AddressBook, Base64, Certificate, Checksum, Clearnet, Encrypted, Hash, KeyType, OtherBase64,
            Port, Short, Trailing,
        };
        let b32 = Destination { padding: [1; 32], signing_key: [2; 32] }.hash().b32();
        let mut blinded = vec![9; 35];
        let checksum = crc32(&blinded[3..]).to_le_bytes();
        for (at, value) in [0, 7, 11].into_iter().enumerate() {
            blinded[at] = value ^ checksum[at];
        }
        let encrypted = format!("{}.b32.i2p", BASE32.encode(&blinded));
        blinded[20] ^= 1;
        let mistyped = format!("{}.b32.i2p", BASE32.encode(&blinded));
        for (text, error) in [
            ("203.0.113.7:51820", Clearnet),
            ("[2001:db8::1]:51820", Clearnet),
            ("203.0.113.7", Clearnet),
            ("vpn.example.org:51820", Clearnet),
            ("vpn.example.org", Clearnet),
            ("localhost", Clearnet),
            ("", Clearnet),
            (&format!("{b32}:51820"), Port),
            ("mesh.i2p:1", Port),
            ("mesh.i2p", AddressBook),
            ("abc.b32.i2p", Hash),
            (&b32.replacen(|_| true, "1", 1), Hash),
            (&encrypted, Encrypted),
            (&mistyped, Checksum),
            (&format!("{}+", "A".repeat(515)), OtherBase64),
            (&"A".repeat(515), Base64),
            (&"A".repeat(400), Short(300)),
            (&destination(&[0, 0]), Short(386)),
            (&destination(&[0, 0, 1]), Short(387)),
            (&destination(&[0, 0, 1, 0]), Certificate),
            (&destination(&[6, 0, 0]), Certificate),
            (&destination(&[5, 0, 2, 0, 7]), Certificate),
            (&destination(&[5, 0, 4, 0, 3, 0, 0]), Certificate),
            (&destination(&[5, 0, 4, 0, 99, 0, 0]), KeyType(99)),
            (&destination(&[&[5, 0, 4, 0, 7, 0, 0][..], &[9; 64]].concat()), Trailing(64)),
        ] {
            assert_eq!(read(text), Err(error), "{text}");
        }
    }

    #[test]
    fn private_keys_begin_with_their_destination() {
        let bytes = base64().decode(destination(&[5, 0, 4, 0, 7, 0, 0]).as_bytes()).unwrap();
        let keys = [&bytes[..], &[9; 64]].concat();
        let (destination, rest) = AnyDestination::split_from(&keys).unwrap();
        assert_eq!((destination.as_i2p(), rest), (&bytes[..], &[9; 64][..]));
        assert_eq!(AnyDestination::from_i2p(&keys), Err(EndpointError::Trailing(64)));
        assert!(Destination::try_from(&destination).is_ok());
    }

    #[test]
    fn the_checksum_is_that_of_gzip() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    proptest! {
        #[test]
        fn what_is_read_is_written_the_same(
            text in "[A-Za-z0-9~.:=+/-]{0,700}",
            bytes in prop::collection::vec(any::<u8>(), 380..420),
        ) {
            for text in [text, base64().encode(&bytes)] {
                if let Ok(endpoint) = read(&text) {
                    prop_assert_eq!(endpoint.to_string().parse(), Ok(endpoint));
                }
            }
        }
    }
}
