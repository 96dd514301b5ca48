//! A private I2P network of real routers.
//!
//! As on ordinary machines every node has its own router, with its SAM bridge on the node's loopback address
//! (emissary's bridge forwards datagrams to nowhere else). Routers that carry others' tunnels run together in
//! one process.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::Failure;
use crate::netns::Network;
use crate::process::{Child, Spawn};

pub mod router;
pub mod sam;

use router::{ProcessConfig, RouterConfig};

/// Routers that carry tunnels for the others.
const TRANSIT: u8 = 4;

/// Those of them that keep the network's database.
const FLOODFILL: u8 = 3;

/// TCP port of a router, the first of its host.
pub const PORT: u16 = 9000;

/// How long routers may take to start.
const START_DEADLINE: Duration = Duration::from_secs(30);

/// The network.
#[derive(Debug)]
pub struct PrivateNetwork {
    directory: PathBuf,
    /// The routers that carry tunnels, which end with this.
    _transit: Child,
}

impl PrivateNetwork {
    /// Starts the routers that carry tunnels, on addresses of the bridge in the "Internet".
    ///
    /// # Errors
    /// If they do not start.
    pub async fn start(directory: &Path, network: &Network) -> Result<Self, Failure> {
        let netdb = directory.join("netdb");
        std::fs::create_dir_all(&netdb)?;
        let routers = (0..TRANSIT).map(|index| RouterConfig {
            name: transit(index),
            address: network.internet_address(index),
            // A router listens on every address of its host, so those on one host differ in port.
            port: PORT + u16::from(index),
            floodfill: index < FLOODFILL,
            sam: false,
        });
        let config = ProcessConfig { netdb, keys: directory.join("transit"), routers: routers.collect() };
        // A router knows those whose infos are there when it starts. What it is to pass on to others, such as a new
        // lease set to a floodfill router, it drops without a word. So the first start is for the infos alone.
        start_process(directory, "transit", None, &config).await?.kill().await?;
        let transit = start_process(directory, "transit", None, &config).await?;
        Ok(Self { directory: directory.to_owned(), _transit: transit })
    }

    /// Starts (or starts again) the router of a node, in the node's namespace.
    ///
    /// # Errors
    /// If it does not start.
    pub async fn start_edge(&self, node: &str, address: Ipv4Addr) -> Result<Child, Failure> {
        let name = format!("router-{node}");
        let config = ProcessConfig {
            netdb: self.directory.join("netdb"),
            keys: self.directory.join(&name),
            routers: vec![RouterConfig {
                name: name.clone(),
                address,
                port: PORT,
                floodfill: false,
                sam: true,
            }],
        };
        start_process(&self.directory, &name, Some(node), &config).await
    }

    /// Puts what the routers that carry tunnels say of themselves into a new directory.
    ///
    /// # Errors
    /// If that cannot be written.
    pub fn copy_seed(&self, to: &Path) -> Result<(), Failure> {
        std::fs::create_dir(to)?;
        for index in 0..TRANSIT {
            let name = transit(index);
            std::fs::copy(self.directory.join("netdb").join(&name), to.join(&name))?;
        }
        Ok(())
    }
}

fn transit(index: u8) -> String {
    format!("transit{index}")
}

async fn start_process(
    directory: &Path,
    name: &str,
    namespace: Option<&str>,
    config: &ProcessConfig,
) -> Result<Child, Failure> {
    std::fs::create_dir_all(&config.keys)?;
    let path = directory.join(format!("{name}.json"));
    let text = serde_json::to_string(config).map_err(|error| Failure::new(error.to_string()))?;
    std::fs::write(&path, text)?;
    let log = directory.join(format!("{name}.log"));
    let mut child = Spawn::this_program(["__router".into(), path.into_os_string()])
        .namespace(namespace)
        .log(&log)
        .wait_for_line()?;
    let ready = tokio::time::timeout(START_DEADLINE, child.first_line()).await;
    match ready {
        Ok(Ok(line)) if line == "ready" => Ok(child),
        _ => Err(Failure::new(format!(
            "the I2P routers of {name} did not start; their log: {}",
            crate::tail(&log)
        ))),
    }
}
