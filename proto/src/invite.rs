//! Invite codes, and the grants by which an inviter's `keyd` recognises its own.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use ed25519_dalek::SigningKey;
use thiserror::Error;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::address::Ipv4Subnet;
use crate::codec::{Codec, DecodeError, Reader, serde_as_bytes};
use crate::destination::DestinationHash;
use crate::identity::{NetworkId, NodeId, SelfSigned, Signable, byte_id, tagged_hash};
use crate::membership::NetworkName;

/// What every invite code starts with.
pub const SCHEME: &str = "i2plan://";

/// How the scheme ends.
const SEPARATOR: &str = "://";

const VERSION: u8 = 3;
const CHECKSUM_LEN: usize = 4;
/// Version, network, its name, subnet, inviter, destination hash, secret, expiry, checksum.
const LEN: usize = 1 + 32 + NetworkName::MAX_LEN + 5 + 3 * 32 + 8 + CHECKSUM_LEN;

byte_id!(
    /// The public half of an invite's secret: an Ed25519 key.
    InviteKey,
    32,
    "invite key"
);

byte_id!(
    /// Names an invite without giving anything of it away. Written as base32.
    InviteId,
    16,
    "invite id"
);

impl InviteKey {
    /// The id of the invite with this key.
    #[must_use]
    pub fn id(&self) -> InviteId {
        let hash = tagged_hash("i2plan invite id v1", &[&self.0]);
        InviteId(*hash.first_chunk().expect("a hash is longer than an id"))
    }
}

/// An Ed25519 seed that whoever holds the invite proves to know. Wiped when dropped, never printed.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct InviteSecret(pub [u8; 32]);

impl InviteSecret {
    /// The signing key.
    #[must_use]
    pub fn signing_key(&self) -> SigningKey {
        SigningKey::from_bytes(&self.0)
    }

    /// The public half.
    #[must_use]
    pub fn key(&self) -> InviteKey {
        InviteKey(self.signing_key().verifying_key().to_bytes())
    }
}

impl fmt::Debug for InviteSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InviteSecret(…)")
    }
}

/// What an invite code says. It holds a secret: whoever has it can join.
#[derive(Debug, Clone)]
pub struct Invite {
    /// The network to join.
    pub network: NetworkId,
    /// Its name, so that the joiner can see before it joins which network it is.
    pub name: NetworkName,
    /// Its subnet, so that the joiner can look before it joins whether that is in use where it is.
    pub subnet: Ipv4Subnet,
    /// The member that invites.
    pub inviter: NodeId,
    /// The hash of its control destination.
    pub control: DestinationHash,
    /// What the joiner proves to hold.
    pub secret: InviteSecret,
    /// Unix time in seconds.
    pub expires_at: u64,
}

/// Why a text is no invite code.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InviteError {
    /// There is none in it.
    #[error("this is not an invite code: there is no {SCHEME} in it")]
    Scheme,
    /// It ends too early.
    #[error(
        "the invite code is truncated: {missing} of its {expected} characters are missing; copy it whole"
    )]
    Truncated {
        /// Characters that are missing.
        missing: usize,
        /// Characters of a whole code.
        expected: usize,
    },
    /// Its checksum does not fit, or it holds characters that no code holds.
    #[error("the invite code is damaged: its checksum does not match; copy it again")]
    Damaged,
    /// It was made by a version of i2plan that this one does not know.
    #[error("the invite code has version {0}, which this version of i2plan does not know; upgrade this node")]
    Version(u8),
    /// It was made by an earlier version of i2plan, whose networks this one cannot join.
    #[error(
        "the invite code has version {0}, of an earlier version of i2plan; ask for one that was made with version {VERSION}"
    )]
    Outdated(u8),
}

