//! Fetching a seed from I2P's reseed servers: a program of its own, `i2plan-routerd --fetch-seed`, that the router
//! starts before it sets up its sandbox.
//!
//! It speaks DNS and TLS, so it has neither the router's keys nor its files, and its sandbox lets it read what the
//! system keeps for everybody and speak with web servers. What it prints are router infos, each with its length before
//! it. The router looks at them in its own sandbox, and believes of each what its router has signed.

use std::io::{self, Read as _, Write as _};
use std::sync::Arc;
use std::time::Duration;

use rand::seq::SliceRandom as _;
use rustls::crypto::ring::default_provider;
use thiserror::Error;
use tracing::{info, warn};
use ureq::Agent;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use super::{signers, su3};
use crate::known::{KnownRouters, MAX_INFO};

/// The servers, as I2P's own routers know them.
const SERVERS: [&str; 13] = [
    "reseed.stormycloud.org",
    "reseed-pl.i2pd.xyz",
    "reseed-fr.i2pd.xyz",
    "www2.mk16.de",
    "reseed2.i2p.net",
    "banana.incognet.io",
    "reseed.diva.exchange",
    "reseed.i2pgit.org",
    "i2p.novg.net",
    "reseed.onion.im",
    "reseed.memcpy.io",
    "reseed.sahil.world",
    "i2p.diyarciftci.xyz",
];

/// Bundles of different servers that are fetched: one alone could show a router only routers of its own.
const BUNDLES: usize = 2;

/// How long one server may take.
const TIMEOUT: Duration = Duration::from_secs(20);

/// A bundle that is older is refused: servers make new ones every few days.
const MAX_AGE: Duration = Duration::from_secs(30 * 24 * 3600);

/// What servers want to be asked by, so that others do not fetch bundles by accident.
const USER_AGENT: &str = "Wget/1.11.4";

/// The longest that the program may print, bytes.
pub const MAX_OUTPUT: usize = 4 << 20;

