//! Memcached clients over sockets: the same bytes to this server and to a stock memcached, when it is installed; what
//! of an item must outlive a restart and reach a replica; harmful input; memcached's own command line.

mod compare;
mod elsewhere;
mod hostile;
mod items;
mod started;

#[path = "../managed/cluster.rs"]
mod cluster;
#[path = "../managed/mod.rs"]
mod managed;
#[path = "../processes/mod.rs"]
mod processes;
#[path = "../support/mod.rs"]
mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use processes::free_port;
use support::Server;

/// The engine with its Memcached port.
fn larder(extra: &[&str]) -> (Server, SocketAddr) {
    let port = free_port();
    let text = port.to_string();
    let server = Server::larder(&[&["--memcached-port", &text], extra].concat());
    (server, SocketAddr::from(([127, 0, 0, 1], port)))
}

/// Debian's memcached as a child.
struct Stock(Child);

impl Drop for Stock {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn stock() -> Option<(Stock, SocketAddr)> {
    stock_with(&[])
}

fn stock_with(options: &[&str]) -> Option<(Stock, SocketAddr)> {
    let port = free_port();
    let child = Command::new("/usr/bin/memcached")
        .args(["-l", "127.0.0.1", "-U", "0", "-u", "nobody", "-p", &port.to_string()])
        .args(options)
        .stderr(Stdio::null())
        .spawn()
        .inspect_err(|why| println!("skipped: no memcached to compare with: {why}"))
        .ok()?;
    let stock = Stock(child);
    let addr = SocketAddr::from(([127, 0, 0, 1], port));
    for _ in 0..500 {
        if TcpStream::connect(addr).is_ok() {
            return Some((stock, addr));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("memcached does not serve");
}

/// What is answered up to the reply to a `marker` that the bytes end with, which is left out.
fn ask(addr: SocketAddr, bytes: &[u8], marker: &[u8], end: &[u8]) -> Vec<u8> {
    let mut stream = connect(addr);
    stream.write_all(&[bytes, marker].concat()).unwrap();
    read_to(&mut stream, end)
}

fn connect(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(addr).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

/// What comes before `end`; `<closed>` behind it where the connection ends first.
fn read_to(stream: &mut impl Read, end: &[u8]) -> Vec<u8> {
    let (mut all, mut piece) = (Vec::new(), [0; 65536]);
    while !all.ends_with(end) {
        match stream.read(&mut piece) {
            Ok(0) => return [&all, &b"<closed>"[..]].concat(),
            // Some of what was sent is not read any more: the same.
            Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => {
                return [&all, &b"<closed>"[..]].concat();
            }
            Ok(n) => all.extend_from_slice(&piece[..n]),
            Err(e) => panic!("{e}, after {}", all.escape_ascii()),
        }
    }
    all.truncate(all.len() - end.len());
    all
}

fn text(addr: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    ask(addr, bytes, b"mn\r\n", b"MN\r\n")
}

fn packet(opcode: u8, cas: u64, extras: &[u8], key: &[u8], value: &[u8]) -> Vec<u8> {
    let body = (extras.len() + key.len() + value.len()) as u32;
    let mut out = vec![0x80, opcode];
    out.extend_from_slice(&(key.len() as u16).to_be_bytes());
    out.extend_from_slice(&[extras.len() as u8, 0, 0, 0]);
    out.extend_from_slice(&body.to_be_bytes());
    out.extend_from_slice(&[1, 2, 3, 4]);
    out.extend_from_slice(&cas.to_be_bytes());
    [extras, key, value].iter().for_each(|part| out.extend_from_slice(part));
    out
}

fn packets_of(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    while bytes.len() >= 24 {
        let body = u32::from_be_bytes(bytes[8..12].try_into().unwrap()) as usize;
        all.push(bytes[..24 + body].to_vec());
        bytes = &bytes[24 + body..];
    }
    all
}
