//! The whole life of a node at debug level, after which all that it has left behind is searched for every secret that
//! it used.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::collections::BTreeSet;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use i2plan_ipc::node::{EventStream, Notice};
use i2plan_keyd::keys::Keys;
use i2plan_keyd::memory::Memory;
use i2plan_keyd::store::{Store, StoredKeys};
use i2plan_proto::destination;
use i2plan_proto::invite::Invite;
use lab::Failure;
use lab::node::{Lab, Node};
use lab::testing::sandboxed;
use lab::traffic::reach;
use serde_json::Value;

const LAB: &str = env!("CARGO_BIN_EXE_lab");

const PASSPHRASE: &str = "correct horse battery staple";

/// Text and bytes that were found, by where.
#[derive(Default)]
struct Evidence(Vec<(String, Vec<u8>)>);

impl Evidence {
    fn add(&mut self, place: impl Into<String>, bytes: impl Into<Vec<u8>>) {
        self.0.push((place.into(), bytes.into()));
    }

    /// All files below a directory.
    fn add_files(&mut self, directory: &Path) {
        for entry in std::fs::read_dir(directory).unwrap() {
            let (path, kind) = entry.map(|entry| (entry.path(), entry.file_type().unwrap())).unwrap();
            if kind.is_dir() {
                self.add_files(&path);
            } else if kind.is_file() {
                self.add(path.display().to_string(), std::fs::read(&path).unwrap());
            }
        }
    }

    /// Where a secret is found, in any of its forms.
    fn find(&self, forms: &[Vec<u8>]) -> Vec<&str> {
        let holds = |bytes: &[u8]| {
            forms.iter().any(|form| bytes.windows(form.len()).any(|window| window == form.as_slice()))
        };
        self.0.iter().filter(|(_, bytes)| holds(bytes)).map(|(place, _)| place.as_str()).collect()
    }
}

/// How 32 secret bytes could be written.
fn forms(secret: &[u8]) -> Vec<Vec<u8>> {
    use data_encoding::{BASE32_NOPAD, BASE64, BASE64URL_NOPAD, HEXLOWER, HEXUPPER};
    let listed = format!("{secret:?}");
    let mut forms = vec![secret.to_vec(), listed.trim_matches(['[', ']']).as_bytes().to_vec()];
    for encoding in [HEXLOWER, HEXUPPER, BASE32_NOPAD] {
        forms.push(encoding.encode(secret).into_bytes());
    }
    forms.push(BASE32_NOPAD.encode(secret).to_lowercase().into_bytes());
    // In the middle of something longer, base64 depends on what comes before: each third of the ways.
    for skip in 0..3 {
        let whole = (secret.len() - skip) / 3 * 3;
        for encoding in [BASE64, BASE64URL_NOPAD, destination::base64()] {
            forms.push(encoding.encode(&secret[skip..skip + whole]).into_bytes());
        }
    }
    forms
}

/// The private keys in a node's store, which is not sealed.
fn private_keys(node: &Node) -> Vec<(String, Vec<Vec<u8>>)> {
    let stored = std::fs::read(node.state("keyd").join("keys")).unwrap();
    let keys = Keys::from_bytes(&stored).unwrap();
    // As `keyd` stores them.
    let [identity, padding, seed, master] =
        [0, 1, 2, 3].map(|part| <[u8; 32]>::try_from(&stored[12 + part * 32..][..32]).unwrap());
    assert_eq!(keys.identity().to_bytes(), identity);
    assert_eq!(keys.control().public().padding, padding);
    let name = |what: &str| format!("{what} of {}", node.name);
    let mut secrets = vec![
        (name("the identity key"), forms(&identity)),
        (name("the control destination's key"), forms(&seed)),
        (name("the master secret"), forms(&master)),
    ];
    secrets.push((
        name("the destination's private key file"),
        vec![keys.control().private_key()[600..700].as_bytes().to_vec()],
    ));
    secrets
}

/// What `keyd` remembers beside the keys, read from a copy: the directory is in use, and another user's.
fn remembered(directory: &Path) -> Memory {
    let copy = tempfile::tempdir().unwrap();
    for name in ["keys", "memory", "delegations"] {
        let content = std::fs::read(directory.join(name)).unwrap();
        let to = copy.path().join(name);
        std::fs::write(&to, content).unwrap();
        std::fs::set_permissions(to, Permissions::from_mode(0o600)).unwrap();
    }
    std::fs::set_permissions(copy.path(), Permissions::from_mode(0o700)).unwrap();
    let store = Store::open(copy.path()).unwrap();
    let Some(StoredKeys::Plain(keys)) = store.load().unwrap() else { panic!("the keys are not sealed") };
    store.open_memory(&keys.node()).unwrap().0
}

