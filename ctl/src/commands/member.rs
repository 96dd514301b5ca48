//! Members as people name them.

use std::io::{self, BufRead as _, IsTerminal as _};

use i2plan_ipc::Node;
use i2plan_ipc::api::meshd::{Peer, Status};

use crate::failure::{Failure, Kind};
use crate::output::{self, clean};

/// What of a member can be named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// Its node id.
    pub node_id: String,
    /// What it calls itself, if that is known.
    pub name: String,
    /// Its addresses, as text.
    pub addresses: Vec<String>,
}

impl From<&Peer> for Named {
    fn from(peer: &Peer) -> Self {
        let addresses = vec![peer.ipv4.to_string(), peer.ipv6.to_string()];
        Self { node_id: peer.node_id.clone(), name: peer.name.clone(), addresses }
    }
}

/// The member that a name, an address, a node id or the beginning of one means.
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
    match choose(peers.iter().map(Named::from).collect(), text) {
        Ok(named) => {
            let place = peers.iter().position(|peer| peer.node_id == named.node_id);
            place
                .map(|place| peers.swap_remove(place))
                .ok_or_else(|| Failure::internal("the member that was found is gone"))
        }
        Err(failure) if failure.kind == Kind::NotFound && is_own(&node.status().await?, text) => {
            Err(Failure::invalid(format!("{:?} is this node itself", clean(text)))
                .with_hint("`i2planctl peers` lists the other members"))
        }
        Err(failure) => Err(failure),
    }
}

/// Whether the node itself is what is named.
fn is_own(status: &Status, text: &str) -> bool {
    let addresses = status.network.as_ref().map(|own| [own.ipv4.to_string(), own.ipv6.to_string()]);
    let by_id = status.node_id.as_ref().is_some_and(|id| !text.is_empty() && id.starts_with(text));
    status.name == text || by_id || addresses.is_some_and(|own| own.iter().any(|address| address == text))
}

/// The one that is meant. A whole id, a name or an address counts before the beginning of an id.
///
/// # Errors
/// [`Kind::NotFound`] if there is none, [`Kind::Invalid`] if there are several.
pub fn choose(members: Vec<Named>, text: &str) -> Result<Named, Failure> {
    let whole = |member: &Named| {
        member.node_id == text
            || member.name == text
            || member.addresses.iter().any(|address| address == text)
    };
    let begins = |member: &Named| !text.is_empty() && member.node_id.starts_with(text);
    let mut found: Vec<_> = members.iter().filter(|member| whole(member)).collect();
    if found.is_empty() {
        found = members.iter().filter(|member| begins(member)).collect();
    }
    match found[..] {
        [one] => Ok(one.clone()),
        [] => Err(Failure::new(Kind::NotFound, format!("no member {:?} is known", clean(text)))
            .with_hint("`i2planctl peers` lists the members; name one by name, address or node id")),
        _ => {
            let all: Vec<_> = found
                .iter()
                .map(|member| format!("{} ({})", clean(&member.name), clean(&member.node_id)))
                .collect();
            Err(Failure::invalid(format!("{:?} can mean {}", clean(text), all.join(" or ")))
                .with_hint("use the node id"))
        }
    }
}

/// Has a person type `word` before something that cannot be undone. `yes` is that person's word in advance.
///
/// # Errors
/// If it was not typed, or there is nobody to type it.
pub fn confirm(consequences: &str, word: &str, yes: bool) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    if !io::stdin().is_terminal() {
        return Err(Failure::usage("this cannot be undone, and there is no terminal to ask on")
            .with_hint("say --yes if it is meant"));
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
    use super::*;

    fn named(node_id: &str, name: &str, address: &str) -> Named {
        Named { node_id: node_id.to_owned(), name: name.to_owned(), addresses: vec![address.to_owned()] }
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
        assert!(several.message.contains("db (aabb) or db (cccc)"), "{}", several.message);
        assert_eq!(choose(members(), "a").unwrap_err().kind, Kind::Invalid);
        for none in ["", "x", "10.42.0.9"] {
            assert_eq!(choose(members(), none).unwrap_err().kind, Kind::NotFound, "{none}");
        }
    }

    #[test]
    fn without_a_terminal_yes_must_be_said() {
        assert_eq!(confirm("all is lost", "word", true), Ok(()));
    }
}
