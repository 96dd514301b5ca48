//! Java I2P as a router: its configuration, and its start. Who has it names its directory.

use std::path::{Path, PathBuf};

use super::i2pd::{fill_netdb, start_process};
use super::router::{NETWORK, ProcessConfig, RouterConfig, SamBridge, known_routers, publish};
use super::{LOG_VARIABLE, START_DEADLINE};
use crate::process::Child;
use crate::{Failure, sandbox, wait};

/// Names the directory of Java I2P: what its installer makes, with the libraries in `lib`.
pub(super) const DIRECTORY_VARIABLE: &str = "I2PLAN_LAB_JAVA_I2P";

/// The libraries that a router with SAM needs.
const JARS: [&str; 5] = ["i2p", "router", "mstreaming", "streaming", "sam"];

/// The libraries.
///
/// # Errors
/// If they, or Java, are missing; with what to do.
pub(super) fn jars() -> Result<Vec<PathBuf>, Failure> {
    let directory = std::env::var_os(DIRECTORY_VARIABLE).map(PathBuf::from).ok_or_else(|| {
        Failure::new(format!("Java I2P: set {DIRECTORY_VARIABLE} to the directory where it is installed"))
    })?;
    let jars = JARS.map(|name| directory.join("lib").join(format!("{name}.jar")));
    if let Some(missing) = jars.iter().find(|jar| !jar.is_file()) {
        return Err(Failure::new(format!(
            "{DIRECTORY_VARIABLE}={}: there is no Java I2P, for {} is missing",
            directory.display(),
            missing.display()
        )));
    }
    program()?;
    Ok(jars.into())
}

/// The file with the configuration of its SAM bridge.
const SAM_CLIENT: &str = "01-net.i2p.sam.SAMBridge-clients.config";

fn program() -> Result<PathBuf, Failure> {
    sandbox::find("java").ok_or_else(|| {
        Failure::new("Java I2P needs Java: install it (Debian: apt-get install default-jre-headless)")
    })
}

/// The arguments of `java` that run the router in the foreground.
pub(super) fn args(config: &ProcessConfig) -> Result<Vec<String>, Failure> {
    let jars: Vec<String> = jars()?.iter().map(|jar| jar.display().to_string()).collect();
    let data = config.keys.display();
    Ok(vec![
        "-Xmx192m".to_owned(),
        // Of the JVM's own start and memory, of which there are many here.
        "-XX:+UseSerialGC".to_owned(),
        "-XX:TieredStopAtLevel=1".to_owned(),
        "-Djava.net.preferIPv4Stack=true".to_owned(),
        format!("-Di2p.dir.base={data}"),
        format!("-Di2p.dir.config={data}"),
        "-cp".to_owned(),
        jars.join(":"),
        "net.i2p.router.RouterLaunch".to_owned(),
    ])
}

/// Starts a router, and waits until its bridge takes connections.
///
/// # Errors
/// If it does not start.
pub(super) async fn start(
    config: &ProcessConfig,
    namespace: Option<&str>,
    log: &Path,
) -> Result<Child, Failure> {
    let [router] = &config.routers[..] else { return Err(Failure::new("Java I2P is one router a process")) };
    let data = &config.keys;
    let settings = data.join("router.config");
    if !settings.exists() {
        // The router adds its keys for NTCP2, which others know from then on.
        std::fs::write(settings, text(router))?;
    }
    let programs = data.join("clients.config.d");
    std::fs::create_dir_all(&programs)?;
    if let Some(sam) = router.sam {
        std::fs::write(programs.join(SAM_CLIENT), sam_client(sam))?;
    }
    let level = std::env::var(LOG_VARIABLE).unwrap_or_else(|_| "ERROR".to_owned());
    std::fs::write(data.join("logger.config"), format!("logger.defaultLevel={}\n", level.to_uppercase()))?;
    fill_netdb(data, &known_routers(&config.netdb, &router.name)?)?;
    // What a router that was killed leaves keeps the next from starting for a minute.
    let _ = std::fs::remove_file(data.join("router.ping"));
    let child = start_process(&program()?, args(config)?, router, namespace, log).await?;
    let info = data.join("router.info");
    let address = router.address.to_string();
    // It writes one without an address first.
    wait::until("it says where it is", START_DEADLINE, async || {
        let info = std::fs::read(&info).unwrap_or_default();
        Ok(info.windows(address.len()).any(|window| window == address.as_bytes()))
    })
    .await?;
    publish(config, router, std::fs::read(info)?)?;
    Ok(child)
}

/// The configuration of the router. As with emissary a node's router carries no tunnels of others, see `router::start`.
fn text(router: &RouterConfig) -> String {
    let RouterConfig { address, port, floodfill, sam, .. } = router;
    let participating = if sam.is_some() { 0 } else { 1000 };
    // Several on one host would have it at one port.
    let interface = sam.is_none();
    format!(
        "router.networkID={NETWORK}\ni2np.allowLocal=true\nrouter.reseedDisable=true\nrouter.blocklist.enable=false\n\
         router.floodfillParticipant={floodfill}\nrouter.maxParticipatingTunnels={participating}\ni2cp.disableInterface={interface}\ntime.disabled=true\n\
         i2np.ntcp.hostname={address}\ni2np.ntcp.port={port}\ni2np.ntcp.autoip=false\ni2np.ntcp.autoport=false\n\
         i2np.udp.enable=false\n\
         i2np.bandwidth.inboundKBytesPerSecond=16000\ni2np.bandwidth.outboundKBytesPerSecond=16000\n\
         i2np.bandwidth.inboundBurstKBytesPerSecond=16000\ni2np.bandwidth.outboundBurstKBytesPerSecond=16000\n\
         router.inboundPool.length=1\nrouter.inboundPool.lengthVariance=0\n\
         router.outboundPool.length=1\nrouter.outboundPool.lengthVariance=0\n"
    )
}

/// The configuration of the router's SAM bridge.
fn sam_client(SamBridge { address, udp_port }: SamBridge) -> String {
    let host = address.ip();
    // The usual one is not said.
    let udp = if udp_port == SamBridge::USUAL.udp_port && host == SamBridge::USUAL.address.ip() {
        String::new()
    } else {
        format!(" sam.udp.host={host} sam.udp.port={udp_port}")
    };
    format!(
        "clientApp.0.main=net.i2p.sam.SAMBridge\nclientApp.0.name=SAM application bridge\n\
         clientApp.0.args=sam.keys {host} {} i2cp.tcp.host=127.0.0.1 i2cp.tcp.port=7654{udp}\n\
         clientApp.0.startOnLoad=true\nclientApp.0.delay=0\n",
        address.port()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guide_has_the_lines_that_the_routers_of_the_laboratory_have() {
        let guide = include_str!("../../../docs/guide.md");
        assert!(guide.contains(&format!("```\n{}```\n", sam_client(SamBridge::USUAL))));
        assert!(guide.contains(&format!("`clients.config.d/{SAM_CLIENT}`")));
    }
}
