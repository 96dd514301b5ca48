//! Members that callers name otherwise than by node id.

use i2plan_ipc::api::meshd::Request;
use i2plan_ipc::api::order::OrderTarget;
use i2plan_ipc::member::{Candidate, LookupError, is_node_id, look_up};
use i2plan_ipc::{ErrorKind, Node};

use super::error::Error;

/// Members that an error lists.
const MAX_LISTED: usize = 5;

/// Puts the node id of the member that a request names into the request.
///
/// Returns what the caller has written in its place; none if that was a node id, or the request is about no member.
///
/// # Errors
/// If it means no member or several, or the node does not answer.
pub async fn resolve(node: &mut Node, request: &mut Request) -> Result<Option<String>, LookupError> {
    let is_banned = matches!(request, Request::RemoveBan { .. });
    let Some(named) = named(request).filter(|named| !is_node_id(named)) else { return Ok(None) };
    let node_id =
        if is_banned { node.find_banned(named).await? } else { node.find_member(named).await?.node_id };
    Ok(Some(std::mem::replace(named, node_id)))
}

/// The member that a request is about.
fn named(request: &mut Request) -> Option<&mut String> {
    match request {
        Request::AddBan { node_id, .. }
        | Request::RemoveBan { node_id }
        | Request::Grant { node_id, .. }
        | Request::Ping { node_id }
        | Request::Revoke { node_id } => Some(node_id),
        _ => None,
    }
}

/// Checks that the member in an order can be the one that the caller has named. `meshd` says whom a name means; `keyd`
/// has verified the name that the member has signed.
///
/// # Errors
/// If it can not.
pub fn verify(target: &OrderTarget, named: &str) -> Result<(), Error> {
    let member = Candidate::of_order(target)
        .ok_or_else(|| Error::new(ErrorKind::Internal, "the order is not about a member"))?;
    let refusal = format!("keyd cannot verify that {} is meant: nothing was done", describe(&member));
    match look_up(vec![member], named) {
        Ok(_) => Ok(()),
        Err(_) => Err(Error::new(ErrorKind::Denied, &refusal).with_hint("use the node id")),
    }
}

impl From<LookupError> for Error {
    fn from(error: LookupError) -> Self {
        match error {
            LookupError::Unknown { .. } => Self::new(ErrorKind::NotFound, "no such member is known")
                .with_hint("`peers.list` tells the members; name one by name, address or node id"),
            LookupError::Ambiguous { candidates, .. } => {
                let listed: Vec<_> = candidates.iter().take(MAX_LISTED).map(describe).collect();
                let more = match candidates.len().saturating_sub(MAX_LISTED) {
                    0 => String::new(),
                    more => format!(", and {more} more"),
                };
                let what = format!("several members are meant: {}{more}", listed.join(", "));
                Self::invalid_params(&what).with_hint("use the node id")
            }
            LookupError::ThisNode { .. } => Self::invalid_params("this node itself is meant")
                .with_hint("`peers.list` tells the other members"),
            LookupError::Client(error) => error.into(),
        }
    }
}

/// A member's name, node id and first address.
fn describe(member: &Candidate) -> String {
    let Candidate { node_id, name, addresses } = member;
    match (name.as_str(), addresses.first()) {
        ("", None) => node_id.clone(),
        ("", Some(address)) => format!("{node_id} ({address})"),
        (name, None) => format!("{name} ({node_id})"),
        (name, Some(address)) => format!("{name} ({node_id}, {address})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_given_for_the_member_that_was_named_and_for_no_other() {
        let id = "b".repeat(51) + "a";
        let network = "c".repeat(51) + "a";
        let member = |name: &str| OrderTarget::Member {
            network: network.parse().unwrap(),
            node: id.parse().unwrap(),
            name: Some((name.parse().unwrap(), 1_800_000_000)),
            address: [10, 42, 0, 3].into(),
            below: 0,
        };
        for named in ["web", "WEB", &id[..6], "10.42.0.3"] {
            assert_eq!(verify(&member("web"), named), Ok(()), "{named}");
        }
        let error = verify(&member("db"), "web").unwrap_err();
        assert_eq!(error.code, ErrorKind::Denied.into());
        assert!(error.message.contains(&id) && error.message.contains("db"), "{}", error.message);
        // The evidence for a grant has no name.
        let grant = OrderTarget::Grant {
            network: network.parse().unwrap(),
            node: id.parse().unwrap(),
            address: [10, 42, 0, 3].into(),
            before: 1,
            after: 1024,
        };
        assert!(verify(&grant, "web").is_err() && verify(&grant, "10.42.0.3").is_ok());
    }

    #[test]
    fn an_error_stays_short_however_many_members_there_are() {
        let candidates: Vec<_> = (0..3000)
            .map(|number| Candidate {
                node_id: "i".repeat(52),
                name: format!("{number:063}"),
                addresses: Vec::new(),
            })
            .collect();
        let error = Error::from(LookupError::Ambiguous { text: "secret".to_owned(), candidates });
        assert!(error.message.ends_with(", and 2995 more"), "{}", error.message);
        assert!(error.message.len() < 800 && !error.message.contains("secret"), "{}", error.message);
    }
}
