//! Interfaces with static peers and no mesh, as `i2planctl up` runs them from files of wg-quick(8), TOML and options.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::ffi::OsString;
use std::fs::Permissions;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use lab::Failure;
use lab::i2p::kind::Routers;
use lab::node::{Lab, Node};
use lab::process::{Output, Spawn};
use lab::testing::{sandboxed, sandboxed_within, skip};
use lab::traffic::{PORT, between, packet_passes, ping, transfer};
use lab::wireguard_go::WireguardGo;
use serde_json::Value;

const LAB: &str = env!("CARGO_BIN_EXE_lab");

/// Where `wg` looks for interfaces that are not the kernel's.
const SOCKETS: &str = "/run/wireguard";

/// How long an interface may take to be there with its session, and peers to shake hands. On emissary's routers; on others
/// it has [longer](lab::i2p::kind::Routers::patience).
const SOON: Duration = Duration::from_secs(60);

/// What is moved over TCP, bytes.
const TRANSFER: u64 = 1_000_000;

/// A key pair: the private key in base64, as `wg genkey` writes it, and the public one.
struct KeyPair {
    private: String,
    public: String,
}

/// Has `i2planctl wg` make a key, or read one.
async fn wg_key(command: &str, input: &str) -> Result<String, Failure> {
    let program = lab::sandbox::bin().join("i2planctl");
    let output = Spawn::new(&program, ["wg", command].map(OsString::from)).output(input).await?;
    assert!(output.status.success(), "{output:?}");
    Ok(output.stdout.trim().to_owned())
}

impl KeyPair {
    async fn new() -> Result<Self, Failure> {
        let private = wg_key("genkey", "").await?;
        let public = wg_key("pubkey", &private).await?;
        Ok(Self { private, public })
    }
}

/// The file of an interface at 10.9.0.`number`, which also has 10.`number`.0.1, with a peer that has the other addresses.
fn file(own: &KeyPair, number: u8, peer: &KeyPair, more: &str) -> String {
    let other = 3 - number;
    format!(
        "[Interface]\nPrivateKey = {}\nAddress = 10.9.0.{number}/24, 10.{number}.0.1/32, fd09::{number}/64\n\
         ListenPort = 51820\n\n[Peer]\nPublicKey = {}\n\
         AllowedIPs = 10.9.0.{other}/32, 10.{other}.0.0/16, fd09::{other}/128\n{more}\n",
        own.private, peer.public
    )
}

/// The addresses of the peer at 10.9.0.2.
const BEHIND_SECOND: &str = "10.9.0.2/32,10.2.0.0/16,fd09::2/128";

/// The file of an interface at 10.9.0.1, with another peer that is nowhere.
fn alone(own: &KeyPair, other: &KeyPair) -> String {
    format!(
        "[Interface]\nPrivateKey = {}\nAddress = 10.9.0.1/24, 10.1.0.1/32, fd09::1/64\n\n# some other\n[Peer]\n\
         PublicKey = {}\nAllowedIPs = 10.7.0.0/16\n",
        own.private, other.public
    )
}

/// What a node tells of its static interface, and the first of its peers.
async fn interface(node: &Node) -> Result<(Value, Value), Failure> {
    let status = node.ctl_json::<Value>(&["status"], "").await?;
    let status = status.map_err(|error| node.failure(&error.message))?;
    let peers = node.ctl_json::<Value>(&["peers"], "").await?;
    let peers = peers.map_err(|error| node.failure(&error.message))?;
    Ok((status, peers["static_peers"][0].clone()))
}

/// Waits until the interface and the session are there. Returns the endpoint.
async fn ready(node: &Node) -> Result<String, Failure> {
    node.until("the static interface is up", SOON, async |node| {
        let (status, _) = interface(node).await?;
        Ok(status["tunnel"]["interface"] == "wg0" && status["sam"]["data"]["state"] == "up")
    })
    .await?;
    let output = node.ctl(&["endpoint"], "").await?;
    assert!(output.stdout.ends_with(".b32.i2p\n"), "{output:?}");
    Ok(output.stdout.trim().to_owned())
}

/// Waits until a ping is answered within this time.
async fn reach(from: &Node, to: &str) -> Result<(), Failure> {
    let target: IpAddr = to.parse().unwrap();
    from.until("a ping is answered", SOON, async |node| Ok(ping(node, target, 1, false).await?.received == 1))
        .await
}

