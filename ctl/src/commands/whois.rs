//! `i2planctl whois`.

use std::net::IpAddr;
use std::path::Path;

use clap_complete::engine::ArgValueCandidates;
use i2plan_ipc::ErrorKind;
use i2plan_ipc::api::meshd::{Peer, Status};
use i2plan_ipc::member::LookupError;
use i2plan_proto::prefix::Prefix;
use serde_json::json;

use super::completions;
use crate::daemon;
use crate::failure::Failure;
use crate::output;
use i2plan_present::peer::{DataPath, describe};

/// What `--help` adds.
pub(crate) const HELP: &str = "\
Says which member has an address of the network, or holds the range that it is in. A WireGuard key, a destination \
(….b32.i2p), a name or a node id finds the member too.

Examples:
  i2planctl whois 10.42.7.9
  i2planctl whois fd12:3456:789a::a2a:709";

/// `i2planctl whois`
#[derive(Debug, clap::Args)]
pub struct Whois {
    /// The address
    #[arg(add = ArgValueCandidates::new(completions::members))]
    pub address: String,
}

/// Whom an address belongs to.
#[derive(Debug, PartialEq, Eq)]
enum Owner<'a> {
    /// This node.
    Local,
    /// A member has it.
    Member(&'a Peer),
    /// A member may give it to a node that it invites.
    Holder(&'a Peer),
    /// This node may.
    LocalHolder,
}

/// Says which member has an address.
///
/// # Errors
/// If no known member has it, or the node does not answer.
pub async fn run(socket: Option<&Path>, json: bool, dates: bool, args: &Whois) -> Result<(), Failure> {
    let mut node = daemon::connect(socket).await?;
    let (status, peers) = (node.status().await?, node.peers().await?);
    let asked = args.address.trim();
    let owner = match find(&status, &peers, asked) {
        Some(owner) => owner,
        None => match node.find_among(&peers, asked).await {
            Ok(member) => peers
                .iter()
                .find(|peer| peer.node_id == member.node_id)
                .map(Owner::Member)
                .ok_or_else(|| Failure::internal("the member that was found is gone"))?,
            Err(LookupError::ThisNode { .. }) => Owner::Local,
            Err(LookupError::Unknown { .. }) => return Err(unknown(&status, asked)),
            Err(error) => return Err(error.into()),
        },
    };
    let look = output::look(dates);
    let (member, holds) = match owner {
        Owner::Local | Owner::LocalHolder => (None, owner == Owner::LocalHolder),
        Owner::Member(peer) => (Some(peer), false),
        Owner::Holder(peer) => (Some(peer), true),
    };
    if json {
        return output::json::print(
            &json!({ "member": member, "this_node": member.is_none(), "unused": holds }),
        );
    }
    if holds {
        output::note(&format!(
            "no known member has {asked}: it can be given to a node that this one invites"
        ));
    }
    match member {
        Some(peer) => output::print(&describe(peer, &peers, DataPath::of(&status), look.times)),
        None => output::print(&format!("this node, {}\n", status.name)),
    }
}

/// Finds whom an address, a key or a destination belongs to.
fn find<'a>(status: &Status, peers: &'a [Peer], asked: &str) -> Option<Owner<'a>> {
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

fn unknown(status: &Status, asked: &str) -> Failure {
    let hint = match (&status.network, asked.parse::<IpAddr>()) {
        (None, _) => "this node is in no network".to_owned(),
        (Some(network), Ok(IpAddr::V4(_))) => {
            format!("the network has {}; `i2planctl peers` lists its members", network.subnet)
        }
        _ => "`i2planctl peers` lists the members".to_owned(),
    };
    Failure::new(ErrorKind::NotFound, format!("no member has {asked:?}")).with_hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use i2plan_present::tests::{peer, status};

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
