//! What a listener shows its clients: a chain of certificates and the key that belongs to it, read from PEM and
//! checked. Pure; the files are read by `config` at the start and by `control` when they change. The key is in the
//! signer that rustls keeps, and nowhere else: there is no way to print it.

use super::x509::{Certificate, day};
use crate::base::Wall;
use rustls::{
    crypto::aws_lc_rs::sign::any_supported_type,
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject},
    sign::{CertifiedKey, SigningKey},
};
use std::{fmt, sync::Arc};

/// A certificate's or a key's file is no larger than this, in bytes.
pub const FILE_BYTES_MAX: u64 = 256 << 10;
/// Certificates of one chain.
const CHAIN_MAX: usize = 16;

/// A chain and its key.
#[derive(Clone)]
pub struct Identity {
    /// For rustls.
    pub certified: Arc<CertifiedKey>,
    /// The first certificate of the chain, for people.
    pub certificate: Arc<Certificate>,
}

/// Which of the two files a fault is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The chain of certificates.
    Certificate,
    /// The key.
    Key,
}

/// What is wrong with one of them. Never holds a piece of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where.
    pub part: Part,
    /// A clause that goes on after the file's name.
    pub cause: String,
    /// What to do, as a clause.
    pub hint: &'static str,
}

impl Identity {
    /// Reads the two files' contents; `now` must be within the certificate's days.
    ///
    /// # Errors
    /// All that is wrong, at least one.
    pub fn read(chain_pem: &[u8], key_pem: &[u8], now: Wall) -> Result<Identity, Vec<Fault>> {
        let (chain, key) = (Chain::read(chain_pem, now), read_key(key_pem));
        let (chain, key) = match (chain, key) {
            (Ok(chain), Ok(key)) => (chain, key),
            (chain, key) => return Err(chain.err().into_iter().chain(key.err()).collect()),
        };
        let Chain { certificates, first } = chain;
        let certified = CertifiedKey::new(certificates, key);
        match certified.keys_match() {
            Ok(()) => Ok(Identity { certified: Arc::new(certified), certificate: Arc::new(first) }),
            Err(_) => Err(vec![mismatch(certified)]),
        }
    }
}

/// A key that belongs to another certificate: of the same chain, or to none that is here.
fn mismatch(certified: CertifiedKey) -> Fault {
    let CertifiedKey { cert, key, .. } = certified;
    let fits = |one: CertificateDer<'static>| CertifiedKey::new(vec![one], Arc::clone(&key)).keys_match().is_ok();
    if cert.into_iter().skip(1).any(fits) {
        let cause = "begins with another certificate than the key's own".to_owned();
        return Fault { part: Part::Certificate, cause, hint: "put the server's certificate first, then the CA's" };
    }
    let cause = "does not belong to the certificate in `cert`".to_owned();
    Fault { part: Part::Key, cause, hint: "give `cert` and `key` of one pair; after a rotation both change" }
}

struct Chain {
    certificates: Vec<CertificateDer<'static>>,
    first: Certificate,
}

impl Chain {
    fn read(pem: &[u8], now: Wall) -> Result<Chain, Fault> {
        let fault = |cause: String, hint| Fault { part: Part::Certificate, cause, hint };
        let pem_hint = "write the server's certificate in PEM, then those of its CA's chain";
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).take(CHAIN_MAX).collect();
        let Ok(certificates) = certificates else {
            return Err(fault("holds a broken PEM certificate".into(), pem_hint));
        };
        let Some(leaf) = certificates.first() else {
            return Err(fault("holds no PEM certificate".into(), pem_hint));
        };
        let Some(first) = Certificate::read(leaf) else {
            return Err(fault("holds a certificate that cannot be read".into(), pem_hint));
        };
        if first.ends < now {
            let cause = format!("holds a certificate that ended on {}", day(first.ends));
            return Err(fault(cause, "have it renewed; clients refuse it"));
        }
        if first.begins > now {
            let cause = format!("holds a certificate that is good from {} on only", day(first.begins));
            return Err(fault(cause, "use one that is good today, or set this machine's clock"));
        }
        Ok(Chain { certificates, first })
    }
}