/// Watches what every process of the run shows of itself to others: its arguments and its environment.
struct Watch {
    seen: Arc<Mutex<BTreeSet<Vec<u8>>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Watch {
    fn start() -> Self {
        let seen = Arc::new(Mutex::new(BTreeSet::new()));
        let target = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            loop {
                look_at_processes(&mut target.lock().unwrap());
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        Self { seen, task }
    }

    fn stop(self) -> BTreeSet<Vec<u8>> {
        self.task.abort();
        std::mem::take(&mut self.seen.lock().unwrap())
    }
}

fn look_at_processes(seen: &mut BTreeSet<Vec<u8>>) {
    for process in std::fs::read_dir("/proc").unwrap().flatten() {
        for file in ["cmdline", "environ"] {
            // A process that has ended has nothing to show.
            if let Ok(bytes) = std::fs::read(process.path().join(file)) {
                seen.insert(bytes);
            }
        }
    }
}

/// Runs a command; what it prints is evidence.
async fn run(evidence: &mut Evidence, node: &Node, args: &[&str], input: &str) -> Result<bool, Failure> {
    let output = node.ctl(args, input).await?;
    let place = format!("{} of {}", args.join(" "), node.name);
    evidence.add(format!("the output of {place}"), output.stdout);
    evidence.add(format!("the errors of {place}"), output.stderr);
    Ok(output.status.success())
}

/// Makes an invite; its code is printed on purpose, and nothing else of it.
async fn invite(secrets: &mut Vec<(String, Vec<Vec<u8>>)>, node: &Node) -> Result<String, Failure> {
    let code = node.invite(&[]).await?;
    let secret = code.parse::<Invite>().unwrap().secret;
    let number = secrets.len();
    // Without what every code begins with.
    let text = code.trim_start_matches("i2plan://").as_bytes()[20..].to_vec();
    secrets.push((format!("the invite code {number}"), vec![text]));
    secrets.push((format!("the secret of the invite {number}"), forms(&secret.0)));
    Ok(code)
}

#[test]
fn a_life_at_debug_level_gives_no_secret_away() {
    sandboxed(LAB, "a_life_at_debug_level_gives_no_secret_away", async || {
        let mut lab = Lab::start().await?;
        lab.log_filter = Some("debug".to_owned());
        lab.add_node().await?;
        // Its router, which is told its destinations' private keys, logs where the daemons do.
        lab.add_node_with_routerd(true).await?;
        lab.add_node().await?;
        lab.ready().await?;
        let watch = Watch::start();
        let (mut evidence, mut secrets) = (Evidence::default(), Vec::new());
        let mut events = EventStream::new(&lab.nodes[1].socket());
        let followed = tokio::spawn(async move {
            let mut text = String::new();
            // Until the node is stopped.
            while let notice = events.next().await
                && !matches!(notice, Notice::Lost(_))
            {
                text.push_str(&format!("{notice:?}\n"));
                if let Notice::Event(event) = notice {
                    text.push_str(&serde_json::to_string(&event).unwrap());
                }
            }
            text
        });

        // The keys are stored unsealed in the beginning: here the test reads what it will look for.
        for node in &lab.nodes {
            secrets.extend(private_keys(node));
        }
        let [first, second, _] = &lab.nodes[..] else { panic!("three nodes") };
        let code = invite(&mut secrets, first).await?;
        // A code that is damaged is answered with an error that does not repeat it.
        let mut damaged = code.clone().into_bytes();
        damaged[60] ^= 1;
        let damaged = String::from_utf8(damaged).unwrap();
        assert!(!run(&mut evidence, second, &["join", "--yes"], &damaged).await?);
        assert!(!run(&mut evidence, second, &["--json", "join", "--yes"], &code[..code.len() - 7]).await?);
        // The node that made it is in the network already.
        run(&mut evidence, first, &["join", "--yes"], &code).await?;
        assert!(run(&mut evidence, second, &["join", "--yes"], &code).await?);
        reach(second, first).await?;
        let other = invite(&mut secrets, first).await?;
        run(&mut evidence, second, &["--json", "join", "--yes"], &other).await?;
        let wireguard = |node: &Node, number: u32| {
            let stored = std::fs::read(node.state("keyd").join("keys")).unwrap();
            let memory = remembered(&node.state("keyd"));
            let epoch = memory.epochs.iter().find(|epoch| epoch.number == number).unwrap();
            forms(&Keys::from_bytes(&stored).unwrap().wireguard_private(epoch).0)
        };
        let epoch = async |node: &Node| -> Result<u32, Failure> {
            let status = node.ctl_json::<Value>(&["key", "status"], "").await?;
            let status = status.map_err(|error| node.failure(&error.message))?;
            Ok(u32::try_from(status["wireguard"]["epoch"].as_u64().unwrap()).unwrap())
        };
        for node in [first, second] {
            let key = wireguard(node, epoch(node).await?);
            secrets.push((format!("the WireGuard key of {}", node.name), key));
        }
        for args in [
            &["status"][..],
            &["peers"],
            &["routes"],
            &["--json", "invite", "list"],
            &["doctor"],
            &["key", "status"],
            &["key", "export-public"],
        ] {
            assert!(run(&mut evidence, first, args, "").await?, "{args:?}");
        }
        // An epoch lasts a minute at least.
        let before = epoch(first).await?;
        first
            .until("it has a new key", Duration::from_secs(120), async |node| {
                let output = node.ctl(&["key", "rotate"], "").await?;
                Ok(output.status.success() && epoch(node).await? != before)
            })
            .await?;
        let key = wireguard(first, epoch(first).await?);
        secrets.push(("the next WireGuard key".to_owned(), key));
        reach(second, first).await?;
        for args in [&["ban", "add", "n2", "--duration", "1h"], &["ban", "remove", "n2"][..]] {
            assert!(run(&mut evidence, first, args, "").await?, "{args:?}");
        }
        assert!(run(&mut evidence, second, &["leave", "--yes"], "").await?);

        // With a passphrase: a node that nobody has spoken to, whose router holds on to nothing of before.
        let directory = first.run().parent().unwrap().to_owned();
        lab.nodes[1].stop_daemons().await?;
        evidence.add("the events of n2", followed.await.unwrap());
        let file = directory.join("passphrase");
        std::fs::write(&file, format!("{PASSPHRASE}\n"))?;
        lab.nodes[2].stop_daemons().await?;
        lab.nodes[2].passphrase = Some(file);
        let sealed = lab.nodes[2].seal().await?;
        evidence.add("the output of change-passphrase", sealed.stdout + &sealed.stderr);
        lab.kill_router(2).await?;
        lab.restart_router(2).await?;
        lab.nodes[2].start_daemons()?;
        lab.nodes[2].ready().await?;
        secrets.push(("the passphrase".to_owned(), [&forms(PASSPHRASE.as_bytes())[..]].concat()));
        // What happens to it is the same once more.
        let code = invite(&mut secrets, &lab.nodes[0]).await?;
        assert!(run(&mut evidence, &lab.nodes[2], &["join", "--yes"], &code).await?);
        reach(&lab.nodes[2], &lab.nodes[0]).await?;

        let processes = watch.stop();
        assert!(processes.len() > 10, "processes were seen");
        for bytes in processes {
            evidence.add(format!("a process: {}", String::from_utf8_lossy(&bytes)), bytes);
        }
        for node in &lab.nodes {
            evidence.add(format!("the log of {}", node.name), std::fs::read(node.log())?);
            for daemon in ["meshd", "tund", "routerd"] {
                let state = node.state(daemon);
                if state.exists() {
                    evidence.add_files(&state);
                }
            }
        }
        // Sealed, the store shows nothing either.
        evidence.add_files(&lab.nodes[2].state("keyd"));

        let log = String::from_utf8_lossy(&std::fs::read(lab.nodes[0].log())?).into_owned();
        assert!(log.contains("DEBUG"), "it was at debug level");
        let log = String::from_utf8_lossy(&std::fs::read(lab.nodes[1].log())?).into_owned();
        assert!(log.contains("DEBUG emissary::"), "the router was too");
        let size: usize = evidence.0.iter().map(|(_, bytes)| bytes.len()).sum();
        println!("{} secrets, {} places, {size} bytes", secrets.len(), evidence.0.len());
        for (secret, forms) in &secrets {
            let found = evidence.find(forms);
            assert!(found.is_empty(), "{secret} is in {found:?}");
        }
        // The search finds what is there.
        let mut there = Evidence::default();
        there.add_files(&lab.nodes[0].state("keyd"));
        for (secret, forms) in secrets.iter().take(3) {
            assert_eq!(there.find(forms).len(), 1, "{secret}");
        }
        lab.stop().await
    });
}
