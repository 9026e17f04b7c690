//! The meta commands of the text protocol: `mg ms md ma me mn`, flags of one letter with their tokens.
//!
//! ```text
//! mg <key> <flags...>\r\n     ms <key> <bytes> <flags...>\r\n<data>\r\n     mg a v t T60
//! ```

use smallvec::SmallVec;

use super::KEY_BYTES_MAX;
use super::base64;
use super::ops::Mode;
use super::text::{BAD_FORMAT, ERROR, Request};

pub(super) mod run;

/// Longest opaque, with its letter, bytes.
const OPAQUE_BYTES_MAX: usize = 32;
/// Most flags of one request.
const FLAGS_MAX: usize = 21;

const BAD_TOKEN: &str = "CLIENT_ERROR bad token in command line format";
const BAD_KEY: &str = "CLIENT_ERROR error decoding key";
const INVALID: &str = "CLIENT_ERROR invalid flag";
const DUPLICATE: &str = "CLIENT_ERROR duplicate flag";
const EITHER: &str = "CLIENT_ERROR invalid or duplicate flag";
const MODE_LENGTH: &str = "CLIENT_ERROR incorrect length for M token";

/// A key, as it was written and as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key<'b> {
    pub written: &'b [u8],
    decoded: Option<Vec<u8>>,
}

impl Key<'_> {
    pub fn bytes(&self) -> &[u8] {
        self.decoded.as_deref().unwrap_or(self.written)
    }

    pub fn is_binary(&self) -> bool {
        self.decoded.is_some()
    }
}

/// The flags of one request: numbers read, the rest in the order in which they are answered.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Flags<'b> {
    /// Letters that are answered, in order.
    pub shown: SmallVec<[u8; 8]>,
    pub opaque: &'b [u8],
    pub quiet: bool,
    pub value: bool,
    pub invalidate: bool,
    pub value_only: bool,
    pub client_flags: Option<u32>,
    pub cas: Option<u64>,
    pub new_cas: Option<u64>,
    pub ttl: Option<i64>,
    pub vivify: Option<i64>,
    pub recache: Option<i64>,
    pub delta: Option<u64>,
    pub initial: Option<u64>,
    pub mode: Option<u8>,
    pub has_cas_shown: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Meta<'b> {
    Noop,
    Get(Key<'b>, Flags<'b>),
    Set { key: Key<'b>, flags: Flags<'b>, mode: Mode, bytes: usize },
    Delete(Key<'b>, Flags<'b>),
    Arithmetic { key: Key<'b>, flags: Flags<'b>, down: bool },
    Debug(Key<'b>),
}

/// The letters that a command knows.
fn known(verb: u8) -> &'static [u8] {
    match verb {
        b'g' => b"bcfhklOqstvCENRTPL",
        b's' => b"bcfkstOqCEFIMNTPL",
        b'd' => b"bkOqCEITxPL",
        _ => b"bcktvOqCDEJMNTPL",
    }
}

/// A request from its words; `verb` is the letter behind the `m`.
pub fn decode<'b>(verb: u8, rest: &[&'b [u8]]) -> Request<'b> {
    let say = |line| Request::Say { line, noreply: false, skip: 0 };
    let Some((key, rest)) = rest.split_first() else {
        return say(if matches!(verb, b'e' | b's') { BAD_FORMAT } else { ERROR });
    };
    if verb == b's' {
        let bytes = rest.first().and_then(|word| number::<i32>(word)).filter(|n| *n >= 0);
        let Some(bytes) = bytes.filter(|n| *n <= i32::MAX - 2) else { return say(BAD_FORMAT) };
        // Whatever else is wrong, the data is not to be taken for requests.
        return set(key, &rest[1..], bytes as usize).unwrap_or_else(|line| Request::Say {
            line,
            noreply: false,
            skip: bytes as u64 + 2,
        });
    }
    other(verb, key, rest).map_or_else(say, Request::Meta)
}

fn set<'b>(key: &'b [u8], rest: &[&'b [u8]], bytes: usize) -> Result<Request<'b>, &'static str> {
    let (key, flags) = (self::key(key, rest)?, flags(b's', rest)?);
    let mode = match flags.mode.map(|m| m.to_ascii_uppercase()) {
        None | Some(b'S') => Mode::Set,
        Some(b'E') => Mode::Add,
        Some(b'A') => Mode::Append,
        Some(b'P') => Mode::Prepend,
        Some(b'R') => Mode::Replace,
        Some(_) => return Err("CLIENT_ERROR invalid mode for ms M token"),
    };
    Ok(Request::Meta(Meta::Set { key, flags, mode, bytes }))
}

fn other<'b>(verb: u8, key: &'b [u8], rest: &[&'b [u8]]) -> Result<Meta<'b>, &'static str> {
    let key = self::key(key, rest)?;
    if verb == b'e' {
        return Ok(Meta::Debug(key));
    }
    let flags = flags(verb, rest)?;
    Ok(match verb {
        b'g' => Meta::Get(key, flags),
        b'd' => Meta::Delete(key, flags),
        _ => {
            let down = match flags.mode {
                None | Some(b'I' | b'i' | b'+') => false,
                Some(b'D' | b'd' | b'-') => true,
                Some(_) => return Err("CLIENT_ERROR invalid mode for ma M token"),
            };
            Meta::Arithmetic { key, flags, down }
        }
    })
}

fn key<'b>(written: &'b [u8], rest: &[&[u8]]) -> Result<Key<'b>, &'static str> {
    if written.len() > KEY_BYTES_MAX {
        return Err(BAD_FORMAT);
    }
    let decoded = if rest.iter().any(|word| word[0] == b'b') {
        Some(base64::decode(written).ok_or(BAD_KEY)?)
    } else {
        None
    };
    Ok(Key { written, decoded })
}

