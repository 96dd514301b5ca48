//! Crashes, for tests of what is written to disk.

use libc::c_long;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch, apply_filter};

/// How far the replacement of a file has come when the process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteStep {
    /// What an earlier attempt left is gone.
    Cleared,
    /// There is a new file with nothing in it.
    Made,
    /// It has its content.
    Written,
    /// Which is on disk.
    Synced,
    /// It has the old one's place, or its name if there was none.
    Renamed,
}

impl WriteStep {
    /// All of them, in order.
    pub const ALL: [Self; 5] = [Self::Cleared, Self::Made, Self::Written, Self::Synced, Self::Renamed];

    /// The system calls that make the next one.
    const fn next(self) -> &'static [c_long] {
        match self {
            Self::Cleared => &[libc::SYS_openat],
            Self::Made => &[libc::SYS_write],
            Self::Written => &[libc::SYS_fsync],
            Self::Synced => &[libc::SYS_renameat, libc::SYS_linkat],
            Self::Renamed => &[],
        }
    }
}

/// Replaces or makes a file, as if the process ended after a step: in a thread to which the system refuses the next one.
/// What `act` does after an error is done, so it must do nothing then.
///
/// # Panics
/// If the system has no filters for system calls.
pub fn crash_after<T: Send>(step: WriteStep, act: impl FnOnce() -> T + Send) -> T {
    let refused = step.next().iter().map(|number| (*number, Vec::new())).collect();
    let architecture = TargetArch::try_from(std::env::consts::ARCH).expect("an architecture with filters");
    let filter = SeccompFilter::new(refused, SeccompAction::Allow, SeccompAction::Errno(EIO), architecture);
    let program: BpfProgram = filter.and_then(TryInto::try_into).expect("a filter");
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            apply_filter(&program).expect("a system with filters");
            act()
        });
        thread.join().expect("no panic")
    })
}

const EIO: u32 = libc::EIO.cast_unsigned();
