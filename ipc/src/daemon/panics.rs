//! What a panic does to a daemon: it ends the process, except where it is contained.
//!
//! tokio catches the panic of a task, and the panic of a thread ends that thread alone: the daemon would run on without
//! a part of itself. `install` sets a panic hook that logs one line and ends the process with [`EXIT_STATUS`], so that
//! the supervisor starts it again. It takes no backtrace, as the standard library's hook can: behind a sandbox that is
//! a forbidden system call, which kills the process before the message is written.
//!
//! [`contain`] is for work on one input from outside, whose panic shall cost that input and not the daemon's state.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::time::Duration;

use thiserror::Error;

use super::text::Text;
use crate::rate::{Bucket, Quota};

/// Exit status of a daemon that panicked: the one of any Rust program.
pub const EXIT_STATUS: u8 = 101;

/// The target that panics are logged under.
pub(super) const TARGET: &str = module_path!();

/// Longest message of a panic in the log, bytes.
const MAX_MESSAGE: usize = 500;

/// Contained panics that are logged: five within a minute, then one every twelve seconds.
const LINES: Quota = Quota::every(Duration::from_secs(12), 5);

thread_local! {
    /// How many calls of [`contain`] this thread is in.
    static DEPTH: Cell<u32> = const { Cell::new(0) };
    /// The last panic that the hook saw within [`contain`].
    static LAST: RefCell<Option<Panicked>> = const { RefCell::new(None) };
}

/// A panic that was contained. Both texts are fit for a log line: short, and without control characters.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("panicked at {location}: {message}")]
pub struct Panicked {
    /// File, line and column.
    pub location: String,
    /// The message of the panic.
    pub message: String,
}

impl Panicked {
    fn new(location: Option<String>, payload: &(dyn Any + Send)) -> Self {
        let text = payload.downcast_ref::<&str>().copied();
        let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        let mut message = Text::new(MAX_MESSAGE);
        // What is too long is cut.
        let _ = message.write_str(text.unwrap_or("no message"));
        let location = location.unwrap_or_else(|| "an unknown place".to_owned());
        Self { location, message: message.into_string() }
    }
}

/// Sets the hook. Logging must have started.
pub(super) fn install() {
    std::panic::set_hook(Box::new(on_panic));
}

fn on_panic(info: &PanicHookInfo<'_>) {
    let panicked = Panicked::new(info.location().map(ToString::to_string), info.payload());
    // Where thread-local values are gone, the thread is at its end and in no guard.
    if DEPTH.try_with(Cell::get).is_ok_and(|depth| depth > 0) {
        LAST.set(Some(panicked));
        return;
    }
    let Panicked { location, message } = panicked;
    tracing::error!(target: TARGET, %location, error = %message, "panicked");
    std::process::exit(EXIT_STATUS.into());
}

/// Counts a call of [`contain`] while it lasts.
struct Guard;

impl Guard {
    fn enter() -> Self {
        DEPTH.set(DEPTH.get() + 1);
        Self
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        DEPTH.set(DEPTH.get() - 1);
    }
}

/// Does some work whose panic does not end the process. The hook logs nothing then: the caller does, who knows what
/// the work was.
///
/// The caller vouches that what the work changes can be used after it was left half done.
///
/// # Errors
/// [`Panicked`] if it panicked.
pub fn contain<T>(work: impl FnOnce() -> T) -> Result<T, Panicked> {
    let _guard = Guard::enter();
    let result = catch_unwind(AssertUnwindSafe(work));
    let seen = LAST.take();
    result.map_err(|payload| seen.unwrap_or_else(|| Panicked::new(None, &*payload)))
}

/// Limits the log lines about contained panics, which others may be able to cause.
#[derive(Debug, Default)]
pub struct Throttle {
    lines: Bucket,
    suppressed: u64,
}