/// Runs `wg` on a node, where its sockets are in their usual place.
async fn wg(node: &Node, args: &[&str]) -> Result<Output, Failure> {
    let script = format!("mkdir -p {SOCKETS} && mount --bind \"$0\" {SOCKETS} && exec wg \"$@\"");
    let words = ["--mount", "sh", "-c", &script].map(OsString::from);
    let args = args.iter().map(OsString::from);
    let args = words.into_iter().chain([node.path("wireguard")]).chain(args);
    Spawn::new(Path::new("/usr/bin/unshare"), args).namespace(Some(&node.name)).output("").await
}

#[test]
fn two_files_of_wg_quick_make_a_tunnel() {
    sandboxed(LAB, "two_files_of_wg_quick_make_a_tunnel", async || {
        let started = Instant::now();
        let passed = |what: &str| println!("{:5.1} s: {what}", started.elapsed().as_secs_f32());
        let mut lab = Lab::start().await?;
        let (first, second) = (KeyPair::new().await?, KeyPair::new().await?);
        let shared = wg_key("genpsk", "").await?;
        let preshared = format!("PresharedKey = {shared}");

        // It learns where its peer is from what that sends, as WireGuard does.
        lab.add_static_node(&file(&first, 1, &second, &preshared), "repliable").await?;
        let endpoint = ready(&lab.nodes[0]).await?;
        passed("the first interface is up");
        let with_endpoint = format!("{preshared}\nEndpoint = {endpoint}");
        lab.add_static_node(&file(&second, 2, &first, &with_endpoint), "repliable").await?;
        let answering = ready(&lab.nodes[1]).await?;
        assert_ne!(endpoint, answering);
        passed("the second interface is up");

        let [one, two] = &lab.nodes[..] else { panic!("two nodes") };
        reach(two, "10.9.0.1").await?;
        passed("the first ping is answered");
        reach(one, "10.9.0.2").await?;
        // Over IPv6, and to an address behind the peer.
        reach(one, "fd09::2").await?;
        reach(one, "10.2.0.1").await?;
        let follows = async |node: &Node| Ok(interface(node).await?.1["endpoint"] == *answering);
        one.until("it tells where its peer is", SOON, follows).await?;
        let (status, peer) = interface(one).await?;
        assert_eq!((&peer["preshared_key"], &peer["keepalive"]), (&Value::Bool(true), &Value::from(25)));
        assert_eq!(status["tunnel"]["public_key"], first.public);
        assert_eq!(status["warnings"], Value::Array(Vec::new()), "{status}");
        // Segments of TCP are as long as the MTU allows.
        transfer(two, one, "10.9.0.1".parse().unwrap(), TRANSFER).await?;
        transfer(one, two, "10.9.0.2".parse().unwrap(), TRANSFER).await?;
        passed("a megabyte went both ways");
        tools_show_it(one, &second).await?;
        tools_change_it(one, two, &second, &shared).await?;
        passed("`wg` has changed peers");
        no_mesh_is_there(one).await?;

        // Killed, tund goes on with the interface and the session that it had.
        let tund = one.daemon_pid("tund").await?;
        lab::process::signal(tund, nix::sys::signal::Signal::SIGKILL)?;
        reach(one, "10.9.0.2").await?;
        passed("tund was killed and is back");

        // Started again under the endpoint that it had, it is heard, whatever the peer's router makes of that.
        let before = ready(one).await?;
        lab.nodes[0].stop_daemons().await?;
        lab.nodes[0].start_daemons()?;
        let one = &lab.nodes[0];
        assert_eq!(ready(one).await?, before);
        passed("the first is started again");
        reach(&lab.nodes[1], "10.9.0.1").await?;
        passed("it is heard again");

        // With another preshared key, from another destination: handshakes are answered, and nothing goes through.
        let other = format!("PresharedKey = {}\nEndpoint = {endpoint}", wg_key("genpsk", "").await?);
        lab.nodes[1].set_static(&file(&second, 2, &first, &other), "repliable")?;
        lab.nodes[1].forget().await?;
        let two = &lab.nodes[1];
        assert_ne!(ready(two).await?, answering);
        two.until("the wrong key is noticed", SOON, async |node| {
            let (status, _) = interface(node).await?;
            let warnings = status["warnings"].as_array().cloned().unwrap_or_default();
            let names = |warning: &Value| warning["hint"].as_str().unwrap().contains("PresharedKey");
            Ok(warnings.iter().any(names))
        })
        .await?;
        assert_eq!(ping(two, "10.9.0.1".parse().unwrap(), 3, false).await?.received, 0);
        assert_eq!(interface(two).await?.1["last_handshake"], Value::Null);
        passed("another preshared key carries nothing");
        lab.stop().await
    });
}

