//! Passphrases on their way to `keyd`.

use std::fs::File;
use std::io::{self, IsTerminal as _};

use i2plan_ipc::passphrase::{Passphrase, PassphraseError, inherited};
use rustix::process::{Resource, Rlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};

use crate::failure::Failure;

/// The passphrases that came by descriptors.
#[derive(Debug, Default)]
pub struct Given {
    /// The one that the keys are sealed with.
    pub passphrase: Option<Passphrase>,
    /// The one that they shall be sealed with.
    pub new: Option<Passphrase>,
}

impl Given {
    /// Reads from the descriptors that the command line names. Only before this process opens anything else, as [`inherited`] says.
    ///
    /// # Errors
    /// If there is no such descriptor, or no passphrase in it.
    pub fn take(passphrase: Option<i32>, new: Option<i32>) -> Result<Self, Failure> {
        if passphrase.is_some() && passphrase == new {
            return Err(Failure::usage(
                "the passphrase and the new one cannot come from the same descriptor",
            )
            .with_hint("open another for the new one"));
        }
        let take = |number: Option<i32>, option| number.map(|number| take(number, option)).transpose();
        // All are taken before the first is read.
        let (passphrase, new) = (take(passphrase, "--passphrase-fd")?, take(new, "--new-passphrase-fd")?);
        if passphrase.is_some() || new.is_some() {
            protect();
        }
        Ok(Self {
            passphrase: passphrase.map(Source::read).transpose()?,
            new: new.map(Source::read).transpose()?,
        })
    }
}

/// A descriptor and the option that named it.
struct Source {
    input: File,
    option: &'static str,
}

fn take(number: i32, option: &'static str) -> Result<Source, Failure> {
    let fd = inherited(number).map_err(|error| {
        Failure::usage(format!("{option} {number} cannot be used: {error}"))
            .with_hint(format!("open it for reading in the shell: `{option} 3 3< FILE`"))
    })?;
    Ok(Source { input: File::from(fd), option })
}

impl Source {
    fn read(self) -> Result<Passphrase, Failure> {
        Passphrase::read(self.input, self.option).map_err(|error| explain(&error))
    }
}

/// Asks for the passphrase of keys that are there.
///
/// # Errors
/// If there is no terminal, or nothing was typed.
pub async fn ask() -> Result<Passphrase, Failure> {
    need_terminal("--passphrase-fd")?;
    let interrupted = interrupted().map_err(|error| explain(&error))?;
    Passphrase::ask("Passphrase of the node's keys", interrupted).await.map_err(|error| explain(&error))
}

/// Asks for a new passphrase, twice.
///
/// # Errors
/// If there is no terminal, or not the same was typed twice.
pub async fn ask_new(option: &str) -> Result<Passphrase, Failure> {
    need_terminal(option)?;
    let interrupted = interrupted().map_err(|error| explain(&error))?;
    Passphrase::ask_new("New passphrase for the node's keys", interrupted)
        .await
        .map_err(|error| explain(&error))
}

fn need_terminal(option: &str) -> Result<(), Failure> {
    if !io::stdin().is_terminal() {
        return Err(Failure::usage("standard input is no terminal to ask for a passphrase on")
            .with_hint(format!("name a descriptor to read it from with {option}")));
    }
    protect();
    Ok(())
}

/// Returns when a signal came that ends this program.
fn interrupted() -> Result<impl Future<Output = ()>, PassphraseError> {
    let listen =
        |kind| signal(kind).map_err(|source| PassphraseError::Io { from: "the terminal".to_owned(), source });
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    let mut hangup = listen(SignalKind::hangup())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    })
}

/// Keeps the memory of this process out of core dumps, from other processes, and out of swap as far as that is
/// allowed: it is about to hold a passphrase.
fn protect() {
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    #[cfg(target_os = "linux")]
    {
        use rustix::mm::{MlockAllFlags, mlockall};
        use rustix::process::{DumpableBehavior, set_dumpable_behavior};
        let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
        // What is mapped now, which is where small things go. Not what comes: under a limit that could then not
        // be had at all.
        let _ = mlockall(MlockAllFlags::CURRENT | MlockAllFlags::ONFAULT);
    }
}

fn explain(error: &PassphraseError) -> Failure {
    let failure = Failure::invalid(error.to_string());
    match error {
        PassphraseError::Empty => failure.with_hint("give one, or leave the option out to have none"),
        PassphraseError::TooLong => failure.with_hint("choose a shorter one"),
        PassphraseError::Different => failure.with_hint("try again; nothing was changed"),
        PassphraseError::Interrupted => failure.with_hint("nothing was changed"),
        PassphraseError::Io { .. } => failure,
    }
}
