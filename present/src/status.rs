//! The state of a node, and what is wrong with it.

use std::fmt::Write as _;

use i2plan_ipc::Role;
use i2plan_ipc::api::meshd::{
    Conflict, Daemon, Former, KeysProblem, Network, Sam, Session, SessionHealth, SessionState, StaticStatus,
    Status, Tunnel,
};
use i2plan_ipc::api::tund::{Drops, InterfaceFault};
use i2plan_ipc::version::Version;
use i2plan_proto::address::IPV6_PREFIX;
use serde::Serialize;

use super::look::{Look, Tone};
use super::member::short;
use super::remedy::sentence;
use super::text::{clean, hang};
use super::units;

/// Something that is wrong, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Warning {
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: String,
}

/// What the node's own report says is wrong.
#[must_use]
pub fn warnings(status: &Status, own: &Version) -> Vec<Warning> {
    let mut found = of_the_daemons(status, own);
    if status.static_interface.is_some() {
        found.extend(super::static_interface::of_the_session(status));
        found.extend(super::static_interface::of_the_peers(status));
        return found;
    }
    found.extend(of_the_sessions(status));
    found.extend(of_the_membership(status));
    found.extend(of_the_keys(status));
    found.extend(of_the_addresses(status));
    found.extend(of_the_interface(status));
    found.extend(of_the_link(status));
    found.extend(of_the_host(status));
    found.extend(of_the_conflicts(status));
    found
}

/// Daemons that do not answer, or are of another build.
#[must_use]
pub fn of_the_daemons(status: &Status, own: &Version) -> Vec<Warning> {
    let mut found = Vec::new();
    for daemon in &status.daemons {
        found.extend(of_a_daemon(daemon));
        let theirs = daemon.version.as_ref();
        if let Some(theirs) = theirs.filter(|theirs| !theirs.is_of_the_build(own)) {
            found.push(Warning {
                message: format!(
                    "{} runs {} (commit {}), and this program is {} (commit {})",
                    daemon.name, theirs.version, theirs.commit, own.version, own.commit
                ),
                hint:
                    "restart i2plan's daemons: they are installed together and may not understand each other"
                        .to_owned(),
            });
        }
    }
    found
}

/// A daemon that does not answer, or lacks something.
#[must_use]
pub fn of_a_daemon(daemon: &Daemon) -> Option<Warning> {
    let message = complaint(daemon)?;
    let name = &daemon.name;
    let hint = if let Some(hint) = &daemon.hint {
        hint.clone()
    } else if daemon.version.is_some() {
        format!("fix what it names; the log of i2plan-{name} may say more")
    } else {
        format!("see the log of i2plan-{name}; it is restarted by itself if it has crashed")
    };
    Some(Warning { message, hint })
}

/// What a daemon cannot do, or that it does not answer.
#[must_use]
pub fn complaint(daemon: &Daemon) -> Option<String> {
    let Daemon { name, version, error, .. } = daemon;
    let error = error.as_ref()?;
    Some(match version {
        Some(_) => format!("{name}: {error}"),
        None if error.starts_with(&format!("{name} does not answer")) => error.clone(),
        None => format!("{name} does not answer: {error}"),
    })
}

/// Sessions that are down, or the router itself.
#[must_use]
pub fn of_the_sessions(status: &Status) -> Vec<Warning> {
    // Without the connector none is opened; that it is away is said of it.
    let connector = status.daemons.iter().find(|daemon| daemon.name == Role::Connector.to_string());
    if connector.is_some_and(|connector| connector.error.is_some()) {
        return Vec::new();
    }
    let sam = &status.sam;
    let sessions = [("control", &sam.control), ("data", &sam.data)];
    if sam.version.is_none() && sessions.iter().all(|(_, session)| session.state == SessionState::Down) {
        let reason = sessions.iter().find_map(|(_, session)| session.error.as_deref());
        return vec![of_the_bridge(&sam.address, reason)];
    }
    if sam.control.over_tcp {
        return vec![Warning {
            message: format!(
                "the bridge at {} answers on TCP, but no UDP comes back: control messages go over TCP, and no tunnel \
                 traffic passes",
                sam.address
            ),
            hint: format!(
                "let UDP through between this host and {}, in both directions, or set i2p.sam_udp_port if the bridge has \
                 another port",
                sam.address
            ),
        }];
    }
    // What a daemon complains of is said there.
    let said = |error: &Option<String>| {
        error.is_some() && status.daemons.iter().any(|daemon| daemon.error == *error)
    };
    let down = |session: &Session| session.state == SessionState::Down && !said(&session.error);
    let warning = |what: String, session: &Session| Warning {
        message: format!("{what} down{}", because(session.error.as_deref())),
        hint: "the node tries again; if this continues, see the logs of meshd and of the I2P router"
            .to_owned(),
    };
    if sessions.iter().all(|(_, session)| down(session)) && sam.control.error == sam.data.error {
        return vec![warning("both sessions are".to_owned(), &sam.control)];
    }
    let down = sessions.iter().filter(|(_, session)| down(session));
    let down = down.map(|(name, session)| warning(format!("the {name} session is"), session));
    down.chain(sessions.iter().filter_map(|(name, session)| of_silence(name, session))).collect()
}