fn flags<'b>(verb: u8, rest: &[&'b [u8]]) -> Result<Flags<'b>, &'static str> {
    let mut flags = Flags::default();
    let mut seen = 0u128;
    let (invalid, duplicate) =
        if matches!(verb, b'g' | b's') { (INVALID, DUPLICATE) } else { (EITHER, EITHER) };
    if rest.len() > FLAGS_MAX {
        return Err("CLIENT_ERROR options flags are too long");
    }
    for word in rest {
        let (letter, token) = (word[0], &word[1..]);
        if letter >= 128 || !known(verb).contains(&letter) {
            return Err(invalid);
        }
        if seen >> letter & 1 == 1 {
            return Err(duplicate);
        }
        seen |= 1 << letter;
        one(&mut flags, verb, letter, token)?;
    }
    Ok(flags)
}

fn one<'b>(
    flags: &mut Flags<'b>,
    verb: u8,
    letter: u8,
    token: &'b [u8],
) -> Result<(), &'static str> {
    let cas = || number::<u64>(token).ok_or(BAD_TOKEN);
    let seconds = || number::<i32>(token).map(i64::from).ok_or(BAD_TOKEN);
    match letter {
        b'q' => flags.quiet = true,
        b'v' => flags.value = true,
        b'I' => flags.invalidate = true,
        b'x' => flags.value_only = true,
        b'C' => flags.cas = Some(cas()?),
        b'E' => flags.new_cas = Some(cas()?),
        b'T' => flags.ttl = Some(seconds()?),
        b'N' => flags.vivify = Some(seconds()?),
        b'R' => flags.recache = Some(seconds()?),
        b'F' => flags.client_flags = Some(number(token).ok_or(BAD_FORMAT)?),
        b'D' => flags.delta = Some(number(token).ok_or(BAD_TOKEN)?),
        b'J' => flags.initial = Some(number(token).ok_or(BAD_TOKEN)?),
        b'M' => match token {
            [mode] => flags.mode = Some(*mode),
            _ if verb == b's' => return Err(MODE_LENGTH),
            _ => return Err(EITHER),
        },
        b'O' if token.len() + 1 > OPAQUE_BYTES_MAX => {
            return Err("CLIENT_ERROR opaque token too long");
        }
        b'O' => {
            flags.opaque = token;
            flags.shown.push(letter);
        }
        // The base64 is shown with the key; P and L are for proxies.
        b'b' | b'P' | b'L' => {}
        _ => {
            flags.has_cas_shown |= letter == b'c';
            flags.shown.push(letter);
        }
    }
    Ok(())
}

fn number<T: std::str::FromStr>(word: &[u8]) -> Option<T> {
    std::str::from_utf8(word).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::super::text;
    use super::*;

    fn said(line: &[u8]) -> Option<(&'static str, u64)> {
        match text::decode(line) {
            Request::Say { line, skip, .. } => Some((line, skip)),
            _ => None,
        }
    }

    #[test]
    fn flags_are_read_with_their_tokens_and_shown_in_order() {
        let Request::Meta(Meta::Get(key, flags)) = text::decode(b"mg a s t v Ox T30 N-1 R5 q k")
        else {
            panic!("not an mg");
        };
        assert_eq!(key.bytes(), b"a");
        assert_eq!(flags.shown.as_slice(), b"stOk");
        assert_eq!((flags.ttl, flags.vivify, flags.recache), (Some(30), Some(-1), Some(5)));
        assert!(flags.value && flags.quiet && flags.opaque == b"x");
        let Request::Meta(Meta::Set { key, mode, bytes, .. }) = text::decode(b"ms Zm9v 2 b Ma F9")
        else {
            panic!("not an ms");
        };
        assert_eq!((key.bytes(), mode, bytes), (&b"foo"[..], Mode::Append, 2));
        assert!(matches!(
            text::decode(b"ma n MD D5 J1 N0"),
            Request::Meta(Meta::Arithmetic { down: true, .. })
        ));
    }

    #[test]
    fn what_is_wrong_is_said_and_the_data_of_ms_left_out() {
        let opaque = [b"mg a O", &[b'o'; 32][..]].concat();
        let many = [b"mg a v ", &b"k ".repeat(40)[..]].concat();
        for (line, expected) in [
            (&b"mg"[..], (ERROR, 0)),
            (b"ms a", (BAD_FORMAT, 0)),
            (b"ms a x", (BAD_FORMAT, 0)),
            (b"ms a -1", (BAD_FORMAT, 0)),
            (b"ms a 2147483647", (BAD_FORMAT, 0)),
            (b"mg a z", (INVALID, 0)),
            (b"mg a \xff", (INVALID, 0)),
            (b"mg a v v", (DUPLICATE, 0)),
            (b"md a z", (EITHER, 0)),
            (b"mg a Tx", (BAD_TOKEN, 0)),
            (b"mg a N", (BAD_TOKEN, 0)),
            (b"mg Zm9 b", (BAD_KEY, 0)),
            (b"ms Zm9 5 b", (BAD_KEY, 7)),
            (b"ms a 5 Z", (INVALID, 7)),
            (b"ms a 5 MX", ("CLIENT_ERROR invalid mode for ms M token", 7)),
            (b"ms a 5 MEE", (MODE_LENGTH, 7)),
            (b"ma n MX", ("CLIENT_ERROR invalid mode for ma M token", 0)),
            (b"ma n D-1", (BAD_TOKEN, 0)),
            (&opaque, ("CLIENT_ERROR opaque token too long", 0)),
            (&many, ("CLIENT_ERROR options flags are too long", 0)),
        ] {
            assert_eq!(said(line), Some(expected), "{}", line.escape_ascii());
        }
    }
}
