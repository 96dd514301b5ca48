//! Logging of a daemon: lines on standard error, which systemd and the supervisor collect.
//!
//! A daemon opens no file and no socket to log: in its sandbox it could not open it again. Under systemd its lines
//! carry their priority as sd-daemon(3) says, which the journal understands; whoever wants the fields apart asks for
//! JSON. A log file belongs to the supervisor, which makes a new one on SIGHUP.
//!
//! | variable | value |
//! | --- | --- |
//! | `I2PLAN_LOG` | the filter: a level (`error`, `warn`, `info`, `debug`), or `target=level,…` |
//! | `DEBUG_I2P` | the level, `debug`, `warn` or `error`; `I2PLAN_LOG` wins |
//! | `I2PLAN_LOG_FORMAT` | `text`, `json` or `journal`; by default `journal` if standard error goes there, else `text` |
//! | `WARNFAIL_I2P` | `true`: the first warning ends the process, for tests |
//! | `NO_COLOR` | anything: no colours, which are for terminals only anyway |
//!
//! A variable without a value counts as not set.
//!
//! What stands in a line may come from a router, a peer or another process: in every format it is escaped ([`escape`])
//! and bounded. Where standard error is a pipe that is not waited for, as under the supervisor, lines for which there
//! is no room are counted, and the daemon goes on.
//!
//! [`escape`]: crate::escape

