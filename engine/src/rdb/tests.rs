use proptest::prelude::*;

use super::*;
use crate::types::stream::Group;
use crate::types::{Hash, Item, Limits, List, Set, Stream, StreamId, ZSet};

mod against_redis;
mod fields;
mod hostile;

/// A value as a client would see it, in a fixed order.
fn describe(value: &Value) -> Vec<String> {
    let text = |item: Item<'_>| String::from_utf8_lossy(&item.to_vec()).into_owned();
    match value {
        Value::String(bytes) => vec![String::from_utf8_lossy(bytes).into_owned()],
        Value::Collection(collection) => match collection {
            Collection::List(list) => list.iter().map(text).collect(),
            Collection::ZSet(zset) => {
                zset.iter().map(|(member, score)| format!("{}={score}", text(member))).collect()
            }
            Collection::Set(set) => {
                let mut members: Vec<_> = set.iter().map(text).collect();
                members.sort();
                members
            }
            Collection::Stream(stream) => describe_stream(stream),
            Collection::Hash(hash) => {
                let pair = |(field, value)| format!("{}={}", text(field), text(value));
                let mut pairs: Vec<_> = hash.iter().map(pair).collect();
                pairs.sort();
                pairs
            }
        },
    }
}

/// A stream as XINFO STREAM FULL of Redis 7.0 shows it, without what is its own or computed.
fn describe_stream(stream: &Stream) -> Vec<String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let log = stream.log();
    let mut out = Vec::new();
    let mut field = |name: &str, value: String| out.extend([name.to_owned(), value]);
    field("length", log.len().to_string());
    field("radix-tree-keys", log.nodes().len().to_string());
    field("last-generated-id", log.last_id.to_string());
    field("max-deleted-entry-id", log.max_deleted_id.to_string());
    field("entries-added", log.entries_added.to_string());
    field("recorded-first-entry-id", log.first_id().to_string());
    out.push("entries".into());
    for entry in log.range(StreamId::MIN, StreamId::MAX, false) {
        out.push(entry.id.to_string());
        out.extend(entry.fields().flat_map(|(f, v)| [text(&f.to_vec()), text(&v.to_vec())]));
    }
    out.push("groups".into());
    for (name, group) in stream.groups() {
        let read = group.entries_read.map_or(-1, |read| read as i64);
        out.extend([
            "name".into(),
            text(name),
            "last-delivered-id".into(),
            group.last_id.to_string(),
        ]);
        out.extend(["entries-read".into(), read.to_string()]);
        out.extend(["pel-count".into(), group.pending_len().to_string(), "pending".into()]);
        for (id, pending) in group.pending_from(StreamId::MIN) {
            let consumer = text(group.consumer(pending.consumer).name());
            let (at, count) = (pending.delivered_ms.to_string(), pending.count.to_string());
            out.extend([id.to_string(), consumer, at, count]);
        }
        out.push("consumers".into());
        for consumer in group.consumers() {
            out.extend(["name".into(), text(consumer.name())]);
            out.extend(["seen-time".into(), consumer.seen_ms.to_string()]);
            out.extend(["pel-count".into(), consumer.pending_len().to_string(), "pending".into()]);
            for id in consumer.pending_from(StreamId::MIN) {
                let pending = group.pending(id).unwrap();
                let (at, count) = (pending.delivered_ms.to_string(), pending.count.to_string());
                out.extend([id.to_string(), at, count]);
            }
        }
    }
    out
}

