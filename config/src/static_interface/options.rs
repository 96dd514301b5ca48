//! An interface with one peer, as the options of a command say: a quick try without any file but those of keys.

use std::net::IpAddr;
use std::path::Path;

use super::wg_quick::list;
use super::{Draft, Fault, InterfaceSection, Names, PeerSection, StaticConfig, read_key};

const NAMES: Names = Names {
    interface: "--address",
    peer: "--peer-public-key",
    private_key: "--private-key-file",
    addresses: "--address",
    public_key: "--peer-public-key",
    allowed_ips: "--peer-allowed-ips",
};

/// The command line has no lines.
const LINE: usize = 0;

/// What the options say, as it stands there.
#[derive(Debug, Clone, Copy)]
pub struct Options<'a> {
    /// `--private-key-file`.
    pub private_key_file: &'a Path,
    /// `--address`: prefixes with commas between them.
    pub addresses: &'a [String],
    /// `--peer-public-key`.
    pub public_key: &'a str,
    /// `--peer-preshared-key-file`.
    pub preshared_key_file: Option<&'a Path>,
    /// `--peer-allowed-ips`: prefixes with commas between them.
    pub allowed_ips: &'a [String],
    /// `--peer-endpoint`.
    pub endpoint: Option<&'a str>,
    /// `--peer-keepalive`.
    pub keepalive: Option<&'a str>,
}

impl Options<'_> {
    /// Reads them, and the files of keys. The SAM bridge of the I2P router is at these addresses.
    ///
    /// # Errors
    /// All that is wrong.
    pub fn read(&self, routers: &[IpAddr]) -> Result<StaticConfig, Vec<Fault>> {
        let mut draft = Draft::new(&NAMES);
        let has_address = self.addresses.iter().any(|text| list(text).next().is_some());
        let mut interface = InterfaceSection { has_address, ..InterfaceSection::default() };
        let mut peer = PeerSection::default();
        // From wherever this runs: the daemons run elsewhere, and do not read it.
        let absolute = |path: &Path| {
            std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).to_string_lossy().into_owned()
        };
        let private = absolute(self.private_key_file);
        let result = interface.set_private_key_file(NAMES.private_key, LINE, &private, &read_key);
        draft.note(LINE, result);
        for text in self.addresses.iter().flat_map(|text| list(text)) {
            draft.note(LINE, interface.add_address(NAMES.addresses, text));
        }
        draft.note(LINE, peer.set_public_key(NAMES.public_key, LINE, self.public_key));
        if let Some(path) = self.preshared_key_file {
            let name = "--peer-preshared-key-file";
            draft.note(LINE, peer.set_preshared_key_file(name, LINE, &absolute(path), &read_key));
        }
        for text in self.allowed_ips.iter().flat_map(|text| list(text)) {
            draft.note(LINE, peer.add_allowed_ip(NAMES.allowed_ips, LINE, text));
        }
        if let Some(endpoint) = self.endpoint {
            draft.note(LINE, peer.set_endpoint("--peer-endpoint", LINE, endpoint));
        }
        if let Some(seconds) = self.keepalive {
            draft.note(LINE, peer.set_keepalive("--peer-keepalive", LINE, seconds));
        }
        draft.interface = Some(interface);
        draft.peers.push(peer);
        let without_lines = |faults: Vec<(usize, _)>| {
            faults.into_iter().map(|(_, problem)| Fault { place: None, problem }).collect()
        };
        draft.finish(LINE, routers).map_err(without_lines)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;

    use super::super::{clamp, key_text, public_key};
    use super::*;
    use i2plan_ipc::secret::SecretKey;

    #[test]
    fn options_mean_an_interface_or_all_their_faults_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let mut private = SecretKey([1; 32]);
        clamp(&mut private);
        std::fs::write(&path, key_text(&private.0).as_str()).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        let peer = key_text(&public_key(&SecretKey([2; 32])));
        let (addresses, allowed) =
            (["10.9.0.1/24,fd09::1/64".to_owned()], ["10.9.0.2/32".to_owned(), "fd09::2/128".to_owned()]);
        let options = Options {
            private_key_file: &path,
            addresses: &addresses,
            public_key: &peer,
            preshared_key_file: Some(&path),
            allowed_ips: &allowed,
            endpoint: None,
            keepalive: Some("0"),
        };
        let content = options.read(&[]).unwrap();
        assert_eq!(content.interface.private_key, private);
        assert_eq!((content.interface.addresses.len(), content.peers[0].allowed_ips.len()), (2, 2));
        assert_eq!(
            (content.peers[0].keepalive, &content.peers[0].preshared_key),
            (Some(0), &Some(private.clone()))
        );

        let told = |options: Options<'_>| {
            let faults = options.read(&[IpAddr::from([10, 1, 2, 3])]).unwrap_err();
            faults.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let own = key_text(&public_key(&private));
        assert_eq!(
            told(Options { public_key: &own, ..options }),
            ["--peer-public-key: it is this interface's own"]
        );
        let wrong = ["10.1.0.0/16".to_owned()];
        let (none, much) = ([String::new()], "1h");
        assert_eq!(
            told(Options {
                addresses: &none,
                endpoint: Some("203.0.113.7:51820"),
                allowed_ips: &wrong,
                keepalive: Some(much),
                ..options
            }),
            [
                "--peer-endpoint: a clearnet endpoint: i2plan does not carry WireGuard over UDP",
                "--peer-keepalive: \"1h\" is no number of seconds up to 65535, or off",
                "--address is missing in this section",
                "--peer-allowed-ips: 10.1.0.0/16 captures the route to the I2P router, at 10.1.2.3",
            ]
        );
        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        let told = told(Options { preshared_key_file: None, ..options });
        assert!(
            told[0].starts_with("--private-key-file: ") && told[0].contains("can be read by others"),
            "{told:?}"
        );
    }
}
