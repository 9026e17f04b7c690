//! The ID of an entry: milliseconds and a number within them.

use std::fmt;

use smallvec::SmallVec;

use crate::number::parse_i64;

/// An ID. Two numbers, compared in that order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId {
    /// Milliseconds since 1970, usually.
    pub ms: u64,
    /// The place among entries of one millisecond.
    pub seq: u64,
}

/// An ID as XADD takes it: the second number may be left to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParseId {
    /// Both numbers.
    Whole(StreamId),
    /// `ms-*`.
    Partial(u64),
}

impl StreamId {
    /// The lowest ID, which no entry has.
    pub const MIN: Self = Self { ms: 0, seq: 0 };
    /// The highest ID.
    pub const MAX: Self = Self { ms: u64::MAX, seq: u64::MAX };

    /// The next ID; none behind the highest.
    pub fn next(self) -> Option<Self> {
        match (self.seq.checked_add(1), self.ms.checked_add(1)) {
            (Some(seq), _) => Some(Self { ms: self.ms, seq }),
            (None, Some(ms)) => Some(Self { ms, seq: 0 }),
            (None, None) => None,
        }
    }

    /// The ID before; none before the lowest.
    pub fn prev(self) -> Option<Self> {
        match (self.seq.checked_sub(1), self.ms.checked_sub(1)) {
            (Some(seq), _) => Some(Self { ms: self.ms, seq }),
            (None, Some(ms)) => Some(Self { ms, seq: u64::MAX }),
            (None, None) => None,
        }
    }

    /// The ID that an entry gets which is added now behind `self`; none when there is no higher one.
    pub fn next_at(self, now_ms: i64) -> Option<Self> {
        let ms = u64::try_from(now_ms).unwrap_or(0);
        if ms > self.ms { Some(Self { ms, seq: 0 }) } else { self.next() }
    }

    /// Sixteen bytes that sort as the IDs do.
    pub fn to_bytes(self) -> [u8; 16] {
        (u128::from(self.ms) << 64 | u128::from(self.seq)).to_be_bytes()
    }

    /// The ID of such bytes.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        let both = u128::from_be_bytes(bytes);
        Self { ms: (both >> 64) as u64, seq: both as u64 }
    }

    /// `ms-seq` or `ms`, where `seq` is then the number in its place.
    pub fn parse(text: &[u8], seq: u64) -> Option<Self> {
        match Self::parse_partial(text, seq)? {
            ParseId::Whole(id) => Some(id),
            ParseId::Partial(_) => None,
        }
    }

    /// The same, and `ms-*`.
    pub fn parse_partial(text: &[u8], seq: u64) -> Option<ParseId> {
        // No two numbers take more.
        if text.len() > 127 {
            return None;
        }
        let Some(dash) = text.iter().position(|byte| *byte == b'-') else {
            return Some(ParseId::Whole(Self { ms: part(text)?, seq }));
        };
        let ms = part(&text[..dash])?;
        if &text[dash + 1..] == b"*" {
            return Some(ParseId::Partial(ms));
        }
        Some(ParseId::Whole(Self { ms, seq: part(&text[dash + 1..])? }))
    }

    /// An end of an interval: an ID, or `-` or `+`.
    pub fn parse_bound(text: &[u8], seq: u64) -> Option<Self> {
        match text {
            b"-" => Some(Self::MIN),
            b"+" => Some(Self::MAX),
            _ => Self::parse(text, seq),
        }
    }

    /// The text, without an allocation.
    pub fn text(self) -> SmallVec<[u8; 44]> {
        let (mut ms, mut seq) = (itoa::Buffer::new(), itoa::Buffer::new());
        let mut out = SmallVec::new();
        out.extend_from_slice(ms.format(self.ms).as_bytes());
        out.push(b'-');
        out.extend_from_slice(seq.format(self.seq).as_bytes());
        out
    }

    /// The text.
    pub fn to_vec(self) -> Vec<u8> {
        self.text().to_vec()
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.seq)
    }
}

/// One of the two numbers: digits, as loosely as clients are used to write them (spaces and a plus before, zeros).
fn part(text: &[u8]) -> Option<u64> {
    if let Some(number) = parse_i64(text) {
        return u64::try_from(number).ok();
    }
    let text = text.trim_ascii_start();
    let digits = text.strip_prefix(b"+").unwrap_or(text);
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |sum, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        sum.checked_mul(10)?.checked_add(digit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_as_clients_write_them() {
        let id = |ms, seq| Some(StreamId { ms, seq });
        assert_eq!(StreamId::parse(b"5", 7), id(5, 7));
        assert_eq!(StreamId::parse(b"5-3", 7), id(5, 3));
        assert_eq!(
            StreamId::parse(b"18446744073709551615-18446744073709551615", 0),
            id(u64::MAX, u64::MAX)
        );
        assert_eq!(StreamId::parse(b"007-+1", 0), id(7, 1));
        for bad in [
            "",
            "-",
            "+",
            "-1",
            "1-",
            "1-x",
            "1-2-3",
            "a",
            "18446744073709551616",
            "1--1",
            "5-*",
            "1 ",
        ] {
            assert_eq!(StreamId::parse(bad.as_bytes(), 0), None, "{bad:?}");
        }
        assert_eq!(StreamId::parse_partial(b"5-*", 0), Some(ParseId::Partial(5)));
        assert_eq!(StreamId::parse_bound(b"+", 0), Some(StreamId::MAX));
    }

    #[test]
    fn neighbours_carry_and_end() {
        let id = |ms, seq| StreamId { ms, seq };
        assert_eq!(id(1, u64::MAX).next(), Some(id(2, 0)));
        assert_eq!(id(2, 0).prev(), Some(id(1, u64::MAX)));
        assert_eq!(StreamId::MAX.next(), None);
        assert_eq!(StreamId::MIN.prev(), None);
        assert_eq!(id(5, 1).next_at(5), Some(id(5, 2)));
        assert_eq!(id(5, 1).next_at(6), Some(id(6, 0)));
        assert_eq!(id(5, 1).next_at(-6), Some(id(5, 2)));
        assert_eq!(StreamId::from_bytes(id(5, 9).to_bytes()), id(5, 9));
    }
}
