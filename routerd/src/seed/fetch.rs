//! Fetching a seed from I2P's reseed servers: a program of its own, `i2plan-routerd --fetch-seed`, that the router
//! starts before it puts its walls up.
//!
//! It speaks DNS and TLS, so it has neither the router's keys nor its files, and its walls let it read what the system
//! keeps for everybody and speak with web servers. What it prints are router infos, each with its length before it.
//! The router looks at them behind its own walls, and believes of each what its router has signed.

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
use crate::known::{Known, MAX_INFO};

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
const PATIENCE: Duration = Duration::from_secs(20);

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
    let agent = agent()?;
    let mut servers = SERVERS;
    servers.shuffle(&mut rand::rng());
    let mut bundles = 0;
    let mut out = io::stdout().lock();
    for server in servers {
        match fetch(&agent, server, now) {
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

fn agent() -> Result<Agent, FetchError> {
    let authorities = rustls_native_certs::load_native_certs().certs;
    if authorities.is_empty() {
        return Err(FetchError::NoAuthorities);
    }
    let authorities: Vec<_> = authorities.iter().map(|one| Certificate::from_der(one).to_owned()).collect();
    let tls = TlsConfig::builder()
        .root_certs(RootCerts::Specific(Arc::new(authorities)))
        .unversioned_rustls_crypto_provider(Arc::new(default_provider()))
        .build();
    let config = Agent::config_builder()
        .tls_config(tls)
        .https_only(true)
        .user_agent(USER_AGENT)
        .max_redirects(3)
        .timeout_global(Some(PATIENCE))
        // No proxy that the environment names: it would see what for this host asks.
        .proxy(None)
        .build();
    Ok(config.new_agent())
}

fn fetch(agent: &Agent, server: &str, now: u64) -> Result<Vec<Vec<u8>>, String> {
    let in_words = |error: &dyn std::fmt::Display| error.to_string();
    let response =
        agent.get(format!("https://{server}/i2pseeds.su3")).call().map_err(|error| in_words(&error))?;
    let mut bytes = Vec::new();
    let body = response.into_body().into_reader().take(su3::MAX_LEN as u64 + 1).read_to_end(&mut bytes);
    body.map_err(|error| in_words(&error))?;
    open(&bytes, now, |signer| signers::key(signer, now))
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
pub fn learn(mut printed: &[u8], known: &mut Known) -> usize {
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
    use super::*;
    use crate::testing::{NETWORK, info};

    #[test]
    fn what_is_printed_is_learnt() {
        let mut printed = Vec::new();
        for router in [&info(1, NETWORK, 5)[..], b"none", &info(2, NETWORK, 5), &info(3, 2, 5), &[0; 70_000]]
        {
            write_one(&mut printed, router).unwrap();
        }
        let mut known = Known::none(NETWORK);
        assert_eq!(learn(&printed, &mut known), 2);
        // Cut short anywhere, it is as much as came.
        for len in 0..printed.len() {
            assert!(learn(&printed[..len], &mut Known::none(NETWORK)) <= 2);
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

    #[test]
    fn an_agent_can_be_made_where_there_are_authorities() {
        match agent() {
            Ok(_) | Err(FetchError::NoAuthorities) => {}
            Err(error) => panic!("{error}"),
        }
    }
}
