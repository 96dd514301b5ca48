//! The other routers that this one knows, and its experiences with them.
//!
//! Who knows none cannot find any. What is kept of them over restarts is bounded: the longest silent go first.

use std::collections::BTreeMap;
use std::time::Duration;

use emissary_core::Profile;
use emissary_core::crypto::base64_encode;
use emissary_core::primitives::RouterInfo;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::runtime::Tokio;

/// How many are kept over restarts.
pub const MAX_ROUTERS: usize = 2000;

/// Longest router info, bytes. A real one has about 1000; an I2NP message has at most 64 KiB.
pub const MAX_INFO: usize = 8192;

/// Longest file that is read, bytes.
pub const MAX_LEN: u64 = (MAX_ROUTERS * (MAX_INFO + 256)) as u64;

/// A router that has not spoken for so long may be gone.
const FRESH: Duration = Duration::from_secs(14 * 24 * 3600);

/// What the file begins with: what it is, and its version.
const MAGIC: &[u8] = b"i2plan-netdb\x01";

/// Why something is no router that can be known.
#[derive(Debug, Clone, Copy, Error, PartialEq, Eq)]
pub enum InfoError {
    /// It is not what a router signs of itself.
    #[error("this is no router info, or none that its router has signed")]
    Invalid,
    /// The router belongs to another network.
    #[error("this is a router of the I2P network {0}")]
    Network(u8),
}

/// Why bytes are no list of routers.
#[derive(Debug, Clone, Copy, Error, PartialEq, Eq)]
pub enum KnownError {
    /// They begin in another way.
    #[error("this is no list of routers, or one of another version")]
    Foreign,
    /// They are cut short, or otherwise not what was written.
    #[error("the list of routers is damaged")]
    Damaged,
}

/// Experiences with a router, as emissary counts them. Times are seconds since 1970.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
struct History {
    last_activity: u64,
    last_declined: Option<u64>,
    last_dial_failure: Option<u64>,
    accepted: usize,
    connections: usize,
    dial_failures: usize,
    lookup_failures: usize,
    lookup_no_responses: usize,
    lookup_successes: usize,
    rejected: usize,
    selected: usize,
    test_failures: usize,
    test_successes: usize,
    unanswered: usize,
}

impl From<Profile> for History {
    fn from(profile: Profile) -> Self {
        let seconds = |time: Duration| time.as_secs();
        Self {
            last_activity: profile.last_activity.as_secs(),
            last_declined: profile.last_declined.map(seconds),
            last_dial_failure: profile.last_dial_failure.map(seconds),
            accepted: profile.num_accepted,
            connections: profile.num_connection,
            dial_failures: profile.num_dial_failures,
            lookup_failures: profile.num_lookup_failures,
            lookup_no_responses: profile.num_lookup_no_responses,
            lookup_successes: profile.num_lookup_successes,
            rejected: profile.num_rejected,
            selected: profile.num_selected,
            test_failures: profile.num_test_failures,
            test_successes: profile.num_test_successes,
            unanswered: profile.num_unaswered,
        }
    }
}

impl From<History> for Profile {
    fn from(history: History) -> Self {
        Self {
            last_activity: Duration::from_secs(history.last_activity),
            last_declined: history.last_declined.map(Duration::from_secs),
            last_dial_failure: history.last_dial_failure.map(Duration::from_secs),
            num_accepted: history.accepted,
            num_connection: history.connections,
            num_dial_failures: history.dial_failures,
            num_lookup_failures: history.lookup_failures,
            num_lookup_no_responses: history.lookup_no_responses,
            num_lookup_successes: history.lookup_successes,
            num_rejected: history.rejected,
            num_selected: history.selected,
            num_test_failures: history.test_failures,
            num_test_successes: history.test_successes,
            num_unaswered: history.unanswered,
        }
    }
}

/// One router.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Router {
    info: Vec<u8>,
    /// When it signed that, milliseconds since 1970 by its own clock.
    published: u64,
    history: Option<History>,
}

/// A router in the file.
#[derive(Serialize, Deserialize)]
struct Entry {
    #[serde(with = "bytes")]
    info: Vec<u8>,
    history: Option<History>,
}

/// MessagePack's kind for bytes, which takes half the room of a list of numbers.
mod bytes {
    use serde::de::{Deserializer, Error, Visitor};
    use serde::ser::Serializer;

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        struct Bytes;

