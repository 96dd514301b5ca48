//! Somebody who has taken over a daemon: enters the daemon's sandbox as the daemon does, and then tries one thing
//! that the daemon never would. What comes of it is printed; a seccomp filter kills the process instead.

#![allow(unsafe_code, reason = "an intruder makes system calls that no library offers")]

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;

use clap::{Args, ValueEnum};
use i2plan_connector::sandbox as connector;
use i2plan_ipc::daemon::hardening;
use i2plan_keyd::sandbox as keyd;
use i2plan_meshd::sandbox as meshd;
use i2plan_named::sandbox as named;
use i2plan_routerd::sandbox as routerd;
use i2plan_rpcd::sandbox as rpcd;
use i2plan_tund::sandbox as tund;
use i2plan_webd::sandbox as webd;
use libc::{c_int, c_long};
use serde::{Deserialize, Serialize};

use crate::Failure;
use crate::i2p::PORT;

/// Whose place the intruder has taken, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Seat {
    /// Nobody's: for comparison.
    Free,
    /// `keyd` before its keys are read.
    KeydStarting,
    /// `keyd` while it serves.
    Keyd,
    /// The connector while it serves.
    Connector,
    /// `meshd` while it serves.
    Meshd,
    /// `tund` before its interface is up.
    TundStarting,
    /// `tund` while it carries packets.
    Tund,
    /// `rpcd` while it serves.
    Rpcd,
    /// `webd` while it serves.
    Webd,
    /// `webd` with TLS: certificate and key are where the configuration is.
    WebdTls,
    /// `named` before it listens.
    NamedStarting,
    /// `named` while it serves.
    Named,
    /// The program that fetches a seed for `routerd`.
    RouterdFetching,
    /// `routerd` while it speaks with other routers.
    Routerd,
}

/// What the intruder tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[expect(missing_docs, reason = "they say what they are")]
pub enum Attempt {
    ReadFile,
    WriteFile,
    ListDirectory,
    MakeDirectory,
    ReadMemoryFile,
    ReadMemory,
    Trace,
    Signal,
    Execute,
    Fork,
    Thread,
    ConnectTcp,
    ListenTcp,
    Udp,
    RawSocket,
    PacketSocket,
    NetlinkSocket,
    ConnectUnix,
    UserNamespace,
    NetworkNamespace,
    Capability,
    BecomeRoot,
    ExecutableMapping,
    MakeExecutable,
    MemoryFile,
    SealableMemoryFile,
    Mount,
    Ring,
    Bpf,
    Keyring,
    CoreDump,
}

/// A seat, an attempt, and what it is aimed at.
#[derive(Debug, Args)]
pub struct Intrusion {
    seat: Seat,
    attempt: Attempt,
    /// A file, directory or socket.
    #[arg(long, default_value = "/nonexistent")]
    path: PathBuf,
    /// Another process.
    #[arg(long, default_value_t = 1)]
    pid: i32,
    /// A TCP port on 127.0.0.1.
    #[arg(long, default_value_t = 1)]
    port: u16,
    /// The daemon's own directory.
    #[arg(long, default_value = "/nonexistent")]
    own: PathBuf,
    /// The node's configuration.
    #[arg(long, default_value = "/nonexistent/config.toml")]
    config: PathBuf,
}

/// The TCP port of a SAM bridge, which the sandboxes of the connector and `routerd` let through.
const SAM_PORT: u16 = 7656;

/// How an attempt ended, if it did not end the process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// It worked.
    Done,
    /// The kernel refused, with this `errno(3)`.
    Refused(i32),
}

