//! A pod's worth of test tool, in one static file: it holds a pod open, serves, fetches, resolves, reads and writes.
//!
//! The harness compiles it with `rustc` alone. It is the pause image and the probe image of the test cluster.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, ToSocketAddrs};
use std::time::Duration;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["pause"] => loop {
            std::thread::park();
        },
        ["serve", port] => serve(port),
        ["get", host, port] => get(host, port),
        ["resolve", name] => resolve(name),
        ["write", file, text] => std::fs::write(file, text),
        ["read", file] => std::fs::read_to_string(file).map(|text| println!("{text}")),
        _ => {
            eprintln!("probe pause | serve PORT | get HOST PORT | resolve NAME | write FILE TEXT | read FILE");
            std::process::exit(2);
        }
    };
    if let Err(error) = result {
        eprintln!("{}: {error}", words.join(" "));
        std::process::exit(1);
    }
}

/// Answers every connection with the pod's name.
fn serve(port: &str) -> std::io::Result<()> {
    let name = std::fs::read_to_string("/etc/hostname").unwrap_or_default();
    let listener = TcpListener::bind(format!("0.0.0.0:{port}"))?;
    for connection in listener.incoming() {
        connection?.write_all(name.trim().as_bytes()).ok();
    }
    Ok(())
}

fn get(host: &str, port: &str) -> std::io::Result<()> {
    let mut last = std::io::Error::other("no address");
    for address in format!("{host}:{port}").to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, Duration::from_secs(3)) {
            Ok(mut connection) => {
                connection.set_read_timeout(Some(Duration::from_secs(3)))?;
                let mut answer = String::new();
                connection.read_to_string(&mut answer)?;
                println!("{answer}");
                return Ok(());
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn resolve(name: &str) -> std::io::Result<()> {
    for address in format!("{name}:0").to_socket_addrs()? {
        println!("{}", address.ip());
    }
    Ok(())
}