impl Throttle {
    /// Notes a contained panic, at a time since some fixed moment. If it is to be logged, returns how many since the
    /// last line were not.
    pub fn admit(&mut self, now: Duration) -> Option<u64> {
        if self.lines.try_take(LINES, now) {
            return Some(std::mem::take(&mut self.suppressed));
        }
        self.suppressed += 1;
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_contained_panic_is_told_to_the_caller() {
        assert_eq!(contain(|| 7), Ok(7));
        let panicked = contain(|| panic!("a\u{1b}[2J\n{}", "x".repeat(1000))).unwrap_err();
        assert!(panicked.message.starts_with("a\\u{1b}[2J\\nxxx"), "{panicked}");
        assert_eq!(panicked.message.len(), MAX_MESSAGE);
        assert_eq!(contain(|| panic!("plain")).unwrap_err().message, "plain");
        let other = contain(|| std::panic::panic_any(7)).unwrap_err();
        assert_eq!(other.message, "no message");
        assert_eq!(DEPTH.get(), 0);
    }

    #[test]
    fn guards_nest() {
        let inner = contain(|| {
            let inner = contain(|| panic!("inner"));
            assert_eq!(DEPTH.get(), 1);
            inner
        });
        assert_eq!(inner.unwrap().unwrap_err().message, "inner");
        assert_eq!(DEPTH.get(), 0);
    }

    #[test]
    fn many_contained_panics_make_few_lines() {
        let mut throttle = Throttle::default();
        let at = Duration::from_secs;
        let logged: Vec<_> = (0..100).filter_map(|_| throttle.admit(at(1))).collect();
        assert_eq!(logged, [0; 5]);
        assert_eq!(throttle.admit(at(14)), Some(95));
        assert_eq!(throttle.admit(at(15)), None);
        assert_eq!(throttle.admit(at(300)), Some(1));
    }
}

/// Panics of whole processes, with the hook set and behind the sandbox that all daemons share.
#[cfg(all(test, target_os = "linux"))]
mod process_tests {
    use std::process::{Command, Output};

    use super::super::{hardening, logging, sandbox};
    use super::{EXIT_STATUS, contain};

    /// Makes this test the process that panics, and says how.
    const CHILD: &str = "I2PLAN_LAB_PANIC";

    fn child(how: &str, format: &str) -> Output {
        let mut command = Command::new(std::env::current_exe().expect("a running test has a file"));
        command.args(["--exact", "daemon::panics::process_tests::the_child", "--nocapture"]);
        // The standard library's hook would take a backtrace then.
        command.env(CHILD, how).env("I2PLAN_LOG_FORMAT", format).env("RUST_BACKTRACE", "full");
        command.env("I2PLAN_LOG", "boringtun=off").env_remove("WARNFAIL_I2P");
        command.output().expect("a running test can be started again")
    }

    #[test]
    fn the_child() {
        let Ok(how) = std::env::var(CHILD) else { return };
        hardening::harden().unwrap();
        logging::init().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (sender, waiting) = std::sync::mpsc::channel();
        // What a thread does at its start, the sandbox forbids.
        let (started, has_started) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            started.send(()).unwrap();
            if waiting.recv().is_ok() {
                panic!("a thread\u{1b}[2J\nends");
            }
        });
        has_started.recv().unwrap();
        sandbox::enter(&sandbox::Files::none(), sandbox::Syscalls::base()).unwrap();
        runtime.block_on(async move {
            let contained = contain(|| panic!("contained"));
            assert_eq!(contained.unwrap_err().message, "contained");
            match how.as_str() {
                "task" => drop(tokio::spawn(async { panic!("a task\u{1b}[2J\nends") })),
                "thread" => sender.send(()).unwrap(),
                _ => panic!("the main future\u{1b}[2J\nends"),
            }
            std::future::pending::<()>().await;
        });
        thread.join().unwrap();
    }

    #[test]
    fn a_panic_behind_the_sandbox_is_logged_and_ends_the_process() {
        for how in ["a task", "a thread", "the main future"] {
            for format in ["text", "json", "journal"] {
                let output = child(how.trim_start_matches("a "), format);
                let log = String::from_utf8(output.stderr).unwrap();
                let code = output.status.code();
                assert_eq!(code, Some(EXIT_STATUS.into()), "{how} {format}: {} {log}", output.status);
                let lines: Vec<_> = log.lines().filter(|line| line.contains("panicked")).collect();
                let [line] = lines[..] else { panic!("{how} {format}: {log}") };
                let escape = if format == "json" { "\\\\" } else { "\\" };
                assert!(line.contains(&format!("{how}{escape}u{{1b}}[2J{escape}nends")), "{line}");
                assert!(line.contains("ipc/src/daemon/panics.rs:"), "{line}");
                assert!(!log.contains("backtrace"), "{log}");
                match format {
                    "text" => assert!(line.contains(" ERROR "), "{line}"),
                    "json" => {
                        let line: serde_json::Value = serde_json::from_str(line).unwrap();
                        assert_eq!((&line["level"], &line["message"]), (&"error".into(), &"panicked".into()));
                        assert!(line["fields"]["location"].is_string());
                    }
                    _ => assert!(line.starts_with("<3>i2plan_ipc::daemon::panics: panicked "), "{line}"),
                }
            }
        }
    }
}