/// A stream of so many entries, read by two groups; with gaps where entries are deleted.
fn sample_stream(count: usize, with_gaps: bool) -> Stream {
    let limits = Limits::default();
    let mut stream = Stream::new();
    for n in 0..count as u64 {
        let id = StreamId { ms: 1000 + n / 3, seq: n % 3 };
        let value = n.to_string();
        let pairs: &[&[u8]] = match n % 5 {
            0 => &[b"field", value.as_bytes(), b"other", b"text"],
            _ => &[b"field", value.as_bytes()],
        };
        stream.log_mut().append(id, pairs, &limits);
    }
    stream.add_group(b"idle", Group::new(StreamId::MIN, Some(0)));
    stream.add_group(b"group", Group::new(StreamId::MIN, Some(0)));
    stream.change_group(b"group", |log, group| {
        let (first, _) = group.find_or_add(b"first", 1_700_000_000_000);
        let (second, _) = group.find_or_add(b"second", 1_700_000_000_001);
        group.find_or_add(b"idle", 1_700_000_000_002);
        // Before it is kept apart, having asked is being active.
        group.consumer_mut(first).active_ms = 1_700_000_000_000;
        group.consumer_mut(second).active_ms = 1_700_000_000_001;
        for (n, entry) in log.range(StreamId::MIN, StreamId::MAX, false).enumerate() {
            group.advance(log, entry.id);
            let consumer = if n % 3 == 0 { second } else { first };
            group.assign(entry.id, 1_700_000_000_000 + n as i64, 1 + n as u64 % 4, consumer);
            if n % 4 == 0 {
                group.acknowledge(entry.id);
            }
        }
    });
    if with_gaps {
        (0..count as u64).step_by(7).for_each(|n| {
            stream.log_mut().delete(StreamId { ms: 1000 + n / 3, seq: n % 3 });
        });
    }
    stream
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "string",
        Value::Collection(collection) => collection.as_ref().type_name(),
    }
}

/// One value of each type and encoding, made of `count` elements.
fn samples(count: usize) -> Vec<(String, Value)> {
    let limits = Limits::default();
    let (mut list, mut set, mut ints) = (List::new(), Set::new(), Set::new());
    let (mut hash, mut zset) = (Hash::new(), ZSet::new());
    for n in 0..count {
        let text = format!("element {n}");
        list.push_back(text.as_bytes(), &limits);
        set.add(text.as_bytes(), &limits);
        ints.add((n * 1000).to_string().as_bytes(), &limits);
        hash.set(format!("field {n}").as_bytes(), n.to_string().as_bytes(), &limits);
        zset.insert(text.as_bytes(), n as f64 / 4.0 - 3.0, &limits);
    }
    list.push_back(&b"big ".repeat(count * 300), &limits);
    zset.insert(b"first", f64::NEG_INFINITY, &limits);
    zset.insert(b"last", f64::INFINITY, &limits);
    vec![
        (format!("string:{count}"), Value::String(b"text ".repeat(count))),
        (format!("int:{count}"), Value::String(format!("-{count}").into_bytes())),
        (format!("list:{count}"), Value::Collection(list.into())),
        (format!("set:{count}"), Value::Collection(set.into())),
        (format!("ints:{count}"), Value::Collection(ints.into())),
        (format!("hash:{count}"), Value::Collection(hash.into())),
        (format!("zset:{count}"), Value::Collection(zset.into())),
        (format!("stream:{count}"), Value::Collection(sample_stream(count, false).into())),
        (format!("gaps:{count}"), Value::Collection(sample_stream(count, true).into())),
    ]
}

fn write(entries: &[(String, Value)], options: WriteOptions) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new(), options);
    writer.header().unwrap();
    writer.aux(b"redis-ver", b"7.0.0").unwrap();
    writer.select_db(0).unwrap();
    writer.resize_db(entries.len() as u64, 1).unwrap();
    for (index, (key, value)) in entries.iter().enumerate() {
        let expire = (index == 0).then_some(4_000_000_000_000);
        let access = match index {
            1 => Access::Idle(300),
            2 => Access::Freq(7),
            _ => Access::Unknown,
        };
        writer.entry(key.as_bytes(), value.as_ref(), expire, access).unwrap();
    }
    writer.end().unwrap()
}

fn read(bytes: &[u8]) -> Result<Vec<Event>, Error> {
    let mut reader = Reader::new(bytes, Limits::default());
    let mut events = Vec::new();
    loop {
        match reader.next_event()? {
            Event::End => return Ok(events),
            event => events.push(event),
        }
    }
}

#[test]
fn the_checksum_is_that_of_the_ecosystem() {
    let sum = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Redis, b"123456789");
    assert_eq!(sum, 0xe9c6_d914_c4b8_d9ca);
}

