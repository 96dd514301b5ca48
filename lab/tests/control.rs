//! Following, configuring and embedding a node, over its control API.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::path::Path;
use std::time::{Duration, Instant};

use i2plan_ipc::ErrorKind;
use i2plan_ipc::api::meshd::{EventKind, JoinStep, SessionName, SessionState, Setting};
use i2plan_ipc::client::ClientError;
use i2plan_ipc::node::{EventStream, Node as Client, Notice};
use lab::Failure;
use lab::node::{Lab, Node};
use lab::process::{Spawn, signal};
use lab::testing::sandboxed;
use lab::traffic::reach;
use nix::sys::signal::Signal;
use tokio::time::timeout;

const LAB: &str = env!("CARGO_BIN_EXE_lab");

/// How long something may take to happen.
const TIMEOUT: Duration = Duration::from_secs(90);

fn failed(error: &ClientError) -> Failure {
    Failure::new(error.to_string())
}

async fn client(node: &Node) -> Result<Client, Failure> {
    Client::connect(&node.socket()).await.map_err(|error| failed(&error))
}

/// Somebody who follows a node, and remembers all of it.
struct Follower {
    stream: EventStream,
    seen: Vec<EventKind>,
}

impl Follower {
    /// Follows from now on.
    async fn of(node: &Node) -> Result<Self, Failure> {
        let mut follower = Self { stream: EventStream::new(&node.socket()), seen: Vec::new() };
        follower.until("the stream begins", |notice| matches!(notice, Notice::Resync)).await?;
        Ok(follower)
    }

    async fn until(&mut self, what: &str, wanted: impl Fn(&Notice) -> bool) -> Result<(), Failure> {
        let found = async {
            loop {
                let notice = self.stream.next().await;
                let found = wanted(&notice);
                if let Notice::Event(event) = notice
                    && !matches!(event.kind, EventKind::Log { .. })
                {
                    println!("event {}: {:?}", event.number, event.kind);
                    self.seen.push(event.kind);
                }
                if found {
                    return;
                }
            }
        };
        timeout(TIMEOUT, found)
            .await
            .map_err(|_| Failure::new(format!("it was not told that {what}; seen: {:?}", self.seen)))
    }

    async fn until_event(&mut self, what: &str, wanted: impl Fn(&EventKind) -> bool) -> Result<(), Failure> {
        if self.seen.iter().any(&wanted) {
            return Ok(());
        }
        self.until(what, |notice| matches!(notice, Notice::Event(event) if wanted(&event.kind))).await
    }

    /// How often it has seen this.
    fn count(&self, wanted: impl Fn(&EventKind) -> bool) -> usize {
        self.seen.iter().filter(|what| wanted(what)).count()
    }
}

/// The example of `ipc`.
const EXAMPLE: &str = env!("CARGO_BIN_EXE_lab-follow");

#[test]
fn who_follows_a_node_is_told_what_happens_to_it() {
    sandboxed(LAB, "who_follows_a_node_is_told_what_happens_to_it", async || {
        let lab = Lab::with_nodes(2).await?;
        let [first, second] = &lab.nodes[..] else { panic!("two nodes") };
        use JoinStep::{Addressed, Admitted, Asking, Connected, LookingUp};
        let (mut here, mut there) = (Follower::of(first).await?, Follower::of(second).await?);
        // A program that embeds i2plan sees the same. A join is nine events, and problems that come and go are more.
        let arguments = [second.socket().into_os_string(), "9".into()];
        let program = Spawn::new(Path::new(EXAMPLE), arguments).same_group();
        let watching = tokio::spawn(program.output(""));

        second.join_by(first).await?;
        reach(second, first).await?;
        there
            .until_event("the first tunnel is up", |what| matches!(what, EventKind::TunnelUp { .. }))
            .await?;
        there
            .until_event("it is connected", |what| {
                matches!(what, EventKind::JoinProgress { step: Connected })
            })
            .await?;
        let steps: Vec<JoinStep> = there
            .seen
            .iter()
            .filter_map(|what| match what {
                EventKind::JoinProgress { step } => Some(*step),
                _ => None,
            })
            .collect();
        assert_eq!(steps, [LookingUp, Asking, Admitted, Addressed, Connected]);
        assert_eq!(there.count(|what| matches!(what, EventKind::NetworkJoined { .. })), 1);
        assert_eq!(there.count(|what| matches!(what, EventKind::InterfaceUp { .. })), 1);
        here.until_event(
            "the joiner is a member",
            |what| matches!(what, EventKind::MemberAdded { name, .. } if *name == second.name),
        )
        .await?;
        for wanted in ["network_joined", "invite_created", "invite_used", "member_added"] {
            let is = |what: &EventKind| serde_json::to_value(what).unwrap()["event"] == wanted;
            assert_eq!(here.count(is), 1, "{wanted}: {:?}", here.seen);
        }
        let output = timeout(TIMEOUT, watching).await.expect("the example ends").unwrap()?;
        println!("{}", output.stdout);
        assert!(output.status.success(), "{}", output.stderr);
        assert!(output.stdout.contains("no network"), "{}", output.stdout);
        assert!(output.stdout.contains("JoinProgress { step: Admitted }"), "{}", output.stdout);

        // Daemons that go and come, meshd itself among them.
        signal(second.daemon_pid("keyd").await?, Signal::SIGKILL)?;
        for up in [false, true] {
            there
                .until("keyd is away, and back", |notice| match notice {
                    Notice::Event(event) => match &event.kind {
                        EventKind::DaemonDown { daemon, .. } => !up && daemon == "keyd",
                        EventKind::DaemonUp { daemon } => up && daemon == "keyd",
                        _ => false,
                    },
                    _ => false,
                })
                .await?;
        }
        signal(second.daemon_pid("meshd").await?, Signal::SIGKILL)?;
        there.until("the node is away", |notice| matches!(notice, Notice::Lost(_))).await?;
        there.until("it is back", |notice| matches!(notice, Notice::Resync)).await?;
        there
            .until_event("its session is up again", |what| {
                matches!(what, EventKind::Session { session: SessionName::Data, state: SessionState::Up, .. })
            })
            .await?;

        let tund = second.daemon_pid("tund").await?;
        second.ctl(&["--json", "leave", "--yes"], "").await?;
        there
            .until_event("it has left", |what| matches!(what, EventKind::NetworkLeft { revoked: false, .. }))
            .await?;
        here.until_event("the other has left", |what| matches!(what, EventKind::MemberRemoved { .. }))
            .await?;
        // tund gives up the interface by starting again, which is no failure.
        let again = async |node: &Node| Ok(node.daemon_pid("tund").await? != tund);
        second.until("tund has started again", TIMEOUT, again).await?;
        second.ctl(&["config", "set", "mesh.max_peers", "77"], "").await?;
        there
            .until_event("all before this was told", |what| matches!(what, EventKind::ConfigChanged { .. }))
            .await?;
        let is_failure =
            |what: &EventKind| matches!(what, EventKind::DaemonDown { daemon, .. } if daemon == "tund");
        assert_eq!(there.count(is_failure), 0, "{:?}", there.seen);
        lab.stop().await
    });
}

