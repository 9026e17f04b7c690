//! Servers as processes, and a client that speaks just enough RESP2 to look at them.
#![allow(dead_code, reason = "each test file uses a part of it")]

#[path = "../support/ports.rs"]
mod ports;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

pub(crate) use ports::free_port;

pub(crate) const REDIS: &str = "/usr/bin/redis-server";

/// A server under test, killed when it is dropped.
pub(crate) struct Server {
    pub port: u16,
    child: Child,
}

impl Server {
    pub(crate) fn start(dir: &Path, args: &[&str]) -> Server {
        Server::on(free_port(), dir, args)
    }

    pub(crate) fn on(port: u16, dir: &Path, args: &[&str]) -> Server {
        let mut server = Server::spawn(env!("CARGO_BIN_EXE_larder-server"), port, dir, args);
        server.await_ready();
        server
    }

    /// As `on`, with nothing but a configuration file.
    pub(crate) fn configured(port: u16, dir: &Path, file: &Path) -> Server {
        let program = env!("CARGO_BIN_EXE_larder-server");
        let mut server = Server::run(program, port, dir, &[file.to_str().unwrap()]);
        server.await_ready();
        server
    }

    /// A real redis-server, where there is one.
    pub(crate) fn redis(dir: &Path, args: &[&str]) -> Option<Server> {
        if !Path::new(REDIS).exists() {
            println!("skipped: there is no {REDIS}");
            return None;
        }
        let mut server = Server::spawn(REDIS, free_port(), dir, args);
        server.await_ready();
        Some(server)
    }

    pub(crate) fn spawn(program: &str, port: u16, dir: &Path, args: &[&str]) -> Server {
        let port_text = port.to_string();
        let mut all = vec!["--port", &port_text, "--dir", dir.to_str().unwrap()];
        if !args.contains(&"--save") {
            all.extend(["--save", ""]);
        }
        all.extend(args);
        Server::run(program, port, dir, &all)
    }

    /// A program with exactly these arguments; `port` is where it will listen.
    pub(crate) fn run(program: &str, port: u16, dir: &Path, args: &[&str]) -> Server {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(dir.join(format!("{port}.log")))
            .unwrap();
        let child = Command::new(program)
            .args(args)
            .stdout(Stdio::from(log.try_clone().unwrap()))
            .stderr(Stdio::from(log))
            .spawn()
            .unwrap();
        Server { port, child }
    }

    fn await_ready(&mut self) {
        for _ in 0..3000 {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("the server on {} ended: {status}", self.port);
            }
            // One that ends while it is asked resets the connection: the next look tells with which status.
            let asked = |words: &[&str]| Client::try_connect(self.port)?.try_call(words);
            if asked(&["PING"]).is_ok_and(|reply| reply == "PONG")
                && asked(&["DBSIZE"]).is_ok_and(|reply| !reply.starts_with("-LOADING"))
            {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("the server on {} does not get ready", self.port);
    }

    pub(crate) fn client(&self) -> Client {
        Client::try_connect(self.port).unwrap()
    }

    /// kill -9.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn signal(&self, signal: &str) {
        let pid = self.pid().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    /// kill, and waits for its end.
    pub(crate) fn terminate(&mut self) {
        self.signal("-TERM");
        self.ended();
    }

    /// Waits for the end of the process; gives its exit code.
    pub(crate) fn ended(&mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    pub(crate) fn try_connect(port: u16) -> std::io::Result<Client> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        Ok(Client { stream: BufReader::new(stream) })
    }

    pub(crate) fn send(&mut self, args: &[&str]) -> std::io::Result<()> {
        let mut bytes = format!("*{}\r\n", args.len()).into_bytes();
        for arg in args {
            bytes.extend_from_slice(format!("${}\r\n{arg}\r\n", arg.len()).as_bytes());
        }
        self.stream.get_mut().write_all(&bytes)
    }

    /// A reply as text: errors with their `-`, arrays joined by spaces, null as `(nil)`.
    pub(crate) fn reply(&mut self) -> std::io::Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let line = line.trim_end();
        let number = || line[1..].parse::<i64>().unwrap();
        Ok(match line.as_bytes()[0] {
            b'+' | b':' => line[1..].to_string(),
            b'$' if number() < 0 => "(nil)".into(),
            b'*' if number() < 0 => "(nil)".into(),
            b'$' => {
                let mut bytes = vec![0; number() as usize + 2];
                self.stream.read_exact(&mut bytes)?;
                bytes.truncate(bytes.len() - 2);
                String::from_utf8_lossy(&bytes).into_owned()
            }
            // A map of RESP3 has twice as many, a push is an array that nobody asked for.
            kind @ (b'*' | b'>' | b'%') => {
                let parts = number() * if kind == b'%' { 2 } else { 1 };
                let parts: std::io::Result<Vec<String>> =
                    (0..parts).map(|_| self.reply()).collect();
                parts?.join(" ")
            }
            _ => line.to_string(),
        })
    }