impl Invite {
    /// The code, which is a secret.
    #[must_use]
    pub fn to_code(&self) -> Zeroizing<String> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(LEN));
        bytes.push(VERSION);
        self.network.encode(&mut bytes);
        self.name.encode(&mut bytes);
        self.subnet.encode(&mut bytes);
        self.inviter.encode(&mut bytes);
        self.control.encode(&mut bytes);
        bytes.extend_from_slice(&self.secret.0);
        bytes.extend_from_slice(&self.expires_at.to_be_bytes());
        let sum = checksum(&bytes);
        bytes.extend_from_slice(&sum);
        let mut code = Zeroizing::new(String::with_capacity(code_len()));
        code.push_str(SCHEME);
        data_encoding::BASE64URL_NOPAD.encode_append(&bytes, &mut code);
        code
    }

    /// The id by which the invite is listed and logged.
    #[must_use]
    pub fn id(&self) -> InviteId {
        self.secret.key().id()
    }
}

/// Finds the code in a text that people have passed on: in quotes or brackets, after other words, wrapped at any column
/// or quoted in a mail, with the scheme in capitals. What follows a whole code does not matter.
impl FromStr for Invite {
    type Err = InviteError;

    fn from_str(text: &str) -> Result<Self, InviteError> {
        let mut first = None;
        for (at, _) in text.match_indices(':') {
            let Some(scheme) = (at + SEPARATOR.len()).checked_sub(SCHEME.len()) else { continue };
            let is_scheme = |found: &str| found.eq_ignore_ascii_case(SCHEME);
            if !text.get(scheme..at + SEPARATOR.len()).is_some_and(is_scheme) {
                continue;
            }
            match read_code(&text[at + SEPARATOR.len()..]) {
                Ok(invite) => return Ok(invite),
                Err(error) => _ = first.get_or_insert(error),
            }
        }
        Err(first.unwrap_or(InviteError::Scheme))
    }
}

/// Reads what follows the scheme.
fn read_code(text: &str) -> Result<Invite, InviteError> {
    let length = code_len() - SCHEME.len();
    let wrapped = without_breaks(text, length);
    // Codes of other versions are of other lengths, and end where the first word does.
    let word = text.split(|c: char| !is_code(c)).next().unwrap_or_default();
    match first_byte(&wrapped) {
        Some(version @ 1..VERSION) => Err(InviteError::Outdated(version)),
        Some(VERSION) | None if wrapped.len() < length => {
            let missing = length - wrapped.len();
            Err(InviteError::Truncated { missing, expected: code_len() })
        }
        Some(VERSION) if word.len() <= length => decode(&wrapped),
        _ => decode(word),
    }
}

/// The characters of a code at the start of a text, without the breaks that mail programs and terminals put into it; at
/// most `length` of them.
fn without_breaks(text: &str, length: usize) -> Zeroizing<String> {
    let mut code = Zeroizing::new(String::with_capacity(length));
    let mut is_blank = false;
    for c in text.chars() {
        match c {
            _ if code.len() == length => break,
            c if is_code(c) => {
                code.push(c);
                is_blank = false;
            }
            // A blank line ends it.
            '\n' if std::mem::replace(&mut is_blank, true) => break,
            c if c.is_whitespace() || matches!(c, '>' | '\\' | '|' | '\u{feff}' | '\u{200b}' | '\u{ad}') => {}
            _ => break,
        }
    }
    code
}

fn is_code(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_')
}

fn decode(text: &str) -> Result<Invite, InviteError> {
    let bytes = data_encoding::BASE64URL_NOPAD.decode(text.as_bytes()).map_err(|_| InviteError::Damaged)?;
    let bytes = Zeroizing::new(bytes);
    let (body, sum) = bytes.split_last_chunk::<CHECKSUM_LEN>().ok_or(InviteError::Damaged)?;
    if checksum(body) != *sum {
        return Err(InviteError::Damaged);
    }
    let mut reader = Reader::new(body);
    match reader.u8("version") {
        Ok(VERSION) => {}
        Ok(version) => return Err(InviteError::Version(version)),
        Err(_) => return Err(InviteError::Damaged),
    }
    read_body(reader).map_err(|_| InviteError::Damaged)
}

fn read_body(mut reader: Reader<'_>) -> Result<Invite, DecodeError> {
    let invite = Invite {
        network: NetworkId::decode(&mut reader)?,
        name: NetworkName::decode(&mut reader)?,
        subnet: Ipv4Subnet::decode(&mut reader)?,
        inviter: NodeId::decode(&mut reader)?,
        control: DestinationHash::decode(&mut reader)?,
        secret: InviteSecret(reader.array("invite secret")?),
        expires_at: reader.u64("expiry")?,
    };
    reader.finish()?;
    Ok(invite)
}

