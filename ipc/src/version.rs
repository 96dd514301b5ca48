//! Which build this is.

use std::sync::OnceLock;

pub use i2plan_build_info::build;
use serde::{Deserialize, Serialize};

/// A program's commit and its time, as [`build!`] finds them.
pub type Build = (&'static str, u64);

static BUILD: OnceLock<Build> = OnceLock::new();

/// Says which build this program is, for [`Version::current`]. Main functions call it, with [`build!`]; the second call in
/// a process does nothing.
pub fn set(build: Build) {
    BUILD.get_or_init(|| build);
}

/// Version, commit and build time of a program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Version {
    /// Semantic version.
    pub version: String,
    /// Short git commit, with `-dirty` if the tree had changes, or `unknown`.
    pub commit: String,
    /// When the source was committed, Unix time in seconds, or 0 if that is unknown.
    pub built_at: u64,
}

impl Version {
    /// This build, of an unknown commit before [`set`].
    #[must_use]
    pub fn current() -> Self {
        let (commit, built_at) = BUILD.get().copied().unwrap_or(("unknown", 0));
        Self { version: env!("CARGO_PKG_VERSION").to_owned(), commit: commit.to_owned(), built_at }
    }

    /// Whether two programs are of one version and commit. Uncommitted changes do not count: only the programs that they
    /// concern are built again, so that of one tree some are marked `-dirty` and some are not.
    #[must_use]
    pub fn is_of_the_build(&self, other: &Self) -> bool {
        let commit = |version: &Self| version.commit.trim_end_matches("-dirty").to_owned();
        self.version == other.version && commit(self) == commit(other)
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (commit {}, built {})", self.version, self.commit, utc(self.built_at))
    }
}

/// `2026-11-23T12:00:00Z` for a Unix time in seconds.
#[must_use]
pub fn utc(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil_from_days(days);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", rest / 3600, rest / 60 % 60, rest % 60)
}

/// Year, month and day of a day counted from 1970-01-01, in the proleptic Gregorian calendar.
fn civil_from_days(days: u64) -> (u64, u64, u64) {
    // Eras of 400 years, which start on 1 March so that the leap day comes last.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uncommitted_changes_make_no_other_build() {
        let of = |commit: &str| Version { version: "1".to_owned(), commit: commit.to_owned(), built_at: 0 };
        assert!(of("abc").is_of_the_build(&of("abc-dirty")) && of("abc").is_of_the_build(&of("abc")));
        assert!(!of("abc").is_of_the_build(&of("abd")) && !of("abc").is_of_the_build(&of("unknown")));
        assert!(!of("abc").is_of_the_build(&Version { version: "2".to_owned(), ..of("abc") }));
    }

    #[test]
    fn times_are_written_in_utc() {
        assert_eq!(utc(0), "1970-01-01T00:00:00Z");
        assert_eq!(utc(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(utc(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(utc(1_795_435_200), "2026-11-23T12:00:00Z");
        assert_eq!(utc(4_107_542_400), "2100-03-01T00:00:00Z");
    }
}
