//! How output looks: width, colours and times.

use i2plan_ipc::version::utc;

use super::units;

/// How a text is shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Look {
    /// Columns that a line may have, if that is limited.
    pub width: Option<usize>,
    /// Colours may be used.
    pub colour: bool,
    /// Characters beyond ASCII may be used to draw.
    pub drawing: bool,
    /// How times are shown.
    pub times: Times,
}

/// How times are shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Times {
    /// As dates.
    #[default]
    Dates,
    /// As far from now, which is this Unix time in seconds.
    From(u64),
}

impl Times {
    /// A Unix time in seconds: `5m ago`, `in 3h 20m`, or a date.
    #[must_use]
    pub fn at(self, unix: u64) -> String {
        match self {
            Self::Dates => utc(unix),
            Self::From(now) if unix > now => format!("in {}", units::duration(unix - now)),
            Self::From(now) => format!("{} ago", units::duration(now - unix)),
        }
    }

    /// How many seconds ago something was: `45s ago`, a date, or `-` if that is not known. `now` is for dates.
    #[must_use]
    pub fn ago(self, age: Option<u64>, now: u64) -> String {
        match (self, age) {
            (_, None) => "-".to_owned(),
            (Self::Dates, Some(age)) => utc(now.saturating_sub(age)),
            (Self::From(_), age) => units::ago(age),
        }
    }
}

/// The Unix time in seconds.
#[must_use]
pub fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

/// What a word means: its colour follows from that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// As it should be.
    Good,
    /// It may be wrong.
    Warn,
    /// It is wrong, or shut out.
    Bad,
    /// It matters little.
    Quiet,
}

impl Tone {
    /// The text in the colour of what it means, if there are colours. It must be [`clean`](super::text::clean).
    #[must_use]
    pub fn paint(self, text: &str, colour: bool) -> String {
        if !colour {
            return text.to_owned();
        }
        let code = match self {
            Self::Good => "32",
            Self::Warn => "33",
            Self::Bad => "1;31",
            Self::Quiet => "2",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_far_from_now_or_dates() {
        let now = 1_800_000_000;
        let relative = Times::From(now);
        assert_eq!(
            (relative.at(now - 300), relative.at(now + 12_000)),
            ("5m ago".to_owned(), "in 3h 20m".to_owned())
        );
        assert_eq!(Times::Dates.at(now), "2027-01-15T08:00:00Z");
        assert_eq!(
            (relative.ago(Some(45), now), relative.ago(None, now)),
            ("45s ago".to_owned(), "-".to_owned())
        );
        assert_eq!(Times::Dates.ago(Some(60), now), "2027-01-15T07:59:00Z");
    }

    #[test]
    fn without_colours_a_text_is_as_it_is() {
        assert_eq!(Tone::Bad.paint("PROBLEM", false), "PROBLEM");
        assert_eq!(Tone::Bad.paint("PROBLEM", true), "\x1b[1;31mPROBLEM\x1b[0m");
    }
}
