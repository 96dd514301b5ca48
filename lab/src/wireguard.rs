//! WireGuard interfaces of other programs: wireguard-go of Debian, boringtun-cli of the Rust registry.

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use boringtun::x25519::{PublicKey, StaticSecret};
use data_encoding::BASE64;

use crate::Failure;
use crate::process::{Child, Output, Spawn};
use crate::sandbox::{DIRECTORY, find};

/// The UDP port that each of them listens on.
pub const PORT: u16 = 51820;

/// A program that implements WireGuard outside of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Implementation {
    /// wireguard-go.
    Go,
    /// boringtun-cli.
    Boringtun,
}

impl Implementation {
    /// The command that installs it.
    #[must_use]
    pub fn install(self) -> &'static str {
        match self {
            Self::Go => "apt-get install wireguard-go",
            Self::Boringtun => "cargo install boringtun-cli --version 0.7.1 --locked --root target/tools",
        }
    }

    /// Where it is, in the path or among the tools beside what cargo built; none if it is not installed.
    #[must_use]
    pub fn program(self) -> Option<PathBuf> {
        let name = match self {
            Self::Go => "wireguard-go",
            Self::Boringtun => "boringtun-cli",
        };
        let built = std::env::current_exe().ok();
        let tool = built.and_then(|own| Some(own.parent()?.parent()?.join("tools/bin").join(name)));
        find(name).or(tool.filter(|tool| tool.exists()))
    }

    fn args(self) -> &'static [&'static str] {
        match self {
            Self::Go => &["--foreground"],
            // Else it becomes the user that has called sudo.
            Self::Boringtun => &["--foreground", "--disable-drop-privileges"],
        }
    }

    /// What is missing to run it.
    #[must_use]
    pub fn missing(self) -> Option<&'static str> {
        if self.program().is_none() {
            return Some(self.install());
        }
        let tools = [("wg", "apt-get install wireguard-tools"), ("ip", "apt-get install iproute2")];
        tools.into_iter().find(|(tool, _)| find(tool).is_none()).map(|(_, install)| install)
    }
}

/// One of two ends.
#[derive(Debug, Clone, Copy)]
pub struct End<'a> {
    /// The namespace.
    pub namespace: &'a str,
    /// The interface's name, the only such one of all namespaces.
    pub interface: &'a str,
    /// Its address, which the other end sends to.
    pub address: Ipv4Addr,
    /// Where the other end finds it; none if it calls first.
    pub endpoint: Option<SocketAddr>,
}

/// Starts two interfaces, each the only peer of the other.
///
/// # Errors
/// If one does not start.
pub async fn pair(
    implementation: Implementation,
    ends: [End<'_>; 2],
    mtu: u16,
) -> Result<[Interface; 2], Failure> {
    let keys = [(); 2].map(|()| StaticSecret::from(rand::random::<[u8; 32]>()));
    let start = async |number: usize| {
        let (own, other) = (ends[number], ends[1 - number]);
        let address = format!("{}/24", own.address);
        let interface =
            Interface::start(implementation, own.namespace, own.interface, &[&address], mtu).await?;
        let mut text = format!(
            "PrivateKey = {}\n[Peer]\nPublicKey = {}\nAllowedIPs = {}/32\n",
            BASE64.encode(&keys[number].to_bytes()),
            BASE64.encode(PublicKey::from(&keys[1 - number]).as_bytes()),
            other.address,
        );
        if let Some(endpoint) = other.endpoint {
            text += &format!("Endpoint = {endpoint}\n");
        }
        interface.configure(&text).await?;
        Ok::<_, Failure>(interface)
    };
    Ok([start(0).await?, start(1).await?])
}

/// An interface in a network namespace. Ends when dropped.
#[derive(Debug)]
pub struct Interface {
    namespace: String,
    name: String,
    program: Child,
}

impl Interface {
    /// Starts an interface with these addresses and MTU. Its name must be the only such one of all namespaces, since `wg`
    /// finds it by a file.
    ///
    /// # Errors
    /// If it does not start.
    pub async fn start(
        implementation: Implementation,
        namespace: &str,
        name: &str,
        addresses: &[&str],
        mtu: u16,
    ) -> Result<Self, Failure> {
        let Some(path) = implementation.program() else {
            return Err(Failure::new(format!("{implementation:?} is missing: {}", implementation.install())));
        };
        std::fs::create_dir_all("/run/wireguard")?;
        let log = Path::new(DIRECTORY).join(format!("wireguard-{name}.log"));
        let args = implementation.args().iter().copied().chain([name]).map(OsString::from);
        let program = Spawn::new(&path, args).namespace(Some(namespace)).log(&log).start()?;
        let interface = Self { namespace: namespace.to_owned(), name: name.to_owned(), program };
        let there = async || Ok(interface.spawn("wg", &["show", name]).await?.status.success());
        crate::wait::until(&format!("{} answers", path.display()), Duration::from_secs(10), there).await?;
        for address in addresses {
            interface.run("ip", &["address", "add", address, "dev", name]).await?;
        }
        interface.run("ip", &["link", "set", name, "mtu", &mtu.to_string(), "up"]).await?;
        Ok(interface)
    }

    /// Has it take this for its configuration, as `wg setconf` reads it, but for its port.
    ///
    /// # Errors
    /// If `wg` refuses it.
    pub async fn configure(&self, text: &str) -> Result<(), Failure> {
        let file = Path::new(DIRECTORY).join(format!("wireguard-{}.conf", self.name));
        std::fs::write(&file, format!("[Interface]\nListenPort = {PORT}\n{text}\n"))?;
        self.run("wg", &["setconf", &self.name, &file.to_string_lossy()]).await.map(drop)
    }

    /// Has networks go through it.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub async fn route(&self, networks: &[&str]) -> Result<(), Failure> {
        for network in networks {
            self.run("ip", &["route", "add", network, "dev", &self.name]).await?;
        }
        Ok(())
    }

    /// When it last shook hands with its peer, Unix time in seconds; 0 if it never has.
    ///
    /// # Errors
    /// If `wg` fails.
    pub async fn last_handshake(&self) -> Result<u64, Failure> {
        let shown = self.run("wg", &["show", &self.name, "latest-handshakes"]).await?;
        let time = shown.stdout.split_whitespace().nth(1).and_then(|time| time.parse().ok());
        time.ok_or_else(|| Failure::new(format!("wg shows {:?}", shown.stdout)))
    }

    /// Runs a program in its namespace.
    ///
    /// # Errors
    /// If the program fails.
    pub async fn run(&self, program: &str, args: &[&str]) -> Result<Output, Failure> {
        let output = self.spawn(program, args).await?;
        if output.status.success() {
            return Ok(output);
        }
        Err(Failure::new(format!("{program} {args:?}: {}{}", output.stdout, output.stderr)))
    }

    /// The same; that the program fails is for the caller to see.
    ///
    /// # Errors
    /// If the program cannot be started.
    pub async fn spawn(&self, program: &str, args: &[&str]) -> Result<Output, Failure> {
        let path = find(program).ok_or_else(|| Failure::new(format!("there is no {program}")))?;
        Spawn::new(&path, args.iter().map(OsString::from)).namespace(Some(&self.namespace)).output("").await
    }

    /// The namespace that it is in.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.program.pid()
    }

    /// Ends it.
    ///
    /// # Errors
    /// If it cannot be ended.
    pub async fn stop(mut self) -> Result<(), Failure> {
        self.program.kill().await
    }
}
