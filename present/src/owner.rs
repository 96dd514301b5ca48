//! Whom an address of a network belongs to.

use std::net::IpAddr;

use i2plan_ipc::api::meshd::{Peer, Status};
use i2plan_proto::prefix::Prefix;

/// Whom an address belongs to.
#[derive(Debug, PartialEq, Eq)]
pub enum Owner<'a> {
    /// This node.
    Local,
    /// A member has it.
    Member(&'a Peer),
    /// A member may give it to a node that it invites.
    Holder(&'a Peer),
    /// This node may.
    LocalHolder,
}

/// Finds whom an address, a key or a destination belongs to.
pub fn find<'a>(status: &Status, peers: &'a [Peer], asked: &str) -> Option<Owner<'a>> {
    let Ok(address) = asked.parse::<IpAddr>() else {
        let has = |peer: &&Peer| peer.public_key == asked || peer.endpoint.eq_ignore_ascii_case(asked);
        let own = status.tunnel.public_key.as_deref() == Some(asked);
        return if own { Some(Owner::Local) } else { peers.iter().find(has).map(Owner::Member) };
    };
    let address = address.to_canonical();
    let network = status.network.as_ref()?;
    if [IpAddr::from(network.ipv4), network.ipv6.into()].contains(&address) {
        return Some(Owner::Local);
    }
    let has = |peer: &&Peer| [IpAddr::from(peer.ipv4), peer.ipv6.into()].contains(&address);
    if let Some(peer) = peers.iter().find(has) {
        return Some(Owner::Member(peer));
    }
    // Of ranges that lie in each other, the smallest is that of the member that holds it now.
    let size = |ranges: &[String]| {
        let prefixes = ranges.iter().filter_map(|range| range.parse::<Prefix>().ok());
        prefixes.filter(|prefix| prefix.overlaps(&Prefix::host(address))).map(|prefix| prefix.length()).max()
    };
    let holder = peers.iter().filter_map(|peer| size(&peer.ranges).map(|length| (length, peer)));
    let holder = holder.max_by_key(|(length, _)| *length);
    match (holder, size(&network.ranges)) {
        (Some((length, _)), Some(own)) if own > length => Some(Owner::LocalHolder),
        (Some((_, peer)), _) => Some(Owner::Holder(peer)),
        (None, Some(_)) => Some(Owner::LocalHolder),
        (None, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::order::tests::peer;
    use crate::status::tests::status;

    #[test]
    fn the_owner_of_an_address_is_found_by_it_and_by_its_range() {
        let mut status = status();
        status.network.as_mut().unwrap().ranges = vec!["10.42.8.0/24".to_owned()];
        let founder = Peer { ranges: vec!["10.42.0.0/16".to_owned()], ..peer("founder", &[]) };
        let web = Peer {
            ipv4: "10.42.8.16".parse().unwrap(),
            ipv6: "fd12::8".parse().unwrap(),
            public_key: "key+web=".to_owned(),
            endpoint: "web.b32.i2p".to_owned(),
            ranges: vec!["10.42.8.16/28".to_owned()],
            ..peer("web", &["founder"])
        };
        let peers = [founder, web];
        let found = |asked: &str| match find(&status, &peers, asked) {
            Some(Owner::Local) => "local".to_owned(),
            Some(Owner::LocalHolder) => "local holder".to_owned(),
            Some(Owner::Member(peer)) => peer.name.clone(),
            Some(Owner::Holder(peer)) => format!("held by {}", peer.name),
            None => "none".to_owned(),
        };
        for (asked, owner) in [
            ("10.42.7.9", "local"),
            ("::ffff:10.42.7.9", "local"),
            ("fd12::1", "local"),
            ("key=", "local"),
            ("10.42.8.16", "web"),
            ("fd12::8", "web"),
            ("key+web=", "web"),
            ("WEB.b32.i2p", "web"),
            ("10.42.8.17", "held by web"),
            ("10.42.8.99", "local holder"),
            ("10.42.9.1", "held by founder"),
            ("192.0.2.1", "none"),
            ("nobody", "none"),
        ] {
            assert_eq!(found(asked), owner, "{asked}");
        }
    }
}
