//! What a daemon tells its supervisor, in the words of sd_notify(3): a datagram of `VARIABLE=value` lines.
//!
//! Both ends are here: the daemons write these to systemd or to `i2planctl up`, which reads them.

use std::fmt::Write as _;
use std::time::Duration;

/// Longest message that systemd reads, bytes (its `NOTIFY_BUFFER_MAX`).
pub const MAX_LEN: usize = 4096;

/// Longest name of a stored descriptor, bytes (sd_notify(3), `FDNAME=`).
pub const MAX_NAME: usize = 255;

/// Longest status that is told, bytes: the rest of a message has room beside it.
const MAX_STATUS: usize = 2048;

/// What a message says. Lines that mean nothing here are left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Notification {
    /// The daemon answers.
    pub ready: bool,
    /// It reads its configuration anew, since this time of `CLOCK_MONOTONIC`, in microseconds.
    pub reloading: Option<u64>,
    /// It is about to end.
    pub stopping: bool,
    /// How it does, in one line for people.
    pub status: Option<String>,
    /// It still does its work.
    pub watchdog: bool,
    /// It needs so much more time for what it is doing.
    pub extend_timeout: Option<Duration>,
    /// What is to be done with descriptors.
    pub store: Option<Store>,
}

/// What is to be done with descriptors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Store {
    /// Keep those that come with the message, for the daemon's next process.
    Keep {
        /// The name by which that process gets them.
        name: String,
        /// Let go of them when they report an error or their end.
        poll: bool,
    },
    /// Let go of those with this name.
    Forget {
        /// Which.
        name: String,
    },
}

impl Notification {
    /// The datagram.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut lines = String::new();
        // Writing to a string does not fail.
        let mut line = |variable: &str, value: &dyn std::fmt::Display| {
            let _ = writeln!(lines, "{variable}={value}");
        };
        if self.ready {
            line("READY", &1);
        }
        if let Some(at) = self.reloading {
            line("RELOADING", &1);
            line("MONOTONIC_USEC", &at);
        }
        if self.stopping {
            line("STOPPING", &1);
        }
        if let Some(status) = &self.status {
            line("STATUS", &one_line(status, MAX_STATUS));
        }
        if self.watchdog {
            line("WATCHDOG", &1);
        }
        if let Some(time) = self.extend_timeout {
            line("EXTEND_TIMEOUT_USEC", &time.as_micros());
        }
        match &self.store {
            Some(Store::Keep { name, poll }) => {
                line("FDSTORE", &1);
                line("FDNAME", name);
                if !poll {
                    line("FDPOLL", &0);
                }
            }
            Some(Store::Forget { name }) => {
                line("FDSTOREREMOVE", &1);
                line("FDNAME", name);
            }
            None => {}
        }
        lines
    }

    /// Reads a datagram. A wrong line is as good as none.
    #[must_use]
    pub fn parse(datagram: &[u8]) -> Self {
        let mut parsed = Self::default();
        let (mut keep, mut forget, mut name, mut poll) = (false, false, None, true);
        let (mut reloading, mut since) = (false, None);
        let text = std::str::from_utf8(datagram).unwrap_or_default();
        for (variable, value) in text.split('\n').filter_map(|line| line.split_once('=')) {
            let is_one = value == "1";
            match variable {
                "READY" => parsed.ready = is_one,
                "RELOADING" => reloading = is_one,
                "MONOTONIC_USEC" => since = value.parse().ok(),
                "STOPPING" => parsed.stopping = is_one,
                "STATUS" => parsed.status = Some(one_line(value, MAX_STATUS)),
                "WATCHDOG" => parsed.watchdog = is_one,
                "EXTEND_TIMEOUT_USEC" => {
                    parsed.extend_timeout = value.parse().ok().map(Duration::from_micros);
                }
                "FDSTORE" => keep = is_one,
                "FDSTOREREMOVE" => forget = is_one,
                "FDNAME" => name = is_name(value).then(|| value.to_owned()),
                "FDPOLL" => poll = value != "0",
                _ => {}
            }
        }
        parsed.reloading = since.filter(|_| reloading);
        parsed.store = match (keep, forget, name) {
            (true, false, Some(name)) => Some(Store::Keep { name, poll }),
            (false, true, Some(name)) => Some(Store::Forget { name }),
            _ => None,
        };
        parsed
    }
}

