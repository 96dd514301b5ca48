//! Has `tund` say whether the host has room for a network, before this node founds or joins it.

use i2plan_config::Config;
use i2plan_ipc::ApiError;
use i2plan_ipc::api::tund::{CheckNetwork, FindSubnet, TundApi};
use i2plan_ipc::client::{ClientError, DaemonLink};
use i2plan_proto::address::Ipv4Subnet;
use i2plan_proto::identity::NetworkId;
use i2plan_proto::invite::Invite;
use i2plan_proto::membership::NetworkName;
use tokio::time::sleep;
use tracing::debug;

use super::daemon::{DAEMON_ATTEMPTS, DAEMON_RETRY};

/// What is to be known of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Question {
    /// Whether it uses no address of a network.
    IsFree(Ipv4Subnet, Option<NetworkId>),
    /// A subnet of which it uses no address: this one, if that is so.
    Find(Ipv4Subnet),
}

/// What is to be known of a network that this node could join.
///
/// # Errors
/// If the configuration does not accept it.
pub(super) fn network_question(network: &str, subnet: &str, config: &Config) -> Result<Question, ApiError> {
    let network = network
        .parse()
        .map_err(|error| ApiError::invalid(format!("{network:?} is no network id: {error}")))?;
    accepted(config, parse(subnet)?, network)
}

/// What is to be known before a node joins by an invite that is in the network with the subnet `member_of`, or in none.
///
/// # Errors
/// If the configuration does not accept the invite's network.
pub(super) fn join_question(
    invite: &str,
    config: &Config,
    member_of: Option<Ipv4Subnet>,
) -> Result<Option<Question>, ApiError> {
    // Whatever is wrong with it otherwise is said by who carries it out.
    match invite.parse::<Invite>() {
        Ok(invite) if member_of.is_none() => accepted(config, invite.subnet, invite.network).map(Some),
        _ => Ok(None),
    }
}

/// What is to be known before such a node makes an invite, which may found a network with the subnet that is `wanted`.
///
/// # Errors
/// If that cannot be chosen.
pub(super) fn invite_question(
    wanted: Option<&str>,
    config: &Config,
    member_of: Option<Ipv4Subnet>,
) -> Result<Option<Question>, ApiError> {
    match (member_of, wanted) {
        (Some(subnet), Some(wanted)) => Err(ApiError::conflict(format!(
            "this node is in a network already, which has the subnet {subnet}: {wanted} cannot be chosen"
        ))),
        (Some(_), None) => Ok(None),
        (None, Some(wanted)) => Ok(Some(Question::IsFree(parse(wanted)?, None))),
        (None, None) => Ok(Some(match config.configured_subnet() {
            Some(configured) => Question::IsFree(configured, None),
            None => Question::Find(config.tunnel_subnet),
        })),
    }
}

/// The name of a network that is to be founded, if one is chosen.
///
/// # Errors
/// If it cannot be a name, or this node is in a network already.
pub(super) fn network_name(name: Option<&str>, is_member: bool) -> Result<Option<NetworkName>, ApiError> {
    let Some(name) = name else { return Ok(None) };
    if is_member {
        return Err(ApiError::conflict("this node is in a network already, which has a name")
            .with_hint("only the invite that founds a network names it"));
    }
    let name = name.parse().map_err(|error| ApiError::invalid(format!("{name:?}: {error}")))?;
    Ok(Some(name))
}

fn parse(subnet: &str) -> Result<Ipv4Subnet, ApiError> {
    subnet.parse().map_err(|error| ApiError::invalid(format!("{subnet:?} is no usable subnet: {error}")))
}

fn accepted(config: &Config, subnet: Ipv4Subnet, network: NetworkId) -> Result<Question, ApiError> {
    if config.accept_subnets.accept(subnet) {
        return Ok(Question::IsFree(subnet, Some(network)));
    }
    Err(ApiError::denied(format!(
        "the network's subnet {subnet} is not one that this node may join: mesh.accept_subnets is {}",
        config.accept_subnets
    ))
    .with_hint("ask for a network with another subnet, or have the administrator change mesh.accept_subnets"))
}

/// Answers a question with a subnet that the host has room for; asks again while `tund` cannot be reached, as it is for a
/// moment when it restarts.
pub(super) async fn ask(tund: &DaemonLink<TundApi>, question: Question) -> Result<Ipv4Subnet, ApiError> {
    let mut attempt = 1;
    loop {
        let subnet = match question {
            Question::IsFree(subnet, network) => {
                tund.call(CheckNetwork(subnet, network)).await.map(|()| subnet)
            }
            Question::Find(subnet) => tund.call(FindSubnet(subnet)).await,
        };
        match subnet {
            Ok(subnet) => return Ok(subnet),
            Err(ClientError::Api(error)) => return Err(error),
            Err(error) if attempt >= DAEMON_ATTEMPTS => {
                let error = error.into_api();
                let message = format!("whether the host uses addresses of the network is not known: {error}");
                return Err(ApiError { message, ..error });
            }
            Err(error) => {
                debug!(%error, "tund is not there; asking again");
                attempt += 1;
                sleep(DAEMON_RETRY).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use i2plan_ipc::ErrorKind;
    use std::path::Path;

    use super::*;

    fn config(text: &str) -> Config {
        let name = |variable: &str| (variable == "I2PLAN_NODE_NAME").then(|| "host".to_owned());
        Config::from_parts(Path::new("c.toml"), text, name).unwrap()
    }

    #[test]
    fn a_subnet_that_is_not_accepted_names_the_key() {
        let config = config("mesh.accept_subnets = \"10.0.0.0/8\"");
        let network = NetworkId([1; 32]).to_string();
        let asked = |subnet| network_question(&network, subnet, &config);
        let free = Question::IsFree("10.9.0.0/16".parse().unwrap(), Some(NetworkId([1; 32])));
        assert_eq!(asked("10.9.0.0/16"), Ok(free));
        let error = asked("192.168.1.0/29").unwrap_err();
        assert_eq!(error.kind, ErrorKind::Denied);
        assert!(error.message.contains("192.168.1.0/29") && error.message.contains("mesh.accept_subnets"));
        assert_eq!(asked("8.8.8.0/24").unwrap_err().kind, ErrorKind::Invalid);
    }

    #[test]
    fn a_name_is_for_a_network_that_is_founded() {
        assert_eq!(network_name(None, true), Ok(None));
        assert_eq!(network_name(Some("office"), false).unwrap().unwrap().as_str(), "office");
        assert_eq!(network_name(Some("office"), true).unwrap_err().kind, ErrorKind::Conflict);
        let error = network_name(Some("My Net"), false).unwrap_err();
        assert!(error.kind == ErrorKind::Invalid && error.message.contains("lower-case"), "{error}");
    }

    #[test]
    fn a_founder_searches_only_where_no_subnet_was_chosen() {
        let (default, other) = (Ipv4Subnet::DEFAULT, "10.9.0.0/16".parse().unwrap());
        let (unset, set) = (config(""), config("mesh.tunnel_subnet = \"10.42.0.0/16\""));
        assert_eq!(invite_question(None, &unset, None), Ok(Some(Question::Find(default))));
        assert_eq!(invite_question(None, &set, None), Ok(Some(Question::IsFree(default, None))));
        assert_eq!(invite_question(Some("10.9.0.0/16"), &set, None), Ok(Some(Question::IsFree(other, None))));
        assert_eq!(invite_question(None, &unset, Some(other)), Ok(None));
        let error = invite_question(Some("10.9.0.0/16"), &unset, Some(default)).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Conflict);
    }
}
