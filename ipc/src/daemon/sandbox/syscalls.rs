//! Which system calls a process may make: seccomp (seccomp(2)).

use std::collections::BTreeMap;

use seccompiler::{
    SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};

use super::SandboxError;

/// A condition on one argument of a system call, which is looked at as the unsigned integer that it is.
#[derive(Debug, Clone, Copy)]
pub enum Argument {
    /// The argument with this number (from 0) has this value.
    Is(u8, u64),
    /// The argument with this number has none of these bits.
    Without(u8, u64),
    /// The bits of the argument that are set in the mask have this value.
    Masked(u8, u64, u64),
}

impl Argument {
    fn condition(self) -> Result<SeccompCondition, seccompiler::BackendError> {
        let (index, operation, value) = match self {
            Self::Is(index, value) => (index, SeccompCmpOp::Eq, value),
            Self::Without(index, bits) => (index, SeccompCmpOp::MaskedEq(bits), 0),
            Self::Masked(index, mask, value) => (index, SeccompCmpOp::MaskedEq(mask), value),
        };
        SeccompCondition::new(index, SeccompCmpArgLen::Dword, operation, value)
    }
}

/// An allow-list. The process is killed (SIGSYS) at a call that is not on it: an error code would let an
/// intruder try further, and a daemon that makes an unforeseen call be wrong in silence. The kernel's log names
/// the call.
#[derive(Debug, Default)]
pub struct Syscalls(BTreeMap<i64, Vec<Vec<Argument>>>);

/// No executable memory.
const NO_EXECUTION: u64 = libc::PROT_EXEC as u64;

impl Syscalls {
    /// What every daemon does: an event loop of one thread over descriptors that it has.
    #[must_use]
    pub fn base() -> Self {
        let own_process = u64::from(std::process::id());
        let argument = |value: libc::c_int| u64::from(value.cast_unsigned());
        let mut base = Self::default().and(&[
            // Memory. New mappings below: never executable.
            libc::SYS_brk,
            libc::SYS_munmap,
            libc::SYS_mremap,
            libc::SYS_madvise,
            // Time, where the vDSO does not answer.
            libc::SYS_clock_gettime,
            libc::SYS_clock_nanosleep,
            libc::SYS_gettimeofday,
            // The event loop.
            libc::SYS_epoll_ctl,
            libc::SYS_epoll_pwait,
            libc::SYS_ppoll,
            // Descriptors that are there, or come by a passed one.
            libc::SYS_read,
            libc::SYS_readv,
            libc::SYS_write,
            libc::SYS_writev,
            libc::SYS_close,
            libc::SYS_recvfrom,
            libc::SYS_recvmsg,
            libc::SYS_sendto,
            libc::SYS_sendmsg,
            libc::SYS_accept4,
            libc::SYS_shutdown,
            libc::SYS_getsockname,
            libc::SYS_getpeername,
            libc::SYS_getsockopt,
            libc::SYS_fstat,
            // Signals to this process, and its end.
            libc::SYS_rt_sigaction,
            libc::SYS_rt_sigprocmask,
            libc::SYS_rt_sigreturn,
            libc::SYS_sigaltstack,
            libc::SYS_restart_syscall,
            libc::SYS_exit,
            libc::SYS_exit_group,
            // What the C library and the runtime ask about the process itself.
            libc::SYS_futex,
            libc::SYS_getpid,
            libc::SYS_gettid,
            libc::SYS_getuid,
            libc::SYS_geteuid,
            libc::SYS_getrandom,
            libc::SYS_sched_yield,
            libc::SYS_rseq,
            libc::SYS_membarrier,
        ]);
        #[cfg(target_arch = "x86_64")]
        {
            base = base.and(&[libc::SYS_epoll_wait, libc::SYS_poll, libc::SYS_time]);
        }
        base = base
            .and_if(libc::SYS_mmap, &[Argument::Without(2, NO_EXECUTION)])
            .and_if(libc::SYS_mprotect, &[Argument::Without(2, NO_EXECUTION)])
            // abort(3): the signal goes to this process.
            .and_if(libc::SYS_tgkill, &[Argument::Is(0, own_process)])
            // A passed socket shall not linger when it is closed.
            .and_if(
                libc::SYS_setsockopt,
                &[Argument::Is(1, argument(libc::SOL_SOCKET)), Argument::Is(2, argument(libc::SO_LINGER))],
            )
            // Whether a descriptor blocks, as the standard library sets it.
            .and_if(libc::SYS_ioctl, &[Argument::Is(1, libc::FIONBIO)]);
        for command in [
            libc::F_GETFD,
            libc::F_SETFD,
            libc::F_GETFL,
            libc::F_SETFL,
            // A duplicate of a descriptor; the number of descriptors is limited.
            libc::F_DUPFD_CLOEXEC,
        ] {
            base = base.and_if(libc::SYS_fcntl, &[Argument::Is(1, argument(command))]);
        }
        base
    }

