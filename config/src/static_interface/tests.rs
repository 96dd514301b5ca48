use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;

use i2plan_proto::destination::Destination;
use proptest::prelude::*;

use super::wg_quick::{is_wg_quick, parse};
use super::*;

/// One that `wg genkey` makes.
const PRIVATE: &str = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=";
/// What `wg pubkey` makes of [`PRIVATE`].
const PUBLIC_OF_PRIVATE: &str = "HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw=";

fn router() -> IpAddr {
    IpAddr::from([127, 0, 0, 1])
}

fn b32() -> String {
    Destination { padding: [1; 32], signing_key: [2; 32] }.hash().b32()
}

/// The public key of a peer of this number.
fn peer_key(number: u8) -> String {
    key_text(&public_key(&SecretKey([number; 32]))).to_string()
}

/// A file, of whose lines those with the same keys are replaced and the others added to their section.
fn file(interface: &str, peer: &str) -> String {
    let merge = |lines: &str, with: &str| {
        let key = |line: &str| line.split('=').next().unwrap_or_default().trim().to_owned();
        let kept = lines.lines().filter(|line| !with.lines().any(|other| key(other) == key(line)));
        kept.chain(with.lines()).map(|line| format!("{line}\n")).collect::<String>()
    };
    let interface = merge(&format!("PrivateKey = {PRIVATE}\nAddress = 10.9.0.1/24"), interface);
    let peer =
        merge(&format!("PublicKey = {}\nAllowedIPs = 10.9.0.2/32\nEndpoint = {}", peer_key(2), b32()), peer);
    format!("[Interface]\n{interface}[Peer]\n{peer}")
}

/// The faults as lines of text.
fn faults(text: &str) -> Vec<String> {
    match parse(text, &[router()]) {
        Ok(_) => Vec::new(),
        Err(faults) => faults.iter().map(|(line, problem)| format!("{line}: {problem}")).collect(),
    }
}

/// The only fault.
fn fault(interface: &str, peer: &str) -> String {
    let text = file(interface, peer);
    let mut faults = faults(&text);
    assert_eq!(faults.len(), 1, "{faults:?} in\n{text}");
    faults.remove(0)
}

#[test]
fn a_file_of_wg_quick_is_read() {
    let destination = Destination { padding: [1; 32], signing_key: [2; 32] }.to_base64();
    let psk = PRIVATE;
    let text = format!(
        "# mine\n[interface]\nADDRESS = 10.9.0.1/24, fd09::1 # two\nAddress=10.9.1.1\nPrivateKey={PRIVATE}\n\
         MTU = 1420\nTable = 77\nListenPort = 51820\nSaveConfig = false\nFwMark = off\n\n[Peer]\n\
         PublicKey = {}\nPresharedKey = {psk}\nAllowedIPs = 10.9.0.2/32, fd09::/64\nAllowedIPs = 10.8.1.2/16\n\
         Endpoint = {destination}\nPersistentKeepalive = 15\n[Peer]\nPublicKey = {}\nAllowedIPs = \n\
         PersistentKeepalive = off\r\n",
        peer_key(2),
        peer_key(3),
    );
    let StaticConfig { interface, peers, ignored } = parse(&text, &[router()]).unwrap();
    let texts = |prefixes: &[Prefix]| prefixes.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(texts(&interface.addresses), ["10.9.0.1/24", "fd09::1", "10.9.1.1"]);
    assert_eq!((interface.mtu, interface.table), (Some(1420), Table::Number(77)));
    assert_eq!(key_text(&public_key(&interface.private_key)).as_str(), PUBLIC_OF_PRIVATE);
    assert_eq!(ignored, [(8, Ignored::ListenPort)]);
    assert_eq!(texts(&peers[0].allowed_ips), ["10.9.0.2", "fd09::/64", "10.8.0.0/16"]);
    assert_eq!(peers[0].endpoint.as_ref().unwrap().to_string(), destination);
    assert_eq!((peers[0].keepalive, peers[0].preshared_key.is_some()), (Some(15), true));
    assert_eq!((peers[1].keepalive, &peers[1].endpoint, peers[1].allowed_ips.len()), (Some(0), &None, 0));
    assert!(!format!("{peers:?}{interface:?}").contains("200, 9"), "keys do not print");
}

