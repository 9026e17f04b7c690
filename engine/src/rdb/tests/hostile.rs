//! Bytes that lie.

use super::*;

fn reason(bytes: &[u8]) -> String {
    read(bytes).map(|events| format!("{events:?}")).unwrap_or_else(|error| error.to_string())
}

/// A payload with a right checksum around any body.
fn sealed(body: &[u8]) -> Vec<u8> {
    let mut payload = body.to_vec();
    payload.extend_from_slice(&10u16.to_le_bytes());
    let sum = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Redis, &payload);
    payload.extend_from_slice(&sum.to_le_bytes());
    payload
}

fn restore(body: &[u8]) -> Result<Value, Error> {
    restore_payload(&sealed(body), &Limits::default())
}

#[test]
fn each_lie_is_named_with_its_offset() {
    for (bytes, expected) in [
        (&b"REDIS0099"[..], "at offset 9: unknown version or magic \"REDIS0099\""),
        (b"VALKEY012", "at offset 9: unknown version or magic \"VALKEY012\""),
        (b"REDIS+010", "at offset 9: unknown version or magic \"REDIS+010\""),
        (b"hello", "at offset 5: the data ends too early"),
        (b"REDIS0010\x1a\x01k\x00", "at offset 12: not supported: a stream"),
        (b"REDIS0010\x07\x01k\x00", "at offset 12: not supported: a module's value"),
        (
            b"REDIS0010\x16\x01k\x00",
            "at offset 12: not supported: a hash with expiring fields of a",
        ),
        (b"REDIS0010\x50\x01k\x00", "at offset 12: not supported: a value of an unknown type"),
        (b"REDIS0010\xf2", "at offset 10: not supported: an opcode of one product only"),
        (b"VALKEY080\xf4\x80\x00\x00\x40\x00\x00\x00", "at offset 17: corrupt: a slot beyond"),
        (b"REDIS0010\x12\x01k\x01\x03\x00", "at offset 14: corrupt: a list node that is neither"),
        (b"REDIS0010\x00\x01k\xc4", "at offset 13: corrupt: an unknown encoding of a string"),
        (b"REDIS0010\x00\x01k\x82", "at offset 13: corrupt: an unknown form of length"),
        (
            b"REDIS0010\x00\x01k\xc3\x0a\x81\x00\x00\x00\x01\x00\x00\x00\x00",
            "at offset 23: corrupt: a compressed string with an impossible length",
        ),
        (
            b"REDIS0010\x00\x01k\x81\xff\xff\xff\xff\xff\xff\xff\xff",
            "at offset 21: corrupt: a string longer than 4080 MiB",
        ),
        (b"REDIS0010\x00\x01k\x80\x7f\xff\xff\xffxyz", "at offset 20: the data ends too early"),
        (b"REDIS0010\xff\x01\0\0\0\0\0\0\0", "at offset 18: wrong checksum"),
    ] {
        let reason = reason(bytes);
        assert!(reason.starts_with(expected), "{reason} instead of {expected}");
    }
}

#[test]
fn values_that_contradict_themselves_are_refused() {
    let nan = f64::NAN.to_le_bytes();
    let zset = |scores: &[&[u8]]| {
        let mut body = vec![types::ZSET_2, scores.len() as u8];
        for score in scores {
            body.extend_from_slice(b"\x01m");
            body.extend_from_slice(score);
        }
        body
    };
    assert!(restore(&zset(&[&nan])).is_err());
    assert!(restore(&zset(&[&1f64.to_le_bytes(), &2f64.to_le_bytes()])).is_err(), "repeated");
    assert!(restore(b"\x02\x02\x01a\x01a").is_err(), "a set with a repeated member");
    assert!(restore(b"\x04\x02\x01a\x01a\x01a\x01b").is_err(), "a hash with a repeated field");
    assert!(restore(b"\x02\x00").is_err(), "an empty set");
    assert!(restore(b"\x00\x01a\x00").is_err(), "bytes behind the value");
    assert!(restore(b"\x00\x01a").is_ok());
    assert!(restore(&[]).is_err());
    let mut wrong_sum = sealed(b"\x00\x01a");
    *wrong_sum.last_mut().unwrap() ^= 1;
    assert!(restore_payload(&wrong_sum, &Limits::default()).is_err());
    let mut no_sum = sealed(b"\x00\x01a");
    let len = no_sum.len();
    no_sum[len - 8..].fill(0);
    assert!(restore_payload(&no_sum, &Limits::default()).is_err());
}

/// A stream of one node, with a group of one pending entry, out of its parts.
fn stream_of(node: &[&[u8]], behind: &[u8]) -> Vec<u8> {
    let mut pack = crate::types::Listpack::new();
    node.iter().for_each(|element| pack.push_back(element));
    let mut body = vec![21, 1, 16];
    body.extend_from_slice(&StreamId { ms: 1, seq: 1 }.to_bytes());
    body.push(pack.as_bytes().len() as u8);
    body.extend_from_slice(pack.as_bytes());
    body.extend_from_slice(behind);
    body
}

