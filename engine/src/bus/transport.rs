//! What the bus runs on: mutual TLS, or in an unmanaged cluster without certificates plain TCP.
//!
//! An unmanaged cluster may have its clients' certificates on the bus, too (`tls-cluster`): then whoever has one from
//! their CA is a member, as on Redis's bus.
//!
//! Over plain TCP a peer is believed to be who it says it is, as on Redis's bus: the port is for a network of
//! one's own. The operator's questions are never taken there.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, ToSocketAddrs};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::tls::{Peer, Tls, peer_of};
use crate::sockets;

/// One connection's bytes.
pub trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Wire for T {}

pub type Stream = Box<dyn Wire>;

/// Gives the two ends' configurations, as the settings of clients' TLS are at the moment.
#[derive(Clone)]
pub struct Certificates(Arc<dyn Fn() -> io::Result<Ends> + Send + Sync>);

/// What is accepted with, and what is dialled with.
pub type Ends = (Arc<rustls::ServerConfig>, Arc<rustls::ClientConfig>);

impl Certificates {
    pub fn new(read: impl Fn() -> io::Result<Ends> + Send + Sync + 'static) -> Certificates {
        Certificates(Arc::new(read))
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Certificates")
    }
}

/// Of a connection that was dialled.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    pub local: IpAddr,
    pub remote: IpAddr,
}

/// How a member speaks on its bus.
#[derive(Clone, Debug)]
pub enum Transport {
    /// The certificates of clients' TLS, where the members are a cluster by themselves.
    AsClients(Certificates),
    /// Certificates in that directory, read anew for each connection, so that they can be rotated.
    Tls(PathBuf),
    Plain,
}

impl Transport {
    /// A connection, and the addresses of its ends.
    ///
    /// # Errors
    /// What TCP or TLS said.
    pub async fn dial(&self, addr: impl ToSocketAddrs) -> io::Result<(Stream, Addresses)> {
        let tcp = TcpStream::connect(addr).await?;
        sockets::of_the_bus(&tcp)?;
        let ends = Addresses { local: tcp.local_addr()?.ip(), remote: tcp.peer_addr()?.ip() };
        let stream: Stream = match self {
            Transport::Plain => Box::new(tcp),
            Transport::Tls(dir) => {
                let tls = Tls::from_dir(dir)?;
                Box::new(tls.connector().connect(Tls::server_name()?, tcp).await?)
            }
            Transport::AsClients(read) => {
                let connector = TlsConnector::from(read.0()?.1);
                Box::new(connector.connect(Tls::server_name()?, tcp).await?)
            }
        };
        Ok((stream, ends))
    }

    /// The listening side's, with the role that the certificate gives.
    ///
    /// # Errors
    /// What TLS said, and a certificate of no role.
    pub async fn accept(&self, tcp: TcpStream) -> io::Result<(Stream, Peer)> {
        sockets::of_the_bus(&tcp)?;
        let dir = match self {
            Transport::Plain => return Ok((Box::new(tcp), Peer::Member)),
            Transport::AsClients(read) => {
                let stream = TlsAcceptor::from(read.0()?.0).accept(tcp).await?;
                return Ok((Box::new(stream), Peer::Member));
            }
            Transport::Tls(dir) => dir,
        };
        let stream = Tls::from_dir(dir)?.acceptor().accept(tcp).await?;
        let role = peer_of(stream.get_ref().1.peer_certificates())
            .ok_or(io::Error::new(io::ErrorKind::PermissionDenied, "a certificate of no role"))?;
        Ok((Box::new(stream), role))
    }
}