/// That there is no SAM bridge, in the words of all that find it.
#[must_use]
pub fn of_the_bridge(address: &str, error: Option<&str>) -> Warning {
    let message = format!("no SAM bridge at {address}");
    Warning {
        message: match error {
            Some(error) if error.starts_with(&message) => error.to_owned(),
            error => message + &because(error),
        },
        hint: format!(
            "start the I2P router and enable its SAM bridge, or i2plan-routerd if there is none; if that is not at \
             {address}, set i2p.sam_address"
        ),
    }
}

/// A session that is up and carries nothing, once it has not passed its test.
fn of_silence(name: &str, session: &Session) -> Option<Warning> {
    let is_silent = session.state == SessionState::Up && session.health == SessionHealth::Replacing;
    is_silent.then(|| Warning {
        message: format!("the {name} session is up, but {}", describe_silence(session)),
        hint: "the node opens another session in its place; if this continues, check that the router builds tunnels and \
               that the other members are up"
            .to_owned(),
    })
}

fn describe_silence(session: &Session) -> String {
    format!("nothing is heard through it for {}", units::duration(session.silent.unwrap_or_default()))
}

/// An interface that should be up.
#[must_use]
pub fn of_the_interface(status: &Status) -> Option<Warning> {
    // Why tund cannot have one has been said.
    let said = status.daemons.iter().any(|daemon| daemon.name == "tund" && daemon.error.is_some());
    let missing = status.tunnel.interface.is_none() && !status.tunnel.making;
    (status.network.is_some() && missing && !said).then(|| Warning {
        message: "the tunnel interface is not up".to_owned(),
        hint: "see the log of i2plan-tund; it needs CAP_NET_ADMIN, and /dev/net/tun when it starts"
            .to_owned(),
    })
}

/// What another program has made of the interface, with the command that undoes it.
#[must_use]
pub fn of_the_link(status: &Status) -> Vec<Warning> {
    let Tunnel { interface: Some(name), mtu, faults, .. } = &status.tunnel else { return Vec::new() };
    let Some(network) = &status.network else { return Vec::new() };
    let prefix = network.subnet.rsplit_once('/').map_or("32", |(_, length)| length);
    let warning = |fault: &InterfaceFault| {
        let command = match fault {
            InterfaceFault::Down => format!("ip link set {name} up"),
            InterfaceFault::Mtu { .. } => format!("ip link set {name} mtu {mtu}"),
            InterfaceFault::NoIpv4 => format!("ip address add {}/{prefix} dev {name}", network.ipv4),
            InterfaceFault::NoIpv6 => {
                format!("ip address add {}/{IPV6_PREFIX} dev {name} nodad", network.ipv6)
            }
        };
        Warning {
            message: format!("another program has changed the interface {name}: {fault}"),
            hint: format!("`{command}`; if it stays so, tund makes the interface anew after some minutes"),
        }
    };
    faults.iter().map(warning).collect()
}

/// Addresses of the interface that the host uses otherwise.
#[must_use]
pub fn of_the_host(status: &Status) -> Option<Warning> {
    let overlaps: Vec<_> = status.tunnel.overlaps.iter().map(ToString::to_string).collect();
    (!overlaps.is_empty()).then(|| Warning {
        message: format!("the host uses addresses of the network otherwise: {}", overlaps.join("; ")),
        hint: "packets for them may go to the wrong place: free these addresses on this host, or leave the network; \
               if it is meant to be so, set tun.allow_overlap (I2PLAN_ALLOW_OVERLAP in /etc/i2plan/environment for \
               services)"
            .to_owned(),
    })
}

