//! What users see of the mesh.

use std::net::Ipv4Addr;

use i2plan_ipc::api::meshd;
use i2plan_proto::accusation::Accusation;
use i2plan_proto::address::ipv6_of;
use i2plan_proto::identity::{NodeId, Signed};
use i2plan_proto::message::{Entry, Position};

use super::members::Member;
use super::{Conflict, Mesh, Now, VerifiedRecord};

impl Mesh {
    /// The network as users see it.
    #[must_use]
    pub fn network_status(&self, now: Now) -> Option<meshd::Network> {
        let membership = self.membership.as_ref()?;
        let charter = &membership.charter.value;
        let ipv4 = membership.chain.address(&charter.subnet);
        let ranges = membership.chain.ranges(&charter.subnet);
        Some(meshd::Network {
            id: charter.network().to_string(),
            founder: charter.founder == self.me.node,
            subnet: charter.subnet.to_string(),
            ipv4,
            ipv6: ipv6_of(&charter.network(), ipv4),
            addresses: ranges.size(),
            addresses_left: self.addresses_left(now),
            ranges: ranges.iter().map(ToString::to_string).collect(),
            displaced_by: self.displaced.map(|issuer| issuer.to_string()),
            conflicts: self.conflict_reports(),
            members: self.members.len() as u64 + 1,
        })
    }

    /// How many addresses this node can delegate.
    fn addresses_left(&self, now: Now) -> u64 {
        let holding = self.holding();
        holding.map_or(0, |holding| self.delegations.free(&holding, 1, now.unix.as_secs()))
    }

    fn conflict_reports(&self) -> Vec<meshd::Conflict> {
        let report = |conflict: &Conflict| meshd::Conflict {
            node_id: conflict.issuer.to_string(),
            name: self.name_of(&conflict.issuer),
            range: conflict.range.to_string(),
        };
        self.conflicts.iter().map(report).collect()
    }

    /// The membership that others have ended, as users see it.
    #[must_use]
    pub fn former_status(&self) -> Option<meshd::Former> {
        let former = self.former.as_ref()?;
        Some(meshd::Former {
            network: former.network.to_string(),
            revoked_by: former.issuer.to_string(),
            along_with: (former.subject != self.me.node).then(|| former.subject.to_string()),
            revoked_at: former.revoked_at,
        })
    }

    /// The other members as users see them, without what only `tund` knows.
    #[must_use]
    pub fn peer_reports(&self, now: Now) -> Vec<(NodeId, meshd::Peer)> {
        self.members.iter().map(|member| (member.node(), self.report(member, now))).collect()
    }

    /// What a member calls itself.
    #[must_use]
    pub fn name_of(&self, node: &NodeId) -> Option<String> {
        self.members.get(node).map(|member| member.record.value.name.to_string())
    }

    /// The round trip of the last ping that a member answered itself.
    #[must_use]
    pub fn rtt_of(&self, node: &NodeId) -> Option<std::time::Duration> {
        self.members.get(node).and_then(|member| member.contact().rtt)
    }

    /// The members that are held to be out of reach.
    #[must_use]
    pub fn unreachable(&self, now: Now) -> Vec<NodeId> {
        let suspicion_timeout = self.settings.suspicion_timeout();
        let out = |member: &&Member| {
            self.members.life(member, now.monotonic, suspicion_timeout) == meshd::Life::Unreachable
        };
        self.members.accused().filter(out).map(Member::node).collect()
    }

    /// The number of the last word that is known of a member.
    #[must_use]
    pub fn word_of(&self, node: &NodeId) -> Option<u64> {
        self.members.get(node).map(Member::word)
    }

    /// What is known of a node, this one included.
    #[must_use]
    pub fn known(&self, node: &NodeId) -> Option<Entry> {
        self.members.index().get(&Position::member(*node))
    }

    /// The sum of [`fingerprint`](super::fingerprint) over all that is known: two nodes with the same know the same.
    #[must_use]
    pub fn fingerprint(&self) -> u128 {
        self.members.index().sum()
    }

    /// A member's record.
    #[must_use]
    pub fn record_of(&self, node: &NodeId) -> Option<&VerifiedRecord> {
        self.members.get(node).map(|member| &member.record)
    }

    /// What others have said of a member since its last word.
    pub fn accusations_of(&self, node: &NodeId) -> impl Iterator<Item = &Signed<Accusation>> {
        self.members.get(node).into_iter().flat_map(Member::accusations)
    }

