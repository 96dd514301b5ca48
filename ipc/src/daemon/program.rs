//! The frame of a daemon's program: what it answers itself, and how it ends.

use std::ffi::OsString;
use std::fmt::Display;
use std::io;
use std::process::ExitCode;

use lexopt::Arg::{Long, Short};
use lexopt::Parser;
use tokio::runtime::{Builder, Runtime};

use super::activation::ActivationError;
use super::hardening::HardenError;
use super::logging::LogError;
use super::notify::Supervisor;
use super::sandbox::SandboxError;
use super::tasks::TaskEnded;
use crate::version::{self, Build, Version};

/// Exit status of a daemon that ends to be started again (`EX_TEMPFAIL`): nothing has failed.
pub const RESTART: u8 = 75;

/// What a daemon's command line says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parsed<A> {
    /// To run, with these arguments.
    Run(A),
    /// How it is called.
    Help,
    /// What it is.
    Version,
}

/// Why a daemon ends early.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    status: u8,
    message: String,
}

impl End {
    /// The command line or the configuration cannot be right: exit status 2.
    #[must_use]
    pub fn usage(error: impl Display) -> Self {
        Self { status: 2, message: error.to_string() }
    }

    /// Something else went wrong: exit status 1.
    #[must_use]
    pub fn failed(error: impl Display) -> Self {
        Self { status: 1, message: error.to_string() }
    }

    /// Nothing went wrong, and the next process goes on: exit status [`RESTART`].
    #[must_use]
    pub fn restart(reason: impl Display) -> Self {
        Self { status: RESTART, message: reason.to_string() }
    }

    /// The same with an exit status that this daemon gives a meaning of its own.
    #[must_use]
    pub fn with_status(self, status: u8) -> Self {
        Self { status, ..self }
    }
}

/// Errors after which a daemon ends, and with which exit status.
macro_rules! ends {
    ($($how:ident: $($error:ty),+;)+) => {$($(
        impl From<$error> for End {
            fn from(error: $error) -> Self {
                Self::$how(error)
            }
        }
    )+)+};
}

ends! {
    usage: LogError, ActivationError;
    failed: HardenError, SandboxError, TaskEnded;
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        Self::failed(format!("cannot start: {error}"))
    }
}

/// Refuses to run as root.
///
/// # Errors
/// [`End::usage`].
pub fn refuse_root() -> Result<(), End> {
    if rustix::process::geteuid().is_root() {
        return Err(End::usage(
            "it must not run as root: have a service manager start it, as a user of its own",
        ));
    }
    Ok(())
}

/// Makes the runtime of a daemon: one thread.
///
/// # Errors
/// If the system refuses.
pub fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

/// Reads the arguments behind a daemon's name. `set` sets the option with a name; it returns false if there is none.
///
/// # Errors
/// [`lexopt::Error`], naming the argument that is wrong.
pub fn parse<A>(
    arguments: impl IntoIterator<Item = OsString>,
    mut options: A,
    mut set: impl FnMut(&mut A, &str, &mut Parser) -> Result<bool, lexopt::Error>,
) -> Result<Parsed<A>, lexopt::Error> {
    let mut parser = Parser::from_args(arguments);
    while let Some(argument) = parser.next()? {
        match argument {
            Short('h') | Long("help") => return Ok(Parsed::Help),
            Short('V') | Long("version") => return Ok(Parsed::Version),
            Long(name) => {
                let name = name.to_owned();
                if !set(&mut options, &name, &mut parser)? {
                    return Err(Long(&name).unexpected());
                }
            }
            _ => return Err(argument.unexpected()),
        }
    }
    Ok(Parsed::Run(options))
}

/// Does what is asked. Why it ends is said on standard error, and to its supervisor.
pub fn run<A, E: Display>(
    build: Build,
    name: &str,
    help: &str,
    parsed: Result<Parsed<A>, E>,
    start: impl FnOnce(A) -> Result<(), End>,
) -> ExitCode {
    version::set(build);
    let result = match parsed {
        Ok(Parsed::Run(args)) => start(args),
        Ok(Parsed::Help) => {
            print!("{help}");
            Ok(())
        }
        Ok(Parsed::Version) => {
            println!("{name} {}", Version::current());
            Ok(())
        }
        Err(error) => Err(End::usage(format!("{error}; see --help"))),
    };
    let Err(End { status, message }) = result else { return ExitCode::SUCCESS };
    // It repeats arguments, files and answers of others.
    super::logging::say(&format!("{name}: {message}"));
    Supervisor::of_this_process().status(&message);
    ExitCode::from(status)
}