/// A membership that others have ended.
#[must_use]
pub fn of_the_membership(status: &Status) -> Option<Warning> {
    let former = status.former.as_ref().filter(|_| status.network.is_none())?;
    let Former { network, revoked_by, along_with, revoked_at } = former;
    let at = i2plan_ipc::version::utc(*revoked_at);
    let reason = match along_with {
        None if status.node_id.as_ref() == Some(revoked_by) => {
            format!("it had left at {at}, before its state was restored from a backup")
        }
        None => format!("its membership was revoked by {revoked_by} at {at}"),
        Some(member) if member == revoked_by => {
            format!("{member}, on whose certificate its membership rested, left at {at}")
        }
        Some(inviter) => {
            format!("the membership of {inviter}, one of its inviters, was revoked by {revoked_by} at {at}")
        }
    };
    Some(Warning {
        message: format!("this node is out of network {network}: {reason}"),
        hint: "ask for a new invite and run `i2planctl join`; the old state is kept as meshd/state.1 in the data \
               directory"
            .to_owned(),
    })
}

/// What keyd refuses, has forgotten, or has seen of this node's keys elsewhere.
#[must_use]
pub fn of_the_keys(status: &Status) -> Vec<Warning> {
    let is_down = |daemon: &Daemon| daemon.name == "keyd" && daemon.error.is_some();
    let is_down = status.daemons.iter().any(is_down);
    let warning = |problem: &KeysProblem| {
        let (message, hint) = match problem {
            KeysProblem::MemoryLost => (
                "keyd does not remember which addresses this node has delegated, and certifies no new members".to_owned(),
                "run `i2planctl key recover` while other members are reachable".to_owned(),
            ),
            KeysProblem::Foreign { number, .. } => (
                format!(
                    "another machine has this node's keys, or its state was restored from a backup: they have signed number {number}, which this node has not"
                ),
                "if another machine runs with a copy of the keys, stop one of the two; otherwise there is nothing to do"
                    .to_owned(),
            ),
            KeysProblem::Refused { request, count, error, remedy } => (
                format!("keyd has refused to {} {count} times in a row: {}", clean(request), clean(error)),
                remedy.as_ref().map_or_else(
                    || "see that the clock is right; the log of i2plan-keyd may say more".to_owned(),
                    sentence,
                ),
            ),
        };
        Warning { message, hint }
    };
    // What it does not answer while it is down is said there.
    let told = |problem: &&KeysProblem| !is_down || !matches!(problem, KeysProblem::Refused { .. });
    status.keys.iter().filter(told).map(warning).collect()
}

/// Addresses that another member keeps.
#[must_use]
pub fn of_the_addresses(status: &Status) -> Option<Warning> {
    let network = status.network.as_ref()?;
    let issuer = network.displaced_by.as_ref()?;
    let known = network.conflicts.iter().find(|conflict| conflict.node_id == *issuer);
    let name = known.and_then(|conflict| conflict.name.as_deref()).unwrap_or_else(|| short(issuer));
    Some(Warning {
        message: format!(
            "{name} has given this node's addresses to another member as well, which keeps them"
        ),
        hint: "run `i2planctl leave` and join again with a new invite".to_owned(),
    })
}

/// Addresses of others that were delegated twice.
#[must_use]
pub fn of_the_conflicts(status: &Status) -> Vec<Warning> {
    let Some(network) = &status.network else { return Vec::new() };
    let warning = |Conflict { node_id, name, range }: &Conflict| {
        let (name, whose) = if status.node_id.as_ref() == Some(node_id) {
            ("this node", "its state")
        } else {
            (name.as_deref().unwrap_or_else(|| short(node_id)), "its backup")
        };
        Warning {
            message: format!("{name} has given out {range} twice; perhaps {whose} was restored"),
            hint: "the member that had the addresses first keeps them; the other has to leave and join again"
                .to_owned(),
        }
    };
    // What concerns this node has been said.
    let conflicts =
        network.conflicts.iter().filter(|conflict| Some(&conflict.node_id) != network.displaced_by.as_ref());
    conflicts.map(warning).collect()
}

fn because(reason: Option<&str>) -> String {
    reason.map_or_else(String::new, |reason| format!(": {reason}"))
}

/// The version of a daemon, or why it is not known, in a line.
#[must_use]
pub fn describe_version(daemon: &Daemon) -> String {
    let Daemon { name, version, error, .. } = daemon;
    let state = match (version, error) {
        (Some(version), _) => version.to_string(),
        (None, Some(_)) => {
            let complaint = complaint(daemon).unwrap_or_default();
            complaint.strip_prefix(name.as_str()).unwrap_or(&complaint).trim_start().to_owned()
        }
        (None, None) => "does not answer".to_owned(),
    };
    format!("{:<9} {}\n", clean(name), clean(&state))
}

