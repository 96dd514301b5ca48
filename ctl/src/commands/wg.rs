//! `i2planctl wg`: WireGuard's keys, for machines without `wg`, and files of wg-quick(8) as configuration.

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use i2plan_config::Config;
use i2plan_config::static_interface::import::{Import, ImportError};
use i2plan_config::static_interface::{
    DEFAULT_NAME, Format, InterfaceFile, clamp, key_of, key_text, public_key,
};
use i2plan_ipc::paths::CONFIG_FILE;
use i2plan_ipc::secret::SecretKey;
use i2plan_proto::sam::session::Style;
use rustix::fs::{FileType, fstat};
use serde_json::json;
use zeroize::Zeroizing;

use crate::failure::Failure;
use crate::{output, wireguard};

/// What `--help` adds to `wg import`.
const IMPORT_HELP: &str = "\
The file is checked as by `i2planctl config check`. Its keys go into files of mode 600, which the configuration names; no \
key is printed, and no file that exists is overwritten. Comments are kept, but for those that may hold a key.

Examples:
  sudo i2planctl wg import /etc/wireguard/wg0.conf --output /etc/i2plan/static/wg0.toml
  sudo i2planctl wg import wg0.conf --key-dir /etc/i2plan/keys | sudo tee -a /etc/i2plan/config.toml";

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
#[derive(Debug, clap::Subcommand)]
pub enum WgCommand {
    /// Make a private key, and print it
    Genkey,

    /// Read a private key from standard input, and print its public key
    Pubkey,

    /// Make a preshared key, and print it
    Genpsk,

    /// Convert a file of wg-quick(8) to TOML for a configuration, with its keys in files of their own
    #[command(after_help = IMPORT_HELP)]
    Import(ImportArgs),
}

/// `i2planctl wg import`
#[derive(Debug, clap::Args)]
pub struct ImportArgs {
    /// The file of wg-quick(8)
    pub file: PathBuf,

    /// Write the TOML into this file, which must not exist, in place of printing it
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,

    /// Where the files of keys are made [default: the directory of --output, else that of FILE]
    #[arg(long, value_name = "DIR")]
    pub key_dir: Option<PathBuf>,

    /// The style of the datagrams, which must be the same at both ends: repliable or raw [default: repliable]
    #[arg(long, value_name = "STYLE")]
    pub style: Option<Style>,
}

/// Makes or reads a key, or converts a file.
///
/// # Errors
/// If there is no randomness, no key on standard input, or the file is wrong or a file is in the way.
pub fn run(json: bool, command: WgCommand) -> Result<(), Failure> {
    let makes_secret = !matches!(command, WgCommand::Pubkey);
    let (name, key) = match command {
        WgCommand::Import(args) => return import(json, &args),
        WgCommand::Genkey => {
            let mut key = random()?;
            clamp(&mut key);
            ("private_key", key_text(&key.0))
        }
        WgCommand::Genpsk => ("preshared_key", key_text(&random()?.0)),
        WgCommand::Pubkey => ("public_key", key_text(&public_key(&read()?))),
    };
    if makes_secret && is_open_file() {
        output::note(
            "warning: writing to a file that every user can read; set the umask to 077, remove the file and try again",
        );
    }
    if json {
        return output::json::print(&json!({ name: key.as_str() }));
    }
    output::print(&Zeroizing::new(format!("{}\n", key.as_str())))
}

/// Converts a file of wg-quick(8).
fn import(json: bool, args: &ImportArgs) -> Result<(), Failure> {
    let config = Config::load(None).map_err(|error| Failure::invalid(error.to_string()))?;
    let file = InterfaceFile { path: args.file.clone(), format: Format::WgQuick };
    let content = wireguard::load(json, &file, &wireguard::routers(&config))?;
    let text = file.read().map_err(|error| Failure::invalid(error.to_string()))?;
    let name = file.name(&content).map_err(|reason| {
        Failure::invalid(format!("{}: {reason}", file.path.display()))
            .with_hint("rename the file: the interface is called like it, without .conf")
    })?;
    let beside = args.output.as_deref().unwrap_or(&args.file);
    let directory = args.key_dir.as_deref().or(beside.parent()).unwrap_or(Path::new(""));
    // The daemons run elsewhere.
    let here = |path: &Path| {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        std::path::absolute(path)
            .map_err(|error| Failure::internal(format!("there is no current directory: {error}")))
    };
    // Another file than a configuration has the name of the interface as its own.
    let is_configuration =
        args.output.as_deref().is_none_or(|output| output.file_name() == Path::new(CONFIG_FILE).file_name());
    let named = (is_configuration && name != DEFAULT_NAME).then_some(name.as_str());
    let import = Import::new(&text, &content, named, args.style, &here(directory)?, &name);
    import.write(args.output.as_deref()).map_err(|error| {
        let failure = Failure::invalid(error.to_string());
        match error {
            ImportError::Exists(_) => {
                failure.with_hint("remove it, or name another place with --output or --key-dir")
            }
            ImportError::Write { .. } => {
                failure.with_hint("run it as root, or name another place with --key-dir")
            }
            ImportError::Directory(_) => failure,
        }
    })?;
    let path = file.path.display();
    if json {
        let ignored: Vec<_> = content
            .ignored
            .iter()
            .map(|(line, what)| json!({ "line": line, "message": what.to_string() }))
            .collect();
        let keys: Vec<_> = import.keys.iter().map(|(path, _)| path.to_string_lossy()).collect();
        let output = args.output.as_deref().map(Path::to_string_lossy);
        return output::json::print(
            &json!({ "toml": import.toml, "output": output, "key_files": keys, "ignored": ignored }),
        );
    }
    for (line, what) in &content.ignored {
        output::note(&format!("{path}:{line}: {what}"));
    }
    for line in &import.left_out {
        output::note(&format!("{path}:{line}: the comment may hold a key, and is left out"));
    }
    for (key, _) in &import.keys {
        output::note(&format!("{} holds a key", key.display()));
    }
    match &args.output {
        Some(output) => output::print(&format!("{} describes the interface {name}\n", output.display())),
        None => output::print(&import.toml),
    }
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