fn read_key(pem: &[u8]) -> Result<Arc<dyn SigningKey>, Fault> {
    let fault = |cause: &str, hint| Fault { part: Part::Key, cause: cause.into(), hint };
    let text = String::from_utf8_lossy(pem);
    if text.contains("BEGIN ENCRYPTED PRIVATE KEY") || text.contains("Proc-Type: 4,ENCRYPTED") {
        return Err(fault("holds a key under a passphrase", "write it without: `openssl pkey -in KEY -out KEY.plain`"));
    }
    let key = PrivateKeyDer::from_pem_slice(pem).map_err(|error| match error {
        pem::Error::NoItemsFound if text.contains("BEGIN CERTIFICATE") => {
            fault("holds a certificate and no key", "name the file with the private key")
        }
        pem::Error::NoItemsFound => fault("holds no PEM private key", "write the key in PEM"),
        _ => fault("holds a broken PEM private key", "write the key in PEM"),
    })?;
    any_supported_type(&key).map_err(|_| {
        fault("holds a key that cannot be used", "use ECDSA P-256 or P-384, Ed25519, or RSA of 2048 to 8192 bits")
    })
}

impl PartialEq for Identity {
    /// The same certificate has the same key.
    fn eq(&self, other: &Identity) -> bool {
        self.certified.cert == other.certified.cert
    }
}

impl Eq for Identity {}

impl fmt::Debug for Identity {
    /// The certificate alone.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Identity").field(&self.certificate).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    const NOW: Wall = Wall(1_767_225_600_000); // 2026-01-01

    fn pair(from: i32, until: i32) -> (String, String) {
        let mut params = CertificateParams::new(["gw.example".to_owned()]).unwrap();
        (params.not_before, params.not_after) = (date_time_ymd(from, 1, 1), date_time_ymd(until, 1, 1));
        let key = KeyPair::generate().unwrap();
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    fn faults(chain: &str, key: &str) -> Vec<(Part, String)> {
        let faults = Identity::read(chain.as_bytes(), key.as_bytes(), NOW).err().unwrap_or_default();
        faults.into_iter().map(|fault| (fault.part, fault.cause)).collect()
    }

    #[test]
    fn a_pair_is_taken_and_shows_no_key() {
        let (chain, key) = pair(2025, 2027);
        let identity = Identity::read(chain.as_bytes(), key.as_bytes(), NOW).unwrap();
        let shown = format!("{identity:?}");
        assert!(shown.contains("gw.example") && !shown.contains("key"), "{shown}");
        assert_eq!(faults(&format!("{chain}{}", pair(2025, 2027).0), &key), []);
        assert_eq!(faults(&format!("{key}{chain}"), &format!("{chain}{key}")), [], "both in one file");
    }

    #[test]
    fn every_fault_is_told_with_its_file() {
        let ((chain, key), (other, other_key)) = (pair(2025, 2027), pair(2025, 2027));
        let certificate = |cause: &str| vec![(Part::Certificate, cause.to_owned())];
        let of_key = |cause: &str| vec![(Part::Key, cause.to_owned())];
        assert_eq!(faults(&chain, &other_key), of_key("does not belong to the certificate in `cert`"));
        let turned = format!("{other}{chain}");
        assert_eq!(faults(&turned, &key), certificate("begins with another certificate than the key's own"));
        assert_eq!(faults("x", &key), certificate("holds no PEM certificate"));
        assert_eq!(faults(&chain.replace("MII", "!!!"), &key), certificate("holds a broken PEM certificate"));
        let nonsense = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert_eq!(faults(nonsense, &key), certificate("holds a certificate that cannot be read"));
        assert_eq!(faults(&chain, &chain), of_key("holds a certificate and no key"));
        assert_eq!(faults(&chain, ""), of_key("holds no PEM private key"));
        let locked = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
        assert_eq!(faults(&chain, locked), of_key("holds a key under a passphrase"));
        let (old, old_key) = pair(2020, 2025);
        assert_eq!(faults(&old, &old_key), certificate("holds a certificate that ended on 2025-01-01"));
        let (young, young_key) = pair(2030, 2031);
        assert_eq!(faults(&young, &young_key), certificate("holds a certificate that is good from 2030-01-01 on only"));
        assert_eq!(faults("", "").len(), 2, "both at once");
    }
}
