//! Attacks on the daemons' sockets, in each daemon's place and as a user of the host: the intruder's processes run
//! under that user and speak the real protocol with a node that runs.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use i2plan_ipc::access::{Access, Who};
use i2plan_ipc::api::keyd::CreateInvite;
use i2plan_ipc::api::meshd::{MeshdApi, Reply, Request, ToOrder};
use i2plan_ipc::api::order::Order;
use i2plan_ipc::client::ClientError;
use i2plan_ipc::server::{self, ConnectionLimits, Service, serve};
use i2plan_ipc::{ApiError, Client, Role, paths};
use i2plan_proto::address::Ipv4Subnet;
use i2plan_proto::invite::Uses;
use lab::Failure;
use lab::attack::Attempt;
use lab::attack::siege::{self, Answer, AttackStep};
use lab::node::{Lab, Node, descriptors, resident};
use lab::process::{Child, Spawn};
use lab::sandbox::bin;
use lab::testing::sandboxed;
use serde_json::Value;
use tokio::net::UnixListener;

const LAB: &str = env!("CARGO_BIN_EXE_lab");

/// A user of the host without any right on the node.
const STRANGER: u32 = 29_999;

/// Memory by which a daemon may have grown after a siege, bytes: what its allocator keeps of what all connections
/// together may hold at once.
const MAX_GROWTH: u64 = 16 * 1024 * 1024;

/// How long a daemon may take to let go of what it was passed. Frames and hellos have their own deadlines of up to
/// ten seconds.
const RELEASE: Duration = Duration::from_secs(30);

const DAEMONS: [&str; 4] = ["keyd", "connector", "meshd", "tund"];

/// A node that has founded a network, so that all of its daemons have their secrets.
async fn start() -> Result<Lab, Failure> {
    let mut lab = Lab::start().await?;
    lab.add_node().await?.ready().await?;
    let node = &lab.nodes[0];
    node.invite(&[]).await?;
    node.until("its interface is up", Duration::from_secs(30), async |node| {
        Ok(node.status().await?.tunnel.interface.is_some())
    })
    .await?;
    Ok(lab)
}

fn attack(node: &Node, (uid, gid): (u32, u32), what: &[&str]) -> Spawn {
    let run = node.run().into_os_string().into_string().unwrap();
    let args = ["__attack-ipc", &uid.to_string(), &gid.to_string(), &run].map(ToOwned::to_owned);
    let args = args.into_iter().chain(what.iter().map(|word| (*word).to_owned()));
    Spawn::this_program(args.map(Into::into)).namespace(Some(&node.name))
}

async fn attempts(node: &Node, user: (u32, u32), what: &[&str]) -> Result<Vec<Attempt>, Failure> {
    let output = attack(node, user, what).output("").await?;
    if !output.status.success() {
        return Err(Failure::new(output.stderr));
    }
    Ok(serde_json::from_str(&output.stdout).unwrap())
}

async fn pids(node: &Node) -> Result<Vec<u32>, Failure> {
    let mut pids = Vec::new();
    for daemon in DAEMONS {
        pids.push(node.daemon_pid(daemon).await?);
    }
    Ok(pids)
}

#[test]
fn each_user_may_open_its_own_sockets_only() {
    sandboxed(LAB, "each_user_may_open_its_own_sockets_only", async || {
        let lab = start().await?;
        let node = &lab.nodes[0];
        let [keyd, meshd, tund] = node.uids;
        let connector = node.connector_uid;
        let people: [(&str, (u32, u32), &[&str]); 7] = [
            ("root", (0, 0), &["keyd-control as client", "meshd as client"]),
            ("keyd", (keyd, keyd), &[]),
            ("meshd", (meshd, meshd), &["keyd-meshd as meshd", "tund as meshd"]),
            ("the connector", (connector, connector), &["keyd-connector as connector"]),
            // It may connect, but not ask what meshd asks.
            ("tund", (tund, tund), &[]),
            ("the group", (STRANGER, node.group), &["keyd-control as client", "meshd as client"]),
            ("a stranger", (STRANGER, STRANGER), &[]),
        ];
        for (who, user, granted) in people {
            let attempts = attempts(node, user, &["knock"]).await?;
            assert_eq!(attempts.len(), 30);
            for Attempt { what, refusal, .. } in attempts {
                println!("{who}: {what}: {}", refusal.as_deref().unwrap_or("granted"));
                assert_eq!(refusal.is_none(), granted.contains(&&*what), "{who}: {what}: {refusal:?}");
            }
        }
        lab.stop().await
    });
}

