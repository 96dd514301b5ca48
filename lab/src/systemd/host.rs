//! What a run needs of the machine: packages to install, a system to install them on, control groups.
//!
//! Done outside of the sandbox, because building takes the network, and because control groups belong to no
//! namespace that goes with its processes.

use std::ffi::OsString;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::unistd::geteuid;

use super::options::Options;
use crate::Failure;

/// Where the systems and packages are, for the inner process.
pub const TARGET_VARIABLE: &str = "I2PLAN_LAB_TARGET";

/// The control groups of this run, separated by colons, for the inner process.
pub const CGROUPS_VARIABLE: &str = "I2PLAN_LAB_CGROUPS";

/// Debian's packages that are needed, and a program of each.
const TOOLS: [(&str, &str); 3] =
    [("debootstrap", "debootstrap"), ("systemd-container", "systemd-nspawn"), ("lintian", "lintian")];

/// What is in a system besides Debian's minimum.
const INCLUDED: &str = "systemd-sysv,dbus,udev,iproute2,init-system-helpers,adduser,rpm,dnf";

/// What the machines install by themselves, from files that apt-get has already fetched.
const FETCHED: &str = "i2pd systemd-resolved libnss-resolve";

/// How the files of i2pd and of its libraries that no other program has begin.
const I2PD: [&str; 3] = ["i2pd_", "libboost-program-options", "libminiupnpc"];

/// What is there if all of that is.
const COMPLETE: &str = "usr/bin/dnf";

/// Where apt-get has the packages that it has fetched.
const ARCHIVES: &str = "var/cache/apt/archives";

/// How long control groups may take to become empty.
const EMPTY_DEADLINE: Duration = Duration::from_secs(5);

/// What [`prepare`] has made. Control groups go when it is dropped.
#[derive(Debug)]
pub struct Host {
    target: PathBuf,
    /// Where the i2pd of the machines' release is, for the routers beside them.
    i2pd: PathBuf,
    cgroups: Vec<PathBuf>,
}

impl Host {
    /// What the inner process is to know.
    #[must_use]
    pub fn variables(&self) -> [(&'static str, OsString); 3] {
        let cgroups: Vec<_> = self.cgroups.iter().map(|path| path.as_os_str().to_owned()).collect();
        let mut path = self.i2pd.clone().into_os_string();
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap_or_default());
        [
            (TARGET_VARIABLE, self.target.clone().into()),
            (CGROUPS_VARIABLE, cgroups.join(":".as_ref())),
            ("PATH", path),
        ]
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let started = Instant::now();
        for cgroup in &self.cgroups {
            while remove_cgroup(cgroup).is_err() && started.elapsed() < EMPTY_DEADLINE {
                std::thread::sleep(Duration::from_millis(50));
            }
        }
    }
}

/// Builds packages and a system, each only if it is not there.
///
/// # Errors
/// If something is missing that cannot be installed, or a build fails.
pub fn prepare(options: &Options) -> Result<Host, Failure> {
    if !geteuid().is_root() {
        return Err(Failure::new("systems are booted by systemd-nspawn, which takes root: run this as root"));
    }
    install_tools()?;
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize()?;
    let target = root.join("target");
    for revision in if options.no_build { &[][..] } else { &["1", "2"] } {
        eprintln!("building the package, revision {revision}");
        let mut build = Command::new(root.join("packaging/build"));
        build.env("REVISION", revision);
        // Cargo's flags for this program are not for the package.
        for (name, _) in std::env::vars_os() {
            let is_cargos = name == "OUT_DIR" || name.to_string_lossy().starts_with("CARGO_");
            if is_cargos && name != "CARGO_HOME" {
                build.env_remove(name);
            }
        }
        succeed(&mut build, "packaging/build")?;
    }
    bootstrap(&target, &options.suite)?;
    let i2pd = extract_i2pd(&system(&target, &options.suite))?;
    Ok(Host { target, i2pd, cgroups: make_cgroups()? })
}

fn succeed(command: &mut Command, what: &str) -> Result<(), Failure> {
    let status = command.status().map_err(|error| Failure::new(format!("{what}: {error}")))?;
    if status.success() { Ok(()) } else { Err(Failure::new(format!("{what} ended with {status}"))) }
}

