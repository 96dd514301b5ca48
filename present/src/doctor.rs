//! What is right and wrong with a node, as far as its own report shows it.

use i2plan_ipc::api::meshd::{Liveness, Peer, Session, SessionHealth, SessionState, Status};
use i2plan_ipc::version::Version;

use super::finding::{Finding, Level};
use super::member::short;
use super::peer::is_up;
use super::static_interface;
use super::status::{
    describe_bridge, of_the_addresses, of_the_conflicts, of_the_daemons, of_the_host, of_the_interface,
    of_the_keys, of_the_link, of_the_membership, of_the_sessions,
};

/// A part of its network's addresses that makes a member a deputy of the founder, which can go on inviting.
const DEPUTY_PART: u64 = 64;

/// Whether the node speaks with the I2P router.
#[must_use]
pub fn speaks(status: &Status) -> bool {
    let is_down = |session: &&Session| session.state == SessionState::Down;
    status.sam.version.is_some() && !sessions(status).iter().all(is_down)
}

/// The sessions that a node needs: a static interface has one.
fn sessions(status: &Status) -> Vec<&Session> {
    let control = Some(&status.sam.control).filter(|_| status.static_interface.is_none());
    [&status.sam.data].into_iter().chain(control).collect()
}

/// What a node's report shows, in the order in which it is looked for. `bridge` is what was found of the router's SAM
/// bridge; without it the node's word is taken.
#[must_use]
pub fn examine(status: &Status, peers: &[Peer], own: &Version, bridge: Option<Finding>) -> Vec<Finding> {
    let reported = || speaks(status).then(|| Finding::ok("router", describe_bridge(&status.sam)));
    let mut findings = of_the_node(status, own, bridge.or_else(reported));
    findings.extend(of_the_members(status, peers));
    findings.extend(
        of_the_conflicts(status).into_iter().map(|found| Finding::note("members", found.message, found.hint)),
    );
    findings.extend(of_the_founder(status, peers));
    if status.tunnel.without_ipv6 {
        findings.push(Finding::note(
            "tun",
            "IPv6 is switched off on this host: members are reached by IPv4 alone",
            "if it is to be used, set net.ipv6.conf.all.disable_ipv6 to 0 and restart i2plan-tund",
        ));
    }
    findings
}

fn of_the_node(status: &Status, own: &Version, bridge: Option<Finding>) -> Vec<Finding> {
    let is_static = status.static_interface.is_some();
    let sessions = sessions(status);
    let no_bridge = bridge.as_ref().is_some_and(|bridge| bridge.level == Level::Problem);
    let mut findings: Vec<_> = bridge.into_iter().collect();
    let mut warnings = of_the_daemons(status, own);
    // If there is no bridge, that has been said.
    if !no_bridge {
        if is_static {
            warnings.extend(static_interface::of_the_session(status));
        } else {
            warnings.extend(of_the_sessions(status));
        }
    }
    warnings.extend(static_interface::of_the_peers(status));
    warnings.extend(of_the_membership(status));
    warnings.extend(of_the_keys(status));
    warnings.extend(of_the_addresses(status));
    warnings.extend(of_the_interface(status));
    warnings.extend(of_the_link(status));
    warnings.extend(of_the_host(status));
    findings.extend(warnings.into_iter().map(|found| Finding::problem("node", found.message, found.hint)));
    if no_bridge {
        // What the node believes of its sessions is nothing then.
    } else if sessions.iter().all(|session| session.state == SessionState::Up) {
        // One through which nothing comes has been told of.
        if sessions.iter().all(|session| session.health != SessionHealth::Replacing) {
            let up = if is_static { "the session is up" } else { "both sessions are up" };
            findings.push(Finding::ok("router", format!("the I2P tunnels are built: {up}")));
        }
    } else if sessions.iter().any(|session| session.state == SessionState::Opening)
        && status.daemons.iter().all(|daemon| daemon.error.is_none())
    {
        findings.push(Finding::note(
            "router",
            "the router is building I2P tunnels for this node's sessions",
            "wait; a router that has just started needs some minutes",
        ));
    }
    if findings.iter().all(|finding| finding.level != Level::Problem) {
        let network = match &status.network {
            _ if is_static => "an interface with static peers, and no mesh".to_owned(),
            Some(network) => {
                let (name, id) = (&network.name, short(&network.id));
                format!("a member of {name} ({id}), {} members known", network.members)
            }
            None => "in no network yet".to_owned(),
        };
        let node = format!("all daemons answer and are of one build; {network}");
        findings.push(Finding::ok("node", node));
    }
    findings
}

