//! What users and the other daemons see of the mesh.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use i2plan_ipc::api::meshd::{self, KeysProblem};
use i2plan_ipc::api::tund;
use i2plan_proto::address::{Ipv4Subnet, ipv6_of};
use i2plan_proto::identity::{NetworkId, NodeId, Signed};
use i2plan_proto::membership::Chain;
use i2plan_proto::message::{Entry, Position};
use i2plan_proto::suspicion::Suspicion;
use i2plan_proto::wireguard::WireGuardCertificate;

use super::addresses::Conflict;
use super::context::Context;
use super::local_member::LocalMember;
use super::members::Member;
use super::situation::Situation;
use super::state::{self, Ban};
use super::verified::{Peer, VerifiedRecord};
use super::{Mesh, Now};

/// This node and its network.
impl Mesh {
    /// The network, once this node is a member.
    #[must_use]
    pub fn network(&self) -> Option<NetworkId> {
        self.member().map(LocalMember::network)
    }

    /// The subnet of the network, if this node is in one.
    #[must_use]
    pub fn subnet(&self) -> Option<Ipv4Subnet> {
        self.member().map(|member| member.charter().subnet)
    }

    /// The tunnel interface that this node should have, once it is a member.
    #[must_use]
    pub fn interface(&self) -> Option<tund::Interface> {
        let member = self.member()?;
        let settings = &self.cx.settings;
        let (name, network) = (settings.interface.clone(), member.network());
        let new = tund::NewInterface { name, network, mtu: settings.mtu };
        Some(new.of_member(member.charter(), &member.membership.chain))
    }

    /// The epoch of the WireGuard key that `tund` should use, once there is one. It is published right after.
    #[must_use]
    pub fn epoch(&self) -> Option<u32> {
        self.member()?.membership.epoch
    }

    /// The certificate of the WireGuard key that this node has published, once it has.
    #[must_use]
    pub fn published_certificate(&self) -> Option<&WireGuardCertificate> {
        self.member()?.publication.certificate()
    }

    /// The WireGuard key that this node has published, once it has.
    #[must_use]
    pub fn published_key(&self) -> Option<[u8; 32]> {
        self.member()?.publication.key()
    }

    /// This node's own IPv4 address, once it is a member.
    #[must_use]
    pub fn local_address(&self) -> Option<Ipv4Addr> {
        self.member().map(LocalMember::ipv4)
    }

    /// The network as users see it.
    #[must_use]
    pub fn network_status(&self, now: Now) -> Option<meshd::Network> {
        self.member().map(|member| member.network_status(&self.cx, now))
    }

    /// The membership that others have ended, as users see it.
    #[must_use]
    pub fn former_status(&self) -> Option<meshd::Former> {
        let former = self.cx.former.as_ref()?;
        Some(meshd::Former {
            network: former.network.to_string(),
            revoked_by: former.issuer.to_string(),
            along_with: (former.subject != self.cx.me.node).then(|| former.subject.to_string()),
            revoked_at: former.revoked_at,
        })
    }

    /// What users are told of this node's keys.
    #[must_use]
    pub fn keys_problems(&self, now: Now) -> Vec<KeysProblem> {
        self.cx.keys_problems(now)
    }

    /// The control messages so far.
    #[must_use]
    pub fn message_counts(&self) -> meshd::MessageCounts {
        self.cx.counts
    }

    /// The invites that this node has made and remembers.
    #[must_use]
    pub fn invite_reports(&self, now: Now) -> Vec<meshd::IssuedInvite> {
        self.member().map(|member| member.invites.list(now.unix.as_secs())).unwrap_or_default()
    }

    /// With how many peers there are tunnels at once.
    #[must_use]
    pub fn max_peers(&self) -> u32 {
        self.cx.settings.max_peers
    }

    /// Whether others have been told that this node shuts down, after [`Mesh::begin_shutdown`].
    #[must_use]
    pub fn is_shut_down(&self) -> bool {
        self.cx.shut_down
    }

    /// Whether an inviter has been asked for so long without an answer that it should be asked from a new fallback.
    #[must_use]
    pub fn needs_fallback(&self) -> bool {
        matches!(&self.situation, Situation::Joining(joining) if joining.needs_fallback())
    }

    /// Whether there is anybody who could speak to this node.
    #[must_use]
    pub fn has_reachable_members(&self, now: Now) -> bool {
        self.member().is_some_and(|member| member.has_reachable_members(now.monotonic))
    }
}

/// How long after a control message a member counts as speaking.
const LATELY: Duration = Duration::from_secs(60);

/// Members and tunnels.
impl Mesh {
    /// Grows whenever [`Mesh::peers`] may have changed.
    #[must_use]
    pub fn peers_version(&self) -> u64 {
        self.cx.peers_version
    }