#[test]
fn many_who_wait_keep_nobody_from_being_answered() {
    sandboxed(LAB, "many_who_wait_keep_nobody_from_being_answered", async || {
        let lab = Lab::with_nodes(1).await?;
        let node = &lab.nodes[0];
        let mut waiting = Vec::new();
        for _ in 0..30 {
            let mut follower = Follower::of(node).await?;
            waiting.push(tokio::spawn(async move {
                follower
                    .until_event("a network is joined", |what| {
                        matches!(what, EventKind::NetworkJoined { .. })
                    })
                    .await
            }));
        }
        let mut asking = client(node).await?;
        let began = Instant::now();
        for _ in 0..20 {
            asking.status().await.map_err(|error| failed(&error))?;
        }
        println!("20 answers beside 30 that wait: {:?}", began.elapsed());
        let invite = asking.create_invite(Duration::from_secs(60), Some(1), None, None, None).await;
        assert!(invite.is_ok(), "{invite:?}");
        for follower in waiting {
            follower.await.unwrap()?;
        }
        lab.stop().await
    });
}

fn setting(settings: &[Setting], key: &str) -> Setting {
    settings.iter().find(|setting| setting.key == key).unwrap().clone()
}

#[test]
fn the_configuration_changes_while_the_node_runs() {
    sandboxed(LAB, "the_configuration_changes_while_the_node_runs", async || {
        let lab = Lab::with_nodes(1).await?;
        let node = &lab.nodes[0];
        let mut follower = Follower::of(node).await?;
        let mut client = client(node).await?;
        let before = std::fs::read_to_string(node.config())?;
        let config = client.config().await.map_err(|error| failed(&error))?;
        assert_eq!(setting(&config, "node.name").value.as_deref(), Some(node.name.as_str()));

        // As an editor saves: a new file in the place of the old one. In its sandbox meshd reads that one.
        let replace = |text: &str| {
            let new = node.config().with_extension("new");
            std::fs::write(&new, text)?;
            std::fs::rename(&new, node.config())
        };
        let name = format!("name = \"{}\"", node.name);
        let renamed =
            before.replace(&name, "name = \"renamed\"").replace("tunnel_length = 1", "tunnel_length = 2");
        replace(&renamed)?;
        signal(node.daemon_pid("meshd").await?, Signal::SIGHUP)?;
        follower
            .until_event("the name has changed", |what| {
                matches!(what, EventKind::ConfigChanged { key, value } if key == "node.name" && value == "renamed")
            })
            .await?;
        let config = client.config().await.map_err(|error| failed(&error))?;
        let length = setting(&config, "i2p.tunnel_length");
        assert_eq!((length.value.as_deref(), length.pending.as_deref()), (Some("1"), Some("2")));
        assert_eq!(client.status().await.map_err(|error| failed(&error))?.name, "renamed");

        // What is wrong changes nothing, and is told with its place.
        replace("[node]\nname = \"other\"\n\n[mesh]\nmax_pears = 7\n")?;
        let Err(ClientError::Api(error)) = client.reload().await else { panic!("it was taken") };
        assert_eq!(error.kind, ErrorKind::Invalid);
        assert!(
            error
                .message
                .ends_with("config.toml:5: unknown key mesh.max_pears; did you mean mesh.max_peers?"),
            "{error}"
        );
        assert_eq!(client.config().await.map_err(|error| failed(&error))?, config);

        let changes = client.set_config("mesh.heartbeat_interval".into(), "5s".into()).await;
        assert_eq!(changes.map_err(|error| failed(&error))?.len(), 1);
        let Err(ClientError::Api(error)) = client.set_config("i2p.tunnel_length".into(), "2".into()).await
        else {
            panic!("it was taken")
        };
        assert_eq!(error.kind, ErrorKind::Conflict);
        assert!(error.hint().is_some_and(|hint| hint.contains("etc/config.toml")));

        replace(&before)?;
        let changes = client.reload().await.map_err(|error| failed(&error))?;
        assert_eq!(changes.iter().map(|change| change.key.as_str()).collect::<Vec<_>>(), ["node.name"]);
        let heartbeat =
            setting(&client.config().await.map_err(|error| failed(&error))?, "mesh.heartbeat_interval");
        assert_eq!(heartbeat.value.as_deref(), Some("5s"), "what is set stays until meshd ends");
        lab.stop().await
    });
}
