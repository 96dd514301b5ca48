//! Numbers and times for people.

use i2plan_ipc::version::utc;

/// `0 B`, `1.5 KiB`, `20 MiB`.
#[must_use]
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    // In tenths of the unit, so that 1023.96 KiB rounds to 1.0 MiB and not to 1024.0 KiB.
    let mut tenths = u128::from(count) * 10;
    for unit in UNITS {
        tenths = (tenths + 512) / 1024;
        if tenths < 100 {
            return format!("{}.{} {unit}", tenths / 10, tenths % 10);
        }
        if (tenths + 5) / 10 < 1024 {
            return format!("{} {unit}", (tenths + 5) / 10);
        }
    }
    format!("{count} B")
}

/// `45s`, `12m 3s`, `3h 20m`, `2d 5h`: the two largest units.
#[must_use]
pub fn duration(seconds: u64) -> String {
    const UNITS: [(u64, &str); 4] = [(86_400, "d"), (3600, "h"), (60, "m"), (1, "s")];
    let first = UNITS.iter().position(|(size, _)| seconds >= *size).unwrap_or(UNITS.len() - 1);
    let mut rest = seconds;
    let mut parts = Vec::with_capacity(2);
    for (size, name) in UNITS.iter().skip(first).take(2) {
        let count = rest / size;
        rest %= size;
        if count > 0 || parts.is_empty() {
            parts.push(format!("{count}{name}"));
        }
    }
    parts.join(" ")
}

/// `1 packet`, `2 packets`.
#[must_use]
pub fn counted(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// `1 address`, `2 addresses`.
#[must_use]
pub fn addresses(count: u64) -> String {
    format!("{count} address{}", if count == 1 { "" } else { "es" })
}

/// `812 ms`.
#[must_use]
pub fn milliseconds(count: u64) -> String {
    format!("{count} ms")
}

/// How long ago something was, in seconds; `-` if this run of the node knows of no time.
#[must_use]
pub fn ago(age: Option<u64>) -> String {
    or_dash(age.map(|age| duration(age) + " ago"))
}

/// A Unix time, or `-` if none is known.
#[must_use]
pub fn time(at: Option<u64>) -> String {
    or_dash(at.map(utc))
}

/// What is shown for a value that there may not be.
#[must_use]
pub fn or_dash(value: Option<String>) -> String {
    value.unwrap_or_else(|| "-".to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bytes_have_binary_units() {
        for (count, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (10 * 1024, "10 KiB"),
            (1024 * 1024 - 1, "1.0 MiB"),
            (20 << 20, "20 MiB"),
            (3 << 40, "3.0 TiB"),
            (u64::MAX, "16 EiB"),
        ] {
            assert_eq!(bytes(count), text, "{count}");
        }
    }

    #[test]
    fn durations_show_two_units() {
        for (seconds, text) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m"),
            (723, "12m 3s"),
            (3600, "1h"),
            (12_000, "3h 20m"),
            (86_400, "1d"),
            (2 * 86_400 + 5 * 3600 + 59, "2d 5h"),
        ] {
            assert_eq!(duration(seconds), text, "{seconds}");
        }
    }

    proptest! {
        #[test]
        fn byte_counts_are_short(count: u64) {
            prop_assert!(bytes(count).len() <= 8, "{}", bytes(count));
        }
    }
}
