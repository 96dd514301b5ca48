//! Where the pages are: the address, the names that lead there, and TLS.

use std::fmt;
use std::io::{self, Read as _};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use data_encoding::HEXUPPER;
use i2plan_config::WebAddress;
use i2plan_http::is_loopback;
use i2plan_ipc::api::webd::FORWARDED_PORT;
use i2plan_ipc::daemon::trusted::{self, Untrusted, open_secret};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::{Error as PemError, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use sha2::{Digest as _, Sha256};
use thiserror::Error;
use tokio_rustls::TlsAcceptor;
use webpki::{EndEntityCert, KeyUsage};
use zeroize::Zeroizing;

/// Most bytes of a file with a key.
const MAX_KEY: u64 = 64 * 1024;

/// Most certificates in a chain. Clients break off handshakes with much longer ones, such as those of a file to which
/// every renewal adds.
const MAX_CHAIN: usize = 16;

/// Where the pages are.
#[derive(Debug)]
pub struct Site {
    address: WebAddress,
    tls: Option<Mutex<Arc<Tls>>>,
}

/// A certificate, with its key inside.
pub struct Tls {
    acceptor: TlsAcceptor,
    certificate: CertificateDer<'static>,
    self_signed: bool,
    name: Option<String>,
    expires: Option<u64>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Why there is no TLS.
#[derive(Debug, Error)]
pub enum TlsError {
    /// The certificate's file cannot be used.
    #[error("web.tls_certificate: {0}")]
    CertificateFile(Untrusted),
    /// What is in it is no certificate for a server.
    #[error(
        "web.tls_certificate: {}: {reason}; it must hold a certificate in PEM, and after it those of the authorities \
         above it",
        path.display()
    )]
    Certificate {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// The key's file cannot be used.
    #[error("web.tls_key: {0}")]
    KeyFile(Untrusted),
    /// What is in it is no key, or that of another certificate.
    #[error(
        "web.tls_key: {}: {reason}; it must hold the private key of web.tls_certificate in PEM, without a passphrase",
        path.display()
    )]
    Key {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
}

impl Tls {
    /// Reads the files of `web.tls_certificate` and `web.tls_key`.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn read(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let text = trusted::read(certificate).map_err(TlsError::CertificateFile)?;
        let no_certificate = |reason: String| TlsError::Certificate { path: certificate.to_owned(), reason };
        let chain: Result<Vec<_>, PemError> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
        // The error may hold a part of the file, which may have the key in it too.
        let chain = chain.map_err(|_| no_certificate("it is cut off, or not in PEM".to_owned()))?;
        if chain.len() > MAX_CHAIN {
            return Err(no_certificate(format!(
                "{} certificates are too many (1 to {MAX_CHAIN})",
                chain.len()
            )));
        }
        let Some(first) = chain.first().cloned() else {
            return Err(no_certificate("there is no certificate in it".to_owned()));
        };
        let no_key = |reason: String| TlsError::Key { path: key.to_owned(), reason };
        let pem = read_key(key).map_err(TlsError::KeyFile)?;
        // The error may hold a part of the file.
        let private =
            PrivateKeyDer::from_pem_slice(&pem).map_err(|_| no_key("there is no key in it".to_owned()))?;

        let known = EndEntityCert::try_from(&first).map_err(|error| no_certificate(error.to_string()))?;
        let self_signed = known.issuer() == known.subject();
        let name = known.valid_dns_names().find(|name| !name.contains('*')).map(str::to_owned);
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| no_certificate(error.to_string()))?
            .with_no_client_auth()
            .with_single_cert(chain, private);
        let mut config = config.map_err(|error| no_key(error.to_string()))?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let expires = expiry(&first);
        Ok(Self { acceptor, certificate: first, self_signed, name, expires })
    }

    /// When the certificate expires, in seconds since 1970.
    #[must_use]
    pub fn expires(&self) -> Option<u64> {
        self.expires
    }

    /// What makes a connection one over TLS.
    #[must_use]
    pub fn acceptor(&self) -> &TlsAcceptor {
        &self.acceptor
    }

    /// Whether the certificate is for this name or address.
    fn is_for(&self, name: &str) -> bool {
        let Ok(name) = ServerName::try_from(name) else { return false };
        EndEntityCert::try_from(&self.certificate)
            .is_ok_and(|known| known.verify_is_valid_for_subject_name(&name).is_ok())
    }

    /// The SHA-256 of a certificate that only itself vouches for, as `openssl x509 -fingerprint -sha256` writes it.
    #[must_use]
    pub fn fingerprint(&self) -> Option<String> {
        let pairs: Vec<_> =
            Sha256::digest(&self.certificate).iter().map(|byte| HEXUPPER.encode(&[*byte])).collect();
        self.self_signed.then(|| pairs.join(":"))
    }
}