/// Characters of a code.
fn code_len() -> usize {
    SCHEME.len() + data_encoding::BASE64URL_NOPAD.encode_len(LEN)
}

/// The first byte of a possibly incomplete base64url text.
fn first_byte(text: &str) -> Option<u8> {
    let start = text.as_bytes().get(..4)?;
    data_encoding::BASE64URL_NOPAD.decode(start).ok()?.first().copied()
}

fn checksum(body: &[u8]) -> [u8; CHECKSUM_LEN] {
    let hash = tagged_hash("i2plan invite checksum v1", &[body]);
    *hash.first_chunk().expect("a hash is longer than a checksum")
}

/// How often an invite may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Uses {
    /// By so many nodes.
    Limited(NonZeroU32),
    /// By any number of nodes, until it expires.
    Unlimited,
}

impl Uses {
    /// The limit as a number, none for unlimited.
    #[must_use]
    pub fn limit(self) -> Option<u32> {
        match self {
            Self::Limited(uses) => Some(uses.get()),
            Self::Unlimited => None,
        }
    }
}

impl Codec for Uses {
    fn encode(&self, out: &mut Vec<u8>) {
        // Zero uses cannot be granted, so zero is free to stand for no limit.
        out.extend_from_slice(&self.limit().unwrap_or(0).to_be_bytes());
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(NonZeroU32::new(reader.u32("uses")?).map_or(Self::Unlimited, Self::Limited))
    }
}

serde_as_bytes!(Uses);

/// An inviter's own note of an invite that it made, signed by itself.
///
/// `keyd` keeps no list of invites. It signs a grant when it makes an invite, and asks for the grant back
/// before it signs a membership certificate: so it certifies nobody but holders of invites that it made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InviteGrant {
    /// The network.
    pub network: NetworkId,
    /// The node that made the invite.
    pub inviter: NodeId,
    /// The public half of the invite's secret.
    pub key: InviteKey,
    /// Unix time in seconds.
    pub created_at: u64,
    /// Unix time in seconds.
    pub expires_at: u64,
    /// How often it may be used; counted by `meshd`.
    pub uses: Uses,
    /// Addresses for each of its users, a power of two.
    pub addresses: u32,
}

impl Signable for InviteGrant {
    const DOMAIN: &'static str = "i2plan invite grant v2";
    const WHAT: &'static str = "invite grant";
}

impl SelfSigned for InviteGrant {
    fn signer(&self) -> &NodeId {
        &self.inviter
    }
}

impl Codec for InviteGrant {
    fn encode(&self, out: &mut Vec<u8>) {
        self.network.encode(out);
        self.inviter.encode(out);
        self.key.encode(out);
        out.extend_from_slice(&self.created_at.to_be_bytes());
        out.extend_from_slice(&self.expires_at.to_be_bytes());
        self.uses.encode(out);
        out.extend_from_slice(&self.addresses.to_be_bytes());
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            network: NetworkId::decode(reader)?,
            inviter: NodeId::decode(reader)?,
            key: InviteKey::decode(reader)?,
            created_at: reader.u64("creation time")?,
            expires_at: reader.u64("expiry")?,
            uses: Uses::decode(reader)?,
            addresses: reader.u32("number of addresses")?,
        })
    }
}

