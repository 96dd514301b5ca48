//! Files of wg-quick(8), with endpoints in I2P.

use std::net::IpAddr;

use super::{
    Draft, InterfaceSection, MAX_KEY, Names, PeerSection, Problem, StaticConfig, number, set, wrong,
};
use crate::one_line;

const NAMES: Names = Names {
    interface: "[Interface]",
    peer: "[Peer]",
    private_key: "PrivateKey",
    addresses: "Address",
    public_key: "PublicKey",
    allowed_ips: "AllowedIPs",
};

/// Returns whether a text is a file of wg-quick rather than `config.toml`: its first section says so.
#[must_use]
pub fn is_wg_quick(text: &str) -> bool {
    let first = text.lines().map(meaning).find(|line| line.starts_with('['));
    first.is_some_and(|line| section_of(line).is_some())
}

/// Reads the text of a file.
///
/// # Errors
/// All that is wrong, with the lines.
pub fn parse(text: &str, routers: &[IpAddr]) -> Result<StaticConfig, Vec<(usize, Problem)>> {
    let mut parser = Parser { line: 0, section: None, draft: Draft::new(&NAMES) };
    for (at, line) in text.lines().enumerate() {
        parser.line = at + 1;
        let result = parser.handle_line(meaning(line));
        parser.draft.note(parser.line, result);
    }
    parser.draft.finish(parser.line.max(1), routers)
}

/// The first line with a secret.
pub(super) fn line_of_secret(text: &str) -> Option<usize> {
    let has_secret = |line: &str| {
        let key = meaning(line).split('=').next().unwrap_or_default().trim();
        ["PrivateKey", "PresharedKey"].iter().any(|secret| key.eq_ignore_ascii_case(secret))
    };
    text.lines().position(has_secret).map(|at| at + 1)
}

/// A line without its comment.
pub(super) fn meaning(line: &str) -> &str {
    line.split('#').next().unwrap_or_default().trim()
}

/// The sections that there are.
pub(super) fn section_of(line: &str) -> Option<&'static str> {
    let name = line.strip_prefix('[')?.strip_suffix(']')?.trim();
    ["Interface", "Peer"].into_iter().find(|known| known.eq_ignore_ascii_case(name))
}

enum Section {
    /// Before any, or one that is unknown.
    None,
    Interface,
    Peer,
}

struct Parser {
    line: usize,
    section: Option<Section>,
    draft: Draft,
}

impl Parser {
    fn handle_line(&mut self, line: &str) -> Result<(), Problem> {
        if line.is_empty() {
            return Ok(());
        }
        if line.starts_with('[') {
            return self.handle_section(line);
        }
        let (key, value) = line.split_once('=').ok_or(Problem::Syntax)?;
        let (key, value) = (key.trim(), value.trim());
        // What else ends in '=' may be a key of WireGuard, and is not repeated.
        if !(1..=MAX_KEY).contains(&key.len()) || !key.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(Problem::Syntax);
        }
        match (&self.section, &mut self.draft.interface, self.draft.peers.last_mut()) {
            (Some(Section::Interface), Some(interface), _) => of_interface(interface, key, value, self.line),
            (Some(Section::Peer), _, Some(peer)) => of_peer(peer, key, value, self.line),
            // What is in a section that is unknown or one too many has been refused with it.
            (Some(_), ..) => Ok(()),
            (None, ..) => Err(Problem::Outside(key.to_owned())),
        }
    }

    fn handle_section(&mut self, line: &str) -> Result<(), Problem> {
        self.section = Some(Section::None);
        match section_of(line) {
            None => {
                let short = line.len() <= MAX_KEY && line.is_ascii();
                Err(Problem::Section(if short { one_line(line) } else { "[…]".to_owned() }))
            }
            Some("Interface") => {
                if let Some(interface) = &self.draft.interface {
                    return Err(Problem::SecondInterface(interface.line));
                }
                self.section = Some(Section::Interface);
                self.draft.interface =
                    Some(InterfaceSection { line: self.line, ..InterfaceSection::default() });
                Ok(())
            }
            Some(_) => {
                self.section = Some(Section::Peer);
                self.draft.peers.push(PeerSection { line: self.line, ..PeerSection::default() });
                Ok(())
            }
        }
    }
}

fn of_interface(
    interface: &mut InterfaceSection,
    key: &str,
    value: &str,
    line: usize,
) -> Result<(), Problem> {
    let commands = ["PreUp", "PostUp", "PreDown", "PostDown"];
    if let Some(command) = commands.into_iter().find(|command| command.eq_ignore_ascii_case(key)) {
        return Err(Problem::Command(command));
    }
    match &*key.to_ascii_lowercase() {
        "privatekey" => interface.set_private_key("PrivateKey", line, value),
        "address" => {
            interface.has_address |= list(value).next().is_some();
            list(value).try_for_each(|text| interface.add_address("Address", text))
        }
        "mtu" => interface.set_mtu("MTU", line, value),
        "table" => interface.set_table("Table", line, value),
        "listenport" => {
            let port: u16 = number(value).ok_or_else(|| wrong("ListenPort", value, "port"))?;
            set(&mut interface.listen_port, "ListenPort", line, port)
        }
        "fwmark" if ["0", "0x0", "off"].contains(&&*value.to_ascii_lowercase()) => Ok(()),
        "fwmark" => Err(Problem::FwMark),
        "dns" => Err(Problem::Dns),
        "saveconfig" if value.eq_ignore_ascii_case("false") => Ok(()),
        "saveconfig" => Err(Problem::SaveConfig),
        _ => Err(Problem::Key { section: "[Interface]", key: key.to_owned(), meant: None }),
    }
}

fn of_peer(peer: &mut PeerSection, key: &str, value: &str, line: usize) -> Result<(), Problem> {
    match &*key.to_ascii_lowercase() {
        "publickey" => peer.set_public_key("PublicKey", line, value),
        "presharedkey" => peer.set_preshared_key("PresharedKey", line, value),
        "allowedips" => list(value).try_for_each(|text| peer.add_allowed_ip("AllowedIPs", line, text)),
        "endpoint" => peer.set_endpoint("Endpoint", line, value),
        "persistentkeepalive" => peer.set_keepalive("PersistentKeepalive", line, value),
        _ => Err(Problem::Key { section: "[Peer]", key: key.to_owned(), meant: None }),
    }
}

/// The parts of a list, without empty ones.
pub(super) fn list(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').map(str::trim).filter(|part| !part.is_empty())
}