#[test]
fn raw_datagrams_carry_it_between_two_that_know_each_other() {
    sandboxed(LAB, "raw_datagrams_carry_it_between_two_that_know_each_other", async || {
        let started = Instant::now();
        let mut lab = Lab::start().await?;
        let (first, second, other) = (KeyPair::new().await?, KeyPair::new().await?, KeyPair::new().await?);
        lab.add_static_node(&alone(&first, &other), "raw").await?;
        let permanent = ready(&lab.nodes[0]).await?;
        let knowing = format!("Endpoint = {permanent}");
        lab.add_static_node(&file(&second, 2, &first, &knowing), "raw").await?;
        let endpoint = ready(&lab.nodes[1]).await?;
        println!("{:5.1} s: both endpoints are known", started.elapsed().as_secs_f32());
        let [one, two] = &lab.nodes[..] else { panic!("two nodes") };
        let add = ["add", &second.public, "--allowed-ips", BEHIND_SECOND, "--endpoint", &endpoint];
        change(one, &add).await?.map_err(|error| one.failure(&error))?;
        reach(one, "10.9.0.2").await?;
        println!("{:5.1} s: the first ping is answered", started.elapsed().as_secs_f32());
        transfer(two, one, "10.9.0.1".parse().unwrap(), TRANSFER).await?;
        // What the routers had agreed on is worth nothing then, at times for minutes: docs/static.md.
        lab.nodes[0].stop_daemons().await?;
        lab.nodes[0].start_daemons()?;
        assert_eq!(ready(&lab.nodes[0]).await?, permanent);
        lab.stop().await
    });
}

/// Has `i2planctl wg import` convert the file of wg-quick of a node. Returns what it prints.
async fn import(node: &Node, args: &[&str]) -> Result<String, Failure> {
    let file = node.static_file();
    let args: Vec<_> =
        ["wg", "import", file.to_str().unwrap()].iter().chain(args).map(OsString::from).collect();
    let output = Spawn::new(&lab::sandbox::bin().join("i2planctl"), args).output("").await?;
    if output.status.success() { Ok(output.stdout) } else { Err(node.failure(&output.stderr)) }
}

