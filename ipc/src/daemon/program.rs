//! The frame of a daemon's program: what it answers itself, and how it ends.

use std::fmt::Display;
use std::process::ExitCode;

use super::notify::Supervisor;
use crate::version::{self, Build, Version};

/// What a command line asks of a daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked<A> {
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

    /// The same with an exit status that this daemon gives a meaning of its own.
    #[must_use]
    pub fn with_status(self, status: u8) -> Self {
        Self { status, ..self }
    }
}

/// Does what is asked. Why it ends is said on standard error, and to its supervisor.
pub fn run<A, E: Display>(
    build: Build,
    name: &str,
    help: &str,
    asked: Result<Asked<A>, E>,
    start: impl FnOnce(A) -> Result<(), End>,
) -> ExitCode {
    version::set(build);
    let result = match asked {
        Ok(Asked::Run(args)) => start(args),
        Ok(Asked::Help) => {
            print!("{help}");
            Ok(())
        }
        Ok(Asked::Version) => {
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