    /// Also these calls, whatever their arguments.
    #[must_use]
    pub fn and(mut self, numbers: &[libc::c_long]) -> Self {
        for number in numbers {
            // No rule means that any arguments match.
            self.0.insert(*number, Vec::new());
        }
        self
    }

    /// Also this call, if all these conditions hold. Said again for the same call, it is one more possibility.
    #[must_use]
    pub fn and_if(mut self, number: libc::c_long, conditions: &[Argument]) -> Self {
        self.0.entry(number).or_default().push(conditions.to_vec());
        self
    }

    /// Also making sockets of this family and kind (`AF_INET`, `SOCK_STREAM`), whatever their flags.
    #[must_use]
    pub fn and_socket(self, family: libc::c_int, kind: libc::c_int) -> Self {
        /// The kind of a socket without its flags.
        const KIND: u64 = 0xf;
        let argument = |value: libc::c_int| u64::from(value.cast_unsigned());
        self.and_if(
            libc::SYS_socket,
            &[Argument::Is(0, argument(family)), Argument::Masked(1, KIND, argument(kind))],
        )
    }

    /// Also writing to files that are open.
    #[must_use]
    pub fn and_open_files(self) -> Self {
        self.and(&[libc::SYS_pwrite64, libc::SYS_fdatasync, libc::SYS_ftruncate])
    }

    /// Also reading files, writing new ones that are put in the place of the old, and removing what is left of such a one.
    /// Landlock says where.
    #[must_use]
    pub fn and_files(self) -> Self {
        self.and_reading().and(&[libc::SYS_renameat, libc::SYS_unlinkat, libc::SYS_fsync])
    }

    /// Files to read; Landlock says which, and that they are not written.
    #[must_use]
    pub fn and_reading(self) -> Self {
        let files = self.and(&[
            libc::SYS_openat,
            libc::SYS_statx,
            libc::SYS_newfstatat,
            libc::SYS_readlinkat,
            libc::SYS_lseek,
        ]);
        #[cfg(target_arch = "x86_64")]
        let files = files.and(&[libc::SYS_open, libc::SYS_readlink]);
        files
    }

    pub(super) fn install(self) -> Result<(), SandboxError> {
        let Ok(architecture) = TargetArch::try_from(std::env::consts::ARCH) else {
            tracing::warn!("no filter for system calls is known for this kind of processor");
            return Ok(());
        };
        let refused = |error: &dyn std::fmt::Display| SandboxError::Seccomp(error.to_string());
        let program = self.compile(architecture).map_err(|error| refused(&error))?;
        match seccompiler::apply_filter_all_threads(&program) {
            Err(seccompiler::Error::Seccomp(error)) if error.raw_os_error() == Some(libc::ENOSYS) => {
                tracing::warn!("this kernel has no filter for system calls (CONFIG_SECCOMP_FILTER)");
                Ok(())
            }
            other => other.map_err(|error| refused(&error)),
        }
    }

    fn compile(self, architecture: TargetArch) -> Result<seccompiler::BpfProgram, seccompiler::BackendError> {
        let mut rules = BTreeMap::new();
        for (number, alternatives) in self.0 {
            let mut compiled = Vec::new();
            for conditions in alternatives {
                let conditions: Result<Vec<_>, _> = conditions.into_iter().map(Argument::condition).collect();
                compiled.push(SeccompRule::new(conditions?)?);
            }
            rules.insert(number, compiled);
        }
        SeccompFilter::new(rules, SeccompAction::KillProcess, SeccompAction::Allow, architecture)?.try_into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_base_compiles_for_every_architecture_with_a_filter() {
        for architecture in [TargetArch::x86_64, TargetArch::aarch64] {
            assert!(!Syscalls::base().compile(architecture).unwrap().is_empty());
        }
    }

    #[test]
    fn nothing_that_opens_or_starts_anything_is_in_the_base() {
        let base = Syscalls::base();
        for number in [
            libc::SYS_openat,
            libc::SYS_socket,
            libc::SYS_connect,
            libc::SYS_execve,
            libc::SYS_clone,
            libc::SYS_clone3,
            libc::SYS_ptrace,
            libc::SYS_bpf,
            libc::SYS_prctl,
            libc::SYS_seccomp,
            libc::SYS_kill,
            libc::SYS_pkey_mprotect,
            libc::SYS_memfd_create,
        ] {
            assert!(!base.0.contains_key(&number), "{number}");
        }
    }
}
