//! A private I2P network of real routers, all of one kind or of several.
//!
//! As on ordinary machines every node has its own router, with its SAM bridge on the node's loopback address
//! (emissary's bridge forwards datagrams to nowhere else). Routers that carry others' tunnels run beside each other at
//! addresses of the bridge, those of emissary together in one process.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::future::try_join_all;
use i2plan_proto::sam::session::Tunnels;
use nix::sys::signal::Signal;

use crate::netns::Network;
use crate::process::{Child, Spawn, signal};
use crate::{Failure, tail};

mod i2pd;
mod java;
pub mod kind;
pub mod router;
pub mod sam;

use kind::{RouterKind, Routers};
use router::{ProcessConfig, RouterConfig, SamBridge};

/// How many of the routers that carry tunnels keep the network's database: the first.
const FLOODFILL: u8 = 3;

/// TCP port of a router, the first of its host.
pub const PORT: u16 = 9000;

/// How long routers may take to start.
const START_DEADLINE: Duration = Duration::from_secs(90);

/// What routers log: a filter for emissary, a level for i2pd and Java I2P.
pub const LOG_VARIABLE: &str = "I2PLAN_LAB_ROUTER_LOG";

/// The network.
#[derive(Debug)]
pub struct PrivateNetwork {
    directory: PathBuf,
    routers: Routers,
    /// The routers that carry tunnels, which end with this.
    _transit: Vec<Router>,
}

impl PrivateNetwork {
    /// Starts the routers that carry tunnels, on addresses of the bridge in the "Internet".
    ///
    /// # Errors
    /// If they do not start.
    pub async fn start(directory: &Path, network: &Network, routers: Routers) -> Result<Self, Failure> {
        std::fs::create_dir_all(directory.join("netdb"))?;
        let (mut transit, mut emissary) = (Vec::new(), Vec::new());
        for index in 0..routers.transit() {
            let (kind, name) = (routers.kind(index), transit_name(index));
            // Java I2P takes those at one address for one, from which it accepts no more after some failures.
            let namespace = (kind == RouterKind::Java).then_some(name.as_str());
            let address = match namespace {
                Some(namespace) => network.add_node(namespace, u8::MAX - 1 - index).await?,
                None => network.internet_address(index),
            };
            let config = RouterConfig {
                name: name.clone(),
                address,
                // A router listens on every address of its host, so those on one host differ in port. Java I2P does not
                // take 9001.
                port: PORT + if namespace.is_none() { u16::from(index) } else { 0 },
                floodfill: index < FLOODFILL,
                sam: None,
            };
            match kind {
                RouterKind::Emissary => emissary.push(config),
                kind => transit.push(Router::new(kind, directory, &name, namespace, vec![config])),
            }
        }
        if !emissary.is_empty() {
            transit.push(Router::new(RouterKind::Emissary, directory, "transit", None, emissary));
        }
        // A router knows those whose infos are there when it starts. What it is to pass on to others, such as a new
        // lease set to a floodfill router, it drops without a word. So the first start is for the infos alone.
        try_join_all(transit.iter_mut().map(Router::start)).await?;
        try_join_all(transit.iter_mut().map(Router::kill)).await?;
        try_join_all(transit.iter_mut().map(Router::start)).await?;
        Ok(Self { directory: directory.to_owned(), routers, _transit: transit })
    }

    /// None at all, for nodes whose bridges are something else.
    #[must_use]
    pub fn none(directory: &Path) -> Self {
        Self { directory: directory.to_owned(), routers: Routers::default(), _transit: Vec::new() }
    }

    /// What its routers are.
    #[must_use]
    pub fn routers(&self) -> Routers {
        self.routers
    }

    /// Starts the router of a node, in the node's namespace.
    ///
    /// # Errors
    /// If it does not start.
    pub async fn start_edge(
        &self,
        node: &str,
        address: Ipv4Addr,
        kind: RouterKind,
        sam: SamBridge,
    ) -> Result<Router, Failure> {
        let name = format!("router-{node}");
        let config =
            RouterConfig { name: name.clone(), address, port: PORT, floodfill: false, sam: Some(sam) };
        let mut router = Router::new(kind, &self.directory, &name, Some(node), vec![config]);
        router.start().await?;
        Ok(router)
    }

    /// Puts what the routers that carry tunnels say of themselves into a new directory.
    ///
    /// # Errors
    /// If that cannot be written.
    pub fn copy_seed(&self, to: &Path) -> Result<(), Failure> {
        std::fs::create_dir(to)?;
        for index in 0..self.routers.transit() {
            let name = transit_name(index);
            std::fs::copy(self.directory.join("netdb").join(&name), to.join(&name))?;
        }
        Ok(())
    }

    /// Puts it into the data directory of an i2pd that is not one of this network's routers.
    ///
    /// # Errors
    /// If that cannot be written.
    pub fn fill_i2pd(&self, data: &Path) -> Result<(), Failure> {
        i2pd::fill_netdb(data, &router::known_routers(&self.directory.join("netdb"), "")?)
    }
}

fn transit_name(index: u8) -> String {
    format!("transit{index}")
}

/// A tunnel that a router itself offers, which carries UDP between a port of its host and one of another's.
#[derive(Debug, Clone)]
pub struct UdpTunnel {
    /// Which end the router is.
    pub end: UdpTunnelEnd,
    /// The port of the server's host.
    pub port: u16,
    /// The I2P tunnels under it.
    pub tunnels: Tunnels,
}