#[test]
fn a_compromised_daemon_has_only_its_own_rights() {
    sandboxed(LAB, "a_compromised_daemon_has_only_its_own_rights", async || {
        let lab = start().await?;
        let node = &lab.nodes[0];
        let before = pids(node).await?;
        let [_, meshd, tund] = node.uids;
        let network = node.status().await?.network.unwrap().id;
        let asks: [(u32, &[&str]); 4] = [
            // First, while the node is in its network for sure.
            (meshd, &["ask-tund-as-meshd", &network]),
            (meshd, &["ask-as-meshd"]),
            (tund, &["ask-as-tund"]),
            (node.connector_uid, &["ask-as-connector"]),
        ];
        for (uid, what) in asks {
            for attempt in attempts(node, (uid, uid), what).await? {
                println!("{}: {}", attempt.what, attempt.refusal.as_deref().unwrap_or("granted"));
                assert!(attempt.is_refused(), "{attempt:?}");
            }
        }
        assert_eq!(pids(node).await?, before);
        // keyd still does what it is there for.
        node.invite(&[]).await?;
        lab.stop().await
    });
}

#[test]
fn old_chains_and_ends_take_keyd_to_no_other_network() {
    sandboxed(LAB, "old_chains_and_ends_take_keyd_to_no_other_network", async || {
        let mut lab = Lab::start().await?;
        lab.add_node().await?.ready().await?;
        let node = &lab.nodes[0];
        let meshd = node.uids[1];
        for attempt in attempts(node, (meshd, meshd), &["replay-as-meshd"]).await? {
            println!("{}: {}", attempt.what, attempt.refusal.as_deref().unwrap_or("granted"));
            assert!(attempt.is_refused(), "{attempt:?}");
        }
        lab.stop().await
    });
}

/// A `meshd` that was broken into, towards `i2planctl`: answers as the node's own does, and proposes another order.
struct LyingMeshd {
    meshd: PathBuf,
    order: Mutex<Option<Order>>,
}

impl Service for LyingMeshd {
    type Api = MeshdApi;

    async fn call(
        &self,
        _: Role,
        request: Request,
        _: Vec<OwnedFd>,
    ) -> Result<server::Answer<Reply>, ApiError> {
        let meshd = Client::<MeshdApi>::connect(&self.meshd, Role::Client).await;
        let reply = meshd.map_err(ClientError::into_api)?.call(request).await;
        let order = self.order.lock().unwrap().clone();
        let reply = match (reply.map_err(ClientError::into_api)?, order) {
            (Reply::ToOrder(proposed), Some(order)) => {
                Reply::ToOrder(Box::new(ToOrder { order, ..*proposed }))
            }
            (reply, _) => reply,
        };
        Ok(reply.into())
    }
}

#[test]
fn an_order_that_meshd_puts_in_the_place_of_another_is_not_confirmed() {
    sandboxed(LAB, "an_order_that_meshd_puts_in_the_place_of_another_is_not_confirmed", async || {
        let lab = start().await?;
        let node = &lab.nodes[0];
        let (before, directory) = (node.network().await?, PathBuf::from(node.path("liar")));
        std::fs::create_dir(&directory)?;
        let (socket, keyd) = (directory.join("meshd.sock"), paths::KEYD_CONTROL_SOCKET);
        std::os::unix::fs::symlink(node.run().join(keyd), directory.join(keyd))?;
        let liar = Arc::new(LyingMeshd { meshd: node.socket(), order: Mutex::new(None) });
        let access = Access::new([(Role::Client, Who::AnyoneBut(Vec::new()))]);
        tokio::spawn(serve(
            UnixListener::bind(&socket)?,
            Arc::clone(&liar),
            access,
            ConnectionLimits::default(),
        ));
        let ctl = async |args: &[&str]| {
            let socket = [OsString::from("--socket"), socket.clone().into_os_string()];
            let args = socket.into_iter().chain(args.iter().map(OsString::from));
            Spawn::new(&bin().join("i2planctl"), args).namespace(Some(&node.name)).output("").await
        };

        let unlimited = Order::CreateInvite(CreateInvite {
            network: before.id.parse().unwrap(),
            name: before.name.parse().unwrap(),
            subnet: Ipv4Subnet::DEFAULT,
            expires_at: 0,
            uses: Uses::Unlimited,
            addresses: 1,
        });
        let make = async || -> Result<String, Failure> {
            let made = node.ctl_json::<Value>(&["invite", "create"], "").await?;
            let made = made.map_err(|error| node.failure(&error.message))?;
            Ok(made["id"].as_str().unwrap().to_owned())
        };
        let [mine, other] = [make().await?, make().await?];
        let revoke = ["invite", "revoke", &mine, "--with-members", "--yes"];
        let create = ["invite", "create", "--uses", "300", "--yes"];
        let another = Order::RevokeInvite(other.parse().unwrap());
        for (asked, lie) in [
            (&create[..], unlimited.clone()),
            (&create, Order::Forget),
            (&revoke, another.clone()),
            (&revoke, Order::Forget),
            (&["leave", "--yes"], Order::Forget),
            (&["leave", "--yes"], another),
        ] {
            *liar.order.lock().unwrap() = Some(lie);
            let output = ctl(asked).await?;
            println!("{}: {}", asked.join(" "), output.stderr.trim());
            assert!(!output.status.success(), "{}", output.stdout);
            assert!(output.stderr.contains("something else than was asked for"), "{}", output.stderr);
        }
        // What is asked for goes through, and the node is where it was.
        *liar.order.lock().unwrap() = None;
        for asked in [&create[..], &revoke] {
            let output = ctl(asked).await?;
            assert!(output.status.success(), "{}", output.stderr);
        }
        assert_eq!(node.network().await?.id, before.id);
        node.invite(&[]).await?;
        lab.stop().await
    });
}

