//! What a process of routers is to be; and one of emissary's: `lab __router`.

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use emissary_core::{BandwidthConfig, Config, Ntcp2Config, SamConfig, TransitConfig};
use i2plan_routerd::EVENTS_EVERY;
use serde::{Deserialize, Serialize};

use crate::Failure;

/// The private network's id: routers of other networks do not speak to these.
pub const NETWORK: u8 = 99;

/// What one router is to be.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RouterConfig {
    /// Names its files.
    pub name: String,
    /// Where other routers reach it.
    pub address: Ipv4Addr,
    /// Its TCP port there.
    pub port: u16,
    /// Whether it keeps the network's database.
    pub floodfill: bool,
    /// Its SAM bridge, if it has one.
    pub sam: Option<SamBridge>,
}

/// Where a router has its SAM bridge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SamBridge {
    /// Its address, for TCP.
    pub address: SocketAddr,
    /// Its UDP port at the same IP address.
    pub udp_port: u16,
}

impl SamBridge {
    /// The usual one.
    pub const USUAL: Self = Self { address: SAM, udp_port: 7655 };
}

/// What one process is to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ProcessConfig {
    /// Where all routers leave their router infos, and learn of each other.
    pub netdb: PathBuf,
    /// Where this process keeps its routers' keys, and i2pd all that it has.
    pub keys: PathBuf,
    /// Its routers.
    pub routers: Vec<RouterConfig>,
}

/// Keys of a router, which make it the same one after a restart.
#[derive(Serialize, Deserialize)]
struct Keys {
    identity: [u8; 32],
    signing: [u8; 32],
    ntcp2: [u8; 32],
    iv: [u8; 16],
}

impl Keys {
    fn load_or_create(path: &Path) -> Result<Self, Failure> {
        if let Ok(text) = std::fs::read_to_string(path) {
            return serde_json::from_str(&text)
                .map_err(|error| Failure::new(format!("{}: {error}", path.display())));
        }
        let mut bytes = [0u8; 112];
        getrandom::fill(&mut bytes).map_err(|error| Failure::new(format!("no randomness: {error}")))?;
        let part = |at: usize| std::array::from_fn(|index| bytes[at + index]);
        let keys = Self {
            identity: part(0),
            signing: part(32),
            ntcp2: part(64),
            iv: std::array::from_fn(|index| bytes[96 + index]),
        };
        let text = serde_json::to_string(&keys).map_err(|error| Failure::new(error.to_string()))?;
        std::fs::write(path, text)?;
        Ok(keys)
    }
}

/// Runs routers for as long as the process lives. Prints a line once they are up.
///
/// # Errors
/// If a router cannot be started.
pub async fn run(config: ProcessConfig) -> Result<(), Failure> {
    for router in &config.routers {
        start(router, &config).await?;
    }
    println!("ready");
    std::io::stdout().flush()?;
    std::future::pending().await
}

async fn start(router: &RouterConfig, process: &ProcessConfig) -> Result<(), Failure> {
    let keys = Keys::load_or_create(&process.keys.join(format!("{}.json", router.name)))?;
    let config = Config {
        net_id: Some(NETWORK),
        allow_local: true,
        insecure_tunnels: true,
        // G: it takes no tunnels of others. They went on to ask it before, and were refused.
        caps: Some(
            match (router.floodfill, router.sam) {
                (true, _) => "XfR",
                (false, None) => "XR",
                (false, Some(_)) => "XRG",
            }
            .to_owned(),
        ),
        floodfill: router.floodfill,
        bandwidth: Some(BandwidthConfig { bandwidth: 1 << 30, share_ratio: 0.9 }),
        // A node's router carries nobody else's tunnels. In a network this small it would soon carry most of them,
        // and a test that kills it would test little else than that.
        transit: router.sam.is_none().then_some(TransitConfig { max_tunnels: None }),
        // The identity's padding is random, so without the router info of before the same keys would make another
        // router, at an address where all others expect the old one.
        router_info: std::fs::read(process.netdb.join(&router.name)).ok(),
        static_key: Some(keys.identity),
        signing_key: Some(keys.signing),
        ntcp2: Some(Ntcp2Config {
            ipv4: true,
            ipv4_host: Some(router.address),
            ipv6: false,
            ipv6_host: None,
            iv: keys.iv,
            key: keys.ntcp2,
            port: router.port,
            publish: true,
            ml_kem: None,
            disable_pq: true,
        }),
        refresh_interval: Some(EVENTS_EVERY),
        samv3_config: router.sam.map(|sam| SamConfig {
            tcp_port: sam.address.port(),
            udp_port: sam.udp_port,
            host: sam.address.ip().to_string(),
        }),
        routers: known_routers(&process.netdb, &router.name)?,
        ..Config::default()
    };
    let started = i2plan_routerd::router::start(config, None).await;
    let (running, events, info) =
        started.map_err(|error| Failure::new(format!("router {} does not start: {error:?}", router.name)))?;
    publish(process, router, info)?;
    tokio::spawn(async move {
        let _events = events;
        running.await;
    });
    Ok(())
}

/// Leaves a router's info where the others find it.
pub(super) fn publish(process: &ProcessConfig, router: &RouterConfig, info: Vec<u8>) -> Result<(), Failure> {
    // Under another name first: a router that reads this directory now must not find half a file.
    let partial = process.netdb.join(format!(".{}", router.name));
    std::fs::write(&partial, info)?;
    Ok(std::fs::rename(&partial, process.netdb.join(&router.name))?)
}

/// The infos of all routers but this one.
pub(super) fn known_routers(netdb: &Path, own: &str) -> Result<Vec<Vec<u8>>, Failure> {
    let mut infos = Vec::new();
    for entry in std::fs::read_dir(netdb)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name != own && !name.starts_with('.') {
            infos.push(std::fs::read(entry.path())?);
        }
    }
    Ok(infos)
}

/// The bridge that a router with SAM offers to programs on its own host.
pub const SAM: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 7656);