fn of_the_members(status: &Status, peers: &[Peer]) -> Option<Finding> {
    status.network.as_ref()?;
    if status.sam.data.state != SessionState::Up {
        // Handshakes were made, and nothing gets through: what is wrong has been said.
        return None;
    }
    let there = peers.iter().filter(|peer| !peer.banned && peer.liveness != Liveness::Away).count();
    let up = peers.iter().filter(|peer| is_up(peer)).count();
    if there > 0 && up == 0 {
        return Some(Finding::note(
            "members",
            format!("there is no tunnel to any of the {there} members"),
            "`i2planctl peers` shows who was heard; a tunnel is made when there is traffic: `i2planctl ping NAME`",
        ));
    }
    Some(Finding::ok("members", format!("tunnels to {up} of {there} members are up")))
}

/// What a founder is to see to: without its keys no node can be invited from its own addresses.
fn of_the_founder(status: &Status, peers: &[Peer]) -> Option<Finding> {
    let network = status.network.as_ref().filter(|network| network.founder)?;
    let enough = (network.addresses / DEPUTY_PART).max(2);
    let deputy = peers.iter().find(|peer| addresses(peer) >= enough);
    let backup = "keep a backup of this node's data directory, where no one else can read it";
    let (message, hint) = match deputy {
        Some(deputy) => (
            format!("this node has founded its network; {} can invite if it is lost", deputy.name),
            backup.to_owned(),
        ),
        None => (
            "this node has founded its network, and no other member can invite many nodes if it is lost"
                .to_owned(),
            format!("{backup}, and make a member its deputy: `i2planctl grant NODE --addresses {enough}`"),
        ),
    };
    Some(Finding::note("node", message, hint))
}

/// The number of addresses that a member holds.
fn addresses(peer: &Peer) -> u64 {
    let prefixes = peer.ranges.iter().filter_map(|range| range.rsplit_once('/')?.1.parse::<u32>().ok());
    prefixes.map(|prefix| 1u64 << 32u32.saturating_sub(prefix)).sum()
}

#[cfg(test)]
mod tests {
    use i2plan_ipc::api::meshd::Conflict;

    use super::*;
    use crate::order::tests::peer;
    use crate::status::tests::status;

    fn founder() -> Status {
        let mut founder = Status { daemons: Vec::new(), ..status() };
        founder.sam.data.state = SessionState::Up;
        founder
    }

    fn member(ranges: &[&str]) -> Peer {
        let ranges = ranges.iter().map(|range| (*range).to_owned()).collect();
        Peer { ipv4: "10.42.64.0".parse().unwrap(), ranges, ..peer("web", &["node"]) }
    }

    #[test]
    fn a_founder_is_advised_to_have_a_backup_and_a_deputy() {
        let found = of_the_founder(&founder(), &[member(&["10.42.64.0/28"])]).unwrap();
        assert_eq!(found.level, Level::Note);
        assert!(found.message.contains("no other member can invite many nodes"), "{}", found.message);
        let hint = found.hint.unwrap();
        assert!(hint.contains("backup") && hint.contains("grant NODE --addresses 1024"), "{hint}");
        // Several ranges count together.
        let deputy = member(&["10.42.64.0/28", "10.42.68.0/22"]);
        let found = of_the_founder(&founder(), &[deputy]).unwrap();
        assert!(found.message.ends_with("web can invite if it is lost"), "{}", found.message);
        assert!(found.hint.is_some_and(|hint| hint.contains("backup") && !hint.contains("grant")));
        let mut other = founder();
        other.network.as_mut().unwrap().founder = false;
        assert_eq!(of_the_founder(&other, &[]), None);
    }

    #[test]
    fn addresses_that_another_keeps_are_a_problem() {
        let mut status = founder();
        let levels = |status: &Status| {
            of_the_node(status, &Version::current(), Some(Finding::ok("router", "SAM 3.2")))
                .iter()
                .map(|found| found.level)
                .max_by_key(|level| *level as u8)
        };
        assert_eq!(levels(&status), Some(Level::Ok));
        status.network.as_mut().unwrap().conflicts =
            vec![Conflict { node_id: "web".to_owned(), name: None, range: "10.42.64.0/28".to_owned() }];
        assert_eq!(levels(&status), Some(Level::Ok), "a conflict among others is no problem of this node");
        status.network.as_mut().unwrap().displaced_by = Some("web".to_owned());
        assert_eq!(levels(&status), Some(Level::Problem));
    }

    #[test]
    fn without_a_look_at_the_bridge_the_word_of_the_node_counts() {
        let mut status = founder();
        let found = examine(&status, &[], &Version::current(), None);
        assert!(found.iter().any(|found| found.message == "SAM 3.2 at 127.0.0.1:7656"), "{found:?}");
        status.sam.version = None;
        for session in [&mut status.sam.control, &mut status.sam.data] {
            session.state = SessionState::Down;
        }
        let found = examine(&status, &[], &Version::current(), None);
        assert!(found.iter().any(|found| found.message.starts_with("no SAM bridge at")), "{found:?}");
        assert!(found.iter().all(|found| found.subject != "router"), "{found:?}");
    }
}
