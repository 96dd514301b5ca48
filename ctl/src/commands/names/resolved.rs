//! What systemd-resolved is told of the node's interface: that it asks `i2plan-named` for the members' names there.

use std::fmt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use i2plan_ipc::Node;
use i2plan_ipc::api::meshd::{Network, Status};
use i2plan_ipc::names::domain;
use i2plan_proto::address::{IPV6_PREFIX, Ipv4Subnet};
use tokio::process::Command;

use crate::daemon;
use crate::failure::Failure;

/// Where systemd-resolved has its files while it runs.
const RUNS: &str = "/run/systemd/resolve";

/// How often the node is asked whether something has changed.
const INTERVAL: Duration = Duration::from_secs(5);

/// How long `resolvectl` may take.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Whether systemd-resolved runs on this host.
#[must_use]
pub fn runs() -> bool {
    Path::new(RUNS).is_dir()
}

/// Who answers for which names, on an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    interface: String,
    servers: [String; 2],
    domains: Vec<String>,
}

impl Settings {
    /// Those of a node's network.
    ///
    /// # Errors
    /// If the interface is not up.
    pub fn of(status: &Status, network: &Network) -> Result<Self, Failure> {
        Ok(Self::new(super::interface(status)?, network))
    }

    fn new(interface: &str, network: &Network) -> Self {
        // Without `~`, a name of one label is looked up in the domain too.
        let mut domains = vec![domain(network)];
        domains.extend(reverse_domains(network).into_iter().map(|reverse| format!("~{reverse}")));
        Self {
            interface: interface.to_owned(),
            servers: [network.ipv4.to_string(), network.ipv6.to_string()],
            domains,
        }
    }

    /// The words after `resolvectl` of each command. The server comes last: until it is there, nothing is asked.
    #[must_use]
    pub fn commands(&self) -> Vec<Vec<&str>> {
        let (domains, servers) =
            (self.domains.iter().map(String::as_str), self.servers.iter().map(String::as_str));
        let settings: [(&str, Vec<&str>); 7] = [
            // For other domains this server is never the one to ask.
            ("default-route", vec!["no"]),
            // What holds for the servers of the Internet does not for this one: nobody above it signs `internal`, and
            // what is encrypted already needs no TLS.
            ("dnssec", vec!["no"]),
            ("dnsovertls", vec!["no"]),
            // Which names this host looks up the members are not to hear.
            ("llmnr", vec!["no"]),
            ("mdns", vec!["no"]),
            ("domain", domains.collect()),
            ("dns", servers.collect()),
        ];
        settings.into_iter().map(|(what, values)| [vec![what, &self.interface], values].concat()).collect()
    }

    /// The number of the interface, which is another once it was made anew. None if there is no interface.
    fn index(&self) -> Option<u32> {
        // Whatever kind of socket it is.
        let socket = UnixDatagram::unbound().ok()?;
        rustix::net::netdevice::name_to_index(socket, &self.interface).ok()
    }

    /// Has `run` set all; if one setting is refused, takes back those before it.
    async fn apply(&self, run: impl AsyncFn(&[&str]) -> Result<(), Failure>) -> Result<(), Failure> {
        for command in self.commands() {
            let Err(mut failure) = run(&command).await else { continue };
            let interface = &self.interface;
            failure.message += &match run(&["revert", interface]).await {
                Ok(()) => format!("; what was set on {interface} before is taken back"),
                Err(error) => format!("; what was set on {interface} before stays: {}", error.message),
            };
            return Err(failure);
        }
        Ok(())
    }
}

/// As lines for a shell.
impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for command in self.commands() {
            f.write_str("resolvectl")?;
            for word in command {
                if word.starts_with('~') { write!(f, " '{word}'") } else { write!(f, " {word}") }?;
            }
            f.write_str("\n")?;
        }
        Ok(())
    }
}

/// Tells systemd-resolved, and again whenever the network or the interface is another, until `end`; then takes it back.
/// `tell` hears what is done and what fails. What fails is tried again.
pub async fn follow(socket: Option<&Path>, tell: impl Fn(&str), end: impl Future<Output = ()>) {
    let mut end = std::pin::pin!(end);
    let (mut node, mut applied, mut told) = (None, None, String::new());
    loop {
        if let Err(failure) = step(socket, &mut node, &mut applied, &tell).await {
            // An answer that fails is no answer to the next question.
            node = None;
            let text = failure.to_string();
            if text != told {
                tell(&text);
                told = text;
            }
        } else {
            told.clear();
        }
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            () = &mut end => break,
        }
    }
    if let Some((settings, index)) = applied
        && settings.index() == Some(index)
        && let Err(failure) = resolvectl(&["revert", &settings.interface]).await
    {
        tell(&failure.to_string());
    }
}

