//! Whether control messages go by UDP, or over the TCP connections of their sessions because no UDP comes back from the
//! bridge: a firewall or a NAT may be between it and this host.
//!
//! A session has one of the two from when it is opened. UDP is tried first, and again when a session over TCP fails: not
//! every router has that. What a session sends to itself shows whether UDP comes back, on most routers; on those that
//! bring nothing back, a fallback session goes over TCP where nothing has come by UDP lately.

use std::time::Duration;

/// So long after something has come by UDP it is taken to work.
const LATELY: Duration = Duration::from_secs(60);

/// How datagrams go between a session and its bridge.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Path {
    #[default]
    Udp,
    Tcp,
}

/// Decides how the next session for control messages is opened. Time is any monotonic clock.
#[derive(Debug, Default)]
pub(super) struct ControlPath {
    next: Path,
    /// When something has last come by UDP.
    heard: Option<Duration>,
    /// When UDP was last found not to come back.
    silent: Option<Duration>,
    /// What was said of it.
    error: Option<String>,
    /// The last session over TCP has failed.
    tcp_failed: bool,
    /// The router brings nothing back that a session sends to itself.
    no_loop: bool,
}

impl ControlPath {
    /// How the next session is to be opened.
    pub(super) fn next(&self, is_fallback: bool, now: Duration) -> Path {
        let unknown = self.no_loop && self.heard.is_none_or(|heard| now >= heard + LATELY);
        if is_fallback && unknown && !self.tcp_failed { Path::Tcp } else { self.next }
    }

    /// A session was opened on a bridge that brings back what it sends to itself, or does not.
    pub(super) fn handle_bridge(&mut self, loops_back: bool) {
        self.no_loop = !loops_back;
    }

    /// Nothing has come back by UDP of what a session for control messages has sent to itself since `began`.
    pub(super) fn handle_silence(&mut self, error: String, began: Duration, now: Duration) {
        // Where others hear by UDP meanwhile, it is the session.
        if self.heard.is_none_or(|heard| heard < began) {
            (self.next, self.tcp_failed) = (Path::Tcp, false);
            (self.silent, self.error) = (Some(now), Some(error));
        }
    }

    /// Something has come by UDP.
    pub(super) fn handle_udp(&mut self, at: Duration) {
        self.heard = self.heard.max(Some(at));
        if self.works() {
            self.next = Path::Udp;
        }
    }

    /// Something has come from another through a fallback session over TCP.
    pub(super) fn handle_tcp(&mut self, now: Duration) {
        if self.next == Path::Udp && self.next(true, now) == Path::Tcp {
            (self.next, self.silent) = (Path::Tcp, Some(now));
        }
    }

    /// A session over TCP could not be opened. Returns what was said of UDP before.
    pub(super) fn handle_tcp_failure(&mut self) -> Option<String> {
        (self.next, self.tcp_failed) = (Path::Udp, true);
        self.error.clone()
    }

    /// Whether a session through which nothing has come back is to be believed where another has shown the port. Not if UDP
    /// may have been cut off since, and there is another way.
    pub(super) fn trusts_port(&self, now: Duration) -> bool {
        self.tcp_failed || self.heard.is_some_and(|heard| now < heard + LATELY)
    }

    /// Whether UDP comes back, as far as is known.
    pub(super) fn works(&self) -> bool {
        self.heard > self.silent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn silent() -> ControlPath {
        let mut path = ControlPath::default();
        path.handle_bridge(true);
        path.handle_silence("no UDP".to_owned(), seconds(0), seconds(40));
        path
    }

    #[test]
    fn a_session_goes_over_tcp_once_no_udp_comes_back() {
        assert_eq!(ControlPath::default().next(false, seconds(0)), Path::Udp);
        let mut path = silent();
        assert_eq!((path.next(false, seconds(41)), path.works()), (Path::Tcp, false));
        path.handle_udp(seconds(90));
        assert_eq!((path.next(false, seconds(91)), path.works()), (Path::Udp, true));
    }

    #[test]
    fn both_take_turns_where_neither_works() {
        let mut path = silent();
        assert_eq!(path.handle_tcp_failure().as_deref(), Some("no UDP"));
        assert_eq!((path.next(false, seconds(50)), path.next(true, seconds(50))), (Path::Udp, Path::Udp));
        path.handle_silence("no UDP".to_owned(), seconds(50), seconds(90));
        assert_eq!(path.next(false, seconds(91)), Path::Tcp);
    }

    #[test]
    fn a_session_that_is_deaf_while_others_hear_is_no_silent_bridge() {
        let mut path = ControlPath::default();
        path.handle_udp(seconds(20));
        path.handle_silence("no UDP".to_owned(), seconds(10), seconds(50));
        assert_eq!((path.next(false, seconds(51)), path.works()), (Path::Udp, true));
        path.handle_silence("no UDP".to_owned(), seconds(60), seconds(100));
        assert_eq!((path.next(false, seconds(101)), path.works()), (Path::Tcp, false));
        // What had come before is told late.
        path.handle_udp(seconds(99));
        assert_eq!(path.next(false, seconds(101)), Path::Tcp);
    }

    #[test]
    fn a_port_that_worked_is_not_trusted_for_ever_where_tcp_may_do() {
        let mut path = ControlPath::default();
        assert!(!path.trusts_port(seconds(0)));
        path.handle_udp(seconds(10));
        assert!(path.trusts_port(seconds(69)) && !path.trusts_port(seconds(70)));
        path.handle_silence("no UDP".to_owned(), seconds(70), seconds(110));
        assert!(!path.trusts_port(seconds(111)));
        path.handle_tcp_failure();
        assert!(path.trusts_port(seconds(112)), "as on emissary");
    }

    #[test]
    fn where_no_self_test_can_tell_fallback_sessions_go_over_tcp_if_nothing_comes_by_udp() {
        let mut path = ControlPath::default();
        path.handle_bridge(false);
        assert_eq!((path.next(false, seconds(9)), path.next(true, seconds(9))), (Path::Udp, Path::Tcp));
        let mut quiet = ControlPath::default();
        quiet.handle_bridge(false);
        quiet.handle_tcp(seconds(9));
        assert_eq!(quiet.next(false, seconds(9)), Path::Tcp, "that is the one that works");
        quiet.handle_udp(seconds(8));
        assert_eq!((quiet.next(false, seconds(10)), quiet.works()), (Path::Tcp, false));
        quiet.handle_udp(seconds(20));
        assert_eq!((quiet.next(false, seconds(21)), quiet.works()), (Path::Udp, true));
        path.handle_udp(seconds(10));
        path.handle_tcp(seconds(11));
        assert_eq!((path.next(false, seconds(11)), path.next(true, seconds(11))), (Path::Udp, Path::Udp));
        assert_eq!(path.next(true, seconds(70)), Path::Tcp);
        path.handle_tcp_failure();
        assert_eq!(path.next(true, seconds(71)), Path::Udp);
    }
}
