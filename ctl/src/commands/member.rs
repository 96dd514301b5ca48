//! Members as people name them.

use std::collections::HashMap;
use std::io::{self, BufRead as _, IsTerminal as _};
use std::net::IpAddr;

use i2plan_ipc::Node;
use i2plan_ipc::api::meshd::{Ban, Peer, Status};
use i2plan_proto::identity::NodeId;

use crate::failure::{Failure, Kind};
use crate::output;
use crate::present::text::{clean, fit};

/// Characters of a short node id, as daemons log it.
const SHORT_ID: usize = 10;

/// A beginning of an id that is shorter counts only where no member has that name: a short name is the beginning of
/// some id in every large network.
const SHORTEST_PREFIX: usize = 4;

/// Members that an error lists.
const MAX_CANDIDATES: usize = 5;

/// Columns of a name in an error.
const NAME_WIDTH: usize = 24;

/// What of a member can be named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// Its node id.
    pub node_id: String,
    /// What it calls itself; empty if that is not known.
    pub name: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}

impl Named {
    /// A banned node, which has addresses if it is one of these members.
    #[must_use]
    pub fn of_ban(ban: &Ban, members: &[Peer]) -> Self {
        let member = members.iter().find(|member| member.node_id == ban.node_id).map(Self::from);
        member.unwrap_or_else(|| Self {
            node_id: ban.node_id.clone(),
            name: ban.name.clone().unwrap_or_default(),
            addresses: Vec::new(),
        })
    }

    /// Its name, short id and first address.
    pub(crate) fn describe(&self) -> String {
        let short = clean(short(&self.node_id)).into_owned();
        let name = fit(&clean(&self.name), NAME_WIDTH);
        match (name.as_str(), self.addresses.first()) {
            ("", None) => short,
            ("", Some(address)) => format!("{short} ({address})"),
            (name, None) => format!("{name} ({short})"),
            (name, Some(address)) => format!("{name} ({short}, {address})"),
        }
    }
}

impl From<&Peer> for Named {
    fn from(peer: &Peer) -> Self {
        let addresses = vec![peer.ipv4.into(), peer.ipv6.into()];
        Self { node_id: peer.node_id.clone(), name: peer.name.clone(), addresses }
    }
}

/// The first characters of a node id, as daemons log it: to tell members apart, not to decide by.
#[must_use]
pub fn short(node_id: &str) -> &str {
    node_id.get(..SHORT_ID).unwrap_or(node_id)
}

/// A member's name with its short id, or the short id alone if the name is not known, as it is not when a node has
/// just started.
#[must_use]
pub fn label(name: &str, node_id: &str) -> String {
    match name {
        "" => short(node_id).to_owned(),
        name => format!("{name} ({})", short(node_id)),
    }
}

/// The names in a list, to tell members of one name apart.
#[derive(Debug)]
pub struct Names(HashMap<String, usize>);

impl Names {
    /// Those of a list.
    #[must_use]
    pub fn of<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let mut counts = HashMap::new();
        for name in names {
            *counts.entry(name.to_ascii_lowercase()).or_default() += 1;
        }
        Self(counts)
    }

    /// What a member is called in the list: its name, with its short id if others have the same.
    #[must_use]
    pub fn label(&self, name: &str, node_id: &str) -> String {
        if self.is_repeated(name) { label(name, node_id) } else { name.to_owned() }
    }

    /// Whether several members have this name.
    #[must_use]
    pub fn is_repeated(&self, name: &str) -> bool {
        self.0.get(&name.to_ascii_lowercase()).is_some_and(|count| *count > 1)
    }
}

/// Finds the member that a name, an address, a node id or the beginning of one means.
///
/// # Errors
/// If the node does not answer, or if it knows no such member or several.
pub async fn find(node: &mut Node, text: &str) -> Result<Named, Failure> {
    Ok(Named::from(&find_peer(node, text).await?))
}

/// As [`find`], with all that is known of it.
///
/// # Errors
/// As [`find`].
pub async fn find_peer(node: &mut Node, text: &str) -> Result<Peer, Failure> {
    let mut peers = node.peers().await?;
    let named = find_among(node, &peers, text).await?;
    let place = peers.iter().position(|peer| peer.node_id == named.node_id);
    place
        .map(|place| peers.swap_remove(place))
        .ok_or_else(|| Failure::internal("the member that was found is gone"))
}

/// As [`find`], among members that are known already.
///
/// # Errors
/// As [`find`].
pub async fn find_among(node: &mut Node, peers: &[Peer], text: &str) -> Result<Named, Failure> {
    match choose(peers.iter().map(Named::from).collect(), text) {
        Err(failure) if failure.kind == Kind::NotFound && is_own(&node.status().await?, text) => {
            Err(Failure::invalid(format!("{:?} is this node itself", clean(text)))
                .with_hint("`i2planctl peers` lists the other members"))
        }
        found => found,
    }
}

