//! A machine: Debian under systemd in a container, with an I2P router beside it.
//!
//! The container has the network namespace of a node of the laboratory, and the node's router is in there too, so that
//! the SAM bridge is where it is on an ordinary machine. The machine's files are those of the common system, with a
//! layer of its own in memory on top.

use std::ffi::OsString;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use serde::de::DeserializeOwned;

use super::host;
use crate::node::{NetworkStatus, Status};
use crate::process::{Child, Output, Spawn};
use crate::sandbox::DIRECTORY;
use crate::wait::{self, POLL};
use crate::{Failure, tail};

/// How long a machine may take to boot.
const BOOT_DEADLINE: Duration = Duration::from_secs(120);

/// Exit status of systemd-nspawn when the machine wants to be booted again.
const REBOOT: i32 = 133;

/// Where the packages are inside.
pub const PACKAGES: &str = "/packages";

/// A machine.
#[derive(Debug)]
pub struct Machine {
    /// Its name, which is its network namespace's too.
    pub name: String,
    /// Its address in the "Internet".
    pub address: Ipv4Addr,
    root: PathBuf,
    log: PathBuf,
    container: Child,
    leader: u32,
}

impl Machine {
    /// Boots a new machine in the network namespace with its name.
    ///
    /// # Errors
    /// If it does not boot.
    pub async fn boot(name: &str, address: Ipv4Addr, suite: &str) -> Result<Self, Failure> {
        let target = std::env::var_os(host::TARGET_VARIABLE).ok_or_else(|| Failure::new("no systems"))?;
        let directory = Path::new(DIRECTORY).join(name);
        let [root, changes, work] = ["root", "changes", "work"].map(|part| directory.join(part));
        for path in [&root, &changes, &work] {
            std::fs::create_dir_all(path)?;
        }
        let options = format!(
            "lowerdir={},upperdir={},workdir={}",
            host::system(Path::new(&target), suite).display(),
            changes.display(),
            work.display()
        );
        mount(Some("overlay"), &root, Some("overlay"), MsFlags::empty(), Some(options.as_str()))?;
        let log = directory.join("console.log");
        let container = start(name, &root, &log)?;
        let mut machine = Self { name: name.to_owned(), address, root, log, container, leader: 0 };
        machine.booted().await?;
        Ok(machine)
    }