    pub(crate) fn try_call(&mut self, args: &[&str]) -> std::io::Result<String> {
        self.send(args)?;
        self.reply()
    }

    pub(crate) fn call(&mut self, args: &[&str]) -> String {
        self.try_call(args).unwrap()
    }

    pub(crate) fn ok(&mut self, args: &[&str]) {
        assert_eq!(self.call(args), "OK", "{args:?}");
    }

    pub(crate) fn info(&mut self, field: &str) -> String {
        let text = self.call(&["INFO", "everything"]);
        let line = text.lines().find_map(|l| l.strip_prefix(&format!("{field}:")));
        line.unwrap_or_default().to_string()
    }

    /// Asks until the answer is as expected.
    pub(crate) fn until(&mut self, args: &[&str], expected: &str) {
        let mut last = String::new();
        for _ in 0..2000 {
            last = self.call(args);
            if last == expected {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("{args:?} is {last:?}, expected {expected:?}");
    }

    pub(crate) fn until_info(&mut self, field: &str, expected: &str) {
        let mut last = String::new();
        for _ in 0..2000 {
            last = self.info(field);
            if last == expected {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("{field} is {last:?}, expected {expected:?}");
    }
}

/// Every type of value, and keys that expire.
pub(crate) fn fill(client: &mut Client) {
    client.ok(&["SET", "string", "value"]);
    client.ok(&["SET", "number", "12345"]);
    client.ok(&["SET", "long", &"x".repeat(100_000)]);
    client.ok(&["SET", "later", "v", "EX", "1000"]);
    client.call(&["RPUSH", "list", "a", "b", "c"]);
    client.call(&["HSET", "hash", "f", "1", "g", "2"]);
    client.call(&["SADD", "set", "x", "y"]);
    client.call(&["SADD", "ints", "1", "2", "3"]);
    client.call(&["ZADD", "zset", "1.5", "a", "-2", "b"]);
    client.ok(&["SELECT", "3"]);
    client.ok(&["SET", "other", "db"]);
    client.ok(&["SELECT", "0"]);
}

pub(crate) fn check_filled(client: &mut Client) {
    assert_eq!(client.call(&["GET", "string"]), "value");
    assert_eq!(client.call(&["INCR", "number"]).as_str(), "12346");
    assert_eq!(client.call(&["DECR", "number"]).as_str(), "12345");
    check_filled_readonly(client);
}

pub(crate) fn check_filled_readonly(client: &mut Client) {
    assert_eq!(client.call(&["GET", "string"]), "value");
    assert_eq!(client.call(&["STRLEN", "long"]), "100000");
    let ttl: i64 = client.call(&["TTL", "later"]).parse().unwrap();
    assert!((900..=1000).contains(&ttl), "{ttl}");
    assert_eq!(client.call(&["LRANGE", "list", "0", "-1"]), "a b c");
    assert_eq!(client.call(&["HGET", "hash", "g"]), "2");
    assert_eq!(client.call(&["SCARD", "set"]), "2");
    assert_eq!(client.call(&["SISMEMBER", "ints", "3"]), "1");
    assert_eq!(client.call(&["ZRANGE", "zset", "0", "-1", "WITHSCORES"]), "b -2 a 1.5");
    client.ok(&["SELECT", "3"]);
    assert_eq!(client.call(&["GET", "other"]), "db");
    client.ok(&["SELECT", "0"]);
}
