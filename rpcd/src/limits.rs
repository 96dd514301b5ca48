//! How long clients may take, on the unix socket and over HTTP.

use std::time::Duration;

/// How long a document may take from its first byte to its last.
pub const DOCUMENT_DEADLINE: Duration = Duration::from_secs(10);

/// How long an answer may take to be read.
pub const ANSWER_DEADLINE: Duration = Duration::from_secs(30);
