//! Where the bridge's host is.
//!
//! A name is resolved before the sandbox closes, which lets neither files be read nor name servers be asked. A process
//! that needs another answer ends, and its supervisor starts the next.

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::time::Duration;

use i2plan_ipc::bridge::BridgeAddress;
use tokio::time::Instant;
use tracing::{info, warn};

/// How old the answer of the name service is at least when it is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(30);

/// The addresses of the bridge.
#[derive(Debug)]
pub struct Addresses {
    /// In the order in which they are tried; none if the name service knows none.
    pub list: Vec<SocketAddr>,
    /// When the name service was asked, if it was.
    asked: Option<Instant>,
}

impl Addresses {
    /// Finds the addresses. Waits for the name service.
    #[must_use]
    pub fn resolve(bridge: &BridgeAddress) -> Self {
        if let Some(known) = bridge.host.known() {
            let list = known.into_iter().map(|ip| SocketAddr::new(ip, bridge.port)).collect();
            return Self { list, asked: None };
        }
        let host = bridge.host.to_string();
        let list: Vec<_> = match (host.as_str(), bridge.port).to_socket_addrs() {
            Ok(addresses) => addresses.collect(),
            Err(error) => {
                warn!(host, %error, "the host name of the SAM bridge cannot be resolved");
                Vec::new()
            }
        };
        if !list.is_empty() {
            info!(host, addresses = ?list, "resolved the host name of the SAM bridge");
        }
        Self { list, asked: Some(Instant::now()) }
    }

    /// Whether the name service may have another answer by now.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.asked.is_some_and(|asked| self.list.is_empty() || asked.elapsed() >= ASK_AGAIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_known_is_not_asked_for_and_never_stale() {
        for (bridge, expected) in [
            ("127.0.0.1:7656", &["127.0.0.1:7656"][..]),
            ("[::1]:7", &["[::1]:7"]),
            ("localhost:7", &["127.0.0.1:7", "[::1]:7"]),
        ] {
            let addresses = Addresses::resolve(&bridge.parse().unwrap());
            tokio::time::advance(ASK_AGAIN).await;
            let list: Vec<_> = addresses.list.iter().map(ToString::to_string).collect();
            assert_eq!(list, expected, "{bridge}");
            assert!(!addresses.is_stale());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_that_has_no_address_is_asked_for_again() {
        // RFC 6761, section 6.4: never in use.
        let addresses = Addresses::resolve(&"bridge.invalid:7656".parse().unwrap());
        assert!(addresses.list.is_empty() && addresses.is_stale());
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_good_for_a_while() {
        let list = vec![SocketAddr::from(([192, 0, 2, 1], 7656))];
        let addresses = Addresses { list, asked: Some(Instant::now()) };
        assert!(!addresses.is_stale());
        tokio::time::advance(ASK_AGAIN).await;
        assert!(addresses.is_stale());
    }
}
