//! What keeps the daemons in.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use i2plan_ipc::api::meshd::Status;
use i2plan_ipc::hello::Landlock;
use i2plan_present::finding::{Finding, Level};
use serde::Serialize;

use super::process::{self, Confirmed};
use crate::services;

/// What keeps a daemon in, as the kernel reports it (`proc(5)`), and Landlock as the daemon does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Sandbox {
    pid: u32,
    /// The kernel says that this process answers at the daemon's socket. Otherwise the node says so.
    confirmed: bool,
    uid: u32,
    /// The union of the permitted, effective, inheritable and ambient sets, in hexadecimal.
    capabilities: String,
    no_new_privs: bool,
    /// A system call filter is in force.
    seccomp: bool,
    /// None where nobody says: the node's own router is in no conversation with `meshd`, and `named` is its client.
    landlock: Option<Landlock>,
    /// Others of its user may read its memory, and the kernel may write it to a file.
    dumpable: bool,
    /// Bytes that cannot be swapped out.
    locked: u64,
}

/// What can be seen of the sandboxes of the daemons, and of the node's own router by its process id, and what can not.
///
/// The router's was found by the kernel's list of sockets.
pub(super) fn look(
    status: &Status,
    router: Option<u32>,
    processes: &Confirmed,
) -> (HashMap<String, Sandbox>, Vec<Finding>) {
    let (mut sandboxes, mut findings) = (HashMap::new(), Vec::new());
    let mut daemons = Vec::new();
    for daemon in &status.daemons {
        let Some(said) = daemon.pid else { continue };
        let (pid, confirmed, lie) = process::compare(&daemon.name, said, processes);
        findings.extend(lie);
        // `named` is a client of meshd: it says its build and no more.
        let landlock = (daemon.name != "named").then(|| daemon.landlock.unwrap_or_default());
        daemons.push((daemon.name.as_str(), pid, confirmed, landlock));
    }
    daemons.extend(router.map(|pid| (ROUTER, pid, true, None)));
    for (name, pid, confirmed, landlock) in daemons {
        match Sandbox::read(pid, landlock) {
            Ok(found) => {
                sandboxes.insert(name.to_owned(), Sandbox { confirmed, ..found });
            }
            Err(error) => {
                let hint = if cfg!(target_os = "linux") {
                    "run this on the node itself, where /proc shows the processes of others".to_owned()
                } else {
                    format!("see what it has promised: `ps -o user,pledge -p {pid}`")
                };
                let message = format!("its sandbox cannot be looked at: {error}");
                findings.push(Finding::new(Level::Note, name, message, Some(hint)));
            }
        }
    }
    // Unless the file says that there is none.
    let swap = std::fs::read_to_string("/proc/swaps").map_or(true, |swaps| has_swap(&swaps));
    findings.extend(judge(&sandboxes, status.tunnel.interface.is_some(), swap));
    (sandboxes, findings)
}

/// The user that all daemons of a node run as that was started without root.
pub(super) fn common_user(sandboxes: &HashMap<String, Sandbox>) -> Option<u32> {
    let users = ["keyd", "meshd", "tund"].map(|daemon| sandboxes.get(daemon).map(|found| found.uid));
    match users {
        [Some(user), meshd, tund] if user != 0 && meshd == Some(user) && tund == Some(user) => Some(user),
        _ => None,
    }
}

/// The name of the node's own router here.
const ROUTER: &str = "routerd";

/// Whether memory can be swapped out, by what `/proc/swaps` lists below its heading.
fn has_swap(swaps: &str) -> bool {
    swaps.lines().skip(1).any(|line| !line.trim().is_empty())
}

