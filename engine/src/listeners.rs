//! The addresses that a server listens on.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};

use mio::net::TcpListener;

use crate::config::Config;

/// Listens on every address of `bind`. One with a `-` before it may be missing on this machine.
pub fn listen_all(config: &Config) -> io::Result<Vec<TcpListener>> {
    let port = config.int("port", 6379) as u16;
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