#[test]
fn what_is_refused_says_why_and_what_to_do() {
    for (interface, peer, expected) in [
        ("DNS = 10.9.0.1", "", "4: DNS: i2plan does not change the host's name servers"),
        ("PostUp = iptables -A x", "", "4: PostUp: i2plan runs no commands from a configuration"),
        ("preup = x", "", "4: PreUp: i2plan runs no commands from a configuration"),
        ("PreDown = a = b", "", "4: PreDown: i2plan runs no commands from a configuration"),
        ("FwMark = 0x1", "", "4: FwMark: i2plan sends no UDP packets that could be marked"),
        ("SaveConfig = true", "", "4: SaveConfig: i2plan does not write this file"),
        ("MTU = 1279", "", "4: MTU: \"1279\" is no number of bytes from 1280 to 7200"),
        ("Table = 0", "", "4: Table: \"0\" is no number of a table, auto or off"),
        ("ListenPort = 65536", "", "4: ListenPort: \"65536\" is no port"),
        ("Address = 10.9.0.1/33", "", "3: Address: \"10.9.0.1/33\" is no IP address with a prefix length"),
        ("Address = 127.0.0.1/8", "", "3: Address: no interface can have 127.0.0.1"),
        ("Jc = 4", "", "4: unknown key Jc in [Interface]"),
        ("", "Adress = 1", "8: unknown key Adress in [Peer]"),
        ("just words", "", "4: not a section, and not `key = value`"),
        ("", "[Peers]", "8: unknown section [Peers]"),
        ("", "[Interface]", "8: another [Interface]; the first is on line 1"),
        (
            "",
            "Endpoint = 203.0.113.7:51820",
            "7: Endpoint: a clearnet endpoint: i2plan does not carry WireGuard over UDP",
        ),
        ("", "Endpoint = me.i2p", "7: Endpoint: a name of an address book, not a destination"),
        ("", "PublicKey = short=", "7: PublicKey: no key, which is 44 characters of base64"),
        ("", "PresharedKey = x", "8: PresharedKey: no key, which is 44 characters of base64"),
        (
            "",
            "PersistentKeepalive = 65536",
            "8: PersistentKeepalive: \"65536\" is no number of seconds up to 65535, or off",
        ),
        (
            "",
            "AllowedIPs = 10.0.0.0/8/8",
            "7: AllowedIPs: \"10.0.0.0/8/8\" is no IP address with a prefix length",
        ),
        ("MTU = 1280\nMtu = 1281", "", "5: MTU is set already, on line 4"),
    ] {
        assert_eq!(fault(interface, peer), expected);
    }
    assert_eq!(faults(""), ["1: [Interface] is missing", "1: [Peer] is missing"]);
    assert_eq!(
        faults("[Interface]\n[Peer]\n"),
        [
            "1: PrivateKey is missing in this section",
            "1: Address is missing in this section",
            "2: PublicKey is missing in this section"
        ]
    );
    assert_eq!(faults(&format!("MTU = 1280\n{}", file("", ""))), ["1: MTU stands before any section"]);
}

#[test]
fn all_faults_are_told_in_the_order_of_their_lines() {
    let told = faults(&file("DNS = 1.1.1.1\nMTU = 0", "Endpoint = 1.2.3.4:5\nPostUp = x"));
    let lines: Vec<_> = told.iter().map(|fault| &fault[..2]).collect();
    assert_eq!(lines, ["4:", "5:", "9:", "10"], "{told:?}");
}

#[test]
fn keys_in_wrong_places_are_found() {
    let peer = peer_key(2);
    // One public key in 32 looks like a private key; this one does not.
    let (private, not_private) =
        (format!("PrivateKey = {peer}"), "PrivateKey: no private key as `wg genkey` makes them");
    let told = faults(&file(&private, ""));
    assert!(told[0].contains(not_private), "{told:?}");
    // One that does, by being compared with the peers'.
    let looks_private = (0..=255).map(|seed| public_key(&SecretKey([seed; 32]))).find(|key| {
        let mut clamped = SecretKey(*key);
        clamp(&mut clamped);
        clamped.0 == *key
    });
    let looks_private = key_text(&looks_private.expect("one of 32 does")).to_string();
    let told =
        faults(&file(&format!("PrivateKey = {looks_private}"), &format!("PublicKey = {looks_private}")));
    assert!(
        told.iter().any(|fault| fault.ends_with("PrivateKey: it is the public key of the peer on line 7")),
        "{told:?}"
    );
    assert_eq!(
        fault("", &format!("PublicKey = {PUBLIC_OF_PRIVATE}")),
        "7: PublicKey: it is this interface's own"
    );
    let zero = key_text(&[0; 32]).to_string();
    assert!(fault("", &format!("PublicKey = {zero}")).contains("PublicKey: the key is zero"));
    assert!(fault(&format!("PrivateKey = {zero}"), "").contains("PrivateKey: the key is zero"));
    let again = format!("{}[Peer]\nPublicKey = {peer}\n", file("", ""));
    assert_eq!(faults(&again), ["9: PublicKey: this peer is a duplicate of the one on line 5"]);
}