fn judge(sandboxes: &HashMap<String, Sandbox>, interface_is_up: bool, swap: bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    let common = common_user(sandboxes);
    if let Some(user) = common {
        findings.push(Finding::note(
            "roles",
            format!(
                "the daemons' roles are not separated: all run as user {user}. Whoever breaks into one of them, or into \
                 another program of that user, can act for the others and take the keys"
            ),
            format!(
                "where that matters, start the node with `{}`: each daemon then has a user of its own",
                services::start_command()
            ),
        ));
    }
    let mut names: Vec<_> = sandboxes.keys().collect();
    names.sort();
    for name in names {
        let before = findings.len();
        let own = &sandboxes[name];
        let mut add = |level, message: String, hint: &str| {
            findings.push(Finding::new(level, name, message, Some(hint.to_owned())));
        };
        let holds_keys = !matches!(name.as_str(), "meshd" | "rpcd" | "connector" | "webd" | "named");
        let restart = "restart i2plan's daemons; if that does not help, the program is not what was built";
        if own.uid == 0 {
            add(Level::Problem, "it runs as root".to_owned(), "start it as a user of its own");
        }
        let twin = sandboxes.iter().find(|(other, theirs)| *other > name && theirs.uid == own.uid);
        if let Some((other, _)) = twin.filter(|_| common != Some(own.uid)) {
            add(
                Level::Problem,
                format!("it runs as the same user as {other}"),
                "give each daemon a user of its own: that is what keeps them apart",
            );
        }
        let needs_capability = name == "tund" && !interface_is_up;
        if own.capabilities.bytes().any(|digit| digit != b'0') && !needs_capability {
            add(Level::Problem, format!("it has capabilities ({})", own.capabilities), restart);
        }
        if !own.no_new_privs {
            add(Level::Problem, "it could gain privileges by executing a file".to_owned(), restart);
        }
        if own.dumpable {
            add(Level::Problem, "its memory is open to others of its user".to_owned(), restart);
        }
        if !own.seccomp {
            add(
                Level::Note,
                "no filter limits its system calls".to_owned(),
                "use a kernel with CONFIG_SECCOMP_FILTER, on x86_64, aarch64 or riscv64",
            );
        }
        if let Some(landlock) = own.landlock.filter(|landlock| *landlock != Landlock::Full) {
            add(
                Level::Note,
                format!(
                    "Landlock is in force {}",
                    if landlock == Landlock::None { "not at all" } else { "in part" }
                ),
                "use Linux 6.12 or later with Landlock among its security modules (lsm=landlock,...)",
            );
        }
        if own.locked == 0 && holds_keys && swap {
            add(
                Level::Note,
                "its memory could be swapped out, with keys in it".to_owned(),
                "start it with no limit on locked memory (`ulimit -l unlimited`; systemd: LimitMEMLOCK=infinity), or do without swap",
            );
        }
        if findings.len() == before {
            let capability =
                if needs_capability { "CAP_NET_ADMIN until the interface is up" } else { "no capabilities" };
            let locked = match own.locked {
                _ if !holds_keys => "",
                0 => ", no swap",
                _ => ", memory locked",
            };
            let landlock = if own.landlock.is_some() { " Landlock," } else { "" };
            let whose = if own.confirmed {
                String::new()
            } else {
                format!("; that it is process {} is the node's own word", own.pid)
            };
            let message = format!(
                "user {}, {capability}, system calls filtered,{landlock} memory closed to others{locked}{whose}",
                own.uid
            );
            findings.push(Finding::new(Level::Ok, name, message, None));
        }
    }
    findings
}

impl Sandbox {
    fn read(pid: u32, landlock: Option<Landlock>) -> Result<Self, String> {
        let directory = PathBuf::from(format!("/proc/{pid}"));
        let path = directory.join("status");
        let failed = |error| format!("{}: {error}", path.display());
        let status = std::fs::read_to_string(&path).map_err(failed)?;
        // The files of a process that is not dumpable belong to root.
        let owner = std::fs::metadata(&path).map_err(failed)?.uid();
        Self::parse(&status, pid, owner, landlock)
            .ok_or_else(|| "unknown format of /proc/PID/status".to_owned())
    }

