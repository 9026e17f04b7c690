//! Real servers as child processes and a plain RESP client, for tests over sockets.
//!
//! `Server::larder` is the engine under test (or the binary that `SERVER_UNDER_TEST` names), and
//! `Server::oracle` the stock redis-server, when it is installed.

#![allow(dead_code, reason = "each test binary uses its own part of this module")]

pub(crate) mod dice;
pub(crate) mod value;

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

pub(crate) use value::Value;

pub(crate) struct Server {
    pub(crate) addr: SocketAddr,
    child: Child,
    dir: tempfile::TempDir,
}

fn larder() -> PathBuf {
    std::env::var_os("SERVER_UNDER_TEST")
        .unwrap_or_else(|| env!("CARGO_BIN_EXE_larder-server").into())
        .into()
}

impl Server {
    pub(crate) fn larder(extra: &[&str]) -> Self {
        Self::start(larder(), &[], extra)
    }

    /// The engine with a configuration file; port and folder are the test's own.
    pub(crate) fn larder_from(file: &Path) -> Self {
        Self::start(larder(), &[&file.to_string_lossy()], &[])
    }

    /// The engine with so many file descriptors and no more.
    pub(crate) fn larder_with_files(count: usize) -> Self {
        let run = format!("ulimit -n {count}; exec \"$0\" \"$@\"");
        Self::start("/bin/sh".into(), &["-c", &run, &larder().to_string_lossy()], &[])
    }

    /// None, and why, where no redis-server is installed.
    pub(crate) fn oracle(extra: &[&str]) -> Result<Self, String> {
        let paths = std::env::var_os("PATH").unwrap_or_default();
        let binary = std::env::split_paths(&paths)
            .map(|dir| dir.join("redis-server"))
            .find(|path| path.is_file())
            .ok_or("no redis-server on the PATH")?;
        Ok(Self::start(binary, &[], extra))
    }

    fn start(binary: PathBuf, first: &[&str], extra: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        // Another process may take the port between the question and the start: ask again then.
        for _ in 0..5 {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let mut child = Command::new(&binary)
                .args(first)
                .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""])
                .args(["--appendonly", "no", "--dir"])
                .arg(dir.path())
                .args(extra)
                .stdin(Stdio::null())
                .stdout(std::fs::File::create(dir.path().join("log")).unwrap())
                .stderr(std::fs::File::create(dir.path().join("errors")).unwrap())
                .spawn()
                .unwrap_or_else(|error| panic!("start {}: {error}", binary.display()));
            let addr = SocketAddr::from(([127, 0, 0, 1], port));
            for _ in 0..1000 {
                // Before that it may accept clients and answer them that it is loading.
                let log = std::fs::read_to_string(dir.path().join("log")).unwrap_or_default();
                if log.contains("Ready to accept connections") {
                    return Self { addr, child, dir };
                }
                if child.try_wait().unwrap().is_some() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        let read = |name| std::fs::read_to_string(dir.path().join(name)).unwrap_or_default();
        panic!("{} does not serve: {}{}", binary.display(), read("log"), read("errors"));
    }

    pub(crate) fn connect(&self) -> Client {
        Client::new(self.addr)
    }

    pub(crate) fn is_alive(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|status| status.is_none())
    }

    /// What the server has written to its log and to its error output.
    pub(crate) fn log(&self) -> String {
        let read = |name| std::fs::read(self.dir.path().join(name)).unwrap_or_default();
        String::from_utf8_lossy(&[read("log"), read("errors")].concat()).into_owned()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    input: Vec<u8>,
    at: usize,
}

/// No reply of a test takes longer, however loaded the machine is.
const PATIENCE: Duration = Duration::from_secs(20);

impl Client {
    pub(crate) fn new(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { stream, input: Vec::new(), at: 0 }
    }

    pub(crate) fn send_raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// For bytes to a server that may close the connection while they are on their way.
    pub(crate) fn try_send_raw(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    pub(crate) fn send<A: AsRef<[u8]>>(&mut self, args: &[A]) {
        self.send_raw(&encode(args));
    }

    /// Panics when the server closes the connection or stays silent.
    pub(crate) fn command<A: AsRef<[u8]>>(&mut self, args: &[A]) -> Value {
        self.send(args);
        self.reply().unwrap_or_else(|why| {
            let words: Vec<_> =
                args.iter().map(|arg| String::from_utf8_lossy(arg.as_ref())).collect();
            panic!("{}: {why}", words.join(" "))
        })
    }

    /// A command written as words without spaces in them.
    pub(crate) fn words(&mut self, words: &str) -> Value {
        self.command(&words.split_whitespace().collect::<Vec<_>>())
    }

    pub(crate) fn reply(&mut self) -> Result<Value, String> {
        loop {
            if let Some((value, used)) = Value::parse(&self.input[self.at..])? {
                self.at += used;
                if self.at == self.input.len() {
                    self.input.clear();
                    self.at = 0;
                }
                return Ok(value);
            }
            let mut buffer = [0; 16 * 1024];
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err("connection closed".into()),
                Ok(read) => self.input.extend_from_slice(&buffer[..read]),
                Err(error) => return Err(format!("no reply: {error}")),
            }
        }
    }

    /// Everything that comes until the server closes the connection; the flag says whether it
    /// did so within `patience`.
    pub(crate) fn drain(&mut self, patience: Duration) -> (Vec<u8>, bool) {
        self.stream.set_read_timeout(Some(patience)).unwrap();
        let mut all = self.input.split_off(self.at);
        self.input.clear();
        self.at = 0;
        let mut buffer = [0; 16 * 1024];
        let closed = loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => break true,
                Ok(read) => all.extend_from_slice(&buffer[..read]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    break !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
                }
            }
        };
        self.stream.set_read_timeout(Some(PATIENCE)).unwrap();
        (all, closed)
    }

    /// Reads and forgets until `mark` has come; `false` when the connection is closed or silent before.
    pub(crate) fn read_until(&mut self, mark: &[u8]) -> bool {
        let mut all = self.input.split_off(self.at);
        self.input.clear();
        self.at = 0;
        let mut buffer = [0; 16 * 1024];
        while !all.windows(mark.len()).any(|part| part == mark) {
            // What was looked at is forgotten, but for what may be the first half of the mark.
            all.drain(..all.len().saturating_sub(mark.len()));
            match self.stream.read(&mut buffer) {
                Ok(0) | Err(_) => return false,
                Ok(read) => all.extend_from_slice(&buffer[..read]),
            }
        }
        true
    }

    pub(crate) fn finish_writing(&self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }
}

pub(crate) fn encode<A: AsRef<[u8]>>(args: &[A]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", args.len()).into_bytes();
    for arg in args {
        let arg = arg.as_ref();
        out.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
        out.extend_from_slice(arg);
        out.extend_from_slice(b"\r\n");
    }
    out
}
