//! Orders: `meshd` proposes, `keyd` verifies, the user confirms, `keyd` signs, `meshd` distributes.

use std::path::Path;

use i2plan_ipc::Node;
use i2plan_ipc::administrator::{Prepared, socket_beside};
use i2plan_ipc::api::Call;
use i2plan_ipc::api::meshd::{AllowInvite, Answered, MeshdApi};
use i2plan_ipc::api::order::{Executed, OrderTarget};
use i2plan_ipc::version::utc;
use i2plan_proto::address::ipv6_of;
use serde_json::json;

use super::member::{Named, can_ask, confirm};
use crate::daemon;
use crate::failure::{Failure, Kind};
use crate::output::{self, clean, units};

/// What was done, and whether a network was founded for it.
pub struct Done<T> {
    /// The answer of `meshd`.
    pub reply: T,
    /// Whether the network was founded just now.
    pub founded: bool,
}

/// Has `meshd` do something, and if it takes an order gives that. `consequences` says what it leads to, or why it is not
/// what was meant; it is shown, and `word` is to be typed, unless the user has said `yes`.
///
/// # Errors
/// If one of the daemons refuses, or it was not confirmed.
pub async fn carry_out<C, T>(
    node: &mut Node,
    request: C,
    consequences: impl FnOnce(&OrderTarget) -> Result<String, Failure>,
    word: &str,
    yes: bool,
) -> Result<Done<T>, Failure>
where
    C: Call<Api = MeshdApi, Reply = Answered<T>> + Clone,
{
    let proposed = match node.call(request.clone()).await? {
        Answered::Done(reply) => return Ok(Done { reply, founded: false }),
        Answered::ToOrder(proposed) => proposed,
    };
    can_ask(yes)?;
    let order = Prepared::new(socket_beside(node.socket()), &request.into(), &proposed).await?;
    let consequences = consequences(order.target())?;
    confirm(&format!("{}\n{consequences}", describe(order.target())), word, yes)?;
    let executed = order.confirm(Some).await?;
    let enacted = node.enact::<C>(executed).await.and_then(|reply| Ok(reply.done()?));
    let reply = enacted.map_err(|error| {
        let failure = Failure::from(error);
        let message = format!("keyd has signed it, and meshd has not distributed it: {}", failure.message);
        Failure { message, ..failure }
    })?;
    Ok(Done { reply, founded: proposed.founded })
}

/// What `keyd` has verified and will sign.
fn describe(target: &OrderTarget) -> String {
    match target {
        OrderTarget::Member { network, node, name, address, below } => {
            // An earlier record may have another name; meshd chooses which one keyd is shown.
            let called = name.as_ref().map_or_else(String::new, |(name, signed_at)| {
                format!(" which called itself {} on {},", clean(name.as_str()), utc(*signed_at))
            });
            format!(
                "keyd will revoke node {node},{called} {address}, in network {}; {} below it, as far as meshd shows their \
                 records",
                network.short(),
                units::counted(*below, "member")
            )
        }
        OrderTarget::Invite { network, invite, members, below } => format!(
            "keyd will revoke the {} that it has certified for invite {invite}, in network {}; {} below, as far as meshd shows \
             their records",
            units::counted(*members, "member"),
            network.short(),
            units::counted(*below, "member")
        ),
        OrderTarget::LocalMembership { network, address, invited } => format!(
            "keyd will sign that this node, {address}, leaves network {network}; it has invited {}",
            units::counted(*invited, "member")
        ),
        OrderTarget::Pinned { network, address } => {
            format!("keyd will forget network {network}, in which this node is {address}")
        }
        OrderTarget::NewInvite { network, invite, uses, addresses, expires_at } => {
            let what = invite.map_or_else(|| "an invite".to_owned(), |invite| format!("invite {invite}"));
            let each = u64::from(*addresses);
            let (nodes, total) = match uses.limit() {
                Some(uses) => (
                    units::counted(uses.into(), "node"),
                    format!("{} in all, on whatever day", units::addresses(u64::from(uses) * each)),
                ),
                None => (
                    "any number of nodes".to_owned(),
                    "without a limit: whoever has its code or breaks into meshd can add as many members as this node has \
                     addresses"
                        .to_owned(),
                ),
            };
            format!(
                "keyd will let {nodes} join network {} with {what}, each with {}, until {}; {total}",
                network.short(),
                units::addresses(each),
                utc(*expires_at)
            )
        }
        OrderTarget::Memory { network, members, addresses } => format!(
            "keyd will take the {} that it remembers, with {}, for all that it has certified in network {}",
            units::counted(*members, "member"),
            units::addresses(*addresses),
            network.short()
        ),
        OrderTarget::Grant { network, node, address, before, after } => format!(
            "keyd will certify node {node}, {address}, in network {} for {} in place of {}",
            network.short(),
            units::addresses(*after),
            units::addresses(*before)
        ),
    }
}