/// The addresses that a node holds, and how many it can delegate.
#[must_use]
pub fn describe_addresses(network: &Network) -> String {
    let Network { ranges, addresses, addresses_left, .. } = network;
    if *addresses <= 1 {
        return "1, so that this node cannot invite".to_owned();
    }
    format!("{addresses} in {}, {addresses_left} left to delegate", ranges.join(", "))
}

/// Lines of a label and a value; labels of a section's parts are indented.
struct Overview(String, Option<usize>);

impl Overview {
    fn line(&mut self, label: &str, value: &str) {
        let line = format!("{label:<14}{}", hang(&clean(value), 14, self.1));
        self.0.push_str(line.trim_end());
        self.0.push('\n');
    }

    fn part(&mut self, label: &str, value: &str) {
        self.line(&format!("  {label}"), value);
    }
}

/// What is wrong, with what to do about it below.
#[must_use]
pub fn render_warnings(warnings: &[Warning], look: &Look) -> String {
    let mut out = String::new();
    for Warning { message, hint } in warnings {
        let warning = Tone::Bad.paint("warning:", look.colour);
        // Writing to a string does not fail.
        let [message, hint] = [message, hint].map(|text| hang(&clean(text), 9, look.width));
        let _ = writeln!(out, "{warning} {message}\n   hint: {hint}");
    }
    out
}

/// The state of the node as lines of labels and values, what is wrong first.
#[must_use]
pub fn render(status: &Status, warnings: &[Warning], look: &Look) -> String {
    let mut out = Overview(String::new(), look.width);
    out.0.push_str(&render_warnings(warnings, look));
    if !warnings.is_empty() {
        out.0.push('\n');
    }

    if let Some(interface) = &status.static_interface {
        render_static(&mut out, status, interface);
        return out.0;
    }
    out.line("Node", &status.name);
    out.part("id", status.node_id.as_deref().unwrap_or("not known yet: keyd has not told it"));
    out.part("uptime", &units::duration(status.uptime));

    match &status.network {
        Some(network) => {
            out.line("Network", &network.name);
            out.part("id", &network.id);
            out.part("members", &format!("{}{}", network.members, role(network)));
            out.part("IPv4", &format!("{} in {}", network.ipv4, network.subnet));
            let without =
                if status.tunnel.without_ipv6 { " (IPv6 is switched off on this host)" } else { "" };
            out.part("IPv6", &format!("{}{without}", network.ipv6));
            out.part("addresses", &describe_addresses(network));
        }
        None => out.line(
            "Network",
            "none: found one with `i2planctl invite create`, or join one with `i2planctl join`",
        ),
    }

    let tunnel = &status.tunnel;
    out.line("Interface", interface(tunnel));
    out.part("MTU", &tunnel.mtu.to_string());
    if let Some(key) = &tunnel.public_key {
        out.part("public key", key);
    }
    if let Some(drops) = describe_drops(tunnel) {
        out.part("dropped", &drops);
    }

    let sam = &status.sam;
    out.line("I2P router", &describe_bridge(sam));
    out.part("control", &describe_session(&sam.control));
    if let Some(fallback) = &sam.fallback {
        out.part("fallback", &describe_session(fallback));
    }
    out.part("data", &describe_session(&sam.data));

    out.line("Daemons", "");
    for daemon in &status.daemons {
        out.part(&daemon.name, &describe_daemon(daemon));
    }
    out.0
}

/// The lines of an interface with static peers.
fn render_static(out: &mut Overview, status: &Status, interface: &StaticStatus) {
    let Status { tunnel, sam, .. } = status;
    let state = if tunnel.interface.is_some() { "up" } else { "not up" };
    out.line("Interface", &format!("{} ({state})", status.name));
    out.part("uptime", &units::duration(status.uptime));
    out.part("MTU", &tunnel.mtu.to_string());
    if let Some(key) = &tunnel.public_key {
        out.part("public key", key);
    }
    if let Some(drops) = describe_drops(tunnel) {
        out.part("dropped", &drops);
    }
    out.line("I2P router", &describe_bridge(sam));
    out.part("session", &describe_session(&sam.data));
    out.part("style", &interface.style);
    out.line("Peers", "");
    for peer in &interface.peers {
        out.part(&super::static_interface::short(peer), &super::static_interface::describe(peer));
    }
    out.line("Daemons", "");
    for daemon in &status.daemons {
        out.part(&daemon.name, &describe_daemon(daemon));
    }
}