use std::borrow::Cow;
use std::fmt::{self, Debug, Write as _};
use std::io::{self, IsTerminal as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::sync::{Mutex, PoisonError};

use thiserror::Error;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::{Context, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;

use super::text::Text;
use crate::escape::{is_unsafe, push_json};

/// The filter's variable.
pub const VARIABLE: &str = "I2PLAN_LOG";

/// The variable that says how a line looks.
pub const FORMAT_VARIABLE: &str = "I2PLAN_LOG_FORMAT";

/// Its value for a log that goes to the journal, which takes priorities from it.
pub const JOURNAL_FORMAT: &str = "journal";

/// Longest message with its fields, bytes. With time, level and target a line is shorter than what a pipe takes whole
/// or not at all (`PIPE_BUF`, 4096 on Linux).
const MAX_TEXT: usize = 3800;

/// Longest message of a JSON line and longest value of a field, escaped, bytes; most of all fields.
const MAX_JSON: usize = 1200;
const MAX_JSON_FIELDS: usize = 2400;

/// A variable that cannot be read.
#[derive(Debug, Error)]
#[error("environment variable {variable}={value:?}: {reason}")]
pub struct LogError {
    variable: &'static str,
    value: String,
    reason: String,
}

/// What is logged without a variable. To emissary, what other routers do not do is worth a
/// warning, in a network where some always do not.
const DEFAULT_LEVEL: &str = "info";
const QUIET: &str = "emissary=error";

/// What is logged only if the filter names it: boringtun's own messages do not say which peer they are about, call it an
/// error when one is away, and come every five seconds as long as that is so. i2plan tells of peers itself.
const NAMED_ONLY: &str = "boringtun";

/// What is never logged, whatever the filter says: emissary repeats lines of SAM, which private keys stand in.
const SECRET: &str = "emissary::sam";

/// What is always logged, whatever the filter says: why the process ends.
const VITAL: &str = super::panics::TARGET;

/// How a line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    /// For people.
    Text,
    /// One object a line.
    Json,
    /// For the journal, which knows the time itself.
    Journal,
}

/// What the environment says.
#[derive(Debug, PartialEq)]
struct Settings {
    filter: Targets,
    format: Format,
    warnings_are_fatal: bool,
}

impl Settings {
    fn read(environment: impl Fn(&str) -> Option<String>, journal: bool) -> Result<Self, LogError> {
        let get = |variable| environment(variable).filter(|value| !value.is_empty());
        let wrong = |variable, value: &str, reason: &str| {
            let (value, reason) = (value.to_owned(), reason.to_owned());
            LogError { variable, value, reason }
        };
        let level = match get("DEBUG_I2P") {
            None => DEFAULT_LEVEL.to_owned(),
            Some(level) if ["debug", "warn", "error"].contains(&level.as_str()) => level,
            Some(other) => return Err(wrong("DEBUG_I2P", &other, "debug, warn or error is expected")),
        };
        let filter = get(VARIABLE).unwrap_or_else(|| format!("{level},{QUIET}"));
        let format = match get(FORMAT_VARIABLE).as_deref() {
            None if journal => Format::Journal,
            None | Some("text") => Format::Text,
            Some("json") => Format::Json,
            Some(JOURNAL_FORMAT) => Format::Journal,
            Some(other) => {
                return Err(wrong(FORMAT_VARIABLE, other, "text, json or journal is expected"));
            }
        };
        let warnings_are_fatal = match get("WARNFAIL_I2P").as_deref() {
            None | Some("false") => false,
            Some("true") => true,
            Some(other) => return Err(wrong("WARNFAIL_I2P", other, "true or false is expected")),
        };
        let filter = parse_filter(&filter).map_err(|reason| wrong(VARIABLE, &filter, &reason))?;
        Ok(Self { filter, format, warnings_are_fatal })
    }
}

/// A misspelt level would pass for a target that nothing is logged under.
fn parse_filter(text: &str) -> Result<Targets, String> {
    let expected = "a level (error, warn, info, debug), or target=level,… is expected";
    for part in text.split(',') {
        let level = part.rsplit_once('=').map_or(part, |(_, level)| level);
        if level.trim().parse::<LevelFilter>().is_err() {
            return Err(format!("{:?} is no level; {expected}", level.trim()));
        }
    }
    let filter: Targets = text.parse().map_err(|error| format!("{error}; {expected}"))?;
    let allowed = filter.iter().filter(|(target, _)| !target.starts_with(SECRET));
    let level = filter.default_level().unwrap_or(LevelFilter::OFF);
    let filter =
        Targets::new().with_default(level).with_target(NAMED_ONLY, LevelFilter::OFF).with_targets(allowed);
    Ok(filter.with_target(SECRET, LevelFilter::OFF).with_target(VITAL, LevelFilter::ERROR))
}

/// Returns whether the environment says how lines look.
#[must_use]
pub fn format_is_chosen() -> bool {
    variable(FORMAT_VARIABLE).is_some_and(|value| !value.is_empty())
}

/// Returns whether standard error goes to the journal.
#[must_use]
pub fn goes_to_journal() -> bool {
    is_journal(variable("JOURNAL_STREAM").as_deref())
}

/// Returns whether lines on standard error are to be coloured: on a terminal, unless `NO_COLOR` is set.
#[must_use]
pub fn is_coloured() -> bool {
    io::stderr().is_terminal() && variable("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Colours the time and the level of a line of the text format. Other lines stay as they are.
#[must_use]
pub fn colour(line: &str) -> Cow<'_, str> {
    let (time, rest) = line.split_once(' ').unwrap_or_default();
    let (level, rest) = rest.trim_start_matches(' ').split_once(' ').unwrap_or_default();
    let is_time =
        time.len() > 19 && time.ends_with('Z') && time.starts_with(|char: char| char.is_ascii_digit());
    let code = match level {
        "ERROR" => 31,
        "WARN" => 33,
        "INFO" => 32,
        "DEBUG" => 34,
        _ => return Cow::Borrowed(line),
    };
    if !is_time {
        return Cow::Borrowed(line);
    }
    Cow::Owned(format!("\x1b[2m{time}\x1b[0m \x1b[{code}m{level:>5}\x1b[0m {rest}"))
}

/// Whether standard error goes to the journal: systemd says of which file that is so (systemd.exec(5)).
fn is_journal(variable: Option<&str>) -> bool {
    let stream = variable.and_then(|variable| variable.split_once(':'));
    let Some((device, inode)) = stream else { return false };
    let file = io::stderr().as_fd().try_clone_to_owned().map(std::fs::File::from);
    let metadata = file.and_then(|file| file.metadata());
    metadata.is_ok_and(|it| (it.dev().to_string().as_str(), it.ino().to_string().as_str()) == (device, inode))
}

fn variable(name: &str) -> Option<String> {
    std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
}

/// Whether a daemon with this environment could log: for who starts several, and has them complain once.
///
/// # Errors
/// As [`init`].
pub fn check() -> Result<(), LogError> {
    Settings::read(variable, false).map(drop)
}

/// Starts logging as the environment says. From then on a panic is logged and ends the process ([`super::panics`]).
///
/// # Errors
/// [`LogError`] if a variable does not hold what it should.
pub fn init() -> Result<(), LogError> {
    start(None::<Observer<fn(Line)>>)
}

/// Starts logging as [`init`] does, and hands every line of level info and above to `observe` too, which must not log.
///
/// # Errors
/// As [`init`].
pub fn init_with(observe: impl Fn(Line) + Send + Sync + 'static) -> Result<(), LogError> {
    start(Some(Observer(observe)))
}

fn start(observer: Option<Observer<impl Fn(Line) + Send + Sync + 'static>>) -> Result<(), LogError> {
    let Settings { filter, format, warnings_are_fatal } = Settings::read(variable, goes_to_journal())?;
    let form = match format {
        Format::Text if is_coloured() => coloured_text,
        Format::Text => text,
        Format::Json => json,
        Format::Journal => journal,
    };
    // A line that cannot be written is lost. It is no reason to print another, which would panic.
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(|| Stderr)
        .with_ansi(false)
        .log_internal_errors(false)
        .event_format(Form(form));
    // The last to see an event, which has been written then.
    let fatal = warnings_are_fatal.then_some(Fatal);
    tracing_subscriber::registry().with(lines).with(filter).with(observer).with(fatal).init();
    super::panics::install();
    Ok(())
}

/// Writes a message for people on standard error as one escaped line.
pub(super) fn say(message: &str) {
    let mut line = Text::new(MAX_TEXT);
    // What is too long is cut.
    let _ = line.write_str(message);
    let _ = Stderr.write_all(format!("{}\n", line.into_string()).as_bytes());
}

/// Lines on standard error that found no room.
static LOST: Mutex<u64> = Mutex::new(0);

/// Standard error, each write to which is one line.
struct Stderr;

impl io::Write for Stderr {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        write_line(&mut io::stderr(), &LOST, line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes a line, or counts it as lost. How many were lost before stands in a line of its own.
fn write_line(out: &mut impl io::Write, lost: &Mutex<u64>, line: &[u8]) {
    let mut lost = lost.lock().unwrap_or_else(PoisonError::into_inner);
    if *lost > 0 {
        let notice = format!("i2plan: {} lines of this log were lost: nobody read them\n", *lost);
        if out.write_all(notice.as_bytes()).is_ok() {
            *lost = 0;
        }
    }
    if *lost > 0 || out.write_all(line).is_err() {
        *lost = lost.saturating_add(1);
    }
}

/// Ends the process at a warning.
struct Fatal;

impl<S: Subscriber> Layer<S> for Fatal {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if *event.metadata().level() <= Level::WARN {
            say("WARNFAIL_I2P is set: a warning ends this process");
            std::process::exit(1);
        }
    }
}

/// Lines that look as this function writes them.
struct Form(fn(Writer<'_>, &Event<'_>) -> fmt::Result);

impl<S: Subscriber + for<'a> LookupSpan<'a>, N: for<'a> FormatFields<'a> + 'static> FormatEvent<S, N>
    for Form
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        (self.0)(writer, event)
    }
}

/// A line for people.
fn text(mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
    SystemTime.format_time(&mut writer)?;
    let (level, target) = (event.metadata().level(), event.metadata().target());
    writeln!(writer, " {level:>5} {target}: {}", message_of(event, MAX_TEXT))
}

/// The same for a terminal.
fn coloured_text(mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
    let mut line = String::new();
    text(Writer::new(&mut line), event)?;
    writer.write_str(&colour(&line))
}

/// A line for the journal.
fn journal(mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
    // sd-daemon(3), syslog(3).
    let priority = match *event.metadata().level() {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        _ => 7,
    };
    writeln!(writer, "<{priority}>{}: {}", event.metadata().target(), message_of(event, MAX_TEXT))
}

/// One JSON object.
fn json(mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
    let mut members = Members::default();
    event.record(&mut members);
    let level = event.metadata().level().as_str().to_lowercase();
    writer.write_str("{\"time\":\"")?;
    SystemTime.format_time(&mut writer)?;
    let target = quoted(event.metadata().target(), MAX_JSON);
    write!(writer, "\",\"level\":\"{level}\",\"target\":{target}")?;
    write!(writer, ",\"message\":{}", quoted(&members.message, MAX_JSON))?;
    writeln!(writer, ",\"fields\":{{{}}}}}", members.fields)
}

/// The members of a JSON object.
#[derive(Default)]
struct Members {
    message: String,
    fields: String,
}

impl Members {
    /// Adds one, if there is room.
    fn add(&mut self, field: &Field, value: &str) {
        // With the quotes, the colon and the comma.
        if self.fields.len() + field.name().len() + value.len() + 4 > MAX_JSON_FIELDS {
            return;
        }
        let comma = if self.fields.is_empty() { "" } else { "," };
        // A field's name is an identifier.
        let _ = write!(self.fields, "{comma}\"{}\":{value}", field.name());
    }
}

impl Visit for Members {
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, &value.to_string());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, &value.to_string());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, &value.to_string());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, &quoted(value, MAX_JSON));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let value = format!("{value:?}");
        if field.name() == "message" {
            self.message = value;
        } else {
            self.add(field, &quoted(&value, MAX_JSON));
        }
    }
}