fn install_tools() -> Result<(), Failure> {
    let has = |program: &str| {
        ["/usr/bin", "/usr/sbin"].iter().any(|directory| Path::new(directory).join(program).exists())
    };
    let missing: Vec<_> =
        TOOLS.iter().filter(|(_, program)| !has(program)).map(|(package, _)| *package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let what = format!("installing Debian's packages {}", missing.join(", "));
    eprintln!("{what}");
    succeed(Command::new("apt-get").args(["update", "-q"]), &what)?;
    let mut install = Command::new("apt-get");
    install.args(["install", "-q", "-y", "--no-install-recommends"]).args(missing);
    succeed(install.env("DEBIAN_FRONTEND", "noninteractive"), &what)
}

/// Where the system of a suite is.
#[must_use]
pub fn system(target: &Path, suite: &str) -> PathBuf {
    target.join("systems").join(suite)
}

/// Makes a system, which takes minutes; runs put their changes on top of it.
fn bootstrap(target: &Path, suite: &str) -> Result<(), Failure> {
    let system = system(target, suite);
    let fetched: Vec<_> = std::fs::read_dir(system.join(ARCHIVES))
        .map(|entries| entries.flatten().map(|entry| entry.file_name()).collect())
        .unwrap_or_default();
    let has =
        |package: &str| fetched.iter().any(|name| name.to_string_lossy().starts_with(&format!("{package}_")));
    if system.join(COMPLETE).exists() && FETCHED.split(' ').all(has) {
        return Ok(());
    }
    eprintln!("installing Debian {suite}, once");
    let partial = system.with_extension("partial");
    if partial.exists() {
        std::fs::remove_dir_all(&partial)?;
    }
    if system.exists() {
        std::fs::remove_dir_all(&system)?;
    }
    std::fs::create_dir_all(&partial)?;
    let mut debootstrap = Command::new("debootstrap");
    debootstrap.args(["--variant=minbase", &format!("--include={INCLUDED}"), suite]).arg(&partial);
    succeed(&mut debootstrap, "debootstrap")?;
    std::fs::copy("/etc/resolv.conf", partial.join("etc/resolv.conf"))?;
    // It goes without: a machine of the laboratory has no name server.
    let fetch = format!(
        "apt-get update -q && apt-get install -q -y --no-install-recommends --download-only {FETCHED} && \
         rm /etc/resolv.conf"
    );
    succeed(Command::new("chroot").arg(&partial).args(["sh", "-euc", &fetch]), "fetching Debian's packages")?;
    std::fs::set_permissions(&partial, Permissions::from_mode(0o755))?;
    Ok(std::fs::rename(&partial, &system)?)
}

/// Puts the system's i2pd and its libraries where a router of the laboratory can be started from, and returns the
/// directory.
fn extract_i2pd(system: &Path) -> Result<PathBuf, Failure> {
    let directory = system.with_extension("i2pd");
    let program = directory.join("i2pd");
    if program.exists() {
        return Ok(directory);
    }
    let root = directory.join("root");
    std::fs::create_dir_all(&root)?;
    for entry in std::fs::read_dir(system.join(ARCHIVES))?.flatten() {
        let name = entry.file_name();
        if I2PD.iter().any(|package| name.to_string_lossy().starts_with(package)) {
            let mut extract = Command::new("dpkg-deb");
            succeed(extract.arg("-x").arg(entry.path()).arg(&root), "dpkg-deb")?;
        }
    }
    let libraries = |root: &Path| root.join("usr/lib").join(format!("{}-linux-gnu", std::env::consts::ARCH));
    let (own, others) = (libraries(&root), libraries(system));
    let script = format!(
        "#!/bin/sh\nexec {}/ld-linux-*.so.* --library-path {}:{} {}/usr/bin/i2pd \"$@\"\n",
        others.display(),
        others.display(),
        own.display(),
        root.display()
    );
    std::fs::write(&program, script)?;
    std::fs::set_permissions(&program, Permissions::from_mode(0o755))?;
    Ok(directory)
}

/// A control group for this run in every hierarchy that systemd would use.
fn make_cgroups() -> Result<Vec<PathBuf>, Failure> {
    let own = std::fs::read_to_string("/proc/self/cgroup")?;
    let mounts = std::fs::read_to_string("/proc/self/mounts")?;
    let mut made = Vec::new();
    for line in own.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let mount = mounts.lines().find_map(|line| {
            let mut fields = line.split(' ').skip(1);
            let (at, kind, options) = (fields.next()?, fields.next()?, fields.next()?);
            let fits = match controllers {
                "" => kind == "cgroup2",
                "name=systemd" => kind == "cgroup" && options.contains("name=systemd"),
                _ => false,
            };
            fits.then(|| PathBuf::from(at))
        });
        if let Some(mount) = mount {
            let group =
                mount.join(path.trim_start_matches('/')).join(format!("i2plan-lab-{}", std::process::id()));
            std::fs::create_dir(&group)
                .map_err(|error| Failure::new(format!("cannot make {}: {error}", group.display())))?;
            made.push(group);
        }
    }
    Ok(made)
}

fn remove_cgroup(path: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(path)?.flatten() {
        if entry.file_type()?.is_dir() {
            remove_cgroup(&entry.path())?;
        }
    }
    std::fs::remove_dir(path)
}