/// What the node is in its network, besides a member.
#[must_use]
pub fn role(network: &Network) -> &'static str {
    if network.founder { ", founded by this node" } else { "" }
}

/// The tunnel's interface, or that it is being made or not up.
#[must_use]
pub fn interface(tunnel: &Tunnel) -> &str {
    tunnel.interface.as_deref().unwrap_or(if tunnel.making { "being made" } else { "not up" })
}

/// The SAM bridge: the version that it speaks, and its address.
#[must_use]
pub fn describe_bridge(sam: &Sam) -> String {
    let version = match &sam.version {
        Some(version) => format!("SAM {version} "),
        // Of sessions that tund has kept nobody asked the version again.
        None if [&sam.control, &sam.data].iter().any(|session| session.state == SessionState::Up) => {
            String::new()
        }
        None => "no SAM ".to_owned(),
    };
    format!("{version}at {}", sam.address)
}

/// A session: its state, its destination, and why the last attempt has failed.
#[must_use]
pub fn describe_session(session: &Session) -> String {
    let state = match session.state {
        SessionState::Down => "down",
        SessionState::Opening => "opening",
        SessionState::Up => "up",
    };
    let mut text = state.to_owned();
    if let Some(destination) = &session.destination {
        text = format!("{text:<9}{destination}");
    }
    // Of one that is down, that is among the warnings.
    if let Some(error) = session.error.as_ref().filter(|_| session.state == SessionState::Opening) {
        text += &format!(" (last attempt: {error})");
    }
    if session.state == SessionState::Up {
        if session.over_tcp {
            text += " (over TCP)";
        }
        match session.health {
            SessionHealth::Fine => {}
            SessionHealth::Testing => text += &format!(" ({}: it is tested)", describe_silence(session)),
            SessionHealth::Replacing => {
                text += &format!(" ({}: another is opened in its place)", describe_silence(session));
            }
        }
    }
    text
}

fn describe_daemon(daemon: &Daemon) -> String {
    let mut parts = Vec::new();
    if let Some(pid) = daemon.pid {
        parts.push(format!("pid {pid:<7}"));
    }
    if let Some(version) = &daemon.version {
        parts.push(format!("{} (commit {})", version.version, version.commit));
    }
    parts.extend(daemon.error.clone());
    parts.join("  ")
}

/// A daemon in a word or two: its version, or that it does not answer.
#[must_use]
pub fn describe_briefly(daemon: &Daemon) -> String {
    match (&daemon.version, &daemon.error) {
        (None, Some(_)) => format!("{} does not answer", daemon.name),
        (Some(version), _) => format!("{} {}", daemon.name, version.version),
        (None, None) => daemon.name.clone(),
    }
}

/// The packets that belong to no peer and were dropped, by reason; none if there are none.
#[must_use]
pub fn describe_drops(tunnel: &Tunnel) -> Option<String> {
    let drops = tunnel.drops.filter(|drops| *drops != Drops::default())?;
    let Drops { no_route, no_session, send_failed, unknown, rate_limited, no_tunnel, interface_full } = drops;
    let counts = [
        (no_route, "to an address that no peer has"),
        (no_session, "while there was no session"),
        (send_failed, "not taken by the router"),
        (unknown, "received from no known peer"),
        (rate_limited, "received over the handshake limit"),
        (no_tunnel, "handshakes of members that wait for a tunnel"),
        (interface_full, "not taken by the interface"),
    ];
    let parts: Vec<_> = counts
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{} {what}", units::counted(*count, "packet")))
        .collect();
    Some(parts.join(", "))
}

#[cfg(test)]
pub(super) mod tests {
    use i2plan_ipc::api::tund::{HostUse, Overlap};
    use i2plan_ipc::fixtures;

    use super::*;

    fn version() -> Version {
        Version { version: "0.1.0".to_owned(), commit: "abc".to_owned(), built_at: 1 }
    }

    fn session(state: SessionState) -> Session {
        Session { state, destination: Some("xyz.b32.i2p".to_owned()), ..fixtures::session() }
    }