    /// A member's IPv4 address.
    #[must_use]
    pub fn address_of(&self, node: &NodeId) -> Option<Ipv4Addr> {
        self.members.get(node).map(|member| member.record.ipv4())
    }

    /// This node's own IPv4 address, once it is a member.
    #[must_use]
    pub fn local_address(&self) -> Option<Ipv4Addr> {
        let membership = self.membership.as_ref()?;
        Some(membership.chain.address(&membership.charter.value.subnet))
    }

    /// With whom this node has nothing to do.
    pub fn banned(&self) -> impl Iterator<Item = NodeId> {
        self.bans.iter().map(|ban| ban.node)
    }

    /// How many members there are, this node included.
    #[must_use]
    pub fn size(&self) -> usize {
        self.members.len() + 1
    }

    fn report(&self, member: &Member, now: Now) -> meshd::Peer {
        let record = &member.record.value;
        meshd::Peer {
            node_id: record.node.to_string(),
            name: record.name.to_string(),
            ipv4: member.record.ipv4(),
            ipv6: ipv6_of(&record.network(), member.record.ipv4()),
            ranges: self.ranges_of(member),
            public_key: data_encoding::BASE64.encode(&member.record.wireguard_key()),
            endpoint: record.data.hash().b32(),
            depth: record.chain.depth() as u64,
            inviters: record.chain.ancestors().map(ToString::to_string).collect(),
            signed_at: record.issued_at,
            life: self.members.life(member, now.monotonic, self.settings.suspicion_timeout()),
            banned: self.bans.is_banned(&record.node),
            rtt: member.contact().rtt.map(|rtt| u64::try_from(rtt.as_millis()).unwrap_or(u64::MAX)),
            last_heard: member
                .contact()
                .last_heard
                .map(|heard| now.monotonic.saturating_sub(heard).as_secs()),
            last_handshake: None,
            tx_packets: 0,
            tx_bytes: 0,
            rx_packets: 0,
            rx_bytes: 0,
            queue_drops: 0,
            rx_drops: 0,
        }
    }

    /// The address ranges that a member holds.
    fn ranges_of(&self, member: &Member) -> Vec<String> {
        let Some(membership) = &self.membership else { return Vec::new() };
        let ranges = member.record.value.chain.ranges(&membership.charter.value.subnet);
        ranges.iter().map(ToString::to_string).collect()
    }

    /// When a member last spoke to this node, on the monotonic clock.
    #[must_use]
    pub fn last_heard(&self) -> Option<std::time::Duration> {
        self.members.last_heard()
    }

    /// The routing table.
    #[must_use]
    pub fn routes(&self, now: Now) -> Vec<meshd::Route> {
        let route = |member: &Member| {
            let record = &member.record.value;
            let life = self.members.life(member, now.monotonic, self.settings.suspicion_timeout());
            let via = member.contact().via;
            let unreached = member.contact().unreached || life == meshd::Life::Unreachable;
            let reached = member.last_seen().is_some() && !unreached;
            let hops = match (reached, via) {
                (false, _) => None,
                (true, None) => Some(1),
                (true, Some(_)) => Some(2),
            };
            meshd::Route {
                ipv4: member.record.ipv4(),
                ipv6: ipv6_of(&record.network(), member.record.ipv4()),
                ranges: self.ranges_of(member),
                node_id: record.node.to_string(),
                name: record.name.to_string(),
                hops,
                via: via.filter(|_| reached).map(|via| via.to_string()),
                last_seen: member.last_seen(),
                created: member.created,
            }
        };
        self.members.iter().map(route).collect()
    }

    /// The bans in force.
    #[must_use]
    pub fn ban_reports(&self) -> Vec<meshd::Ban> {
        self.bans.iter().map(|ban| self.ban_report(ban)).collect()
    }

    pub(super) fn ban_report(&self, ban: &super::state::Ban) -> meshd::Ban {
        meshd::Ban {
            node_id: ban.node.to_string(),
            name: self.members.get(&ban.node).map(|member| member.record.value.name.to_string()),
            reason: ban.reason,
            description: ban.description.clone(),
            created_at: ban.created_at,
            expires_at: ban.expires_at,
            strikes: ban.strikes,
        }
    }

    /// The invites that this node has made and remembers.
    #[must_use]
    pub fn invite_reports(&self, now: Now) -> Vec<meshd::IssuedInvite> {
        self.invites.list(now.unix.as_secs())
    }
}
