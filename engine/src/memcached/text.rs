//! The text protocol: bytes to requests, without doing anything.
//!
//! ```text
//! <verb> <words...> [noreply]\r\n             set a 0 60 5\r\nhello\r\n
//! ```
//!
//! A line ends with `\n`, the `\r` before it may be missing; data is counted and ends with `\r\n`. What cannot be
//! understood is answered and left behind, with its data where its length is known, so that the connection stays
//! in step.

use smallvec::SmallVec;

use super::KEY_BYTES_MAX;
use super::meta::{self, Meta};
use super::ops::Mode;

/// Longest line, bytes; only the keys of `get` may go on for longer.
pub const LINE_BYTES_MAX: usize = 2048;
/// Longest value that may be announced at all, bytes.
const VALUE_BYTES_MAX: i64 = i32::MAX as i64 - 2;

pub const ERROR: &str = "ERROR";
pub const BAD_FORMAT: &str = "CLIENT_ERROR bad command line format";
pub const BAD_CHUNK: &str = "CLIENT_ERROR bad data chunk";
pub const TOO_LARGE: &str = "SERVER_ERROR object too large for cache";
const BAD_EXPTIME: &str = "CLIENT_ERROR invalid exptime argument";
const BAD_DELTA: &str = "CLIENT_ERROR invalid numeric delta argument";
const DELETE_USAGE: &str = "CLIENT_ERROR bad command line format.  Usage: delete <key> [noreply]";

/// The words of one line.
pub type Words<'b> = SmallVec<[&'b [u8]; 24]>;

/// How the keys of a `get` are answered, one after another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keys {
    pub cas: bool,
    /// `gat`: the new exptime.
    pub exptime: Option<i64>,
}

impl Keys {
    /// The request for one of them alone.
    pub(super) fn request_of(self, key: &[u8]) -> Vec<u8> {
        let s = if self.cas { "s" } else { "" };
        let begin = match self.exptime {
            Some(exptime) => format!("gat{s} {exptime} "),
            None => format!("get{s} "),
        };
        [begin.as_bytes(), key, b"\r\n"].concat()
    }
}

/// What follows a line: so many bytes of data, and `\r\n`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Storage<'b> {
    pub mode: Mode,
    pub key: &'b [u8],
    pub flags: u32,
    pub exptime: i64,
    pub bytes: usize,
    pub cas: Option<u64>,
    pub noreply: bool,
}

#[derive(Debug, PartialEq)]
pub enum Request<'b> {
    /// The keys stand behind it on the line.
    Get(Keys),
    Store(Storage<'b>),
    Meta(Meta<'b>),
    Count {
        key: &'b [u8],
        down: bool,
        delta: u64,
        noreply: bool,
    },
    Touch {
        key: &'b [u8],
        exptime: i64,
        noreply: bool,
    },
    Delete {
        key: &'b [u8],
        noreply: bool,
    },
    FlushAll {
        delay: i64,
        noreply: bool,
    },
    Version,
    Verbosity {
        noreply: bool,
    },
    Stats(Words<'b>),
    Crawl {
        what: Crawl,
    },
    Watch,
    RefreshCerts,
    Shutdown {
        graceful: bool,
    },
    Quit,
    /// Answered by a line that is known already; `skip` bytes of data are left out.
    Say {
        line: &'static str,
        noreply: bool,
        skip: u64,
    },
}

impl Request<'_> {
    /// Bytes of data that follow the line, the end of theirs with them.
    pub fn data_bytes(&self) -> u64 {
        match self {
            Request::Store(storage) => storage.bytes as u64 + 2,
            Request::Meta(Meta::Set { bytes, .. }) => *bytes as u64 + 2,
            Request::Say { skip, .. } => *skip,
            _ => 0,
        }
    }

    /// The client reads no answer: one would be taken for that of its next request.
    pub fn is_noreply(&self) -> bool {
        match self {
            Request::Store(storage) => storage.noreply,
            Request::Count { noreply, .. }
            | Request::Touch { noreply, .. }
            | Request::Delete { noreply, .. }
            | Request::FlushAll { noreply, .. }
            | Request::Verbosity { noreply }
            | Request::Say { noreply, .. } => *noreply,
            _ => false,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crawl {
    Metadump,
    Mgdump,
}

fn say<'b>(line: &'static str) -> Request<'b> {
    Request::Say { line, noreply: false, skip: 0 }
}

fn say_unless<'b>(noreply: bool, line: &'static str) -> Request<'b> {
    Request::Say { line, noreply, skip: 0 }
}