    /// The WireGuard peers that this node should have.
    #[must_use]
    pub fn peers(&self, now: Now) -> Vec<Peer> {
        self.member().map(|member| member.peers(&self.cx, now)).unwrap_or_default()
    }

    /// Whether a node is among the [`Mesh::peers`], unless it claims a key that is another's.
    #[must_use]
    pub fn has_peer(&self, node: &NodeId, now: Now) -> bool {
        self.member().is_some_and(|member| member.has_peer(node, now))
    }

    /// How memberships have ended, by id.
    #[must_use]
    pub fn endings(&self) -> Vec<(NodeId, Arc<state::Ending>)> {
        self.member().map(|member| member.members.endings().shared()).unwrap_or_default()
    }

    /// How many members there are, this node included.
    #[must_use]
    pub fn size(&self) -> usize {
        self.member().map_or(0, |member| member.members.len()) + 1
    }

    /// The other members as users see them, without what only `tund` knows.
    #[must_use]
    pub fn peer_reports(&self, now: Now) -> Vec<(NodeId, meshd::Peer)> {
        self.member().map(|member| member.peer_reports(&self.cx, now)).unwrap_or_default()
    }

    /// The routing table, this node first.
    #[must_use]
    pub fn routes(&self, now: Now) -> Vec<meshd::Route> {
        self.member().map(|member| member.routes(&self.cx, now)).unwrap_or_default()
    }

    /// The members that are held to be out of reach.
    #[must_use]
    pub fn unreachable(&self, now: Now) -> Vec<NodeId> {
        let Some(member) = self.member() else { return Vec::new() };
        let out = |other: &&Member| member.liveness(&self.cx, other, now) == meshd::Liveness::Unreachable;
        member.members.suspects().filter(out).map(Member::node).collect()
    }

    /// Whether a member with a smaller node id has spoken to this node since then, on the monotonic clock.
    #[must_use]
    pub fn has_heard_smaller(&self, since: Duration) -> bool {
        let members = self.member().into_iter().flat_map(|member| member.members.iter());
        let heard = |member: &Member| member.contact().last_heard.is_some_and(|heard| heard > since);
        members.filter(|member| member.node() < self.cx.me.node).any(heard)
    }

    /// Whether a member has spoken to this node since then, or is reached through another.
    #[must_use]
    pub fn is_there(&self, node: &NodeId, since: Duration) -> bool {
        self.other(node).is_some_and(|member| {
            let contact = member.contact();
            let through = contact.via.is_some() && !contact.unreached;
            !member.is_away() && (through || contact.last_heard.is_some_and(|heard| heard > since))
        })
    }

    /// So many of the members that have spoken to this node in the last minute, the last of them first.
    #[must_use]
    pub fn heard_members(&self, count: usize, now: Now) -> Vec<NodeId> {
        let members = self.member().into_iter().flat_map(|member| member.members.iter());
        let heard = |member: &Member| member.contact().last_heard.map(|heard| (heard, member.node()));
        let mut heard: Vec<_> =
            members.filter_map(heard).filter(|(heard, _)| now.monotonic < *heard + LATELY).collect();
        heard.sort_unstable_by(|one, other| other.cmp(one));
        heard.into_iter().take(count).map(|(_, node)| node).collect()
    }

    /// When a member last spoke to this node, on the monotonic clock.
    #[must_use]
    pub fn last_heard(&self) -> Option<Duration> {
        self.member()?.members.last_heard()
    }

    fn other(&self, node: &NodeId) -> Option<&Member> {
        self.member()?.members.get(node)
    }

    /// What a member calls itself.
    #[must_use]
    pub fn name_of(&self, node: &NodeId) -> Option<String> {
        self.member()?.name_of(node)
    }

    /// The round trip of the last ping that a member answered itself.
    #[must_use]
    pub fn rtt_of(&self, node: &NodeId) -> Option<Duration> {
        self.other(node)?.contact().rtt
    }

    /// The number of the last statement of a member that is known.
    #[must_use]
    pub fn sequence_of(&self, node: &NodeId) -> Option<u64> {
        self.other(node).map(Member::sequence)
    }

    /// A member's record.
    #[must_use]
    pub fn record_of(&self, node: &NodeId) -> Option<&VerifiedRecord> {
        self.other(node).map(|member| &member.record)
    }

    /// What others have said of a member since its last statement.
    pub fn suspicions_of(&self, node: &NodeId) -> impl Iterator<Item = &Signed<Suspicion>> {
        self.other(node).into_iter().flat_map(Member::suspicions)
    }

    /// A member's IPv4 address.
    #[must_use]
    pub fn address_of(&self, node: &NodeId) -> Option<Ipv4Addr> {
        self.other(node).map(|member| member.record.ipv4())
    }

