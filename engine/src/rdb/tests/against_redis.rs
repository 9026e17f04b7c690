//! The same bytes, read and written by a stock server. Skipped, with the reason, where there is none.

use std::{
    io::{BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    process::{Child, Command, Stdio},
};

use super::*;
use crate::rdb::writer::write_value;
use crate::types::stream::{Trim, TrimTo};

struct Server {
    process: Child,
    stream: BufReader<UnixStream>,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn program(name: &str) -> Option<Command> {
    match Command::new(name).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status() {
        Ok(_) => Some(Command::new(name)),
        Err(error) => {
            println!("skipped: {name} cannot be started: {error}");
            None
        }
    }
}

impl Server {
    /// Starts a server on a directory and waits until it says that it is ready.
    fn start(dir: &Path) -> Option<Self> {
        let socket = dir.join("redis.sock");
        let mut process = program("redis-server")?
            .args(["--port", "0", "--save", "", "--loglevel", "notice", "--unixsocket"])
            .arg(&socket)
            .arg("--dir")
            .arg(dir)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(process.stdout.take().unwrap());
        let mut seen = String::new();
        while !seen.contains("accept connections at") {
            if log.read_line(&mut seen).unwrap() == 0 {
                panic!("redis-server did not start: {seen}");
            }
        }
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        let stream = BufReader::new(UnixStream::connect(&socket).unwrap());
        Some(Self { process, stream })
    }

    /// Sends a command; an array comes back as its elements, anything else as one.
    fn call(&mut self, args: &[&[u8]]) -> Vec<Vec<u8>> {
        let mut request = format!("*{}\r\n", args.len()).into_bytes();
        for arg in args {
            request.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
            request.extend_from_slice(arg);
            request.extend_from_slice(b"\r\n");
        }
        self.stream.get_mut().write_all(&request).unwrap();
        let mut replies = Vec::new();
        self.reply(&mut replies);
        replies
    }

    fn text(&mut self, line: &str) -> Vec<String> {
        let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        self.call(&args).iter().map(|text| String::from_utf8_lossy(text).into_owned()).collect()
    }

    fn reply(&mut self, replies: &mut Vec<Vec<u8>>) {
        let mut line = String::new();
        self.stream.read_line(&mut line).unwrap();
        let (kind, rest) = line.trim_end().split_at(1);
        match kind {
            "*" => {
                for _ in 0..rest.parse::<usize>().unwrap() {
                    self.reply(replies);
                }
            }
            "$" if rest != "-1" => {
                let mut bytes = vec![0; rest.parse::<usize>().unwrap() + 2];
                self.stream.read_exact(&mut bytes).unwrap();
                bytes.truncate(bytes.len() - 2);
                replies.push(bytes);
            }
            "-" => panic!("{rest}"),
            _ => replies.push(rest.as_bytes().to_vec()),
        }
    }

    /// A key as [`describe`] shows a value.
    fn describe(&mut self, key: &str) -> Vec<String> {
        let pairs = |flat: Vec<String>| -> Vec<String> {
            flat.chunks(2).map(|pair| format!("{}={}", pair[0], pair[1])).collect()
        };
        let mut sorted = false;
        let mut lines = match self.text(&format!("TYPE {key}"))[0].as_str() {
            "string" => self.text(&format!("GET {key}")),
            "list" => self.text(&format!("LRANGE {key} 0 -1")),
            "set" => {
                sorted = true;
                self.text(&format!("SMEMBERS {key}"))
            }
            "hash" => {
                sorted = true;
                pairs(self.text(&format!("HGETALL {key}")))
            }
            "stream" => {
                let mut lines = Vec::new();
                let mut words = self.text(&format!("XINFO STREAM {key} FULL COUNT 0")).into_iter();
                while let Some(word) = words.next() {
                    if word == "radix-tree-nodes" || word == "lag" {
                        words.next();
                    } else {
                        lines.push(word);
                    }
                }
                lines
            }
            _ => pairs(self.text(&format!("ZRANGE {key} 0 -1 WITHSCORES"))),
        };
        if sorted {
            lines.sort();
        }
        lines
    }
}

#[test]
fn a_stock_server_loads_what_we_write() {
    let Some(_) = program("redis-server") else { return };
    let entries: Vec<_> = [1, 100, 1000].into_iter().flat_map(samples).collect();
    for version in [9, 10] {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("dump.rdb");
        let bytes = write(&entries, WriteOptions { version, compress: true, checksum: true });
        std::fs::write(&file, bytes).unwrap();
        if let Some(mut check) = program("redis-check-rdb") {
            let output = check.arg(&file).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        }
        let Some(mut server) = Server::start(dir.path()) else { return };
        assert_eq!(server.text("DBSIZE"), [entries.len().to_string()]);
        for (key, value) in &entries {
            // The oldest form of streams knows nothing of what was deleted.
            if version > 9 || !key.starts_with("gaps:") {
                assert_eq!(server.describe(key), describe(value), "{key} in version {version}");
            }
        }
        assert_eq!(server.text("PEXPIRETIME string:1"), ["4000000000000"]);
        // Version 9 spells small collections out; what the stock server makes of them is the same form again.
        for (key, value) in &entries {
            if let Value::Collection(collection) = value {
                let theirs = server.text(&format!("OBJECT ENCODING {key}"))[0].clone();
                let ours = collection.as_ref().encoding_name();
                // Redis 7.0 knows small lists and text sets only in their large form.
                let same = theirs == ours
                    || (theirs == "quicklist" && ours == "listpack")
                    || (theirs == "hashtable" && key.starts_with("set:"));
                assert!(same, "{key}: {theirs} and {ours}");
            }
        }
    }
}

#[test]
fn we_load_what_a_stock_server_writes() {
    let dir = tempfile::tempdir().unwrap();
    let Some(mut server) = Server::start(dir.path()) else { return };
    for (key, value) in [1, 100, 1000].into_iter().flat_map(samples) {
        let payload = dump_payload(value.as_ref(), 10);
        assert_eq!(server.call(&[b"RESTORE", key.as_bytes(), b"0", &payload]), [b"OK"]);
    }
    server.text("XGROUP CREATE empty group $ MKSTREAM");
    server.text("XREADGROUP GROUP idle reader COUNT 7 STREAMS gaps:1000 >");
    server.text("XADD gaps:1000 MAXLEN 900 5000-* a 1");
    server.text("SETEX soon 1000 value");
    for n in 0..3000 {
        server.text(&format!("RPUSH long {}", "x".repeat(n % 50)));
        server.text(&format!("ZADD board {} {n}", n % 17));
    }
    server.call(&[b"SET", b"large", &b"compressible ".repeat(10_000)]);
    let mut keys = server.text("KEYS *");
    keys.sort();
    server.text("SAVE");
    let bytes = std::fs::read(dir.path().join("dump.rdb")).unwrap();
    let mut found = Vec::new();
    for event in read(&bytes).unwrap() {
        if let Event::Key { key, value, expire_at_ms, .. } = event {
            let key = String::from_utf8(key).unwrap();
            assert_eq!(server.text(&format!("TYPE {key}")), [type_name(&value)]);
            assert_eq!(describe(&value), server.describe(&key), "{key}");
            assert_eq!(expire_at_ms.is_some(), key == "soon");
            let dumped = server.call(&[b"DUMP", key.as_bytes()]);
            let restored = restore_payload(&dumped[0], &Limits::default()).unwrap();
            assert_eq!(describe(&restored), describe(&value));
            found.push(key);
        }
    }
    found.sort();
    assert_eq!(found, keys);
}

#[test]
fn streams_are_the_same_bytes_as_those_of_a_stock_server() {
    let dir = tempfile::tempdir().unwrap();
    let Some(mut server) = Server::start(dir.path()) else { return };
    server.text("CONFIG SET rdbcompression no");
    let limits = Limits { stream_node_max_entries: 7, ..Limits::default() };
    server.text("CONFIG SET stream-node-max-entries 7");
    let mut stream = Stream::new();
    let big = "x".repeat(1000);
    for n in 1..200u64 {
        let id = StreamId { ms: n / 2, seq: n };
        let value = (n * 77).to_string();
        let mut pairs: Vec<&[u8]> = vec![b"field", value.as_bytes()];
        if n % 4 == 0 {
            pairs.extend([b"second".as_slice(), big.as_bytes()]);
        }
        stream.log_mut().append(id, &pairs, &limits);
        let id = id.to_string();
        let mut request: Vec<&[u8]> = vec![b"XADD", b"s", id.as_bytes()];
        request.extend(&pairs);
        assert_eq!(server.call(&request), [id.as_bytes()]);
        if n % 9 == 0 {
            let gone = StreamId { ms: (n - 3) / 2, seq: n - 3 };
            assert!(stream.log_mut().delete(gone));
            server.text(&format!("XDEL s {gone}"));
        }
        if n % 50 == 0 {
            let trim = Trim { to: TrimTo::Len(40), approximate: n % 100 == 0, limit: 0 };
            let sign = if trim.approximate { '~' } else { '=' };
            let gone = stream.log_mut().trim(trim);
            assert_eq!(server.text(&format!("XTRIM s MAXLEN {sign} 40")), [gone.to_string()]);
        }
        let options = WriteOptions { compress: false, ..WriteOptions::default() };
        let mut body = vec![19];
        let value = Collection::from(stream.clone());
        let value = ValueRef::Collection(value.as_ref());
        write_value(&mut body, value, &options, &mut |_| Ok(())).unwrap();
        let theirs = server.call(&[b"DUMP", b"s"]).remove(0);
        assert_eq!(body, theirs[..theirs.len() - 10], "after {n}");
    }
}
