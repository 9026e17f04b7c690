//! Replies to bytes, appended to the connection's output.

use std::fmt::Write as _;

use super::Values;
use crate::keyspace::Entry;
use crate::types::{Digits, Item};

/// Where a command writes its reply. Aggregates are counted by the caller, or patched when they end.
pub struct Reply {
    pub out: Vec<u8>,
    /// Long values that stand between the bytes of `out`.
    pub values: Values,
    /// There may be such: what is replied goes out as it is.
    holds: bool,
    /// The client asked for RESP3.
    pub resp3: bool,
    /// Errors that were replied, for those who look at what was replied.
    pub errors: u64,
    /// Length of all of it that no element makes longer.
    limit: usize,
    /// An element was left out for that: the reply is of no use.
    pub over: bool,
}

impl Reply {
    pub fn new(out: Vec<u8>, resp3: bool) -> Reply {
        let (values, holds) = (Values::default(), false);
        Reply { out, values, holds, resp3, errors: 0, limit: usize::MAX, over: false }
    }

    /// Behind these values others may be held, if `holds`.
    pub fn holding(self, values: Values, holds: bool) -> Reply {
        Reply { values, holds, ..self }
    }

    /// Bytes that are to go out.
    #[inline]
    pub fn size(&self) -> usize {
        self.out.len() + self.values.unsent()
    }

    /// Takes back all but the first `len` bytes of `out`, and the values behind them.
    pub fn truncate(&mut self, len: usize) {
        self.out.truncate(len);
        self.values.truncate(len);
    }

    /// Takes at most so many bytes more. A few arguments may ask for any amount (SRANDMEMBER with a count,
    /// one long value many times in MGET), and a reply is put together in memory.
    pub fn within(self, bytes: usize) -> Reply {
        Reply { limit: self.size().saturating_add(bytes), ..self }
    }

    #[cold]
    fn grow(&mut self, by: usize) -> bool {
        self.over |= self.size().saturating_add(by) > self.limit;
        if !self.over {
            self.out.reserve(by);
        }
        !self.over
    }

    #[inline]
    fn line(&mut self, kind: u8, number: i64) {
        // One-digit lines are most of what is said.
        if (0..10).contains(&number) {
            self.out.extend_from_slice(&[kind, b'0' + number as u8, b'\r', b'\n']);
            return;
        }
        match usize::try_from(number).ok().and_then(|number| short_line(kind, number)) {
            Some((line, len)) => self.short(line, len),
            None => self.long_line(kind, number),
        }
    }

    /// Writes the first `len` bytes of a word: the whole word, and what is too much is taken back. No copy of a few bytes.
    #[inline]
    fn short(&mut self, line: u64, len: usize) {
        let begin = self.out.len();
        self.out.extend_from_slice(&line.to_le_bytes());
        self.out.truncate(begin + len);
    }

    fn long_line(&mut self, kind: u8, number: i64) {
        let mut digits = itoa::Buffer::new();
        let digits = digits.format(number).as_bytes();
        // Twenty bytes are the longest number.
        let mut line = [0; 24];
        line[0] = kind;
        line[1..=digits.len()].copy_from_slice(digits);
        line[digits.len() + 1..][..2].copy_from_slice(b"\r\n");
        let begin = self.out.len();
        self.out.extend_from_slice(&line);
        self.out.truncate(begin + digits.len() + 3);
    }

    #[inline]
    pub fn ok(&mut self) {
        self.out.extend_from_slice(b"+OK\r\n");
    }

    /// A status line; the text is ours, never the user's.
    pub fn simple(&mut self, text: &str) {
        self.out.push(b'+');
        self.out.extend_from_slice(text.as_bytes());
        self.out.extend_from_slice(b"\r\n");
    }

    /// An error line, its code first. CR, LF and other control bytes of user input cannot break out.
    pub fn error(&mut self, text: &str) {
        self.errors += 1;
        self.out.push(b'-');
        self.out.extend(text.bytes().map(|b| if b == b'\r' || b == b'\n' { b' ' } else { b }));
        self.out.extend_from_slice(b"\r\n");
    }

