//! Whether the time can be right.

use std::time::{SystemTime, UNIX_EPOCH};

use i2plan_ipc::api::meshd::Peer;
use i2plan_ipc::version::{Version, utc};
use i2plan_present::finding::Finding;
use i2plan_present::units;

/// How far clocks may be apart without a word, seconds.
const TOLERANCE: u64 = 300;

/// Looks at this machine's clock.
pub(super) fn check() -> Finding {
    judge(now(), Version::current().built_at, synchronised())
}

/// Compares this clock with those of members, going by what they have signed. A record was under way for an
/// unknown time, so only clocks that are ahead can be told.
pub(super) fn compare(peers: &[Peer]) -> Option<Finding> {
    ahead(&peers.iter().map(|peer| (peer.name.as_str(), peer.signed_at)).collect::<Vec<_>>(), now())
}

fn ahead(members: &[(&str, u64)], now: u64) -> Option<Finding> {
    let ahead = members.iter().map(|(name, signed_at)| (signed_at.saturating_sub(now), *name));
    let ahead: Vec<_> = ahead.filter(|(seconds, _)| *seconds > TOLERANCE).collect();
    let (most, name) = *ahead.iter().max()?;
    let message = if ahead.len() * 2 > members.len() {
        format!(
            "this clock seems to be behind: those of {} of {} members are ahead, by up to {}",
            ahead.len(),
            members.len(),
            units::duration(most)
        )
    } else {
        format!("the clock of {name} is {} ahead of this one", units::duration(most))
    };
    let hint = "set the clock that is wrong: a member whose clock is a day off is refused";
    Some(Finding::note("clock", message, hint))
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

fn judge(now: u64, built_at: u64, synchronised: Option<bool>) -> Finding {
    let hint = "switch on time synchronisation (systemd: `timedatectl set-ntp true`); invites, keys and bans end by \
                the clock";
    if now < built_at {
        let message = format!("it is {} here, before this program was built ({})", utc(now), utc(built_at));
        return Finding::problem("clock", message, hint);
    }
    match synchronised {
        Some(true) => Finding::ok("clock", format!("{}, synchronised", utc(now))),
        Some(false) => Finding::note(
            "clock",
            format!("{}, and the kernel knows of nothing that keeps it right", utc(now)),
            hint,
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
    use super::*;
    use i2plan_present::finding::Level;

    #[test]
    fn a_clock_is_judged_by_the_build_and_the_kernel() {
        assert_eq!(judge(99, 100, Some(true)).level, Level::Problem);
        assert_eq!(judge(100, 100, Some(true)).level, Level::Ok);
        assert_eq!(judge(100, 100, Some(false)).level, Level::Note);
        assert_eq!(judge(100, 100, None).level, Level::Ok);
    }

    #[test]
    fn a_clock_that_differs_from_the_members_is_told() {
        let told = |members: &[(&str, u64)]| ahead(members, 10_000).map(|found| found.message);
        assert_eq!(told(&[("a", 9_000), ("b", 10_300)]), None);
        let one = told(&[("a", 9_990), ("b", 11_000)]).unwrap();
        assert_eq!(one, "the clock of b is 16m 40s ahead of this one");
        let all = told(&[("a", 13_600), ("b", 13_610)]).unwrap();
        assert!(all.starts_with("this clock seems to be behind: those of 2 of 2 members"), "{all}");
        assert_eq!(told(&[]), None);
    }

    #[test]
    fn the_kernel_is_asked_without_privileges() {
        // Where it refuses to tell, that is no problem of the node's.
        assert_ne!(check().level, Level::Problem);
    }
}
