//! i2pd as a router: its configuration, and its start.

use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use i2plan_proto::destination::{base64, hash_of};
use i2plan_proto::sam::session::Tunnels;

use super::router::{NETWORK, ProcessConfig, RouterConfig, SamBridge, known_routers, publish};
use super::{LOG_VARIABLE, START_DEADLINE, UdpTunnel, UdpTunnelEnd};
use crate::process::{Child, Spawn};
use crate::{Failure, netns, sandbox, tail, wait};

/// How long a connection to a router that starts may take.
const CONNECT: Duration = Duration::from_millis(200);

/// Bytes of an identity in front of its certificate, and the certificate's header.
const IDENTITY: usize = 384;
const CERTIFICATE: usize = 3;

/// The file of the tunnels that a router itself offers to programs, and the keys of these.
const TUNNELS: &str = "tunnels.conf";
const TUNNEL_KEYS: &str = "udp-tunnel.dat";

/// The installed i2pd.
///
/// # Errors
/// If there is none; with what to install.
pub(super) fn program() -> Result<PathBuf, Failure> {
    // Debian's is where an ordinary user's path does not lead.
    let debian = Some(PathBuf::from("/usr/sbin/i2pd")).filter(|program| program.is_file());
    sandbox::find("i2pd").or(debian).ok_or_else(|| {
        Failure::new(
            "i2pd is not installed: install it (Debian: apt-get install i2pd), or use emissary's routers",
        )
    })
}

/// The command that runs the router in the foreground.
pub(super) fn command(config: &ProcessConfig) -> (PathBuf, Vec<String>) {
    let (data, tunnels) = (config.keys.display(), config.keys.join(TUNNELS));
    let tunnels = if tunnels.exists() { tunnels } else { PathBuf::from("/dev/null") };
    let args = [
        format!("--conf={data}/i2pd.conf"),
        format!("--datadir={data}"),
        format!("--tunconf={}", tunnels.display()),
        format!("--tunnelsdir={data}/none"),
    ];
    (config.keys.join("i2pd"), args.into())
}

/// Starts a router, and waits until it takes connections.
///
/// # Errors
/// If it does not start.
pub(super) async fn start(
    config: &ProcessConfig,
    namespace: Option<&str>,
    log: &Path,
) -> Result<Child, Failure> {
    let [router] = &config.routers[..] else { return Err(Failure::new("i2pd is one router a process")) };
    let data = &config.keys;
    std::fs::write(data.join("i2pd.conf"), text(router))?;
    fill_netdb(data, &known_routers(&config.netdb, &router.name)?)?;
    let (program, args) = command(config);
    if !program.exists() {
        // Where AppArmor is on, Debian confines the program at its own path to the directories of the service.
        std::fs::copy(self::program()?, &program)?;
    }
    let child = start_process(&program, args, router, namespace, log).await?;
    // 2.56 may listen before it has written what it says of itself.
    let info = data.join("router.info");
    let is_written = async || Ok(info.metadata().is_ok_and(|metadata| metadata.len() > 0));
    wait::until("its router info is written", START_DEADLINE, is_written).await?;
    publish(config, router, std::fs::read(&info)?)?;
    Ok(child)
}

/// Has a router offer a UDP tunnel from its next start on.
///
/// # Errors
/// If its files cannot be written.
pub(super) fn set_udp_tunnel(config: &ProcessConfig, tunnel: &UdpTunnel) -> Result<(), Failure> {
    let UdpTunnel { end, port, tunnels: Tunnels { length, quantity, .. } } = tunnel;
    let end = match end {
        UdpTunnelEnd::Server => format!("type = udpserver\nhost = 127.0.0.1\nport = {port}\n"),
        UdpTunnelEnd::Client { destination, listen } => format!(
            "type = udpclient\naddress = 127.0.0.1\nport = {listen}\n\
             destination = {destination}\ndestinationport = {port}\n"
        ),
    };
    // What is encrypted does not get shorter.
    let text = format!(
        "[udp-tunnel]\n{end}keys = {TUNNEL_KEYS}\ngzip = false\n\
         inbound.length = {length}\noutbound.length = {length}\n\
         inbound.quantity = {quantity}\noutbound.quantity = {quantity}\n"
    );
    Ok(std::fs::write(config.keys.join(TUNNELS), text)?)
}

/// The name of the destination of the UDP tunnel that a router offers; none as long as it has not made its keys.
pub(super) fn udp_tunnel_name(config: &ProcessConfig) -> Option<String> {
    let keys = std::fs::read(config.keys.join(TUNNEL_KEYS)).ok()?;
    Some(hash_of(identity(&keys).ok()?).b32())
}