    pub fn wrong_type(&mut self) {
        self.error("WRONGTYPE Operation against a key holding the wrong kind of value");
    }

    pub fn syntax_error(&mut self) {
        self.error("ERR syntax error");
    }

    pub fn not_an_integer(&mut self) {
        self.error("ERR value is not an integer or out of range");
    }

    /// A count of the commands that pick at random, at the one integer that has no opposite.
    pub fn not_in_random_range(&mut self) {
        let (low, high) = (-i64::MAX, i64::MAX);
        self.error(&format!("ERR value is out of range, value must between {low} and {high}"));
    }

    pub fn not_a_float(&mut self) {
        self.error("ERR value is not a valid float");
    }

    #[inline]
    pub fn int(&mut self, n: i64) {
        self.line(b':', n);
    }

    #[inline]
    pub fn bulk(&mut self, bytes: &[u8]) {
        let need = bytes.len() + 32;
        if self.out.capacity() - self.out.len() < need && !self.grow(need) {
            return;
        }
        match short_line(b'$', bytes.len()) {
            Some((line, len)) => self.short(line, len),
            None => self.long_line(b'$', bytes.len() as i64),
        }
        self.out.extend_from_slice(bytes);
        self.out.extend_from_slice(b"\r\n");
    }

    /// The long value of an entry, from where it lies if it may be held.
    #[cold]
    pub fn long(&mut self, value: &[u8], entry: &Entry) {
        let held = if self.holds { entry.hold() } else { None };
        let Some(held) = held else { return self.bulk(value) };
        self.over |= self.size().saturating_add(value.len()) > self.limit;
        if !self.over {
            self.line(b'$', value.len() as i64);
            self.values.push(self.out.len(), held);
            self.out.extend_from_slice(b"\r\n");
        }
    }

    /// An element of a collection.
    #[inline]
    pub fn item(&mut self, item: Item<'_>) {
        self.bulk(item.bytes(&mut Digits::new()));
    }

    /// A member with its score: a pair of its own in RESP3, two elements in RESP2.
    pub fn item_and_score(&mut self, item: Item<'_>, score: f64) {
        if self.resp3 {
            self.array(2);
        }
        self.item(item);
        self.double(score);
    }

    /// An integer as a bulk string.
    pub fn bulk_int(&mut self, n: i64) {
        self.bulk(itoa::Buffer::new().format(n).as_bytes());
    }

    #[inline]
    pub fn null(&mut self) {
        self.out.extend_from_slice(if self.resp3 { b"_\r\n" } else { b"$-1\r\n" });
    }

    pub fn null_array(&mut self) {
        self.out.extend_from_slice(if self.resp3 { b"_\r\n" } else { b"*-1\r\n" });
    }

    /// Looks ahead where so many elements are announced that they may not have room: none takes fewer than three bytes,
    /// and who gives them need not begin.
    #[inline]
    fn announce(&mut self, elements: usize) {
        const FEW: usize = 1 << 16;
        const ELEMENT_BYTES_MIN: usize = 3;
        if elements > FEW {
            let least = elements.saturating_mul(ELEMENT_BYTES_MIN);
            self.over |= self.size().saturating_add(least) > self.limit;
        }
    }

    #[inline]
    pub fn array(&mut self, n: usize) {
        self.announce(n);
        self.line(b'*', n as i64);
    }

    /// `n` pairs: a map in RESP3, an array of twice as many in RESP2.
    pub fn map(&mut self, n: usize) {
        self.announce(n);
        if self.resp3 {
            self.line(b'%', n as i64);
        } else {
            self.line(b'*', n as i64 * 2);
        }
    }

    pub fn set(&mut self, n: usize) {
        self.line(if self.resp3 { b'~' } else { b'*' }, n as i64);
    }

    pub fn push(&mut self, n: usize) {
        self.line(if self.resp3 { b'>' } else { b'*' }, n as i64);
    }

    pub fn bool(&mut self, value: bool) {
        if self.resp3 {
            self.out.extend_from_slice(if value { b"#t\r\n" } else { b"#f\r\n" });
        } else {
            self.int(i64::from(value));
        }
    }

