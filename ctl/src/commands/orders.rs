//! Orders: `meshd` proposes, `keyd` verifies, the user confirms, `keyd` signs, `meshd` distributes.

use std::path::Path;

use i2plan_ipc::Node;
use i2plan_ipc::administrator::{Prepared, socket_beside};
use i2plan_ipc::api::Call;
use i2plan_ipc::api::meshd::{AllowInvite, Answered, MeshdApi};
use i2plan_ipc::api::order::{Executed, OrderTarget};
use i2plan_ipc::member::{Candidate, look_up};
use serde_json::json;

use super::confirm::{can_ask, confirm};
use crate::daemon;
use crate::failure::{Failure, Kind};
use crate::output;
use crate::present::order::describe;
use crate::present::text::clean;

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

/// The member that `keyd` will revoke or extend, if a user who wrote `text` may have meant it: its name is the one in its
/// signed record, and not what `meshd` says.
pub(super) fn meant(target: &OrderTarget, text: &str) -> Result<Candidate, Failure> {
    let member =
        Candidate::of_order(target).ok_or_else(|| Failure::internal("the order is not about a member"))?;
    let what = match member.addresses.first() {
        Some(address) => format!("node {}, {address}", member.node_id),
        None => format!("node {}", member.node_id),
    };
    look_up(vec![member], text).map_err(|_| {
        Failure::new(
            Kind::Denied,
            format!("keyd cannot verify that {:?} is {what}: nothing was done", clean(text)),
        )
        .with_hint("use the node id")
    })
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
