//! Two machines as README has it: Debian's i2pd, the package, and two commands on each.
//!
//! Their routers are of the machines' release, and so are those that carry tunnels: i2pd 2.56 publishes nothing at the
//! older ones of other releases, nor at emissary's.

use std::path::Path;
use std::time::{Duration, Instant};

use super::machine::Machine;
use super::options::Options;
use super::report::Check;
use super::systems::Systems;
use super::{lifetime, traffic};
use crate::Failure;
use crate::i2p::kind::Routers;
use crate::i2p::router::NETWORK;
use crate::i2p::{PORT, PrivateNetwork};
use crate::netns::Network;
use crate::progress::Progress;
use crate::sandbox::DIRECTORY;

/// The machines, and their places in the "Internet".
const MACHINES: [(&str, u8); 2] = [("debian1", 5), ("debian2", 6)];

/// How long a fresh i2pd may take until its tunnels carry something.
const READY: Duration = Duration::from_secs(300);

/// Runs it, in place of the other machines and routers.
///
/// # Errors
/// If a machine does not get so far.
pub async fn run(systems: Systems, options: &Options, progress: &Progress) -> Result<Vec<Check>, Failure> {
    progress.step("Debian's i2pd, the package and two commands");
    let Systems { network, i2p, routers, one, two } = systems;
    drop((i2p, routers, one, two));
    let i2p = PrivateNetwork::start(&Path::new(DIRECTORY).join("debian"), &network, Routers::I2pd).await?;
    let mut machines = Vec::new();
    for (name, number) in MACHINES {
        machines.push(with_router(name, number, &network, &i2p, options).await?);
    }
    let [one, two] = &machines[..] else { return Err(Failure::new("two machines are needed")) };
    let mut checks = vec![install(one).await?, install(two).await?];

    let started = Instant::now();
    lifetime::join_by(two, one).await?;
    traffic::reach(one, two.network().await?.ipv4).await?;
    let detail =
        format!("a ping came back both ways {:.1} s after `invite create`", started.elapsed().as_secs_f64());
    checks.push(Check::new("Debian's i2pd: two machines are a network with two commands each", true, detail));
    for machine in &machines {
        let report = machine.run(&["i2planctl", "doctor"], "").await?.stdout;
        let problem = report.lines().find(|line| line.contains("PROBLEM"));
        checks.push(Check::new(
            format!("{}: doctor sees no problem", machine.name),
            problem.is_none(),
            problem.unwrap_or("none").trim(),
        ));
    }
    for mut machine in machines {
        machine.off().await?;
    }
    Ok(checks)
}

/// A machine with Debian's i2pd, whose configuration is Debian's but for what makes this a network of its own.
async fn with_router(
    name: &str,
    number: u8,
    network: &Network,
    i2p: &PrivateNetwork,
    options: &Options,
) -> Result<Machine, Failure> {
    let address = network.add_node(name, number).await?;
    let machine = Machine::boot(name, address, &options.suite).await?;
    machine.apt("install i2pd").await?;
    i2p.fill_i2pd(&machine.path("/var/lib/i2pd"))?;
    machine
        .shell(&format!(
            "systemctl stop i2pd; rm -f /var/lib/i2pd/router.*; chown -R i2pd: /var/lib/i2pd/netDb; \
             sed -i -e '1i netid = {NETWORK}\\nnat = false\\nhost = {address}\\naddress4 = {address}\\n\
                        port = {PORT}\\nreservedrange = false\\nnotransit = true' \
                 -e '/^\\[ntcp2\\]/a published = true\\nport = {PORT}' -e '/^\\[ssu2\\]/a enabled = false' \
                 -e '/^\\[reseed\\]/a threshold = 0' /etc/i2pd/i2pd.conf; \
             systemctl start i2pd"
        ))
        .await?;
    Ok(machine)
}

/// Installs the package and starts the node.
async fn install(machine: &Machine) -> Result<Check, Failure> {
    let started = Instant::now();
    machine.apt(&lifetime::first_package()).await?;
    let installed = started.elapsed().as_secs_f64();
    machine.shell("i2planctl status").await?;
    let open = async |machine: &Machine| Ok(machine.status().await?.sessions_are_open());
    machine.until("its SAM sessions are open", READY, open).await?;
    let ready = started.elapsed().as_secs_f64();
    Ok(Check::new(
        format!(
            "{}: with Debian's i2pd the package and `i2planctl status` are all that a node needs",
            machine.name
        ),
        true,
        format!("installed after {installed:.1} s, its sessions open after {ready:.1} s"),
    ))
}