    pub(crate) fn status() -> Status {
        let daemon =
            |name, pid| Daemon { pid: Some(pid), version: Some(version()), ..fixtures::daemon(name) };
        let status = fixtures::status();
        Status {
            node_id: Some("node".to_owned()),
            uptime: 12_000,
            network: Some(fixtures::network()),
            sam: Sam {
                version: Some("3.2".to_owned()),
                control: session(SessionState::Up),
                data: session(SessionState::Opening),
                ..status.sam
            },
            tunnel: Tunnel {
                interface: Some("i2plan0".to_owned()),
                public_key: Some("key=".to_owned()),
                drops: Some(Drops { no_route: 1, unknown: 2, ..Drops::default() }),
                ..status.tunnel
            },
            daemons: vec![daemon("keyd", 10), daemon("meshd", 11), daemon("tund", 12)],
            ..status
        }
    }

    #[test]
    fn an_overlap_with_the_host_is_told_with_what_to_do() {
        let mut healthy = status();
        healthy.sam.data = session(SessionState::Up);
        assert_eq!(warnings(&healthy, &version()), []);
        let mut later = healthy.clone();
        later.tunnel.overlaps = vec![Overlap {
            prefix: "10.42.0.0/16".to_owned(),
            kind: HostUse::Route,
            host_prefix: "10.0.0.0/8".to_owned(),
            interface: Some("vpn".to_owned()),
        }];
        let found = warnings(&later, &version());
        assert_eq!(found.len(), 1);
        assert!(found[0].message.ends_with("10.42.0.0/16 overlaps the route to 10.0.0.0/8 through vpn"));
        assert!(found[0].hint.contains("tun.allow_overlap"));
        // Where it keeps the interface from being made, it is told once.
        let mut refused = healthy;
        refused.tunnel.interface = None;
        refused.daemons[2].error = Some("the host uses addresses of this network".to_owned());
        refused.daemons[2].hint = Some("free them".to_owned());
        let found = warnings(&refused, &version());
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].message, "tund: the host uses addresses of this network");
        assert_eq!(found[0].hint, "free them");
    }

    #[test]
    fn ipv6_that_is_switched_off_is_not_shown_as_if_it_worked() {
        let mut status = status();
        status.tunnel.without_ipv6 = true;
        assert!(
            render(&status, &[], &Look::default()).contains("fd12::1 (IPv6 is switched off on this host)\n")
        );
    }

    #[test]
    fn a_node_that_others_put_out_says_why_and_what_to_do() {
        let mut status = status();
        status.tunnel.interface = None;
        let network = status.network.take();
        let mut former = Former {
            network: "net".to_owned(),
            revoked_by: "founder".to_owned(),
            along_with: None,
            revoked_at: 1_800_000_000,
        };
        status.former = Some(former.clone());
        let found = warnings(&status, &version());
        assert_eq!(found.len(), 1);
        assert!(found[0].message.ends_with("its membership was revoked by founder at 2027-01-15T08:00:00Z"));
        let hint = "ask for a new invite and run `i2planctl join`; the old state is kept as meshd/state.1 in the data \
                    directory";
        assert_eq!(found[0].hint, hint);
        for (by, along_with, message) in [
            (
                "founder",
                Some("inviter"),
                "the membership of inviter, one of its inviters, was revoked by founder at",
            ),
            ("inviter", Some("inviter"), "inviter, on whose certificate its membership rested, left at"),
            ("node", None, "it had left at 2027-01-15T08:00:00Z, before its state was restored"),
        ] {
            former.revoked_by = by.to_owned();
            former.along_with = along_with.map(str::to_owned);
            status.former = Some(former.clone());
            let found = warnings(&status, &version());
            assert!(found[0].message.contains(message), "{}", found[0].message);
            assert_eq!(found[0].hint, hint);
        }
        status.network = network;
        status.tunnel.interface = Some("i2plan0".to_owned());
        assert_eq!(warnings(&status, &version()), []);
    }

    #[test]
    fn a_healthy_node_has_no_warnings() {
        let status = status();
        assert_eq!(warnings(&status, &version()), []);
        assert_eq!(
            render(&status, &[], &Look::default()),
            "\
Node          alpha
  id          node
  uptime      3h 20m
Network       office
  id          net
  members     3, founded by this node
  IPv4        10.42.7.9 in 10.42.0.0/16
  IPv6        fd12::1
  addresses   65536 in 10.42.0.0/16, 65518 left to delegate
Interface     i2plan0
  MTU         1280
  public key  key=
  dropped     1 packet to an address that no peer has, 2 packets received from no known peer
I2P router    SAM 3.2 at 127.0.0.1:7656
  control     up       xyz.b32.i2p
  data        opening  xyz.b32.i2p
Daemons
  keyd        pid 10       0.1.0 (commit abc)
  meshd       pid 11       0.1.0 (commit abc)
  tund        pid 12       0.1.0 (commit abc)
"
        );
    }

    #[test]
    fn without_the_connector_it_is_the_connector_that_is_away_and_not_the_router() {
        let mut status = status();
        status.sam.version = None;
        let error = "the connector, which connects to the SAM bridge, is not connected to keyd";
        for session in [&mut status.sam.control, &mut status.sam.data] {
            *session = Session {
                state: SessionState::Down,
                destination: None,
                error: Some(error.to_owned()),
                health: SessionHealth::Fine,
                silent: None,
                over_tcp: false,
            };
        }
        let error = Some("it is not connected to keyd".to_owned());
        status.daemons.push(Daemon {
            name: "connector".to_owned(),
            pid: None,
            version: None,
            landlock: None,
            error,
            hint: None,
        });
        let found = warnings(&status, &version());
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].message, "connector does not answer: it is not connected to keyd");
        assert!(found[0].hint.starts_with("see the log of i2plan-connector"));
    }

    fn messages(status: &Status) -> Vec<String> {
        warnings(status, &version()).into_iter().map(|warning| warning.message).collect()
    }

    #[test]
    fn addresses_are_described() {
        let mut network = status().network.unwrap();
        network.ranges = vec!["10.42.3.16/28".to_owned(), "10.42.8.0/26".to_owned()];
        (network.addresses, network.addresses_left) = (80, 0);
        assert_eq!(describe_addresses(&network), "80 in 10.42.3.16/28, 10.42.8.0/26, 0 left to delegate");
        network.ranges = vec!["10.42.3.16/32".to_owned()];
        (network.addresses, network.addresses_left) = (1, 0);
        assert_eq!(describe_addresses(&network), "1, so that this node cannot invite");
    }

    fn conflict(node_id: &str, name: Option<&str>) -> Conflict {
        Conflict {
            node_id: node_id.to_owned(),
            name: name.map(str::to_owned),
            range: "10.42.3.16/28".to_owned(),
        }
    }

    #[test]
    fn addresses_that_were_given_out_twice_are_a_warning() {
        let mut status = status();
        let network = status.network.as_mut().unwrap();
        network.conflicts =
            vec![conflict("a", Some("web")), conflict("abcdefghijklm", None), conflict("node", None)];
        assert_eq!(
            messages(&status),
            [
                "web has given out 10.42.3.16/28 twice; perhaps its backup was restored",
                "abcdefghij has given out 10.42.3.16/28 twice; perhaps its backup was restored",
                "this node has given out 10.42.3.16/28 twice; perhaps its state was restored",
            ]
        );
    }

    #[test]
    fn a_node_whose_addresses_another_keeps_has_to_join_again() {
        let mut status = status();
        status.network.as_mut().unwrap().displaced_by = Some("abcdefghijklm".to_owned());
        let found = warnings(&status, &version());
        assert_eq!(
            found[0].message,
            "abcdefghij has given this node's addresses to another member as well, which keeps them"
        );
        assert_eq!(found[0].hint, "run `i2planctl leave` and join again with a new invite");
        // With the name where it is known, and without the conflict for itself.
        status.network.as_mut().unwrap().conflicts = vec![conflict("abcdefghijklm", Some("web"))];
        let name = "web has given this node's addresses to another member as well, which keeps them";
        assert_eq!(messages(&status), [name]);
    }

    #[test]
    fn a_silent_daemon_is_a_warning() {
        let mut status = status();
        status.daemons[2] = Daemon {
            version: None,
            error: Some("connection refused".to_owned()),
            ..status.daemons[2].clone()
        };
        assert_eq!(messages(&status), ["tund does not answer: connection refused"]);
        assert!(
            render(&status, &warnings(&status, &version()), &Look::default())
                .starts_with("warning: tund does not answer")
        );
        status.daemons[2].error = Some("tund does not answer".to_owned());
        assert_eq!(messages(&status), ["tund does not answer"]);
    }

    #[test]
    fn a_daemon_that_answers_and_cannot_work_says_what_it_lacks() {
        let mut status = status();
        status.daemons[2].error = Some("/dev/net/tun may not be opened".to_owned());
        assert_eq!(messages(&status), ["tund: /dev/net/tun may not be opened"]);
    }

    #[test]
    fn what_keeps_both_sessions_down_is_said_once() {
        let mut status = status();
        let down = |error: &str| Session {
            state: SessionState::Down,
            destination: None,
            error: Some(error.to_owned()),
            health: SessionHealth::Fine,
            silent: None,
            over_tcp: false,
        };
        (status.sam.control, status.sam.data) = (down("refused"), down("refused"));
        assert_eq!(messages(&status), ["both sessions are down: refused"]);
        status.sam.data = down("reset");
        assert_eq!(
            messages(&status),
            ["the control session is down: refused", "the data session is down: reset"]
        );
        // And what a daemon complains of is said with that daemon.
        (status.sam.control, status.sam.data) = (down("keyd does not answer"), down("keyd does not answer"));
        status.daemons[0] = Daemon {
            version: None,
            error: Some("keyd does not answer".to_owned()),
            ..status.daemons[0].clone()
        };
        assert_eq!(messages(&status), ["keyd does not answer"]);
    }

    #[test]
    fn a_router_whose_version_was_not_asked_is_there() {
        let mut status = status();
        status.sam.version = None;
        assert_eq!(describe_bridge(&status.sam), "at 127.0.0.1:7656");
        status.sam.control.state = SessionState::Down;
        assert_eq!(describe_bridge(&status.sam), "no SAM at 127.0.0.1:7656");
    }

    #[test]
    fn a_daemon_of_another_build_is_a_warning() {
        let mut status = status();
        status.daemons[0].version = Some(Version { commit: "def".to_owned(), ..version() });
        assert_eq!(messages(&status).len(), 1);
        // The same commit built again is the same program.
        status.daemons[0].version = Some(Version { built_at: 2, ..version() });
        assert!(messages(&status).is_empty());
    }

    #[test]
    fn a_missing_router_is_one_warning() {
        let mut status = status();
        status.sam.version = None;
        status.sam.control = Session {
            state: SessionState::Down,
            destination: None,
            error: Some("no SAM bridge at 127.0.0.1:7656: connection refused".to_owned()),
            health: SessionHealth::Fine,
            silent: None,
            over_tcp: false,
        };
        status.sam.data = status.sam.control.clone();
        assert_eq!(messages(&status), ["no SAM bridge at 127.0.0.1:7656: connection refused"]);
        for session in [&mut status.sam.control, &mut status.sam.data] {
            session.error = Some("it does not answer".to_owned());
        }
        assert_eq!(messages(&status), ["no SAM bridge at 127.0.0.1:7656: it does not answer"]);
    }

    #[test]
    fn a_session_through_which_nothing_comes_is_a_warning() {
        let mut status = status();
        status.sam.data.state = SessionState::Up;
        let silent = |health| Session { health, silent: Some(90), ..session(SessionState::Up) };
        status.sam.control = silent(SessionHealth::Testing);
        assert!(messages(&status).is_empty());
        assert!(describe_session(&status.sam.control).contains("tested"));
        status.sam.control = silent(SessionHealth::Replacing);
        let said = messages(&status);
        assert!(
            said[0].contains("the control session is up, but nothing is heard through it for 1"),
            "{said:?}"
        );
        assert!(describe_session(&status.sam.control).contains("another is opened"));
    }

    #[test]
    fn a_node_without_udp_has_one_warning_with_a_remedy() {
        let mut status = status();
        status.sam.control = Session { over_tcp: true, ..session(SessionState::Up) };
        status.sam.data.state = SessionState::Down;
        let [warning] = &of_the_sessions(&status)[..] else { panic!("one is enough") };
        assert!(warning.message.contains("control messages go over TCP"), "{}", warning.message);
        assert!(warning.hint.contains("let UDP through"), "{}", warning.hint);
        assert!(describe_session(&status.sam.control).ends_with("(over TCP)"));
    }

    #[test]
    fn one_session_down_is_a_warning() {
        let mut status = status();
        status.sam.data = Session {
            state: SessionState::Down,
            destination: None,
            error: None,
            health: SessionHealth::Fine,
            silent: None,
            over_tcp: false,
        };
        assert_eq!(messages(&status), ["the data session is down"]);
    }

    #[test]
    fn a_member_without_interface_is_a_warning() {
        let mut status = status();
        status.tunnel.interface = None;
        assert_eq!(messages(&status), ["the tunnel interface is not up"]);
        status.tunnel.making = true;
        assert!(messages(&status).is_empty());
        // A node that is in no network needs none.
        status.network = None;
        assert!(messages(&status).is_empty());
        assert!(
            render(&status, &[], &Look::default())
                .contains("Network       none: found one with `i2planctl invite create`")
        );
    }
}
