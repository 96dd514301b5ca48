#![allow(missing_docs, clippy::unwrap_used)]
use i2plan_ipc::access::{Access, Who};
use i2plan_ipc::api::meshd::*;
use i2plan_ipc::api::tund::Drops;
use i2plan_ipc::server::*;
use i2plan_ipc::version::Version;
use i2plan_ipc::{ApiError, Role};
use std::os::fd::OwnedFd;
struct F;
fn net() -> Network {
    Network {
        id: "hgqv3c2nqf5n3j5ac3xv2uuqzq7yq3z4k3m5b2v6d7f8g9h2j3k4".into(),
        founder: true,
        subnet: "10.42.0.0/16".into(),
        ipv4: "10.42.7.9".parse().unwrap(),
        ipv6: "fd6d:b0a2:91f3:77aa:1c2d:3e4f:5a6b:7c8d".parse().unwrap(),
        members: 4,
    }
}
impl Service for F {
    type Api = MeshdApi;
    async fn call(&self, _: Role, r: Request, _: Vec<OwnedFd>) -> Result<Answer<Reply>, ApiError> {
        Ok(match r {
            Request::Status => Reply::Status(Box::new(Status {
                name: "alpha".into(),
                node_id: Some("mfzwizltoq3dknjvgu2tkmzqgezdgnbvgy3tqojqmfzwizltoq3d".into()),
                uptime: 93784,
                network: Some(net()),
                sam: Sam {
                    address: "127.0.0.1:7656".parse().unwrap(),
                    version: Some("3.2".into()),
                    control: Session {
                        state: SessionState::Up,
                        destination: Some(
                            "ukeu3k5oycgaauneqgtnvselmt4yemvoilkln7jpvamvfx7dnkdq.b32.i2p".into(),
                        ),
                        error: None,
                    },
                    data: Session {
                        state: SessionState::Down,
                        destination: None,
                        error: Some(
                            "the router refused the session: I2P_ERROR MESSAGE=\"no tunnels\"".into(),
                        ),
                    },
                },
                tunnel: Tunnel {
                    interface: Some("i2plan0".into()),
                    mtu: 1280,
                    public_key: Some("xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=".into()),
                    drops: Some(Drops { no_route: 12, ..Drops::default() }),
                },
                daemons: ["keyd", "meshd", "tund"]
                    .map(|n| Daemon {
                        name: n.into(),
                        pid: Some(1234),
                        version: Some(Version::current()),
                        error: None,
                    })
                    .into(),
            })),
            Request::Peers => Reply::Peers(
                (0..4)
                    .map(|i| Peer {
                        node_id: format!("{i}"),
                        name: ["laptop", "büro-server-in-the-basement-2", "nas", "東京"][i].into(),
                        ipv4: "10.42.131.209".parse().unwrap(),
                        ipv6: "fd6d:b0a2:91f3:77aa:1c2d:3e4f:5a6b:7c8d".parse().unwrap(),
                        public_key: "k".into(),
                        endpoint: "e".into(),
                        depth: 1,
                        last_heard: Some(3),
                        last_handshake: [Some(40), Some(4000), None, Some(2)][i],
                        tx_packets: 1,
                        tx_bytes: 123_456_789 * i as u64,
                        rx_packets: 1,
                        rx_bytes: 4000,
                        queue_drops: i as u64,
                        rx_drops: 0,
                    })
                    .collect(),
            ),
            Request::CreateInvite { .. } => {
                return Err(ApiError::unavailable("the I2P router does not answer").with_hint("start it"));
            }
            Request::Join { .. } => {
                tokio::time::sleep(std::time::Duration::from_secs(5)).await;
                Reply::Joined(net())
            }
        }
        .into())
    }
}
fn main() {
    let i = i2plan_proto::invite::Invite {
        network: i2plan_proto::identity::NetworkId([1; 32]),
        inviter: i2plan_proto::identity::NodeId([2; 32]),
        control: i2plan_proto::destination::DestinationHash([3; 32]),
        secret: i2plan_proto::invite::InviteSecret([4; 32]),
        expires_at: 4_000_000_000,
    };
    std::fs::write("/tmp/fake-code", i.to_code().as_str()).unwrap();
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        let _ = std::fs::remove_file("/tmp/fake.sock");
        let l = tokio::net::UnixListener::bind("/tmp/fake.sock").unwrap();
        serve(l, std::sync::Arc::new(F), Access::new([(Role::Client, Who::Anyone)]), Limits::default()).await;
    });
}