/// When a certificate expires. The library tells that only of one that it does not accept any more.
fn expiry(certificate: &CertificateDer<'_>) -> Option<u64> {
    let end_of_time = UnixTime::since_unix_epoch(Duration::from_secs(u64::MAX));
    let known = EndEntityCert::try_from(certificate).ok()?;
    match known.verify_for_usage(&[], &[], &[], end_of_time, KeyUsage::server_auth(), None, None) {
        Err(webpki::Error::CertExpired { not_after, .. }) => Some(not_after.as_secs()),
        _ => None,
    }
}

/// A file with a key, in one piece: a growing buffer would leave copies behind.
fn read_key(path: &Path) -> Result<Zeroizing<Vec<u8>>, Untrusted> {
    let failed = |source| Untrusted::Io { path: path.to_owned(), source };
    let mut file = open_secret(path)?;
    let len = file.metadata().map_err(failed)?.len();
    if len > MAX_KEY {
        return Err(failed(io::Error::new(io::ErrorKind::FileTooLarge, "it is too long for a key")));
    }
    let mut pem = Zeroizing::new(vec![0; usize::try_from(len).unwrap_or_default()]);
    file.read_exact(&mut pem).map_err(failed)?;
    Ok(pem)
}

impl Site {
    /// At this address.
    #[must_use]
    pub fn new(address: WebAddress, tls: Option<Tls>) -> Self {
        Self { address, tls: tls.map(|tls| Mutex::new(Arc::new(tls))) }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> &WebAddress {
        &self.address
    }

    /// The certificate, if there is one.
    #[must_use]
    pub fn tls(&self) -> Option<Arc<Tls>> {
        let tls = self.tls.as_ref()?.lock();
        Some(Arc::clone(&tls.unwrap_or_else(PoisonError::into_inner)))
    }

    /// Has new connections be made with another certificate. Without any it stays so.
    pub fn renew(&self, renewed: Tls) {
        if let Some(tls) = &self.tls {
            *tls.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(renewed);
        }
    }

    /// The beginning of its URLs.
    #[must_use]
    pub fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https://" } else { "http://" }
    }

    /// Whether browsers that were here are to come by TLS alone from then on. On loopback that would also bar them from
    /// what other programs serve on other ports.
    #[must_use]
    pub fn is_strict(&self) -> bool {
        self.tls.is_some() && self.address.is_remote()
    }

    /// The URL of the first page, without the slash at its end, as the certificate has it.
    #[must_use]
    pub fn url(&self) -> String {
        let (scheme, tls) = (self.scheme(), self.tls());
        match (&self.address, tls.as_ref().and_then(|tls| tls.name.as_ref())) {
            (WebAddress::Tcp(address), Some(name))
                if tls.as_ref().is_some_and(|tls| !tls.is_for(&address.ip().to_string())) =>
            {
                format!("{scheme}{name}:{}", address.port())
            }
            (WebAddress::Tcp(address), _) => format!("{scheme}{address}"),
            // Whoever passes connections on to the socket has the usual port for them.
            (WebAddress::Unix(_), Some(name)) if !is_loopback(name) => format!("{scheme}{name}"),
            (WebAddress::Unix(_), _) => format!("{scheme}localhost:{FORWARDED_PORT}"),
        }
    }