serde_as_bytes!(InviteGrant);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::identity::Signed;
    use crate::testing;

    fn same(a: &Invite, b: &Invite) -> bool {
        a.to_code() == b.to_code()
    }

    #[test]
    fn a_code_fits_a_small_qr_code() {
        // Version 9 at the lowest error correction holds 230 bytes.
        assert!(testing::invite(1).to_code().len() <= 230);
    }

    #[test]
    fn white_space_around_a_code_is_no_error() {
        let invite = testing::invite(1);
        let read: Invite = format!("  {}\n", *invite.to_code()).parse().unwrap();
        assert!(same(&read, &invite));
    }

    #[test]
    fn a_code_is_found_however_it_was_passed_on() {
        let invite = testing::invite(1);
        let code = invite.to_code();
        let folded = |width: usize, between: &str| {
            let lines: Vec<_> =
                code.as_bytes().chunks(width).map(|line| str::from_utf8(line).unwrap()).collect();
            lines.join(between)
        };
        let output = format!("{}\ninvite x: one node, until 2027-01-15T08:00:00Z\n", *code);
        for text in [
            folded(76, "\n"),
            folded(76, "\r\n"),
            folded(80, "\n> "),
            folded(40, " \\\n  "),
            format!("\"{}\"", *code),
            format!("<{}>", *code),
            format!("Invite: `{}`.", *code),
            format!("[join]({})", *code),
            format!("\u{feff}{}\r\n", *code),
            code.replace(SCHEME, "I2PLAN://"),
            format!("{}\n\nthat was it", folded(30, "\n")),
            format!("it begins with i2plan://, such as\n{output}"),
            output,
        ] {
            assert!(text.parse::<Invite>().is_ok_and(|found| same(&found, &invite)), "{text}");
        }
        // Only what is no part of it may be in between.
        for text in [folded(76, "\n\n"), folded(76, "*"), code.to_uppercase(), format!("{}x", *code)] {
            assert!(text.parse::<Invite>().is_err(), "{text}");
        }
    }

    #[test]
    fn every_truncation_is_called_one() {
        let code = testing::invite(1).to_code();
        // From the first group on: what is shorter does not show its version.
        for len in SCHEME.len() + 4..code.len() {
            let error = code[..len].parse::<Invite>().unwrap_err();
            assert_eq!(error, InviteError::Truncated { missing: code.len() - len, expected: code.len() });
        }
    }

    #[test]
    fn other_texts_are_named() {
        assert_eq!("https://example.org".parse::<Invite>().unwrap_err(), InviteError::Scheme);
        assert_eq!("".parse::<Invite>().unwrap_err(), InviteError::Scheme);
        assert!(matches!("i2plan://".parse::<Invite>().unwrap_err(), InviteError::Truncated { .. }));
    }

    #[test]
    fn other_versions_are_named() {
        let mut bytes = vec![VERSION + 1; 40];
        let sum = checksum(&bytes);
        bytes.extend_from_slice(&sum);
        let code = format!("{SCHEME}{}", data_encoding::BASE64URL_NOPAD.encode(&bytes));
        assert_eq!(code.parse::<Invite>().unwrap_err(), InviteError::Version(VERSION + 1));
        for version in 1..VERSION {
            let code = format!("{SCHEME}{}", data_encoding::BASE64URL_NOPAD.encode(&[version; 40]));
            assert_eq!(code.parse::<Invite>().unwrap_err(), InviteError::Outdated(version));
        }
    }

    #[test]
    fn a_secret_does_not_print() {
        let invite = testing::invite(1);
        let text = format!("{invite:?}");
        assert!(!text.contains(&format!("{:?}", invite.secret.0)));
        assert!(text.contains("InviteSecret(…)"));
    }

    proptest! {
        #[test]
        fn codes_read_back(seed: u8) {
            let invite = testing::invite(seed);
            prop_assert!(same(&invite.to_code().parse().unwrap(), &invite));
        }

        #[test]
        fn one_flipped_bit_is_found(bit: prop::sample::Index) {
            let mut code = testing::invite(5).to_code().as_bytes().to_vec();
            let bit = bit.index((code.len() - SCHEME.len()) * 8);
            code[SCHEME.len() + bit / 8] ^= 1 << (bit % 8);
            let damaged = String::from_utf8_lossy(&code).parse::<Invite>();
            prop_assert!(damaged.is_err());
        }

        #[test]
        fn arbitrary_text_is_no_panic(text in "(i2plan://)?.*") {
            let _ = text.parse::<Invite>();
        }

        #[test]
        fn grants_read_back(seed: u8) {
            testing::round_trips(&testing::grant(seed))?;
        }

        #[test]
        fn arbitrary_bytes_are_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            testing::decodes_canonically::<Signed<InviteGrant>>(&bytes)?;
        }
    }
}