        impl Visitor<'_> for Bytes {
            type Value = Vec<u8>;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("bytes")
            }

            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
                Ok(bytes.to_vec())
            }
        }

        deserializer.deserialize_bytes(Bytes)
    }
}

/// The routers that are known, of one network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownRouters {
    network: u8,
    routers: BTreeMap<String, Router>,
}

impl KnownRouters {
    /// None yet, of the network with this id.
    #[must_use]
    pub fn none(network: u8) -> Self {
        Self { network, routers: BTreeMap::new() }
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.routers.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.routers.is_empty()
    }

    /// How many have spoken not long before `now`, seconds since 1970.
    #[must_use]
    pub fn fresh(&self, now: u64) -> usize {
        let since = now.saturating_sub(FRESH.as_secs()).saturating_mul(1000);
        self.routers.values().filter(|router| router.published >= since).count()
    }

    /// Learns of a router by its router info; of two the one that was signed later counts.
    ///
    /// # Errors
    /// [`InfoError`] if it is none, or of another network.
    pub fn learn(&mut self, info: &[u8]) -> Result<(), InfoError> {
        self.learn_with(info, None)
    }

    fn learn_with(&mut self, info: &[u8], history: Option<History>) -> Result<(), InfoError> {
        if info.len() > MAX_INFO {
            return Err(InfoError::Invalid);
        }
        let parsed = RouterInfo::parse::<Tokio>(info).map_err(|_| InfoError::Invalid)?;
        if parsed.net_id() != self.network {
            return Err(InfoError::Network(parsed.net_id()));
        }
        let published = *parsed.published.date();
        let new = Router { info: info.to_vec(), published, history };
        let id = base64_encode(parsed.identity.hash());
        let router = self.routers.entry(id).or_insert_with(|| new.clone());
        if router.published < published {
            router.info = new.info;
            router.published = published;
        }
        if history.is_some() {
            router.history = history;
        }
        Ok(())
    }

    /// Takes over what emissary has learnt: an id in base64, a router info if that is new, and experiences.
    pub fn update(&mut self, routers: Vec<(String, Option<Vec<u8>>, Profile)>) {
        for (id, info, profile) in routers {
            if let Some(info) = info {
                // emissary has looked at it.
                let _ = self.learn(&info);
            }
            if let Some(router) = self.routers.get_mut(&id) {
                router.history = Some(profile.into());
            }
        }
    }

    /// Forgets the longest silent, if there are too many.
    pub fn forget(&mut self) {
        let excess = self.routers.len().saturating_sub(MAX_ROUTERS);
        let mut ids: Vec<_> =
            self.routers.iter().map(|(id, router)| (router.published, id.clone())).collect();
        ids.sort_unstable();
        for (_, id) in ids.into_iter().take(excess) {
            self.routers.remove(&id);
        }
    }

    /// As emissary takes them: router infos, and experiences by id in base64.
    #[must_use]
    pub fn for_the_router(&self) -> (Vec<Vec<u8>>, Vec<(String, Profile)>) {
        let infos = self.routers.values().map(|router| router.info.clone()).collect();
        let histories = self.routers.iter().filter_map(|(id, router)| Some((id, router.history?)));
        (infos, histories.map(|(id, history)| (id.clone(), history.into())).collect())
    }

