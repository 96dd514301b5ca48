//! What a transport is opened with.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::str::FromStr;

use ed25519_dalek::SigningKey;
use i2plan_proto::destination::{Destination, base64};
use i2plan_proto::endpoint::{AnyDestination, EndpointError};
use i2plan_proto::sam::session::{HELLO, LoginError, Style, Tunnels, hello_with_login};
use thiserror::Error;
use zeroize::Zeroizing;

/// Bytes of the private encryption key among the private keys of a destination, for encryption type 0.
const ENCRYPTION_KEY_LEN: usize = 256;

/// Most hops of a tunnel in each direction.
const MAX_LENGTH: u8 = 7;

/// Most hops that a tunnel is longer or shorter by chance.
const MAX_VARIANCE: u8 = 2;

/// Most tunnels of a session in each direction, in use or in reserve.
const MAX_TUNNELS: u8 = 16;

/// What a transport is opened with.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the bridge takes connections (TCP).
    pub bridge: SocketAddr,
    /// Where it takes datagrams; if none, the ports that routers use are tried.
    pub udp_port: Option<u16>,
    /// Who this is, for a bridge that wants to know.
    pub login: Option<Login>,
    /// The keys of the transport's destination.
    pub keys: Keys,
    /// What the transport sends.
    pub style: Style,
    /// The tunnels of its session.
    pub tunnels: Tunnels,
}

impl Config {
    /// A transport under these keys through the router of this host, with three tunnels of one hop in each direction.
    #[must_use]
    pub fn new(keys: Keys, style: Style) -> Self {
        Self {
            bridge: (Ipv4Addr::LOCALHOST, 7656).into(),
            udp_port: None,
            login: None,
            keys,
            style,
            tunnels: Tunnels { length: 1, length_variance: 0, quantity: 3, backup_quantity: 0 },
        }
    }

    /// Checks what a router would refuse without a reason.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let Tunnels { length, length_variance, quantity, backup_quantity } = self.tunnels;
        let in_bounds = length <= MAX_LENGTH
            && length_variance.unsigned_abs() <= MAX_VARIANCE
            && (1..=MAX_TUNNELS).contains(&quantity)
            && backup_quantity <= MAX_TUNNELS;
        if in_bounds { Ok(()) } else { Err(ConfigError::Tunnels(self.tunnels)) }
    }

    pub(crate) fn hello(&self) -> &str {
        self.login.as_ref().map_or(HELLO, |login| &login.0)
    }
}

/// Why no transport can be opened with a configuration.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ConfigError {
    /// Tunnels that no router builds.
    #[error(
        "{0:?}: the length must be 0 to {MAX_LENGTH}, its variance -{MAX_VARIANCE} to {MAX_VARIANCE}, the quantity 1 \
         to {MAX_TUNNELS} and that of backups 0 to {MAX_TUNNELS}"
    )]
    Tunnels(Tunnels),
}

/// A user and a password, for a bridge that wants them. Wiped when dropped, never printed.
#[derive(Clone)]
pub struct Login(Zeroizing<String>);

impl Login {
    /// Checks that both can be said to a bridge.
    ///
    /// # Errors
    /// [`LoginError`] if not.
    pub fn new(user: &str, password: &str) -> Result<Self, LoginError> {
        hello_with_login(user, password).map(Self)
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Login(…)")
    }
}

/// The private keys of a destination. Wiped when dropped, never printed.
#[derive(Clone)]
pub struct Keys {
    text: Zeroizing<String>,
    destination: AnyDestination,
}

