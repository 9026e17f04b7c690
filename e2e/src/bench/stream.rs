//! A connection of the load generator, plain or by TLS, that never waits.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};

use super::Error;

/// The name in the certificates of servers that are measured.
pub(super) const SERVER_NAME: &str = "larder.bench";

pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<Secure>),
}

pub(super) struct Secure {
    tcp: TcpStream,
    session: ClientConnection,
}

impl Stream {
    /// Connects, shakes hands where it is by TLS, and sends `preamble`; from then on nothing waits.
    pub(super) fn connect(
        addr: SocketAddr,
        tls: Option<&Arc<ClientConfig>>,
        preamble: &[u8],
    ) -> Result<Self, Error> {
        let mut tcp =
            std::net::TcpStream::connect(addr).map_err(Error::io(format!("connect to {addr}")))?;
        tcp.set_nodelay(true).map_err(Error::io("TCP_NODELAY"))?;
        tcp.write_all(preamble).map_err(Error::io("preamble"))?;
        let session = tls.map(|config| handshake(config, &mut tcp)).transpose()?;
        tcp.set_nonblocking(true).map_err(Error::io("O_NONBLOCK"))?;
        let tcp = TcpStream::from_std(tcp);
        Ok(match session {
            Some(session) => Self::Tls(Box::new(Secure { tcp, session })),
            None => Self::Plain(tcp),
        })
    }

    pub(super) fn register(&mut self, registry: &Registry, token: Token) -> Result<(), Error> {
        let tcp = match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(secure) => &mut secure.tcp,
        };
        let both = Interest::READABLE | Interest::WRITABLE;
        registry.register(tcp, token, both).map_err(Error::io("epoll"))
    }

    /// A read of less than there was room for has emptied the socket.
    pub(super) fn tells_its_end(&self) -> bool {
        matches!(self, Self::Plain(_))
    }

    pub(super) fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => tcp.read(into),
            Self::Tls(secure) => secure.read(into),
        }
    }

    /// Takes bytes; some of them may go out no earlier than with the next `push`.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => tcp.write(bytes),
            Self::Tls(secure) => secure.write(bytes),
        }
    }

    /// Sends what was taken and has not gone out, as far as the socket takes it.
    pub(super) fn push(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(_) => Ok(()),
            Self::Tls(secure) => secure.push(),
        }
    }
}

impl Secure {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.session.reader().read(into) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                read => return read,
            }
            if self.session.read_tls(&mut self.tcp)? == 0 {
                return Ok(0);
            }
            self.session.process_new_packets().map_err(io::Error::other)?;
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = self.session.writer().write(bytes)?;
        self.push()?;
        match taken {
            0 => Err(ErrorKind::WouldBlock.into()),
            taken => Ok(taken),
        }
    }

    fn push(&mut self) -> io::Result<()> {
        while self.session.wants_write() {
            match self.session.write_tls(&mut self.tcp) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                sent => sent.map(drop)?,
            }
        }
        Ok(())
    }
}

fn handshake(
    config: &Arc<ClientConfig>,
    tcp: &mut std::net::TcpStream,
) -> Result<ClientConnection, Error> {
    let refused = |error: &dyn std::fmt::Display| Error::Refused(format!("TLS: {error}"));
    let name = ServerName::try_from(SERVER_NAME).map_err(|error| refused(&error))?;
    let mut session =
        ClientConnection::new(config.clone(), name).map_err(|error| refused(&error))?;
    while session.is_handshaking() {
        session.complete_io(tcp).map_err(Error::io("TLS handshake"))?;
    }
    Ok(session)
}
