//! The floor: an epoll loop that answers by length alone, what the socket path costs by itself.
//!
//! The first line of a connection says how long a request is and what the reply is; then every
//! so many bytes read give one reply. The bytes on the wire are thus those of the real workload.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::SocketAddr;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

use super::Error;

const LISTENER: Token = Token(usize::MAX);

/// The first line of a connection to the floor.
pub(super) fn preamble(request_len: usize, reply: &[u8]) -> Vec<u8> {
    [format!("{request_len:08}{:08}", reply.len()).as_bytes(), reply].concat()
}

const HEAD: usize = 16;

struct Peer {
    stream: TcpStream,
    /// Bytes of the preamble, until it is whole.
    head: Vec<u8>,
    /// Length of a request, the reply, and bytes of the request that has begun.
    terms: Option<(usize, Vec<u8>)>,
    partial: usize,
    out: Vec<u8>,
    sent: usize,
}

pub(super) fn run(port: u16, threads: usize) -> Result<(), Error> {
    let addr = SocketAddr::from(([127, 0, 0, 1], port));
    let mut loops = Vec::new();
    for _ in 0..threads.max(1) {
        let listener = listen(addr).map_err(Error::io(format!("listen on {addr}")))?;
        loops.push(std::thread::spawn(move || serve(listener)));
    }
    for each in loops {
        each.join().map_err(|_| Error::Refused("a loop died".into()))??;
    }
    Ok(())
}

fn listen(addr: SocketAddr) -> std::io::Result<TcpListener> {
    use socket2::{Domain, Socket, Type};
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(1024)?;
    Ok(TcpListener::from_std(socket.into()))
}

fn serve(mut listener: TcpListener) -> Result<(), Error> {
    let mut poll = Poll::new().map_err(Error::io("epoll"))?;
    poll.registry()
        .register(&mut listener, LISTENER, Interest::READABLE)
        .map_err(Error::io("epoll"))?;
    let mut events = Events::with_capacity(1024);
    let mut peers: Vec<Option<Peer>> = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            polled => polled.map_err(Error::io("epoll"))?,
        }
        for event in &events {
            if event.token() == LISTENER {
                accept(&listener, &poll, &mut peers).map_err(Error::io("accept"))?;
            } else if let Some(slot) = peers.get_mut(event.token().0)
                && let Some(peer) = slot
                && exchange(peer, &mut buffer).is_err()
            {
                *slot = None;
            }
        }
    }
}

fn accept(
    listener: &TcpListener,
    poll: &Poll,
    peers: &mut Vec<Option<Peer>>,
) -> std::io::Result<()> {
    loop {
        let mut stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        };
        stream.set_nodelay(true)?;
        let free = peers.iter().position(Option::is_none).unwrap_or(peers.len());
        let interest = Interest::READABLE | Interest::WRITABLE;
        poll.registry().register(&mut stream, Token(free), interest)?;
        let peer = Peer { stream, head: vec![], terms: None, partial: 0, out: vec![], sent: 0 };
        if free == peers.len() {
            peers.push(Some(peer));
        } else {
            peers[free] = Some(peer);
        }
    }
}

/// Reads what came, answers it in one write; an error ends the connection.
fn exchange(peer: &mut Peer, buffer: &mut [u8]) -> std::io::Result<()> {
    loop {
        let read = match peer.stream.read(buffer) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        };
        answer(peer, &buffer[..read]);
        if read < buffer.len() {
            break;
        }
    }
    while peer.sent < peer.out.len() {
        match peer.stream.write(&peer.out[peer.sent..]) {
            Ok(written) => peer.sent += written,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    peer.out.clear();
    peer.sent = 0;
    Ok(())
}

fn answer(peer: &mut Peer, mut bytes: &[u8]) {
    if peer.terms.is_none() {
        let wanted = |head: &[u8]| head.get(8..HEAD).map_or(HEAD, |len| HEAD + decimal(len));
        while peer.head.len() < wanted(&peer.head) && !bytes.is_empty() {
            peer.head.push(bytes[0]);
            bytes = &bytes[1..];
        }
        if peer.head.len() < HEAD || peer.head.len() < wanted(&peer.head) {
            return;
        }
        peer.terms = Some((decimal(&peer.head[..8]).max(1), peer.head[HEAD..].to_vec()));
    }
    let Some((request_len, reply)) = &peer.terms else { return };
    peer.partial += bytes.len();
    for _ in 0..peer.partial / request_len {
        peer.out.extend_from_slice(reply);
    }
    peer.partial %= request_len;
}

fn decimal(bytes: &[u8]) -> usize {
    bytes.iter().fold(0, |number, byte| number * 10 + usize::from(byte.wrapping_sub(b'0')))
}