/// The words of a line, without its end.
pub fn words(line: &[u8]) -> Words<'_> {
    line.split(|b| *b == b' ').filter(|word| !word.is_empty()).collect()
}

/// The request of a whole line. For `get` only the verb is looked at.
pub fn decode(line: &[u8]) -> Request<'_> {
    let all = words(line);
    let Some((verb, rest)) = all.split_first() else { return say(ERROR) };
    match *verb {
        b"get" | b"gets" if rest.is_empty() => say(ERROR),
        b"get" => Request::Get(Keys { cas: false, exptime: None }),
        b"gets" => Request::Get(Keys { cas: true, exptime: None }),
        b"gat" | b"gats" => gat(rest, verb.len() == 4),
        b"mg" | b"ms" | b"md" | b"ma" | b"me" => meta::decode(verb[1], rest),
        b"mn" => Request::Meta(Meta::Noop),
        b"set" => storage(Mode::Set, rest, false),
        b"add" => storage(Mode::Add, rest, false),
        b"replace" => storage(Mode::Replace, rest, false),
        b"append" => storage(Mode::Append, rest, false),
        b"prepend" => storage(Mode::Prepend, rest, false),
        b"cas" => storage(Mode::Set, rest, true),
        b"incr" => count(rest, false),
        b"decr" => count(rest, true),
        b"touch" => touch(rest),
        b"delete" => delete(rest),
        b"flush_all" => flush_all(rest),
        b"version" => Request::Version,
        b"verbosity" => verbosity(rest),
        b"stats" => Request::Stats(rest.iter().copied().collect()),
        b"lru_crawler" => lru_crawler(rest),
        b"slabs" => slabs(rest),
        b"lru" if rest.len() >= 2 => say("ERROR the LRU of memcached is not in this server"),
        b"cache_memlimit" if !rest.is_empty() => {
            say("CLIENT_ERROR the limit is maxmemory: CONFIG SET changes it")
        }
        b"watch" => Request::Watch,
        b"refresh_certs" => Request::RefreshCerts,
        b"shutdown" => Request::Shutdown { graceful: rest.first() == Some(&&b"graceful"[..]) },
        b"quit" => Request::Quit,
        _ => say(ERROR),
    }
}

/// The line asks for its keys one by one, as far as it is there.
pub fn begins_get(line: &[u8]) -> bool {
    let line = line.trim_ascii_start();
    line.starts_with(b"get ") || line.starts_with(b"gets ")
}

fn is_noreply(rest: &[&[u8]]) -> bool {
    rest.last() == Some(&&b"noreply"[..])
}

fn number<T: std::str::FromStr>(word: &[u8]) -> Option<T> {
    std::str::from_utf8(word).ok()?.parse().ok()
}

fn gat<'b>(rest: &[&'b [u8]], cas: bool) -> Request<'b> {
    let Some(word) = rest.first() else { return say(ERROR) };
    match number::<i32>(word) {
        Some(exptime) => Request::Get(Keys { cas, exptime: Some(i64::from(exptime)) }),
        None => say(BAD_EXPTIME),
    }
}