/// Why there is no seed.
#[derive(Debug, Error)]
pub enum FetchError {
    /// The host has no certificates of those who certify web servers.
    #[error("there are no certificates of authorities on this host: install ca-certificates")]
    NoAuthorities,
    /// No server has given a bundle.
    #[error("no reseed server gave a bundle of routers: is the network up?")]
    Nobody,
    /// What was fetched cannot be handed on.
    #[error("cannot print what was fetched: {0}")]
    Output(#[from] io::Error),
}

/// Fetches bundles and prints what is in them.
///
/// # Errors
/// [`FetchError`].
pub fn run(now: u64) -> Result<(), FetchError> {
    let agent = agent(&rustls_native_certs::load_native_certs().certs)?;
    let mut servers = SERVERS;
    servers.shuffle(&mut rand::rng());
    let mut bundles = 0;
    let mut out = io::stdout().lock();
    for server in servers {
        let fetched = fetch(&agent, server);
        match fetched.and_then(|bytes| open(&bytes, now, |signer| signers::key(signer, now))) {
            Ok(routers) => {
                info!(server, routers = routers.len(), "fetched a bundle of routers");
                routers.iter().try_for_each(|router| write_one(&mut out, router))?;
                bundles += 1;
            }
            Err(error) => warn!(server, error, "no bundle of routers"),
        }
        if bundles == BUNDLES {
            break;
        }
    }
    out.flush()?;
    match bundles {
        0 => Err(FetchError::Nobody),
        1 => {
            warn!(
                "only one reseed server gave a bundle: the router sees the network through its eyes at first"
            );
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Asks servers that one of these authorities certifies.
fn agent(authorities: &[impl AsRef<[u8]>]) -> Result<Agent, FetchError> {
    if authorities.is_empty() {
        return Err(FetchError::NoAuthorities);
    }
    let authorities: Vec<_> =
        authorities.iter().map(|one| Certificate::from_der(one.as_ref()).to_owned()).collect();
    let tls = TlsConfig::builder()
        .root_certs(RootCerts::Specific(Arc::new(authorities)))
        .unversioned_rustls_crypto_provider(Arc::new(default_provider()))
        .build();
    let config = Agent::config_builder()
        .tls_config(tls)
        .https_only(true)
        .user_agent(USER_AGENT)
        .max_redirects(3)
        .timeout_global(Some(TIMEOUT))
        // No proxy that the environment names: it would see what for this host asks.
        .proxy(None)
        .build();
    Ok(config.new_agent())
}

fn fetch(agent: &Agent, server: &str) -> Result<Vec<u8>, String> {
    let in_words = |error: &dyn std::fmt::Display| error.to_string();
    let response =
        agent.get(format!("https://{server}/i2pseeds.su3")).call().map_err(|error| in_words(&error))?;
    let mut bytes = Vec::new();
    let body = response.into_body().into_reader().take(su3::MAX_LEN as u64 + 1).read_to_end(&mut bytes);
    body.map_err(|error| in_words(&error))?;
    Ok(bytes)
}

/// What is in a fetched bundle, if it is signed and not old.
fn open(
    bytes: &[u8],
    now: u64,
    key: impl Fn(&str) -> Option<rsa::PublicKey>,
) -> Result<Vec<Vec<u8>>, String> {
    let (made, routers) = su3::open(bytes, key).map_err(|error| error.to_string())?;
    if made.saturating_add(MAX_AGE.as_secs()) < now {
        return Err(format!("the bundle was made at {made} (seconds since 1970), too long ago"));
    }
    Ok(routers)
}

fn write_one(out: &mut impl io::Write, router: &[u8]) -> io::Result<()> {
    let Ok(len) = u16::try_from(router.len()) else { return Ok(()) };
    out.write_all(&len.to_be_bytes())?;
    out.write_all(router)
}

/// Learns of the routers that the program has printed. Returns how many they are.
pub fn learn(mut printed: &[u8], known: &mut KnownRouters) -> usize {
    let mut learnt = 0;
    while let Some((len, rest)) = printed.split_first_chunk() {
        let len = usize::from(u16::from_be_bytes(*len));
        let Some((router, rest)) = rest.split_at_checked(len) else { break };
        printed = rest;
        if len <= MAX_INFO && known.learn(router).is_ok() {
            learnt += 1;
        }
    }
    learnt
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use rustls::pki_types::PrivateKeyDer;
    use rustls::{ServerConfig, ServerConnection, Stream};

    use super::*;
    use crate::testing::{NETWORK, info};

    #[test]
    fn what_is_printed_is_learnt() {
        let mut printed = Vec::new();
        for router in [&info(1, NETWORK, 5)[..], b"none", &info(2, NETWORK, 5), &info(3, 2, 5), &[0; 70_000]]
        {
            write_one(&mut printed, router).unwrap();
        }
        let mut known = KnownRouters::none(NETWORK);
        assert_eq!(learn(&printed, &mut known), 2);
        // Cut short anywhere, it is as much as came.
        for len in 0..printed.len() {
            assert!(learn(&printed[..len], &mut KnownRouters::none(NETWORK)) <= 2);
        }
    }

    #[test]
    fn an_old_bundle_is_refused() {
        let age = MAX_AGE.as_secs();
        let bundle = su3::tests::bundle("test@mail.i2p", 1000, &[b"one"]);
        let key = |_: &str| Some(su3::tests::key());
        assert_eq!(open(&bundle, 1000 + age, key).unwrap().len(), 1);
        assert!(open(&bundle, 1001 + age, key).unwrap_err().contains("too long ago"));
    }

    /// A web server of this host for one request, which answers with this; and the certificate of its authority, itself.
    fn server(answer: Vec<u8>) -> (String, Vec<u8>) {
        let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let certificate = own.cert.der().clone();
        let key = PrivateKeyDer::try_from(own.signing_key.serialize_der()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key)
            .unwrap();
        let listener = TcpListener::bind("localhost:0").unwrap();
        let address = format!("localhost:{}", listener.local_addr().unwrap().port());
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut tls = ServerConnection::new(Arc::new(config)).unwrap();
            let mut stream = Stream::new(&mut tls, &mut stream);
            let mut asked = Vec::new();
            while !asked.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                // A client that does not believe the certificate goes away.
                if stream.read_exact(&mut byte).is_err() {
                    return;
                }
                asked.push(byte[0]);
            }
            assert!(asked.starts_with(b"GET /i2pseeds.su3 HTTP/1.1\r\n"));
            assert!(String::from_utf8(asked).unwrap().to_lowercase().contains("user-agent: wget/1.11.4\r\n"));
            let _ = stream.write_all(&answer);
            stream.conn.send_close_notify();
            let _ = stream.flush();
        });
        (address, certificate.to_vec())
    }

    fn ok(body: &[u8]) -> Vec<u8> {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
        [head.as_bytes(), body].concat()
    }

    #[test]
    fn a_bundle_is_fetched_from_a_certified_server_only() {
        let bundle = su3::tests::bundle("test@mail.i2p", 1000, &[b"one", b"two"]);
        let (address, authority) = server(ok(&bundle));
        let bytes = fetch(&agent(&[authority]).unwrap(), &address).unwrap();
        assert_eq!(bytes, bundle);
        let (address, _) = server(ok(&bundle));
        let (_, other) = server(Vec::new());
        let error = fetch(&agent(&[other]).unwrap(), &address).unwrap_err();
        assert!(error.contains("certificate"), "{error}");
        assert!(matches!(agent(&[[0; 0]; 0]), Err(FetchError::NoAuthorities)));
    }

    #[test]
    fn what_is_no_bundle_is_told() {
        let asked = |answer: Vec<u8>| {
            let (address, authority) = server(answer);
            fetch(&agent(&[authority]).unwrap(), &address)
        };
        let missing = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";
        assert!(asked(missing.to_vec()).unwrap_err().contains("404"));
        // Not read to its end, and so no bundle.
        assert_eq!(asked(ok(&vec![7; su3::MAX_LEN + 9])).unwrap().len(), su3::MAX_LEN + 1);
        assert!(asked(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf".to_vec()).is_err());
        assert!(asked(b"HTTP/1.1 302 Found\r\nLocation: http://localhost/x\r\n\r\n".to_vec()).is_err());
    }
}
