//! One entry of a listpack: how an element is encoded, and the length behind it.
//!
//! | first byte | element |
//! |---|---|
//! | `0xxxxxxx` | integer 0..127 |
//! | `10xxxxxx` | bytes, 6-bit length |
//! | `110xxxxx` + 1 | integer, 13 bits, signed |
//! | `1110xxxx` + 1 | bytes, 12-bit length |
//! | `f0` + 4 | bytes, 32-bit length |
//! | `f1` `f2` `f3` `f4` | integer of 2, 3, 4, 8 bytes |

use crate::types::{Item, steps::step};

/// An element on its way in.
pub(super) struct Entry<'a> {
    head: [u8; 9],
    head_len: usize,
    body: &'a [u8],
}

impl<'a> Entry<'a> {
    pub(super) fn of(element: &'a [u8]) -> Self {
        // Twenty bytes are the longest integer.
        let item = if element.len() <= 20 { Item::compact(element) } else { Item::Bytes(element) };
        let mut head = [0; 9];
        let (head_len, body): (usize, &[u8]) = match item {
            Item::Int(value) => (integer_head(&mut head, value), &[]),
            Item::Bytes(bytes) => (bytes_head(&mut head, bytes.len()), bytes),
        };
        Self { head, head_len, body }
    }

    pub(super) fn total_len(&self) -> usize {
        let len = self.head_len + self.body.len();
        len + backlen_width(len)
    }

    /// Fills `out`, which is exactly as long as the entry.
    pub(super) fn write(&self, out: &mut [u8]) {
        let len = self.head_len + self.body.len();
        out[..self.head_len].copy_from_slice(&self.head[..self.head_len]);
        out[self.head_len..len].copy_from_slice(self.body);
        // Seven bits a byte, the most significant first, so that walking back meets the lowest bits first; a set top
        // bit says that another byte stands to the left.
        let mut rest = len;
        for (left, byte) in out[len..].iter_mut().rev().enumerate() {
            let more = left + 1 < backlen_width(len);
            *byte = (rest & 0x7f) as u8 | if more { 0x80 } else { 0 };
            rest >>= 7;
        }
    }
}

fn integer_head(head: &mut [u8; 9], value: i64) -> usize {
    let bytes = value.to_le_bytes();
    let (mark, width) = match value {
        0..=127 => {
            head[0] = value as u8;
            return 1;
        }
        -4096..=4095 => {
            head[0] = 0xc0 | ((value >> 8) & 0x1f) as u8;
            head[1] = bytes[0];
            return 2;
        }
        -0x8000..=0x7fff => (0xf1, 2),
        -0x80_0000..=0x7f_ffff => (0xf2, 3),
        -0x8000_0000..=0x7fff_ffff => (0xf3, 4),
        _ => (0xf4, 8),
    };
    head[0] = mark;
    head[1..=width].copy_from_slice(&bytes[..width]);
    width + 1
}

fn bytes_head(head: &mut [u8; 9], len: usize) -> usize {
    if len < 64 {
        head[0] = 0x80 | len as u8;
        1
    } else if len < 4096 {
        head[0] = 0xe0 | (len >> 8) as u8;
        head[1] = len as u8;
        2
    } else {
        head[0] = 0xf0;
        head[1..5].copy_from_slice(&(len as u32).to_le_bytes());
        5
    }
}

fn backlen_width(len: usize) -> usize {
    match len {
        0..=0x7f => 1,
        0x80..=0x3fff => 2,
        0x4000..=0x1f_ffff => 3,
        0x20_0000..=0xfff_ffff => 4,
        _ => 5,
    }
}

/// The head's length and the body's, of the entry at the start of `bytes`; nothing if the head is cut off or unknown.
#[inline]
fn measure(bytes: &[u8]) -> Option<(usize, usize)> {
    let first = *bytes.first()?;
    Some(match first {
        0..=0x7f => (1, 0),
        0x80..=0xbf => (1, usize::from(first & 0x3f)),
        0xc0..=0xdf => (2, 0),
        0xe0..=0xef => (2, usize::from(first & 0x0f) << 8 | usize::from(*bytes.get(1)?)),
        0xf0 => {
            let len = bytes.get(1..5)?;
            (5, u32::from_le_bytes([len[0], len[1], len[2], len[3]]) as usize)
        }
        0xf1 => (3, 0),
        0xf2 => (4, 0),
        0xf3 => (5, 0),
        0xf4 => (9, 0),
        _ => return None,
    })
}

/// The whole length of the entry at the start of `bytes`, which are well formed.
#[inline]
pub(super) fn entry_len(bytes: &[u8]) -> usize {
    step();
    let (head, body) = measure(bytes).unwrap_or((1, 0));
    head + body + backlen_width(head + body)
}

/// The element at the start of `bytes`, which are well formed.
#[inline]
pub(super) fn decode(bytes: &[u8]) -> Item<'_> {
    step();
    let (head, body) = measure(bytes).unwrap_or((1, 0));
    item(bytes, head, body)
}

/// The same, and the whole length of the entry.
#[inline]
pub(super) fn decode_whole(bytes: &[u8]) -> (Item<'_>, usize) {
    step();
    let (head, body) = measure(bytes).unwrap_or((1, 0));
    (item(bytes, head, body), head + body + backlen_width(head + body))
}

#[inline]
fn item(bytes: &[u8], head: usize, body: usize) -> Item<'_> {
    match bytes[0] {
        first @ 0..=0x7f => Item::Int(i64::from(first)),
        first @ 0xc0..=0xdf => {
            let raw = i64::from(first & 0x1f) << 8 | i64::from(bytes[1]);
            // Thirteen bits, sign extended.
            Item::Int(raw << 51 >> 51)
        }
        0xf1..=0xf4 => {
            let data = &bytes[1..head];
            let sign = if data[data.len() - 1] & 0x80 == 0 { 0 } else { 0xff };
            let mut wide = [sign; 8];
            wide[..data.len()].copy_from_slice(data);
            Item::Int(i64::from_le_bytes(wide))
        }
        _ => Item::Bytes(&bytes[head..head + body]),
    }
}

/// The length that the entry ending with `bytes` states, and the width of that statement.
pub(super) fn backlen_at(bytes: &[u8]) -> (usize, usize) {
    step();
    let mut len = 0;
    for (index, &byte) in bytes.iter().rev().take(5).enumerate() {
        len |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return (len, index + 1);
        }
    }
    (len, 5)
}

/// The whole length of the entry at the start of `bytes`, if it is well formed and lies within them.
pub(super) fn validate(bytes: &[u8]) -> Option<usize> {
    let (head, body) = measure(bytes)?;
    let len = head.checked_add(body)?;
    let total = len + backlen_width(len);
    let entry = bytes.get(..total)?;
    let mut stated = 0;
    let mut more = false;
    for (index, &byte) in entry[len..].iter().rev().enumerate() {
        stated |= usize::from(byte & 0x7f) << (7 * index);
        more = byte & 0x80 != 0;
        if !more && index + 1 != total - len {
            return None;
        }
    }
    (stated == len && !more).then_some(total)
}