#[test]
fn toml_and_options_make_a_tunnel() {
    sandboxed(LAB, "toml_and_options_make_a_tunnel", async || {
        let started = Instant::now();
        let passed = |what: &str| println!("{:5.1} s: {what}", started.elapsed().as_secs_f32());
        let mut lab = Lab::start().await?;
        let (first, second, third) = (KeyPair::new().await?, KeyPair::new().await?, KeyPair::new().await?);
        let shared = wg_key("genpsk", "").await?;
        let preshared = format!("PresharedKey = {shared}");

        // `config.toml` describes the first, as the file of wg-quick(8) is imported.
        let description = file(&first, 1, &second, &preshared);
        lab.add_described_node(async |node| {
            node.set_static(&description, "repliable")?;
            let toml = import(node, &["--style", "repliable"]).await?;
            assert!(!toml.contains(&first.private) && !toml.contains(&shared), "{toml}");
            let config = std::fs::read_to_string(node.config())?;
            std::fs::write(node.config(), format!("{config}\n{toml}"))?;
            node.static_args.clear();
            Ok(())
        })
        .await?;
        let endpoint = ready(&lab.nodes[0]).await?;
        passed("the interface of config.toml is up");
        lab.add_described_node(async |node| {
            let files = [("private.key", &second.private), ("preshared.key", &shared)];
            for (name, key) in files {
                let path = Path::new(&node.path("etc")).join(name);
                std::fs::write(&path, key)?;
                std::fs::set_permissions(&path, Permissions::from_mode(0o600))?;
            }
            let file = |name| Path::new(&node.path("etc")).join(name).into_os_string();
            let text = |text: &str| OsString::from(text);
            node.static_args = vec![
                text("--address"),
                text("10.9.0.2/24,10.2.0.1/32,fd09::2/64"),
                text("--private-key-file"),
                file("private.key"),
                text("--peer-public-key"),
                text(&first.public),
                text("--peer-preshared-key-file"),
                file("preshared.key"),
                text("--peer-allowed-ips"),
                text("10.9.0.1/32,10.1.0.0/16,fd09::1/128"),
                text("--peer-endpoint"),
                text(&endpoint),
            ];
            Ok(())
        })
        .await?;
        let answering = ready(&lab.nodes[1]).await?;
        passed("the interface of options is up");
        let both_ways = async |lab: &Lab| {
            let [one, two] = &lab.nodes[..] else { panic!("two nodes") };
            reach(two, "10.9.0.1").await?;
            reach(one, "10.9.0.2").await?;
            reach(one, "10.2.0.1").await
        };
        both_ways(&lab).await?;
        passed("pings are answered both ways");

        // Peers go into the configuration, and out of it, where all else stays.
        let config = lab.nodes[0].config();
        let before = std::fs::read_to_string(&config)?;
        let one = &lab.nodes[0];
        let add = ["add", &third.public, "--allowed-ips", "10.3.0.0/16", "--endpoint", &answering];
        change_file(one, &config, &add).await?.map_err(|error| one.failure(&error))?;
        let after = std::fs::read_to_string(&config)?;
        assert!(after.starts_with(&before) && after.matches("[[peer]]").count() == 2, "{after}");
        // A tund that was killed has both.
        lab::process::signal(one.daemon_pid("tund").await?, nix::sys::signal::Signal::SIGKILL)?;
        one.until("both peers are there again", SOON, async |node| {
            let peers = node.ctl_json::<Value>(&["peers"], "").await?;
            Ok(peers
                .is_ok_and(|peers| peers["static_peers"].as_array().is_some_and(|peers| peers.len() == 2)))
        })
        .await?;
        reach(one, "10.9.0.2").await?;
        change_file(one, &config, &["remove", &third.public]).await?.map_err(|error| one.failure(&error))?;
        assert_eq!(std::fs::read_to_string(&config)?, before);
        passed("a peer was added and removed");

        // Started again, the first from a file of its own. Both are, because of what routers keep: docs/static.md.
        for node in &mut lab.nodes {
            node.stop_daemons().await?;
        }
        let one = &mut lab.nodes[0];
        let sections = before.split_once("[interface]").map_or("", |(sections, _)| sections);
        std::fs::write(&config, sections)?;
        let toml = Path::new(&one.path("etc")).join("wg0.toml");
        import(one, &["--output", toml.to_str().unwrap()]).await?;
        one.static_args = vec!["--wg".into(), toml.into_os_string()];
        for node in &mut lab.nodes {
            node.start_daemons()?;
        }
        assert_eq!(ready(&lab.nodes[0]).await?, endpoint);
        assert_eq!(ready(&lab.nodes[1]).await?, answering);
        both_ways(&lab).await?;
        passed("both were started again");
        lab.stop().await
    });
}

