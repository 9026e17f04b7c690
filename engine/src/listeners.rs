//! The addresses that a server listens on.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::Path;

use mio::net::{TcpListener, TcpStream, UnixListener};

use crate::config::Config;
use crate::server::Speaks;

/// Every listening socket of this server.
pub fn listen_all(config: &Config) -> io::Result<Vec<Listener>> {
    let mut all = Vec::new();
    for (port, speaks, by_tls) in [
        ("port", Speaks::Resp, false),
        ("tls-port", Speaks::Resp, true),
        ("larder-plain-port", Speaks::Plain, config.is_yes("larder-plain-tls")),
        ("memcached-port", Speaks::Memcached, config.is_yes("memcached-tls")),
    ] {
        let sockets = listen_port(config, config.int(port, 0) as u16)?;
        let listener = |socket| Listener { socket: Socket::Tcp(socket), speaks, by_tls };
        all.extend(sockets.into_iter().map(listener));
    }
    let path = config.get("memcached-unixsocket").unwrap_or_default();
    if !path.is_empty() {
        let mode = config.get("memcached-unixsocketperm").unwrap_or_default();
        let socket = listen_unix(Path::new(&path), &mode).map_err(|e| {
            io::Error::new(e.kind(), format!("Failed listening on {path} (unix), aborting: {e}"))
        })?;
        all.push(Listener {
            socket: Socket::Unix(socket),
            speaks: Speaks::Memcached,
            by_tls: false,
        });
    }
    Ok(all)
}

/// A listening socket, and what is spoken there.
pub struct Listener {
    pub socket: Socket,
    pub speaks: Speaks,
    /// Connections begin with a handshake: the lane for those accepts them.
    pub by_tls: bool,
}

pub enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Socket {
    pub fn source(&mut self) -> &mut dyn mio::event::Source {
        match self {
            Socket::Tcp(listener) => listener,
            Socket::Unix(listener) => listener,
        }
    }

    /// The next connection. A Unix one is read and written by the same calls as any stream.
    pub fn accept(&self) -> io::Result<TcpStream> {
        match self {
            Socket::Tcp(listener) => listener.accept().map(|(stream, _)| stream),
            Socket::Unix(listener) => {
                listener.accept().map(|(stream, _)| TcpStream::from(OwnedFd::from(stream)))
            }
        }
    }
}

/// A socket in the file system; one that a dead server has left is taken over.
fn listen_unix(path: &Path, mode: &str) -> io::Result<UnixListener> {
    let mode = u32::from_str_radix(mode, 8)
        .ok()
        .filter(|mode| *mode <= 0o777)
        .ok_or_else(|| io::Error::other("memcached-unixsocketperm is not an octal mode"))?;
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_socket());
    if is_socket && UnixStream::connect(path).is_err() {
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    Ok(listener)
}

/// Listens on every address of `bind`. One with a `-` before it may be missing on this machine.
fn listen_port(config: &Config, port: u16) -> io::Result<Vec<TcpListener>> {
    let backlog = config.int("tcp-backlog", 511) as i32;
    let bind = config.get("bind").unwrap_or_default();
    let mut found = Vec::new();
    if port == 0 {
        return Ok(found);
    }
    for word in bind.split_ascii_whitespace() {
        let (optional, host) = match word.strip_prefix('-') {
            Some(host) => (true, host),
            None => (false, word),
        };
        for addr in addresses(host, port)? {
            match listen(addr, backlog) {
                Ok(listener) => found.push(listener),
                // Not there, or no such family; a port that is taken is an error all the same.
                Err(e) if optional && e.kind() != io::ErrorKind::AddrInUse => {
                    tracing::debug!(%addr, error = %e, "not listening on an optional address");
                }
                Err(e) => {
                    tracing::error!("Could not create server TCP listening socket {addr}: {e}");
                    let text = format!("Failed listening on port {port} (tcp), aborting: {e}");
                    return Err(io::Error::new(e.kind(), text));
                }
            }
        }
    }
    Ok(found)
}

fn addresses(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    Ok(match host {
        "*" => vec![SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port)],
        "::*" | "::" => vec![SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port)],
        host => (host, port).to_socket_addrs()?.collect(),
    })
}

/// A listening socket that does not block.
pub fn listen(addr: SocketAddr, backlog: i32) -> io::Result<TcpListener> {
    let domain = if addr.is_ipv4() { socket2::Domain::IPV4 } else { socket2::Domain::IPV6 };
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&addr.into())?;
    socket.listen(backlog)?;
    socket.set_nonblocking(true)?;
    Ok(TcpListener::from_std(socket.into()))
}