/// Whether the node itself is what is named.
fn is_own(status: &Status, text: &str) -> bool {
    let network = status.network.as_ref();
    let own = Named {
        node_id: status.node_id.clone().unwrap_or_default(),
        name: status.name.clone(),
        addresses: network.map(|own| vec![own.ipv4.into(), own.ipv6.into()]).unwrap_or_default(),
    };
    choose(vec![own], text).is_ok()
}

/// Returns the one that is meant. A node id wins, then an address; names and beginnings of ids count alike, so that no
/// member can take the beginning of another's id as its name and be taken for it.
///
/// # Errors
/// [`Kind::NotFound`] if there is none, [`Kind::Invalid`] if there are several.
pub fn choose(mut members: Vec<Named>, text: &str) -> Result<Named, Failure> {
    let id = text.to_ascii_lowercase();
    let has_id = |member: &Named| !id.is_empty() && member.node_id == id;
    if text.parse::<NodeId>().is_ok() || members.iter().any(has_id) {
        members.retain(has_id);
    } else if let Ok(address) = text.parse::<IpAddr>() {
        let address = address.to_canonical();
        members.retain(|member| member.addresses.contains(&address));
    } else {
        let has_name = |member: &Named| !text.is_empty() && member.name.eq_ignore_ascii_case(text);
        let prefixes_count = id.len() >= SHORTEST_PREFIX || !members.iter().any(has_name);
        let begins = |member: &Named| !id.is_empty() && member.node_id.starts_with(&id);
        members.retain(|member| has_name(member) || prefixes_count && begins(member));
    }
    match members.len() {
        0 => Err(Failure::new(Kind::NotFound, format!("no member {:?} is known", clean(text)))
            .with_hint("`i2planctl peers` lists the members; name one by name, address or node id")),
        1 => Ok(members.swap_remove(0)),
        _ => Err(ambiguous(&members, text)),
    }
}

fn ambiguous(members: &[Named], text: &str) -> Failure {
    let listed: Vec<_> = members.iter().take(MAX_CANDIDATES).map(Named::describe).collect();
    let more = match members.len().saturating_sub(MAX_CANDIDATES) {
        0 => String::new(),
        more => format!(", and {more} more"),
    };
    let message = format!("{:?} is ambiguous: {}{more}", clean(text), listed.join(", "));
    Failure::invalid(message).with_hint("use the node id; `i2planctl peers --json` shows it")
}

/// Whether a person can be asked, or has answered in advance.
///
/// # Errors
/// If there is nobody to ask.
pub fn can_ask(yes: bool) -> Result<(), Failure> {
    if yes || io::stdin().is_terminal() {
        return Ok(());
    }
    Err(Failure::usage("this cannot be undone, and there is no terminal to ask on")
        .with_hint("say --yes if it is meant"))
}

/// Has a person type `word` before something that cannot be undone. `yes` is that person's word in advance.
///
/// # Errors
/// If it was not typed, or there is nobody to type it.
pub fn confirm(consequences: &str, word: &str, yes: bool) -> Result<(), Failure> {
    can_ask(yes)?;
    if yes {
        return Ok(());
    }
    output::note(consequences);
    output::note(&format!("type {} to go on:", clean(word)));
    let mut line = String::new();
    io::stdin()
        .lock()
        .read_line(&mut line)
        .map_err(|error| Failure::internal(format!("cannot read the answer: {error}")))?;
    if line.trim() == word {
        return Ok(());
    }
    Err(Failure::invalid("nothing was done: that was something else"))
}

#[cfg(test)]
mod tests {
    use i2plan_ipc::api::meshd::BanReason;

    use super::*;

    fn named(node_id: &str, name: &str, address: &str) -> Named {
        let addresses = vec![address.parse().unwrap()];
        Named { node_id: node_id.to_owned(), name: name.to_owned(), addresses }
    }

    fn members() -> Vec<Named> {
        vec![
            named("aaaa", "web", "10.42.0.1"),
            named("aabb", "db", "10.42.0.2"),
            named("cccc", "db", "10.42.0.3"),
            named("dddd", "aa", "10.42.0.4"),
        ]
    }

    #[test]
    fn a_member_is_named_in_several_ways() {
        for (text, node_id) in [
            ("web", "aaaa"),
            ("10.42.0.2", "aabb"),
            ("cccc", "cccc"),
            ("aab", "aabb"),
            ("c", "cccc"),
            ("aa", "dddd"),
        ] {
            assert_eq!(choose(members(), text).unwrap().node_id, node_id, "{text}");
        }
    }