    /// A double: `,1.5` in RESP3, a bulk string in RESP2.
    pub fn double(&mut self, value: f64) {
        // Zero has no sign on the wire.
        let text = crate::number::format_f64(if value == 0.0 { 0.0 } else { value });
        if self.resp3 {
            self.out.push(b',');
            self.out.extend_from_slice(&text);
            self.out.extend_from_slice(b"\r\n");
        } else {
            self.bulk(&text);
        }
    }

    /// A double whose text is made by the caller.
    pub fn double_text(&mut self, text: &str) {
        if self.resp3 {
            self.out.push(b',');
            self.out.extend_from_slice(text.as_bytes());
            self.out.extend_from_slice(b"\r\n");
        } else {
            self.bulk(text.as_bytes());
        }
    }

    /// A text for people: verbatim in RESP3.
    pub fn verbatim(&mut self, text: &str) {
        if self.resp3 {
            let mut head = String::new();
            let _ = write!(head, "={}\r\ntxt:", text.len() + 4);
            self.out.extend_from_slice(head.as_bytes());
            self.out.extend_from_slice(text.as_bytes());
            self.out.extend_from_slice(b"\r\n");
        } else {
            self.bulk(text.as_bytes());
        }
    }

    /// Starts an array whose length is not known yet.
    pub fn begin(&mut self) -> usize {
        self.out.len()
    }

    /// Ends it: the header is put where `begin` was called.
    pub fn end_array(&mut self, begin: usize, n: usize) {
        self.insert_header(begin, b'*', n);
    }

    pub fn end_set(&mut self, begin: usize, n: usize) {
        self.insert_header(begin, if self.resp3 { b'~' } else { b'*' }, n);
    }

    pub fn end_map(&mut self, begin: usize, pairs: usize) {
        if self.resp3 {
            self.insert_header(begin, b'%', pairs);
        } else {
            self.insert_header(begin, b'*', pairs * 2);
        }
    }

    fn insert_header(&mut self, begin: usize, kind: u8, n: usize) {
        let body = self.out.split_off(begin);
        self.line(kind, n as i64);
        self.out.extend_from_slice(&body);
    }
}

/// A header line for a number of up to three digits, in the low bytes of a word, and its length.
#[inline]
fn short_line(kind: u8, number: usize) -> Option<(u64, usize)> {
    const CRLF: u64 = u16::from_le_bytes(*b"\r\n") as u64;
    let n = number as u64;
    let digit = |d: u64| d + u64::from(b'0');
    let (digits, count) = match n {
        0..10 => (digit(n), 1),
        10..100 => (digit(n / 10) | digit(n % 10) << 8, 2),
        100..1000 => (digit(n / 100) | digit(n / 10 % 10) << 8 | digit(n % 10) << 16, 3),
        _ => return None,
    };
    Some((u64::from(kind) | digits << 8 | CRLF << (8 * count + 8), count + 3))
}

/// A request as the journal and the log write it.
pub fn encode_request(out: &mut Vec<u8>, args: &[impl AsRef<[u8]>]) {
    let mut reply = Reply::new(std::mem::take(out), false);
    reply.array(args.len());
    for arg in args {
        reply.bulk(arg.as_ref());
    }
    *out = reply.out;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bulks_of_any_length_have_their_header() {
        for len in (0..1100).chain([9_999, 10_000, 123_456]) {
            let bytes = vec![b'x'; len];
            let mut reply = Reply::new(b"+OK\r\n".to_vec(), false);
            reply.bulk(&bytes);
            let expected = format!("+OK\r\n${len}\r\n{}\r\n", "x".repeat(len));
            assert_eq!(reply.out, expected.as_bytes(), "length {len}");
        }
    }

    #[test]
    fn more_elements_than_there_is_room_for_are_known_before_the_first() {
        let over = |elements: usize, room: usize| {
            let mut reply = Reply::new(Vec::new(), false).within(room);
            reply.array(elements);
            reply.over
        };
        assert!(over(usize::MAX, 1 << 30) && over(1 << 20, 1 << 20));
        assert!(!over(1 << 20, 1 << 30) && !over(100, 10), "few are looked at as they come");
    }
}
