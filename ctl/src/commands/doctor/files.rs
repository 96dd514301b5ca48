//! Directories, sockets and devices, and who may use them.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use i2plan_ipc::paths;
use i2plan_present::finding::Finding;
use i2plan_present::units;

/// Each daemon's, in the directory of `meshd`'s, and their modes.
const SOCKETS: [(&str, &str, u32); 8] = [
    ("keyd", paths::KEYD_MESHD_SOCKET, ONE_USER),
    ("keyd", paths::KEYD_TUND_SOCKET, ONE_USER),
    ("keyd", paths::KEYD_CONNECTOR_SOCKET, ONE_USER),
    ("keyd", paths::KEYD_CONTROL_SOCKET, GROUP),
    ("meshd", paths::MESHD_SOCKET, GROUP),
    ("tund", paths::TUND_SOCKET, ONE_USER),
    ("rpcd", paths::RPC_SOCKET, GROUP),
    ("webd", paths::WEB_SOCKET, GROUP),
];

/// Those that a node can do without.
const OPTIONAL: [&str; 2] = ["rpcd", "webd"];

/// The mode of a socket for one daemon.
const ONE_USER: u32 = 0o600;

/// The mode of a socket for the control group, where there is one.
const GROUP: u32 = 0o660;

/// Looks at what is beside the control socket, at the daemons' state, and at the device that tunnels are made with.
///
/// `common` is the user of a node whose daemons all run as one.
pub(super) fn check(
    socket: &Path,
    data: Option<&Path>,
    interface_is_up: bool,
    common: Option<u32>,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    let (mut unseen, mut seen) = (false, false);
    if let Some(run) = socket.parent().filter(|run| run.exists()) {
        seen = true;
        unseen |= of_the_sockets(run, socket.symlink_metadata().is_ok(), &mut findings);
    }
    if let Some(data) = data.filter(|data| data.exists()) {
        seen = true;
        unseen |= of_the_state(data, common, &mut findings);
        findings.extend(of_the_disk(data));
    }
    if findings.is_empty() && seen && !unseen {
        findings.push(Finding::ok("files", "sockets and state are closed to others"));
    }
    if unseen {
        let message = "not all files can be looked at as this user";
        findings.push(Finding::note("files", message, "run this with sudo to have all of them checked"));
    }
    if cfg!(target_os = "linux") && !interface_is_up {
        findings.push(of_the_device(Path::new("/dev/net/tun")));
    }
    findings
}

/// A disk without room for a state file: a node of a thousand members has one of a megabyte.
fn of_the_disk(data: &Path) -> Option<Finding> {
    let found = rustix::fs::statvfs(data).ok()?;
    let [total, free] = [found.f_blocks, found.f_bavail].map(|blocks| blocks.saturating_mul(found.f_frsize));
    of_the_room(data, total, free)
}

fn of_the_room(data: &Path, total: u64, free: u64) -> Option<Finding> {
    const NEEDED: u64 = 2 << 20;
    // One that tells no size is none of a disk's.
    (total > 0 && free < NEEDED).then(|| {
        Finding::problem(
            "files",
            format!("the disk with {} is full: {} are free", data.display(), units::bytes(free)),
            "make room: what cannot be saved is refused, or forgotten at the next start",
        )
    })
}

