//! The small forms that older versions wrote, read element by element: ziplist and zipmap.

use crate::types::Item;

/// The elements of a ziplist; nothing if it is not well formed.
///
/// `bytes u32le, tail u32le, count u16le`, then entries of (length of the entry before, encoding, data), then `ff`.
pub(super) fn elements(bytes: &[u8]) -> Option<Vec<Item<'_>>> {
    let header = bytes.get(..10)?;
    let stated = u32::from_le_bytes([header[0], header[1], header[2], header[3]]) as usize;
    let count = usize::from(u16::from_le_bytes([header[8], header[9]]));
    let (&end, body) = bytes.split_last()?;
    if stated != bytes.len() || end != 0xff {
        return None;
    }
    let mut rest = body.get(10..)?;
    let mut items = Vec::new();
    let mut before = 0;
    while !rest.is_empty() {
        let (back, width) = match *rest.first()? {
            0xfe => (u32::from_le_bytes(rest.get(1..5)?.try_into().ok()?) as usize, 5),
            0xff => return None,
            len => (usize::from(len), 1),
        };
        if back != before {
            return None;
        }
        let (item, len) = entry(rest.get(width..)?)?;
        before = width + len;
        rest = rest.get(before..)?;
        items.push(item);
    }
    (count == usize::from(u16::MAX) || count == items.len()).then_some(items)
}

/// An element, and how long its encoding and data are.
fn entry(bytes: &[u8]) -> Option<(Item<'_>, usize)> {
    let first = *bytes.first()?;
    let low = usize::from(first & 0x3f);
    let text = |head: usize, len: usize| {
        let end = head.checked_add(len)?;
        Some((Item::Bytes(bytes.get(head..end)?), end))
    };
    let integer = |width: usize| {
        let data = bytes.get(1..1 + width)?;
        let mut wide = [if data[width - 1] & 0x80 == 0 { 0 } else { 0xff }; 8];
        wide[..width].copy_from_slice(data);
        Some((Item::Int(i64::from_le_bytes(wide)), 1 + width))
    };
    match first {
        0x00..=0x3f => text(1, low),
        0x40..=0x7f => text(2, low << 8 | usize::from(*bytes.get(1)?)),
        0x80 => text(5, u32::from_be_bytes(bytes.get(1..5)?.try_into().ok()?) as usize),
        0xc0 => integer(2),
        0xd0 => integer(4),
        0xe0 => integer(8),
        0xf0 => integer(3),
        0xfe => integer(1),
        0xf1..=0xfd => Some((Item::Int(i64::from(first & 0x0f) - 1), 1)),
        _ => None,
    }
}

/// The fields and values of a zipmap, in turn; nothing if it is not well formed.
///
/// `count u8`, then (length, field, length, spare u8, value, spare bytes), then `ff`.
pub(super) fn zipmap(bytes: &[u8]) -> Option<Vec<&[u8]>> {
    let (&end, body) = bytes.split_last()?;
    let mut rest = body.get(1..)?;
    let mut items = Vec::new();
    while !rest.is_empty() {
        let (field, tail) = sized(rest, false)?;
        let (value, tail) = sized(tail, true)?;
        items.extend([field, value]);
        rest = tail;
    }
    (end == 0xff).then_some(items)
}

fn sized(bytes: &[u8], has_spare: bool) -> Option<(&[u8], &[u8])> {
    let (len, mut head) = match *bytes.first()? {
        254 => (u32::from_le_bytes(bytes.get(1..5)?.try_into().ok()?) as usize, 5),
        255 => return None,
        len => (usize::from(len), 1),
    };
    let mut spare = 0;
    if has_spare {
        spare = usize::from(*bytes.get(head)?);
        head += 1;
    }
    let end = head.checked_add(len)?;
    Some((bytes.get(head..end)?, bytes.get(end.checked_add(spare)?..)?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_ziplist_as_redis_6_wrote_it_is_read() {
        // [ "2", "5", "hello", 1024, -70000 ]
        let bytes = [
            &[0u8, 0, 0, 0, 26, 0, 0, 0, 5, 0][..],
            &[0x00, 0xf3, 0x02, 0xf6, 0x02, 0x05, b'h', b'e', b'l', b'l', b'o'],
            &[0x07, 0xc0, 0x00, 0x04, 0x04, 0xf0, 0x90, 0xee, 0xfe, 0xff],
        ];
        let mut bytes = bytes.concat();
        bytes[0] = bytes.len() as u8;
        let texts: Vec<_> = elements(&bytes).unwrap().into_iter().map(Item::to_vec).collect();
        assert_eq!(texts, [&b"2"[..], b"5", b"hello", b"1024", b"-70000"]);
        for cut in 0..bytes.len() {
            assert!(elements(&bytes[..cut]).is_none());
        }
        bytes[12] = 9;
        assert!(elements(&bytes).is_none(), "a length of the entry before that lies");
    }

    #[test]
    fn a_zipmap_as_redis_2_wrote_it_is_read() {
        let bytes = b"\x02\x03foo\x03\x00bar\x05hello\x05\x01world!\xff";
        assert_eq!(zipmap(bytes).unwrap(), [&b"foo"[..], b"bar", b"hello", b"world"]);
        for cut in 0..bytes.len() {
            assert!(zipmap(&bytes[..cut]).is_none() || cut == 0);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged_without_panic(mut bytes: Vec<u8>) {
            zipmap(&bytes);
            elements(&bytes);
            if bytes.len() > 10 {
                let len = bytes.len() as u32;
                bytes[..4].copy_from_slice(&len.to_le_bytes());
                bytes[8] = 0xff;
                bytes[9] = 0xff;
                *bytes.last_mut().unwrap() = 0xff;
                elements(&bytes);
            }
        }
    }
}
