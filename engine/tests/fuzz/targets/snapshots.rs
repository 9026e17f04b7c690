//! What comes from disks, from primaries and by RESTORE: values, snapshots, logs.

use std::io::{self, Error, ErrorKind, Read};
use std::path::Path;

use crc_fast::{CrcAlgorithm, checksum};
use engine::clock;
use engine::disk::{Disk, DiskFile};
use engine::persist::load;
use engine::persist::manifest::Manifest;
use engine::rdb::{self, Event, Reader, dump_payload, restore_payload};
use engine::types;

use super::alone::{Alone, each_request};
use super::{Target, owned, shape};

pub(super) const TARGETS: &[Target] = &[
    Target {
        name: "restore",
        seeds: payloads,
        words: &[b"\xff", b"\xc3", b"\x80\x00\x01\x00\x00"],
        runs: 40_000,
        feed: restore,
    },
    Target {
        name: "rdb",
        seeds: files,
        words: &[b"\xfe\x00", b"\xfb", b"\xf5", b"\xff", b"\xfa", b"\xf7"],
        runs: 20_000,
        feed: snapshot,
    },
    Target {
        name: "aof",
        seeds: logs,
        words: &[
            b"*1\r\n$5\r\nMULTI\r\n",
            b"*1\r\n$4\r\nEXEC\r\n",
            b"*2\r\n$6\r\nSELECT\r\n$1\r\n1\r\n",
            b"#TS:1\r\n",
            b"\r\n",
            b"REDIS0011",
        ],
        runs: 5_000,
        feed: log,
    },
];

/// What is wrong, without where.
fn why(error: &rdb::Error) -> String {
    let text = error.to_string();
    text.split_once(": ").map_or(text.clone(), |(_, why)| why.to_owned())
}

/// A payload whose version and checksum are right again.
fn signed(input: &[u8]) -> Vec<u8> {
    let mut payload = input.to_vec();
    payload.extend_from_slice(&11u16.to_le_bytes());
    payload.extend_from_slice(&checksum(CrcAlgorithm::Crc64Redis, &payload).to_le_bytes());
    payload
}

/// Bodies of payloads as servers of several versions write them.
fn payloads() -> Vec<Vec<u8>> {
    owned(&[
        b"\x00\x05hello",
        b"\x00\xc0\x2a",
        b"\x00\xc3\x05\x14\x01aa\xe0\x07\x00\x01aa",
        b"\x01\x02\x01a\x01b",
        b"\x02\x02\x01a\x01b",
        b"\x04\x01\x01f\x01v",
        b"\x05\x01\x01m\x00\x00\x00\x00\x00\x00\xf0\x3f",
        b"\x0b\x0a\x02\x00\x00\x00\x01\x00\x00\x00\x01\x00",
        b"\x10\x0d\x0d\x00\x00\x00\x02\x00\x81f\x02\x81v\x02\xff",
        b"\x11\x0c\x0c\x00\x00\x00\x02\x00\x81m\x02\x01\x01\xff",
        b"\x12\x01\x02\x0b\x0b\x00\x00\x00\x01\x00\x83abc\x04\xff",
        b"\x14\x0b\x0b\x00\x00\x00\x01\x00\x83abc\x04\xff",
        b"\x0a\x0f\x0f\x00\x00\x00\x0a\x00\x00\x00\x01\x00\x00\x02hi\xff",
        b"\x0f\x01\x10\x00\x00\x01\x8b\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x1d\x1d\x00\x00\x00\x0a\x00\x01\x01\x00\x01\x01\x01\x81f\x02\x00\x01\x02\x01\x00\x01\x00\x01\x81v\x02\x04\x01\xff\x01\x81\x00\x00\x01\x8b\x00\x00\x00",
    ])
}

