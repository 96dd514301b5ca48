//! What may be asked of `webd`, at its socket: who may use the web interface.

use serde::{Deserialize, Serialize};

use super::{Api, Terms};
use crate::hello::Role;
use crate::secret::SecretText;
use crate::version::utc;

/// `webd`.
#[derive(Debug)]
pub enum WebdApi {}

requests! {
    /// A request to `webd`.
    WebdApi => Reply, by Client;

    Query {
        /// The sessions that are open.
        Sessions as ListSessions -> Vec<Session> { Reply::Sessions(sessions) => sessions };
        /// When the certificate of the pages expires, in seconds since 1970; none without TLS.
        CertificateExpiry as GetCertificateExpiry -> Option<u64> { Reply::CertificateExpiry(at) => at };
    }

    Command {
        /// Make a link that opens a session once.
        CreateLink {
            /// Whether the session may change anything.
            control: bool,
        } -> Link { Reply::Link(link) => link };
        /// End a session, or all of them, and forget the links that were not used. Answered with how many ended.
        EndSessions {
            /// The session's id; none for all.
            id: Option<String>,
        } -> u64 { Reply::Ended(count) => count };
    }
}

/// The port in links to pages at a unix socket: that of the browser's host which `ssh -L` forwards there.
pub const FORWARDED_PORT: u16 = 8080;

/// Seconds before a certificate expires from which on it is warned of.
pub const EXPIRY_WARNING: u64 = 14 * 24 * 60 * 60;

/// What is to be said of a certificate that expires then, if anything; both times in seconds since 1970.
#[must_use]
pub fn expiry_warning(expires: u64, now: u64) -> Option<String> {
    let until = utc(expires);
    if expires <= now {
        return Some(format!("the certificate of the web pages has expired ({until})"));
    }
    (expires - now <= EXPIRY_WARNING)
        .then(|| format!("the certificate of the web pages expires soon ({until})"))
}

/// A reply of `webd`. To which requests stands with these.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Reply {
    /// The sessions that are open.
    Sessions(Vec<Session>),
    /// A link.
    Link(Link),
    /// How many sessions have ended.
    Ended(u64),
    /// When the certificate expires.
    CertificateExpiry(Option<u64>),
}

/// A link that opens a session once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// Its URL; a secret.
    pub url: SecretText,
    /// Seconds for which it can be used.
    pub expires_in: u64,
    /// Whether the session may change anything.
    pub control: bool,
    /// The SHA-256 of the certificate that the browser will be shown, in pairs of hexadecimal digits, if no authority has
    /// signed it.
    pub fingerprint: Option<String>,
    /// The path of the unix socket where the pages are, if they are at none of this host's addresses.
    pub socket: Option<String>,
}

/// A session of a browser.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Names the session without giving it away.
    pub id: String,
    /// Whether it may change anything.
    pub control: bool,
    /// Seconds since it was opened.
    pub age: u64,
    /// Seconds since it was used last.
    pub idle: u64,
    /// Seconds for which it lasts at most.
    pub expires_in: u64,
}

impl Api for WebdApi {
    type Request = Request;
    type Reply = Reply;
    const DAEMON: Role = Role::Webd;
    const MAX_REQUEST: usize = 1024;
    const MAX_REPLY: usize = 64 * 1024;

    fn terms(request: &Request) -> Terms {
        request.terms()
    }
}
