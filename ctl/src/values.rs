//! Values as people write them, in arguments and in forms.

use std::time::Duration;

use i2plan_ipc::api::meshd;

use crate::failure::{Failure, Kind};

/// Reads how long an invite is good for.
///
/// # Errors
/// What to write in its place.
pub fn parse_expiry(text: &str) -> Result<Duration, String> {
    match i2plan_config::parse_duration(text) {
        Some(Duration::ZERO) => Err("an invite that has expired invites nobody".to_owned()),
        Some(duration) => Ok(duration),
        None => Err(HOW_LONG.to_owned()),
    }
}

/// Reads how long a ban lasts.
///
/// # Errors
/// What to write in its place.
pub fn parse_ban_duration(text: &str) -> Result<Duration, String> {
    match i2plan_config::parse_duration(text) {
        Some(Duration::ZERO) => Err("a ban that is over bans nobody".to_owned()),
        Some(duration) => Ok(duration),
        None => Err(HOW_LONG.to_owned()),
    }
}

/// Reads how far back events are told.
///
/// # Errors
/// What to write in its place.
pub fn parse_since(text: &str) -> Result<Duration, String> {
    i2plan_config::parse_duration(text).ok_or_else(|| HOW_LONG.to_owned())
}

/// Reads a number of addresses, a power of two.
///
/// # Errors
/// What to write in its place.
pub fn parse_addresses(text: &str) -> Result<u32, String> {
    let number = text.parse().map_err(|_| "write a power of two, such as 1, 16 or 1024".to_owned())?;
    match number {
        0 => Err("a node needs at least 1".to_owned()),
        number if u32::is_power_of_two(number) => Ok(number),
        number => {
            let (less, more) = (1u64 << number.ilog2(), 1u64 << (number.ilog2() + 1));
            Err(format!("{number} is not a power of two; use {less} or {more}"))
        }
    }
}

/// Returns the limit that `--uses` sets; none for -1.
///
/// # Errors
/// If nobody could use it, or it is out of range.
pub fn max_uses(uses: i64) -> Result<Option<u32>, Failure> {
    meshd::max_uses(uses).map_err(|error| Failure { kind: Kind::Usage, ..error.into() })
}

/// Reads seconds, with a fraction, or with a unit from ms to d.
///
/// # Errors
/// What to write in its place.
pub fn parse_time(text: &str) -> Result<Duration, String> {
    let wrong = || "write a number of seconds such as 0.5, or one with ms, s, m or h".to_owned();
    let seconds = |text: &str| {
        let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        let seconds = plain.then(|| text.parse().ok()).flatten();
        seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
    };
    let time = match (text.strip_suffix("ms"), text.strip_suffix('s')) {
        (Some(millis), _) => millis.parse().ok().map(Duration::from_millis),
        (None, Some(text)) => seconds(text),
        (None, None) => seconds(text).or_else(|| i2plan_config::parse_duration(text)),
    };
    time.filter(|time| *time <= MAX_TIME).ok_or_else(wrong)
}

/// Reads the time between echo requests.
///
/// # Errors
/// What to write in its place.
pub fn parse_interval(text: &str) -> Result<Duration, String> {
    match parse_time(text)? {
        short if short < Duration::from_millis(10) => Err("at least 10ms".to_owned()),
        interval => Ok(interval),
    }
}

/// Reads how long an echo reply may take.
///
/// # Errors
/// What to write in its place.
pub fn parse_timeout(text: &str) -> Result<Duration, String> {
    match parse_time(text)? {
        long if long > Duration::from_secs(300) => Err("at most 5m".to_owned()),
        timeout => Ok(timeout),
    }
}

/// How a duration is written.
const HOW_LONG: &str = "write a number with s, m, h or d, such as 90s, 30m, 24h or 7d, or plain seconds";

/// No time on the command line is longer.
const MAX_TIME: Duration = Duration::from_secs(366 * 86_400);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_of_invites() {
        assert_eq!(parse_expiry("90"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_expiry("30m"), Ok(Duration::from_secs(1800)));
        assert_eq!(parse_expiry("7d"), Ok(Duration::from_secs(7 * 86_400)));
        for wrong in ["0", "0h", "1w", "-1h", "", "1.5h", "99999999999999999999"] {
            assert!(parse_expiry(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn addresses_are_a_power_of_two() {
        for (text, number) in [("1", 1), ("16", 16), ("2147483648", 1 << 31)] {
            assert_eq!(parse_addresses(text), Ok(number));
        }
        assert_eq!(parse_addresses("12").unwrap_err(), "12 is not a power of two; use 8 or 16");
        let largest = parse_addresses("4294967295").unwrap_err();
        assert!(largest.ends_with("use 2147483648 or 4294967296"), "{largest}");
        for wrong in ["0", "-1", "", "x", "1.5", "/28", "4294967296"] {
            assert!(parse_addresses(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn times_of_a_ping() {
        for (text, millis) in [("0.5", 500), ("200ms", 200), ("1s", 1000), ("1.5s", 1500), ("2m", 120_000)] {
            assert_eq!(parse_time(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for wrong in ["", "ms", "s", "-1", "1e3", "inf", "nan", "1x", "99999999999999999999"] {
            assert!(parse_time(wrong).is_err(), "{wrong}");
        }
        assert!(parse_interval("9ms").is_err() && parse_timeout("6m").is_err());
    }

    #[test]
    fn uses_are_checked() {
        assert_eq!(max_uses(1), Ok(Some(1)));
        assert_eq!(max_uses(-1), Ok(None));
        assert_eq!(max_uses(i64::from(u32::MAX)), Ok(Some(u32::MAX)));
        assert_eq!(max_uses(0).unwrap_err().message, "an invite with 0 uses invites nobody");
        for wrong in [-2, i64::MIN, i64::from(u32::MAX) + 1] {
            assert_eq!(max_uses(wrong).unwrap_err().exit_code(), 2, "{wrong}");
        }
    }
}
