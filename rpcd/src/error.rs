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
    /// The caller asks too much at once.
    RateLimited,
    /// As in the node's API; [`ErrorKind::Invalid`] also where the parameters do not fit the method.
    Api(ErrorKind),
}

impl From<ErrorKind> for Code {
    fn from(kind: ErrorKind) -> Self {
        Self::Api(kind)
    }
}

impl Code {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Parse,
        Self::InvalidRequest,
        Self::MethodNotFound,
        Self::Api(ErrorKind::Invalid),
        Self::Api(ErrorKind::Internal),
        Self::Api(ErrorKind::Denied),
        Self::Api(ErrorKind::NotFound),
        Self::Api(ErrorKind::Conflict),
        Self::Api(ErrorKind::Unavailable),
        Self::Api(ErrorKind::Timeout),
        Self::RateLimited,
        Self::Api(ErrorKind::Version),
    ];

    /// The number: JSON-RPC's own, or from -32001 downwards.
    #[must_use]
    pub const fn number(self) -> i64 {
        match self {
            Self::Parse => -32_700,
            Self::InvalidRequest => -32_600,
            Self::MethodNotFound => -32_601,
            Self::Api(ErrorKind::Invalid) => -32_602,
            Self::Api(ErrorKind::Internal) => -32_603,
            Self::Api(ErrorKind::Denied) => -32_001,
            Self::Api(ErrorKind::NotFound) => -32_002,
            Self::Api(ErrorKind::Conflict) => -32_003,
            Self::Api(ErrorKind::Unavailable) => -32_004,
            Self::Api(ErrorKind::Timeout) => -32_005,
            Self::RateLimited => -32_006,
            Self::Api(ErrorKind::Version) => -32_007,
        }
    }

    /// The code with this number.
    #[must_use]
    pub fn of(number: i64) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.number() == number)
    }

    /// `data.kind`.
    #[must_use]
    pub const fn kind(self) -> &'static str {
        match self {
            Self::Parse => "parse",
            Self::InvalidRequest => "invalid_request",
            Self::MethodNotFound => "method_not_found",
            Self::RateLimited => "rate_limited",
            Self::Api(kind) => kind.name(),
        }
    }

    /// The closest in the node's API.
    #[must_use]
    pub const fn in_api(self) -> ErrorKind {
        match self {
            Self::Parse | Self::InvalidRequest | Self::MethodNotFound => ErrorKind::Invalid,
            Self::RateLimited => ErrorKind::Unavailable,
            Self::Api(kind) => kind,
        }
    }

    /// What it means, in the specification's words where it has them.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Parse => "Parse error",
            Self::InvalidRequest => "Invalid Request",
            Self::MethodNotFound => "Method not found",
            Self::Api(ErrorKind::Invalid) => "Invalid params",
            Self::Api(ErrorKind::Internal) => "Internal error",
            Self::Api(ErrorKind::Denied) => "Denied",
            Self::Api(ErrorKind::NotFound) => "Not found",
            Self::Api(ErrorKind::Conflict) => "Conflict",
            Self::Api(ErrorKind::Unavailable) => "Unavailable",
            Self::Api(ErrorKind::Timeout) => "Timeout",
            Self::RateLimited => "Rate limited",
            Self::Api(ErrorKind::Version) => "Version mismatch",
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
    pub fn new(code: impl Into<Code>, what: &str) -> Self {
        let code = code.into();
        Self { code, message: format!("{}: {what}", code.meaning()), hint: None, remedy: None }
    }

    /// The same with advice.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// [`ErrorKind::Invalid`].
    #[must_use]
    pub fn invalid_params(what: &str) -> Self {
        Self::new(ErrorKind::Invalid, what)
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
        let hint = error.hint();
        // Advice is said with the hint.
        let remedy = error.remedy.filter(|remedy| !matches!(remedy, Remedy::Advice { .. }));
        Self { code: error.kind.into(), message: error.message, hint, remedy }
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
        for kind in ErrorKind::ALL {
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
