//! The members that this node has banned: by order of a user, or after five offences within an hour.
//!
//! An offence is a statement that carries its signer's own signature and that no honest node signs, whoever sent it.
//! Nothing else is one. That control messages come from a member is stated by this node's own router, which may lie: what
//! does not decode and floods are dropped and throttled. RAW datagrams have no sender. A time that is wrong is no offence,
//! because the clock at fault may be this node's.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use i2plan_ipc::api::meshd::BanReason;
use i2plan_proto::codec::{Codec, DecodeError, Reader};
use i2plan_proto::identity::NodeId;

use super::Now;
use super::error::MeshError;

/// So many offences lead to a ban.
const STRIKES: u32 = 5;

/// How long an offence counts.
const STRIKE_LASTS: Duration = Duration::from_secs(3600);

/// Nodes whose offences are remembered at most.
const MAX_OFFENDERS: usize = 1024;

/// How long the first ban lasts that comes by itself, seconds; each further one is twice as long.
const FIRST_BAN: u64 = 3600;

/// How long one lasts at most, seconds.
const LONGEST_BAN: u64 = 24 * 3600;

/// For so long after a ban has begun the next is a further one, seconds.
const REMEMBERED: u64 = 7 * 24 * 3600;

/// Bans at once.
const MAX_BANS: usize = 1000;

/// Longest description, characters.
pub(super) const MAX_DESCRIPTION: usize = 200;

/// A ban.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ban {
    /// The banned member.
    pub node: NodeId,
    /// Why.
    pub reason: BanReason,
    /// Why, for people.
    pub description: String,
    /// Unix time in seconds.
    pub created_at: u64,
    /// Unix time in seconds; none for without end.
    pub expires_at: Option<u64>,
    /// Offences counted before it; 0 for one by a user.
    pub strikes: u32,
}

#[derive(Debug)]
struct Offender {
    /// When each offence was, on the monotonic clock.
    strikes: Vec<Duration>,
    /// How many bans in a row it has had, and when the last began, Unix time in seconds.
    bans: u32,
    banned_at: u64,
}

/// All bans, and the offences that may lead to more.
#[derive(Debug)]
pub(super) struct Bans {
    bans: BTreeMap<NodeId, Ban>,
    offenders: HashMap<NodeId, Offender>,
    /// Bans that have begun, with the reason, or are over, of which readers of events have not been told yet.
    changes: Vec<(NodeId, Option<BanReason>)>,
}

impl Bans {
    pub(super) fn new(bans: Vec<Ban>) -> Self {
        let bans = bans.into_iter().map(|ban| (ban.node, ban)).collect();
        Self { bans, offenders: HashMap::new(), changes: Vec::new() }
    }

