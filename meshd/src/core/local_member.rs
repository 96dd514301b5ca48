//! A node as a member of its network: all that ends with its membership.

use std::collections::{BTreeSet, HashMap};
use std::net::Ipv4Addr;
use std::ops::ControlFlow;
use std::time::Duration;

use i2plan_proto::destination::{Destination, DestinationHash};
use i2plan_proto::identity::{NetworkId, NodeId, Signed};
use i2plan_proto::membership::{Charter, Membership as Certificate};
use i2plan_proto::message::{Datagram, Message};
use i2plan_proto::record::Record;
use tracing::info;

use super::addresses::{Addresses, CONFLICT_LASTS};
use super::bans::Bans;
use super::budget::{COMPARISON, OFFER};
use super::context::Context;
use super::detector::Detector;
use super::gossip::{self, Announcer, Comparison, Comparisons};
use super::invites::Invites;
use super::invites::joining::Waiting;
use super::members::{Member, Members};
use super::publication::{self, Publication, Refresh, until_rotation};
use super::rumors::Rumors;
use super::shares::AddressInBlock;
use super::situation::Standing;
use super::state::{Delegated, Membership, Remembered, State};
use super::verified::VerifiedRecord;
use super::{Now, Settings};

/// How often it is looked for what has expired.
const EXPIRE_EVERY: Duration = Duration::from_secs(10);

/// How long nothing must have come from a member before it is forgotten.
const FORGET_SILENT: Duration = Duration::from_secs(24 * 3600);

/// How long after its WireGuard key has expired a member is forgotten that has not published another.
pub(super) const FORGET_AFTER: Duration = Duration::from_secs(7 * 24 * 3600);

/// For so long after its start a node that has heard nobody doubts that those are away that were when it stopped. By then
/// a router has forgotten what it knew of an end-to-end session from before.
const DOUBT_AWAY: Duration = Duration::from_secs(15 * 60);

/// How long addresses that were reserved for a joiner are kept for it if its certificate was never signed.
const KEEP_RESERVED: Duration = Duration::from_secs(3600);

/// The network as one of its members sees it, and what this member does there.
pub(super) struct LocalMember {
    pub(super) membership: Membership,
    /// Who waits for this node's first record, since it has joined.
    pub(super) entering: Option<Waiting>,
    /// What it says of itself.
    pub(super) publication: Publication,
    /// The other members.
    pub(super) members: Members,
    pub(super) addresses: Addresses,
    pub(super) invites: Invites,
    pub(super) bans: Bans,
    pub(super) announcer: Announcer,
    pub(super) detector: Detector,
    pub(super) rumors: Rumors,
    pub(super) comparisons: Comparisons,
    /// Certificates that `keyd` is still to be told, in parts.
    pub(super) recovering: Vec<Vec<Signed<Certificate>>>,
    /// Who has given a sign of life and has not been told of yet.
    pub(super) awake: BTreeSet<NodeId>,
    /// When this node began to be one, or was started, on the monotonic clock.
    pub(super) since: Duration,
    /// When it is looked for what has expired.
    expire_at: Duration,
    /// When other members' records must be on disk: news of them alone can wait a little.
    pub(super) save_records_at: Option<Duration>,
}

impl LocalMember {
    /// A member that knows no others.
    pub(super) fn new(membership: Membership, cx: &Context, now: Now) -> Self {
        let heartbeat = cx.settings.heartbeat;
        Self {
            members: Members::new(membership.charter.value.subnet, membership.chain.clone()),
            membership,
            entering: None,
            publication: Publication::default(),
            addresses: Addresses::default(),
            invites: Invites::new(Vec::new()),
            bans: Bans::new(Vec::new()),
            announcer: Announcer::new(heartbeat, cx.outside_since),
            detector: Detector::new(heartbeat, cx.outside_since),
            rumors: Rumors::new(),
            comparisons: Comparisons::default(),
            recovering: Vec::new(),
            awake: BTreeSet::new(),
            since: now.monotonic,
            expire_at: now.monotonic,
            save_records_at: None,
        }
    }

    /// A member as it was when its state was saved. The file is trusted no more than the network: what does not verify was
    /// left out when it was read.
    pub(super) fn restore(membership: Membership, state: State, cx: &mut Context, now: Now) -> Self {
        let mut member = Self::new(membership, cx, now);
        let network = member.network();
        member.bans = Bans::new(state.bans);
        member.invites = Invites::new(state.invites);
        for ending in state.endings {
            member.members.merge_ending(ending);
        }
        for Remembered { record, liveness_message, created, last_seen } in state.members {
            if record.value.node != cx.me.node && record.value.network() == network {
                member.members.restore(Member::new(record, None, created, last_seen));
                if let Some(liveness_message) =
                    liveness_message.filter(|message| message.value.network == network)
                    && liveness_message.verify().is_ok()
                {
                    member.members.merge_liveness_message(liveness_message, Duration::ZERO);
                }
            }
        }
        member.expect_comparison();
        let waits = |delegated: &Delegated| {
            let subject = member.members.get(&delegated.subject)?;
            let has = subject.record.value.chain.last().map_or(0, |link| link.serial);
            (has < delegated.serial()).then_some((delegated.subject, Duration::ZERO))
        };
        let open_grants: HashMap<_, _> = state.delegations.iter().filter_map(waits).collect();
        member.addresses = Addresses::new(state.delegations, open_grants);
        // What was known before is no news.
        member.update_liveness(cx, true, now);
        member.members.poll_events();
        member
    }

