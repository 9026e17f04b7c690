//! A connection that a thread of its own serves: a socket that blocks, or one with TLS on it.
//!
//! As with a socket, one thread may read while another writes. What one of them encrypts goes out before anything that
//! is encrypted later: whoever writes holds `writing` until the socket has all of it. Who reads holds nothing while it
//! waits for the socket.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};

use crate::sockets;
use crate::tls::secure::Connection;

/// Bytes that are read from a socket at a time.
const CIPHER_BYTES: usize = 16 * 1024;

#[derive(Clone)]
pub struct Stream(Arc<Inner>);

struct Inner {
    socket: TcpStream,
    tls: Option<Tls>,
}

struct Tls {
    state: Mutex<State>,
    writing: Mutex<()>,
}

struct State {
    tls: rustls::Connection,
    /// What was decrypted and not read yet: of what came with one read, no more.
    plain: VecDeque<u8>,
}

impl Tls {
    fn new(tls: rustls::Connection) -> Tls {
        let state = State { tls, plain: VecDeque::new() };
        Tls { state: Mutex::new(state), writing: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Decrypts all of these bytes; none: the socket has ended.
    fn take_in(&mut self, mut cipher: &[u8]) -> io::Result<()> {
        loop {
            self.drain()?;
            // Behind the other side's goodbye nothing is taken.
            let n = self.tls.read_tls(&mut cipher)?;
            self.tls.process_new_packets().map_err(io::Error::other)?;
            if n == 0 || cipher.is_empty() {
                return self.drain();
            }
        }
    }

    /// Takes what is decrypted out of the way of what comes next.
    fn drain(&mut self) -> io::Result<()> {
        let mut chunk = [0u8; 4096];
        loop {
            match self.tls.reader().read(&mut chunk) {
                Ok(0) => return Ok(()),
                Ok(n) => self.plain.extend(&chunk[..n]),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                Err(e) => return Err(e),
            }
        }
    }
}

impl Stream {
    pub fn plain(socket: TcpStream) -> Stream {
        Stream(Arc::new(Inner { socket, tls: None }))
    }

    /// One that an event loop had. It blocks from now on.
    ///
    /// # Errors
    /// What the system said.
    pub fn from_loop(connection: Connection) -> io::Result<Stream> {
        let (socket, tls) = match connection {
            Connection::Plain(socket) => (socket, None),
            Connection::Tls(secure) => {
                let (socket, state, rest) = secure.into_parts();
                let tls = Tls::new(state.into());
                if !rest.is_empty() {
                    tls.state().take_in(&rest)?;
                }
                (socket, Some(tls))
            }
        };
        let socket = TcpStream::from(socket);
        socket.set_nonblocking(false)?;
        socket.set_nodelay(true)?;
        Ok(Stream(Arc::new(Inner { socket, tls })))
    }

    /// Connects to the first address of a host that answers, by TLS when there is something to speak it with; `known` is
    /// one that is tried before the name is looked up. The time is for each of connecting and a step of the handshake.
    ///
    /// # Errors
    /// What the last address came to.
    pub fn dial(
        host: &str,
        port: u16,
        known: Option<SocketAddr>,
        tls: Option<Arc<ClientConfig>>,
        patience: Duration,
    ) -> io::Result<Stream> {
        if let Some(address) = known
            && let Ok(stream) = Stream::dial_address(host, address, tls.clone(), patience)
        {
            return Ok(stream);
        }
        let mut last = io::Error::other("the name has no address");
        for address in (host, port).to_socket_addrs()? {
            match Stream::dial_address(host, address, tls.clone(), patience) {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn dial_address(
        host: &str,
        address: SocketAddr,
        tls: Option<Arc<ClientConfig>>,
        patience: Duration,
    ) -> io::Result<Stream> {
        let mut socket = TcpStream::connect_timeout(&address, patience)?;
        socket.set_nodelay(true)?;
        let Some(config) = tls else { return Ok(Stream::plain(socket)) };
        let name = ServerName::try_from(host.to_owned()).unwrap_or(address.ip().into());
        let mut tls = ClientConnection::new(config, name).map_err(io::Error::other)?;
        socket.set_read_timeout(Some(patience))?;
        socket.set_write_timeout(Some(patience))?;
        while tls.is_handshaking() {
            tls.complete_io(&mut socket)?;
        }
        socket.set_read_timeout(None)?;
        socket.set_write_timeout(None)?;
        Ok(Stream(Arc::new(Inner { socket, tls: Some(Tls::new(tls.into())) })))
    }

    /// # Errors
    /// What the system said.
    pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.0.socket.set_read_timeout(timeout)
    }

    /// # Errors
    /// What the system said.
    pub fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.0.socket.set_write_timeout(timeout)
    }

    /// Given up sooner than TCP would do by itself, when nobody hears what it says: `sockets::of_a_replica`.
    ///
    /// # Errors
    /// What the system said.
    pub fn as_a_replica(&self) -> io::Result<()> {
        sockets::of_a_replica(&self.0.socket)
    }

    /// # Errors
    /// What the system said.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.0.socket.peer_addr()
    }

    /// Ends both directions, whoever waits in one of them.
    ///
    /// # Errors
    /// What the system said.
    pub fn shutdown(&self) -> io::Result<()> {
        self.0.socket.shutdown(Shutdown::Both)
    }
}

impl Inner {
    fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(tls) = &self.tls else { return (&self.socket).read(buffer) };
        let mut cipher = [0u8; CIPHER_BYTES];
        loop {
            let mut state = tls.state();
            if !state.plain.is_empty() {
                return state.plain.read(buffer);
            }
            match state.tls.reader().read(buffer) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
                other => return other,
            }
            drop(state);
            let n = (&self.socket).read(&mut cipher)?;
            let mut state = tls.state();
            state.take_in(&cipher[..n])?;
            let answers = state.tls.wants_write();
            drop(state);
            if answers {
                match tls.writing.try_lock() {
                    Ok(_writing) => self.send(tls)?,
                    Err(TryLockError::Poisoned(writing)) => {
                        let _writing = writing.into_inner();
                        self.send(tls)?;
                    }
                    // Who writes takes it along.
                    Err(TryLockError::WouldBlock) => {}
                }
            }
        }
    }

    /// Brings out what is encrypted; the caller holds `writing`.
    fn send(&self, tls: &Tls) -> io::Result<()> {
        let mut cipher = Vec::new();
        loop {
            {
                let mut state = tls.state();
                while state.tls.wants_write() {
                    state.tls.write_tls(&mut cipher)?;
                }
            }
            if cipher.is_empty() {
                return Ok(());
            }
            (&self.socket).write_all(&cipher)?;
            cipher.clear();
        }
    }

    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        let Some(tls) = &self.tls else { return (&self.socket).write(bytes) };
        let _writing = tls.writing.lock().unwrap_or_else(PoisonError::into_inner);
        self.send(tls)?;
        let n = tls.state().tls.writer().write(bytes)?;
        self.send(tls)?;
        Ok(n)
    }
}

impl Read for &Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for &Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
