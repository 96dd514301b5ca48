//! A network that a node joins.

use i2plan_ipc::api::meshd::Network;
use i2plan_proto::invite::Invite;

use super::status::describe_addresses;
use super::text::clean;

/// The network that was joined, as lines of labels and values.
#[must_use]
pub fn describe(network: &Network) -> String {
    let Network { id, name, ipv4, ipv6, subnet, members, .. } = network;
    format!(
        "joined network {} ({})\nIPv4       {ipv4} in {}\nIPv6       {ipv6}\naddresses  {}\nmembers    {members}\n",
        clean(name),
        clean(id),
        clean(subnet),
        clean(&describe_addresses(network))
    )
}

/// What is joined with an invite, and what that means for the host.
#[must_use]
pub fn describe_invite(invite: &Invite) -> String {
    let Invite { network, name, subnet, inviter, .. } = invite;
    format!(
        "network    {name} ({network})\nsubnet     {subnet}: packets of this host for these addresses go to the members\n\
         inviter    {}",
        inviter.short()
    )
}

#[cfg(test)]
mod tests {
    use i2plan_proto::address::Ipv4Subnet;
    use i2plan_proto::destination::DestinationHash;
    use i2plan_proto::identity::{NetworkId, NodeId};
    use i2plan_proto::invite::InviteSecret;

    use super::*;

    #[test]
    fn what_is_to_be_joined_is_shown() {
        let (network, inviter) = (NetworkId([1; 32]), NodeId([2; 32]));
        let (control, secret) = (DestinationHash([3; 32]), InviteSecret([4; 32]));
        let (subnet, name) = (Ipv4Subnet::DEFAULT, "office".parse().unwrap());
        let shown =
            describe_invite(&Invite { network, name, subnet, inviter, control, secret, expires_at: 0 });
        assert!(
            shown.starts_with(&format!("network    office ({network})\nsubnet     10.42.0.0/16: ")),
            "{shown}"
        );
        assert!(shown.ends_with(&format!("\ninviter    {}", inviter.short())), "{shown}");
    }
}