/// Payloads are refused, or read back the same.
fn restore(input: &[u8]) -> u64 {
    let limits = types::Limits::default();
    let value = match restore_payload(&signed(input), &limits) {
        Ok(value) => value,
        Err(error) => return shape(why(&error)),
    };
    // What is read may be kept in another way than it came in; from there on it stays as it is.
    let again = |bytes: &[u8]| {
        let value = restore_payload(bytes, &limits);
        let value = value.unwrap_or_else(|error| panic!("read back: {error}"));
        dump_payload(value.as_ref(), rdb::VERSION)
    };
    let written = again(&dump_payload(value.as_ref(), rdb::VERSION));
    assert_eq!(again(&written), written);
    shape((input.first().copied(), written.len().min(40)))
}

fn files() -> Vec<Vec<u8>> {
    let mut files = vec![b"REDIS0011\xfa\x09redis-ver\x057.2.0\xfe\x00\xfb\x01\x00\x00\x01k\x01v\xff\0\0\0\0\0\0\0\0".to_vec()];
    for payload in payloads() {
        let mut file = b"REDIS0011\xfe\x00\xfc\x00\x00\x00\x00\x00\x01\x00\x00".to_vec();
        file.push(payload[0]);
        file.extend_from_slice(b"\x01k");
        file.extend_from_slice(&payload[1..]);
        file.extend_from_slice(b"\xff\0\0\0\0\0\0\0\0");
        files.push(file);
    }
    files
}

/// Snapshots are refused, or read to their end; what is read can be loaded, and there are as many keys as were told.
fn snapshot(input: &[u8]) -> u64 {
    thread_local! {
        static SERVER: Alone = Alone::new();
    }
    let mut reader = Reader::new(input, types::Limits::default());
    let mut keys = 0;
    loop {
        match reader.next_event() {
            Ok(Event::End) => break,
            Ok(Event::Key { .. }) => keys += 1,
            // What a library does when it is run is another target's.
            Ok(Event::Function(_)) => return shape(("library", keys)),
            Ok(_) => {}
            Err(error) => return shape((keys, why(&error))),
        }
    }
    SERVER.with(|server| {
        let loaded = load::snapshot(&server.shared, input, true, |_| {}).map(|origin| origin.keys);
        let digest = server.digest(clock::unix_ms());
        assert!(!digest.starts_with(b"-"), "{}", digest.escape_ascii());
        load::empty(&server.shared);
        server.tidy();
        assert!(loaded.as_ref().is_err() || loaded == Ok(keys), "{loaded:?} of {keys}");
        shape(("end", keys, loaded.is_ok()))
    })
}

fn logs() -> Vec<Vec<u8>> {
    owned(&[
        b"*2\r\n$6\r\nSELECT\r\n$1\r\n0\r\n*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r\n*2\r\n$3\r\nDEL\r\n$1\r\nk\r\n",
        b"*1\r\n$5\r\nMULTI\r\n*3\r\n$5\r\nRPUSH\r\n$1\r\nl\r\n$1\r\na\r\n*1\r\n$4\r\nEXEC\r\n",
        b"#TS:1700000000\r\n*4\r\n$4\r\nHSET\r\n$1\r\nh\r\n$1\r\nf\r\n$1\r\nv\r\n*1\r\n$5\r\nMULTI\r\n*2\r\n$4\r\nINCR\r\n",
        b"file a.base.rdb seq 1 type b\nfile a.incr.aof seq 1 type i\n\0REDIS0011\xfe\x00\x00\x01k\x01v\xff\0\0\0\0\0\0\0\0",
        b"file \"a b.base.aof\" seq 1 type b\nfile h seq 1 type h\nfile i seq 2 type i startoffset 5\n\0*1\r\n$4\r\nPING\r\n",
        // A name with a space that is no blank was written without quotes, and could not be read back.
        b"file \"0\r.ao\x80f\" seq 1 type b\nfile i seq 2 type i st\x01artoffset 0x10\n\x00*1\r\n$4\t\n",
        // A comment within a transaction that is torn was taken off the offset, which it had never been added to.
        b"*1\r\n$5\r\nMULTI\r\n#TS:170256\r\n*",
    ])
}

/// A disk on which every file is the same, and nothing can be written.
struct Same(Vec<u8>);

fn unwritable<T>() -> io::Result<T> {
    Err(Error::new(ErrorKind::ReadOnlyFilesystem, "nothing is written here"))
}

