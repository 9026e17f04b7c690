//! The tls-* settings as what rustls needs: the accepting side's configuration, and the dialling side's.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, ServerConfig,
    SignatureScheme,
};

use super::pem::{self, invalid};
use super::sessions::Sessions;
use super::suites;

/// Files of CAs in tls-ca-cert-dir at most, and the largest file of certificates or keys, bytes.
const CA_FILES_MAX: usize = 4096;
const FILE_BYTES_MAX: u64 = 4 << 20;

/// Whether clients show a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ClientsAuth {
    No,
    Optional,
    Yes,
}

/// The settings, as text says them.
#[derive(Clone, Debug)]
pub struct Settings {
    cert: String,
    key: String,
    client_cert: String,
    client_key: String,
    ca_file: String,
    ca_dir: String,
    clients: ClientsAuth,
    protocols: String,
    ciphers: String,
    ciphersuites: String,
    prefers_own_order: bool,
    caches_sessions: bool,
    sessions_max: usize,
    sessions_live_s: u64,
}

/// What a file was like when it was read: another time, size or file behind the same name is another content.
pub type Stamp = (PathBuf, Option<(u64, u64, i64, i64)>);

pub fn stamp(path: &Path) -> Stamp {
    let meta = std::fs::metadata(path).ok();
    (path.into(), meta.map(|m| (m.ino(), m.size(), m.mtime(), m.mtime_nsec())))
}

/// What new connections of clients are accepted with.
pub struct Accepting {
    pub config: Arc<ServerConfig>,
    /// The files, as they were just before they were read.
    pub files: Vec<Stamp>,
    /// Our own certificate, the one for dialling where that is another, and the first CA's.
    pub shown: [Option<CertificateDer<'static>>; 3],
}

fn read(path: &str) -> io::Result<Vec<u8>> {
    let wrap = |e: io::Error| io::Error::new(e.kind(), format!("cannot read {path}: {e}"));
    if std::fs::metadata(path).map_err(wrap)?.len() > FILE_BYTES_MAX {
        return Err(invalid(path, "too large for certificates or a key"));
    }
    std::fs::read(path).map_err(wrap)
}

impl Settings {
    /// `get`: the value of a directive, as CONFIG GET shows it.
    pub fn of(get: impl Fn(&str) -> String) -> Settings {
        let number = |name: &str| get(name).parse::<u64>().unwrap_or(0);
        let clients = match get("tls-auth-clients").as_str() {
            "no" => ClientsAuth::No,
            "optional" => ClientsAuth::Optional,
            _ => ClientsAuth::Yes,
        };
        Settings {
            cert: get("tls-cert-file"),
            key: get("tls-key-file"),
            client_cert: get("tls-client-cert-file"),
            client_key: get("tls-client-key-file"),
            ca_file: get("tls-ca-cert-file"),
            ca_dir: get("tls-ca-cert-dir"),
            clients,
            protocols: get("tls-protocols"),
            ciphers: get("tls-ciphers"),
            ciphersuites: get("tls-ciphersuites"),
            prefers_own_order: get("tls-prefer-server-ciphers") == "yes",
            caches_sessions: get("tls-session-caching") == "yes",
            sessions_max: usize::try_from(number("tls-session-cache-size")).unwrap_or(usize::MAX),
            sessions_live_s: number("tls-session-cache-timeout"),
        }
    }

    /// The same for a port where everybody shows a certificate.
    #[must_use]
    pub fn mutual(self) -> Settings {
        Settings { clients: ClientsAuth::Yes, ..self }
    }