fn storage<'b>(mode: Mode, rest: &[&'b [u8]], is_cas: bool) -> Request<'b> {
    let fixed = if is_cas { 5 } else { 4 };
    if rest.len() < fixed || rest.len() > fixed + 1 {
        return say(ERROR);
    }
    let noreply = is_noreply(&rest[fixed..]);
    // The length counts even where all else is wrong: the data is not to be taken for requests.
    let bytes = number::<i64>(rest[3]).filter(|n| (0..=VALUE_BYTES_MAX).contains(n));
    let skip = bytes.map_or(0, |n| n as u64 + 2);
    let refused = Request::Say { line: BAD_FORMAT, noreply, skip };
    let (Some(bytes), Some(flags), Some(exptime)) =
        (bytes, number::<u32>(rest[1]), number::<i32>(rest[2]))
    else {
        return refused;
    };
    let cas = if is_cas { number::<u64>(rest[4]) } else { None };
    if rest[0].len() > KEY_BYTES_MAX || is_cas && cas.is_none() {
        return refused;
    }
    let exptime = i64::from(exptime);
    let bytes = bytes as usize;
    Request::Store(Storage { mode, key: rest[0], flags, exptime, bytes, cas, noreply })
}

fn count<'b>(rest: &[&'b [u8]], down: bool) -> Request<'b> {
    if rest.len() < 2 || rest.len() > 3 {
        return say(ERROR);
    }
    let noreply = is_noreply(&rest[2..]);
    if rest[0].len() > KEY_BYTES_MAX {
        return say_unless(noreply, BAD_FORMAT);
    }
    match number::<u64>(rest[1]) {
        Some(delta) => Request::Count { key: rest[0], down, delta, noreply },
        None => say_unless(noreply, BAD_DELTA),
    }
}

fn touch<'b>(rest: &[&'b [u8]]) -> Request<'b> {
    if rest.len() < 2 || rest.len() > 3 {
        return say(ERROR);
    }
    let noreply = is_noreply(&rest[2..]);
    if rest[0].len() > KEY_BYTES_MAX {
        return say_unless(noreply, BAD_FORMAT);
    }
    match number::<i32>(rest[1]) {
        Some(exptime) => Request::Touch { key: rest[0], exptime: i64::from(exptime), noreply },
        None => say_unless(noreply, BAD_EXPTIME),
    }
}

/// Clients of old gave a time, of which only 0 is left.
fn delete<'b>(rest: &[&'b [u8]]) -> Request<'b> {
    if rest.is_empty() || rest.len() > 3 {
        return say(ERROR);
    }
    let noreply = is_noreply(&rest[1..]);
    match &rest[1..] {
        [] | [b"0" | b"noreply"] | [b"0", b"noreply"] => {}
        _ => return say_unless(noreply, DELETE_USAGE),
    }
    if rest[0].len() > KEY_BYTES_MAX {
        return say_unless(noreply, BAD_FORMAT);
    }
    Request::Delete { key: rest[0], noreply }
}

fn flush_all<'b>(rest: &[&'b [u8]]) -> Request<'b> {
    let noreply = is_noreply(rest);
    match rest {
        [] | [b"noreply"] => Request::FlushAll { delay: 0, noreply },
        [delay] | [delay, _] => match number::<i32>(delay) {
            Some(delay) => Request::FlushAll { delay: i64::from(delay), noreply },
            None => say_unless(noreply, BAD_EXPTIME),
        },
        _ => say(ERROR),
    }
}

fn verbosity<'b>(rest: &[&'b [u8]]) -> Request<'b> {
    let noreply = is_noreply(rest);
    match rest {
        [b"noreply"] => say_unless(true, ERROR),
        [level] | [level, _] if number::<u32>(level).is_some() => Request::Verbosity { noreply },
        [_] | [_, _] => say_unless(noreply, BAD_FORMAT),
        _ => say(ERROR),
    }
}

/// There is no crawler to be tuned: expired items go by themselves. What tools read is there.
fn lru_crawler<'b>(rest: &[&'b [u8]]) -> Request<'b> {
    match rest {
        [b"metadump", _] => Request::Crawl { what: Crawl::Metadump },
        [b"mgdump", _] => Request::Crawl { what: Crawl::Mgdump },
        [b"enable" | b"disable"] | [b"crawl" | b"sleep" | b"tocrawl", _] => say("OK"),
        _ => say(ERROR),
    }
}