/// Enters the seat, makes the attempt, and prints the [`Outcome`].
///
/// # Errors
/// If the sandbox cannot be set up.
pub fn run(intrusion: &Intrusion) -> Result<(), Failure> {
    let no_sandbox = |error: &dyn std::fmt::Display| Failure::new(format!("no sandbox: {error}"));
    if intrusion.seat != Seat::Free {
        hardening::harden().map_err(|error| no_sandbox(&error))?;
    }
    match intrusion.seat {
        Seat::Free => Ok(()),
        Seat::KeydStarting => keyd::before_the_store(&intrusion.own, None),
        Seat::Keyd => keyd::before_the_store(&intrusion.own, None).and_then(|()| keyd::before_serving()),
        Seat::Connector => connector::before_connecting(&[(Ipv4Addr::LOCALHOST, SAM_PORT).into()], SAM_PORT),
        Seat::Meshd => meshd::before_serving(&intrusion.own, &intrusion.config),
        Seat::TundStarting => tund::before_the_interface(),
        Seat::Tund => tund::before_the_interface().and_then(|()| tund::before_packets()),
        Seat::Rpcd => rpcd::before_serving(),
        Seat::Webd => webd::before_serving(&[]),
        Seat::WebdTls => webd::before_serving(&[&intrusion.config]),
        Seat::NamedStarting => named::before_the_address(),
        Seat::Named => named::before_the_address().and_then(|()| named::before_serving()),
        Seat::RouterdFetching => routerd::before_fetching(),
        Seat::Routerd => routerd::before_the_network(&intrusion.own, [PORT, SAM_PORT]),
    }
    .map_err(|error| no_sandbox(&error))?;
    let outcome = match attempt(intrusion) {
        Ok(()) => Outcome::Done,
        Err(error) => Outcome::Refused(error.raw_os_error().unwrap_or(0)),
    };
    let line = serde_json::to_string(&outcome).map_err(|error| Failure::new(error.to_string()))?;
    writeln!(io::stdout(), "{line}")?;
    Ok(())
}