#[test]
fn peers_are_added_and_removed_at_run_time() {
    sandboxed(LAB, "peers_are_added_and_removed_at_run_time", async || {
        let started = Instant::now();
        let passed = |what: &str| println!("{:5.1} s: {what}", started.elapsed().as_secs_f32());
        let mut lab = Lab::start().await?;
        let (first, second, other) = (KeyPair::new().await?, KeyPair::new().await?, KeyPair::new().await?);
        let alone = alone(&first, &other);
        lab.add_static_node(&alone, "repliable").await?;
        let endpoint = ready(&lab.nodes[0]).await?;
        let with_endpoint = format!("Endpoint = {endpoint}");
        lab.add_static_node(&file(&second, 2, &first, &with_endpoint), "repliable").await?;
        let answering = ready(&lab.nodes[1]).await?;
        let [one, two] = &lab.nodes[..] else { panic!("two nodes") };

        passed("both interfaces are up");

        // It goes into the file and counts at once, with its routes: what is behind it is reached.
        let add = ["add", &second.public, "--allowed-ips", BEHIND_SECOND, "--endpoint", &answering];
        change(one, &add).await?.map_err(|error| one.failure(&error))?;
        reach(one, "10.9.0.2").await?;
        passed("the peer is added, and answers");
        reach(one, "10.2.0.1").await?;
        reach(two, "10.1.0.1").await?;
        let peers = |text: &str| text.matches("[Peer]").count();
        let content = std::fs::read_to_string(one.static_file())?;
        assert!(content.starts_with(&alone) && peers(&content) == 2, "{content}");
        // Another time, and with an address that another has, it is refused, and nothing changes.
        let again = change(one, &add).await?.unwrap_err();
        assert!(again.contains("duplicate"), "{again}");
        let third = KeyPair::new().await?;
        let overlapping =
            change(one, &["add", &third.public, "--allowed-ips", "10.2.3.0/24"]).await?.unwrap_err();
        assert!(overlapping.contains("overlaps"), "{overlapping}");
        assert_eq!(std::fs::read_to_string(one.static_file())?, content);

        // A tund that was killed has it too.
        let tund = one.daemon_pid("tund").await?;
        lab::process::signal(tund, nix::sys::signal::Signal::SIGKILL)?;
        reach(one, "10.2.0.1").await?;
        passed("tund was killed and is back");

        change(one, &["remove", &second.public]).await?.map_err(|error| one.failure(&error))?;
        assert_eq!(std::fs::read_to_string(one.static_file())?, alone);
        assert_eq!(ping(one, "10.9.0.2".parse().unwrap(), 2, false).await?.received, 0);
        let (_, left) = interface(one).await?;
        assert_eq!(left["public_key"], other.public);
        let last = change(one, &["remove", &other.public]).await?.unwrap_err();
        assert!(last.contains("no other peer"), "{last}");
        lab.stop().await
    });
}

/// Runs a test with wireguard-go, if that is installed, and so are the routers.
fn with_wireguard_go(
    name: &str,
    routers: Option<Routers>,
    test: impl AsyncFnOnce(Routers) -> Result<(), Failure>,
) {
    let routers = routers.unwrap_or_else(|| Routers::from_env().unwrap());
    match WireguardGo::missing().map_or_else(|| routers.check(), |missing| Err(Failure::new(missing))) {
        Ok(()) => sandboxed_within(LAB, name, LONG, async || test(routers).await),
        Err(missing) => skip(name, &missing),
    }
}

/// Longer than three renewals of a session.
const LONG: Duration = Duration::from_secs(900);

/// A node with wireguard-go for a peer, on another router.
struct Pair {
    lab: Lab,
    go: WireguardGo,
    /// Where wireguard-go is, in base64.
    destination: String,
    keys: [KeyPair; 2],
    preshared: String,
}

const NODE: &str = "10.9.0.1";
const GO: &str = "10.9.0.2";

impl Pair {
    /// Starts both. The node learns where its peer is from what that sends.
    async fn start(routers: Routers) -> Result<Self, Failure> {
        let mut lab = Lab::start_on(routers).await?;
        let keys = [KeyPair::new().await?, KeyPair::new().await?];
        let preshared = wg_key("genpsk", "").await?;
        let with_key = format!("PresharedKey = {preshared}");
        lab.add_static_node(&file(&keys[0], 1, &keys[1], &with_key), "repliable").await?;
        ready(&lab.nodes[0]).await?;
        lab.add_stranger("go").await?;
        let addresses = ["10.9.0.2/24", "fd09::2/64", "10.2.0.1/32"];
        let (go, destination) = WireguardGo::start("go", &addresses, 1280).await?;
        let pair = Self { lab, go, destination, keys, preshared };
        pair.go.configure(&pair.configuration(&pair.keys[0].public), Some(&pair.endpoint().await?)).await?;
        pair.go.route(&["10.1.0.0/16"]).await?;
        Ok(pair)
    }

    fn node(&self) -> &Node {
        &self.lab.nodes[0]
    }

    /// The node's destination, in base64.
    async fn endpoint(&self) -> Result<String, Failure> {
        let output = self.node().ctl(&["endpoint", "--base64"], "").await?;
        assert!(output.status.success(), "{output:?}");
        Ok(output.stdout.trim().to_owned())
    }

    /// What wireguard-go is told, with this key of its peer.
    fn configuration(&self, public: &str) -> String {
        format!(
            "PrivateKey = {}\n[Peer]\nPublicKey = {public}\nPresharedKey = {}\n\
             AllowedIPs = 10.9.0.1/32, 10.1.0.0/16, fd09::1/128\nPersistentKeepalive = 25\n",
            self.keys[1].private, self.preshared
        )
    }