/// Returns whether something could not be seen.
fn of_the_sockets(run: &Path, node_is_up: bool, findings: &mut Vec<Finding>) -> bool {
    let shown = run.display();
    if run.metadata().is_ok_and(|found| found.mode() & 0o002 != 0) {
        findings.push(Finding::problem(
            "files",
            format!("everybody can put another socket in the place of those in {shown}"),
            format!("`chmod o-w {shown}`"),
        ));
    }
    let mut unseen = false;
    for (daemon, name, mode) in SOCKETS {
        let path = run.join(name);
        let shown = path.display();
        match path.symlink_metadata() {
            Ok(found) if !found.file_type().is_socket() => findings.push(Finding::problem(
                daemon,
                format!("{shown} is in the way: it is no socket"),
                "move it away and restart the node",
            )),
            Ok(found) if found.mode() & 0o006 != 0 => findings.push(Finding::problem(
                daemon,
                format!("every user of this machine may connect to {shown}"),
                format!("`chmod o= {shown}`, and restart the node"),
            )),
            Ok(found) if is_closed(mode, &found) => findings.push(Finding::problem(
                daemon,
                format!("those who may connect to {shown} cannot: its mode is {:03o}", found.mode() & 0o777),
                format!("`chmod {mode:o} {shown}`"),
            )),
            Ok(_) if listens(&path) == Some(false) => findings.push(Finding::problem(
                daemon,
                format!("nobody listens on {shown}"),
                format!("see the log of i2plan-{daemon}, and start the node"),
            )),
            Ok(_) => {}
            // That none is there when meshd's is not has been said, and a node can do without rpcd and webd.
            Err(error)
                if error.kind() == io::ErrorKind::NotFound && (OPTIONAL.contains(&daemon) || !node_is_up) => {
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => findings.push(Finding::problem(
                daemon,
                format!("there is no socket {shown}"),
                format!("start the node; if it runs, see the log of i2plan-{daemon}"),
            )),
            Err(_) => unseen = true,
        }
    }
    unseen
}

/// Whether a socket's owner, or the group that it was given to, cannot connect.
fn is_closed(mode: u32, found: &Metadata) -> bool {
    let needed = if found.gid() == 0 { ONE_USER } else { mode };
    found.mode() & needed != needed
}

/// Whether a process listens on a socket, going by the kernel's table; none where there is no such table.
fn listens(path: &Path) -> Option<bool> {
    let table = std::fs::read_to_string("/proc/net/unix").ok()?;
    let path = std::path::absolute(path).ok()?;
    Some(is_listed(&table, path.to_str()?))
}

/// Whether the table (`/proc/net/unix`) has a listening socket with this path.
fn is_listed(table: &str, path: &str) -> bool {
    // SO_ACCEPTCON of the kernel's include/linux/net.h.
    const LISTENING: u64 = 1 << 16;
    table.lines().any(|line| {
        let flags = line.split_whitespace().nth(3).and_then(|flags| u64::from_str_radix(flags, 16).ok());
        line.ends_with(&format!(" {path}")) && flags.is_some_and(|flags| flags & LISTENING != 0)
    })
}

/// Returns whether something could not be seen.
fn of_the_state(data: &Path, common: Option<u32>, findings: &mut Vec<Finding>) -> bool {
    let mut unseen = false;
    let mut owners = Vec::new();
    for (daemon, directory) in [("keyd", "keyd"), ("meshd", "meshd"), ("rpcd", "rpc")] {
        let directory = data.join(directory);
        match directory.symlink_metadata() {
            Ok(found) => {
                if daemon != "rpcd" {
                    owners.push(found.uid());
                }
                findings.extend(open_to_others(daemon, &directory, &found));
                findings.extend(of_root(daemon, &directory, found.uid()));
                let owner = found.uid();
                let Ok(entries) = std::fs::read_dir(&directory) else {
                    unseen = true;
                    continue;
                };
                for entry in entries.flatten() {
                    let Ok(found) = entry.metadata() else { continue };
                    findings.extend(open_to_others(daemon, &entry.path(), &found));
                    findings.extend(of_another(daemon, &entry.path(), found.uid(), owner));
                }
            }
            // A node that was never started has none, and one may have it elsewhere.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(_) => unseen = true,
        }
    }
    // Of a node that runs as one user that has been said.
    if let [keyd, meshd] = owners[..]
        && keyd == meshd
        && common != Some(keyd)
    {
        findings.push(Finding::problem(
            "files",
            format!("keyd's and meshd's state in {} belong to the same user", data.display()),
            "give each daemon a user of its own: that is what keeps the keys from meshd",
        ));
    }
    unseen
}

fn open_to_others(daemon: &str, path: &Path, found: &Metadata) -> Option<Finding> {
    let open = found.mode() & 0o077 != 0 && !found.file_type().is_symlink();
    open.then(|| {
        let shown = path.display();
        Finding::problem(daemon, format!("{shown} is open to others"), format!("`chmod go= {shown}`"))
    })
}

/// A directory that root has made or restored: no daemon runs as root.
fn of_root(daemon: &str, path: &Path, owner: u32) -> Option<Finding> {
    (owner == 0).then(|| {
        let shown = path.display();
        let user = if daemon == "rpcd" { "i2plan-rpc".to_owned() } else { format!("i2plan-{daemon}") };
        Finding::problem(
            daemon,
            format!("{shown} belongs to root, and {daemon} cannot use it"),
            format!("`chown -R {user} {shown}`, or the user that {daemon} runs as"),
        )
    })
}

/// A file of another user than its directory, such as one that root has restored.
fn of_another(daemon: &str, path: &Path, found: u32, owner: u32) -> Option<Finding> {
    // Of a directory of root's all has been said.
    (found != owner && owner != 0).then(|| {
        let shown = path.display();
        Finding::problem(
            daemon,
            format!("{shown} belongs to user {found}, and {daemon} runs as user {owner}: it cannot use it"),
            format!("`chown {owner} {shown}`"),
        )
    })
}

fn of_the_device(device: &Path) -> Finding {
    match device.metadata() {
        // tund has its capability, and none to open what is closed to it.
        Ok(found)
            if found.file_type().is_char_device() && found.mode() & 0o006 != 0o006 && found.gid() == 0 =>
        {
            Finding::problem(
                "tun",
                format!("{} is for root only: its mode is {:03o}", device.display(), found.mode() & 0o777),
                format!("`chmod 666 {}`, as udev does: it gives nobody a privilege", device.display()),
            )
        }
        Ok(found) if found.file_type().is_char_device() => {
            Finding::ok("tun", format!("{} is there", device.display()))
        }
        _ => Finding::problem(
            "tun",
            format!("there is no {}: no tunnel can be made", device.display()),
            "`modprobe tun`, and restart the node; in a container, hand the device in",
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{Permissions, create_dir, set_permissions, write};
    use std::os::unix::fs::PermissionsExt as _;
    use std::os::unix::net::UnixListener;

    use super::*;
    use i2plan_present::finding::Level;

    fn mode(path: &Path, mode: u32) {
        set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    fn problems(socket: &Path, data: Option<&Path>) -> Vec<(String, String)> {
        let found =
            check(socket, data, true, None).into_iter().filter(|finding| finding.level == Level::Problem);
        found.map(|finding| (finding.subject, finding.message)).collect()
    }

    #[test]
    fn sockets_that_all_can_use_or_nobody_listens_on_are_named() {
        let dir = tempfile::tempdir().unwrap();
        mode(dir.path(), 0o755);
        let names = [
            "keyd-meshd.sock",
            "meshd.sock",
            "tund.sock",
            "keyd-tund.sock",
            "keyd-connector.sock",
            "keyd-control.sock",
        ];
        let paths = names.map(|name| dir.path().join(name));
        let mut listeners = paths.each_ref().map(|path| Some(UnixListener::bind(path).unwrap()));
        paths.iter().for_each(|path| mode(path, 0o660));
        assert_eq!(problems(&paths[1], None), []);
        mode(&paths[0], 0o666);
        let found = problems(&paths[1], None);
        assert!(
            found.len() == 1 && found[0].0 == "keyd" && found[0].1.starts_with("every user"),
            "{found:?}"
        );
        mode(&paths[0], 0o660);
        listeners[2] = None;
        let found = problems(&paths[1], None);
        let expected = if cfg!(target_os = "linux") { 1 } else { 0 };
        assert!(
            found.len() == expected && found.iter().all(|found| found.1.starts_with("nobody")),
            "{found:?}"
        );
        std::fs::remove_file(&paths[2]).unwrap();
        let found = problems(&paths[1], None);
        assert!(found.len() == 1 && found[0].1.starts_with("there is no socket"), "{found:?}");
        // Of a node that does not run that is said already.
        let stopped = tempfile::tempdir().unwrap();
        mode(stopped.path(), 0o755);
        assert_eq!(problems(&stopped.path().join("meshd.sock"), None), []);
        let listener = UnixListener::bind(&paths[2]).unwrap();
        mode(&paths[2], 0o000);
        let found = problems(&paths[1], None);
        assert!(found.len() == 1 && found[0].0 == "tund" && found[0].1.ends_with("is 000"), "{found:?}");
        drop(listener);
        std::fs::remove_file(&paths[2]).unwrap();
        mode(dir.path(), 0o777);
        assert_eq!(problems(&paths[1], None).len(), 2);
    }

    #[test]
    fn state_that_others_can_read_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let (nowhere, data) = (dir.path().join("none/meshd.sock"), dir.path());
        assert_eq!(problems(&nowhere, Some(data)), []);
        // What belongs to root, no daemon can use.
        let give = |path: &Path| {
            if path.metadata().unwrap().uid() == 0 {
                std::os::unix::fs::chown(path, Some(54_321), None).unwrap();
            }
        };
        for daemon in ["keyd", "meshd"] {
            create_dir(data.join(daemon)).unwrap();
            mode(&data.join(daemon), 0o700);
            give(&data.join(daemon));
        }
        let key = data.join("keyd/keys");
        write(&key, "").unwrap();
        give(&key);
        mode(&key, 0o600);
        // In a test both belong to one user.
        assert_eq!(problems(&nowhere, Some(data)).len(), 1);
        mode(&key, 0o640);
        let found = problems(&nowhere, Some(data));
        assert!(
            found.iter().any(|(daemon, message)| daemon == "keyd" && message.contains("keyd/keys")),
            "{found:?}"
        );
    }

    #[test]
    fn state_that_root_has_restored_is_named() {
        let state = Path::new("/d/meshd/state");
        assert_eq!((of_another("meshd", state, 5, 5), of_root("meshd", state, 5)), (None, None));
        let found = of_another("meshd", state, 0, 54_322).unwrap();
        assert!(found.message.contains("belongs to user 0") && found.message.contains("54322"), "{found:?}");
        assert_eq!(found.hint.as_deref(), Some("`chown 54322 /d/meshd/state`"));
        let found = of_root("keyd", Path::new("/d/keyd"), 0).unwrap();
        assert_eq!(
            found.hint.as_deref(),
            Some("`chown -R i2plan-keyd /d/keyd`, or the user that keyd runs as")
        );
        assert_eq!(of_another("keyd", Path::new("/d/keyd/keys"), 0, 0), None);
    }

    #[test]
    fn the_kernels_table_is_read() {
        let table = "Num RefCount Protocol Flags Type St Inode Path\n\
                     0: 00000002 00000000 00010000 0001 01 24 /run/a b.sock\n\
                     0: 00000003 00000000 00000000 0001 03 25 /run/c.sock\nx\n";
        assert!(is_listed(table, "/run/a b.sock"));
        assert!(!is_listed(table, "/run/c.sock"));
        assert!(!is_listed(table, "/run/d.sock"));
    }

    #[test]
    fn a_missing_device_is_a_problem() {
        assert_eq!(of_the_device(Path::new("/nonexistent")).level, Level::Problem);
        assert_eq!(of_the_device(Path::new("/dev/null")).level, Level::Ok);
    }

    #[test]
    fn a_disk_without_room_is_a_problem() {
        let room = |total, free| of_the_room(Path::new("/x"), total, free).map(|found| found.level);
        assert_eq!(
            (room(1 << 30, 4096), room(1 << 30, 1 << 29), room(0, 0)),
            (Some(Level::Problem), None, None)
        );
        assert_eq!(of_the_disk(Path::new("/nonexistent")), None);
    }
}
