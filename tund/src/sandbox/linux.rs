//! What tund may do, and when.
//!
//! | time | capability | files | system calls |
//! | --- | --- | --- | --- |
//! | until the socket is there and the users are looked up | `CAP_NET_ADMIN` | as its user | all |
//! | until the interface is up | `CAP_NET_ADMIN` | the TUN driver; reading about itself | to make an interface |
//! | from then on | none | none | to move packets, to ask keyd for the next key, and to have what outlives it kept |
//!
//! Where the interface is there from before, the first two times are over at once.

use std::path::Path;

use i2plan_ipc::daemon::sandbox::{Allowed, Argument, Files, SandboxError, Syscalls, enter};

/// Before meshd is answered.
///
/// # Errors
/// [`SandboxError`]; tund must not go on then.
pub fn before_the_interface() -> Result<(), SandboxError> {
    let mut files = Files::none().and(Path::new("/proc/self"), Allowed::Read);
    // Where it is missing, there is no interface to be had; that is said when one is asked for.
    let driver = Path::new("/dev/net");
    if driver.exists() {
        files = files.and(driver, Allowed::Device);
    }
    let syscalls = moving_packets()
        // rtnetlink, and what names and settings of interfaces are asked by.
        .and_socket(libc::AF_NETLINK, libc::SOCK_DGRAM)
        .and_socket(libc::AF_INET, libc::SOCK_DGRAM)
        .and(&[
            // The TUN driver, and settings of the interface that only ioctl has.
            libc::SYS_openat,
            libc::SYS_ioctl,
            // rtnetlink.
            libc::SYS_bind,
            libc::SYS_setsockopt,
            // Giving up the capability, and looking whether it is gone from every thread.
            libc::SYS_capget,
            libc::SYS_capset,
            libc::SYS_getdents64,
            libc::SYS_statx,
            libc::SYS_newfstatat,
            libc::SYS_lseek,
            // The sandbox that follows.
            libc::SYS_prctl,
            libc::SYS_seccomp,
            libc::SYS_landlock_create_ruleset,
            libc::SYS_landlock_add_rule,
            libc::SYS_landlock_restrict_self,
        ]);
    enter(&files, syscalls)
}

/// Once the interface is up.
///
/// # Errors
/// [`SandboxError`]; tund must not go on then.
pub fn before_packets() -> Result<(), SandboxError> {
    enter(&Files::none(), moving_packets())
}

fn moving_packets() -> Syscalls {
    // keyd's socket, which is asked for keys.
    let mut syscalls =
        Syscalls::base().and_socket(libc::AF_UNIX, libc::SOCK_STREAM).and(&[libc::SYS_connect]);
    // Memory files for the state that the supervisor keeps: sealed ones alone.
    for flags in [SEALABLE, SEALABLE | libc::MFD_NOEXEC_SEAL] {
        syscalls = syscalls.and_if(libc::SYS_memfd_create, &[Argument::Is(1, flags.into())]);
    }
    syscalls.and_if(libc::SYS_fcntl, &[Argument::Is(1, u64::from(libc::F_ADD_SEALS.cast_unsigned()))])
}

const SEALABLE: libc::c_uint = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