    fn provider(&self) -> io::Result<Arc<CryptoProvider>> {
        let mut provider = rustls::crypto::aws_lc_rs::default_provider();
        provider.cipher_suites = suites::suites(&self.ciphersuites, &self.ciphers)
            .map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))?;
        Ok(Arc::new(provider))
    }

    fn versions(&self) -> io::Result<Vec<&'static rustls::SupportedProtocolVersion>> {
        suites::versions(&self.protocols).map_err(|e| invalid("tls-protocols", e))
    }

    /// The files that are read, in no order that matters.
    fn files(&self) -> Vec<PathBuf> {
        let single = [&self.cert, &self.key, &self.client_cert, &self.client_key, &self.ca_file];
        let mut files: Vec<PathBuf> =
            single.into_iter().filter(|f| !f.is_empty()).map(PathBuf::from).collect();
        files.extend(self.ca_dir_files().unwrap_or_default());
        if !self.ca_dir.is_empty() {
            files.push(PathBuf::from(&self.ca_dir));
        }
        files
    }

    pub fn stamps(&self) -> Vec<Stamp> {
        self.files().iter().map(|f| stamp(f)).collect()
    }

    fn ca_dir_files(&self) -> io::Result<Vec<PathBuf>> {
        if self.ca_dir.is_empty() {
            return Ok(Vec::new());
        }
        let wrap =
            |e: io::Error| io::Error::new(e.kind(), format!("cannot read {}: {e}", self.ca_dir));
        let mut files = Vec::new();
        for entry in std::fs::read_dir(&self.ca_dir).map_err(wrap)? {
            let path = entry.map_err(wrap)?.path();
            // Links to files are how OpenSSL's c_rehash names them by their hashes.
            if path.is_file() {
                files.push(path);
            }
            if files.len() > CA_FILES_MAX {
                return Err(invalid(&self.ca_dir, "too many files for a folder of CAs"));
            }
        }
        files.sort();
        Ok(files)
    }

    /// Those who may vouch for the other side; none: nobody is named.
    fn roots(&self) -> io::Result<(RootCertStore, Option<CertificateDer<'static>>)> {
        let (mut roots, mut first) = (RootCertStore::empty(), None);
        if !self.ca_file.is_empty() {
            let text = read(&self.ca_file)?;
            pem::add_roots(&mut roots, &text, &self.ca_file)?;
            if roots.is_empty() {
                return Err(invalid(&self.ca_file, "no certificate in it"));
            }
            first = pem::chain(&text, &self.ca_file)?.into_iter().next();
        }
        for path in self.ca_dir_files()? {
            let name = path.to_string_lossy();
            pem::add_roots(&mut roots, &read(&name)?, &name)?;
        }
        if roots.is_empty() && !self.ca_dir.is_empty() {
            return Err(invalid(&self.ca_dir, "no certificate in it"));
        }
        Ok((roots, first))
    }

    fn pair(
        cert: &str,
        key: &str,
    ) -> io::Result<(Vec<CertificateDer<'static>>, rustls::pki_types::PrivateKeyDer<'static>)> {
        Ok((pem::chain(&read(cert)?, cert)?, pem::key(&read(key)?, key)?))
    }

    /// What clients are accepted with.
    ///
    /// # Errors
    /// A file that cannot be read or does not fit, or a setting that is not supported.
    pub fn accepting(&self) -> io::Result<Accepting> {
        // Before they are read: what changes meanwhile is read again.
        let files = self.stamps();
        if self.cert.is_empty() {
            return Err(io::Error::other("No tls-cert-file configured!"));
        }
        if self.key.is_empty() {
            return Err(io::Error::other("No tls-key-file configured!"));
        }
        let (chain, key) = Self::pair(&self.cert, &self.key)?;
        let (roots, ca) = self.roots()?;
        let provider = self.provider()?;
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&self.versions()?)
            .map_err(|e| invalid("tls-protocols and ciphers", e))?;
        let builder = if self.clients == ClientsAuth::No {
            builder.with_no_client_auth()
        } else {
            if roots.is_empty() {
                return Err(io::Error::other(NO_CA));
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            let verifier = match self.clients {
                ClientsAuth::Optional => verifier.allow_unauthenticated(),
                _ => verifier,
            };
            builder.with_client_cert_verifier(verifier.build().map_err(|e| invalid("the CAs", e))?)
        };
        let own = chain.first().cloned();
        let mut config =
            builder.with_single_cert(chain, key).map_err(|e| invalid(&self.cert, e))?;
        config.ignore_client_order = self.prefers_own_order;
        if self.caches_sessions {
            config.session_storage =
                Arc::new(Sessions::new(self.sessions_max, self.sessions_live_s));
            // One client resumes one session at a time: a second ticket is seldom used.
            config.send_tls13_tickets = 1;
        } else {
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        }
        let dialling = match self.client_cert.as_str() {
            "" => None,
            path => pem::chain(&read(path)?, path)?.into_iter().next(),
        };
        Ok(Accepting { config: Arc::new(config), files, shown: [own, dialling, ca] })
    }

    /// What other servers are dialled with: their certificate must come from our CAs; its name may be any, as it may
    /// in Redis, since members are known by addresses that change.
    ///
    /// # Errors
    /// As for `accepting`.
    pub fn dialling(&self) -> io::Result<Arc<ClientConfig>> {
        let (roots, _) = self.roots()?;
        if roots.is_empty() {
            return Err(io::Error::other(NO_CA));
        }
        let provider = self.provider()?;
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
                .build()
                .map_err(|e| invalid("the CAs", e))?;
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&self.versions()?)
            .map_err(|e| invalid("tls-protocols and ciphers", e))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyName(verifier)));
        let (cert, key) = match self.client_cert.is_empty() {
            true => (&self.cert, &self.key),
            false => (&self.client_cert, &self.client_key),
        };
        let mut config = if cert.is_empty() {
            builder.with_no_client_auth()
        } else {
            let (chain, key) = Self::pair(cert, key)?;
            builder.with_client_auth_cert(chain, key).map_err(|e| invalid(cert, e))?
        };
        config.resumption = Resumption::disabled();
        Ok(Arc::new(config))
    }
}

const NO_CA: &str = "Either tls-ca-cert-file or tls-ca-cert-dir must be specified when tls-cluster, \
                     tls-replication or tls-auth-clients are enabled!";

/// All that rustls checks, but for the name.
#[derive(Debug)]
struct AnyName(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        use CertificateError::{NotValidForName, NotValidForNameContext};
        // The name is what is looked at last: nothing but the name was wrong.
        match self.0.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
        {
            Err(Error::InvalidCertificate(NotValidForName | NotValidForNameContext { .. })) => {
                Ok(ServerCertVerified::assertion())
            }
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, cert, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, cert, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
