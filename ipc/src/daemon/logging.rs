//! Logging of a daemon: text on standard error, which systemd and the supervisor collect.

use std::fmt::{Debug, Write as _};
use std::io::IsTerminal as _;

use thiserror::Error;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::Context;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// The filter's variable.
pub const VARIABLE: &str = "I2PLAN_LOG";

/// A filter that cannot be read.
#[derive(Debug, Error)]
#[error(
    "{VARIABLE}={value:?} is not a log filter: {reason}; write a level (error, warn, info, debug) or target=level, …"
)]
pub struct FilterError {
    value: String,
    reason: String,
}

/// The filter without the variable. boringtun's own messages do not say which peer they are about, and call it
/// an error when one is away; i2plan tells of peers itself.
const DEFAULT: &str = "info,boringtun=off";

/// Starts logging, filtered by `I2PLAN_LOG`.
///
/// # Errors
/// [`FilterError`] if the variable holds no filter.
pub fn init() -> Result<(), FilterError> {
    start(None::<Observer<fn(Line)>>)
}

/// Starts logging as [`init`] does, and hands every line of level info and above to `observe` too, which must not log.
///
/// # Errors
/// As [`init`].
pub fn init_with(observe: impl Fn(Line) + Send + Sync + 'static) -> Result<(), FilterError> {
    start(Some(Observer(observe)))
}

fn start(observer: Option<Observer<impl Fn(Line) + Send + Sync + 'static>>) -> Result<(), FilterError> {
    let value = std::env::var(VARIABLE).unwrap_or_else(|_| DEFAULT.to_owned());
    let filter: Targets = value.parse().map_err(|error: tracing_subscriber::filter::ParseError| {
        FilterError { value, reason: error.to_string() }
    })?;
    let format = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(
        std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
    );
    tracing_subscriber::registry().with(filter).with(format).with(observer).init();
    Ok(())
}

/// Longest message of a [`Line`], bytes.
const MAX_LINE: usize = 1000;

/// A line of the log, for those who follow it within the process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// `error`, `warn` or `info`.
    pub level: &'static str,
    /// Where it comes from.
    pub target: String,
    /// What it says, fields included: one line of at most a thousand bytes.
    pub message: String,
}

struct Observer<F>(F);

impl<S: Subscriber, F: Fn(Line) + Send + Sync + 'static> Layer<S> for Observer<F> {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let level = match *event.metadata().level() {
            Level::ERROR => "error",
            Level::WARN => "warn",
            Level::INFO => "info",
            _ => return,
        };
        let mut text = Text::default();
        event.record(&mut text);
        let target = event.metadata().target().to_owned();
        (self.0)(Line { level, target, message: text.0 });
    }
}

/// A message and its fields as one line.
#[derive(Default)]
struct Text(String);

impl Text {
    fn add(&mut self, field: &Field, value: &dyn Debug) {
        // The message is the first of the fields.
        let _ = match field.name() {
            "message" => write!(self, "{value:?}"),
            name => write!(self, " {name}={value:?}"),
        };
    }
}

impl std::fmt::Write for Text {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        for char in text.chars() {
            let escaped = char.is_control().then(|| char.escape_default());
            if self.0.len() + escaped.as_ref().map_or(char.len_utf8(), ExactSizeIterator::len) > MAX_LINE {
                return Err(std::fmt::Error);
            }
            match escaped {
                Some(escaped) => self.0.extend(escaped),
                None => self.0.push(char),
            }
        }
        Ok(())
    }
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.add(field, value);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[test]
    fn a_follower_gets_whole_and_bounded_lines_of_info_and_above() {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&lines);
        let observer = Observer(move |line| kept.lock().unwrap().push(line));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(observer), || {
            tracing::debug!("not this");
            let name = "a\u{1b}[2Jb";
            tracing::info!(%name, count = 3, "a member");
            tracing::error!(target: "elsewhere", "{}", "x".repeat(5000));
        });
        let lines = lines.lock().unwrap();
        let [first, second] = lines.as_slice() else { panic!("{lines:?}") };
        assert_eq!((first.level, first.message.as_str()), ("info", "a member name=a\\u{1b}[2Jb count=3"));
        assert_eq!(
            (second.level, second.target.as_str(), second.message.len()),
            ("error", "elsewhere", 1000)
        );
    }
}
