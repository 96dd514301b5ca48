//! Errors as a user sees them: what is wrong, what to do, and an exit code for scripts.

use i2plan_ipc::member::LookupError;
use i2plan_ipc::{ApiError, ErrorKind};
use i2plan_present::member::candidates;
use i2plan_present::remedy::sentence;
use i2plan_present::text::{clean, hang};
use serde::Serialize;

/// Exit code of a wrong command line.
pub const USAGE: u8 = 2;

/// The exit codes, for `--help`.
pub const EXIT_CODES: &str = "\
Exit status:
  0  done
  1  failed
  2  the command line is wrong
  3  the daemon cannot be reached
  4  this user may not do that
  5  it does not fit the node's present state, such as joining while a member
  6  it took too long, or something that is needed is not there now; trying again can help";

/// What sort of failure it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The command line is wrong.
    Usage,
    /// The daemon cannot be reached.
    Unreachable,
    /// As in the node's API.
    #[serde(untagged)]
    Api(ErrorKind),
}

impl From<ErrorKind> for Kind {
    fn from(kind: ErrorKind) -> Self {
        Self::Api(kind)
    }
}

/// Why a command failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// The sort of failure.
    pub kind: Kind,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Failure {
    /// A failure of a kind.
    #[must_use]
    pub fn new(kind: impl Into<Kind>, message: impl Into<String>) -> Self {
        Self { kind: kind.into(), message: message.into(), hint: None }
    }

    /// [`Kind::Usage`].
    #[must_use]
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Kind::Usage, message)
    }

    /// [`ErrorKind::Invalid`].
    #[must_use]
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, message)
    }

    /// [`ErrorKind::Internal`].
    #[must_use]
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    /// The same with advice.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The process's exit code, as [`EXIT_CODES`] says.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self.kind {
            Kind::Usage => USAGE,
            Kind::Unreachable => 3,
            Kind::Api(kind) => match kind {
                ErrorKind::Invalid | ErrorKind::NotFound | ErrorKind::Version | ErrorKind::Internal => 1,
                ErrorKind::Denied => 4,
                ErrorKind::Conflict => 5,
                ErrorKind::Timeout | ErrorKind::Unavailable => 6,
            },
        }
    }
}

/// One line of what is wrong, and what to do below it.
impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.render(None))
    }
}

impl Failure {
    /// Lines of at most `width` columns, if that is limited.
    #[must_use]
    pub fn render(&self, width: Option<usize>) -> String {
        let mut out = format!("error: {}\n", hang(&clean(&self.message), 7, width));
        if let Some(hint) = &self.hint {
            let mut label = "hint: ";
            for line in hint.lines() {
                out.push_str(&format!("{label}{}\n", hang(&clean(line), label.len(), width)));
                label = "      ";
            }
        }
        out
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Self { kind: error.kind.into(), message: error.message, hint: error.remedy.as_ref().map(sentence) }
    }
}

impl From<LookupError> for Failure {
    fn from(error: LookupError) -> Self {
        match error {
            LookupError::Unknown { text } => {
                Self::new(ErrorKind::NotFound, format!("no member {:?} is known", clean(&text)))
                    .with_hint("`i2planctl peers` lists the members; name one by name, address or node id")
            }
            LookupError::Ambiguous { text, candidates: members } => {
                Self::invalid(format!("{:?} is ambiguous: {}", clean(&text), candidates(&members)))
                    .with_hint("use the node id; `i2planctl peers --json` shows it")
            }
            LookupError::ThisNode { text } => {
                Self::invalid(format!("{:?} is this node itself", clean(&text)))
                    .with_hint("`i2planctl peers` lists the other members")
            }
            LookupError::Client(error) => error.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use i2plan_ipc::member::{Candidate, look_up};
    use i2plan_proto::identity::NodeId;

    use super::*;

    fn named(node_id: &str, name: &str, address: &str) -> Candidate {
        let addresses = vec![address.parse().unwrap()];
        Candidate { node_id: node_id.to_owned(), name: name.to_owned(), addresses }
    }

    #[test]
    fn every_kind_of_error_has_its_documented_exit_code() {
        for (kind, code) in [
            (ErrorKind::Invalid, 1),
            (ErrorKind::NotFound, 1),
            (ErrorKind::Version, 1),
            (ErrorKind::Internal, 1),
            (ErrorKind::Denied, 4),
            (ErrorKind::Conflict, 5),
            (ErrorKind::Timeout, 6),
            (ErrorKind::Unavailable, 6),
        ] {
            assert_eq!(Failure::from(ApiError::new(kind, "")).exit_code(), code, "{kind:?}");
        }
        assert_eq!(Failure::usage("").exit_code(), 2);
        assert_eq!(Failure::new(Kind::Unreachable, "").exit_code(), 3);
        for code in 0..=6 {
            assert!(EXIT_CODES.contains(&format!("\n  {code}  ")), "{code} is not documented");
        }
    }

    #[test]
    fn kinds_have_the_names_that_the_daemon_uses() {
        for kind in ErrorKind::ALL {
            assert_eq!(
                serde_json::to_string(&Kind::from(kind)).unwrap(),
                serde_json::to_string(&kind).unwrap()
            );
        }
    }

    #[test]
    fn text_from_afar_cannot_drive_the_terminal() {
        let failure = Failure::invalid("bad \x1b[2J\nerror: forged").with_hint("a\nb");
        assert_eq!(failure.to_string(), "error: bad \u{fffd}[2J\u{fffd}error: forged\nhint: a\n      b\n");
    }

    #[test]
    fn what_means_several_members_or_none_says_so() {
        let members = || vec![named("aabb", "db", "10.42.0.2"), named("cccc", "db", "10.42.0.3")];
        let failure = |text: &str| Failure::from(look_up(members(), text).unwrap_err());
        let several = failure("db");
        assert_eq!(several.message, "\"db\" is ambiguous: db (aabb, 10.42.0.2), db (cccc, 10.42.0.3)");
        assert_eq!(several.kind, Kind::Api(ErrorKind::Invalid));
        assert_eq!(several.hint.as_deref().map(|hint| hint.contains("node id")), Some(true));
        let none = failure("x");
        assert_eq!(
            (none.kind, none.message.as_str()),
            (Kind::Api(ErrorKind::NotFound), "no member \"x\" is known")
        );
        let own = Failure::from(LookupError::ThisNode { text: "me".to_owned() });
        assert_eq!(
            (own.kind, own.message.as_str()),
            (Kind::Api(ErrorKind::Invalid), "\"me\" is this node itself")
        );
    }

    #[test]
    fn an_error_stays_short_however_many_members_there_are() {
        let name = "n".repeat(63);
        let members: Vec<_> = (0..3000_u32)
            .map(|number| {
                let mut id = [0; 32];
                id[..4].copy_from_slice(&number.to_be_bytes());
                let address = std::net::Ipv4Addr::from(0x0a2a_0000 + number).to_string();
                named(&NodeId(id).to_string(), &name, &address)
            })
            .collect();
        let failure = Failure::from(look_up(members, &name).unwrap_err());
        assert!(failure.message.ends_with(", 10.42.0.4), and 2995 more"), "{}", failure.message);
        assert!(failure.message.len() < 400, "{}", failure.message);
        assert_eq!(failure.to_string().lines().count(), 2);
    }
}
