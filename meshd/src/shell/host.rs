//! Has `tund` say whether the host has room for a network, before this node founds or joins it.

use std::sync::Arc;

use i2plan_config::Config;
use i2plan_ipc::ApiError;
use i2plan_ipc::api::meshd;
use i2plan_ipc::api::tund::{Reply, Request, TundApi};
use i2plan_ipc::client::{ClientError, Link};
use i2plan_proto::address::Ipv4Subnet;
use i2plan_proto::identity::NetworkId;
use i2plan_proto::invite::Invite;
use tokio::sync::{mpsc, oneshot};
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

/// A request, and the subnet that the host has room for.
pub(super) struct Checked {
    pub(super) request: meshd::Request,
    pub(super) answer: oneshot::Sender<Result<meshd::Reply, ApiError>>,
    pub(super) subnet: Result<Ipv4Subnet, ApiError>,
}

/// What is to be known before a request is carried out by a node that is in the network with this subnet, or in none.
///
/// # Errors
/// If the configuration does not accept the network.
pub(super) fn question(
    request: &meshd::Request,
    config: &Config,
    member_of: Option<Ipv4Subnet>,
) -> Result<Option<Question>, ApiError> {
    match request {
        meshd::Request::CheckNetwork { network, subnet } => {
            let network = network
                .parse()
                .map_err(|error| ApiError::invalid(format!("{network:?} is no network id: {error}")))?;
            accepted(config, parse(subnet)?, network).map(Some)
        }
        // Whatever is wrong with it otherwise is said by who carries it out.
        meshd::Request::Join { invite } if member_of.is_none() => match invite.expose().parse::<Invite>() {
            Ok(invite) => accepted(config, invite.subnet, invite.network).map(Some),
            Err(_) => Ok(None),
        },
        meshd::Request::CreateInvite { subnet: wanted, .. } => match (member_of, wanted) {
            (Some(subnet), Some(wanted)) => Err(ApiError::conflict(format!(
                "this node is in a network already, which has the subnet {subnet}: {wanted} cannot be chosen"
            ))),
            (Some(_), None) => Ok(None),
            (None, Some(wanted)) => Ok(Some(Question::IsFree(parse(wanted)?, None))),
            (None, None) => Ok(Some(match config.configured_subnet() {
                Some(configured) => Question::IsFree(configured, None),
                None => Question::Find(config.tunnel_subnet),
            })),
        },
        _ => Ok(None),
    }
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

/// Answers a question; again while `tund` cannot be reached, as it is for a moment when it restarts.
pub(super) async fn ask(
    tund: Arc<Link<TundApi>>,
    question: Question,
    request: meshd::Request,
    answer: oneshot::Sender<Result<meshd::Reply, ApiError>>,
    checked: mpsc::Sender<Checked>,
) {
    let mut attempt = 1;
    let subnet = loop {
        let asked = match question {
            Question::IsFree(subnet, network) => Request::CheckNetwork(subnet, network),
            Question::Find(subnet) => Request::FindSubnet(subnet),
        };
        match (tund.call(asked).await, question) {
            (Ok(Reply::Done), Question::IsFree(subnet, _)) | (Ok(Reply::Subnet(subnet)), _) => {
                break Ok(subnet);
            }
            (Ok(_), _) => break Err(ApiError::internal("tund gave an answer to another question")),
            (Err(ClientError::Api(error)), _) => break Err(error),
            (Err(error), _) if attempt >= DAEMON_ATTEMPTS => {
                let error = error.into_api();
                let message = format!("whether the host uses addresses of the network is not known: {error}");
                break Err(ApiError { message, ..error });
            }
            (Err(error), _) => {
                debug!(%error, "tund is not there; asking again");
                attempt += 1;
                sleep(DAEMON_RETRY).await;
            }
        }
    };
    let _ = checked.send(Checked { request, answer, subnet }).await;
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

    fn check(subnet: &str) -> meshd::Request {
        let network = NetworkId([1; 32]).to_string();
        meshd::Request::CheckNetwork { network, subnet: subnet.to_owned() }
    }

    fn create(subnet: Option<&str>) -> meshd::Request {
        let subnet = subnet.map(str::to_owned);
        meshd::Request::CreateInvite { expires_in: 1, max_uses: Some(1), addresses: None, subnet }
    }

    #[test]
    fn a_subnet_that_is_not_accepted_names_the_key() {
        let config = config("mesh.accept_subnets = \"10.0.0.0/8\"");
        let asked = |subnet| question(&check(subnet), &config, None);
        let free = Question::IsFree("10.9.0.0/16".parse().unwrap(), Some(NetworkId([1; 32])));
        assert_eq!(asked("10.9.0.0/16"), Ok(Some(free)));
        let error = asked("192.168.1.0/29").unwrap_err();
        assert_eq!(error.kind, ErrorKind::Denied);
        assert!(error.message.contains("192.168.1.0/29") && error.message.contains("mesh.accept_subnets"));
        assert_eq!(asked("8.8.8.0/24").unwrap_err().kind, ErrorKind::Invalid);
    }

    #[test]
    fn a_founder_searches_only_where_no_subnet_was_chosen() {
        let (default, other) = (Ipv4Subnet::DEFAULT, "10.9.0.0/16".parse().unwrap());
        let (unset, set) = (config(""), config("mesh.tunnel_subnet = \"10.42.0.0/16\""));
        assert_eq!(question(&create(None), &unset, None), Ok(Some(Question::Find(default))));
        assert_eq!(question(&create(None), &set, None), Ok(Some(Question::IsFree(default, None))));
        assert_eq!(
            question(&create(Some("10.9.0.0/16")), &set, None),
            Ok(Some(Question::IsFree(other, None)))
        );
        assert_eq!(question(&create(None), &unset, Some(other)), Ok(None));
        let error = question(&create(Some("10.9.0.0/16")), &unset, Some(default)).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Conflict);
    }
}