    /// Takes in the records that came with a welcome.
    pub(super) fn take_welcome(&mut self, cx: &Context, records: Vec<Signed<Record>>, now: Now) {
        let inviter = self.membership.chain.ancestors().last().copied();
        for record in records {
            // Without its inviter's record a node whose clock is wrong would know no member when its clock is right.
            let is_wanted = Some(record.value.node) == inviter || gossip::is_timely(&record.value, now);
            if record.value.node != cx.me.node
                && is_wanted
                && let Ok(record) = VerifiedRecord::new(record, &self.membership.charter.value)
            {
                self.members.merge_record(record, now.monotonic, now.unix.as_secs());
            }
        }
        self.expect_comparison();
    }

    /// If there are others, this node compares what it knows with them before it relies on that.
    fn expect_comparison(&mut self) {
        if self.members.len() > 0 {
            self.comparisons.since_start = Comparison::Waiting(None);
        }
    }

    pub(super) fn charter(&self) -> &Charter {
        &self.membership.charter.value
    }

    pub(super) fn network(&self) -> NetworkId {
        self.charter().network()
    }

    /// This node's address.
    pub(super) fn ipv4(&self) -> Ipv4Addr {
        self.membership.chain.address(&self.charter().subnet)
    }

    /// Whether there is anybody who could speak to this node. One that has just started does not know who is still away:
    /// that may have been said before both stopped, and the one who would take it back may not reach this node.
    pub(super) fn has_reachable_members(&self, now: Duration) -> bool {
        let knows = self.knows_who_is_away(now);
        let expected = |member: &Member| !knows || !member.is_away();
        self.publication.record.is_some() && self.members.iter().any(expected)
    }

    /// Whether members that are held to be away are.
    pub(super) fn knows_who_is_away(&self, now: Duration) -> bool {
        self.members.last_heard().is_some() || now >= self.since + DOUBT_AWAY
    }

    /// The addresses of the members that take control messages at a destination. Several may share one; what is refused at
    /// the expense of one must be tried at that of the next.
    pub(super) fn places_at(&self, control: &DestinationHash) -> Vec<AddressInBlock> {
        let subnet = self.charter().subnet;
        let members = self.members.at(control).filter_map(|node| self.members.get(&node));
        let addresses = members.map(|member| member.record.ipv4());
        addresses
            .map(|ipv4| AddressInBlock { block: subnet.share_of(ipv4), address: ipv4.to_bits() })
            .collect()
    }

    /// Takes a control message.
    pub(super) fn handle_message(
        &mut self,
        cx: &mut Context,
        from: &Destination,
        Datagram { to, message }: Datagram,
        now: Now,
    ) -> Standing {
        self.heard(cx, &from.hash(), now);
        match message {
            Message::JoinRequest(request) => self.handle_join_request(cx, from, &request, now),
            // The way in is behind this node.
            Message::JoinReply(_) => {}
            Message::News(gossip) => {
                cx.counts.news += 1;
                return self.handle_gossip(cx, from, gossip, now);
            }
            Message::Ping(number, gossip) => {
                // It may say that the sender is a member.
                self.handle_gossip(cx, from, gossip, now)?;
                self.handle_ping(cx, from, (number, to), now);
            }
            Message::Ack(number, gossip) => {
                self.handle_ack(cx, from, number, now);
                let standing = self.handle_gossip(cx, from, gossip, now);
                if self.members.is_member(&from.hash()) && cx.take_question(number, now) {
                    cx.last_answered = Some(now.monotonic);
                }
                return standing;
            }
            Message::PingRequest(number, node, gossip) => {
                self.handle_ping_request(cx, from, number, &node, now);
                return self.handle_gossip(cx, from, gossip, now);
            }
            Message::Compare(ranges, gossip) => {
                self.handle_compare(cx, from, &ranges, now);
                return self.handle_gossip(cx, from, gossip, now);
            }
            Message::Want(entries) => self.handle_want(cx, from, entries, now),
            Message::Grant(chain) => self.handle_grant(cx, *chain, now),
        }
        ControlFlow::Continue(())
    }

