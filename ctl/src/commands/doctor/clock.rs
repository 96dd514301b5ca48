//! Whether the time can be right.

use std::time::{SystemTime, UNIX_EPOCH};

use i2plan_ipc::version::{Version, utc};

use super::Finding;

/// Looks at this machine's clock.
pub(super) fn check() -> Finding {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    judge(now, Version::current().built_at, synchronised())
}

fn judge(now: u64, built_at: u64, synchronised: Option<bool>) -> Finding {
    let mend = "switch on time synchronisation (systemd: `timedatectl set-ntp true`); invites, keys and bans end by \
                the clock";
    if now < built_at {
        let message = format!("it is {} here, before this program was built ({})", utc(now), utc(built_at));
        return Finding::problem("clock", message, mend);
    }
    match synchronised {
        Some(true) => Finding::ok("clock", format!("{}, synchronised", utc(now))),
        Some(false) => Finding::note(
            "clock",
            format!("{}, and the kernel knows of nothing that keeps it right", utc(now)),
            mend,
        ),
        None => Finding::ok("clock", utc(now)),
    }
}

/// Whether the kernel holds its clock to be kept right by somebody, who has told it so.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "no safe library reads this state of the kernel")]
fn synchronised() -> Option<bool> {
    // SAFETY: all bytes zero is a value of this structure of numbers: one that asks for no change.
    let mut state: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes into the structure that it is given, and keeps nothing of it.
    let result = unsafe { libc::adjtimex(&raw mut state) };
    (result >= 0).then_some(result != libc::TIME_ERROR)
}

#[cfg(not(target_os = "linux"))]
fn synchronised() -> Option<bool> {
    None
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    #[test]
    fn a_clock_is_judged_by_the_build_and_the_kernel() {
        assert_eq!(judge(99, 100, Some(true)).level, Level::Problem);
        assert_eq!(judge(100, 100, Some(true)).level, Level::Ok);
        assert_eq!(judge(100, 100, Some(false)).level, Level::Note);
        assert_eq!(judge(100, 100, None).level, Level::Ok);
    }

    #[test]
    fn the_kernel_is_asked_without_privileges() {
        // Where it refuses to tell, that is no problem of the node's.
        assert_ne!(check().level, Level::Problem);
    }
}