/// An end of such a tunnel.
#[derive(Debug, Clone)]
pub enum UdpTunnelEnd {
    /// It hands what comes to the port.
    Server,
    /// It takes what programs send to a port of its own.
    Client {
        /// The name of the server's destination.
        destination: String,
        /// The port.
        listen: u16,
    },
}

/// A process of routers, which is killed when this is dropped: a node's router, or routers that carry tunnels.
#[derive(Debug)]
pub struct Router {
    kind: RouterKind,
    config: ProcessConfig,
    /// The configuration of emissary.
    file: PathBuf,
    log: PathBuf,
    namespace: Option<String>,
    /// None while it does not run.
    child: Option<Child>,
}

impl Router {
    /// Whether programs find its SAM bridge where one usually is.
    #[must_use]
    pub fn has_usual_bridge(&self) -> bool {
        self.config.routers.iter().any(|router| router.sam == Some(SamBridge::USUAL))
    }

    fn new(
        kind: RouterKind,
        directory: &Path,
        name: &str,
        namespace: Option<&str>,
        routers: Vec<RouterConfig>,
    ) -> Self {
        let config = ProcessConfig { netdb: directory.join("netdb"), keys: directory.join(name), routers };
        Self {
            kind,
            config,
            file: directory.join(format!("{name}.json")),
            log: directory.join(format!("{name}.log")),
            namespace: namespace.map(ToOwned::to_owned),
            child: None,
        }
    }

    /// The program that it is.
    #[must_use]
    pub fn kind(&self) -> RouterKind {
        self.kind
    }

    /// Its process id.
    ///
    /// # Errors
    /// If it does not run.
    pub fn pid(&self) -> Result<u32, Failure> {
        self.child.as_ref().map(Child::pid).ok_or_else(|| Failure::new("the router does not run"))
    }

    /// Starts it, or starts it again, with the keys that it had, and waits until it takes connections.
    ///
    /// # Errors
    /// If it does not start.
    pub async fn start(&mut self) -> Result<(), Failure> {
        self.kill().await?;
        std::fs::create_dir_all(&self.config.keys)?;
        let child = match self.kind {
            RouterKind::Emissary => self.start_emissary().await?,
            RouterKind::I2pd => i2pd::start(&self.config, self.namespace.as_deref(), &self.log).await?,
            RouterKind::Java => java::start(&self.config, self.namespace.as_deref(), &self.log).await?,
        };
        self.child = Some(child);
        Ok(())
    }

    async fn start_emissary(&self) -> Result<Child, Failure> {
        let text = serde_json::to_string(&self.config).map_err(|error| Failure::new(error.to_string()))?;
        std::fs::write(&self.file, text)?;
        let mut child = Spawn::this_program(["__router".into(), self.file.clone().into_os_string()])
            .namespace(self.namespace.as_deref())
            .log(&self.log)
            .wait_for_line()?;
        let ready = tokio::time::timeout(START_DEADLINE, child.first_line()).await;
        match ready {
            Ok(Ok(line)) if line == "ready" => Ok(child),
            _ => Err(Failure::new(format!(
                "the I2P routers of {} did not start; their log: {}",
                self.file.display(),
                tail(&self.log)
            ))),
        }
    }

    /// Has it offer a UDP tunnel from its next start on. Only i2pd has such tunnels.
    ///
    /// # Errors
    /// If it is not i2pd, or its files cannot be written.
    pub fn set_udp_tunnel(&self, tunnel: &UdpTunnel) -> Result<(), Failure> {
        match self.kind {
            RouterKind::I2pd => i2pd::set_udp_tunnel(&self.config, tunnel),
            kind => Err(Failure::new(format!("{kind:?} has no UDP tunnels"))),
        }
    }

    /// The name of the destination of the UDP tunnel that it offers; none as long as it has not made the keys.
    #[must_use]
    pub fn udp_tunnel_name(&self) -> Option<String> {
        i2pd::udp_tunnel_name(&self.config)
    }

    /// The command that starts it again by hand, in the foreground, in its namespace.
    #[must_use]
    pub fn command(&self) -> String {
        match self.kind {
            RouterKind::Emissary => format!("lab __router {}", self.file.display()),
            RouterKind::I2pd => {
                let (program, args) = i2pd::command(&self.config);
                format!("{} {}", program.display(), args.join(" "))
            }
            RouterKind::Java => format!("java {}", java::args(&self.config).unwrap_or_default().join(" ")),
        }
    }

    /// Kills it, if it runs.
    ///
    /// # Errors
    /// If it cannot be killed.
    pub async fn kill(&mut self) -> Result<(), Failure> {
        match self.child.take() {
            Some(mut child) => child.kill().await,
            None => Ok(()),
        }
    }

    /// Asks it to stop, if it runs, and waits until it has.
    ///
    /// # Errors
    /// If it cannot be asked.
    pub async fn stop(&mut self) -> Result<(), Failure> {
        match self.child.take() {
            Some(mut child) => child.stop().await.map(drop),
            None => Ok(()),
        }
    }

    /// Lets it hang (SIGSTOP), until [`Router::resume`].
    ///
    /// # Errors
    /// If it does not run.
    pub fn pause(&self) -> Result<(), Failure> {
        signal(self.pid()?, Signal::SIGSTOP)
    }

    /// Lets it go on (SIGCONT).
    ///
    /// # Errors
    /// If it does not run.
    pub fn resume(&self) -> Result<(), Failure> {
        signal(self.pid()?, Signal::SIGCONT)
    }
}
