//! The error codes: those of JSON-RPC, and i2plan's own from the range that it leaves to servers.

use i2plan_ipc::{ApiError, ErrorKind, Remedy};
use serde::Serialize;

/// What sort of error it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// The document is no JSON.
    Parse,
    /// It is JSON, and no request.
    InvalidRequest,
    /// There is no such method.
    MethodNotFound,
    /// The parameters do not fit the method, or the node finds them wrong.
    InvalidParams,
    /// A fault of i2plan itself.
    Internal,
    /// The caller may not ask this.
    Denied,
    /// What the request is about does not exist.
    NotFound,
    /// The request does not fit the node's present state.
    Conflict,
    /// Something that is needed is not there now. Trying again can help.
    Unavailable,
    /// It took too long.
    Timeout,
    /// The caller asks too much at once.
    RateLimited,
    /// The gateway and `meshd` are of different versions.
    Version,
}

impl Code {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Parse,
        Self::InvalidRequest,
        Self::MethodNotFound,
        Self::InvalidParams,
        Self::Internal,
        Self::Denied,
        Self::NotFound,
        Self::Conflict,
        Self::Unavailable,
        Self::Timeout,
        Self::RateLimited,
        Self::Version,
    ];

    /// The number: JSON-RPC's own, or from -32001 downwards.
    #[must_use]
    pub const fn number(self) -> i64 {
        match self {
            Self::Parse => -32_700,
            Self::InvalidRequest => -32_600,
            Self::MethodNotFound => -32_601,
            Self::InvalidParams => -32_602,
            Self::Internal => -32_603,
            Self::Denied => -32_001,
            Self::NotFound => -32_002,
            Self::Conflict => -32_003,
            Self::Unavailable => -32_004,
            Self::Timeout => -32_005,
            Self::RateLimited => -32_006,
            Self::Version => -32_007,
        }
    }

    /// The code with this number.
    #[must_use]
    pub fn of(number: i64) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.number() == number)
    }

    /// `data.kind`; where the node's API has such an error, its name there.
    #[must_use]
    pub const fn kind(self) -> &'static str {
        match self {
            Self::Parse => "parse",
            Self::InvalidRequest => "invalid_request",
            Self::MethodNotFound => "method_not_found",
            Self::InvalidParams => "invalid",
            Self::Internal => "internal",
            Self::Denied => "denied",
            Self::NotFound => "not_found",
            Self::Conflict => "conflict",
            Self::Unavailable => "unavailable",
            Self::Timeout => "timeout",
            Self::RateLimited => "rate_limited",
            Self::Version => "version",
        }
    }

    /// What it means, in the specification's words where it has them.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Parse => "Parse error",
            Self::InvalidRequest => "Invalid Request",
            Self::MethodNotFound => "Method not found",
            Self::InvalidParams => "Invalid params",
            Self::Internal => "Internal error",
            Self::Denied => "Denied",
            Self::NotFound => "Not found",
            Self::Conflict => "Conflict",
            Self::Unavailable => "Unavailable",
            Self::Timeout => "Timeout",
            Self::RateLimited => "Rate limited",
            Self::Version => "Version mismatch",
        }
    }
}

/// An error, as a caller gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// The sort.
    pub code: Code,
    /// What is wrong. It repeats nothing that the caller has sent: that could be a secret.
    pub message: String,
    /// What to do about it, where that is known.
    pub hint: Option<String>,
    /// The same for a program, where the node names it.
    pub remedy: Option<Remedy>,
}

impl Error {
    /// An error that says what its code means, and what is wrong.
    #[must_use]
    pub fn new(code: Code, what: &str) -> Self {
        Self { code, message: format!("{}: {what}", code.meaning()), hint: None, remedy: None }
    }

    /// The same with advice.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// [`Code::InvalidParams`].
    #[must_use]
    pub fn invalid_params(what: &str) -> Self {
        Self::new(Code::InvalidParams, what)
    }

    /// What is wrong with a parameter.
    #[must_use]
    pub fn of_parameter(error: ApiError) -> Self {
        let Self { code, message, .. } = Self::invalid_params(&error.message);
        Self { code, message, ..error.into() }
    }
}

impl From<ApiError> for Error {
    fn from(error: ApiError) -> Self {
        let code = match error.kind {
            ErrorKind::Invalid => Code::InvalidParams,
            ErrorKind::Denied => Code::Denied,
            ErrorKind::NotFound => Code::NotFound,
            ErrorKind::Conflict => Code::Conflict,
            ErrorKind::Unavailable => Code::Unavailable,
            ErrorKind::Timeout => Code::Timeout,
            ErrorKind::Version => Code::Version,
            ErrorKind::Internal => Code::Internal,
        };
        let hint = error.hint();
        // Advice is said with the hint.
        let remedy = error.remedy.filter(|remedy| !matches!(remedy, Remedy::Advice { .. }));
        Self { code, message: error.message, hint, remedy }
    }
}

impl Serialize for Error {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Object<'a> {
            code: i64,
            message: &'a str,
            data: Data<'a>,
        }
        #[derive(Serialize)]
        struct Data<'a> {
            kind: &'a str,
            hint: Option<&'a str>,
            remedy: Option<&'a Remedy>,
        }
        Object {
            code: self.code.number(),
            message: &self.message,
            data: Data { kind: self.code.kind(), hint: self.hint.as_deref(), remedy: self.remedy.as_ref() },
        }
        .serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_codes_are_in_the_range_for_servers_and_none_is_twice() {
        for code in Code::ALL {
            assert_eq!(Code::of(code.number()), Some(code));
            let standard = matches!(code.number(), -32_700 | -32_603..=-32_600);
            assert!(standard || (-32_099..=-32_000).contains(&code.number()), "{code:?}");
        }
        assert_eq!(Code::of(0), None);
    }

    #[test]
    fn kinds_are_named_as_in_the_nodes_api() {
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
            let error = Error::from(ApiError::new(kind, "why").with_hint("what"));
            assert_eq!(serde_json::to_value(kind).unwrap(), error.code.kind());
            let data = serde_json::json!({ "kind": kind, "hint": "what", "remedy": null });
            let json = serde_json::json!({ "code": error.code.number(), "message": "why", "data": data });
            assert_eq!(serde_json::to_value(&error).unwrap(), json);
        }
    }

    #[test]
    fn a_remedy_is_a_name_and_arguments() {
        let remedy = Remedy::AllowInvite { invite: "abc".to_owned() };
        let error = Error::from(ApiError::conflict("why").with_remedy(remedy));
        let data = &serde_json::to_value(&error).unwrap()["data"];
        assert_eq!(data["remedy"], serde_json::json!({ "name": "allow_invite", "invite": "abc" }));
        assert_eq!(data["hint"], "allow the users of the invite abc to join");
    }
}
