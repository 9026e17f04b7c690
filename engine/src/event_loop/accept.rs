//! Connections come in: accepted by one loop, dealt out to all in turn.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use mio::net::TcpStream;
use mio::{Interest, Token};

use super::conn::Conn;
use super::{EventLoop, LISTENERS};
use crate::clock;
use crate::memcached::Protocol;
use crate::resp::{Decoder, Values};
use crate::server::{Mail, Speaks, bump};
use crate::session::{ClientInfo, Session};
use crate::sockets;
use crate::tls::secure::Connection;

/// Connections accepted in one turn.
const ACCEPTS: usize = 64;

/// What a client from elsewhere is told by a server that nobody has set a password for.
const PROTECTED: &str = "-DENIED Redis is running in protected mode because protected mode is enabled and \
    no password is set for the default user. In this mode connections are only accepted from the loopback \
    interface. Set a password (requirepass), or turn protected-mode off, to accept others.\r\n";

const PROTECTED_MEMCACHED: &str = "SERVER_ERROR protected mode: connections are only accepted from the loopback \
    interface until a password is set\r\n";

impl EventLoop {
    pub(super) fn accept(&mut self, at: usize) {
        for _ in 0..ACCEPTS {
            let Some(listener) = self.listeners.get(at) else { return };
            let speaks = listener.speaks;
            match listener.socket.accept() {
                Ok(mut stream) => {
                    self.accept_failed = false;
                    if self.shared.clients.len() >= self.hot.maxclients {
                        bump(&self.shared.stats.rejected_connections, 1);
                        // Best effort: the client may not read it.
                        let _ = stream.write(match speaks {
                            Speaks::Resp | Speaks::Plain => {
                                b"-ERR max number of clients reached\r\n"
                            }
                            Speaks::Memcached => b"ERROR Too many open connections\r\n",
                        });
                        continue;
                    }
                    let to = self.next_loop % self.shared.loops.len();
                    self.next_loop += 1;
                    if to == self.index {
                        self.add(Connection::Plain(stream), speaks, clock::unix_ms());
                    } else {
                        let mail = Mail::Accepted(Connection::Plain(stream), speaks);
                        self.shared.loops[to].send(mail);
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => {
                    // Out of file descriptors, most likely: wait for the next tick instead of spinning.
                    if !std::mem::replace(&mut self.accept_failed, true) {
                        tracing::warn!(error = %e, "cannot accept a connection");
                    }
                    return;
                }
            }
        }
        // More may be waiting, and the edge has been seen: come back in the next turn.
        self.shared.loops[self.index].send(Mail::Look);
        if let Some(listener) = self.listeners.get_mut(at) {
            let token = Token(LISTENERS + at);
            let source = listener.socket.source();
            let _ = self.poll.registry().reregister(source, token, Interest::READABLE);
        }
    }

    pub(super) fn add(&mut self, mut stream: Connection, speaks: Speaks, now_ms: i64) {
        let token = self.free.pop().unwrap_or_else(|| {
            self.conns.push(None);
            self.conns.len() - 1
        });
        let _ = stream.socket().set_nodelay(true);
        // One in the file system has nothing of the kind, and needs nothing: its peer cannot vanish without a word.
        let _ = sockets::keep_alive(stream.socket(), self.hot.tcp_keepalive);
        // Who came by a socket in the file system has no address: the socket's stands for it.
        let path = || self.shared.config.get("memcached-unixsocket").unwrap_or_default();
        let name = |a: io::Result<SocketAddr>| match a {
            Ok(addr) => addr.to_string(),
            Err(_) if speaks == Speaks::Memcached => format!("{}:0", path()),
            Err(_) => "?:0".into(),
        };
        let (addr, laddr) = (name(stream.socket().peer_addr()), name(stream.socket().local_addr()));
        let interest = Interest::READABLE | Interest::WRITABLE;
        if let Err(e) = self.poll.registry().register(stream.socket_mut(), Token(token), interest) {
            tracing::warn!(error = %e, "cannot watch a connection");
            self.free.push(token);
            return;
        }
        let is_memcached = speaks == Speaks::Memcached;
        let acl = &self.shared.acl;
        let (is_open, is_guarded) = if is_memcached {
            let is_open = self.shared.memcached.is_open(acl);
            (is_open, !is_open)
        } else {
            (acl.is_open(), !acl.default_has_no_password())
        };
        if self.hot.protected_mode && !is_guarded && !is_local(stream.socket()) {
            // Best effort: whoever it is will see the connection close.
            let _ = stream.write(if is_memcached {
                PROTECTED_MEMCACHED.as_bytes()
            } else {
                PROTECTED.as_bytes()
            });
            let _ = self.poll.registry().deregister(stream.socket_mut());
            self.shared.stats.rejected_connections.fetch_add(1, Ordering::Relaxed);
            self.free.push(token);
            return;
        }
        let id = self.shared.clients.next_id();
        let info = Arc::new(ClientInfo::new(id, addr, laddr, now_ms, self.index, token));
        self.shared.clients.add(&info);
        self.shared.stats.connections.fetch_add(1, Ordering::Relaxed);
        info.memcached.store(is_memcached, Ordering::Relaxed);
        let memcached = is_memcached.then(|| Box::new(Protocol::default()));
        let is_tls = stream.is_tls();
        info.tls.store(is_tls, Ordering::Relaxed);
        let mut session = Session::new(info, is_open);
        session.plain = (is_memcached || speaks == Speaks::Plain).then(Box::default);
        if is_tls {
            crate::acl::log_in_by_certificate(&self.shared, &mut session, &stream, now_ms);
            // What came with the last of the handshake is in no socket any more: no event will tell of it.
            self.pending.push_back(token);
        }
        self.conns[token] = Some(Box::new(Conn {
            stream,
            session,
            memcached,
            decoder: Decoder::default(),
            input: Vec::new(),
            out: Vec::new(),
            sent: 0,
            values: Values::default(),
            dirty: false,
            is_held: false,
            pending: is_tls,
            stalled: false,
            gate: 0,
            seen_write: 0,
            quorum_gate: 0,
            quorum_since_ms: 0,
            leased: 0,
            came: 0,
            closing: false,
            read_closed: false,
        }));
    }
}

/// From this machine: the loopback interface, or a socket in its file system.
fn is_local(stream: &TcpStream) -> bool {
    match stream.peer_addr() {
        Ok(addr) => addr.ip().to_canonical().is_loopback(),
        Err(e) => e.kind() == io::ErrorKind::InvalidInput,
    }
}