    fn parse(status: &str, pid: u32, owner: u32, landlock: Option<Landlock>) -> Option<Self> {
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.and_then(|line| line.split_whitespace().next())
        };
        let uid = field("Uid")?.parse().ok()?;
        let mut capabilities = 0;
        for set in ["CapPrm", "CapEff", "CapInh", "CapAmb"] {
            capabilities |= u64::from_str_radix(field(set)?, 16).ok()?;
        }
        Some(Self {
            pid,
            confirmed: false,
            uid,
            capabilities: format!("{capabilities:016x}"),
            no_new_privs: field("NoNewPrivs")? == "1",
            seccomp: field("Seccomp")? == "2",
            landlock,
            dumpable: owner == uid && uid != 0,
            locked: field("VmLck")?.parse::<u64>().ok()?.saturating_mul(1024),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Name:\ti2plan-tund\nUid:\t993\t993\t993\t993\nVmLck:\t    4096 kB\n\
        CapInh:\t0000000000000000\nCapPrm:\t0000000000000000\nCapEff:\t0000000000000000\n\
        CapBnd:\t0000000000001000\nCapAmb:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\n";

    fn sandboxes(
        change: impl Fn(&str) -> String,
        owner: u32,
        landlock: Landlock,
    ) -> HashMap<String, Sandbox> {
        let own = Sandbox::parse(&change(STATUS), 7, owner, Some(landlock)).unwrap();
        HashMap::from([("tund".to_owned(), own)])
    }

    fn messages(sandboxes: &HashMap<String, Sandbox>, interface_is_up: bool) -> Vec<(Level, String)> {
        let findings = judge(sandboxes, interface_is_up, true).into_iter();
        findings.map(|finding| (finding.level, finding.message)).collect()
    }

    #[test]
    fn memory_is_to_be_locked_where_there_is_swap() {
        let open = sandboxes(|status| status.replace("4096 kB", "0 kB"), 0, Landlock::Full);
        let found = judge(&open, true, true);
        assert!(found[0].message.contains("could be swapped out"), "{found:?}");
        let found = judge(&open, true, false);
        assert!(
            found[0].level == Level::Ok
                && found[0].message.ends_with("no swap; that it is process 7 is the node's own word"),
            "{found:?}"
        );
        assert!(has_swap("Filename Type\n/dev/sda2 partition\n") && !has_swap("Filename Type\n"));
    }

    #[test]
    fn a_good_sandbox_is_one_line() {
        let sandboxes = sandboxes(str::to_owned, 0, Landlock::Full);
        assert_eq!(sandboxes["tund"].locked, 4096 * 1024);
        let found = messages(&sandboxes, true);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].0, Level::Ok);
    }

    #[test]
    fn each_gap_is_named() {
        let gap = |from: &str, to: &str, owner, landlock, up| {
            let found = messages(&sandboxes(|status| status.replace(from, to), owner, landlock), up);
            assert_eq!(found.len(), 1, "{found:?}");
            found[0].clone()
        };
        let full = Landlock::Full;
        let (level, message) = gap("CapEff:\t0000000000000000", "CapEff:\t0000000000001000", 0, full, true);
        assert!(level == Level::Problem && message.contains("1000"), "{message}");
        // Before there is an interface it needs that.
        assert_eq!(
            gap("CapEff:\t0000000000000000", "CapEff:\t0000000000001000", 0, full, false).0,
            Level::Ok
        );
        assert_eq!(gap("NoNewPrivs:\t1", "NoNewPrivs:\t0", 0, full, true).0, Level::Problem);
        assert_eq!(gap("", "", 993, full, true).0, Level::Problem);
        assert_eq!(gap("Seccomp:\t2", "Seccomp:\t0", 0, full, true).0, Level::Note);
        assert_eq!(gap("VmLck:\t    4096", "VmLck:\t       0", 0, full, true).0, Level::Note);
        assert!(gap("", "", 0, Landlock::Partial, true).1.contains("in part"));
        let (level, message) = gap("Uid:\t993", "Uid:\t0", 0, full, true);
        assert!(level == Level::Problem && message.contains("root"), "{message}");
    }

    #[test]
    fn daemons_of_one_user_are_a_problem() {
        let mut both = sandboxes(str::to_owned, 0, Landlock::Full);
        both.insert("keyd".to_owned(), both["tund"].clone());
        let found = messages(&both, true);
        assert!(
            found.iter().any(|(level, message)| *level == Level::Problem && message.contains("same user"))
        );
    }

    #[test]
    fn a_node_without_root_is_told_what_that_means() {
        let mut all = sandboxes(str::to_owned, 0, Landlock::Full);
        for name in ["keyd", "meshd", "rpcd"] {
            all.insert(name.to_owned(), all["tund"].clone());
        }
        assert_eq!(common_user(&all), Some(993));
        let found = judge(&all, true, true);
        assert_eq!((found[0].subject.as_str(), found[0].level), ("roles", Level::Note));
        assert!(found[0].message.contains("roles are not separated: all run as user 993"), "{:?}", found[0]);
        assert!(found[1..].iter().all(|finding| finding.level == Level::Ok), "{found:?}");
        // As root they are worse off, and that is a problem.
        for own in all.values_mut() {
            own.uid = 0;
        }
        assert_eq!(common_user(&all), None);
    }

    #[test]
    fn an_unknown_format_is_no_sandbox() {
        assert_eq!(Sandbox::parse("Uid:\t1\n", 7, 0, None), None);
        assert_eq!(Sandbox::parse(&STATUS.replace("Uid:\t993", "Uid:\tx"), 7, 0, None), None);
    }
}