#[test]
fn keys_are_repeated_in_no_error() {
    for line in [
        format!("PrivateKey {PRIVATE}"),
        PRIVATE.to_owned(),
        format!("PrivateKey: {PRIVATE}"),
        format!("PrivateKey = {PRIVATE}{PRIVATE}"),
        format!("MTU = {PRIVATE}"),
        format!("Address = {PRIVATE}"),
        format!("Adress = {PRIVATE}"),
        format!("[{PRIVATE}"),
    ] {
        for told in faults(&file(&line, "")) {
            assert!(!told.contains(&PRIVATE[..40]), "{told}");
        }
    }
}

#[test]
fn an_address_is_of_one_peer() {
    let with = |first: &str, second: &str| {
        let more = format!("[Peer]\nPublicKey = {}\nAllowedIPs = {second}\n", peer_key(3));
        faults(&(file("", &format!("AllowedIPs = {first}")) + &more))
    };
    assert!(
        with("10.9.0.2/32, 10.9.0.0/28", "10.9.0.16/28, fd00::/8").is_empty(),
        "within one peer they may"
    );
    for (first, second, told) in [
        ("10.9.0.2", "10.9.0.2", "10: AllowedIPs: 10.9.0.2 overlaps 10.9.0.2 of the peer on line 4"),
        (
            "10.9.0.0/24",
            "10.9.0.77/32",
            "10: AllowedIPs: 10.9.0.77 overlaps 10.9.0.0/24 of the peer on line 4",
        ),
        (
            "10.9.0.77/32",
            "10.9.0.0/24",
            "10: AllowedIPs: 10.9.0.0/24 overlaps 10.9.0.77 of the peer on line 4",
        ),
        ("fd09::/64", "fd09::5", "10: AllowedIPs: fd09::5 overlaps fd09::/64 of the peer on line 4"),
    ] {
        assert_eq!(with(first, second), [told]);
    }
}

#[test]
fn routes_that_the_router_needs_are_not_captured() {
    let captured = |list: &str| faults(&file("", &format!("AllowedIPs = {list}")));
    let whole = "the others have capture the routes of the I2P router to its own peers";
    for list in [
        "0.0.0.0/0",
        "::/0",
        "0.0.0.0/1",
        "128.0.0.0/1",
        "::/1",
        "2000::/3",
        "0.0.0.0/1, 128.0.0.0/1",
        "10.9.0.2, 0.0.0.0/2, 64.0.0.0/2",
        "2000::/4",
    ] {
        let told = captured(list);
        assert!(told.len() == 1 && told[0].contains(whole), "{list}: {told:?}");
        for table in ["off", "77"] {
            let text = file(&format!("Table = {table}"), &format!("AllowedIPs = {list}"));
            assert!(faults(&text).is_empty(), "without a route there is nothing to capture");
        }
    }
    assert_eq!(
        captured("127.0.0.0/8"),
        ["7: AllowedIPs: 127.0.0.0/8 captures the route to the I2P router, at 127.0.0.1"]
    );
    for list in ["10.0.0.0/8, 192.168.0.0/16", "64.0.0.0/3, 128.0.0.0/3", "fc00::/7", "2001:db8::/32"] {
        assert_eq!(captured(list), [""; 0], "{list}");
    }
    let remote = parse(&file("", "AllowedIPs = 192.168.1.0/24"), &[[192, 168, 1, 5].into()]);
    assert!(matches!(remote, Err(faults) if matches!(faults[0].1, Problem::CapturesRouter(..))));
}

#[test]
fn files_are_told_apart_by_their_first_section() {
    for text in ["[Interface]", "# x\n\n [interface] # y\n", "[Peer]\n", "PrivateKey = x\n[Interface]\n"] {
        assert!(is_wg_quick(text), "{text}");
    }
    for text in ["", "[node]\nname = \"Interface\"\n", "[[peer]]\n", "[i2p]\n[Interface]\n", "x"] {
        assert!(!is_wg_quick(text), "{text}");
    }
    let crate_example = crate::Config::example();
    assert!(!is_wg_quick(&crate_example));
}