fn attempt(intrusion: &Intrusion) -> io::Result<()> {
    let Intrusion { path, pid, port, .. } = intrusion;
    let name = CString::new(path.as_os_str().as_bytes())?;
    let here = |port| (Ipv4Addr::LOCALHOST, port);
    match intrusion.attempt {
        Attempt::ReadFile => File::open(path).map(drop),
        Attempt::WriteFile => OpenOptions::new().write(true).create(true).truncate(true).open(path).map(drop),
        Attempt::ListDirectory => std::fs::read_dir(path).map(drop),
        Attempt::MakeDirectory => std::fs::create_dir(path),
        Attempt::ReadMemoryFile => File::open(format!("/proc/{pid}/mem")).map(drop),
        Attempt::ReadMemory => {
            let buffer = [0u8; 8];
            let (near, far) = ([address(&buffer), 8], [PAGE, 8]);
            let read =
                call(libc::SYS_process_vm_readv, [i64::from(*pid), address(&near), 1, address(&far), 1, 0]);
            // Whether it may is asked first, and there is nothing at that address.
            if read.as_ref().is_err_and(|error| error.raw_os_error() == Some(libc::EFAULT)) {
                Ok(())
            } else {
                read
            }
        }
        Attempt::Trace => call(libc::SYS_ptrace, [SEIZE, i64::from(*pid), 0, 0, 0, 0]),
        Attempt::Signal => call(libc::SYS_kill, [i64::from(*pid), 0, 0, 0, 0, 0]),
        Attempt::Execute => Err(Command::new("/bin/true").exec()),
        Attempt::Fork => {
            let child = forked()?;
            if child == 0 {
                std::process::exit(0);
            }
            Ok(())
        }
        Attempt::Thread => std::thread::Builder::new().spawn(|| ()).map(drop),
        Attempt::ConnectTcp => TcpStream::connect(here(*port)).map(drop),
        Attempt::ListenTcp => TcpListener::bind(here(*port)).map(drop),
        Attempt::Udp => UdpSocket::bind(here(0)).map(drop),
        Attempt::RawSocket => socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP),
        Attempt::PacketSocket => socket(libc::AF_PACKET, libc::SOCK_RAW, 0),
        Attempt::NetlinkSocket => socket(libc::AF_NETLINK, libc::SOCK_DGRAM, libc::NETLINK_ROUTE),
        Attempt::ConnectUnix => UnixStream::connect(path).map(drop),
        Attempt::UserNamespace => call(libc::SYS_unshare, [i64::from(libc::CLONE_NEWUSER), 0, 0, 0, 0, 0]),
        Attempt::NetworkNamespace => call(libc::SYS_unshare, [i64::from(libc::CLONE_NEWNET), 0, 0, 0, 0, 0]),
        Attempt::Capability => {
            // Version 3, this process; CAP_SYS_ADMIN, in all three sets.
            let header: [u32; 2] = [0x2008_0522, 0];
            let sets: [u32; 6] = [1 << 21, 1 << 21, 0, 0, 0, 0];
            call(libc::SYS_capset, [address(&header), address(&sets), 0, 0, 0, 0])
        }
        Attempt::BecomeRoot => call(libc::SYS_setuid, [0; 6]),
        Attempt::ExecutableMapping => map(libc::PROT_READ | libc::PROT_EXEC).map(drop),
        Attempt::MakeExecutable => {
            let place = map(libc::PROT_READ | libc::PROT_WRITE)?;
            call(libc::SYS_mprotect, [place, PAGE, i64::from(libc::PROT_READ | libc::PROT_EXEC), 0, 0, 0])
        }
        Attempt::MemoryFile => {
            call(libc::SYS_memfd_create, [address(c"x".to_bytes_with_nul()), 0, 0, 0, 0, 0])
        }
        Attempt::SealableMemoryFile => {
            let flags = i64::from(libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING);
            call(libc::SYS_memfd_create, [address(c"x".to_bytes_with_nul()), flags, 0, 0, 0, 0])
        }
        Attempt::Mount => {
            let kind = c"tmpfs".to_bytes_with_nul();
            call(libc::SYS_mount, [address(kind), address(name.as_bytes_with_nul()), address(kind), 0, 0, 0])
        }
        Attempt::Ring => {
            let parameters = [0u8; 120];
            call(libc::SYS_io_uring_setup, [1, address(&parameters), 0, 0, 0, 0])
        }
        Attempt::Bpf => {
            // BPF_MAP_CREATE: an array of one four-byte value.
            let attributes: [u32; 32] =
                std::array::from_fn(|index| [2, 4, 4, 1].get(index).copied().unwrap_or(0));
            call(libc::SYS_bpf, [0, address(&attributes), 128, 0, 0, 0])
        }
        Attempt::Keyring => {
            // KEYCTL_GET_KEYRING_ID of the session's keyring, made if it is not there.
            call(libc::SYS_keyctl, [0, -3, 1, 0, 0, 0])
        }
        Attempt::CoreDump => {
            let limit: [u64; 2] = [1 << 20, 1 << 20];
            call(libc::SYS_prlimit64, [0, i64::from(RLIMIT_CORE), address(&limit), 0, 0, 0])
        }
    }
}

/// `PTRACE_SEIZE`: attaches without stopping the process.
const SEIZE: i64 = 0x4206;

/// Bytes of a page.
const PAGE: i64 = 4096;

const RLIMIT_CORE: u32 = 4;

fn socket(family: c_int, kind: c_int, protocol: c_int) -> io::Result<()> {
    call(libc::SYS_socket, [family, kind, protocol, 0, 0, 0].map(i64::from))
}

fn map(protection: c_int) -> io::Result<i64> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    returned(libc::SYS_mmap, [0, PAGE, i64::from(protection), i64::from(flags), -1, 0])
}

fn forked() -> io::Result<i64> {
    returned(libc::SYS_clone, [i64::from(libc::SIGCHLD), 0, 0, 0, 0, 0])
}

fn call(number: c_long, arguments: [i64; 6]) -> io::Result<()> {
    returned(number, arguments).map(drop)
}

fn address<T: ?Sized>(value: &T) -> i64 {
    std::ptr::from_ref(value).cast::<u8>().addr().cast_signed() as i64
}

/// Makes a system call.
fn returned(number: c_long, [a, b, c, d, e, f]: [i64; 6]) -> io::Result<i64> {
    // SAFETY: the callers above pass numbers, or addresses of values that outlive the call and are as long as the
    // call expects. A fork's child only exits; a new mapping is not used.
    let result = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