/// A JSON string (RFC 8259, section 7) of the beginning of a text: at most so many bytes between the quotes.
fn quoted(text: &str, most: usize) -> String {
    let mut quoted = String::from("\"");
    for char in text.chars() {
        let before = quoted.len();
        match char {
            '"' | '\\' => quoted.extend(['\\', char]),
            char if is_unsafe(char) => push_json(&mut quoted, char),
            char => quoted.push(char),
        }
        if quoted.len() > most + 1 {
            quoted.truncate(before);
            break;
        }
    }
    quoted.push('"');
    quoted
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
        let target = event.metadata().target().to_owned();
        (self.0)(Line { level, target, message: message_of(event, MAX_LINE) });
    }
}

/// What an event says, as one line up to a length.
fn message_of(event: &Event<'_>, most: usize) -> String {
    let mut text = Text::new(most);
    event.record(&mut text);
    text.into_string()
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        // The message is the first of the fields.
        let _ = match field.name() {
            "message" => write!(self, "{value:?}"),
            name => write!(self, " {name}={value:?}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use std::io;
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

    fn read(variables: &[(&str, &str)]) -> Result<Settings, String> {
        let get = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        Settings::read(get, false).map_err(|error| error.to_string())
    }

    /// How many levels of a target are logged.
    fn enabled(variables: &[(&str, &str)], target: &str) -> usize {
        let filter = read(variables).unwrap().filter;
        let levels = [Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG];
        levels.into_iter().filter(|level| filter.would_enable(target, level)).count()
    }

    #[test]
    fn levels_come_from_either_variable() {
        assert_eq!((enabled(&[], "i2plan_meshd"), enabled(&[], "boringtun")), (3, 0));
        for (level, count) in [("debug", 4), ("warn", 2), ("error", 1)] {
            assert_eq!(enabled(&[("DEBUG_I2P", level)], "i2plan_meshd"), count);
        }
        let both = [("DEBUG_I2P", "debug"), ("I2PLAN_LOG", "error,i2plan_tund=info")];
        assert_eq!((enabled(&both, "i2plan_meshd"), enabled(&both, "i2plan_tund::tunnel")), (1, 3));
        assert_eq!(enabled(&[("DEBUG_I2P", ""), ("I2PLAN_LOG", "")], "i2plan_meshd"), 3);
    }

    #[test]
    fn what_repeats_itself_is_logged_only_where_it_is_named() {
        let boringtun = |filter| enabled(&[("I2PLAN_LOG", filter)], "boringtun::noise::timers");
        assert_eq!((boringtun("debug"), boringtun("warn,i2plan_tund=debug")), (0, 0));
        assert_eq!((boringtun("info,boringtun=debug"), boringtun("boringtun=warn")), (4, 2));
    }

    #[test]
    fn what_may_hold_a_private_key_is_never_logged() {
        for filter in ["debug", "emissary=debug", "emissary::sam=debug", "emissary::sam::socket=debug,info"] {
            assert_eq!(enabled(&[("I2PLAN_LOG", filter)], "emissary::sam::socket"), 0, "{filter}");
        }
        assert_eq!(enabled(&[("I2PLAN_LOG", "emissary=info")], "emissary::netdb"), 3);
        assert_eq!(enabled(&[("DEBUG_I2P", "debug")], "emissary::netdb"), 1);
    }

    #[test]
    fn panics_are_logged_whatever_the_filter_says() {
        for filter in ["off", "i2plan_meshd=info", "i2plan_ipc::daemon::panics=off,info"] {
            assert_eq!(enabled(&[("I2PLAN_LOG", filter)], "i2plan_ipc::daemon::panics"), 1, "{filter}");
        }
    }

    #[test]
    fn bad_values_are_named() {
        for (variable, value, says) in [
            ("I2PLAN_LOG", "debgu", "\"debgu\" is no level; a level (error, warn, info, debug)"),
            ("I2PLAN_LOG", "info,i2plan_meshd", "\"i2plan_meshd\" is no level"),
            ("I2PLAN_LOG", "i2plan_meshd=loud", "\"loud\" is no level"),
            ("DEBUG_I2P", "1", "debug, warn or error is expected"),
            ("I2PLAN_LOG_FORMAT", "xml", "text, json or journal is expected"),
            ("WARNFAIL_I2P", "yes", "true or false is expected"),
        ] {
            let error = read(&[(variable, value)]).unwrap_err();
            assert!(error.starts_with(&format!("environment variable {variable}={value:?}: ")), "{error}");
            assert!(error.contains(says), "{error}");
        }
        assert!(read(&[("WARNFAIL_I2P", "true")]).unwrap().warnings_are_fatal);
    }

    #[test]
    fn the_journal_is_known_by_its_file() {
        let stderr = std::fs::File::from(io::stderr().as_fd().try_clone_to_owned().unwrap());
        let metadata = stderr.metadata().unwrap();
        assert!(is_journal(Some(&format!("{}:{}", metadata.dev(), metadata.ino()))));
        for other in [None, Some(""), Some("8"), Some("8:1"), Some("a:b")] {
            assert!(!is_journal(other), "{other:?}");
        }
        let get = |_: &str| None;
        assert_eq!(Settings::read(get, true).unwrap().format, Format::Journal);
        assert_eq!(Settings::read(get, false).unwrap().format, Format::Text);
    }

    /// Linux's `PIPE_BUF`.
    const PIPE_BUF: usize = 4096;

    /// What is written in a format.
    fn written<E>(format: E) -> String
    where
        E: FormatEvent<tracing_subscriber::Registry, tracing_subscriber::fmt::format::DefaultFields>
            + Send
            + Sync
            + 'static,
    {
        #[derive(Clone, Default)]
        struct Kept(Arc<Mutex<Vec<u8>>>);

        impl io::Write for Kept {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.lock().unwrap().write(bytes)
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }

        let kept = Kept::default();
        let writer = kept.clone();
        let lines = tracing_subscriber::fmt::layer().with_writer(move || writer.clone()).event_format(format);
        tracing::subscriber::with_default(tracing_subscriber::registry().with(lines), || {
            let (name, text) = ("a\n\"b\"\\", "x\u{7}");
            tracing::warn!(target: "t", %name, text, count = 3, there = true, "two\nlines");
            tracing::debug!(target: "t", "no fields");
            let answer = format!("RESULT=\u{1b}]52;c;eA==\u{7}\u{9b}2J\u{202e}{}", "x".repeat(100_000));
            tracing::warn!(target: "t", error = %io::Error::other(answer.clone()), %answer, "{answer}");
        });
        String::from_utf8(kept.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn the_journal_gets_a_priority_and_one_line_each() {
        let lines =
            "<4>t: two\\nlines name=a\\n\"b\"\\ text=\"x\\u{7}\" count=3 there=true\n<7>t: no fields\n";
        let written = written(Form(journal));
        assert!(written.starts_with(lines), "{written}");
    }

    #[test]
    fn text_has_time_level_and_target_and_one_line_each() {
        let written = written(Form(text));
        let (time, line) = written.lines().next().unwrap().split_once(' ').unwrap();
        assert!(time.starts_with("20") && time.ends_with('Z'), "{written}");
        assert_eq!(line, " WARN t: two\\nlines name=a\\n\"b\"\\ text=\"x\\u{7}\" count=3 there=true");
        let coloured = colour(written.lines().next().unwrap()).into_owned();
        assert_eq!(coloured, format!("\u{1b}[2m{time}\u{1b}[0m \u{1b}[33m WARN\u{1b}[0m {}", &line[6..]));
        for other in ["i2planctl: keyd started", "a INFO b", "", "2026-11-28T23:00:28.1Z LOUD x"] {
            assert_eq!(colour(other), other);
        }
    }

    #[test]
    fn an_answer_of_a_router_drives_no_terminal_in_any_format_and_is_bounded() {
        for form in [text, journal, json] {
            let written = written(Form(form));
            assert_eq!(written.lines().count(), 3);
            let last = written.lines().last().unwrap();
            assert!(!last.contains(is_unsafe) && last.contains("]52;c;eA=="), "{last}");
            assert!(last.len() < PIPE_BUF, "{}", last.len());
        }
    }

    #[test]
    fn lines_that_find_no_room_are_counted() {
        /// A pipe that takes a line now and then.
        struct Pipe(String, bool);

        impl io::Write for Pipe {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                if !self.1 {
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                self.0.push_str(str::from_utf8(bytes).unwrap());
                Ok(bytes.len())
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }

        let (mut pipe, lost) = (Pipe(String::new(), true), Mutex::new(0));
        for (line, open) in [("a\n", true), ("b\n", false), ("c\n", false), ("d\n", true), ("e\n", true)] {
            pipe.1 = open;
            write_line(&mut pipe, &lost, line.as_bytes());
        }
        assert_eq!(pipe.0, "a\ni2plan: 2 lines of this log were lost: nobody read them\nd\ne\n");
    }

    #[test]
    fn json_is_json() {
        let written = written(Form(json));
        let lines: Vec<serde_json::Value> =
            written.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 3);
        assert_eq!((&lines[0]["level"], &lines[0]["message"]), (&"warn".into(), &"two\nlines".into()));
        let fields = serde_json::json!({ "name": "a\n\"b\"\\", "text": "x\u{7}", "count": 3, "there": true });
        assert_eq!(lines[0]["fields"], fields);
        assert_eq!(lines[1]["fields"], serde_json::json!({}));
        assert!(lines[0]["time"].as_str().unwrap().starts_with("20"));
    }
}