#[test]
fn a_file_that_others_can_read_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("wg0.conf");
    std::fs::write(&path, file("", "")).unwrap();
    let mode = |path: &Path, mode| std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    let told = || match InterfaceFile::new(path.clone()).load(&[router()]) {
        Ok(_) => String::new(),
        Err(error) => error.to_string().replace(&path.display().to_string(), "wg0.conf"),
    };
    mode(directory.path(), 0o755);
    for (bits, shown) in [(0o644, "644"), (0o640, "640"), (0o604, "604")] {
        mode(&path, bits);
        let expected = format!(
            "wg0.conf:2: others than the owner can read this file, and the private key in it (mode {shown})"
        );
        assert_eq!(told(), expected);
    }
    mode(&path, 0o600);
    assert_eq!(told(), "");
    // As in /etc/wireguard, where none but root gets to it.
    mode(directory.path(), 0o700);
    mode(&path, 0o644);
    assert_eq!(told(), "");
    mode(&path, 0o620);
    assert!(told().starts_with("cannot read wg0.conf: "), "{}", told());
}

#[test]
fn every_problem_has_a_remedy() {
    let (line, key) = (1, "PublicKey");
    for problem in [
        Problem::Missing(key),
        Problem::Missing("PrivateKey"),
        Problem::Missing("Address"),
        Problem::DuplicatePeer(key, line),
        Problem::Endpoint("Endpoint", EndpointError::Clearnet),
        Problem::Endpoint("Endpoint", EndpointError::Checksum),
        Problem::Endpoint("Endpoint", EndpointError::Trailing(64)),
    ] {
        assert!(!problem.remedy().is_empty());
    }
}

/// Lines of such a file, right and wrong.
fn lines() -> impl Strategy<Value = String> {
    let sections =
        prop::sample::select(vec!["[Interface]", "[Peer]", "[x]", "# x", ""]).prop_map(str::to_owned);
    let keys = vec![
        "PrivateKey",
        "Address",
        "MTU",
        "Table",
        "DNS",
        "PostUp",
        "ListenPort",
        "FwMark",
        "PublicKey",
        "PresharedKey",
        "AllowedIPs",
        "Endpoint",
        "PersistentKeepalive",
        "x",
    ];
    let prefix =
        (any::<IpAddr>(), any::<u8>()).prop_map(|(address, length)| Prefix::new(address, length).to_string());
    let value = prop_oneof![
        any::<[u8; 32]>().prop_map(|key| key_text(&key).to_string()),
        prop::collection::vec(prefix, 0..4).prop_map(|list| list.join(", ")),
        any::<u32>().prop_map(|number| number.to_string()),
        "[ -~]{0,60}",
        Just(b32()),
    ];
    prop_oneof![
        sections,
        (prop::sample::select(keys), value).prop_map(|(key, value)| format!("{key} = {value}"))
    ]
}

proptest! {
    #[test]
    fn every_file_is_read_or_has_faults_on_its_lines(
        lines in prop::collection::vec(lines(), 0..30),
        text in ".{0,200}",
    ) {
        for text in [lines.join("\n"), text] {
            if let Err(faults) = parse(&text, &[router()]) {
                prop_assert!(!faults.is_empty());
                for (line, problem) in faults {
                    prop_assert!((1..=text.lines().count().max(1)).contains(&line));
                    prop_assert!(!problem.to_string().contains(char::is_control));
                    prop_assert!(!problem.remedy().is_empty());
                }
            }
        }
    }

    #[test]
    fn overlaps_are_found_as_by_comparing_all(
        sets in prop::collection::vec(prop::collection::vec((any::<u8>(), 24_u8..=32), 0..4), 1..4),
    ) {
        let sets: Vec<Vec<Prefix>> = sets.into_iter().map(|set| {
            set.into_iter().map(|(last, length)| Prefix::new([10, 0, 0, last].into(), length).network()).collect()
        }).collect();
        let peers = sets.iter().enumerate().map(|(number, set)| {
            let list: Vec<_> = set.iter().map(ToString::to_string).collect();
            format!("[Peer]\nPublicKey = {}\nAllowedIPs = {}\n", peer_key(number as u8 + 2), list.join(","))
        });
        let text = format!("[Interface]\nPrivateKey = {PRIVATE}\nAddress = 10.9.0.1\n{}", peers.collect::<String>());
        let expected = sets.iter().enumerate().any(|(at, set)| {
            sets[at + 1..].iter().flatten().any(|other| set.iter().any(|prefix| prefix.overlaps(other)))
        });
        prop_assert_eq!(parse(&text, &[router()]).is_err(), expected);
    }
}
