//! Orders: `meshd` proposes, `keyd` verifies, the user confirms, `keyd` signs, `meshd` distributes.

use i2plan_ipc::administrator::{Prepared, socket_beside};
use i2plan_ipc::api::Call;
use i2plan_ipc::api::meshd::{Answered, MeshdApi};
use i2plan_ipc::api::order::OrderTarget;
use i2plan_ipc::member::{Candidate, look_up};
use i2plan_ipc::{ErrorKind, Node};
use i2plan_present::order::describe;
use i2plan_present::text::clean;

use super::confirm::{can_ask, confirm};
use crate::failure::Failure;

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
            ErrorKind::Denied,
            format!("keyd cannot verify that {:?} is {what}: nothing was done", clean(text)),
        )
        .with_hint("use the node id")
    })
}