#[test]
fn what_is_written_reads_back_in_every_version() {
    let entries: Vec<_> = [1, 20, 400, 20_000].into_iter().flat_map(samples).collect();
    for version in VERSION_MIN..=VERSION_MAX {
        for compress in [false, true] {
            let bytes = write(&entries, WriteOptions { version, compress, checksum: true });
            let events = read(&bytes).unwrap();
            assert!(matches!(&events[0], Event::Aux(key, _) if key == b"redis-ver"));
            assert!(matches!(events[1], Event::Db(0)));
            assert!(matches!(events[2], Event::Resize { expires: 1, .. }));
            assert_eq!(events.len(), entries.len() + 3);
            for (index, (event, (name, expected))) in events[3..].iter().zip(&entries).enumerate() {
                let Event::Key { key, value, expire_at_ms, idle, freq } = event else {
                    panic!("{event:?}")
                };
                assert_eq!(key, name.as_bytes());
                if version > 9 || !name.starts_with("gaps:") {
                    assert_eq!(describe(value), describe(expected), "{name} in version {version}");
                }
                assert_eq!(*expire_at_ms, (index == 0).then_some(4_000_000_000_000));
                assert_eq!(*idle, (index == 1).then_some(300));
                assert_eq!(*freq, (index == 2).then_some(7));
            }
        }
    }
}

#[test]
fn payloads_restore_to_the_same_value_and_encoding() {
    for (name, value) in [1, 20, 400, 5000].into_iter().flat_map(samples) {
        for version in VERSION_MIN..=VERSION_MAX {
            let payload = dump_payload(value.as_ref(), version);
            let restored = restore_payload(&payload, &Limits::default()).unwrap();
            // The oldest form of streams knows nothing of what was deleted.
            if version > 9 || !name.starts_with("gaps:") {
                assert_eq!(describe(&restored), describe(&value), "{name}");
            }
            if let (Value::Collection(a), Value::Collection(b)) = (&restored, &value) {
                assert_eq!(a.as_ref().encoding_name(), b.as_ref().encoding_name(), "{name}");
            }
        }
    }
    let payload = dump_payload(ValueRef::Int(-70_000), VERSION);
    let restored = restore_payload(&payload, &Limits::default()).unwrap();
    assert!(matches!(restored, Value::String(text) if text == b"-70000"));
}

#[test]
fn a_reader_gives_back_what_follows_the_snapshot() {
    let mut bytes = write(&samples(3), WriteOptions::default());
    let len = bytes.len() as u64;
    bytes.extend_from_slice(b"*1\r\n$4\r\nPING\r\n");
    let mut reader = Reader::new(&bytes[..], Limits::default());
    while !matches!(reader.next_event().unwrap(), Event::End) {}
    assert_eq!(reader.offset(), len);
    let (rest, mut buffered) = reader.into_parts();
    buffered.extend_from_slice(rest);
    assert_eq!(buffered, b"*1\r\n$4\r\nPING\r\n");
}

#[test]
fn old_and_foreign_files_are_read() {
    let hash = b"\x02\x03foo\x03\x00bar\x05hello\x05\x00world\xff";
    let body = [
        &b"\xfe\x00\xfd\x00\xe1\xf5\x05\x00\x01k\x01v"[..],
        b"\x03\x01z\x02\x01a\x031.5\x01b\xfe",
        b"\x09\x01h",
        &[hash.len() as u8],
        hash,
        b"\xff",
    ]
    .concat();
    let old = [&b"REDIS0003"[..], &body].concat();
    let valkey = [&b"VALKEY080\xf4\x05\x01\x00"[..], &body, &[0; 8]].concat();
    for (bytes, version) in [(old, 3), (valkey, 80)] {
        let mut reader = Reader::new(&bytes[..], Limits::default());
        let mut found = Vec::new();
        loop {
            match reader.next_event().unwrap() {
                Event::Key { value, expire_at_ms, .. } => {
                    found.push((describe(&value).join(" "), expire_at_ms));
                }
                Event::End => break,
                _ => {}
            }
        }
        assert_eq!(reader.version(), Some(version));
        let expected =
            [("v", Some(100_000_000_000)), ("a=1.5 b=inf", None), ("foo=bar hello=world", None)];
        assert_eq!(found, expected.map(|(text, at)| (text.to_owned(), at)));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_string_survives(bytes: Vec<u8>, number: i64, times in 1usize..50) {
        for text in [bytes.repeat(times), number.to_string().into_bytes()] {
            let payload = dump_payload(ValueRef::String(&text), VERSION);
            let restored = restore_payload(&payload, &Limits::default()).unwrap();
            prop_assert!(matches!(restored, Value::String(other) if other == text));
        }
    }
}
