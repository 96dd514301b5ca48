//! `[interface]` and `[[peer]]` in TOML: in a file of their own, or beside the sections of a configuration.

use std::net::IpAddr;

use i2plan_ipc::api::tund::check_interface_name;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{
    Draft, InterfaceSection, MAX_KEY, Names, PeerSection, Problem, ReadKey, StaticConfig, set, wrong,
};
use crate::file::text_of;
use crate::{ALIKE, one_line};

const NAMES: Names = Names {
    interface: "[interface]",
    peer: "[[peer]]",
    private_key: "interface.private_key_file",
    addresses: "interface.addresses",
    public_key: "peer.public_key",
    allowed_ips: "peer.allowed_ips",
};

/// The keys of `[interface]`.
pub const INTERFACE_KEYS: [&str; 6] = ["name", "private_key_file", "addresses", "mtu", "table", "style"];

/// The keys of `[[peer]]`.
pub const PEER_KEYS: [&str; 5] =
    ["public_key", "endpoint", "allowed_ips", "persistent_keepalive", "preshared_key_file"];

/// Whether what a configuration file has at its top is one of these sections.
pub(crate) fn is_section(name: &str, value: &DeValue<'_>) -> bool {
    match name {
        "interface" => value.is_table(),
        "peer" => value.is_table() || value.is_array(),
        _ => false,
    }
}

/// Returns whether a text is TOML with one of these sections.
#[must_use]
pub fn has_sections(text: &str) -> bool {
    DeTable::parse(text).is_ok_and(|table| {
        table.get_ref().iter().any(|(name, value)| is_section(name.get_ref(), value.get_ref()))
    })
}

/// Reads a text. In the file of an interface, which has the name `of_file`, nothing but these sections may stand; other
/// sections of a configuration are passed over.
///
/// # Errors
/// All that is wrong, with the lines.
pub(super) fn parse(
    text: &str,
    of_file: Option<&str>,
    routers: &[IpAddr],
    read: &ReadKey<'_>,
) -> Result<StaticConfig, Vec<(usize, Problem)>> {
    let line = |at: usize| text[..at.min(text.len())].matches('\n').count() + 1;
    let (table, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        // What else would be said may be wrong.
        let fault = |error: &toml::de::Error| {
            (line(error.span().map_or(0, |span| span.start)), Problem::Toml(one_line(error.message())))
        };
        let mut faults: Vec<_> = errors.iter().map(fault).collect();
        faults.sort_by_key(|(line, _)| *line);
        return Err(faults);
    }
    let mut reader = Reader { draft: Draft::new(&NAMES), of_file, read, line: &line };
    for (name, value) in table.get_ref() {
        reader.handle_section(name, value);
    }
    reader.draft.finish(text.lines().count().max(1), routers)
}

struct Reader<'a> {
    draft: Draft,
    of_file: Option<&'a str>,
    read: &'a ReadKey<'a>,
    /// The line of what begins at this byte.
    line: &'a dyn Fn(usize) -> usize,
}

