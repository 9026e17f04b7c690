//! Hashes with fields that expire by themselves, in the forms of Valkey and Redis.

use proptest::prelude::*;

use super::*;
use crate::types::hash::NEVER;

/// Fields with values and times, sorted.
fn fields(value: &Value) -> Vec<(String, String, i64)> {
    let Value::Collection(collection) = value else { panic!("a string") };
    let Collection::Hash(hash) = collection else { panic!("no hash") };
    let text = |item: Item<'_>| String::from_utf8_lossy(&item.to_vec()).into_owned();
    let mut fields: Vec<_> = hash.iter_timed().map(|(f, v, t)| (text(f), text(v), t)).collect();
    fields.sort();
    fields
}

fn unhex(text: &str) -> Vec<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).unwrap() as u8;
    text.as_bytes().chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

/// A payload with this body, sealed as a server of the version would.
fn seal(body: &[u8], version: u16) -> Vec<u8> {
    let mut payload = [body, &version.to_le_bytes()].concat();
    let sum = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Redis, &payload);
    payload.extend_from_slice(&sum.to_le_bytes());
    payload
}

/// `DUMP` of `a 1 b 2 c xyz`, with b going at 4102444800123 and c at 4102444800000.
const DUMPS: [&str; 3] = [
    // Valkey 9.1.2.
    "16030161c001ffffffffffffffff0162c0027bd8c32cbb03000001630378797a00d8c32cbb03000050009755a8b1692eee21",
    // Redis 8.2.3, as a listpack and as a table.
    "197bd8c32cbb0300002f2f00000009008163028378797a04f400d8c32cbb030000098162020201f47bd8c32cbb03000009\
     81610201010001ff0c00c317ca3c30ed0295",
    "1800d8c32cbb03000003000161c0010101630378797a407c0162c0020c00bfe8494a6fcfbe36",
];

#[test]
fn what_valkey_and_redis_dump_is_read_with_its_times() {
    for dump in DUMPS {
        let value = restore_payload(&unhex(dump), &Limits::default()).unwrap();
        let expected =
            [("a", "1", NEVER), ("b", "2", 4_102_444_800_123), ("c", "xyz", 4_102_444_800_000)];
        assert_eq!(fields(&value), expected.map(|(f, v, t)| (f.to_owned(), v.to_owned(), t)));
        // Written as Valkey does, whatever it came as.
        let again = dump_payload(value.as_ref(), VERSION);
        assert_eq!(again[0], types::HASH_2);
        let value = restore_payload(&again, &Limits::default()).unwrap();
        assert_eq!(fields(&value).len(), 3);
    }
}

#[test]
fn a_type_is_taken_for_what_its_version_means_by_it() {
    for (kind, known, unknown) in [(22u8, [80, 81], [11, 12]), (24, [12, 14], [11, 80])] {
        let body = unhex(DUMPS[if kind == 22 { 0 } else { 2 }]);
        let body = &body[..body.len() - 10];
        for version in known {
            assert!(restore_payload(&seal(body, version), &Limits::default()).is_ok());
        }
        for version in unknown {
            let error = restore_payload(&seal(body, version), &Limits::default()).unwrap_err();
            assert!(matches!(error.kind, ErrorKind::Unsupported(_)), "{kind} {version} {error}");
        }
    }
}

#[test]
fn broken_hashes_with_times_are_refused() {
    let cases: &[(&[u8], u16)] = &[
        // A field twice.
        (b"\x16\x02\x01a\x011\xff\xff\xff\xff\xff\xff\xff\xff\x01a\x012\xff\xff\xff\xff\xff\xff\xff\xff", 80),
        // The time is cut short.
        (b"\x16\x01\x01a\x011\xff\xff\xff", 80),
        // More fields than there are.
        (b"\x16\x81\xff\xff\xff\xff\xff\xff\xff\xff\x01a\x011\0\0\0\0\0\0\0\0", 80),
        // A listpack whose last field has no time, and one with a time that is no number.
        (b"\x19\0\0\0\0\0\0\0\0\x0d\x0d\0\0\0\x02\0\x81a\x02\x811\x02\xff", 12),
        (b"\x19\0\0\0\0\0\0\0\0\x10\x10\0\0\0\x03\0\x81a\x02\x81b\x02\x81c\x02\xff", 12),
        (b"\x18\0\0\0\0\0\0\0\0\x02\x01\x01a\x011\x01\x01a\x011", 12),
        (b"\x18\0\0\0", 12),
    ];
    for (body, version) in cases {
        let restored = restore_payload(&seal(body, *version), &Limits::default());
        assert!(restored.is_err(), "{body:x?}");
    }
    // Times at the ends of what can be counted are over, or never come.
    for (body, time) in [
        (b"\x16\x01\x01a\x011\0\0\0\0\0\0\0\x80".as_slice(), 0),
        (b"\x16\x01\x01a\x011\xfe\xff\xff\xff\xff\xff\xff\xff", 0),
        (b"\x16\x01\x01a\x011\xff\xff\xff\xff\xff\xff\xff\x7f", NEVER),
    ] {
        let value = restore_payload(&seal(body, 80), &Limits::default()).unwrap();
        assert_eq!(fields(&value)[0].2, time);
    }
    let huge =
        b"\x18\xff\xff\xff\xff\xff\xff\xff\x7f\x01\x81\xff\xff\xff\xff\xff\xff\xff\xff\x01a\x011";
    assert!(restore_payload(&seal(huge, 12), &Limits::default()).is_ok());
}

proptest! {
    #[test]
    fn times_survive_the_file(
        entries in prop::collection::btree_map("[a-z]{0,3}", ("[a-z0-9]{0,90}", prop_oneof![Just(NEVER), 0..NEVER]), 1..40),
    ) {
        let limits = Limits { hash_max_listpack_entries: 16, ..Limits::default() };
        let mut hash = Hash::new();
        for (field, (value, time)) in &entries {
            hash.set_until(field.as_bytes(), value.as_bytes(), *time, &limits);
        }
        let timed = hash.is_timed();
        let value = Value::Collection(hash.into());
        let expected = fields(&value);
        let versions = if timed { [VERSION_FIELDS, VERSION_MAX] } else { [VERSION, VERSION_MAX] };
        for version in versions {
            let options = WriteOptions { version, ..WriteOptions::default() };
            let bytes = write(&[("k".into(), value.clone())], options);
            let magic = if version < 80 { format!("REDIS{version:04}") } else { "VALKEY080".into() };
            prop_assert!(bytes.starts_with(magic.as_bytes()));
            let events = read(&bytes).unwrap();
            let Event::Key { value: found, .. } = &events[3] else { panic!("no key") };
            prop_assert_eq!(fields(found), expected.clone());
        }
        // A reader of old has the fields without their times.
        let bytes = write(&[("k".into(), value.clone())], WriteOptions::default());
        let events = read(&bytes).unwrap();
        let Event::Key { value: found, .. } = &events[3] else { panic!("no key") };
        prop_assert_eq!(describe(found), describe(&value));
    }
}