    /// Where one of its files is to the laboratory.
    #[must_use]
    pub fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// Waits until the machine is up.
    async fn booted(&mut self) -> Result<(), Failure> {
        let started = Instant::now();
        loop {
            let pid = self.container.pid();
            let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
            let first = children.unwrap_or_default().split(' ').next().and_then(|pid| pid.parse().ok());
            if let Some(leader) = first {
                self.leader = leader;
                let state = self.run(&["systemctl", "is-system-running"], "").await?.stdout;
                if ["running", "degraded"].contains(&state.trim()) {
                    return Ok(());
                }
            }
            if started.elapsed() > BOOT_DEADLINE {
                return Err(self.failure("it did not boot").await);
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Boots the machine again, and waits until it is up.
    ///
    /// # Errors
    /// If it does not come up.
    pub async fn reboot(&mut self) -> Result<(), Failure> {
        self.run(&["systemctl", "reboot"], "").await?;
        let status = self.container.wait().await?;
        if status.code() != Some(REBOOT) {
            return Err(self.failure(&format!("a reboot was asked for, and it ended with {status}")).await);
        }
        self.container = start(&self.name, &self.root, &self.log)?;
        self.booted().await
    }

    /// Switches the machine off.
    ///
    /// # Errors
    /// If it cannot be.
    pub async fn off(&mut self) -> Result<(), Failure> {
        self.container.stop().await.map(drop)
    }

    /// Runs a program inside.
    ///
    /// # Errors
    /// If it cannot be run.
    pub async fn run(&self, command: &[&str], input: &str) -> Result<Output, Failure> {
        let leader = self.leader.to_string();
        let enter = ["-t", &leader, "-m", "-u", "-i", "-n", "-p", "-C", "-r", "-w", "--"];
        let args = enter.iter().chain(command).map(OsString::from);
        Spawn::new(Path::new("/usr/bin/nsenter"), args).variable("HOME", "/root").output(input).await
    }

    /// Runs a script of `sh` inside, which must succeed, and returns what it printed.
    ///
    /// # Errors
    /// If it fails.
    pub async fn shell(&self, script: &str) -> Result<String, Failure> {
        let output = self.run(&["sh", "-euc", script], "").await?;
        if output.status.success() {
            return Ok(output.stdout.trim_end().to_owned());
        }
        Err(self.failure(&format!("`{script}` failed: {}{}", output.stdout, output.stderr)).await)
    }

    /// Runs apt-get without a question, and without what a machine without a network cannot have.
    ///
    /// # Errors
    /// If it fails.
    pub async fn apt(&self, what: &str) -> Result<String, Failure> {
        self.shell(&format!(
            "DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends {what} 2>&1"
        ))
        .await
    }

    /// Writes a file inside.
    ///
    /// # Errors
    /// If that fails.
    pub async fn write(&self, path: &str, text: &str) -> Result<(), Failure> {
        let output =
            self.run(&["sh", "-euc", "mkdir -p \"${1%/*}\" && cat > \"$1\"", "sh", path], text).await?;
        if output.status.success() { Ok(()) } else { Err(Failure::new(output.stderr)) }
    }

    /// A property of a unit.
    ///
    /// # Errors
    /// If systemd does not answer.
    pub async fn property(&self, unit: &str, property: &str) -> Result<String, Failure> {
        self.shell(&format!("systemctl show -P {property} {unit}")).await
    }

    /// The version of its systemd.
    ///
    /// # Errors
    /// If systemd does not say it.
    pub async fn systemd(&self) -> Result<u32, Failure> {
        let said = self.shell("systemctl --version").await?;
        let version = said.split_whitespace().nth(1).and_then(|version| version.parse().ok());
        version.ok_or_else(|| Failure::new(format!("no version: {said}")))
    }

    /// Runs `i2planctl --json` inside and reads what it prints.
    ///
    /// # Errors
    /// If it fails.
    pub async fn ctl<T: DeserializeOwned>(&self, args: &[&str], input: &str) -> Result<T, Failure> {
        let command: Vec<_> = ["i2planctl", "--json"].into_iter().chain(args.iter().copied()).collect();
        let output = self.run(&command, input).await?;
        serde_json::from_str(&output.stdout).map_err(|_| {
            let (out, err) = (output.stdout.trim(), output.stderr.trim());
            Failure::new(format!("{}: `i2planctl {}`: {out} {err}", self.name, args.join(" ")))
        })
    }

    /// The node's state.
    ///
    /// # Errors
    /// If it does not answer.
    pub async fn status(&self) -> Result<Status, Failure> {
        self.ctl(&["status"], "").await
    }

    /// The node's place in its network.
    ///
    /// # Errors
    /// If it is in none.
    pub async fn network(&self) -> Result<NetworkStatus, Failure> {
        self.status().await?.network.ok_or_else(|| Failure::new(format!("{} is in no network", self.name)))
    }

    /// Waits until something is so.
    ///
    /// # Errors
    /// If it does not become so in time; with why the last look at it failed, if it did.
    pub async fn until(
        &self,
        what: &str,
        deadline: Duration,
        condition: impl AsyncFn(&Self) -> Result<bool, Failure>,
    ) -> Result<(), Failure> {
        match wait::until(what, deadline, async || condition(self).await).await {
            Ok(()) => Ok(()),
            Err(failure) => Err(self.failure(&failure.to_string()).await),
        }
    }

    /// Waits until the node's sessions are open.
    ///
    /// # Errors
    /// If that takes too long.
    pub async fn ready(&self) -> Result<(), Failure> {
        self.until("its SAM sessions are open", Duration::from_secs(180), async |machine| {
            Ok(machine.status().await?.sessions_are_open())
        })
        .await
    }

    /// A failure of this machine, with the end of its log.
    pub async fn failure(&self, what: &str) -> Failure {
        let units = "journalctl --no-pager -n 60 -u 'i2plan*' 2>&1; systemctl list-units --all --no-pager 'i2plan*' 2>&1";
        let log = match self.run(&["sh", "-c", units], "").await {
            Ok(output) => output.stdout,
            Err(_) => tail(&self.log),
        };
        Failure::new(format!("machine {}: {what}; its log ends:\n{log}", self.name))
    }
}

/// Starts the container.
fn start(name: &str, root: &Path, log: &Path) -> Result<Child, Failure> {
    // It moves itself into its control groups, where systemd-nspawn makes others below.
    let script = "IFS=:; for group in $I2PLAN_LAB_CGROUPS; do \
                  mkdir -p \"$group/$1\"; echo $$ > \"$group/$1/cgroup.procs\"; done; unset IFS; shift; exec \"$@\"";
    let target = std::env::var(host::TARGET_VARIABLE).map_err(|_| Failure::new("no packages"))?;
    let namespace = crate::netns::path(name);
    let args = [
        "-euc",
        script,
        "sh",
        name,
        "systemd-nspawn",
        "--quiet",
        "--register=no",
        "--keep-unit",
        "--boot",
        "--console=pipe",
        // As on a machine, where systemd may lift the limit on locked memory.
        "--rlimit=RLIMIT_MEMLOCK=infinity",
        "--capability=CAP_NET_ADMIN,CAP_SYS_RESOURCE",
        "--bind=/dev/net/tun",
        // Which systemd-nspawn does not know, and so forbids.
        "--system-call-filter=landlock_create_ruleset landlock_add_rule landlock_restrict_self",
    ];
    let more = [
        format!("--machine={name}"),
        format!("--directory={}", root.display()),
        format!("--network-namespace-path={}", namespace.display()),
        format!("--bind-ro={target}/package:{PACKAGES}"),
        "systemd.unit=multi-user.target".to_owned(),
    ];
    let args = args.into_iter().map(OsString::from).chain(more.into_iter().map(OsString::from));
    Spawn::new(Path::new("/bin/sh"), args).variable("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "1").log(log).start()
}