    /// Bans that have begun, with the reason, or are over, since this was called last.
    pub(super) fn poll_changes(&mut self) -> Vec<(NodeId, Option<BanReason>)> {
        std::mem::take(&mut self.changes)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Ban> {
        self.bans.values()
    }

    pub(super) fn is_banned(&self, node: &NodeId) -> bool {
        self.bans.contains_key(node)
    }

    /// Adds a ban, in place of one that there is.
    ///
    /// # Errors
    /// If its description cannot be shown, or if there are too many bans: those of users are not displaced.
    pub(super) fn add(&mut self, ban: Ban) -> Result<(), MeshError> {
        if ban.description.chars().count() > MAX_DESCRIPTION {
            return Err(MeshError::LongDescription);
        }
        if ban.description.chars().any(char::is_control) {
            return Err(MeshError::BadDescription);
        }
        if self.bans.len() >= MAX_BANS && !self.bans.contains_key(&ban.node) {
            let automatic = self.bans.values().filter(|ban| ban.reason != BanReason::Manual);
            let first = automatic.min_by_key(|ban| ban.expires_at.unwrap_or(u64::MAX)).map(|ban| ban.node);
            let Some(first) = first else { return Err(MeshError::TooManyBans) };
            self.end(&first);
        }
        self.changes.push((ban.node, Some(ban.reason)));
        self.bans.insert(ban.node, ban);
        Ok(())
    }

    /// Ends a ban.
    pub(super) fn remove(&mut self, node: &NodeId) -> Option<Ban> {
        self.offenders.remove(node);
        self.end(node)
    }

    fn end(&mut self, node: &NodeId) -> Option<Ban> {
        let ban = self.bans.remove(node)?;
        self.changes.push((*node, None));
        Some(ban)
    }

    /// Ends those whose time is over; true if there were any.
    pub(super) fn expire(&mut self, unix: u64) -> bool {
        let over = |ban: &&Ban| ban.expires_at.is_some_and(|end| end <= unix);
        let over: Vec<NodeId> = self.bans.values().filter(over).map(|ban| ban.node).collect();
        for node in &over {
            self.end(node);
        }
        !over.is_empty()
    }

    /// Counts an offence. Returns the ban that it led to.
    pub(super) fn strike(&mut self, node: NodeId, now: Now) -> Option<Ban> {
        if self.is_banned(&node) {
            return None;
        }
        let unix = now.unix.as_secs();
        self.make_room(&node, now);
        let offender = self.offenders.entry(node).or_insert_with(|| Offender {
            strikes: Vec::new(),
            bans: 0,
            banned_at: 0,
        });
        offender.strikes.retain(|strike| now.monotonic < *strike + STRIKE_LASTS);
        offender.strikes.push(now.monotonic);
        if offender.strikes.len() < STRIKES as usize {
            return None;
        }
        offender.strikes.clear();
        if unix > offender.banned_at.saturating_add(REMEMBERED) {
            offender.bans = 0;
        }
        let lasts = (FIRST_BAN << offender.bans.min(10)).min(LONGEST_BAN);
        offender.bans += 1;
        offender.banned_at = unix;
        let ban = Ban {
            node,
            reason: BanReason::InvalidMessages,
            description: "it signed statements that no honest member signs".to_owned(),
            created_at: unix,
            expires_at: Some(unix.saturating_add(lasts)),
            strikes: STRIKES,
        };
        self.add(ban.clone()).ok().map(|()| ban)
    }

    /// Whoever has not offended for long is forgotten; if that is not enough, the one whose last offence is oldest.
    fn make_room(&mut self, newcomer: &NodeId, now: Now) {
        if self.offenders.len() < MAX_OFFENDERS || self.offenders.contains_key(newcomer) {
            return;
        }
        let (monotonic, unix) = (now.monotonic, now.unix.as_secs());
        self.offenders.retain(|_, offender| {
            let struck = offender.strikes.last().is_some_and(|strike| monotonic < *strike + STRIKE_LASTS);
            struck || unix <= offender.banned_at.saturating_add(REMEMBERED)
        });
        let oldest = self.offenders.iter().min_by_key(|(_, offender)| offender.strikes.last().copied());
        if let Some(node) = oldest.map(|(node, _)| *node).filter(|_| self.offenders.len() >= MAX_OFFENDERS) {
            self.offenders.remove(&node);
        }
    }
}

const REASONS: [(BanReason, u8); 2] = [(BanReason::Manual, 0), (BanReason::InvalidMessages, 1)];

impl Codec for Ban {
    fn encode(&self, out: &mut Vec<u8>) {
        self.node.encode(out);
        out.push(REASONS.iter().find(|(reason, _)| *reason == self.reason).map_or(0, |(_, code)| *code));
        let description = self.description.as_bytes();
        out.extend_from_slice(&u16::try_from(description.len()).unwrap_or(0).to_be_bytes());
        if description.len() <= usize::from(u16::MAX) {
            out.extend_from_slice(description);
        }
        out.extend_from_slice(&self.created_at.to_be_bytes());
        out.extend_from_slice(&self.expires_at.unwrap_or(0).to_be_bytes());
        out.extend_from_slice(&self.strikes.to_be_bytes());
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let what = "ban";
        let node = NodeId::decode(reader)?;
        let code = reader.u8(what)?;
        let (reason, _) = *REASONS
            .iter()
            .find(|(_, known)| *known == code)
            .ok_or(DecodeError::Invalid { what, why: "unknown reason" })?;
        let len = usize::from(reader.u16("description")?);
        let description = std::str::from_utf8(reader.bytes(len, "description")?)
            .map_err(|_| DecodeError::Invalid { what, why: "its description is not UTF-8" })?
            .to_owned();
        Ok(Self {
            node,
            reason,
            description,
            created_at: reader.u64("time")?,
            expires_at: Some(reader.u64("time")?).filter(|time| *time > 0),
            strikes: reader.u32("strikes")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn node(number: u32) -> NodeId {
        let mut id = [0; 32];
        id[..4].copy_from_slice(&number.to_be_bytes());
        NodeId(id)
    }

    fn at(seconds: u64) -> Now {
        let monotonic = Duration::from_secs(seconds);
        Now { monotonic, unix: Duration::from_secs(1_800_000_000) + monotonic }
    }

    fn manual(number: u32) -> Ban {
        Ban {
            node: node(number),
            reason: BanReason::Manual,
            description: String::new(),
            created_at: 1,
            expires_at: None,
            strikes: 0,
        }
    }

    /// Offends until there is a ban; returns how long it lasts.
    fn offend(bans: &mut Bans, second: u64) -> u64 {
        for _ in 1..STRIKES {
            assert_eq!(bans.strike(node(1), at(second)), None);
        }
        let ban = bans.strike(node(1), at(second)).unwrap();
        bans.expire(ban.expires_at.unwrap());
        assert!(!bans.is_banned(&node(1)));
        ban.expires_at.unwrap() - ban.created_at
    }

    #[test]
    fn five_offences_within_an_hour_lead_to_a_ban_and_four_do_not() {
        let mut bans = Bans::new(Vec::new());
        for hour in 0..10 {
            for offence in 0..4 {
                let when = at(hour * 3600 + offence);
                assert_eq!(bans.strike(node(1), when), None);
            }
        }
        assert!(bans.strike(node(1), at(9 * 3600 + 5)).is_some());
        assert!(bans.is_banned(&node(1)) && !bans.is_banned(&node(2)));
    }

    #[test]
    fn further_bans_are_longer_up_to_a_day() {
        let mut bans = Bans::new(Vec::new());
        let lasted: Vec<u64> = (0..6).map(|day| offend(&mut bans, day * 86_400) / 3600).collect();
        assert_eq!(lasted, [1, 2, 4, 8, 16, 24]);
        assert_eq!(offend(&mut bans, 30 * 86_400) / 3600, 1);
    }

    #[test]
    fn those_of_users_are_not_displaced() {
        let mut bans = Bans::new((1..1000).map(manual).collect());
        for _ in 0..STRIKES {
            bans.strike(node(5000), at(1));
        }
        assert!(bans.is_banned(&node(5000)));
        // A user's ban displaces one that came by itself, and then there is no more room.
        bans.add(manual(2000)).unwrap();
        assert!(!bans.is_banned(&node(5000)));
        assert!(bans.add(manual(2001)).is_err());
        assert!(bans.add(manual(2000)).is_ok());
    }

    #[test]
    fn descriptions_are_safe_to_print() {
        let mut bans = Bans::new(Vec::new());
        for bad in ["a\nb", "\x1b[2J", &"x".repeat(201)] {
            assert!(bans.add(Ban { description: bad.to_owned(), ..manual(1) }).is_err());
        }
        assert!(bans.add(Ban { description: "é".repeat(200), ..manual(1) }).is_ok());
    }

    #[test]
    fn offenders_are_forgotten_in_time() {
        let mut bans = Bans::new(Vec::new());
        for number in 0..10_000 {
            bans.strike(node(number), at(u64::from(number)));
            assert!(bans.offenders.len() <= MAX_OFFENDERS);
        }
    }

    proptest! {
        #[test]
        fn encodings_read_back(
            number: u32, code in 0usize..2, description in "\\PC{0,200}", created_at: u64,
            expires_at in prop::option::of(1u64..), strikes: u32,
        ) {
            let reason = REASONS[code].0;
            let ban = Ban { node: node(number), reason, description, created_at, expires_at, strikes };
            prop_assert_eq!(Ban::from_bytes(&ban.to_bytes()), Ok(ban));
        }

        #[test]
        fn arbitrary_bytes_are_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Ban::from_bytes(&bytes);
        }
    }
}
