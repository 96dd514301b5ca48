//! The other members: peers, the invitation tree, routes, bans.

use std::collections::{BTreeMap, HashMap, HashSet};

use i2plan_ipc::api::meshd::{Ban, Peer, Route, Status};
use i2plan_ipc::version::utc;
use i2plan_present::look::{Times, now};
use i2plan_present::member::{Names, label, short};
use i2plan_present::peer::DataPath;
use i2plan_present::text::clean;
use i2plan_present::{ban, peer, route, units};
use maud::{Markup, html};

use super::{Viewer, choice, command, facts, hint, table, text};

/// Members on one page of the list.
pub const PEERS_ON_A_PAGE: usize = 100;

/// Members in the tree, at most.
const MAX_TREE: usize = 5000;

/// Levels of the tree, at most; chains are bounded far below.
const MAX_DEPTH: usize = 64;

/// How the list of members is to be.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// What a name, an address or a node id has to contain.
    pub search: String,
    /// The column to sort by.
    pub sort: String,
    /// Whether the order is turned round.
    pub reversed: bool,
    /// The page, from 0.
    pub page: usize,
}

const SORTS: [(&str, &str); 6] = [
    ("name", "name"),
    ("address", "address"),
    ("state", "state"),
    ("heard", "last heard"),
    ("received", "received"),
    ("sent", "sent"),
];

fn sort(peers: &mut [Peer], by: &str) {
    peer::sort(peers);
    match by {
        "address" => peers.sort_by_key(|peer| peer.ipv4),
        "state" => peers.sort_by_key(peer::state),
        "heard" => peers.sort_by_key(|peer| peer.last_heard.unwrap_or(u64::MAX)),
        "received" => peers.sort_by_key(|peer| std::cmp::Reverse(peer.rx_bytes)),
        "sent" => peers.sort_by_key(|peer| std::cmp::Reverse(peer.tx_bytes)),
        _ => {}
    }
}

/// The list of members.
#[must_use]
pub fn peers(mut peers: Vec<Peer>, path: DataPath, selection: &Selection) -> Markup {
    let (names, times) = (peer::names(&peers), Times::From(now()));
    let all = peers.len();
    let wanted = selection.search.to_lowercase();
    peers.retain(|peer| {
        peer.name.to_lowercase().contains(&wanted)
            || peer.node_id.contains(&wanted)
            || peer.ipv4.to_string().contains(&wanted)
    });
    sort(&mut peers, &selection.sort);
    if selection.reversed {
        peers.reverse();
    }
    let pages = peers.len().div_ceil(PEERS_ON_A_PAGE).max(1);
    let page = selection.page.min(pages - 1);
    let shown = peers.iter().skip(page * PEERS_ON_A_PAGE).take(PEERS_ON_A_PAGE);
    let rows: Vec<_> = shown
        .map(|peer| {
            let row = peer::Row::new(peer, &names, path, times);
            vec![
                html! { a href={ "/peers/" (peer.node_id) } { (clean(&row.name)) } },
                text(&row.ipv4),
                html! { span class={ "state " (row.state.replace(' ', "-")) } { (row.state) } },
                text(&row.handshake),
                text(&row.heard),
                text(&row.rtt),
                text(&row.received),
                text(&row.sent),
                text(&row.drops),
            ]
        })
        .collect();
    let link = |page: usize| {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair("q", &selection.search).append_pair("sort", &selection.sort);
        if selection.reversed {
            query.append_pair("reversed", "yes");
        }
        format!("/peers?{}", query.append_pair("page", &page.to_string()).finish())
    };
    html! {
        form.filter method="get" action="/peers" role="search" {
            label { "Search " input type="search" name="q" value=(selection.search) maxlength="100"; }
            label { "Sort by " (choice("sort", &SORTS, &selection.sort)) }
            label { input type="checkbox" name="reversed" value="yes" checked[selection.reversed]; " reversed" }
            button { "Show" }
        }
        p { (peers.len()) " of " (all) " other members" }
        @if !rows.is_empty() {
            (table(
                "Other members",
                &["Name", "IPv4", "State", "Handshake", "Heard", "RTT", "Received", "Sent", "Drops"],
                &rows,
            ))
        }
        @if pages > 1 {
            nav.pages aria-label="Pages of the list" {
                @if page > 0 { a href=(link(page - 1)) rel="prev" { "Previous" } }
                span { "Page " (page + 1) " of " (pages) }
                @if page + 1 < pages { a href=(link(page + 1)) rel="next" { "Next" } }
            }
        }
    }
}

