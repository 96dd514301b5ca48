//! What a check of a node has found.

use std::fmt::Write as _;

use serde::Serialize;

use super::look::{Look, Tone};
use super::text::{clean, hang};

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// It is as it should be.
    Ok,
    /// It could be better, and works.
    Note,
    /// It is to be fixed.
    Problem,
}

/// Something that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How much it matters.
    pub level: Level,
    /// `node`, `config`, `router`, `members`, `files`, `tun`, `clock` or a daemon's name.
    pub subject: String,
    /// What was found.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Finding {
    /// A finding of a level.
    #[must_use]
    pub fn new(level: Level, subject: &str, message: impl Into<String>, hint: Option<String>) -> Self {
        Self { level, subject: subject.to_owned(), message: message.into(), hint }
    }

    /// [`Level::Ok`].
    #[must_use]
    pub fn ok(subject: &str, message: impl Into<String>) -> Self {
        Self::new(Level::Ok, subject, message, None)
    }

    /// [`Level::Note`].
    #[must_use]
    pub fn note(subject: &str, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(Level::Note, subject, message, Some(hint.into()))
    }

    /// [`Level::Problem`].
    #[must_use]
    pub fn problem(subject: &str, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(Level::Problem, subject, message, Some(hint.into()))
    }
}

/// What is to be fixed comes first, and all else in the order in which it was looked for.
pub fn sort(findings: &mut [Finding]) {
    findings.sort_by_key(|finding| finding.level != Level::Problem);
}

/// Findings as lines, each with what to do about it below.
#[must_use]
pub fn render(findings: &[Finding], look: &Look) -> String {
    let mut out = String::new();
    for Finding { level, subject, message, hint } in findings {
        let (level, tone) = match level {
            Level::Ok => ("ok", Tone::Good),
            Level::Note => ("note", Tone::Warn),
            Level::Problem => ("PROBLEM", Tone::Bad),
        };
        let space = " ".repeat(9 - level.len());
        // Writing to a string does not fail.
        let message = hang(&clean(message), 18.max(10 + subject.len()), look.width);
        let _ = writeln!(out, "{}{space}{subject:<8} {message}", tone.paint(level, look.colour));
        if let Some(hint) = hint {
            let _ = writeln!(out, "{:<18}hint: {}", "", hang(&clean(hint), 24, look.width));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_are_lines_with_what_to_do_below() {
        let findings = [Finding::ok("clock", "fine"), Finding::problem("node", "bad\x1b[2J", "fix it")];
        assert_eq!(
            render(&findings, &Look::default()),
            "ok       clock    fine\nPROBLEM  node     bad\u{fffd}[2J\n                  hint: fix it\n"
        );
    }

    #[test]
    fn a_long_finding_is_broken_between_words() {
        let findings = [Finding::problem("node", "a b c d e f g h i j k l", "m n o p q r s t u v w x y z")];
        let look = Look { width: Some(46), ..Look::default() };
        let text = render(&findings, &look);
        let expected =
            "PROBLEM  node     a b c d e f g h i j k l\n                  hint: m n o p q r s t u v w\n";
        assert_eq!(text, expected.to_owned() + &" ".repeat(24) + "x y z\n");
    }
}
