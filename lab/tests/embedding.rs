//! Nodes inside other programs: the example of the crate `i2plan`, on the private network.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lab::Failure;
use lab::node::Lab;
use lab::process::{Child, Output, Spawn, signal};
use lab::sandbox::{DIRECTORY, bin};
use lab::testing::sandboxed;
use lab::wait::until;
use nix::mount::{MsFlags, mount};
use nix::sys::signal::Signal;
use tokio::time::timeout;

const LAB: &str = env!("CARGO_BIN_EXE_lab");
const EXAMPLE: &str = env!("CARGO_BIN_EXE_lab-embedding");

/// How long what is waited for may take: sessions are opened, and one node joins the other's network.
const SOON: Duration = Duration::from_secs(180);

/// Makes the users of the daemons, as the packages do.
fn make_users() -> Result<(), Failure> {
    let users: Vec<_> = ["keyd", "connector", "meshd", "tund"].into_iter().zip(50_000..).collect();
    for (file, line) in [("passwd", ":i2plan:/nonexistent:/usr/sbin/nologin"), ("group", "")] {
        let (path, own) = (Path::new("/etc").join(file), Path::new(DIRECTORY).join(file));
        let mut text = std::fs::read_to_string(&path)?;
        for (user, id) in &users {
            let ids = if file == "passwd" { format!("{id}:{id}") } else { format!("{id}:") };
            text.push_str(&format!("i2plan-{user}:x:{ids}{line}\n"));
        }
        std::fs::write(&own, text)?;
        mount(Some(&own), &path, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
    }
    Ok(())
}

/// The example, running.
struct Program {
    namespace: &'static str,
    child: Child,
}

impl Program {
    fn start(example: &Path, what: &str, namespace: &'static str) -> Result<Self, Failure> {
        let directory = Path::new(DIRECTORY).join(namespace);
        std::fs::create_dir_all(&directory)?;
        let args: [OsString; 3] = [what.into(), namespace.into(), directory.into()];
        let log = Path::new(DIRECTORY).join(format!("{namespace}.log"));
        let program = Spawn::new(example, args).namespace(Some(namespace)).log(&log).reads();
        let child = program.variable("PROGRAMS", bin().to_str().unwrap()).wait_for_line()?;
        Ok(Self { namespace, child })
    }

    /// Waits until it prints a line that begins so, and returns what follows.
    async fn says(&mut self, beginning: &str) -> Result<String, Failure> {
        let mut said = Vec::new();
        let saying = async {
            loop {
                let line = self.child.first_line().await?;
                match line.strip_prefix(beginning) {
                    Some(rest) => return Ok::<_, Failure>(rest.trim().to_owned()),
                    None => said.push(line),
                }
            }
        };
        match timeout(SOON, saying).await {
            Ok(result) => result,
            Err(_) => Err(Failure::new(format!("{} says {said:?} and not {beginning:?}", self.namespace))),
        }
    }

    async fn run(&self, program: PathBuf, args: &[&str]) -> Result<Output, Failure> {
        Spawn::new(&program, args.iter().map(OsString::from)).namespace(Some(self.namespace)).output("").await
    }

    async fn ctl(&self, args: &[&str]) -> Result<Output, Failure> {
        let socket = format!("{DIRECTORY}/{}/run/meshd.sock", self.namespace);
        self.run(bin().join("i2planctl"), &[&["--socket", &socket], args].concat()).await
    }

    /// Whether it has the interface of a node.
    async fn has_interface(&self) -> Result<bool, Failure> {
        let interfaces = self.run("/bin/cat".into(), &["/proc/net/dev"]).await?;
        Ok(interfaces.stdout.contains("i2plan0"))
    }
}

#[test]
fn programs_run_nodes_of_their_own() {
    sandboxed(LAB, "programs_run_nodes_of_their_own", async || {
        make_users()?;
        let mut lab = Lab::start().await?;
        for name in ["one", "two"] {
            lab.add_stranger(name).await?;
        }
        // Where every user can execute it.
        let example = Path::new(DIRECTORY).join("example");
        std::fs::copy(EXAMPLE, &example)?;
        let mut one = Program::start(&example, "found", "one")?;
        let invite = one.says("invite ").await?;
        let address = one.says("address ").await?;
        let mut two = Program::start(&example, "join", "two")?;
        two.child.say(&invite).await?;
        two.says("joined ").await?;
        one.says("event invite_used").await?;
        let ping = two.run(bin().join("i2planctl"), &["ping", &address, "-c", "1", "-w", "60"]).await?;
        assert!(ping.status.success(), "{ping:?}");

        // It is a node like others, and is told of what happens to its daemons.
        let status = one.ctl(&["--json", "status"]).await?;
        let status: serde_json::Value = serde_json::from_str(&status.stdout).unwrap();
        assert_eq!((&status["name"], &status["network"]["ipv4"]), (&"one".into(), &address.into()));
        let tund = status["daemons"].as_array().unwrap().iter().find(|daemon| daemon["name"] == "tund");
        let tund = tund.and_then(|tund| tund["pid"].as_u64()).unwrap();
        signal(u32::try_from(tund).unwrap(), Signal::SIGKILL)?;
        one.says("tund was killed by SIGKILL").await?;
        one.says("tund started").await?;

        // One stops its node, and the other drops it: nothing is left of either.
        assert!(one.has_interface().await? && two.has_interface().await?);
        signal(two.child.pid(), Signal::SIGINT)?;
        two.says("Stopped").await?;
        assert!(two.child.wait().await?.success());
        one.says("event member_life").await?;
        // Its standard input ends.
        assert!(one.child.wait().await?.success());
        for program in [&one, &two] {
            until("the interface is gone", SOON, async || Ok(!program.has_interface().await?)).await?;
        }
        lab.stop().await
    });
}
