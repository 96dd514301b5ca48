//! Members' names where systemd-resolved runs: the service of the package, switched on as docs/names.md says.

use std::net::Ipv4Addr;
use std::time::Duration;

use serde::Deserialize;

use super::machine::Machine;
use super::report::Check;
use super::systems::Systems;
use crate::Failure;
use crate::progress::Progress;

/// How long a name may take to be found, or to be no more: the daemon starts, and then asks the node every five seconds.
const TOLD: Duration = Duration::from_secs(60);

/// What both services are once they do what they are for.
const UNITS: &str = "i2plan-named.service i2plan-resolved.service";

/// What `i2planctl names` lists.
#[derive(Deserialize)]
struct Names {
    names: Vec<Name>,
}

#[derive(Deserialize)]
struct Name {
    label: String,
    ipv4: Ipv4Addr,
}

/// Runs it.
///
/// # Errors
/// If the services cannot be switched on.
pub async fn run(systems: &Systems, progress: &Progress) -> Result<Vec<Check>, Failure> {
    progress.step("members' names in systemd-resolved");
    let Systems { one, two, .. } = systems;
    one.apt("install systemd-resolved libnss-resolve").await?;
    // dbus-daemon does not know its user yet when it starts by itself.
    one.shell("systemctl restart systemd-resolved").await?;
    let before = settings(one).await?;
    one.shell("i2planctl config set names.enabled true --save; systemctl enable --now i2plan-named").await?;
    let (network, other) = (one.network().await?, two.network().await?);
    // Both machines call themselves the same, so that neither has that alone.
    let names: Names = one.ctl(&["names"], "").await?;
    let name = names.names.into_iter().find(|name| name.ipv4 == other.ipv4).map(|name| name.label);
    let name = name.ok_or_else(|| Failure::new("the other machine has no name"))?;
    let whole = format!("{name}.{}.internal", network.name);
    let (address, short) = (other.ipv4.to_string(), name.as_str());
    let mut checks = Vec::new();
    found(one, &whole, &address).await?;
    checks.push(Check::new("names: a member's name is found through systemd-resolved", true, whole.clone()));
    checks.push(resolves(one, "names: its first part alone is enough", short, &address).await?);
    let back = one.shell(&format!("resolvectl query {address} 2>&1 || true")).await?;
    checks.push(Check::new("names: an address has the name", back.contains(&whole), back));
    let other_domain = one
        .shell("resolvectl domain i2plan0; resolvectl default-route i2plan0; resolvectl llmnr i2plan0")
        .await?;
    checks.push(Check::new(
        "names: the interface is asked for its network alone, and not by multicast",
        other_domain.matches(": no").count() == 2 && !other_domain.contains("~.\n"),
        other_domain.replace('\n', "; "),
    ));

    progress.step("names: the tunnel is restarted, the interface made anew, systemd-resolved restarted");
    let made = "systemctl stop i2plan-tund; systemctl start i2plan-tund";
    for (what, script) in [
        ("after the interface was made anew", made),
        ("after a restart of systemd-resolved", "systemctl restart systemd-resolved"),
        ("after a restart of the name server", "systemctl restart i2plan-named"),
    ] {
        one.shell(script).await?;
        let again = found(one, &whole, &address).await;
        let detail = again.as_ref().err().map_or_else(|| "found".to_owned(), ToString::to_string);
        checks.push(Check::new(format!("names: found again {what}"), again.is_ok(), detail));
    }

    one.shell("systemctl disable --now i2plan-named; i2planctl config set names.enabled false --save")
        .await?;
    let running = one.shell(&format!("systemctl is-active {UNITS} || true")).await?;
    let after = settings(one).await?;
    checks.push(Check::new(
        "names: switched off, nothing of them is left in systemd-resolved",
        after == before && running.lines().all(|state| state == "inactive"),
        format!("{running}; {after}").replace('\n', "; "),
    ));
    // The machine is as it was, for what follows.
    one.apt("purge systemd-resolved libnss-resolve").await?;
    one.shell("userdel systemd-resolve").await?;
    Ok(checks)
}

/// What systemd-resolved has been told of all interfaces, whatever their numbers are.
async fn settings(machine: &Machine) -> Result<String, Failure> {
    machine.shell("{ resolvectl dns; resolvectl domain; } | sed 's/^Link [0-9]*//' | sort").await
}

/// Waits until a name has this address.
async fn found(machine: &Machine, name: &str, address: &str) -> Result<(), Failure> {
    machine
        .until(&format!("{name} is {address}"), TOLD, async |machine| {
            Ok(look_up(machine, name).await?.split_whitespace().next() == Some(address))
        })
        .await
}

async fn resolves(machine: &Machine, what: &str, name: &str, address: &str) -> Result<Check, Failure> {
    let found = look_up(machine, name).await?;
    Ok(Check::new(what, found.split_whitespace().next() == Some(address), found))
}

/// What programs on the host get for a name.
async fn look_up(machine: &Machine, name: &str) -> Result<String, Failure> {
    machine.shell(&format!("getent ahostsv4 {name} || true")).await
}