    /// The name and the port in a `Host`.
    fn parts<'a>(&self, host: &'a str) -> Option<(&'a str, u16)> {
        match host.rsplit_once(':') {
            Some((name, port)) if !port.ends_with(']') => Some((name, port.parse().ok()?)),
            _ => Some((host, if self.tls.is_some() { 443 } else { 80 })),
        }
    }

    /// The port in a `Host`.
    #[must_use]
    pub fn port(&self, host: &str) -> Option<u16> {
        self.parts(host).map(|(_, port)| port)
    }

    /// Whether this is the origin of the pages, where a browser asks for them by this `Host`. What passes connections on
    /// to a unix socket may speak TLS with the browser.
    #[must_use]
    pub fn is_own_origin(&self, origin: &str, host: &str) -> bool {
        let by = |scheme: &str| origin.strip_prefix(scheme) == Some(host);
        by(self.scheme()) || self.address.socket().is_some() && by("https://")
    }

    /// Whether a `Host` names this listener: by its address, by a name of the certificate, or, where it listens on
    /// loopback or at a unix socket, by a name that only the browser's own machine has; at a unix socket with any port. A
    /// web page whose own name leads here says that name.
    #[must_use]
    pub fn is_here(&self, host: &str) -> bool {
        let Some((name, port)) = self.parts(host) else { return false };
        let own = match self.address {
            WebAddress::Tcp(address) if address.port() != port => return false,
            WebAddress::Tcp(address) => Some(address.ip()),
            WebAddress::Unix(_) => None,
        };
        if own.is_none_or(|own| own.is_loopback() || own.is_unspecified()) && is_loopback(name) {
            return true;
        }
        let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
        let address: Option<IpAddr> = match bare {
            Some(bare) => bare.parse().ok().filter(IpAddr::is_ipv6),
            None => name.parse().ok().filter(IpAddr::is_ipv4),
        };
        let is_own = address.is_some() && address == own;
        let named = if bare.is_some() { address.and(bare) } else { Some(name) };
        is_own || named.is_some_and(|name| self.tls().is_some_and(|tls| tls.is_for(name)))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;

    use data_encoding::BASE64;
    use tempfile::TempDir;

    use super::*;

    /// A certificate for `node.example`, `*.pages.example` and 192.0.2.7, and its key, in files.
    pub(crate) struct Files {
        dir: TempDir,
        pub(crate) certificate: CertificateDer<'static>,
    }

    impl Files {
        pub(crate) fn new() -> Self {
            Self::with(&["*.pages.example", "node.example", "192.0.2.7"])
        }

        fn with(names: &[&str]) -> Self {
            let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
            let made = rcgen::generate_simple_self_signed(names).unwrap();
            let files = Self { dir: tempfile::tempdir().unwrap(), certificate: made.cert.der().clone() };
            files.write("crt", "CERTIFICATE", made.cert.der(), 0o644);
            files.write("key", "PRIVATE KEY", &made.signing_key.serialize_der(), 0o600);
            files
        }

        fn path(&self, name: &str) -> PathBuf {
            self.dir.path().join(name)
        }

        fn write(&self, name: &str, label: &str, der: &[u8], mode: u32) {
            let text = format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", BASE64.encode(der));
            let path = self.path(name);
            let _ = std::fs::remove_file(&path);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        }

        pub(crate) fn read(&self) -> Result<Tls, TlsError> {
            Tls::read(&self.path("crt"), &self.path("key"))
        }
    }

    fn site(address: &str, tls: Option<Tls>) -> Site {
        Site::new(address.parse().unwrap(), tls)
    }

    #[test]
    fn a_host_is_an_address_or_a_name_of_the_certificate() {
        let tls = || Files::new().read().unwrap();
        for (site, here, elsewhere) in [
            (
                site("127.0.0.1:8080", None),
                &["127.0.0.1:8080", "localhost:8080", "[::1]:8080"][..],
                &["127.0.0.1", "node.example:8080", "192.0.2.7:8080", "localhost:80"][..],
            ),
            (
                site("127.0.0.1:80", None),
                &["127.0.0.1:80", "localhost", "[::1]"],
                &["localhost:443", "node.example"],
            ),
            (
                site("127.0.0.1:8443", Some(tls())),
                &["127.0.0.1:8443", "localhost:8443", "node.example:8443"],
                &["evil.example:8443", "node.example", "node.example:8443:8443"],
            ),
            (
                site("192.0.2.8:443", Some(tls())),
                &["192.0.2.8", "192.0.2.8:443", "192.0.2.7", "NODE.example", "a.pages.example"],
                &[
                    "localhost",
                    "127.0.0.1",
                    "192.0.2.9",
                    "example",
                    "a.node.example",
                    "[192.0.2.8]",
                    "[192.0.2.7]",
                    "[node.example]",
                    "x@node.example",
                ],
            ),
            (
                site("[fd00::1]:443", Some(tls())),
                &["[fd00::1]", "[fd00::1]:443", "[fd00:0::1]:443", "node.example"],
                &["fd00::1", "[fd00::2]", "[::1]", "", "[]", ":443", "[fd00::1"],
            ),
            (site("0.0.0.0:443", Some(tls())), &["localhost", "node.example"], &["0.0.0.1", "198.51.100.1"]),
            (
                site("unix:/s", None),
                &["localhost:8080", "127.0.0.1:1", "localhost", "[::1]:9"],
                &["evil.example:8080", "node.example", "192.0.2.7", "localhost:", "localhost:x", "", ":80"],
            ),
            (
                site("unix:/s", Some(tls())),
                &["localhost", "node.example", "node.example:8443", "192.0.2.7"],
                &["evil.example", "192.0.2.9", "example"],
            ),
        ] {
            for host in here {
                assert!(site.is_here(host), "{site:?}: {host}");
            }
            for host in elsewhere {
                assert!(!site.is_here(host), "{site:?}: {host}");
            }
        }
    }

    #[test]
    fn links_are_by_a_name_of_the_certificate() {
        let tls = || Some(Files::new().read().unwrap());
        for (site, url, is_strict) in [
            (site("127.0.0.1:8080", None), "http://127.0.0.1:8080", false),
            (site("127.0.0.1:8443", tls()), "https://node.example:8443", false),
            (site("0.0.0.0:443", tls()), "https://node.example:443", true),
            (site("192.0.2.7:443", tls()), "https://192.0.2.7:443", true),
            (site("unix:/s", None), "http://localhost:8080", false),
            (site("unix:/s", tls()), "https://node.example", false),
            // As `ssh -L` forwards it.
            (site("unix:/s", Files::with(&["localhost"]).read().ok()), "https://localhost:8080", false),
        ] {
            assert_eq!((site.url().as_str(), site.is_strict()), (url, is_strict));
        }
        let fingerprint = tls().unwrap().fingerprint().unwrap();
        assert_eq!((fingerprint.len(), fingerprint.matches(':').count()), (95, 31), "{fingerprint}");
    }

    #[test]
    fn the_end_of_a_certificate_is_known() {
        let mut params = rcgen::CertificateParams::new(["node.example".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        // One of `openssl req -x509` is of an authority, too.
        for ca in [rcgen::IsCa::NoCa, rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained)] {
            params.is_ca = ca;
            for (year, expected) in [(2021, 1_609_459_200), (2100, 4_102_444_800)] {
                params.not_after = rcgen::date_time_ymd(year, 1, 1);
                let key = rcgen::KeyPair::generate().unwrap();
                let certificate = params.self_signed(&key).unwrap();
                assert_eq!(expiry(certificate.der()), Some(expected));
            }
        }
        assert_eq!(expiry(&CertificateDer::from(vec![1, 2, 3])), None);
    }

    #[test]
    fn files_that_are_wrong_are_named() {
        let files = Files::new();
        let key = std::fs::read_to_string(files.path("key")).unwrap();
        let secret = key.lines().nth(1).unwrap();
        let refused = |expected: &str| {
            let error = files.read().err().unwrap().to_string();
            assert!(error.starts_with(expected), "{error}");
            assert!(!error.contains(&secret[..20]), "{error}");
        };
        assert!(!format!("{:?}", files.read().unwrap()).contains(&secret[20..40]));
        std::fs::set_permissions(files.path("key"), Permissions::from_mode(0o640)).unwrap();
        refused("web.tls_key: ");
        std::fs::remove_file(files.path("key")).unwrap();
        refused("web.tls_key: ");
        files.write("key", "PRIVATE KEY", b"none", 0o600);
        refused("web.tls_key: ");
        files.write("key", "ENCRYPTED PRIVATE KEY", b"none", 0o600);
        refused("web.tls_key: ");
        // That of another certificate.
        let other = std::fs::read(Files::new().path("key")).unwrap();
        std::fs::write(files.path("key"), &other).unwrap();
        refused("web.tls_key: ");
        std::fs::write(files.path("key"), vec![b'x'; 100_000]).unwrap();
        refused("web.tls_key: ");
        std::fs::write(files.path("key"), key.as_bytes()).unwrap();
        assert!(files.read().is_ok());
        let certificate = std::fs::read_to_string(files.path("crt")).unwrap();
        let write = |text: &str| std::fs::write(files.path("crt"), text).unwrap();
        write(&certificate.repeat(MAX_CHAIN));
        assert!(files.read().is_ok());
        let path = files.path("crt").display().to_string();
        write(&certificate.repeat(MAX_CHAIN + 1));
        refused(&format!("web.tls_certificate: {path}: 17 certificates are too many (1 to 16); "));
        write(&certificate[..certificate.len() / 2]);
        refused(&format!("web.tls_certificate: {path}: it is cut off, or not in PEM; "));
        for (label, der) in [("CERTIFICATE", &b"none"[..]), ("PRIVATE KEY", b"none")] {
            files.write("crt", label, der, 0o644);
            refused("web.tls_certificate: ");
        }
        std::fs::remove_file(files.path("crt")).unwrap();
        refused("web.tls_certificate: ");
    }
}
