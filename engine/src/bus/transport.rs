//! What the bus runs on: mutual TLS, or in an unmanaged cluster without certificates plain TCP.
//!
//! Over plain TCP a peer is believed to be who it says it is, as on Redis's bus: the port is for a network of
//! one's own. The operator's questions are never taken there.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::tls::{Peer, Tls, peer_of};

/// One connection's bytes.
pub trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Wire for T {}

pub type Stream = Box<dyn Wire>;

/// How a member speaks on its bus.
#[derive(Clone, Debug)]
pub enum Transport {
    /// Certificates in that directory, read anew for each connection, so that they can be rotated.
    Tls(PathBuf),
    Plain,
}

impl Transport {
    /// A connection, and the address that it has at this end.
    ///
    /// # Errors
    /// What TCP or TLS said.
    pub async fn dial(&self, addr: &str) -> io::Result<(Stream, IpAddr)> {
        let tcp = TcpStream::connect(addr).await?;
        tcp.set_nodelay(true)?;
        let local = tcp.local_addr()?.ip();
        let stream: Stream = match self {
            Transport::Plain => Box::new(tcp),
            Transport::Tls(dir) => {
                let tls = Tls::from_dir(dir)?;
                Box::new(tls.connector().connect(Tls::server_name()?, tcp).await?)
            }
        };
        Ok((stream, local))
    }

    /// The listening side's, with the role that the certificate gives.
    ///
    /// # Errors
    /// What TLS said, and a certificate of no role.
    pub async fn accept(&self, tcp: TcpStream) -> io::Result<(Stream, Peer)> {
        tcp.set_nodelay(true)?;
        let Transport::Tls(dir) = self else { return Ok((Box::new(tcp), Peer::Member)) };
        let stream = Tls::from_dir(dir)?.acceptor().accept(tcp).await?;
        let role = peer_of(stream.get_ref().1.peer_certificates())
            .ok_or(io::Error::new(io::ErrorKind::PermissionDenied, "a certificate of no role"))?;
        Ok((Box::new(stream), role))
    }
}
