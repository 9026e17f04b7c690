//! A connection of an event loop: a socket, or a socket with TLS on it.
//!
//! Reads and writes are those of a socket that does not block, edge-triggered: a read that does not fill its buffer has
//! emptied the socket, unless `has_more` says otherwise. What is encrypted and not written yet is at most what one call
//! of `write` took (64 KiB): who does not read is held up as on any socket.

use std::cell::RefCell;
use std::io::{self, IoSlice, Read, Write};

use mio::net::TcpStream;
use rustix::buffer::spare_capacity;
use rustls::ServerConnection;
use rustls::pki_types::CertificateDer;

/// Bytes that are read from a socket at a time, however little room the caller has.
const CIPHER_BYTES: usize = 64 * 1024;
const CIPHER_BYTES_MIN: usize = 4096;

/// State of a connection whose handshake is done: the structures, the keys of both directions, and the buffer in which
/// records are put together.
const STATE_BYTES: usize = size_of::<Secure>() + 6 * 1024;
/// What encryption adds to a record of `RECORD_BYTES` at most: header, type and tag.
const RECORD_OVERHEAD: usize = 22;
const RECORD_BYTES: usize = 16 * 1024;

pub enum Connection {
    Plain(TcpStream),
    Tls(Box<Secure>),
}

impl Connection {
    #[inline]
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Connection::Plain(socket) => socket.read(buffer),
            Connection::Tls(secure) => secure.read(buffer),
        }
    }

    /// The same behind the bytes that are there already, as far as there is room: of a socket without writing to it before.
    pub fn read_behind(&mut self, bytes: &mut Vec<u8>) -> io::Result<usize> {
        match self {
            Connection::Plain(socket) => Ok(rustix::io::read(socket, spare_capacity(bytes))?),
            Connection::Tls(secure) => {
                let have = bytes.len();
                bytes.resize(bytes.capacity(), 0);
                let got = secure.read(&mut bytes[have..]);
                bytes.truncate(have + got.as_ref().map_or(0, |n| *n));
                got
            }
        }
    }

    #[inline]
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Connection::Plain(socket) => socket.write(bytes),
            Connection::Tls(secure) => secure.write(bytes),
        }
    }

    /// The same of bytes that lie in several places.
    pub fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Connection::Plain(socket) => socket.write_vectored(pieces),
            Connection::Tls(secure) => secure.write(pieces.first().map_or(&[], |piece| piece)),
        }
    }

    /// A read that did not fill its buffer has left something all the same: the end of the stream, for one.
    #[inline]
    pub fn has_more(&self) -> bool {
        match self {
            Connection::Plain(_) => false,
            Connection::Tls(secure) => secure.has_more(),
        }
    }

    /// Something was taken by `write` that the socket has not taken yet.
    #[inline]
    pub fn has_unsent(&self) -> bool {
        match self {
            Connection::Plain(_) => false,
            Connection::Tls(secure) => secure.tls.wants_write(),
        }
    }

    /// Bytes of that, as the socket will get them.
    #[inline]
    pub fn unsent_bytes(&self) -> usize {
        match self {
            Connection::Plain(_) => 0,
            Connection::Tls(secure) => secure.unsent,
        }
    }

    /// What TLS takes for this connection, beside what the socket does: its keys and state, what is to be decrypted and
    /// what is encrypted already.
    #[inline]
    pub fn memory(&self) -> usize {
        match self {
            Connection::Plain(_) => 0,
            Connection::Tls(secure) => STATE_BYTES + secure.rest.capacity() + secure.unsent,
        }
    }

    /// Tries to bring out what is unsent.
    #[inline]
    pub fn flush(&mut self) -> io::Result<()> {
        match self {
            Connection::Plain(_) => Ok(()),
            Connection::Tls(secure) => secure.flush(),
        }
    }

    /// Says goodbye, as far as the socket takes it at once.
    pub fn end(&mut self) {
        if let Connection::Tls(secure) = self {
            secure.tls.send_close_notify();
            // Whoever is gone needs no goodbye.
            let _ = secure.flush();
        }
    }

    pub fn is_tls(&self) -> bool {
        matches!(self, Connection::Tls(_))
    }

    pub fn socket(&self) -> &TcpStream {
        match self {
            Connection::Plain(socket) => socket,
            Connection::Tls(secure) => &secure.socket,
        }
    }

    pub fn socket_mut(&mut self) -> &mut TcpStream {
        match self {
            Connection::Plain(socket) => socket,
            Connection::Tls(secure) => &mut secure.socket,
        }
    }

    /// The certificate that the client has shown, if it has.
    pub fn certificate(&self) -> Option<&CertificateDer<'static>> {
        match self {
            Connection::Plain(_) => None,
            Connection::Tls(secure) => secure.tls.peer_certificates()?.first(),
        }
    }
}