/// A member by its name, with a link to all about it.
fn reference(node: &str, names: &HashMap<&str, &str>, own: Option<&str>) -> Markup {
    match names.get(node) {
        Some(name) => html! { a href={ "/peers/" (node) } { (clean(&label(name, node))) } },
        None if own == Some(node) => html! { "this node" },
        None => html! { code { (clean(short(node))) } },
    }
}

/// The names of members by their ids.
fn names_by_id(peers: &[Peer]) -> HashMap<&str, &str> {
    peers.iter().map(|peer| (peer.node_id.as_str(), peer.name.as_str())).collect()
}

/// Members by their names, with links.
#[must_use]
pub fn references(nodes: &[String], peers: &[Peer], own: Option<&str>, between: &str) -> Markup {
    let names = names_by_id(peers);
    html! {
        @for (index, node) in nodes.iter().enumerate() {
            @if index > 0 { (between) }
            (reference(node, &names, own))
        }
    }
}

/// All about a member, with the graph of its round trips.
#[must_use]
pub fn details(
    viewer: Viewer<'_>,
    peer: &Peer,
    peers: &[Peer],
    own: Option<&str>,
    round_trips: &Markup,
) -> Markup {
    html! {
        (facts(&[
            ("state", text(peer::state(peer))),
            ("node id", html! { code { (clean(&peer.node_id)) } }),
            ("IPv4", text(&peer.ipv4.to_string())),
            ("IPv6", text(&peer.ipv6.to_string())),
            ("ranges", text(&peer.ranges.join(", "))),
            ("endpoint", html! { code { (clean(&peer.endpoint)) } }),
            ("public key", html! { code { (clean(&peer.public_key)) } }),
            ("invited by", references(&peer.inviters, peers, own, " › ")),
            ("signed", text(&utc(peer.signed_at))),
            ("handshake", text(&units::ago(peer.last_handshake))),
            ("heard", text(&units::ago(peer.last_heard))),
            ("round trip", text(&units::or_dash(peer.rtt.map(units::milliseconds)))),
            ("received", html! { (units::bytes(peer.rx_bytes)) " in " (peer.rx_packets) " packets" }),
            ("sent", html! { (units::bytes(peer.tx_bytes)) " in " (peer.tx_packets) " packets" }),
            ("drops", text(&peer::drops(peer))),
        ]))
        section {
            h2 { "Round trips" }
            (round_trips)
            p.hint { "From a control message to the answer. What was measured last counts until the next." }
        }
        @if viewer.session.control {
            section {
                h2 { "Ping" }
                p { "Asks it for an answer over I2P. Through the tunnel: " code { "i2planctl ping " (peer.ipv4) } }
                (viewer.button(&format!("/peers/{}/ping", peer.node_id), "Ping"))
            }
            section {
                h2 { "Ban" }
                @if peer.banned {
                    (viewer.button(&format!("/bans/{}/remove", peer.node_id), "Lift the ban"))
                } @else {
                    p { "Cuts its tunnel and its messages on this node, and on no other." }
                    form method="post" action={ "/peers/" (peer.node_id) "/ban" } {
                        (viewer.csrf())
                        (ban_terms())
                        button { "Ban" }
                    }
                }
            }
        }
        section {
            h2 { "End its membership" }
            (command(
                "This is an order, which an administrator gives to keyd directly:",
                &format!("i2planctl revoke {}", peer.node_id),
            ))
        }
    }
}

/// What came of a ping: how many milliseconds the answer took, or why there was none and what to do.
#[must_use]
pub fn pinged(answer: &Result<u64, (String, Option<String>)>) -> Markup {
    html! {
        @match answer {
            Ok(milliseconds) => p.info role="status" { "It answers, after " (units::milliseconds(*milliseconds)) "." },
            Err((why, advice)) => {
                div.warnings {
                    p role="alert" { strong { (clean(why)) } }
                    @if let Some(text) = advice { (hint(text)) }
                }
            }
        }
    }
}

/// What a ban is to be.
fn ban_terms() -> Markup {
    html! {
        label { "Reason " input name="description" maxlength="200"; }
        label { "For " input name="duration" placeholder="1h, 7d; empty for no end" maxlength="10"; }
    }
}

