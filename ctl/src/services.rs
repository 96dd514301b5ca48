//! The node's services, where the package has installed them.

use std::path::Path;
use std::process::{Command, Stdio};

/// Where packages and administrators install units.
const UNITS: [&str; 4] = [
    "/etc/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];

/// Exists while systemd runs the machine.
const RUNS: &str = "/run/systemd/system";

/// Whether this machine runs its node as services of systemd.
#[must_use]
pub fn are_installed() -> bool {
    Path::new(RUNS).is_dir() && UNITS.iter().any(|units| Path::new(units).join("i2plan.target").exists())
}

/// The command that starts the machine's node.
#[must_use]
pub fn start_command() -> &'static str {
    start_command_if(are_installed())
}

fn start_command_if(installed: bool) -> &'static str {
    if installed { "sudo systemctl start i2plan.target" } else { "sudo i2planctl up" }
}

/// Why the service of a daemon does not run, if systemd waits before it starts it again.
#[must_use]
pub fn why_not_running(daemon: &str) -> Option<String> {
    let unit = format!("i2plan-{daemon}.service");
    let properties = "--property=ActiveState,SubState,StatusText,Result";
    let output = Command::new("systemctl")
        .args(["show", properties, &unit])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    explain(&String::from_utf8_lossy(&output.stdout))
}

/// Reads what `systemctl show` prints.
fn explain(properties: &str) -> Option<String> {
    let property = |name: &str| {
        let lines = properties.lines().filter_map(|line| line.split_once('='));
        lines.into_iter().find(|(found, _)| *found == name).map_or("", |(_, value)| value)
    };
    if property("SubState") != "auto-restart" && property("ActiveState") != "failed" {
        return None;
    }
    let told = property("StatusText");
    Some(if told.is_empty() {
        format!("its service failed: {}", property("Result"))
    } else {
        told.to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packaged_node_is_started_as_a_service() {
        assert_eq!(start_command_if(true), "sudo systemctl start i2plan.target");
        assert_eq!(start_command_if(false), "sudo i2planctl up");
    }

    #[test]
    fn a_service_that_waits_to_be_started_again_says_why() {
        let shown = "ActiveState=activating\nSubState=auto-restart\nResult=exit-code\nStatusText=line 3: a=b is wrong\n";
        assert_eq!(explain(shown).as_deref(), Some("line 3: a=b is wrong"));
        let shown = "ActiveState=failed\nSubState=failed\nResult=exit-code\nStatusText=\n";
        assert_eq!(explain(shown).as_deref(), Some("its service failed: exit-code"));
        assert_eq!(explain("ActiveState=active\nSubState=running\nStatusText=works\n"), None);
        assert_eq!(explain(""), None);
    }
}