pub struct Secure {
    pub(super) socket: TcpStream,
    pub(super) tls: ServerConnection,
    /// Read from the socket, and no room in the caller's buffer for what it says.
    rest: Vec<u8>,
    /// Bytes encrypted and not yet taken by the socket.
    unsent: usize,
    /// No more comes: the client has said so, or closed its side.
    ended: bool,
    failed: Option<io::Error>,
}

thread_local! {
    static CIPHER: RefCell<Vec<u8>> = RefCell::new(vec![0; CIPHER_BYTES]);
}

/// What the client does against the protocol ends its connection.
pub(super) fn broken(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

impl Secure {
    pub(super) fn new(socket: TcpStream, tls: ServerConnection) -> Secure {
        Secure { socket, tls, rest: Vec::new(), unsent: 0, ended: false, failed: None }
    }

    /// Its parts, and what was read from the socket and is not decrypted yet.
    pub(crate) fn into_parts(self) -> (TcpStream, ServerConnection, Vec<u8>) {
        (self.socket, self.tls, self.rest)
    }

    fn has_more(&self) -> bool {
        self.ended || self.failed.is_some() || !self.rest.is_empty()
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut got = 0;
        let mut is_emptied = false;
        loop {
            got += self.take_plain(&mut buffer[got..]);
            if got == buffer.len() || (got > 0 && (is_emptied || self.has_ended())) {
                return Ok(got);
            }
            if let Some(error) = self.failed.take() {
                return Err(error);
            }
            if self.ended {
                return Ok(0);
            }
            if is_emptied {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            is_emptied = self.fill(buffer.len() - got);
        }
    }

    fn has_ended(&self) -> bool {
        self.ended || self.failed.is_some()
    }

    /// What is decrypted, as far as there is room for it.
    fn take_plain(&mut self, buffer: &mut [u8]) -> usize {
        let mut got = 0;
        while got < buffer.len() {
            match self.tls.reader().read(&mut buffer[got..]) {
                Ok(0) => {
                    self.ended = true;
                    break;
                }
                Ok(n) => got += n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                // A socket that was closed without a goodbye: requests are framed, so that nothing is cut in half unseen.
                Err(_) => {
                    self.ended = true;
                    break;
                }
            }
        }
        got
    }

    /// Reads from the socket what will fit into `room` once it is decrypted; `true`: the socket is empty.
    fn fill(&mut self, room: usize) -> bool {
        if !self.rest.is_empty() {
            let rest = std::mem::take(&mut self.rest);
            self.decrypt(&rest);
            return false;
        }
        CIPHER.with_borrow_mut(|cipher| {
            let cipher = &mut cipher[..room.clamp(CIPHER_BYTES_MIN, CIPHER_BYTES)];
            let n = loop {
                match self.socket.read(cipher) {
                    Ok(n) => break n,
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => return true,
                    Err(e) => {
                        self.failed = Some(e);
                        return true;
                    }
                }
            };
            if n == 0 {
                self.ended = true;
                return true;
            }
            self.decrypt(&cipher[..n]);
            n < cipher.len()
        })
    }

    /// Takes in bytes of the socket, until there is so much to read that the caller takes that first.
    fn decrypt(&mut self, mut cipher: &[u8]) {
        while !cipher.is_empty() {
            match self.tls.read_tls(&mut cipher) {
                // Behind a goodbye nothing counts.
                Ok(0) => return,
                Ok(_) => {}
                // What is decrypted already waits to be read.
                Err(e) if e.kind() == io::ErrorKind::Other => {
                    self.rest = cipher.to_vec();
                    return;
                }
                Err(e) => {
                    self.failed = Some(e);
                    return;
                }
            }
            if let Err(error) = self.tls.process_new_packets() {
                // The alert that says why, as far as the socket takes it at once.
                let _ = self.flush();
                self.failed = Some(broken(error));
                return;
            }
        }
        if self.tls.wants_write() {
            // An answer of the protocol's own: what the socket does not take now goes out with the next reply.
            if let Err(e) = self.flush()
                && e.kind() != io::ErrorKind::WouldBlock
            {
                self.failed = Some(e);
            }
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.flush()?;
        let n = self.tls.writer().write(bytes)?;
        self.unsent += n + n.div_ceil(RECORD_BYTES) * RECORD_OVERHEAD;
        match self.flush() {
            Err(e) if e.kind() != io::ErrorKind::WouldBlock => Err(e),
            _ => Ok(n),
        }
    }

    /// `WouldBlock`: some of it is left.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut self.socket) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => self.unsent = self.unsent.saturating_sub(n),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        self.unsent = 0;
        Ok(())
    }
}
