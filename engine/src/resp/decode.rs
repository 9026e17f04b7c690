//! Requests from bytes, resumable at any byte, without copying arguments.
//!
//! ```text
//! *<n>\r\n  then n times  $<len>\r\n<len bytes>\r\n      or one inline line: words, quotes as in sdssplitargs
//! ```
//!
//! The decoder keeps where it stands in a request that has not arrived whole, so that a request of a
//! million arguments in small pieces is still parsed once. Arguments are ranges of the caller's buffer.

use memchr::memchr;
use smallvec::{Array, SmallVec};

/// Longest inline request or length line, bytes.
const LINE_BYTES_MAX: usize = 64 * 1024;
/// Most arguments of one request.
const ARGS_MAX: i64 = 1024 * 1024;
/// What a client that has not authenticated may send.
const ARGS_MAX_UNAUTHENTICATED: i64 = 10;
const BULK_BYTES_MAX_UNAUTHENTICATED: i64 = 16_384;

/// Limits of the connection that is read.
#[derive(Clone, Copy)]
pub struct Limits {
    pub authenticated: bool,
    /// proto-max-bulk-len, bytes.
    pub bulk_bytes_max: usize,
}

/// What was wrong; the connection gets it as an error line and is closed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    #[error("invalid multibulk length")]
    MultibulkLength,
    #[error("unauthenticated multibulk length")]
    UnauthenticatedMultibulk,
    #[error("invalid bulk length")]
    BulkLength,
    #[error("unauthenticated bulk length")]
    UnauthenticatedBulk,
    #[error("expected '$', got '{}'", .0.escape_ascii())]
    ExpectedBulk(u8),
    #[error("too big mbulk count string")]
    MultibulkLine,
    #[error("too big bulk count string")]
    BulkLine,
    #[error("too big inline request")]
    InlineLine,
    #[error("unbalanced quotes in request")]
    Quotes,
}

/// One request under way.
#[derive(Default)]
pub struct Decoder {
    /// Arguments found so far: (start, end) in the buffer.
    pub args: Vec<(usize, usize)>,
    /// Words of an inline request that had quotes: their bytes are not in the buffer.
    pub unquoted: Vec<Vec<u8>>,
    /// Arguments still to come; 0 between requests.
    left: u32,
    /// Where the next unread byte is.
    at: usize,
    /// Bytes that the buffer must hold before it is worth looking again.
    need: usize,
}

impl Decoder {
    /// Looks for the next whole request from `start` on. `Ok(Some(end))`: `args` (or `unquoted`) hold it, and
    /// it ends before `end`; both empty for an empty line or `*0`. `Ok(None)`: more bytes are needed.
    pub fn next(
        &mut self,
        buffer: &[u8],
        start: usize,
        limits: Limits,
    ) -> Result<Option<usize>, ProtocolError> {
        if self.left == 0 {
            self.args.clear();
            self.unquoted.clear();
            self.at = start;
            match buffer.get(start) {
                None => return Ok(None),
                Some(b'*') => {
                    let Some((n, at)) =
                        line_number(buffer, start + 1, ProtocolError::MultibulkLine)?
                    else {
                        return Ok(None);
                    };
                    let n = n.ok_or(ProtocolError::MultibulkLength)?;
                    if n > ARGS_MAX {
                        return Err(ProtocolError::MultibulkLength);
                    }
                    if !limits.authenticated && n > ARGS_MAX_UNAUTHENTICATED {
                        return Err(ProtocolError::UnauthenticatedMultibulk);
                    }
                    self.at = at;
                    if n <= 0 {
                        return Ok(Some(at));
                    }
                    self.left = n as u32;
                }
                Some(_) => return self.inline(buffer, start),
            }
        }
        if buffer.len() < self.need {
            return Ok(None);
        }
        self.need = 0;
        while self.left > 0 {
            match buffer.get(self.at) {
                None => return Ok(None),
                Some(b'$') => {}
                Some(other) => return Err(ProtocolError::ExpectedBulk(*other)),
            }
            let Some((n, at)) = line_number(buffer, self.at + 1, ProtocolError::BulkLine)? else {
                return Ok(None);
            };
            let n = n.filter(|n| *n >= 0).ok_or(ProtocolError::BulkLength)?;
            if n as u64 > limits.bulk_bytes_max as u64 {
                return Err(ProtocolError::BulkLength);
            }
            if !limits.authenticated && n > BULK_BYTES_MAX_UNAUTHENTICATED {
                return Err(ProtocolError::UnauthenticatedBulk);
            }
            let end = at + n as usize;
            if buffer.len() < end + 2 {
                self.need = end + 2;
                return Ok(None);
            }
            self.args.push((at, end));
            self.at = end + 2;
            self.left -= 1;
        }
        Ok(Some(self.at))
    }

