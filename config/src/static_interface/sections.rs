//! `[interface]` and `[[peer]]` in TOML: in a file of their own, or beside the sections of a configuration.

use std::net::IpAddr;

use i2plan_ipc::api::tund::check_interface_name;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{
    Draft, InterfaceSection, MAX_KEY, Names, PeerSection, Problem, ReadKey, StaticConfig, set, wrong,
};
use crate::file::{line_at, no_toml, text_of};
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

/// What the example of a configuration says of them, in comments.
pub(crate) const EXAMPLE: &str = r#"
# An interface with static peers, which `i2planctl up` runs in the place of a member of a mesh. `i2planctl wg import`
# makes these sections from a file of wg-quick; they may also stand alone, in /etc/i2plan/static/NAME.toml.
#[interface]
# Its name, here alone: a file of its own has that as its name. Default: wg0.
#name = "wg0"
# The file with the private key, which nobody else may read: umask 077; wg genkey > FILE
#private_key_file = "/etc/i2plan/static/wg0.key"
#addresses = ["10.9.0.1/24", "fd09::1/64"]
# 1280 to 7200 bytes.
#mtu = 1280
# The routing table that gets routes to the allowed IPs: a number, "auto" (the main one) or "off".
#table = "auto"
# The style of the datagrams, the same at both ends: "repliable" or "raw".
#style = "repliable"

# One for each peer.
#[[peer]]
#public_key = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg="
# NAME.b32.i2p or a destination in base64. Default: where the peer sends from.
#endpoint = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.b32.i2p"
#allowed_ips = ["10.9.0.2/32", "fd09::2/128"]
# Seconds, or "off".
#persistent_keepalive = 25
# The file with the preshared key, if there is one: umask 077; wg genpsk > FILE
#preshared_key_file = "/etc/i2plan/static/wg0-peer1.psk"
"#;

/// Whether what a configuration file has at its top is one of these sections.
pub(crate) fn is_section(name: &str, value: &DeValue<'_>) -> bool {
    match name {
        "interface" => value.is_table(),
        "peer" => value.is_table() || value.is_array(),
        _ => false,
    }
}

/// Whether a text is TOML with one of these sections.
pub(crate) fn has_sections(text: &str) -> bool {
    DeTable::parse(text).is_ok_and(|table| {
        table.get_ref().iter().any(|(name, value)| is_section(name.get_ref(), value.get_ref()))
    })
}