    /// Starts the node again under another destination, with this preshared key for its peer, which is there.
    async fn move_node(&mut self, preshared: &str, peer: &str) -> Result<(), Failure> {
        let more = format!("PresharedKey = {preshared}\nEndpoint = {peer}");
        let text = file(&self.keys[0], 1, &self.keys[1], &more);
        let node = &mut self.lab.nodes[0];
        node.set_static(&text, "repliable")?;
        node.forget().await?;
        ready(node).await.map(drop)
    }

    /// Waits until an address of the node answers wireguard-go.
    async fn go_reaches(&self, address: &str) -> Result<(), Failure> {
        let program = lab::sandbox::bin().join("i2planctl");
        let patience = (SOON * self.node().routers().patience()).as_secs().to_string();
        let args = ["ping", address, "-c", "1", "-w", &patience].map(OsString::from);
        let output = Spawn::new(&program, args).namespace(Some(self.go.namespace())).output("").await?;
        if output.status.success() {
            return Ok(());
        }
        Err(self.node().failure(&format!("wireguard-go reaches nobody: {}{}", output.stdout, output.stderr)))
    }

    /// Moves bytes both ways and checks their hash. The segments are as long as the MTU allows.
    async fn transfers(&self) -> Result<(), Failure> {
        let (node, go) = (&*self.node().name, self.go.namespace());
        for (from, to, address) in [(node, go, GO), (go, node, NODE)] {
            let target = SocketAddr::new(address.parse().unwrap(), PORT);
            let done = between(from, to, target, &[TRANSFER.to_string()]).await?;
            assert!(done.intact, "{from} to {to}");
        }
        Ok(())
    }

    /// Sends packets of exactly the MTU both ways, over IPv4 and IPv6.
    async fn full_packets_pass(&self) -> Result<(), Failure> {
        for (node, go) in [(NODE, GO), ("fd09::1", "fd09::2")] {
            let node = (&*self.node().name, node.parse().unwrap());
            let go = (self.go.namespace(), go.parse().unwrap());
            packet_passes(node, go, 1280).await?;
            packet_passes(go, node, 1280).await?;
        }
        Ok(())
    }

    /// Waits until the node's doctor says this of what is wrong, and sees that nothing goes through.
    async fn doctor_says(&self, word: &str) -> Result<(), Failure> {
        let says = async |node: &Node| {
            let output = node.ctl(&["doctor"], "").await?;
            Ok(output.stdout.contains(word))
        };
        self.node().until(&format!("doctor says {word}"), SOON, says).await?;
        assert_eq!(ping(self.node(), GO.parse().unwrap(), 3, false).await?.received, 0);
        Ok(())
    }

    async fn stop(self) -> Result<(), Failure> {
        self.go.stop().await?;
        self.lab.stop().await
    }
}

async fn talks_to_wireguard_go(routers: Routers) -> Result<(), Failure> {
    let started = Instant::now();
    let passed = |what: &str| println!("{:5.1} s: {what}", started.elapsed().as_secs_f32());
    let mut pair = Pair::start(routers).await?;
    passed("both are up");
    pair.go_reaches(NODE).await?;
    passed("the first ping is answered");
    pair.go_reaches("10.1.0.1").await?;
    reach(pair.node(), GO).await?;
    reach(pair.node(), "10.2.0.1").await?;
    reach(pair.node(), "fd09::2").await?;
    pair.full_packets_pass().await?;
    passed("packets of 1280 bytes pass");
    // An interface has no daemons but those that it needs.
    let doctor = pair.node().ctl(&["doctor"], "").await?.stdout;
    assert!(!doctor.contains("does not answer"), "{doctor}");
    pair.transfers().await?;
    passed("a megabyte went both ways");

    // wireguard-go moves: the node follows what comes from there.
    let moved = pair.go.change_destination().await?;
    assert_ne!(moved, pair.destination);
    pair.go_reaches(NODE).await?;
    let hash = moved.parse::<i2plan_proto::endpoint::Endpoint>().unwrap().hash().b32();
    let follows = async |node: &Node| Ok(interface(node).await?.1["endpoint"] == *hash);
    pair.node().until("the node follows its peer", SOON, follows).await?;
    reach(pair.node(), GO).await?;
    pair.transfers().await?;
    passed("wireguard-go is elsewhere, and was followed");

    // The node moves, and knows where its peer is.
    let before = pair.endpoint().await?;
    let preshared = pair.preshared.clone();
    pair.move_node(&preshared, &moved).await?;
    assert_ne!(pair.endpoint().await?, before);
    reach(pair.node(), GO).await?;
    pair.go_reaches(NODE).await?;
    pair.transfers().await?;
    passed("the node is elsewhere, and was followed");

    pair.move_node(&wg_key("genpsk", "").await?, &moved).await?;
    pair.doctor_says("PresharedKey").await?;
    passed("another preshared key carries nothing");
    pair.go.configure(&pair.configuration(&KeyPair::new().await?.public), None).await?;
    // What it has counted so far was of the other fault.
    let tund = pair.node().daemon_pid("tund").await?;
    lab::process::signal(tund, nix::sys::signal::Signal::SIGKILL)?;
    pair.doctor_says("does not answer handshakes").await?;
    passed("the key of another carries nothing");
    pair.stop().await
}