impl Reader<'_> {
    fn handle_section(&mut self, name: &Spanned<toml::de::DeString<'_>>, value: &Spanned<DeValue<'_>>) {
        let line = (self.line)(name.span().start);
        let form = |found, expected| Err(Problem::Form { found, expected });
        let result = match (&**name.get_ref(), value.get_ref()) {
            ("interface", DeValue::Table(keys)) => {
                self.handle_interface(line, keys);
                Ok(())
            }
            ("peer", DeValue::Array(peers)) => {
                for peer in peers {
                    let line = (self.line)(peer.span().start);
                    match peer.get_ref() {
                        DeValue::Table(keys) => self.handle_peer(line, keys),
                        _ => self.draft.note(line, form("peer", "[[peer]]")),
                    }
                }
                Ok(())
            }
            ("interface", _) if self.of_file.is_some() => form("interface", "[interface]"),
            ("peer", DeValue::Table(_)) => form("[peer]", "[[peer]]"),
            ("peer", _) if self.of_file.is_some() => form("peer", "[[peer]]"),
            (name, _) if self.of_file.is_some() => {
                let known = crate::KEYS.iter().any(|key| key.parts().0 == name);
                let shown = format!("[{}]", shown(name));
                Err(if known { Problem::OtherSection(shown) } else { Problem::Section(format!("[{shown}]")) })
            }
            // The configuration's.
            _ => Ok(()),
        };
        self.draft.note(line, result);
    }

    fn handle_interface(&mut self, line: usize, keys: &DeTable<'_>) {
        let mut section = InterfaceSection { line, ..InterfaceSection::default() };
        for (name, value) in keys {
            let line = (self.line)(name.span().start);
            let result = match &**name.get_ref() {
                "name" => self.set_name(&mut section, line, value),
                "private_key_file" => {
                    section.has_private_key = true;
                    let key = "interface.private_key_file";
                    text(key, value)
                        .and_then(|path| section.set_private_key_file(key, line, &path, self.read))
                }
                "private_key" => {
                    section.has_private_key = true;
                    Err(Problem::KeyInText("interface.private_key"))
                }
                "addresses" => {
                    section.has_address = value.get_ref().as_array().is_none_or(|list| !list.is_empty());
                    self.for_each("interface.addresses", line, value, |key, _, text| {
                        section.add_address(key, text)
                    })
                }
                "mtu" => scalar("interface.mtu", value)
                    .and_then(|mtu| section.set_mtu("interface.mtu", line, &mtu)),
                "table" => scalar("interface.table", value)
                    .and_then(|table| section.set_table("interface.table", line, &table)),
                "style" => text("interface.style", value).and_then(|style| {
                    let parsed = style.parse();
                    let parsed =
                        parsed.map_err(|_| wrong("interface.style", &style, "style: repliable or raw"))?;
                    set(&mut section.style, "interface.style", line, parsed)
                }),
                other => Err(unknown("[interface]", other, &INTERFACE_KEYS)),
            };
            self.draft.note(line, result);
        }
        self.draft.interface = Some(section);
    }

    fn set_name(
        &self,
        section: &mut InterfaceSection,
        line: usize,
        value: &Spanned<DeValue<'_>>,
    ) -> Result<(), Problem> {
        let key = "interface.name";
        let name = text(key, value)?;
        if name.len() > MAX_KEY {
            return Err(wrong(key, &name, "name of an interface"));
        }
        check_interface_name(&name).map_err(|reason| Problem::Name(key, one_line(&reason)))?;
        match self.of_file {
            Some(of_file) if of_file != name => Err(Problem::OtherName { key, of_file: shown(of_file) }),
            _ => set(&mut section.name, key, line, name),
        }
    }

    fn handle_peer(&mut self, line: usize, keys: &DeTable<'_>) {
        let mut section = PeerSection { line, ..PeerSection::default() };
        for (name, value) in keys {
            let line = (self.line)(name.span().start);
            let result = match &**name.get_ref() {
                "public_key" => {
                    section.has_public_key = true;
                    text("peer.public_key", value)
                        .and_then(|key| section.set_public_key("peer.public_key", line, &key))
                }
                "preshared_key_file" => {
                    let key = "peer.preshared_key_file";
                    text(key, value)
                        .and_then(|path| section.set_preshared_key_file(key, line, &path, self.read))
                }
                "preshared_key" => Err(Problem::KeyInText("peer.preshared_key")),
                "allowed_ips" => self.for_each("peer.allowed_ips", line, value, |key, line, text| {
                    section.add_allowed_ip(key, line, text)
                }),
                "endpoint" => text("peer.endpoint", value)
                    .and_then(|endpoint| section.set_endpoint("peer.endpoint", line, &endpoint)),
                "persistent_keepalive" => {
                    let key = "peer.persistent_keepalive";
                    scalar(key, value).and_then(|seconds| section.set_keepalive(key, line, &seconds))
                }
                other => Err(unknown("[[peer]]", other, &PEER_KEYS)),
            };
            self.draft.note(line, result);
        }
        self.draft.peers.push(section);
    }

    /// Takes each text of a list, with its own line. Notes what is wrong with each.
    fn for_each(
        &mut self,
        key: &'static str,
        line: usize,
        value: &Spanned<DeValue<'_>>,
        mut take: impl FnMut(&'static str, usize, &str) -> Result<(), Problem>,
    ) -> Result<(), Problem> {
        let expected = "a list of IP addresses with prefix lengths, such as [\"10.9.0.2/32\"],";
        let DeValue::Array(items) = value.get_ref() else { return Err(Problem::Type { key, expected }) };
        for item in items {
            let at = (self.line)(item.span().start).max(line);
            let result = match item.get_ref() {
                DeValue::String(text) => take(key, at, text.trim()),
                _ => Err(Problem::Type { key, expected }),
            };
            self.draft.note(at, result);
        }
        Ok(())
    }
}

/// A value that is text.
fn text(key: &'static str, value: &Spanned<DeValue<'_>>) -> Result<String, Problem> {
    match value.get_ref() {
        DeValue::String(text) => Ok(text.to_string()),
        _ => Err(Problem::Type { key, expected: "text in quotes" }),
    }
}

/// A number, or text with the same meaning.
fn scalar(key: &'static str, value: &Spanned<DeValue<'_>>) -> Result<String, Problem> {
    text_of(value).map_err(|_| Problem::Type { key, expected: "a whole number, or text in quotes," })
}

fn unknown(section: &'static str, key: &str, known: &[&'static str]) -> Problem {
    let alike = known.iter().map(|known| (strsim::normalized_damerau_levenshtein(key, known), *known));
    let meant = alike.filter(|(alike, _)| *alike >= ALIKE).max_by(|one, other| one.0.total_cmp(&other.0));
    Problem::Key { section, key: shown(key), meant: meant.map(|(_, meant)| meant) }
}

/// A name as an error repeats it: what is no such name may be a secret.
fn shown(name: &str) -> String {
    let sane = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    if name.len() <= MAX_KEY && name.bytes().all(sane) { name.to_owned() } else { "…".to_owned() }
}
