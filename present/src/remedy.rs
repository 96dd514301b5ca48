//! The commands that remedy an error.

use i2plan_ipc::Remedy;
use i2plan_ipc::remedy::{AskInviter, OrderWanted};

/// A remedy as a sentence, with the command of `i2planctl` that it takes.
#[must_use]
pub fn sentence(remedy: &Remedy) -> String {
    match remedy {
        Remedy::LeaveFirst => {
            "leave that first, with `i2planctl leave`: a node is a member of one network".to_owned()
        }
        Remedy::Leave => "`i2planctl leave` makes it leave its network".to_owned(),
        Remedy::ListMembers => "`i2planctl peers` shows the members".to_owned(),
        Remedy::ListBans => "`i2planctl ban list` shows whom it has".to_owned(),
        Remedy::RemoveBan => "lift one with `i2planctl ban remove`".to_owned(),
        Remedy::AddBan => "`i2planctl ban add` makes this node drop everything that comes from it".to_owned(),
        Remedy::ListInvites => "`i2planctl invite list` shows those that it has made".to_owned(),
        Remedy::AllowInvite { invite } => {
            format!("`i2planctl invite allow {invite}` lets the users of this invite join")
        }
        Remedy::AskInviter(AskInviter { inviter, node, addresses }) => {
            format!("ask {inviter}, who invited it, to run `i2planctl grant {node} --addresses {addresses}`")
        }
        Remedy::GiveFewerOrAsk(AskInviter { inviter, node, addresses }) => format!(
            "give each fewer with `--addresses`, or ask {inviter}, who invited this node, to run \
             `i2planctl grant {node} --addresses {addresses}`"
        ),
        Remedy::GiveFewer => {
            "give each fewer with `--addresses`, or revoke members that are gone: their addresses can \
                              be delegated again after 30 days"
                .to_owned()
        }
        Remedy::AskThere { inviter } => format!("run this command on {inviter}"),
        Remedy::GrantFewer => "`i2planctl status` shows what is left; try a smaller number".to_owned(),
        Remedy::RecoverKeys => "complete its memory from the mesh, with `i2planctl key recover`".to_owned(),
        Remedy::ForgetNetwork => "`i2planctl key forget-network` has keyd forget its network".to_owned(),
        Remedy::LeaveOrForget => {
            "`i2planctl leave`, or `i2planctl key forget-network` if meshd has lost it".to_owned()
        }
        Remedy::ListSettings => "`i2planctl config show` lists all keys".to_owned(),
        Remedy::Diagnose => {
            "`i2planctl doctor` shows what is wrong with this node and its I2P router".to_owned()
        }
        Remedy::GiveOrder { order } => format!("run `{}` on this node", command(order)),
        Remedy::Advice { text } => text.clone(),
    }
}

/// The command that gives an order.
fn command(order: &OrderWanted) -> String {
    match order {
        OrderWanted::Revoke { node } => format!("i2planctl revoke {node}"),
        OrderWanted::RevokeInvite { invite } => format!("i2planctl invite revoke {invite} --with-members"),
        OrderWanted::Leave => "i2planctl leave".to_owned(),
        OrderWanted::ForgetNetwork => "i2planctl key forget-network".to_owned(),
        OrderWanted::CreateInvite { uses, addresses } => {
            let uses = uses.map_or_else(|| "-1".to_owned(), |uses| uses.to_string());
            format!("i2planctl invite create --uses {uses} --addresses {addresses}")
        }
        OrderWanted::AllowInvite { invite } => format!("i2planctl invite allow {invite}"),
        OrderWanted::RecoverKeys => "i2planctl key recover".to_owned(),
        OrderWanted::Grant { node, addresses } => format!("i2planctl grant {node} --addresses {addresses}"),
    }
}

/// One of each remedy but advice, for tests of what they say.
#[must_use]
pub fn examples() -> Vec<Remedy> {
    let ask = || AskInviter { inviter: "a".to_owned(), node: "b".to_owned(), addresses: 16 };
    let (node, invite) = (|| "b".to_owned(), || "c".to_owned());
    let orders = [
        OrderWanted::Revoke { node: node() },
        OrderWanted::RevokeInvite { invite: invite() },
        OrderWanted::Leave,
        OrderWanted::ForgetNetwork,
        OrderWanted::CreateInvite { uses: None, addresses: 1 },
        OrderWanted::CreateInvite { uses: Some(2), addresses: 512 },
        OrderWanted::AllowInvite { invite: invite() },
        OrderWanted::RecoverKeys,
        OrderWanted::Grant { node: node(), addresses: 64 },
    ];
    let others = [
        Remedy::LeaveFirst,
        Remedy::Diagnose,
        Remedy::Leave,
        Remedy::ListMembers,
        Remedy::ListBans,
        Remedy::RemoveBan,
        Remedy::AddBan,
        Remedy::ListInvites,
        Remedy::AllowInvite { invite: invite() },
        Remedy::AskInviter(ask()),
        Remedy::GiveFewerOrAsk(ask()),
        Remedy::GiveFewer,
        Remedy::AskThere { inviter: node() },
        Remedy::GrantFewer,
        Remedy::RecoverKeys,
        Remedy::ForgetNetwork,
        Remedy::LeaveOrForget,
        Remedy::ListSettings,
    ];
    others.into_iter().chain(orders.map(|order| Remedy::GiveOrder { order })).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_here_a_remedy_is_a_command() {
        for remedy in examples() {
            let plain = remedy.to_string();
            assert!(!plain.contains("i2planctl") && !plain.contains('`'), "{plain}");
            assert_ne!(sentence(&remedy), plain);
        }
    }
}