async fn step(
    socket: Option<&Path>,
    node: &mut Option<Node>,
    applied: &mut Option<(Settings, u32)>,
    tell: &impl Fn(&str),
) -> Result<(), Failure> {
    let node = match node {
        Some(node) => node,
        None => node.insert(daemon::connect(socket).await?),
    };
    let status = node.status().await?;
    let settings = match &status.network {
        Some(network) if status.tunnel.interface.is_some() => {
            super::believe(network)?;
            Some(Settings::of(&status, network)?)
        }
        _ => None,
    };
    let wanted = settings.and_then(|settings| {
        let index = settings.index()?;
        Some((settings, index))
    });
    if *applied == wanted {
        return Ok(());
    }
    if let Some((settings, index)) = applied.take()
        && settings.index() == Some(index)
    {
        resolvectl(&["revert", &settings.interface]).await?;
    }
    if let Some((settings, index)) = wanted {
        settings.apply(resolvectl).await?;
        tell(&format!(
            "systemd-resolved asks {} for {} on {}",
            settings.servers[0], settings.domains[0], settings.interface
        ));
        *applied = Some((settings, index));
    }
    Ok(())
}

async fn resolvectl(args: &[&str]) -> Result<(), Failure> {
    let command = format!("resolvectl {}", args.join(" "));
    let failed = |reason: String| {
        Failure::internal(format!("`{command}`: {reason}"))
            .with_hint("systemd-resolved must run, and this needs root; see `journalctl -u systemd-resolved`")
    };
    let mut process = Command::new("resolvectl");
    process.args(args).stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(TIMEOUT, process.output())
        .await
        .map_err(|_| failed(format!("no answer within {} seconds", TIMEOUT.as_secs())))?
        .map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}

/// The domains of a network's addresses: as many whole octets, or digits of IPv6, as its prefix has begun.
fn reverse_domains(network: &Network) -> Vec<String> {
    let mut domains = Vec::new();
    if let Ok(subnet) = network.subnet.parse::<Ipv4Subnet>() {
        let octets = usize::from(subnet.prefix().div_ceil(8));
        let step = 1u32 << (32 - 8 * octets);
        let range = subnet.range();
        let mut first = range.first().to_bits();
        while first <= range.last().to_bits() {
            let octets = &first.to_be_bytes()[..octets];
            let labels: Vec<_> = octets.iter().rev().map(ToString::to_string).collect();
            domains.push(format!("{}.in-addr.arpa", labels.join(".")));
            first += step;
        }
    }
    let bytes = &network.ipv6.octets()[..usize::from(IPV6_PREFIX / 8)];
    let digits: Vec<_> = bytes.iter().rev().map(|byte| format!("{:x}.{:x}", byte & 0xf, byte >> 4)).collect();
    domains.push(format!("{}.ip6.arpa", digits.join(".")));
    domains
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::names::tests::network;

    #[test]
    fn systemd_resolved_is_told_where_to_ask_for_what() {
        assert_eq!(
            Settings::new("i2plan0", &network("10.42.0.0/16")).to_string(),
            "resolvectl default-route i2plan0 no\n\
             resolvectl dnssec i2plan0 no\n\
             resolvectl dnsovertls i2plan0 no\n\
             resolvectl llmnr i2plan0 no\n\
             resolvectl mdns i2plan0 no\n\
             resolvectl domain i2plan0 office.internal '~42.10.in-addr.arpa' \
             '~0.0.c.b.a.9.8.7.6.5.4.3.2.1.d.f.ip6.arpa'\n\
             resolvectl dns i2plan0 10.42.0.1 fd12:3456:789a:bc00::a2a:1\n"
        );
    }

    #[tokio::test]
    async fn a_setting_that_is_refused_is_named_and_those_before_it_are_taken_back() {
        let settings = Settings::new("i2plan0", &network("10.42.0.0/16"));
        for (refused, taken_back) in [(&["mdns"][..], true), (&["mdns", "revert"], false)] {
            let done = std::cell::RefCell::new(Vec::new());
            let run = async |words: &[&str]| {
                done.borrow_mut().push(words[0].to_owned());
                let is_refused = refused.contains(&words[0]);
                if is_refused { Err(Failure::internal(format!("`{}`: no", words.join(" ")))) } else { Ok(()) }
            };
            let message = settings.apply(run).await.unwrap_err().message;
            assert!(
                message.starts_with("`mdns i2plan0 no`: no; what was set on i2plan0 before"),
                "{message}"
            );
            assert_eq!(message.ends_with("is taken back"), taken_back, "{message}");
            assert_eq!(*done.borrow(), ["default-route", "dnssec", "dnsovertls", "llmnr", "mdns", "revert"]);
        }
    }

    #[test]
    fn a_subnet_between_two_octets_has_domains_of_whole_ones() {
        let domains = reverse_domains(&network("10.42.4.0/22"));
        let expected = ["4.42.10", "5.42.10", "6.42.10", "7.42.10"].map(|of| format!("{of}.in-addr.arpa"));
        assert_eq!(domains[..4], expected);
        assert_eq!(domains.len(), 5);
        assert_eq!(reverse_domains(&network("10.0.0.0/8"))[0], "10.in-addr.arpa");
        assert_eq!(reverse_domains(&network("192.168.255.248/29")).len(), 9);
    }
}