    /// The banned members.
    pub fn banned(&self) -> impl Iterator<Item = NodeId> {
        self.member().into_iter().flat_map(|member| member.bans.iter()).map(|ban| ban.node)
    }

    /// The bans in force.
    #[must_use]
    pub fn ban_reports(&self) -> Vec<meshd::Ban> {
        let reports = |member: &LocalMember| member.bans.iter().map(|ban| member.ban_report(ban)).collect();
        self.member().map(reports).unwrap_or_default()
    }

    /// What is known of a node, this one included.
    #[must_use]
    pub fn known(&self, node: &NodeId) -> Option<Entry> {
        self.member()?.members.index().get(&Position::member(*node))
    }

    /// The sum of [`fingerprint`](super::fingerprint) over all that is known: two nodes with the same know the same.
    #[must_use]
    pub fn fingerprint(&self) -> u128 {
        self.member().map_or(0, |member| member.members.index().sum())
    }
}

impl LocalMember {
    /// The network as users see it.
    pub(super) fn network_status(&self, cx: &Context, now: Now) -> meshd::Network {
        let (charter, ipv4, holding) = (self.charter(), self.ipv4(), self.holding());
        meshd::Network {
            id: charter.network().to_string(),
            name: charter.name.to_string(),
            inviters: self.membership.chain.ancestors().map(ToString::to_string).collect(),
            founder: charter.founder == cx.me.node,
            subnet: charter.subnet.to_string(),
            ipv4,
            ipv6: ipv6_of(&charter.network(), ipv4),
            addresses: holding.ranges.size(),
            addresses_left: self.addresses.delegations.free(&holding, 1, now.unix.as_secs()),
            ranges: holding.ranges.iter().map(ToString::to_string).collect(),
            displaced_by: self.addresses.displaced.map(|issuer| issuer.to_string()),
            conflicts: self.conflict_reports(),
            members: self.members.len() as u64 + 1,
        }
    }

    fn conflict_reports(&self) -> Vec<meshd::Conflict> {
        let report = |conflict: &Conflict| meshd::Conflict {
            node_id: conflict.issuer.to_string(),
            name: self.name_of(&conflict.issuer),
            range: conflict.range.to_string(),
        };
        self.addresses.conflicts.iter().map(report).collect()
    }

    /// What a member calls itself.
    pub(super) fn name_of(&self, node: &NodeId) -> Option<String> {
        self.members.get(node).map(|member| member.record.value.name.to_string())
    }

    /// Whether a member is there, as far as is known.
    pub(super) fn liveness(&self, cx: &Context, member: &Member, now: Now) -> meshd::Liveness {
        self.members.liveness(member, now.monotonic, cx.settings.suspicion_timeout())
    }

    fn peer_reports(&self, cx: &Context, now: Now) -> Vec<(NodeId, meshd::Peer)> {
        self.members.iter().map(|member| (member.node(), self.report(cx, member, now))).collect()
    }

    fn report(&self, cx: &Context, member: &Member, now: Now) -> meshd::Peer {
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
            member_since: self.member_since(&record.chain),
            signed_at: record.issued_at,
            liveness: self.liveness(cx, member, now),
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
        let ranges = member.record.value.chain.ranges(&self.charter().subnet);
        ranges.iter().map(ToString::to_string).collect()
    }

    /// Unix time in seconds at which the last member of a chain became one.
    fn member_since(&self, chain: &Chain) -> u64 {
        match chain.member_since() {
            0 => self.charter().founded_at,
            at => at,
        }
    }

    fn routes(&self, cx: &Context, now: Now) -> Vec<meshd::Route> {
        let local = meshd::Route {
            ipv4: self.ipv4(),
            ipv6: ipv6_of(&self.network(), self.ipv4()),
            ranges: self.holding().ranges.iter().map(ToString::to_string).collect(),
            node_id: cx.me.node.to_string(),
            name: cx.settings.name.to_string(),
            hops: Some(0),
            via: None,
            last_seen: None,
            created: self.member_since(&self.membership.chain),
        };
        let route = |member: &Member| {
            let record = &member.record.value;
            let liveness = self.liveness(cx, member, now);
            let via = member.contact().via;
            let unreached = member.contact().unreached || liveness == meshd::Liveness::Unreachable;
            let banned = self.bans.is_banned(&record.node);
            let reached = member.last_seen().is_some() && !unreached && !banned;
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
        std::iter::once(local).chain(self.members.iter().map(route)).collect()
    }

    pub(super) fn ban_report(&self, ban: &Ban) -> meshd::Ban {
        meshd::Ban {
            node_id: ban.node.to_string(),
            name: self.name_of(&ban.node),
            reason: ban.reason,
            description: ban.description.clone(),
            created_at: ban.created_at,
            expires_at: ban.expires_at,
            strikes: ban.strikes,
        }
    }
}
