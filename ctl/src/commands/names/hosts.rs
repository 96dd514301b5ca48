//! A marked block of names in the host's own file.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use i2plan_config::save::replace;
use i2plan_ipc::api::meshd::Network;
use i2plan_ipc::names::{MemberLabels, domain};

use crate::failure::Failure;
use crate::output;

/// The file of the host's own names.
const HOSTS: &str = "/etc/hosts";

/// `i2planctl names hosts`
#[derive(Debug, clap::Args)]
pub struct Hosts {
    /// Put them into the file, in a marked block, in place of those that are there
    #[arg(long, conflicts_with = "remove")]
    pub write: bool,

    /// Take the block out of the file
    #[arg(long)]
    pub remove: bool,

    /// Also names without a domain: a member can then have a name that this host looks up elsewhere otherwise
    #[arg(long, conflicts_with = "remove")]
    pub short: bool,

    /// The interface of the node whose block is removed, if the node does not run
    #[arg(long, value_name = "NAME", requires = "remove")]
    pub interface: Option<String>,

    /// The file
    #[arg(long, value_name = "FILE", default_value = HOSTS)]
    pub file: PathBuf,
}

/// Lines for a file of hosts.
pub(super) fn lines(network: &Network, members: &[MemberLabels], with_short: bool) -> String {
    let domain = domain(network);
    let mut out = String::new();
    for member in members {
        let mut names = String::new();
        for label in member.short.iter().chain([&member.full]) {
            let _ = write!(names, " {label}.{domain}");
        }
        if let Some(short) = member.short.as_ref().filter(|_| with_short) {
            let _ = write!(names, " {short}");
        }
        for address in member.addresses() {
            let _ = writeln!(out, "{address}{names}");
        }
    }
    out
}

fn marks(interface: &str) -> [String; 2] {
    [format!("# i2plan {interface}: begin"), format!("# i2plan {interface}: end")]
}

pub(super) fn block(interface: &str, lines: &str) -> String {
    let [begin, end] = marks(interface);
    format!("{begin}\n{lines}{end}\n")
}

/// A text without the blocks of this interface. One without an end is left: nobody knows where it ends.
fn without_blocks(text: &str, interface: &str) -> String {
    let [begin, end] = marks(interface);
    let (mut out, mut held) = (String::new(), None::<String>);
    for line in text.split_inclusive('\n') {
        match (&mut held, line.trim_end()) {
            (None, mark) if mark == begin => held = Some(line.to_owned()),
            (None, _) => out.push_str(line),
            (Some(_), mark) if mark == end => held = None,
            (Some(block), _) => block.push_str(line),
        }
    }
    out + &held.unwrap_or_default()
}

pub(super) fn with_block(text: &str, interface: &str, block: &str) -> String {
    let mut text = without_blocks(text, interface);
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text + block
}

/// Takes the block of an interface out of a file; whether there was one.
///
/// # Errors
/// If the file cannot be read or written.
pub fn remove_block(file: &Path, interface: &str) -> Result<bool, Failure> {
    change(file, |text| {
        let without = without_blocks(text, interface);
        (without != text).then_some(without)
    })
}

/// Takes the block of an interface out of the host's own file, as far as that can be done.
pub fn remove_at_the_end(interface: &str) {
    if let Err(failure) = remove_block(Path::new(HOSTS), interface) {
        output::note(&failure.to_string());
    }
}

/// Writes a file anew; whether it is another.
pub(super) fn change(file: &Path, edit: impl FnOnce(&str) -> Option<String>) -> Result<bool, Failure> {
    let failed = |error: std::io::Error| {
        Failure::internal(format!("{}: {error}", file.display())).with_hint(
            "run this as root; where the file is mounted by itself, as in containers, it cannot be replaced",
        )
    };
    let text = match std::fs::read_to_string(file) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        read => read.map_err(failed)?,
    };
    let Some(changed) = edit(&text).filter(|changed| *changed != text) else { return Ok(false) };
    replace(file, &changed).map_err(failed)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::names::tests::network;

    #[test]
    fn a_block_replaces_its_own_and_leaves_the_rest() {
        let mine = "127.0.0.1 localhost\n";
        let first = with_block(mine, "i2plan0", &block("i2plan0", "10.42.0.1 web\n"));
        assert_eq!(first, format!("{mine}# i2plan i2plan0: begin\n10.42.0.1 web\n# i2plan i2plan0: end\n"));
        let both = with_block(&first, "i2plan1", &block("i2plan1", "10.43.0.1 web\n"));
        let again = with_block(&both, "i2plan0", &block("i2plan0", "10.42.0.2 db\n"));
        assert!(!again.contains("10.42.0.1") && again.contains("10.42.0.2") && again.contains("10.43.0.1"));
        let without = without_blocks(&without_blocks(&again, "i2plan0"), "i2plan1");
        assert_eq!(without, mine);
        assert_eq!(
            with_block("no end", "a", &block("a", "")),
            "no end\n# i2plan a: begin\n# i2plan a: end\n"
        );
    }

    #[test]
    fn what_follows_a_block_without_an_end_stays() {
        let broken = "# i2plan a: begin\n10.42.0.1 web\n127.0.0.1 localhost\n";
        assert_eq!(without_blocks(broken, "a"), broken);
    }

    #[test]
    fn a_file_is_changed_if_it_has_a_block() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("hosts");
        assert!(!remove_block(&file, "a").unwrap());
        assert!(!file.exists());
        std::fs::write(&file, "127.0.0.1 localhost\n# i2plan a: begin\n# i2plan a: end\n").unwrap();
        assert!(remove_block(&file, "a").unwrap());
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "127.0.0.1 localhost\n");
        assert!(!remove_block(&file, "a").unwrap());
    }

    #[test]
    fn a_name_without_a_domain_is_written_if_it_is_asked_for() {
        let (ipv4, ipv6) = ("10.42.0.7".parse().unwrap(), "fd12::7".parse().unwrap());
        let (name, full) = ("web".to_owned(), "web-10-42-0-7".to_owned());
        let member = MemberLabels { short: Some(name.clone()), name, full, ipv4, ipv6 };
        let network = network("10.42.0.0/16");
        let whole = "web.office.internal web-10-42-0-7.office.internal";
        let written = lines(&network, std::slice::from_ref(&member), false);
        assert_eq!(written, format!("10.42.0.7 {whole}\nfd12::7 {whole}\n"));
        let written = lines(&network, &[member], true);
        assert_eq!(written, format!("10.42.0.7 {whole} web\nfd12::7 {whole} web\n"));
    }
}