    /// The buffer's first `by` bytes were dropped: what is kept moves along.
    pub fn shift(&mut self, by: usize) {
        for (start, end) in &mut self.args {
            *start -= by;
            *end -= by;
        }
        self.at -= by;
        self.need = self.need.saturating_sub(by);
    }

    /// The bytes before the request under way (or before the next one) were dropped.
    pub fn shift_to_request(&mut self, by: usize) {
        if self.left > 0 {
            self.shift(by);
        }
    }

    /// A request has begun and not ended.
    pub fn in_request(&self) -> bool {
        self.left > 0
    }

    /// How long the buffer must be for the argument that is arriving; 0 when not known.
    pub fn need(&self) -> usize {
        self.need
    }

    fn inline(&mut self, buffer: &[u8], start: usize) -> Result<Option<usize>, ProtocolError> {
        let Some(length) = memchr(b'\n', &buffer[start..]) else {
            if buffer.len() - start > LINE_BYTES_MAX {
                return Err(ProtocolError::InlineLine);
            }
            return Ok(None);
        };
        if length > LINE_BYTES_MAX {
            return Err(ProtocolError::InlineLine);
        }
        let mut line = &buffer[start..start + length];
        if let [rest @ .., b'\r'] = line {
            line = rest;
        }
        self.unquoted = split_words(line).ok_or(ProtocolError::Quotes)?;
        Ok(Some(start + length + 1))
    }
}

/// Reads `<number>\r\n` from `at`: the number (`None`: not one) and where the line ends.
#[inline]
fn line_number(
    buffer: &[u8],
    at: usize,
    too_long: ProtocolError,
) -> Result<Option<(Option<i64>, usize)>, ProtocolError> {
    // The usual length line has one to three digits: no search for its end.
    let rest = &buffer[at.min(buffer.len())..];
    let mut n = 0i64;
    for (i, b) in rest.iter().take(4).enumerate() {
        match b {
            b'0'..=b'9' => n = n * 10 + i64::from(b - b'0'),
            b'\r' if i > 0 && (i == 1 || rest[0] != b'0') => {
                return match rest.get(i + 1) {
                    Some(b'\n') => Ok(Some((Some(n), at + i + 2))),
                    Some(_) => Ok(Some((None, at + i + 2))),
                    None => Ok(None),
                };
            }
            _ => break,
        }
    }
    let Some(length) = memchr(b'\r', rest) else {
        return if rest.len() > LINE_BYTES_MAX { Err(too_long) } else { Ok(None) };
    };
    if rest.len() < length + 2 {
        return Ok(None);
    }
    let number = crate::number::parse_i64(&rest[..length]).filter(|_| rest[length + 1] == b'\n');
    Ok(Some((number, at + length + 2)))
}

/// Most arguments that `whole_request` looks at: what it looks at in vain is looked at again.
const WHOLE_ARGS_MAX: usize = 64;

/// The common case of `Decoder::next`, between requests: a request that lies in the buffer whole, with
/// lengths of up to five digits. Its arguments are pushed to `args`; gives where it ends. `None` (and
/// nothing pushed) when it is anything else, right or wrong: then `next` is to say what.
#[inline]
pub fn whole_request<'b, A: Array<Item = &'b [u8]>>(
    buffer: &'b [u8],
    start: usize,
    limits: Limits,
    args: &mut SmallVec<A>,
) -> Option<usize> {
    let (count, mut at) = short_header(buffer, start, b'*')?;
    if count == 0 || count > WHOLE_ARGS_MAX || !limits.authenticated {
        return None;
    }
    let begin = args.len();
    for _ in 0..count {
        let found = short_header(buffer, at, b'$')
            .filter(|(len, _)| *len <= limits.bulk_bytes_max)
            .and_then(|(len, from)| Some((buffer.get(from..from + len)?, from + len + 2)));
        let Some((arg, end)) = found.filter(|(_, end)| *end <= buffer.len()) else {
            args.truncate(begin);
            return None;
        };
        args.push(arg);
        at = end;
    }
    Some(at)
}

