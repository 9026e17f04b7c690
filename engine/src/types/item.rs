//! One element as the compact forms hold it: an integer, or bytes.

use std::fmt;

use crate::number;

/// An element of a collection, borrowed from it.
///
/// `Int` stands for its canonical decimal text; bytes that are such text may come as either.
#[derive(Clone, Copy)]
pub enum Item<'a> {
    /// An integer held as an integer.
    Int(i64),
    /// Bytes.
    Bytes(&'a [u8]),
}

/// Room for the digits of an integer item while its text is looked at.
#[derive(Default)]
pub struct Digits(itoa::Buffer);

impl Digits {
    /// Empty room.
    pub fn new() -> Self {
        Self::default()
    }
}

impl<'a> Item<'a> {
    /// The text of the item, written to `digits` if it is an integer.
    #[inline]
    pub fn bytes<'b>(self, digits: &'b mut Digits) -> &'b [u8]
    where
        'a: 'b,
    {
        match self {
            Item::Int(value) => digits.0.format(value).as_bytes(),
            Item::Bytes(bytes) => bytes,
        }
    }

    /// The length of the text.
    pub fn len(self) -> usize {
        match self {
            Item::Int(value) => number::len_i64(value),
            Item::Bytes(bytes) => bytes.len(),
        }
    }

    /// Whether the text is empty.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Whether the text is `other`.
    #[inline]
    pub fn is(self, other: &[u8]) -> bool {
        match self {
            Item::Int(_) => self.bytes(&mut Digits::new()) == other,
            Item::Bytes(bytes) => bytes == other,
        }
    }

    /// Appends the text.
    pub fn write_to(self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.bytes(&mut Digits::new()));
    }

    /// The text, copied.
    pub fn to_vec(self) -> Vec<u8> {
        self.bytes(&mut Digits::new()).to_vec()
    }

    /// The integer that the text is, if it is one.
    pub fn as_i64(self) -> Option<i64> {
        match self {
            Item::Int(value) => Some(value),
            Item::Bytes(bytes) => number::parse_i64(bytes),
        }
    }

    /// The float that the text is, if it is one.
    pub fn as_f64(self) -> Option<f64> {
        match self {
            Item::Int(value) => Some(value as f64),
            Item::Bytes(bytes) => number::parse_f64(bytes),
        }
    }

    /// The most compact form of some bytes.
    pub(crate) fn compact(bytes: &'a [u8]) -> Self {
        match number::parse_i64(bytes) {
            Some(value) => Item::Int(value),
            None => Item::Bytes(bytes),
        }
    }
}

impl PartialEq for Item<'_> {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Item::Int(a), Item::Int(b)) => a == b,
            (item, Item::Bytes(bytes)) | (Item::Bytes(bytes), item) => item.is(bytes),
        }
    }
}

impl Eq for Item<'_> {}

impl fmt::Debug for Item<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(self.bytes(&mut Digits::new())))
    }
}
