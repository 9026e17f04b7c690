//! Connections by TLS, as a careful client makes them: the certificate must be of the CA, and for the name that was dialled.

use crate::failure::{Context, Failure, Result};
use crate::wire::Connection;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Dials `address` and expects who answers there to be `name`, by a certificate of the CA in the PEM text.
pub async fn open(
    address: SocketAddr,
    name: &str,
    ca: &str,
    patience: Duration,
) -> Result<Connection<TlsStream<TcpStream>>> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca.as_bytes()) {
        roots.add(certificate.context("the CA's certificate")?).context("the CA's certificate")?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .context("TLS")?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = TlsConnector::from(Arc::new(config));
    let dialled = async {
        let name = ServerName::try_from(name.to_owned()).context(name)?;
        let stream = TcpStream::connect(address).await.context(address)?;
        connector.connect(name, stream).await.context(format!("{address} by TLS"))
    };
    let stream = tokio::time::timeout(patience, dialled)
        .await
        .map_err(|_| Failure::new(format!("{address}: no handshake within {patience:?}")))??;
    Ok(Connection::over(stream, patience))
}