/// The identity at the beginning of a router info or of private keys.
fn identity(bytes: &[u8]) -> Result<&[u8], Failure> {
    let short = || Failure::new("an identity is too short");
    let header = bytes.get(IDENTITY..IDENTITY + CERTIFICATE).ok_or_else(short)?;
    let certificate = CERTIFICATE + usize::from(u16::from_be_bytes([header[1], header[2]]));
    bytes.get(..IDENTITY + certificate).ok_or_else(short)
}

/// Starts a router that does not announce that it is ready, and waits until it takes connections.
///
/// # Errors
/// If it does not start.
pub(super) async fn start_process(
    program: &Path,
    args: impl IntoIterator<Item = String>,
    router: &RouterConfig,
    namespace: Option<&str>,
    log: &Path,
) -> Result<Child, Failure> {
    let args = args.into_iter().map(Into::into);
    let mut child = Spawn::new(program, args).namespace(namespace).log(log).start()?;
    let target = router.sam.map_or((router.address, router.port).into(), |sam| sam.address);
    let ready =
        wait::until("it takes connections", START_DEADLINE, async || takes_connections(namespace, target));
    let failure = tokio::select! {
        ready = ready => match ready {
            Ok(()) => return Ok(child),
            Err(failure) => failure,
        },
        ended = child.wait() => Failure::new(format!("it ended with {}", ended?)),
    };
    Err(Failure::new(format!(
        "{} of {} did not start ({failure}); its log: {}",
        program.display(),
        router.name,
        tail(log)
    )))
}

fn takes_connections(namespace: Option<&str>, target: SocketAddr) -> Result<bool, Failure> {
    let connect = move || Ok(TcpStream::connect_timeout(&target, CONNECT).is_ok());
    match namespace {
        Some(namespace) => netns::within(namespace, connect),
        None => connect(),
    }
}

/// Writes router infos to the places where i2pd and Java I2P look for them.
pub(super) fn fill_netdb(data: &Path, infos: &[Vec<u8>]) -> Result<(), Failure> {
    for info in infos {
        let id = base64().encode(&hash_of(identity(info)?).0);
        let directory = data.join("netDb").join(format!("r{}", &id[..1]));
        std::fs::create_dir_all(&directory)?;
        std::fs::write(directory.join(format!("routerInfo-{id}.dat")), info)?;
    }
    Ok(())
}

/// The configuration file.
fn text(router: &RouterConfig) -> String {
    let RouterConfig { address, port, floodfill, sam, .. } = router;
    let SamBridge { address: bridge, udp_port } = sam.unwrap_or(SamBridge::USUAL);
    // i2pd 2.45.1 has no choice.
    let udp = if udp_port == bridge.port() - 1 { String::new() } else { format!("portudp = {udp_port}\n") };
    let level = std::env::var(LOG_VARIABLE).unwrap_or_else(|_| "warn".to_owned());
    // `reservedrange` allows less than its name says: routers at 127/8 and 10/8 are refused all the same, those at
    // 198.18/15 are not. The address book must be on: i2pd 2.45.1 crashes without it at the first look-up of a name. As
    // with emissary a node's router carries no tunnels of others, see `router::start`.
    format!(
        "log = stdout\nloglevel = {level}\nipv6 = false\nnat = false\nhost = {address}\naddress4 = {address}\n\
         port = {port}\nnetid = {NETWORK}\nreservedrange = false\nbandwidth = X\nfloodfill = {floodfill}\n\
         notransit = {}\n\
         [ntcp2]\npublished = true\nport = {port}\n\
         [ssu2]\nenabled = false\npublished = false\n\
         [http]\nenabled = false\n[httpproxy]\nenabled = false\n[socksproxy]\nenabled = false\n\
         [i2cp]\nenabled = false\n[upnp]\nenabled = false\n\
         [reseed]\nthreshold = 0\nurls =\n\
         [addressbook]\nenabled = true\ndefaulturl = http://127.0.0.1:1/\nsubscriptions =\n\
         [persist]\nprofiles = false\n\
         [sam]\nenabled = {}\naddress = {}\nport = {}\n{udp}",
        sam.is_some(),
        sam.is_some(),
        bridge.ip(),
        bridge.port(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn router_infos_are_filed_under_the_hash_of_their_identity() {
        let directory = tempfile::tempdir().unwrap();
        // An identity with a certificate of 4 bytes, and what follows it.
        let mut info = vec![1; IDENTITY];
        info.extend([5, 0, 4, 0, 7, 0, 4]);
        let id = base64().encode(&hash_of(&info).0);
        info.extend([9; 20]);
        fill_netdb(directory.path(), &[info.clone()]).unwrap();
        let path = format!("netDb/r{}/routerInfo-{id}.dat", &id[..1]);
        assert_eq!(std::fs::read(directory.path().join(path)).unwrap(), info);
        for cut in [IDENTITY, IDENTITY + CERTIFICATE + 3] {
            fill_netdb(directory.path(), &[info[..cut].to_vec()]).expect_err("it is too short");
        }
    }
}