/// Who has invited whom.
#[must_use]
pub fn tree(status: &Status, peers: &[Peer]) -> Markup {
    let mut below: BTreeMap<&str, Vec<&Peer>> = BTreeMap::new();
    let mut known: HashSet<&str> = peers.iter().map(|peer| peer.node_id.as_str()).collect();
    known.extend(status.node_id.as_deref());
    let mut tops: Vec<&str> = Vec::new();
    for peer in peers.iter().take(MAX_TREE) {
        match peer.inviters.last() {
            Some(inviter) => {
                if !known.contains(inviter.as_str()) && !tops.contains(&inviter.as_str()) {
                    tops.push(inviter);
                }
                below.entry(inviter).or_default().push(peer);
            }
            None => tops.push(&peer.node_id),
        }
    }
    tops.extend(status.node_id.as_deref());
    for members in below.values_mut() {
        members.sort_by(|a, b| (&a.name, &a.node_id).cmp(&(&b.name, &b.node_id)));
    }
    let names = Names::of(peers.iter().map(|peer| peer.name.as_str()));
    let branches =
        Branches { status, names, below, peers: peers.iter().map(|p| (p.node_id.as_str(), p)).collect() };
    html! {
        p {
            "A revocation ends the membership of a member and of all below it. This node, with those whom it has "
            "invited, is shown apart from its own inviters."
        }
        ul.tree { @for top in tops { (branches.render(top, 0)) } }
        (command("To revoke one, on the founder or one of its inviters:", "i2planctl revoke MEMBER"))
    }
}

struct Branches<'a> {
    status: &'a Status,
    names: Names,
    below: BTreeMap<&'a str, Vec<&'a Peer>>,
    peers: HashMap<&'a str, &'a Peer>,
}

impl Branches<'_> {
    fn render(&self, node: &str, depth: usize) -> Markup {
        let below = self.below.get(node).filter(|_| depth < MAX_DEPTH);
        html! {
            li {
                @if let Some(peer) = self.peers.get(node) {
                    a href={ "/peers/" (node) } { (clean(&self.names.label(&peer.name, node))) }
                    " " span class={ "state " (peer::state(peer).replace(' ', "-")) } { (peer::state(peer)) }
                } @else if self.status.node_id.as_deref() == Some(node) {
                    strong { (clean(&self.status.name)) " (this node)" }
                } @else {
                    code { (clean(short(node))) }
                }
                @if let Some(below) = below {
                    ul { @for peer in below { (self.render(&peer.node_id, depth + 1)) } }
                }
            }
        }
    }
}

/// The routing table.
#[must_use]
pub fn routes(mut routes: Vec<Route>) -> Markup {
    routes.sort_by_key(|route| route.ipv4);
    let (names, times) = (route::names(&routes), Times::From(now()));
    let by_node: HashMap<_, _> = routes.iter().map(|route| (route.node_id.as_str(), route)).collect();
    let rows: Vec<_> = routes
        .iter()
        .map(|route| {
            let row = route::Row::new(route, &names, |node| by_node.get(node).copied(), times);
            vec![
                text(&row.ipv4),
                text(&row.ipv6),
                text(&row.ranges),
                html! {
                    @if route::is_local(route) { (clean(&row.name)) }
                    @else { a href={ "/peers/" (route.node_id) } { (clean(&row.name)) } }
                },
                text(&row.hops),
                text(&row.via),
                text(&row.last_seen),
                text(&row.created),
            ]
        })
        .collect();
    html! {
        p { "Hops are those of control messages. Packets of the tunnel always go directly." }
        @if rows.is_empty() { p { "This node is in no network." } }
        @else {
            (table(
                "The routing table",
                &["IPv4", "IPv6", "Range", "Name", "Hops", "Via", "Last seen", "Created"],
                &rows,
            ))
        }
    }
}

/// The bans in force.
#[must_use]
pub fn bans(viewer: Viewer<'_>, bans: &[Ban]) -> Markup {
    let (names, times) = (ban::names(bans), Times::From(now()));
    let rows: Vec<_> = bans
        .iter()
        .map(|ban| {
            let row = ban::Row::new(ban, &names, times);
            vec![
                text(&row.name),
                html! { code { (clean(&row.node_id)) } },
                text(&row.reason),
                text(&row.until),
                text(&row.since),
                text(&row.description),
                html! {
                    @if viewer.session.control {
                        (viewer.button(&format!("/bans/{}/remove", ban.node_id), "Lift"))
                    }
                },
            ]
        })
        .collect();
    html! {
        p { "A ban counts on this node alone." }
        @if viewer.session.control {
            section {
                h2 { "New ban" }
                form method="post" action="/bans" {
                    (viewer.csrf())
                    label { "Member " input name="member" placeholder="name, address or node id" required maxlength="100"; }
                    (ban_terms())
                    button { "Ban" }
                }
            }
        }
        @if rows.is_empty() { p { "Nobody is banned." } }
        @else {
            (table("Bans in force", &["Name", "Node", "Reason", "Until", "Since", "Description", ""], &rows))
        }
    }
}