#[test]
fn wireguard_go_is_a_peer() {
    with_wireguard_go("wireguard_go_is_a_peer", None, talks_to_wireguard_go);
}

#[test]
fn wireguard_go_is_a_peer_on_i2pd() {
    with_wireguard_go("wireguard_go_is_a_peer_on_i2pd", Some(Routers::I2pd), talks_to_wireguard_go);
}

/// WireGuard renews a session after two minutes, so this takes seven.
#[test]
#[ignore = "takes seven minutes"]
fn sessions_with_wireguard_go_are_renewed() {
    with_wireguard_go("sessions_with_wireguard_go_are_renewed", None, async |routers| {
        let (started, pair) = (Instant::now(), Pair::start(routers).await?);
        pair.go_reaches(NODE).await?;
        let mut handshakes = vec![pair.go.last_handshake().await?];
        let (mut sent, mut received) = (0, 0);
        while handshakes.len() < 4 {
            let pings = ping(pair.node(), GO.parse().unwrap(), 5, false).await?;
            (sent, received) = (sent + pings.sent, received + pings.received);
            let last = pair.go.last_handshake().await?;
            if handshakes.last() != Some(&last) {
                println!(
                    "{:5.1} s: another session; {received} of {sent} pings answered",
                    started.elapsed().as_secs_f32()
                );
                handshakes.push(last);
            }
            assert!(started.elapsed() < LONG, "{handshakes:?}");
        }
        // A datagram may be lost on its way, but no renewal interrupts the traffic.
        assert!(received * 100 >= sent * 99, "{received} of {sent} pings answered");
        assert!(handshakes.windows(2).all(|times| times[1] - times[0] < 130), "{handshakes:?}");
        pair.stop().await
    });
}

/// Runs `i2planctl peer` on a node, on its file and its interface. Returns what it says is wrong.
async fn change(node: &Node, args: &[&str]) -> Result<Result<(), String>, Failure> {
    change_file(node, &node.static_file(), args).await
}

async fn change_file(node: &Node, file: &Path, args: &[&str]) -> Result<Result<(), String>, Failure> {
    let directory = node.path("wireguard");
    let place =
        ["--file", file.to_str().unwrap(), "--wireguard-dir", directory.to_str().unwrap()].map(str::to_owned);
    let args: Vec<_> = ["peer"].iter().chain(args).copied().chain(place.iter().map(String::as_str)).collect();
    let output = node.ctl(&args, "").await?;
    assert!(output.stderr.is_empty() || !output.status.success(), "{output:?}");
    Ok(if output.status.success() { Ok(()) } else { Err(output.stderr) })
}