/// A header line such as `$16\r\n`, of this kind and with one to five digits: its number, and where the
/// line ends. Looks at eight bytes as one word; `None` when they are not there or not such a line.
#[inline]
fn short_header(buffer: &[u8], at: usize, kind: u8) -> Option<(usize, usize)> {
    const CRLF: u16 = u16::from_le_bytes(*b"\r\n");
    let word = u64::from_le_bytes(*buffer.get(at..)?.first_chunk()?);
    let digit = |place: u32| (word >> (8 * place)) as u8 ^ b'0';
    // Nearly all have one digit or two: kind and end of such a line are looked at as one.
    let line = |digits: u32| u64::from(kind) | u64::from(CRLF) << (8 * digits + 8);
    if word & 0xffff_00ff == line(1) {
        return (digit(1) <= 9).then(|| (usize::from(digit(1)), at + 4));
    }
    if word & 0xffff_0000_00ff == line(2) {
        let is_number = matches!(digit(1), 1..=9) && digit(2) <= 9;
        return is_number.then(|| (usize::from(digit(1)) * 10 + usize::from(digit(2)), at + 5));
    }
    if word as u8 != kind {
        return None;
    }
    let mut number = 0;
    for digits in 1..=5 {
        let digit = (word >> (8 * digits)) as u8 ^ b'0';
        // A number of several digits does not begin with 0.
        if digit > 9 || (digits > 1 && number == 0) {
            return None;
        }
        number = number * 10 + usize::from(digit);
        if (word >> (8 * digits + 8)) as u16 == CRLF {
            return Some((number, at + digits + 3));
        }
    }
    None
}

/// Words of an inline request: spaces separate, "..." knows escapes, '...' only \'. `None`: unbalanced.
pub fn split_words(line: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut words = Vec::new();
    let mut i = 0;
    loop {
        while line.get(i).is_some_and(|b| b.is_ascii_whitespace() || *b == 0) {
            i += 1;
        }
        if i >= line.len() {
            return Some(words);
        }
        let mut word = Vec::new();
        let mut quote = None;
        while let Some(&b) = line.get(i) {
            match (quote, b) {
                (None, b' ' | b'\n' | b'\r' | b'\t' | 0) => break,
                (None, b'"' | b'\'') => quote = Some(b),
                (Some(b'"'), b'\\') => {
                    let (byte, used) = escape(&line[i..])?;
                    word.push(byte);
                    i += used - 1;
                }
                (Some(b'\''), b'\\') if line.get(i + 1) == Some(&b'\'') => {
                    word.push(b'\'');
                    i += 1;
                }
                (Some(q), _) if q == b => {
                    // A closing quote must be followed by a space or the end.
                    if line.get(i + 1).is_some_and(|b| !b.is_ascii_whitespace()) {
                        return None;
                    }
                    quote = None;
                }
                _ => word.push(b),
            }
            i += 1;
        }
        if quote.is_some() {
            return None;
        }
        words.push(word);
    }
}