impl Disk for Same {
    fn make_folder(&self, _: &Path) -> io::Result<()> {
        unwritable()
    }

    fn create(&self, _: &Path) -> io::Result<Box<dyn DiskFile>> {
        unwritable()
    }

    fn append(&self, _: &Path) -> io::Result<Box<dyn DiskFile>> {
        unwritable()
    }

    fn open(&self, _: &Path) -> io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(io::Cursor::new(self.0.clone())))
    }

    fn len(&self, _: &Path) -> io::Result<u64> {
        Ok(self.0.len() as u64)
    }

    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        unwritable()
    }

    fn remove(&self, _: &Path) -> io::Result<()> {
        unwritable()
    }

    fn list(&self, _: &Path) -> io::Result<Vec<String>> {
        Ok(Vec::new())
    }

    fn sync_folder(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
}

/// Files of a log with these words may run for long, or end the process, as whoever can write a log has it.
const RUNS: &[&[u8]] = &[
    b"eval",
    b"evalsha",
    b"fcall",
    b"function",
    b"script",
    b"shutdown",
    b"debug",
    b"replicaof",
    b"slaveof",
    b"config",
    b"failover",
    b"migrate",
    b"save",
    b"bgsave",
    b"bgrewriteaof",
    b"sync",
    b"psync",
    b"acl",
    b"client",
];

/// A line of a manifest that is not too long, bytes.
const LINE_BYTES: usize = 1000;

/// A manifest, a zero and what is in each of its files; without a zero one file of requests.
fn log(input: &[u8]) -> u64 {
    thread_local! {
        static SERVER: Alone = Alone::new();
    }
    let cut = input.iter().position(|b| *b == 0);
    let (text, file) = match cut {
        Some(at) => (&input[..at], &input[at + 1..]),
        None => (b"file a seq 1 type i".as_slice(), input),
    };
    let manifest = match Manifest::parse(&String::from_utf8_lossy(text)) {
        Ok(manifest) => manifest,
        Err(why) => return shape(why.split_once(": ").map(|(_, why)| why.to_owned())),
    };
    let again = manifest.text();
    // Quotes make a line longer, and there are lines that are as long as they may be.
    if again.lines().all(|line| line.len() < LINE_BYTES) {
        assert_eq!(Manifest::parse(&again).map(|m| m.text()), Ok(again));
    }
    let mut runs = file.starts_with(b"REDIS") && file.contains(&0xf5);
    each_request(file, |args| {
        runs |= RUNS.iter().any(|word| args[0].eq_ignore_ascii_case(word));
        !runs
    });
    if runs || manifest.incr.len() > 4 {
        return shape("left out");
    }
    SERVER.with(|server| {
        let disk = Same(file.to_vec());
        let loaded = load::log(&server.shared, &disk, Path::new("log"), &manifest);
        let digest = server.digest(clock::unix_ms());
        assert!(!digest.starts_with(b"-"), "{}", digest.escape_ascii());
        load::empty(&server.shared);
        server.tidy();
        match loaded {
            Ok(loaded) => {
                assert!(loaded.last_len <= file.len() as u64);
                shape(("loaded", loaded.origin.keys, loaded.origin.db))
            }
            Err(why) => {
                let digits = |c: char| c.is_ascii_digit();
                shape(why.split(digits).next().map(str::to_owned))
            }
        }
    })
}

/// It came out short by the comment, or below zero.
#[test]
fn the_offset_of_a_log_is_that_behind_its_last_whole_request() {
    let server = Alone::new();
    let manifest = Manifest::parse("file a seq 1 type i").unwrap();
    let whole = b"*1\r\n$4\r\nPING\r\n";
    let torn = [whole.as_slice(), b"*1\r\n$5\r\nMULTI\r\n#TS:1\r\n*1\r\n$4\r\nPING\r\n"].concat();
    let loaded = load::log(&server.shared, &Same(torn), Path::new("log"), &manifest);
    assert_eq!(loaded.map(|l| (l.origin.offset, l.last_len)), Ok((14, 14)));
}