/// Lays siege to a daemon while others ask it something. Each of them must be answered during each attack.
async fn besiege(
    node: &Node,
    daemon: &str,
    (user, role): ((u32, u32), &str),
    watchers: &[((u32, u32), &str)],
) -> Result<(), Failure> {
    let (pids_before, pid) = (pids(node).await?, node.daemon_pid(daemon).await?);
    let (memory, fds) = (resident(pid)?, descriptors(pid)?);
    let mut intruder = attack(node, user, &["siege", daemon, role]).wait_for_line()?;
    let mut watching: Vec<Child> = Vec::new();
    for (user, role) in watchers {
        watching.push(attack(node, *user, &["watch", daemon, role]).wait_for_line()?);
    }
    let mut attacks = 0;
    loop {
        let Ok(begin) = intruder.next_json::<AttackStep>().await else { break };
        let mut answers: Vec<Vec<u64>> = vec![Vec::new(); watching.len()];
        let end = loop {
            // All at once, so that what one is late with is not added to another's account.
            let (first, second) = watching.split_at_mut(1);
            tokio::select! {
                end = intruder.next_json::<AttackStep>() => break end?,
                answer = first[0].next_json::<Answer>() => answers[0].push(answered(node, &begin, answer?)?),
                answer = next_of(second) => answers[1].push(answered(node, &begin, answer?)?),
            }
        };
        // Who was not answered yet is, before the next attack is looked at.
        for (watcher, answers) in watching.iter_mut().zip(&mut answers) {
            if answers.is_empty() {
                answers.push(answered(node, &begin, watcher.next_json().await?)?);
            }
        }
        let slowest: Vec<_> = answers.iter().filter_map(|answers| answers.iter().max()).collect();
        let counts: Vec<_> = answers.iter().map(Vec::len).collect();
        let memory = resident(pid)? / 1024;
        println!(
            "{daemon}: {} ({}): others got {counts:?} answers, the slowest after {slowest:?} ms; {memory} KiB",
            begin.attack,
            end.count.unwrap_or(0),
        );
        attacks += 1;
    }
    assert_eq!(attacks, siege::COUNT, "the siege was broken off");
    drop(watching);
    node.until("the daemon has let go of everything", RELEASE, async |_| Ok(descriptors(pid)? <= fds + 8))
        .await?;
    let grown = resident(pid)?.saturating_sub(memory);
    println!("{daemon}: {} KiB before, {} KiB more after", memory / 1024, grown / 1024);
    assert!(grown <= MAX_GROWTH, "{daemon} has grown by {grown} bytes");
    assert_eq!(pids(node).await?, pids_before);
    Ok(())
}

async fn next_of(watchers: &mut [Child]) -> Result<Answer, Failure> {
    match watchers.first_mut() {
        Some(watcher) => watcher.next_json().await,
        None => std::future::pending().await,
    }
}

fn answered(node: &Node, during: &AttackStep, answer: Answer) -> Result<u64, Failure> {
    match answer.error {
        None => Ok(answer.milliseconds),
        Some(error) => Err(node.failure(&format!("no answer during {:?}: {error}", during.attack))),
    }
}

#[test]
fn a_user_who_lays_siege_to_meshd_keeps_nobody_from_it() {
    sandboxed(LAB, "a_user_who_lays_siege_to_meshd_keeps_nobody_from_it", async || {
        let lab = start().await?;
        let node = &lab.nodes[0];
        let group = node.group;
        // Root, and another user.
        let watchers = [((0, 0), "client"), ((STRANGER + 1, group), "client")];
        besiege(node, "meshd", ((STRANGER, group), "client"), &watchers).await?;
        lab.stop().await
    });
}

#[test]
fn requests_without_end_at_meshd_keep_neither_keyd_nor_tund_from_answering() {
    sandboxed(LAB, "requests_without_end_at_meshd_keep_neither_keyd_nor_tund_from_answering", async || {
        let lab = start().await?;
        let node = &lab.nodes[0];
        let [_, meshd, tund] = node.uids;
        besiege(node, "keyd", ((meshd, meshd), "meshd"), &[((tund, tund), "tund")]).await?;
        // Nobody else has a say at tund; root is told so.
        besiege(node, "tund", ((meshd, meshd), "meshd"), &[((0, 0), "meshd")]).await?;
        // meshd itself, which shares its user with the intruder, is well again too.
        node.ready().await?;
        node.invite(&[]).await?;
        lab.stop().await
    });
}