    #[test]
    fn what_means_several_or_none_is_refused() {
        let several = choose(members(), "db").unwrap_err();
        assert_eq!(several.message, "\"db\" is ambiguous: db (aabb, 10.42.0.2), db (cccc, 10.42.0.3)");
        assert_eq!(several.kind, Kind::Invalid);
        assert_eq!(choose(members(), "a").unwrap_err().kind, Kind::Invalid);
        for none in ["", "x", "10.42.0.9"] {
            assert_eq!(choose(members(), none).unwrap_err().kind, Kind::NotFound, "{none}");
        }
    }

    /// Ids as nodes have them.
    fn id(number: u8) -> String {
        NodeId([number; 32]).to_string()
    }

    #[test]
    fn a_whole_id_and_an_address_win_over_names() {
        let members = || {
            vec![
                Named { addresses: vec!["fd12::1".parse().unwrap()], ..named(&id(1), "web", "10.42.0.1") },
                named(&id(2), &id(1), "10.42.0.2"),
                named(&id(3), "10.42.0.1", "10.42.0.3"),
                named(&id(4), "db", "10.42.0.1"),
            ]
        };
        let found = |text: &str| choose(members(), text).map(|member| member.node_id);
        assert_eq!(found(&id(1)), Ok(id(1)));
        assert_eq!(found(&id(1).to_uppercase()), Ok(id(1)));
        assert_eq!(found(&id(9)).unwrap_err().kind, Kind::NotFound);
        assert_eq!(found("10.42.0.1"), Ok(id(4)));
        assert_eq!(found("::ffff:10.42.0.3"), Ok(id(3)));
        assert_eq!(found("FD12:0::0:1"), Ok(id(1)));
        assert_eq!(found("fd12::2").unwrap_err().kind, Kind::NotFound);
        assert_eq!(found("WEB"), Ok(id(1)));
    }

    #[test]
    fn a_name_that_is_the_beginning_of_another_id_is_ambiguous() {
        for len in [4, 8, SHORT_ID, 20] {
            let prefix = &id(1)[..len];
            let members = vec![named(&id(1), "evil", "10.42.0.1"), named(&id(2), prefix, "10.42.0.2")];
            for text in [prefix, &prefix.to_uppercase()] {
                let failure = choose(members.clone(), text).unwrap_err();
                assert!(failure.message.contains("is ambiguous: evil ("), "{}", failure.message);
                assert_eq!(failure.hint.as_deref().map(|hint| hint.contains("node id")), Some(true));
            }
            // One whose name begins its own id is one member.
            let one = vec![named(&id(1), prefix, "10.42.0.1"), named(&id(2), "web", "10.42.0.2")];
            assert_eq!(choose(one, prefix).unwrap().node_id, id(1));
        }
    }

    #[test]
    fn an_error_stays_short_however_many_members_there_are() {
        let name = "n".repeat(63);
        let members: Vec<_> = (0..3000_u32)
            .map(|number| {
                let mut id = [0; 32];
                id[..4].copy_from_slice(&number.to_be_bytes());
                let address = std::net::Ipv4Addr::from(0x0a2a_0000 + number).to_string();
                named(&NodeId(id).to_string(), &name, &address)
            })
            .collect();
        let failure = choose(members, &name).unwrap_err();
        assert!(failure.message.ends_with(", 10.42.0.4), and 2995 more"), "{}", failure.message);
        assert!(failure.message.len() < 400, "{}", failure.message);
        assert_eq!(failure.to_string().lines().count(), 2);
    }

    #[test]
    fn a_banned_node_that_has_left_is_named_by_its_id_and_its_name() {
        let ban = |name: Option<&str>| Ban {
            node_id: id(1),
            name: name.map(str::to_owned),
            reason: BanReason::Manual,
            description: String::new(),
            created_at: 1,
            expires_at: None,
            strikes: 0,
        };
        let found = |name, text: &str| choose(vec![Named::of_ban(&ban(name), &[])], text).is_ok();
        assert!(found(None, &id(1)) && found(None, &id(1)[..6]) && found(Some("web"), "web"));
        assert!(!found(None, "") && !found(None, "10.42.0.1"));
    }

    #[test]
    fn members_of_one_name_are_told_apart() {
        let names = Names::of(["web", "Web", "db"]);
        assert_eq!(names.label("web", "abcdefghijklm"), "web (abcdefghij)");
        assert_eq!(names.label("Web", "bcdefghijklmn"), "Web (bcdefghijk)");
        assert_eq!(names.label("db", "cdefghijklmno"), "db");
        assert_eq!(Names::of(["", ""]).label("", "abcdefghijklm"), "abcdefghij");
    }

    #[test]
    fn without_a_terminal_yes_must_be_said() {
        assert_eq!(confirm("all is lost", "word", true), Ok(()));
    }
}