/// The member that `keyd` will revoke or extend, if a user who wrote `text` may have meant it: its name is the one in its
/// signed record, and not what `meshd` says.
pub(super) fn meant(target: &OrderTarget, text: &str) -> Result<Named, Failure> {
    let (node, name, address, network) = match target {
        OrderTarget::Member { node, name, address, network, .. } => {
            (node, name.as_ref().map(|(name, _)| name), address, network)
        }
        OrderTarget::Grant { node, address, network, .. } => (node, None, address, network),
        _ => return Err(Failure::internal("the order is not about a member")),
    };
    let named = Named {
        node_id: node.to_string(),
        name: name.map(ToString::to_string).unwrap_or_default(),
        addresses: vec![(*address).into(), ipv6_of(network, *address).into()],
    };
    match super::member::choose(vec![named], text) {
        Ok(named) => Ok(named),
        Err(_) => Err(Failure::new(
            Kind::Denied,
            format!("keyd cannot verify that {:?} is node {node}, {address}: nothing was done", clean(text)),
        )
        .with_hint("use the node id")),
    }
}

/// Lets the users of an invite join, however many addresses were delegated today.
///
/// # Errors
/// If there is no such invite, or it was not confirmed.
pub async fn allow_invite(socket: Option<&Path>, json: bool, id: &str, yes: bool) -> Result<(), Failure> {
    let mut node = daemon::connect(socket).await?;
    let id = super::invite::choose(node.invites().await?, id)?.id;
    let request = AllowInvite { id };
    let proposed = node.call(request.clone()).await?;
    can_ask(yes)?;
    let order = Prepared::new(socket_beside(node.socket()), &request.into(), &proposed).await?;
    confirm(&describe(order.target()), "allow", yes)?;
    let allowed = |executed| match executed {
        Executed::Allowed(invite) => Some(invite),
        _ => None,
    };
    let invite = order.confirm(allowed).await?;
    if json {
        return output::json::print(&json!({ "allowed": invite.to_string() }));
    }
    output::print(&format!("the users of invite {invite} can join\n"))
}

/// Has `keyd` forget the network that it is pinned to.
///
/// # Errors
/// If `meshd` is in that network, or it was not confirmed.
pub async fn forget_network(socket: Option<&Path>, json: bool, yes: bool) -> Result<(), Failure> {
    let mut node = daemon::connect(socket).await?;
    let network = node.status().await?.network.map(|network| network.id);
    can_ask(yes)?;
    let order = Prepared::to_forget(socket_beside(node.socket())).await?;
    if let OrderTarget::Pinned { network: pinned, .. } = order.target()
        && network == Some(pinned.to_string())
    {
        return Err(Failure::new(
            Kind::Conflict,
            "this node is a member of the network that keyd would forget",
        )
        .with_hint("`i2planctl leave` leaves it"));
    }
    let consequences =
        "its members are not told, and keep this node among them; keyd then signs for the next network";
    confirm(&format!("{}\n{consequences}", describe(order.target())), "forget", yes)?;
    let forgotten = |executed| match executed {
        Executed::Forgotten(network) => Some(network),
        _ => None,
    };
    let network = order.confirm(forgotten).await?;
    if json {
        return output::json::print(&json!({ "forgotten": network.to_string() }));
    }
    output::print(&format!("keyd has forgotten network {network}\n"))
}

#[cfg(test)]
mod tests {
    use i2plan_proto::identity::{NetworkId, NodeId};
    use i2plan_proto::invite::Uses;

    use super::*;

    #[test]
    fn a_revocation_says_when_the_member_called_itself_so() {
        let text = describe(&OrderTarget::Member {
            network: NetworkId([1; 32]),
            node: NodeId([2; 32]),
            name: Some(("web".parse().unwrap(), 1_800_000_000)),
            address: [10, 42, 0, 3].into(),
            below: 0,
        });
        assert!(text.contains("which called itself web on 2027-01-15T08:00:00Z, 10.42.0.3"), "{text}");
    }

    #[test]
    fn an_order_for_an_invite_says_what_it_lets_in() {
        let text = |uses| {
            let network = NetworkId([1; 32]);
            describe(&OrderTarget::NewInvite {
                network,
                invite: None,
                uses,
                addresses: 512,
                expires_at: 1_800_000_000,
            })
        };
        let limited = text(Uses::Limited(3.try_into().unwrap()));
        assert!(
            limited.contains("let 3 nodes join") && limited.contains("1536 addresses in all"),
            "{limited}"
        );
        let unlimited = text(Uses::Unlimited);
        assert!(
            unlimited.contains("any number of nodes") && unlimited.contains("without a limit"),
            "{unlimited}"
        );
    }
}