/// What `wg` says of the interface.
async fn tools_show_it(node: &Node, peer: &KeyPair) -> Result<(), Failure> {
    if !Path::new("/usr/bin/wg").exists() {
        eprintln!("skipped: there is no /usr/bin/wg; install wireguard-tools");
        return Ok(());
    }
    let dump = wg(node, &["show", "all", "dump"]).await?.stdout;
    let rows: Vec<Vec<&str>> = dump.lines().map(|line| line.split('\t').collect()).collect();
    let [interface, shown] = &rows[..] else { panic!("an interface and a peer: {dump}") };
    assert_eq!(interface[..], ["wg0", "(none)", "(none)", "0", "off"]);
    let allowed = "10.9.0.2/32,10.2.0.0/16,fd09::2/128";
    assert_eq!((shown[1], shown[3], shown[4], shown[8]), (&*peer.public, "(none)", allowed, "25"));
    assert!(shown[5..8].iter().all(|count| count.parse::<u64>().unwrap() > 0), "{dump}");
    let conf = wg(node, &["showconf", "wg0"]).await?.stdout;
    let expected = format!(
        "[Interface]\n\n[Peer]\nPublicKey = {}\nAllowedIPs = {}\nPersistentKeepalive = 25",
        peer.public,
        allowed.replace(',', ", ")
    );
    assert_eq!(conf.trim(), expected);
    Ok(())
}

/// What `wg` changes of the interface's peers counts at once, and for as long as `tund` runs. The second node is its peer.
async fn tools_change_it(node: &Node, second: &Node, peer: &KeyPair, preshared: &str) -> Result<(), Failure> {
    if !Path::new("/usr/bin/wg").exists() {
        return Ok(());
    }
    let all = "10.9.0.2/32,10.2.0.0/16,fd09::2/128";
    let works = async |args: &[&str]| {
        let output = wg(node, args).await?;
        assert!(output.status.success() && output.stderr.is_empty(), "wg {args:?}: {output:?}");
        Ok::<_, Failure>(output.stdout)
    };
    let refuses = async |args: &[&str], why: &str| {
        let output = wg(node, args).await?;
        let expected = format!("Unable to modify interface: {why}\n");
        assert_eq!((output.status.success(), output.stderr.as_str()), (false, expected.as_str()), "{args:?}");
        Ok::<_, Failure>(())
    };
    let third = KeyPair::new().await?;
    works(&["set", "wg0", "peer", &third.public, "allowed-ips", "10.3.0.0/16", "persistent-keepalive", "7"])
        .await?;
    let shown = works(&["show", "wg0", "allowed-ips"]).await?;
    assert!(shown.contains(&format!("{}\t10.3.0.0/16\n", third.public)), "{shown}");
    // An address that another has goes to who it is given to; a part of a network does not.
    refuses(&["set", "wg0", "peer", &third.public, "allowed-ips", "10.2.7.0/24"], "Invalid argument").await?;
    works(&["set", "wg0", "peer", &third.public, "allowed-ips", "10.9.0.2/32"]).await?;
    assert_eq!(ping(node, "10.9.0.2".parse().unwrap(), 2, false).await?.received, 0);
    works(&["set", "wg0", "peer", &peer.public, "allowed-ips", all]).await?;
    works(&["set", "wg0", "peer", &third.public, "remove"]).await?;
    reach(node, "10.9.0.2").await?;
    refuses(&["set", "wg0", "peer", &peer.public, "endpoint", "127.0.0.1:1"], "Operation not supported")
        .await?;
    refuses(&["set", "wg0", "fwmark", "7"], "Operation not supported").await?;

    // A file without the peer removes it, and one that has it brings it back: where it is, it says itself.
    let sync = node.path("sync.conf");
    let sync = sync.to_str().unwrap();
    std::fs::write(sync, "[Interface]\n")?;
    works(&["syncconf", "wg0", sync]).await?;
    assert_eq!(works(&["show", "wg0", "peers"]).await?, "");
    let text = format!(
        "[Interface]\nListenPort = 51820\n\n[Peer]\nPublicKey = {}\nPresharedKey = {preshared}\nAllowedIPs = {all}\n\
         PersistentKeepalive = 25\n",
        peer.public
    );
    std::fs::write(sync, text)?;
    works(&["syncconf", "wg0", sync]).await?;
    reach(second, "10.9.0.1").await?;
    reach(node, "10.2.0.1").await
}

/// There is no control session, and no request to a mesh is answered.
async fn no_mesh_is_there(node: &Node) -> Result<(), Failure> {
    let (status, _) = interface(node).await?;
    assert_eq!((&status["network"], &status["sam"]["control"]["destination"]), (&Value::Null, &Value::Null));
    let refused = node.ctl_json::<Value>(&["invite", "create", "--yes"], "").await?;
    let refused = refused.expect_err("there is no mesh to invite to");
    assert_eq!(refused.kind, "conflict");
    Ok(())
}