fn slabs<'b>(rest: &[&'b [u8]]) -> Request<'b> {
    match rest {
        [b"reassign", from, to] if number::<i32>(from).is_some() && number::<i32>(to).is_some() => {
            say("NOSPARE source class has no spare pages")
        }
        [b"automove", _, ..] => say("OK"),
        [b"reassign", ..] => say(BAD_FORMAT),
        _ => say(ERROR),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(key: &[u8], bytes: usize) -> Storage<'_> {
        let (mode, exptime) = (Mode::Set, 0);
        Storage { mode, key, flags: 0, exptime, bytes, cas: None, noreply: false }
    }

    #[test]
    fn each_line_is_the_request_that_it_says() {
        let a = &b"a"[..];
        for (line, expected) in [
            (&b"get a b"[..], Request::Get(Keys { cas: false, exptime: None })),
            (b"gets a", Request::Get(Keys { cas: true, exptime: None })),
            (b"gat 10 a", Request::Get(Keys { cas: false, exptime: Some(10) })),
            (b"gats -1 a", Request::Get(Keys { cas: true, exptime: Some(-1) })),
            (b"set a 0 0 5", Request::Store(store(a, 5))),
            (
                b"cas a 7 9 5 4 noreply",
                Request::Store(Storage {
                    flags: 7,
                    exptime: 9,
                    cas: Some(4),
                    noreply: true,
                    ..store(a, 5)
                }),
            ),
            (b"incr a 5", Request::Count { key: a, down: false, delta: 5, noreply: false }),
            (b"decr a 5 noreply", Request::Count { key: a, down: true, delta: 5, noreply: true }),
            (b"touch a -1", Request::Touch { key: a, exptime: -1, noreply: false }),
            (b"delete a 0 noreply", Request::Delete { key: a, noreply: true }),
            (b"flush_all 5 noreply", Request::FlushAll { delay: 5, noreply: true }),
            (b"version", Request::Version),
            (b"verbosity 2", Request::Verbosity { noreply: false }),
            (b"quit", Request::Quit),
            (b"mn", Request::Meta(Meta::Noop)),
            (b"lru_crawler metadump all", Request::Crawl { what: Crawl::Metadump }),
            (b"shutdown graceful", Request::Shutdown { graceful: true }),
        ] {
            assert_eq!(decode(line), expected, "{}", line.escape_ascii());
        }
    }

    #[test]
    fn what_is_wrong_is_said_and_its_data_left_out() {
        let long = [b"set ", &[b'k'; 251][..], b" 0 0 5"].concat();
        let say = |line, noreply, skip| Request::Say { line, noreply, skip };
        for (line, expected) in [
            (&b""[..], say(ERROR, false, 0)),
            (b"   ", say(ERROR, false, 0)),
            (b"GET a", say(ERROR, false, 0)),
            (b"get", say(ERROR, false, 0)),
            (b"set a 0 0", say(ERROR, false, 0)),
            (&long, say(BAD_FORMAT, false, 7)),
            (b"set a x 0 5", say(BAD_FORMAT, false, 7)),
            (b"set a -1 0 5 noreply", say(BAD_FORMAT, true, 7)),
            (b"set a 4294967296 0 5", say(BAD_FORMAT, false, 7)),
            (b"set a 0 0 -1", say(BAD_FORMAT, false, 0)),
            (b"set a 0 0 99999999999", say(BAD_FORMAT, false, 0)),
            (b"set a 0 0 18446744073709551615", say(BAD_FORMAT, false, 0)),
            (b"cas a 0 0 5", say(ERROR, false, 0)),
            (b"cas a 0 0 5 x", say(BAD_FORMAT, false, 7)),
            (b"incr a x", say(BAD_DELTA, false, 0)),
            (b"incr a -1", say(BAD_DELTA, false, 0)),
            (b"touch a x", say(BAD_EXPTIME, false, 0)),
            (b"delete a 1", say(DELETE_USAGE, false, 0)),
            (b"flush_all x", say(BAD_EXPTIME, false, 0)),
            (b"verbosity", say(ERROR, false, 0)),
        ] {
            assert_eq!(decode(line), expected, "{}", line.escape_ascii());
        }
    }
}
