//! Rows of the lists: what they are known by, what is looked for in them, and their order.

use std::cmp::Ordering;

use i2plan_ipc::api::meshd::{Ban, IssuedInvite, Peer, Route};
use i2plan_present::{invite, peer};

use super::list::Row;

/// A peer and how fast it is at present.
#[derive(Debug, Clone)]
pub(super) struct PeerRow {
    pub(super) peer: Peer,
    /// Bytes in a second, from it and to it.
    pub(super) rate: Option<(u64, u64)>,
}

impl Row for PeerRow {
    fn key(&self) -> &str {
        &self.peer.node_id
    }

    fn contains(&self, text: &str) -> bool {
        let Peer { name, node_id, ipv4, ipv6, .. } = &self.peer;
        name.to_lowercase().contains(text)
            || node_id.contains(text)
            || ipv4.to_string().contains(text)
            || ipv6.to_string().contains(text)
            || peer::state(&self.peer).contains(text)
    }
}

impl Row for Route {
    fn key(&self) -> &str {
        &self.node_id
    }

    fn contains(&self, text: &str) -> bool {
        self.name.to_lowercase().contains(text)
            || self.node_id.contains(text)
            || self.ipv4.to_string().contains(text)
            || self.ipv6.to_string().contains(text)
    }
}

impl Row for IssuedInvite {
    fn key(&self) -> &str {
        &self.id
    }

    fn contains(&self, text: &str) -> bool {
        self.id.contains(text) || invite::state(self).contains(text)
    }
}

impl Row for Ban {
    fn key(&self) -> &str {
        &self.node_id
    }

    fn contains(&self, text: &str) -> bool {
        self.name.as_ref().is_some_and(|name| name.to_lowercase().contains(text))
            || self.node_id.contains(text)
            || self.description.to_lowercase().contains(text)
    }
}

/// What the peers are sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SortBy {
    Name,
    Address,
    State,
    Handshake,
    Rtt,
    Received,
    Sent,
}

impl SortBy {
    pub(super) const ALL: [Self; 7] =
        [Self::Name, Self::Address, Self::State, Self::Handshake, Self::Rtt, Self::Received, Self::Sent];
}

pub(super) fn peer_order(sort: SortBy, reverse: bool) -> impl Fn(&PeerRow, &PeerRow) -> Ordering {
    move |a, b| {
        let (a, b) = (&a.peer, &b.peer);
        // What was never measured comes last.
        let measured = |a: Option<u64>, b: Option<u64>| a.unwrap_or(u64::MAX).cmp(&b.unwrap_or(u64::MAX));
        let order = match sort {
            SortBy::Name => Ordering::Equal,
            SortBy::Address => a.ipv4.cmp(&b.ipv4),
            SortBy::State => peer::state(a).cmp(peer::state(b)),
            SortBy::Handshake => measured(a.last_handshake, b.last_handshake),
            SortBy::Rtt => measured(a.rtt, b.rtt),
            // The largest first: that is what is looked for.
            SortBy::Received => b.rx_bytes.cmp(&a.rx_bytes),
            SortBy::Sent => b.tx_bytes.cmp(&a.tx_bytes),
        };
        let order = order.then_with(|| a.name.cmp(&b.name));
        if reverse { order.reverse() } else { order }
    }
}

pub(super) fn route_order(a: &Route, b: &Route) -> Ordering {
    (a.ipv4, a.ipv6).cmp(&(b.ipv4, b.ipv6))
}

/// The newest first.
pub(super) fn invite_order(a: &IssuedInvite, b: &IssuedInvite) -> Ordering {
    b.created_at.cmp(&a.created_at)
}

/// The newest first.
pub(super) fn ban_order(a: &Ban, b: &Ban) -> Ordering {
    b.created_at.cmp(&a.created_at)
}
