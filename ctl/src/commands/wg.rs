//! `i2planctl wg`: WireGuard's keys, for machines without `wg`.

use std::io::{self, Read as _};

use i2plan_config::wg_quick::{clamp, key_of, key_text, public_key};
use i2plan_ipc::secret::SecretKey;
use rustix::fs::{FileType, fstat};
use serde_json::json;
use zeroize::Zeroizing;

use crate::failure::Failure;
use crate::output;

/// What `--help` adds to `wg`.
pub(crate) const HELP: &str = "\
Keys are written and read as by `wg`, so that either can take what the other has made. No private key is taken \
on the command line, where every user of this machine could see it.

Example:
  (umask 077; i2planctl wg genkey | tee private.key | i2planctl wg pubkey)";

/// Longest key in a file, bytes: 44 characters, and blanks after them.
const MAX_INPUT: u64 = 4096;

/// Characters of a key.
const KEY_LEN: usize = 44;

/// `i2planctl wg …`
#[derive(Debug, Clone, Copy, clap::Subcommand)]
pub enum WgCommand {
    /// Make a private key, and print it
    Genkey,

    /// Read a private key from standard input, and print its public key
    Pubkey,

    /// Make a preshared key, and print it
    Genpsk,
}

/// Makes or reads a key.
///
/// # Errors
/// If there is no randomness, or no key on standard input.
pub fn run(json: bool, command: WgCommand) -> Result<(), Failure> {
    let (name, key) = match command {
        WgCommand::Genkey => {
            let mut key = random()?;
            clamp(&mut key);
            ("private_key", key_text(&key.0))
        }
        WgCommand::Genpsk => ("preshared_key", key_text(&random()?.0)),
        WgCommand::Pubkey => ("public_key", key_text(&public_key(&read()?))),
    };
    if !matches!(command, WgCommand::Pubkey) && is_open_file() {
        output::note(
            "warning: writing to a file that every user can read; set the umask to 077, remove the file and try again",
        );
    }
    if json {
        return output::json::print(&json!({ name: key.as_str() }));
    }
    output::print(&Zeroizing::new(format!("{}\n", key.as_str())))
}

fn random() -> Result<SecretKey, Failure> {
    let mut key = SecretKey([0; 32]);
    getrandom::fill(&mut key.0)
        .map_err(|error| Failure::internal(format!("cannot get random numbers: {error}")))?;
    Ok(key)
}

/// A private key from standard input, with nothing but blanks after it.
fn read() -> Result<SecretKey, Failure> {
    let refused = |what: &str| {
        Failure::invalid(what)
            .with_hint("give it the output of `i2planctl wg genkey`: 44 characters of base64")
    };
    // All of it at once: a vector that grows leaves its bytes where it was.
    let mut text = Zeroizing::new(Vec::with_capacity(MAX_INPUT as usize));
    io::stdin()
        .lock()
        .take(MAX_INPUT)
        .read_to_end(&mut text)
        .map_err(|error| Failure::invalid(format!("cannot read standard input: {error}")))?;
    let (key, rest) =
        text.split_at_checked(KEY_LEN).ok_or_else(|| refused("no private key on standard input"))?;
    if !rest.trim_ascii().is_empty() {
        return Err(refused("something follows the private key on standard input"));
    }
    let key = std::str::from_utf8(key).ok().and_then(key_of);
    key.ok_or_else(|| refused("no private key on standard input"))
}

/// Whether standard output is a file that others can read or change.
fn is_open_file() -> bool {
    let Ok(found) = fstat(io::stdout()) else { return false };
    FileType::from_raw_mode(found.st_mode) == FileType::RegularFile && found.st_mode & 0o007 != 0
}