#[test]
fn streams_that_lie_are_refused() {
    const HEAD: [&[u8]; 5] = [b"1", b"0", b"1", b"f", b"0"];
    const ENTRY: [&[u8]; 5] = [b"2", b"0", b"0", b"v", b"4"];
    // Length, last ID, first ID, highest deleted ID, entries added, no group.
    const BEHIND: &[u8] = b"\x01\x01\x01\x01\x01\x00\x00\x01\x00";
    let whole = [HEAD, ENTRY].concat();
    assert!(restore(&stream_of(&whole, BEHIND)).is_ok());
    for at in 0..whole.len() {
        let (field, value) = (at == 3, at == 8);
        for lie in [b"-1".as_slice(), b"7", b"9223372036854775807", b"text", b""] {
            let mut node = whole.clone();
            node[at] = lie;
            // Names and values may be anything, and a difference of time any that goes forward.
            let forward = (at == 6 || at == 7) && lie != b"-1" && lie != b"text" && !lie.is_empty();
            let behind: &[u8] = match (at, lie) {
                (6, b"7") => b"\x01\x08\x01\x01\x01\x00\x00\x01\x00",
                (7, b"7") => b"\x01\x01\x08\x01\x01\x00\x00\x01\x00",
                _ => BEHIND,
            };
            // The flags 7 have an unknown bit, and the known ones say deleted: there is no entry then.
            let fits = field || value || forward && lie == b"7";
            assert_eq!(restore(&stream_of(&node, behind)).is_ok(), fits, "{at} {lie:?}");
        }
        let mut short = whole.clone();
        short.remove(at);
        assert!(restore(&stream_of(&short, BEHIND)).is_err(), "without {at}");
    }
    let twice = [HEAD, ENTRY, ENTRY].concat();
    assert!(restore(&stream_of(&twice, BEHIND)).is_err(), "an entry twice");
    for (behind, why) in [
        (&b"\x02\x01\x01\x01\x01\x00\x00\x01\x00"[..], "more entries than there are"),
        (b"\x01\x01\x00\x01\x01\x00\x00\x01\x00", "a last ID before the last entry"),
        (b"\x01\x01\x01\x01\x01\x00\x00\x01\x01", "a group that is not there"),
    ] {
        assert!(restore(&stream_of(&whole, behind)).is_err(), "{why}");
    }
    let id = StreamId { ms: 1, seq: 1 }.to_bytes();
    let pending = [&id[..], &[0; 8], b"\x01"].concat();
    let consumer = |name: u8, ids: &[&[u8]]| {
        [&[1, name][..], &[0; 16], &[ids.len() as u8], &ids.concat()].concat()
    };
    let group = |pending: &[&[u8]], consumers: &[Vec<u8>]| {
        let (count, of) = (pending.len() as u8, consumers.len() as u8);
        let parts =
            [&b"\x01g\x01\x01\x01"[..], &[count], &pending.concat(), &[of], &consumers.concat()];
        [&BEHIND[..8], b"\x01", &parts.concat()].concat()
    };
    let ok = group(&[&pending], &[consumer(b'a', &[&id])]);
    assert!(restore(&stream_of(&whole, &ok)).is_ok());
    for (behind, why) in [
        (group(&[&pending], &[]), "pending for nobody"),
        (group(&[], &[consumer(b'a', &[&id])]), "pending for a consumer alone"),
        (group(&[&pending, &pending], &[consumer(b'a', &[&id])]), "pending twice"),
        (group(&[&pending], &[consumer(b'a', &[&id]), consumer(b'b', &[&id])]), "for two"),
        (group(&[&pending], &[consumer(b'a', &[&id]), consumer(b'a', &[])]), "a consumer twice"),
        ([&BEHIND[..8], b"\x02", &ok[9..], &ok[9..]].concat(), "a group twice"),
    ] {
        assert!(restore(&stream_of(&whole, &behind)).is_err(), "{why}");
    }
}

#[test]
fn every_truncation_is_an_error() {
    for version in [9, 11] {
        let entries: Vec<_> = [2, 200].into_iter().flat_map(samples).collect();
        let bytes = write(&entries, WriteOptions { version, compress: true, checksum: true });
        for cut in (0..bytes.len()).step_by(7) {
            assert!(read(&bytes[..cut]).is_err(), "cut at {cut} of {}", bytes.len());
        }
    }
}

#[test]
fn empty_collections_of_old_files_are_left_out() {
    let bytes = b"REDIS0003\x02\x01e\x00\x00\x01k\x01v\xff";
    let mut reader = Reader::new(&bytes[..], Limits::default());
    assert!(matches!(reader.next_event().unwrap(), Event::Key { key, .. } if key == b"k"));
    assert_eq!(reader.skipped(), 1);
}

proptest! {
    #[test]
    fn a_flipped_bit_never_goes_unnoticed_under_the_checksum(at: usize, bit in 0u8..8) {
        let mut bytes = write(&samples(30), WriteOptions::default());
        let at = 9 + at % (bytes.len() - 9);
        bytes[at] ^= 1 << bit;
        prop_assert!(read(&bytes).is_err());
    }

    #[test]
    fn flipped_bits_with_a_right_checksum_give_an_error_or_a_sound_value(
        sample in 0usize..9, version in 9u32..12, flips in prop::collection::vec((any::<usize>(), 0u8..8), 1..4),
    ) {
        let payload = dump_payload(samples(12)[sample].1.as_ref(), version);
        let mut body = payload[..payload.len() - 10].to_vec();
        for (at, bit) in flips {
            let at = at % body.len();
            body[at] ^= 1 << bit;
        }
        if let Ok(value) = restore(&body) {
            let again = dump_payload(value.as_ref(), 11);
            let restored = restore_payload(&again, &Limits::default()).unwrap();
            prop_assert_eq!(describe(&restored), describe(&value));
        }
    }

    #[test]
    fn any_bytes_are_refused_or_read_without_panic(kind in 0u8..30, bytes: Vec<u8>) {
        let _ = restore(&[&[kind], &bytes[..]].concat());
        let _ = read(&[b"REDIS0010", &bytes[..]].concat());
    }
}