    /// What stands in the file.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        let entries: Vec<_> = self
            .routers
            .values()
            .map(|router| Entry { info: router.info.clone(), history: router.history })
            .collect();
        // Writing into memory does not fail.
        let _ = rmp_serde::encode::write(&mut bytes, &entries);
        bytes
    }

    /// What a file holds of the network with this id. What in it is no router is left out.
    ///
    /// # Errors
    /// [`KnownError`].
    pub fn from_bytes(bytes: &[u8], network: u8) -> Result<Self, KnownError> {
        let entries = bytes.strip_prefix(MAGIC).ok_or(KnownError::Foreign)?;
        let entries: Vec<Entry> = rmp_serde::from_slice(entries).map_err(|_| KnownError::Damaged)?;
        let mut known = Self::none(network);
        for entry in entries.into_iter().take(MAX_ROUTERS) {
            let _ = known.learn_with(&entry.info, entry.history);
        }
        Ok(known)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{NETWORK, info};

    fn profile(accepted: usize) -> Profile {
        History { accepted, last_declined: Some(8), ..History::default() }.into()
    }

    #[test]
    fn what_no_router_has_signed_is_not_learnt() {
        let mut known = KnownRouters::none(NETWORK);
        let good = info(1, NETWORK, 5);
        for at in [0, 100, 390, 400, good.len() - 1] {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert_eq!(known.learn(&bad), Err(InfoError::Invalid), "byte {at}");
        }
        for len in [0, 1, 63, 390, 391, good.len() - 1] {
            assert_eq!(known.learn(&good[..len]), Err(InfoError::Invalid), "{len} bytes");
        }
        assert_eq!(known.learn(&[good, vec![0]].concat()), Err(InfoError::Invalid));
        assert_eq!(known.learn(&vec![0; MAX_INFO + 1]), Err(InfoError::Invalid));
        assert_eq!(known.learn(&info(1, 2, 5)), Err(InfoError::Network(2)));
        assert!(known.is_empty());
    }

    #[test]
    fn the_newest_word_of_a_router_counts() {
        let words = [5, 9, 7].map(|published| info(1, NETWORK, published));
        let mut known = KnownRouters::none(NETWORK);
        for word in &words {
            known.learn(word).unwrap();
        }
        assert_eq!(known.for_the_router().0, [words[1].clone()]);
        known.learn(&info(2, NETWORK, 1)).unwrap();
        assert_eq!(known.len(), 2);
    }

    #[test]
    fn experiences_stay_with_their_router() {
        let mut known = KnownRouters::none(NETWORK);
        let first = info(1, NETWORK, 5);
        known.learn(&first).unwrap();
        let id = known.routers.keys().next().unwrap().clone();
        let stranger = base64_encode([1; 32]);
        known.update(vec![(id.clone(), None, profile(3)), (stranger, None, profile(4))]);
        let second = info(2, NETWORK, 5);
        let of_second = base64_encode(RouterInfo::parse::<Tokio>(&second).unwrap().identity.hash());
        known.update(vec![(of_second.clone(), Some(second), profile(5))]);
        let (infos, profiles) = known.for_the_router();
        assert_eq!(infos.len(), 2);
        let mut expected = vec![(id, profile(3)), (of_second, profile(5))];
        expected.sort_by(|one, other| one.0.cmp(&other.0));
        assert_eq!(profiles, expected);
    }

    #[test]
    fn the_longest_silent_are_forgotten_first() {
        let mut known = KnownRouters::none(NETWORK);
        let routers = u16::try_from(MAX_ROUTERS + 3).unwrap();
        for number in 0..routers {
            known.learn(&info(number, NETWORK, u64::from(number) * 1000)).unwrap();
        }
        known.forget();
        assert_eq!(known.len(), MAX_ROUTERS);
        assert_eq!(known.routers.values().map(|router| router.published).min(), Some(3000));
        let bytes = known.to_bytes();
        assert!(bytes.len() as u64 <= MAX_LEN);
        assert_eq!(KnownRouters::from_bytes(&bytes, NETWORK).unwrap(), known);
        assert_eq!(known.fresh(FRESH.as_secs() + 10), MAX_ROUTERS - 7);
        assert_eq!(known.fresh(0), MAX_ROUTERS);
    }

    #[test]
    fn a_damaged_list_is_told() {
        let mut known = KnownRouters::none(NETWORK);
        known.learn(&info(1, NETWORK, 5)).unwrap();
        let bytes = known.to_bytes();
        assert_eq!(KnownRouters::from_bytes(&bytes[1..], NETWORK), Err(KnownError::Foreign));
        assert_eq!(KnownRouters::from_bytes(&bytes[..bytes.len() - 1], NETWORK), Err(KnownError::Damaged));
        // Another network's routers are of no use.
        assert!(KnownRouters::from_bytes(&bytes, 2).unwrap().is_empty());
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_list_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let bytes = [MAGIC, &bytes].concat();
            if let Ok(known) = KnownRouters::from_bytes(&bytes, NETWORK) {
                prop_assert_eq!(KnownRouters::from_bytes(&known.to_bytes(), NETWORK), Ok(known));
            }
        }
    }
}