impl Keys {
    /// Makes the keys of a new destination (Ed25519). They are transient if they are not [saved](Self::expose).
    #[must_use]
    pub fn generate() -> Self {
        let seed = Zeroizing::new(rand::random::<[u8; 32]>());
        let signing_key = SigningKey::from_bytes(&seed).verifying_key().to_bytes();
        let destination = Destination { padding: rand::random(), signing_key };
        // Out of use since lease sets carry encryption keys of their own; it only has to be there.
        let unused: [u8; ENCRYPTION_KEY_LEN] = rand::random();
        let mut bytes = Zeroizing::new(Vec::with_capacity(1024));
        for part in [&destination.to_i2p()[..], &unused, &*seed] {
            bytes.extend_from_slice(part);
        }
        let mut text = Zeroizing::new(String::with_capacity(1024));
        base64().encode_append(&bytes, &mut text);
        Self { text, destination: destination.into() }
    }

    /// The keys as SAM and this type's [`FromStr`] read them, to be saved.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.text
    }

    /// The destination.
    #[must_use]
    pub fn destination(&self) -> &AnyDestination {
        &self.destination
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys(of {:?})", self.destination)
    }
}

/// Why a text is no private keys. It repeats nothing of the text.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum KeysError {
    /// Not base64 as I2P writes it.
    #[error("the private keys are not in I2P's base64")]
    Base64,
    /// They do not begin with a destination.
    #[error("the private keys do not begin with a destination: {0}")]
    Destination(EndpointError),
    /// A destination alone.
    #[error("a destination without its private keys")]
    Public,
}

/// Reads the keys of a destination of any make, as SAM writes them: the destination and what is secret of it, in I2P's
/// base64.
impl FromStr for Keys {
    type Err = KeysError;

    fn from_str(text: &str) -> Result<Self, KeysError> {
        let text = text.trim();
        let bytes = base64().decode(text.as_bytes()).map(Zeroizing::new).map_err(|_| KeysError::Base64)?;
        let (destination, secret) = AnyDestination::split_from(&bytes).map_err(KeysError::Destination)?;
        if secret.is_empty() {
            return Err(KeysError::Public);
        }
        Ok(Self { text: Zeroizing::new(text.to_owned()), destination })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_as_they_are_saved_and_not_printed() {
        let keys = Keys::generate();
        let again: Keys = format!("{}\n", keys.expose()).parse().unwrap();
        assert_eq!((again.expose(), again.destination()), (keys.expose(), keys.destination()));
        assert_ne!(keys.destination(), Keys::generate().destination());
        let printed = format!("{:?}", Config::new(keys.clone(), Style::Raw));
        assert!(!printed.contains(&keys.expose()[600..]), "{printed}");
        assert_eq!(keys.destination().to_base64().parse::<Keys>().unwrap_err(), KeysError::Public);
        assert_eq!("a b".parse::<Keys>().unwrap_err(), KeysError::Base64);
        assert!(matches!("AAAA".parse::<Keys>().unwrap_err(), KeysError::Destination(_)));
    }

    #[test]
    fn keys_of_other_makes_are_read() {
        // DSA and a null certificate, with 256 and 20 bytes of private keys.
        let bytes = [&[7; 384][..], &[0, 0, 0], &[9; 276]].concat();
        let keys: Keys = base64().encode(&bytes).parse().unwrap();
        assert_eq!(keys.destination().as_i2p(), &bytes[..387]);
    }

    #[test]
    fn tunnels_that_no_router_builds_are_refused() {
        let mut config = Config::new(Keys::generate(), Style::Raw);
        assert_eq!(config.check(), Ok(()));
        let usual = config.tunnels;
        for tunnels in [
            Tunnels { length: 8, ..usual },
            Tunnels { length_variance: -3, ..usual },
            Tunnels { quantity: 0, ..usual },
            Tunnels { backup_quantity: 17, ..usual },
        ] {
            config.tunnels = tunnels;
            assert_eq!(config.check(), Err(ConfigError::Tunnels(tunnels)));
        }
    }

    #[test]
    fn a_login_is_not_printed() {
        let login = Login::new("user", "s3cret").unwrap();
        assert!(!format!("{login:?}").contains("s3cret"));
        assert!(Login::new("user", "a\nQUIT").is_err());
    }
}