/// An escape in double quotes, from the backslash on: its byte and how many bytes it took.
fn escape(rest: &[u8]) -> Option<(u8, usize)> {
    let hex = |b: u8| char::from(b).to_digit(16).map(|d| d as u8);
    match *rest.get(1)? {
        b'x' => match (rest.get(2).copied().and_then(hex), rest.get(3).copied().and_then(hex)) {
            (Some(high), Some(low)) => Some((high << 4 | low, 4)),
            _ => Some((b'x', 2)),
        },
        b'n' => Some((b'\n', 2)),
        b'r' => Some((b'\r', 2)),
        b't' => Some((b'\t', 2)),
        b'b' => Some((8, 2)),
        b'a' => Some((7, 2)),
        other => Some((other, 2)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { authenticated: true, bulk_bytes_max: 512 << 20 };

    fn all(bytes: &[u8], chunk: usize) -> Result<Vec<Vec<Vec<u8>>>, ProtocolError> {
        let (mut decoder, mut buffer, mut out) = (Decoder::default(), Vec::new(), Vec::new());
        let mut start = 0;
        for piece in bytes.chunks(chunk) {
            buffer.extend_from_slice(piece);
            while let Some(end) = decoder.next(&buffer, start, LIMITS)? {
                let mut args: Vec<Vec<u8>> =
                    decoder.args.iter().map(|(a, b)| buffer[*a..*b].to_vec()).collect();
                args.append(&mut decoder.unquoted);
                out.push(args);
                start = end;
            }
            if !decoder.in_request() {
                buffer.drain(..start);
                start = 0;
            } else {
                buffer.drain(..start);
                decoder.shift(start);
                start = 0;
            }
        }
        Ok(out)
    }

    #[test]
    fn any_split_of_the_bytes_gives_the_same_requests() {
        let bytes = b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\nPING\r\n*0\r\n\r\n*3\r\n$3\r\nSET\r\n$0\r\n\r\n$12\r\nab\r\ncd\x00efghi\r\nset \"a b\\x41\" 'c d'\r\n";
        let whole = all(bytes, bytes.len()).unwrap();
        assert_eq!(whole.len(), 6);
        assert_eq!(whole[5], [b"set".to_vec(), b"a bA".to_vec(), b"c d".to_vec()]);
        for chunk in 1..bytes.len() {
            assert_eq!(all(bytes, chunk).unwrap(), whole, "chunks of {chunk}");
        }
    }

    #[test]
    fn whole_requests_are_taken_as_the_decoder_takes_them() {
        let long = format!("*2\r\n$4\r\nECHO\r\n$1200\r\n{}\r\n", "x".repeat(1200));
        let many = format!("*65\r\n{}", "$1\r\na\r\n".repeat(65));
        let cases: [(&[u8], bool); 12] = [
            (b"*2\r\n$3\r\nGET\r\n$16\r\n0123456789abcdef\r\n", true),
            (b"*3\r\n$3\r\nSET\r\n$0\r\n\r\n$12\r\nab\r\ncd\x00efghi\r\n", true),
            (long.as_bytes(), true),
            (many.as_bytes(), false),
            (b"*0\r\n", false),
            (b"*02\r\n$4\r\nPING\r\n$4\r\nPONG\r\n", false),
            (b"*1\r\n$04\r\nPING\r\n", false),
            (b"*1\r\n$-1\r\n*1\r\n", false),
            (b"*1\r\n:4\r\nPING\r\n", false),
            (b"*1\r\n$4\rxPING\r\n", false),
            (b"*1\r\n$123456\r\nPING\r\n", false),
            (b"PING\r\nPING\r\n", false),
        ];
        for (bytes, taken) in cases {
            let text = bytes.escape_ascii();
            let mut args: SmallVec<[&[u8]; 4]> = SmallVec::new();
            let end = whole_request(bytes, 0, LIMITS, &mut args);
            assert_eq!(end.is_some(), taken, "{text}");
            assert_eq!(args.is_empty(), !taken, "{text}");
            if taken {
                assert_eq!(vec![args.to_vec()], all(bytes, bytes.len()).unwrap(), "{text}");
                // No prefix of it is whole.
                for cut in 0..bytes.len() {
                    let mut args: SmallVec<[&[u8]; 4]> = SmallVec::new();
                    assert_eq!(whole_request(&bytes[..cut], 0, LIMITS, &mut args), None);
                    assert!(args.is_empty());
                }
            }
        }
    }

    #[test]
    fn bad_lengths_are_protocol_errors() {
        let cases: [(&[u8], ProtocolError); 9] = [
            (b"*abc\r\n", ProtocolError::MultibulkLength),
            (b"*+1\r\n", ProtocolError::MultibulkLength),
            (b"*1048577\r\n", ProtocolError::MultibulkLength),
            (b"*1\r\n$-1\r\n", ProtocolError::BulkLength),
            (b"*1\r\n$01\r\nx\r\n", ProtocolError::BulkLength),
            (b"*1\r\n$536870913\r\n", ProtocolError::BulkLength),
            (b"*1\r\n:1\r\n", ProtocolError::ExpectedBulk(b':')),
            (b"*1\r\n$1\rx", ProtocolError::BulkLength),
            (b"get \"a\r\n", ProtocolError::Quotes),
        ];
        for (bytes, error) in cases {
            assert_eq!(all(bytes, bytes.len()), Err(error), "{}", bytes.escape_ascii());
        }
    }
}
