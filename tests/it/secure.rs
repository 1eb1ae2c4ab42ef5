//! What the TLS tests share: a CA of an org's own, the files of a listener, clients and upstreams over TLS.
#![allow(clippy::disallowed_methods, reason = "waits for what another process does")]

use crate::support::*;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned,
    SupportedProtocolVersion,
    client::Resumption,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use std::{
    fs,
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

pub type Secured = StreamOwned<ClientConnection, TcpStream>;
pub type UpstreamStream = StreamOwned<ServerConnection, TcpStream>;

pub const BOTH: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13, &rustls::version::TLS12];
pub const NAMES: [&str; 2] = ["localhost", "127.0.0.1"];

/// A certificate authority of an org's own.
pub struct Ca {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    pub fn new(name: &str) -> Ca {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Ca { pem, issuer: Issuer::new(params, key) }
    }

    /// A certificate for this machine, and its key.
    pub fn issue(&self, subject: &str) -> (String, String) {
        let mut params = CertificateParams::new(NAMES.map(str::to_owned)).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, subject);
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    /// A client that trusts this CA and nothing else, and keeps tickets.
    pub fn client(&self, versions: &[&'static SupportedProtocolVersion], protocols: &[&[u8]]) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.pem.as_bytes()).unwrap()).unwrap();
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        config.resumption = Resumption::in_memory_sessions(64);
        Arc::new(config)
    }
}

pub fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// A folder with the files of `[listen] tls`.
pub struct Files {
    pub folder: tempfile::TempDir,
    pub ca: Ca,
}

impl Files {
    pub fn new() -> Files {
        let files = Files { folder: tempfile::tempdir().unwrap(), ca: Ca::new("The Org's CA") };
        files.issue("first");
        fs::write(files.at("ca.pem"), &files.ca.pem).unwrap();
        files
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn issue(&self, subject: &str) {
        let (chain, key) = self.ca.issue(subject);
        self.put("tls.crt", &chain);
        self.put("tls.key", &key);
    }

    /// As careful writers do: the new file takes the old one's name.
    pub fn put(&self, name: &str, text: &str) {
        fs::write(self.at("new"), text).unwrap();
        fs::rename(self.at("new"), self.at(name)).unwrap();
    }

    /// A config whose listener speaks TLS.
    pub fn config(&self, upstream: SocketAddr, more: &str) -> String {
        let tls = format!(
            "tls = {{ cert = \"{}\", key = \"{}\" }}\n",
            self.at("tls.crt").display(),
            self.at("tls.key").display()
        );
        let plain = "[listen]\naddress = \"127.0.0.1:0\"\n";
        config(&format!("http://{upstream}"), more).replace(plain, &format!("{plain}{tls}"))
    }
}

pub fn connect(address: SocketAddr, config: &Arc<ClientConfig>) -> Client<Secured> {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(STUCK)).unwrap();
    stream.set_nodelay(true).unwrap();
    let session = ClientConnection::new(Arc::clone(config), ServerName::try_from("localhost").unwrap()).unwrap();
    Client(StreamOwned::new(session, stream))
}

/// The subject of the certificate that the client was shown.
pub fn shown(client: &Client<Secured>) -> String {
    let leaf = &client.0.conn.peer_certificates().unwrap()[0];
    forebay::net::Certificate::read(leaf).unwrap().subject.into()
}

pub fn metric(forebay: &Forebay, series: &str) -> f64 {
    let page = forebay.admin("/metrics").text();
    let line = page.lines().find(|line| line.starts_with(series)).unwrap_or_else(|| panic!("{series} in\n{page}"));
    line.rsplit_once(' ').unwrap().1.parse().unwrap()
}

/// The same for what is a whole number.
pub fn count(forebay: &Forebay, series: &str) -> u64 {
    metric(forebay, series) as u64
}

pub fn handshakes(forebay: &Forebay, outcome: &str) -> u64 {
    count(forebay, &format!("forebay_tls_handshakes_total{{outcome=\"{outcome}\"}}"))
}

/// Asks again and again until it holds: for what another thread does once a second.
pub fn soon<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + STUCK;
    loop {
        if let Some(found) = ask() {
            return found;
        }
        assert!(Instant::now() < until, "{what} did not come about");
        thread::sleep(Duration::from_millis(50));
    }
}

/// An upstream over TLS, with a certificate of `ca`.
pub fn secure_upstream(
    ca: &Ca,
    script: impl Fn(&Got, &mut UpstreamStream) -> bool + Send + Sync + 'static,
) -> Upstream {
    let (chain, key) = ca.issue("upstream");
    let chain = CertificateDer::pem_slice_iter(chain.as_bytes()).map(Result::unwrap).collect();
    let config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap())
        .unwrap();
    let config = Arc::new(config);
    let wrap = move |stream| StreamOwned::new(ServerConnection::new(Arc::clone(&config)).unwrap(), stream);
    Upstream::start(wrap, script)
}

pub fn config_with_ca(upstream: &Upstream, ca: &Path) -> String {
    let line = format!("provider = \"anthropic\"\nca_file = \"{}\"\n", ca.display());
    config(&format!("https://{}", upstream.address), "").replace("provider = \"anthropic\"\n", &line)
}
