//! Errors that cross a socket.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::remedy::Remedy;

/// What sort of error it is, for a program that has to choose what to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// The request itself is wrong; the same request will fail again.
    Invalid,
    /// The caller may not ask this.
    Denied,
    /// What the request is about does not exist.
    NotFound,
    /// The request does not fit the present state, such as joining while a member.
    Conflict,
    /// Something that is needed is not there now: a router, another daemon. Trying again can help.
    Unavailable,
    /// It took too long.
    Timeout,
    /// The two sides do not speak the same protocol version.
    Version,
    /// A fault of i2plan itself.
    Internal,
}

impl ErrorKind {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Invalid,
        Self::Denied,
        Self::NotFound,
        Self::Conflict,
        Self::Unavailable,
        Self::Timeout,
        Self::Version,
        Self::Internal,
    ];

    /// The name, as in the encodings.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::Denied => "denied",
            Self::NotFound => "not_found",
            Self::Conflict => "conflict",
            Self::Unavailable => "unavailable",
            Self::Timeout => "timeout",
            Self::Version => "version",
            Self::Internal => "internal",
        }
    }
}

/// An error with what can be done about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Error)]
#[error("{message}")]
pub struct ApiError {
    /// The sort of error.
    pub kind: ErrorKind,
    /// What is wrong.
    pub message: String,
    /// What to do about it, where that is known.
    pub remedy: Option<Remedy>,
}

impl ApiError {
    /// An error of a kind.
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), remedy: None }
    }

    /// The same with a remedy.
    #[must_use]
    pub fn with_remedy(mut self, remedy: Remedy) -> Self {
        self.remedy = Some(remedy);
        self
    }

    /// The same with [advice](Remedy::Advice), which names no command: which those are, only the program that has them knows.
    #[must_use]
    pub fn with_hint(self, hint: impl Into<String>) -> Self {
        self.with_remedy(Remedy::advice(hint))
    }

    /// What to do about it, in words that name no command.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        self.remedy.as_ref().map(Remedy::to_string)
    }

    /// [`ErrorKind::Invalid`].
    #[must_use]
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, message)
    }

    /// [`ErrorKind::Denied`].
    #[must_use]
    pub fn denied(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Denied, message)
    }

    /// [`ErrorKind::Conflict`].
    #[must_use]
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Conflict, message)
    }

    /// [`ErrorKind::Unavailable`].
    #[must_use]
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unavailable, message)
    }

    /// [`ErrorKind::Timeout`].
    #[must_use]
    pub fn timeout(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Timeout, message)
    }

    /// [`ErrorKind::Internal`].
    #[must_use]
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }
}
