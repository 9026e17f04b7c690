//! Mutual TLS of the bus: one CA per cluster, the peer's role in its certificate's common name.
//!
//! Identity is the CA and the common name, never an address: every member's certificate also names
//! `SERVER_NAME`, and that is what a client verifies, whatever DNS or IP it dialled.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::tls::name::common_name;
use crate::tls::pem::{self, invalid};

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
        pem::add_roots(&mut roots, ca, "ca.crt")?;
        if roots.is_empty() {
            return Err(invalid("ca.crt", "no certificate in it"));
        }
        let roots = Arc::new(roots);
        let (chain, key) = (pem::chain(cert, "tls.crt")?, pem::key(key, "tls.key")?);

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
}