/// Reads a text. In the file of an interface, which has the name `of_file`, nothing but these sections may stand; other
/// sections of a configuration are passed over.
///
/// # Errors
/// All that is wrong, with the lines.
pub fn parse(
    text: &str,
    of_file: Option<&str>,
    routers: &[IpAddr],
    read: &ReadKey<'_>,
) -> Result<StaticConfig, Vec<(usize, Problem)>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let line = |at| line_at(text, at);
    let (table, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        // What else would be said may be wrong.
        let fault = |error: &toml::de::Error| {
            let (line, why) = no_toml(text, error);
            (line, Problem::Toml(one_line(&why)))
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

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use i2plan_ipc::secret::SecretKey;
    use i2plan_proto::sam::session::Style;
    use proptest::prelude::*;

    use super::super::{KeyFileError, Table, key_of, key_text, public_key};
    use super::*;

    /// One that `wg genkey` makes.
    const PRIVATE: &str = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=";

    fn router() -> IpAddr {
        IpAddr::from([127, 0, 0, 1])
    }

    fn peer_key(number: u8) -> String {
        key_text(&public_key(&SecretKey([number; 32]))).to_string()
    }

    /// Files of keys: one with [`PRIVATE`], `/peer` with the public key of the second peer, and no others.
    fn read(path: &std::path::Path) -> Result<SecretKey, KeyFileError> {
        match path.to_str().unwrap() {
            "/key" => Ok(key_of(PRIVATE).unwrap()),
            "/peer" => Ok(key_of(&peer_key(2)).unwrap()),
            _ => Err(KeyFileError::NoKey(PathBuf::from("/empty"))),
        }
    }

    fn parse(text: &str, of_file: Option<&str>) -> Result<StaticConfig, Vec<(usize, Problem)>> {
        super::parse(text, of_file, &[router()], &read)
    }

    /// A text, of whose lines those with the same keys are replaced and the others added to their section.
    fn text(interface: &str, peer: &str) -> String {
        let merge = |lines: &str, with: &str| {
            let key = |line: &str| line.split('=').next().unwrap_or_default().trim().to_owned();
            let kept = lines.lines().filter(|line| !with.lines().any(|other| key(other) == key(line)));
            kept.chain(with.lines()).map(|line| format!("{line}\n")).collect::<String>()
        };
        let interface = merge("private_key_file = '/key'\naddresses = ['10.9.0.1/24']", interface);
        let peer = merge(
            &format!(
                "public_key = '{}'\nallowed_ips = ['10.9.0.2/32']\nendpoint = '{}.b32.i2p'",
                peer_key(2),
                "a".repeat(52)
            ),
            peer,
        );
        format!("[interface]\n{interface}[[peer]]\n{peer}")
    }

    fn faults(text: &str) -> Vec<String> {
        match parse(text, Some("wg0")) {
            Ok(_) => Vec::new(),
            Err(faults) => faults.iter().map(|(line, problem)| format!("{line}: {problem}")).collect(),
        }
    }

    #[test]
    fn all_keys_are_read() {
        let text = format!(
            "# mine\n[interface]\nname = \"wg0\"\nprivate_key_file = \"/key\"\naddresses = [\n  \"10.9.0.1/24\", # one\n  \
             \"fd09::1/64\",\n]\nmtu = 1420\ntable = 77\nstyle = \"raw\"\n\n[[peer]]\npublic_key = \"{}\"\n\
             preshared_key_file = \"/key\"\nallowed_ips = [\"10.8.1.2/16\"]\nendpoint = \"{}.b32.i2p\"\n\
             persistent_keepalive = 15\n\n[[peer]]\npublic_key = \"{}\"\npersistent_keepalive = \"off\"\n",
            peer_key(2),
            "a".repeat(52),
            peer_key(3)
        );
        let StaticConfig { interface, peers, ignored } = parse(&text, Some("wg0")).unwrap();
        assert_eq!((interface.name.as_deref(), interface.style), (Some("wg0"), Some(Style::Raw)));
        assert_eq!((interface.mtu, interface.table), (Some(1420), Table::Number(77)));
        assert_eq!(
            interface.addresses.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["10.9.0.1/24", "fd09::1/64"]
        );
        assert_eq!(peers[0].allowed_ips[0].to_string(), "10.8.0.0/16");
        assert_eq!((peers[0].keepalive, peers[1].keepalive), (Some(15), Some(0)));
        assert_eq!(peers[0].preshared_key, Some(interface.private_key));
        assert!(peers[0].endpoint.is_some() && ignored.is_empty());
        // Beside the sections of a configuration, too.
        let beside = format!("[i2p]\ntunnel_length = 2\n{}", text.replace("table = 77", "table = \"off\""));
        assert_eq!(parse(&beside, None).unwrap().interface.table, Table::Off);
    }

    #[test]
    fn what_is_refused_says_where_and_why() {
        for (interface, peer, expected) in [
            ("adresses = []", "", "4: unknown key adresses in [interface]; did you mean addresses?"),
            ("listen_port = 1", "", "4: unknown key listen_port in [interface]"),
            ("", "allowedips = []", "8: unknown key allowedips in [[peer]]; did you mean allowed_ips?"),
            ("private_key = 'x'", "", "4: interface.private_key: keys stand in files of their own"),
            ("", "preshared_key = 'x'", "8: peer.preshared_key: keys stand in files of their own"),
            (
                "private_key_file = 'key'",
                "",
                "3: interface.private_key_file: \"…\" is no absolute path of a file",
            ),
            (
                "private_key_file = '/no'",
                "",
                "3: interface.private_key_file: /empty holds no key, which is 44 characters of base64",
            ),
            ("private_key_file = 7", "", "3: interface.private_key_file: text in quotes is expected"),
            (
                "",
                "preshared_key_file = '/no'",
                "8: peer.preshared_key_file: /empty holds no key, which is 44 characters of base64",
            ),
            ("mtu = 1279", "", "4: interface.mtu: \"1279\" is no number of bytes from 1280 to 7200"),
            ("mtu = [1]", "", "4: interface.mtu: a whole number, or text in quotes, is expected"),
            ("table = 0", "", "4: interface.table: \"0\" is no number of a table, auto or off"),
            ("style = 'both'", "", "4: interface.style: \"both\" is no style: repliable or raw"),
            ("name = 'wg1'", "", "4: interface.name: this is the file of the interface wg0, by its name"),
            ("addresses = ['127.0.0.1/8']", "", "3: interface.addresses: no interface can have 127.0.0.1"),
            (
                "addresses = '10.9.0.1/24'",
                "",
                "3: interface.addresses: a list of IP addresses with prefix lengths, such as [\"10.9.0.2/32\"], is \
                 expected",
            ),
            ("addresses = []", "", "1: interface.addresses is missing in this section"),
            ("", "public_key = 'short='", "7: peer.public_key: no key, which is 44 characters of base64"),
            (
                "",
                "endpoint = '203.0.113.7:51820'",
                "7: peer.endpoint: a clearnet endpoint: i2plan does not carry WireGuard over UDP",
            ),
            (
                "",
                "persistent_keepalive = 65536",
                "8: peer.persistent_keepalive: \"65536\" is no number of seconds up to 65535, or off",
            ),
            (
                "",
                "allowed_ips = [\n'10.9.0.2/32',\n'10.0.0.0/8/8']",
                "9: peer.allowed_ips: \"10.0.0.0/8/8\" is no IP address with a prefix length",
            ),
            (
                "",
                "allowed_ips = ['0.0.0.0/0']",
                "7: peer.allowed_ips: 0.0.0.0/0 and what the others have capture the routes of the I2P router to its own \
                 peers",
            ),
            (
                "",
                "allowed_ips = ['127.0.0.0/8']",
                "7: peer.allowed_ips: 127.0.0.0/8 captures the route to the I2P router, at 127.0.0.1",
            ),
            ("", "[peers]", "8: unknown section [[peers]]"),
            ("", "[i2p]", "8: [i2p] is for the configuration, and this is the file of an interface"),
        ] {
            let told = faults(&text(interface, peer));
            assert_eq!(told.first().map(String::as_str), Some(expected), "{interface}{peer}: {told:?}");
            assert_eq!(told.len(), 1, "{told:?}");
        }
        let own = key_text(&public_key(&key_of(PRIVATE).unwrap())).to_string();
        assert_eq!(
            faults(&text("", &format!("public_key = '{own}'"))),
            ["7: peer.public_key: it is this interface's own"]
        );
        let twice =
            text("", "") + &text("", "").split_once("[[").map(|(_, peer)| format!("[[{peer}")).unwrap();
        assert_eq!(
            faults(&twice),
            [
                "9: peer.public_key: this peer is a duplicate of the one on line 5",
                "10: peer.allowed_ips: 10.9.0.2 overlaps 10.9.0.2 of the peer on line 4",
            ]
        );
        let other = format!(
            "[[peer]]\npublic_key = '{}'\nallowed_ips = [\n'10.7.0.0/16',\n'10.9.0.2/32']",
            peer_key(3)
        );
        assert_eq!(
            faults(&(text("", "") + &other)),
            ["12: peer.allowed_ips: 10.9.0.2 overlaps 10.9.0.2 of the peer on line 4"]
        );
        // One public key in 32 looks like a private one.
        let private = faults(&text("private_key_file = '/peer'", ""));
        assert!(private[0].starts_with("3: interface.private_key_file: "), "{private:?}");
        assert_eq!(faults(""), ["1: [interface] is missing", "1: [[peer]] is missing"]);
        assert_eq!(faults("interface = 1\npeer = 2\n").len(), 4);
        assert_eq!(faults("[peer]\n")[0], "1: [peer] is no section [[peer]]");
        assert_eq!(
            faults("[interface]\nmtu = 1\nmtu = 2\n[[peer]]\n"),
            ["3: no TOML: mtu is there twice: put what belongs together in one place"]
        );
        // A configuration says elsewhere what is wrong with its other sections.
        assert!(parse(&text("", "[peers]"), None).is_ok());
    }

    #[test]
    fn all_faults_are_told_in_the_order_of_their_lines() {
        let told = faults(&text("mtu = 0\nstyle = 1\ntable = []", "endpoint = '1.2.3.4:5'\nx = 1"));
        let lines: Vec<_> = told.iter().map(|fault| fault.split(':').next().unwrap()).collect();
        assert_eq!(lines, ["4", "5", "6", "10", "11"], "{told:?}");
    }

    #[test]
    fn keys_are_repeated_in_no_error() {
        for line in [
            format!("private_key = '{PRIVATE}'"),
            format!("private_key_file = '{PRIVATE}'"),
            format!("'{PRIVATE}' = 1"),
            format!("mtu = '{PRIVATE}'"),
            format!("addresses = ['{PRIVATE}']"),
            format!("name = '{PRIVATE}'"),
            format!("mtu = {PRIVATE}"),
            PRIVATE.to_owned(),
            format!("['{PRIVATE}']"),
        ] {
            let told = faults(&text(&line, ""));
            assert!(!told.is_empty());
            for told in told {
                assert!(!told.contains(&PRIVATE[..40]), "{told}");
            }
        }
    }

    proptest! {
        #[test]
        fn every_text_is_read_or_has_faults_on_its_lines(
            lines in prop::collection::vec(
                prop_oneof![
                    prop::sample::select(vec!["[interface]", "[[peer]]", "[peer]", "[x]", "# x", ""])
                        .prop_map(str::to_owned),
                    (
                        prop::sample::select([INTERFACE_KEYS.as_slice(), PEER_KEYS.as_slice(), &["x"]].concat()),
                        prop::sample::select(vec!["1", "'/key'", "['10.9.0.2/32']", "[1]", "{}", "'x'", "\"raw\"", "1.5"]),
                    )
                        .prop_map(|(key, value)| format!("{key} = {value}")),
                ],
                0..20,
            ),
            any in ".{0,200}",
        ) {
            for text in [lines.join("\n"), any] {
                for of_file in [None, Some("wg0")] {
                    for (line, problem) in parse(&text, of_file).err().unwrap_or_default() {
                        prop_assert!((1..=text.lines().count().max(1)).contains(&line), "{}: {}", line, problem);
                        prop_assert!(!problem.to_string().contains(char::is_control));
                        prop_assert!(!problem.remedy().is_empty());
                    }
                }
            }
        }
    }
}