    /// When [`LocalMember::handle_timeout`] is to be called next, on the monotonic clock.
    pub(super) fn poll_timeout(&self) -> Duration {
        let refresh = match self.publication.refresh {
            Refresh::Due(at) => Some(at),
            Refresh::Running | Refresh::Waiting => None,
        };
        // Without a record of its own it has nothing to say.
        let gossip = self.publication.record.as_ref().map(|_| {
            let rumors = self.rumors.poll_timeout();
            let times =
                [self.announcer.poll_timeout(), self.detector.poll_timeout()].into_iter().chain(rumors);
            times.min().unwrap_or_default()
        });
        [refresh, gossip, self.save_records_at].into_iter().flatten().fold(self.expire_at, Duration::min)
    }

    /// Does what is due by the clock.
    pub(super) fn handle_timeout(&mut self, cx: &mut Context, now: Now) -> Standing {
        if let Refresh::Due(at) = self.publication.refresh
            && at <= now.monotonic
        {
            self.publication.rotate |=
                self.membership.epoch.is_some_and(|epoch| until_rotation(epoch, now).is_zero());
            self.start_refresh(cx);
        }
        self.gossip(cx, now)?;
        self.update_liveness(cx, false, now);
        if self.expire_at <= now.monotonic {
            self.expire(cx, now);
        }
        if self.save_records_at.is_some_and(|at| at <= now.monotonic) {
            cx.unsaved = true;
        }
        ControlFlow::Continue(())
    }

    /// Notes whether members are there: of those of whom there was news, or of all.
    pub(super) fn update_liveness(&mut self, cx: &mut Context, all: bool, now: Now) {
        let timeout = cx.settings.suspicion_timeout();
        if let Some(returns) = self.members.update_liveness(all, now.monotonic, timeout) {
            cx.peers_version += 1;
            cx.counts.returns += returns;
        }
    }

    /// Lets go of what has expired.
    fn expire(&mut self, cx: &mut Context, now: Now) {
        self.expire_at = now.monotonic + EXPIRE_EVERY;
        self.update_liveness(cx, true, now);
        let unix = now.unix.as_secs();
        // The clock was wrong when the own record was signed: others drop what is of a time to come.
        if let Some(own) = &self.publication.record
            && let Refresh::Due(_) = self.publication.refresh
            && publication::is_of_another_time(&own.value, now)
        {
            info!("this node's clock was wrong when it signed its record: it signs another");
            self.publication.refresh = Refresh::Due(now.monotonic);
        }
        if self.invites.remove_expired(now.unix) {
            cx.unsaved = true;
        }
        if self.bans.expire(unix) {
            info!("a ban has ended");
            self.note_bans_changed(cx);
        }
        if self.addresses.delegations.remove_unsigned(unix.saturating_sub(KEEP_RESERVED.as_secs())) {
            cx.unsaved = true;
        }
        self.addresses.conflicts.retain(|conflict| now.monotonic < conflict.seen_at + CONFLICT_LASTS);
        // A member that is never heard of again is forgotten with its key, a month after its last record.
        // For a day by the clock that does not jump nothing is forgotten by the one that may.
        let mut over = self.members.ended_before(unix.saturating_sub(FORGET_AFTER.as_secs()));
        over.retain(|node| {
            let heard = self.members.get(node).and_then(|member| member.contact().last_heard);
            now.monotonic >= heard.unwrap_or_default().saturating_add(FORGET_SILENT)
        });
        for node in over {
            info!(node = %node.short(), "a member has not been heard of for long: it is forgotten");
            self.members.remove(&node);
            self.detector.forget(&node);
            cx.unsaved = true;
            cx.peers_version += 1;
        }
    }

    /// Goes on with the settings in `cx`, in place of these.
    pub(super) fn reconfigure(&mut self, cx: &Context, before: &Settings, now: Now) {
        let heartbeat = cx.settings.heartbeat;
        if before.heartbeat != heartbeat {
            self.announcer.set_heartbeat(heartbeat, now.monotonic);
            self.detector.set_period(heartbeat, now.monotonic);
        }
        if before.name != cx.settings.name {
            self.publication.renew_at(now.monotonic);
        }
    }

    /// What others have said is on disk at this time at the latest, on the monotonic clock.
    pub(super) fn save_by(&mut self, at: Duration) {
        self.save_records_at = Some(self.save_records_at.map_or(at, |before| before.min(at)));
    }

    /// Sends a message that nobody has asked for.
    pub(super) fn send(&mut self, cx: &mut Context, to: &Destination, message: &Message, now: Now) {
        cx.send(to, message, now);
        // Whoever hears of what there is may ask for it.
        let follow = match message {
            Message::Compare(..) => COMPARISON,
            Message::News(gossip) | Message::Ping(_, gossip) if !gossip.entries.is_empty() => OFFER,
            _ => 0,
        };
        if follow > 0 {
            cx.budget.begin_exchange(&self.asker(&to.hash()), follow, now.monotonic);
        }
    }
}
