//! Attacks on the daemons' sockets, from each daemon's seat and as a user of the host: the intruder's processes run
//! under that user and speak the real protocol with a node that runs.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::time::Duration;

use lab::Failure;
use lab::attack::Attempt;
use lab::attack::siege::{self, Answer, Step};
use lab::node::{Lab, Node, descriptors, resident};
use lab::process::{Child, Spawn};
use lab::testing::sandboxed;

const LAB: &str = env!("CARGO_BIN_EXE_lab");

/// A user of the host who has nothing to do with the node.
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
fn everybody_gets_in_at_the_own_door_only() {
    sandboxed(LAB, "everybody_gets_in_at_the_own_door_only", async || {
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
fn a_daemons_seat_gives_no_more_than_its_own_rights() {
    sandboxed(LAB, "a_daemons_seat_gives_no_more_than_its_own_rights", async || {
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
        let Ok(begin) = intruder.next_json::<Step>().await else { break };
        let mut answers: Vec<Vec<u64>> = vec![Vec::new(); watching.len()];
        let end = loop {
            // All at once, so that what one is late with is not added to another's account.
            let (first, second) = watching.split_at_mut(1);
            tokio::select! {
                end = intruder.next_json::<Step>() => break end?,
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

fn answered(node: &Node, during: &Step, answer: Answer) -> Result<u64, Failure> {
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
fn a_seat_taken_at_meshd_keeps_neither_keyd_nor_tund_from_answering() {
    sandboxed(LAB, "a_seat_taken_at_meshd_keeps_neither_keyd_nor_tund_from_answering", async || {
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
