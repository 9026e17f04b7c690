//! What is asked of TCP about peers that vanish without a word: a cut wire sends no FIN.
//!
//! Left to itself TCP waits twice as long before each new attempt, up to two minutes: a connection that is cut for a
//! while stays silent for about as long again when the wire is whole, and one that is idle is never found dead.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};

/// Attempts to hear an idle peer, a third of its time apart, before the connection is given up, as in Redis.
const PROBES: u32 = 3;
/// An idle connection of the bus is asked after this time.
const BUS_IDLE: Duration = Duration::from_secs(10);
/// What was sent on the bus and not acknowledged for so long is given up: dialling anew is quicker than waiting for TCP
/// to try again, and old news helps nobody.
const BUS_UNHEARD_MAX: Duration = Duration::from_secs(2);
/// As long as a replica's own words may go unacknowledged before it dials its primary anew.
const REPLICA_UNHEARD_MAX: Duration = Duration::from_secs(5);

/// Has an idle peer asked whether it is there, after `idle` and then `PROBES` times; none: never.
///
/// # Errors
/// What the system said; of a socket in the file system, that it knows nothing of this.
pub fn keep_alive(socket: &impl AsFd, idle: Duration) -> io::Result<()> {
    let socket = SockRef::from(socket);
    if idle.is_zero() {
        return socket.set_keepalive(false);
    }
    let between = (idle / PROBES).max(Duration::from_secs(1));
    let asked = TcpKeepalive::new().with_time(idle).with_interval(between).with_retries(PROBES);
    socket.set_tcp_keepalive(&asked)
}

/// A connection of the bus, at either end.
///
/// # Errors
/// What the system said.
pub fn of_the_bus(socket: &impl AsFd) -> io::Result<()> {
    SockRef::from(socket).set_tcp_nodelay(true)?;
    SockRef::from(socket).set_tcp_user_timeout(Some(BUS_UNHEARD_MAX))?;
    keep_alive(socket, BUS_IDLE)
}

/// A replica's connection to its primary, to which it says something each second.
///
/// # Errors
/// What the system said.
pub fn of_a_replica(socket: &impl AsFd) -> io::Result<()> {
    SockRef::from(socket).set_tcp_user_timeout(Some(REPLICA_UNHEARD_MAX))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn an_idle_peer_is_asked_after_a_while_or_never() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let told = SockRef::from(&socket);
        keep_alive(&socket, Duration::from_secs(300)).unwrap();
        assert!(told.keepalive().unwrap());
        assert_eq!(told.tcp_keepalive_time().unwrap(), Duration::from_secs(300));
        assert_eq!(told.tcp_keepalive_interval().unwrap(), Duration::from_secs(100));
        assert_eq!(told.tcp_keepalive_retries().unwrap(), 3);
        keep_alive(&socket, Duration::from_secs(1)).unwrap();
        assert_eq!(told.tcp_keepalive_interval().unwrap(), Duration::from_secs(1));
        keep_alive(&socket, Duration::ZERO).unwrap();
        assert!(!told.keepalive().unwrap());
    }
}