/// Whether a stored descriptor may be called so: it becomes part of a list with colons.
#[must_use]
pub fn is_name(name: &str) -> bool {
    (1..=MAX_NAME).contains(&name.len())
        && name.bytes().all(|byte| (byte == b' ' || byte.is_ascii_graphic()) && byte != b':')
}

/// The beginning of a text, of at most so many bytes, without what would break a line or drive a terminal.
pub(crate) fn one_line(text: &str, most: usize) -> String {
    let characters = text.char_indices().take_while(|(at, character)| at + character.len_utf8() <= most);
    characters
        .map(|(_, character)| if crate::escape::is_unsafe(character) { ' ' } else { character })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_message_reads_as_systemd_reads_it() {
        let message = b"READY=1\nSTATUS=it works\nX_OTHER=1\nFDSTORE=1\nFDNAME=tun\nFDPOLL=0\nWATCHDOG=1";
        let parsed = Notification::parse(message);
        assert_eq!(
            parsed,
            Notification {
                ready: true,
                status: Some("it works".to_owned()),
                watchdog: true,
                store: Some(Store::Keep { name: "tun".to_owned(), poll: false }),
                ..Notification::default()
            }
        );
    }

    #[test]
    fn what_is_wrong_or_unclear_is_as_good_as_not_said() {
        for message in [
            &b"FDSTORE=1"[..],
            b"FDSTORE=1\nFDNAME=a:b",
            b"FDSTORE=1\nFDNAME=",
            b"FDSTORE=1\nFDSTOREREMOVE=1\nFDNAME=tun",
            b"FDSTORE=0\nFDNAME=tun",
            b"READY=yes\nRELOADING=1\nEXTEND_TIMEOUT_USEC=-1",
            b"READY=1\nSTATUS=\xff",
            b"=\n\n=1",
        ] {
            assert_eq!(Notification::parse(message), Notification::default(), "{message:?}");
        }
        let long = format!("FDSTORE=1\nFDNAME={}", "x".repeat(MAX_NAME + 1));
        assert_eq!(Notification::parse(long.as_bytes()), Notification::default());
    }

    #[test]
    fn a_status_is_one_line_and_leaves_room() {
        let status = format!("first\nREADY=1\n{}", "ä".repeat(MAX_LEN));
        let message = Notification { status: Some(status), ..Notification::default() }.encode();
        assert!(message.len() < MAX_LEN && message.starts_with("STATUS=first READY=1 ä"), "{message}");
        assert!(!Notification::parse(message.as_bytes()).ready);
    }

    fn any_store() -> impl Strategy<Value = Store> {
        let name = "[ -9;-~]{1,40}";
        prop_oneof![
            (name, any::<bool>()).prop_map(|(name, poll)| Store::Keep { name, poll }),
            name.prop_map(|name| Store::Forget { name }),
        ]
    }

    proptest! {
        #[test]
        fn what_is_told_is_heard(
            (ready, stopping, watchdog) in any::<(bool, bool, bool)>(),
            reloading in any::<Option<u64>>(),
            status in proptest::option::of("[^\\p{Cc}]{0,100}".prop_map(|text| one_line(&text, MAX_STATUS))),
            extend in any::<Option<u32>>(),
            store in proptest::option::of(any_store()),
        ) {
            let extend_timeout = extend.map(|seconds| Duration::from_secs(seconds.into()));
            let told =
                Notification { ready, reloading, stopping, status, watchdog, extend_timeout, store };
            prop_assert_eq!(Notification::parse(told.encode().as_bytes()), told);
        }

        #[test]
        fn nothing_that_is_heard_does_harm(message in proptest::collection::vec(any::<u8>(), 0..200)) {
            let heard = Notification::parse(&message);
            prop_assert_eq!(Notification::parse(heard.encode().as_bytes()), heard);
        }
    }
}
