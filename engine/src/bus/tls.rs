//! Mutual TLS of the bus: one CA per cluster, the peer's role in its certificate's common name.
//!
//! Identity is the CA and the common name, never an address: every member's certificate also names
//! `SERVER_NAME`, and that is what a client verifies, whatever DNS or IP it dialled.

use std::fmt::Display;
use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// The subject alternative name that each member's certificate carries.
pub const SERVER_NAME: &str = "member.larder.internal";

/// Who is at the other end, by the common name of its certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    Member,
    Operator,
}

/// Both ends of the bus's TLS, made from one CA, one certificate and its key.
#[derive(Clone)]
pub struct Tls {
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
}

fn invalid(what: &str, cause: impl Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("{what}: {cause}"))
}

impl Tls {
    /// Reads `ca.crt`, `tls.crt` and `tls.key` from a directory.
    ///
    /// # Errors
    /// When a file cannot be read, or they do not fit together.
    pub fn from_dir(dir: &Path) -> io::Result<Self> {
        let read = |name: &str| {
            let path = dir.join(name);
            std::fs::read(&path).map_err(|e| {
                io::Error::new(e.kind(), format!("cannot read {}: {e}", path.display()))
            })
        };
        Self::from_pem(&read("ca.crt")?, &read("tls.crt")?, &read("tls.key")?)
    }

    /// From PEM text, as a Secret holds it.
    ///
    /// # Errors
    /// When the text is no PEM, or the three do not fit together.
    pub fn from_pem(ca: &[u8], cert: &[u8], key: &[u8]) -> io::Result<Self> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let versions = &[&rustls::version::TLS13];
        let mut roots = RootCertStore::empty();
        for der in CertificateDer::pem_slice_iter(ca) {
            let der = der.map_err(|e| invalid("ca.crt", e))?;
            roots.add(der).map_err(|e| invalid("ca.crt", e))?;
        }
        if roots.is_empty() {
            return Err(invalid("ca.crt", "no certificate in it"));
        }
        let roots = Arc::new(roots);
        let chain = CertificateDer::pem_slice_iter(cert)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|e| invalid("tls.crt", e))?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|e| invalid("tls.key", e))?;

        let client = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(versions)
            .map_err(|e| invalid("tls", e))?
            .with_root_certificates(roots.clone())
            .with_client_auth_cert(chain.clone(), key.clone_key())
            .map_err(|e| invalid("tls.crt, tls.key", e))?;
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider.clone())
            .build()
            .map_err(|e| invalid("ca.crt", e))?;
        let server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .map_err(|e| invalid("tls", e))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .map_err(|e| invalid("tls.crt, tls.key", e))?;
        Ok(Self { client: Arc::new(client), server: Arc::new(server) })
    }

    pub fn connector(&self) -> TlsConnector {
        TlsConnector::from(self.client.clone())
    }

    pub fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.server.clone())
    }

    /// The name that a client verifies, whatever address it dialled.
    ///
    /// # Errors
    /// Never in practice: the name is a constant.
    pub fn server_name() -> io::Result<ServerName<'static>> {
        ServerName::try_from(SERVER_NAME).map_err(|e| invalid("server name", e))
    }
}

/// The role of a peer whose chain TLS has verified already: its certificate's common name.
pub fn peer_of(chain: Option<&[CertificateDer<'_>]>) -> Option<Peer> {
    match common_name(chain?.first()?)? {
        b"member" => Some(Peer::Member),
        b"operator" => Some(Peer::Operator),
        _ => None,
    }
}

/// The subject's common name of a DER certificate.
///
/// `Certificate { tbs { [0] version?, serial, algorithm, issuer, validity, subject, .. }, .. }`, and
/// the subject is a sequence of sets of (OID, string).
fn common_name(certificate: &[u8]) -> Option<&[u8]> {
    const SEQUENCE: u8 = 0x30;
    const SET: u8 = 0x31;
    const COMMON_NAME: &[u8] = &[0x06, 0x03, 0x55, 0x04, 0x03];
    let (_, outer, _) = der(certificate)?;
    let (_, mut tbs, _) = der(outer)?;
    if tbs.first() == Some(&0xa0) {
        tbs = der(tbs)?.2;
    }
    for _ in 0..4 {
        tbs = der(tbs)?.2;
    }
    let (_, mut subject, _) = der(tbs)?;
    while let Some((tag, mut set, rest)) = der(subject) {
        subject = rest;
        while let Some((inner, pair, more)) = der(set) {
            set = more;
            if tag == SET
                && inner == SEQUENCE
                && let Some(value) = pair.strip_prefix(COMMON_NAME)
            {
                return der(value).map(|(_, text, _)| text);
            }
        }
    }
    None
}

/// One DER element: its tag, its content and what follows it.
fn der(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&short, mut rest) = rest.split_first()?;
    let mut len = usize::from(short);
    if short & 0x80 != 0 {
        let count = usize::from(short & 0x7f);
        if count == 0 || count > 4 {
            return None;
        }
        let (digits, after) = rest.split_at_checked(count)?;
        len = digits.iter().fold(0usize, |n, b| n << 8 | usize::from(*b));
        rest = after;
    }
    let (content, after) = rest.split_at_checked(len)?;
    Some((tag, content, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_role_is_the_common_name() {
        for (name, peer) in
            [("member", Some(Peer::Member)), ("operator", Some(Peer::Operator)), ("x", None)]
        {
            let mut params = rcgen::CertificateParams::new(vec![SERVER_NAME.into()]).unwrap();
            params.distinguished_name = rcgen::DistinguishedName::new();
            params.distinguished_name.push(rcgen::DnType::OrganizationName, "member");
            params.distinguished_name.push(rcgen::DnType::CommonName, name);
            let key = rcgen::KeyPair::generate().unwrap();
            let cert = params.self_signed(&key).unwrap();
            assert_eq!(peer_of(Some(&[cert.der().clone()])), peer, "{name}");
        }
        assert_eq!(peer_of(None), None);
    }

    #[test]
    fn a_mangled_certificate_has_no_name_and_does_no_harm() {
        let key = rcgen::KeyPair::generate().unwrap();
        let cert = rcgen::CertificateParams::new(vec![]).unwrap().self_signed(&key).unwrap();
        for cut in 0..cert.der().len() {
            let _ = common_name(&cert.der()[..cut]);
        }
    }
}
