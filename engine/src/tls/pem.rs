//! Certificates and keys out of PEM text.

use std::fmt::Display;
use std::io;

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// An error about the file or part that is named.
pub fn invalid(what: &str, cause: impl Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("{what}: {cause}"))
}

/// Adds the certificates of CAs to those that are trusted.
///
/// # Errors
/// When the text is no PEM, or a certificate in it is none.
pub fn add_roots(roots: &mut RootCertStore, pem: &[u8], what: &str) -> io::Result<()> {
    for der in CertificateDer::pem_slice_iter(pem) {
        let der = der.map_err(|e| invalid(what, e))?;
        roots.add(der).map_err(|e| invalid(what, e))?;
    }
    Ok(())
}

/// A certificate, and behind it those that lead to its CA.
///
/// # Errors
/// When the text is no PEM, or has no certificate.
pub fn chain(pem: &[u8], what: &str) -> io::Result<Vec<CertificateDer<'static>>> {
    let chain = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| invalid(what, e))?;
    if chain.is_empty() {
        return Err(invalid(what, "no certificate in it"));
    }
    Ok(chain)
}

/// A private key.
///
/// # Errors
/// When the text has no key that can be read without a password.
pub fn key(pem: &[u8], what: &str) -> io::Result<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|e| {
        let is_locked = memchr::memmem::find(pem, b"ENCRYPTED").is_some();
        match is_locked {
            true => invalid(what, "the key is encrypted: keys with a passphrase are not supported"),
            false => invalid(what, e),
        }
    })
}
