//! Errors as a user sees them: what is wrong, what to do, and an exit code for scripts.

use std::io::Write as _;

use i2plan_ipc::{ApiError, ErrorKind};
use i2plan_rpcd::error::Code;
use serde::Serialize;

use crate::output;
use crate::remedy::sentence;

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
    /// As [`ErrorKind::Invalid`].
    Invalid,
    /// As [`ErrorKind::Denied`].
    Denied,
    /// As [`ErrorKind::NotFound`].
    NotFound,
    /// As [`ErrorKind::Conflict`].
    Conflict,
    /// As [`ErrorKind::Unavailable`].
    Unavailable,
    /// As [`ErrorKind::Timeout`].
    Timeout,
    /// As [`ErrorKind::Version`].
    Version,
    /// As [`ErrorKind::Internal`].
    Internal,
}

impl From<ErrorKind> for Kind {
    fn from(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::Invalid => Self::Invalid,
            ErrorKind::Denied => Self::Denied,
            ErrorKind::NotFound => Self::NotFound,
            ErrorKind::Conflict => Self::Conflict,
            ErrorKind::Unavailable => Self::Unavailable,
            ErrorKind::Timeout => Self::Timeout,
            ErrorKind::Version => Self::Version,
            ErrorKind::Internal => Self::Internal,
        }
    }
}

impl From<Code> for Kind {
    fn from(code: Code) -> Self {
        match code {
            Code::Parse | Code::InvalidRequest | Code::MethodNotFound | Code::InvalidParams => Self::Invalid,
            Code::Internal => Self::Internal,
            Code::Denied => Self::Denied,
            Code::NotFound => Self::NotFound,
            Code::Conflict => Self::Conflict,
            Code::Unavailable | Code::RateLimited => Self::Unavailable,
            Code::Timeout => Self::Timeout,
            Code::Version => Self::Version,
        }
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
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: None }
    }

    /// [`Kind::Usage`].
    #[must_use]
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Kind::Usage, message)
    }

    /// [`Kind::Invalid`].
    #[must_use]
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Kind::Invalid, message)
    }

    /// [`Kind::Internal`].
    #[must_use]
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(Kind::Internal, message)
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
            Kind::Invalid | Kind::NotFound | Kind::Version | Kind::Internal => 1,
            Kind::Usage => USAGE,
            Kind::Unreachable => 3,
            Kind::Denied => 4,
            Kind::Conflict => 5,
            Kind::Timeout | Kind::Unavailable => 6,
        }
    }

    /// Tells the user: on standard error, or as JSON on standard output.
    pub fn report(&self, json: bool) {
        // Where nobody listens there is nobody to tell so.
        if json {
            let _ = output::json::print(&serde_json::json!({ "error": self }));
        } else {
            let _ = std::io::stderr().write_all(self.to_string().as_bytes());
        }
    }
}

/// One line of what is wrong, and what to do below it.
impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "error: {}", output::clean(&self.message))?;
        if let Some(hint) = &self.hint {
            let mut lines = hint.lines();
            writeln!(f, "hint: {}", output::clean(lines.next().unwrap_or_default()))?;
            for line in lines {
                writeln!(f, "      {}", output::clean(line))?;
            }
        }
        Ok(())
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Self { kind: error.kind.into(), message: error.message, hint: error.remedy.as_ref().map(sentence) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_over_json_rpc_is_of_the_same_kind() {
        for kind in [
            ErrorKind::Invalid,
            ErrorKind::Denied,
            ErrorKind::NotFound,
            ErrorKind::Conflict,
            ErrorKind::Unavailable,
            ErrorKind::Timeout,
            ErrorKind::Version,
            ErrorKind::Internal,
        ] {
            let error = i2plan_rpcd::error::Error::from(ApiError::new(kind, "why"));
            assert_eq!(Kind::from(kind), Kind::from(error.code));
        }
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
        for kind in [ErrorKind::NotFound, ErrorKind::Invalid, ErrorKind::Unavailable, ErrorKind::Timeout] {
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
}
