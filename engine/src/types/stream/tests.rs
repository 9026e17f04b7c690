use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn id(ms: u64, seq: u64) -> StreamId {
    StreamId { ms, seq }
}

type Entries = BTreeMap<StreamId, Vec<Vec<u8>>>;

fn entries<'a>(range: impl Iterator<Item = EntryRef<'a>>) -> Vec<(StreamId, Vec<Vec<u8>>)> {
    let flat =
        |entry: EntryRef<'_>| entry.fields().flat_map(|(f, v)| [f.to_vec(), v.to_vec()]).collect();
    range.map(|entry| (entry.id, flat(entry))).collect()
}

/// Counted anew from what is there.
fn counted(stream: &Stream) -> usize {
    let nodes: usize = stream.log.nodes.values().map(|n| NODE_COST + n.memory_usage()).sum();
    nodes + stream.groups.iter().map(|(name, group)| group.memory_usage(name)).sum::<usize>()
}

fn check(stream: &Stream, model: &Entries) {
    let all: Vec<_> = model.iter().map(|(id, pairs)| (*id, pairs.clone())).collect();
    assert_eq!(entries(stream.log.range(StreamId::MIN, StreamId::MAX, false)), all);
    let mut back = entries(stream.log.range(StreamId::MIN, StreamId::MAX, true));
    back.reverse();
    assert_eq!(back, all);
    assert_eq!(stream.len(), model.len());
    assert_eq!(stream.log.first_id(), model.keys().next().copied().unwrap_or_default());
    assert_eq!(stream.log.last_live(), model.keys().next_back().copied());
    assert_eq!(stream.memory_usage(), counted(stream));
    let mut read = Log::default();
    for (master, pack) in stream.log.nodes() {
        let pack = Listpack::from_bytes(pack.as_bytes()).unwrap();
        assert!(pack.as_bytes().len() > 12 && read.add_node(master, pack).is_some());
    }
    assert_eq!(entries(read.range(StreamId::MIN, StreamId::MAX, false)), all);
}

proptest! {
    #[test]
    fn any_operations_leave_what_a_sorted_map_would(
        node_entries in 0usize..6,
        operations in prop::collection::vec((0u8..10, 0u64..40, 0u64..3, 0usize..4), 1..120),
    ) {
        let limits = Limits { stream_node_max_entries: node_entries, stream_node_max_bytes: 200, ..Limits::default() };
        let (mut stream, mut model) = (Stream::new(), Entries::new());
        let mut deleted = StreamId::MIN;
        for (operation, ms, seq, width) in operations {
            let log = stream.log_mut();
            let at = id(ms, seq);
            match operation {
                0..=4 => {
                    let new = log.last_id.next().unwrap();
                    let new = if seq == 0 { id(new.ms + 1, ms) } else { new };
                    let mut pairs: Vec<Vec<u8>> = Vec::new();
                    for n in 0..=width {
                        pairs.push(format!("f{}", n * (ms % 2) as usize).into_bytes());
                        pairs.push((ms * 1000 + n as u64).to_string().into_bytes());
                    }
                    let borrowed: Vec<&[u8]> = pairs.iter().map(Vec::as_slice).collect();
                    log.append(new, &borrowed, &limits);
                    model.insert(new, pairs);
                }
                5 | 6 => {
                    let was = model.remove(&at).is_some();
                    prop_assert_eq!(log.delete(at), was);
                    if was {
                        deleted = deleted.max(at);
                    }
                    prop_assert_eq!(log.max_deleted_id, deleted);
                }
                7 => {
                    let gone = log.trim(Trim { to: TrimTo::Len(ms), approximate: false, limit: 0 });
                    let mut expected = 0;
                    while model.len() as u64 > ms {
                        model.pop_first();
                        expected += 1;
                    }
                    prop_assert_eq!(gone, expected);
                }
                8 => {
                    log.trim(Trim { to: TrimTo::Id(at), approximate: false, limit: 0 });
                    model = model.split_off(&at);
                }
                _ => {
                    // Whole nodes from the front, never more than were asked for.
                    let before = model.len() as u64;
                    let gone = log.trim(Trim { to: TrimTo::Len(ms), approximate: true, limit: 20 });
                    prop_assert!(gone <= 20 && before - gone >= ms.min(before));
                    for _ in 0..gone {
                        model.pop_first();
                    }
                }
            }
            let end = id(ms + 5, seq);
            let expected: Vec<_> = model.range(at..=end).map(|(i, p)| (*i, p.clone())).collect();
            prop_assert_eq!(entries(stream.log.range(at, end, false)), expected.clone());
            let mut back = entries(stream.log.range(at, end, true));
            back.reverse();
            prop_assert_eq!(back, expected);
            prop_assert_eq!(stream.log.get(at).is_some(), model.contains_key(&at));
        }
        check(&stream, &model);
    }

    #[test]
    fn what_is_pending_belongs_to_one_consumer(
        operations in prop::collection::vec((0u8..6, 0u64..12, 0u8..4), 1..150),
    ) {
        let mut stream = Stream::new();
        stream.add_group(b"g", Group::new(StreamId::MIN, None));
        let mut model: BTreeMap<StreamId, u8> = BTreeMap::new();
        for (operation, n, who) in operations {
            let name = [b'a' + who];
            let at = id(n, 0);
            stream.change_group(b"g", |_, group| match operation {
                0..=2 => {
                    let (consumer, _) = group.find_or_add(&name, 5);
                    group.assign(at, 7, n, consumer);
                    model.insert(at, who);
                }
                3 | 4 => assert_eq!(group.acknowledge(at), model.remove(&at).is_some()),
                _ => {
                    let held = model.values().filter(|by| **by == who).count();
                    let gone = group.remove_consumer(&name);
                    assert!(gone.is_none_or(|gone| gone == held), "{gone:?} {held}");
                    model.retain(|_, by| *by != who);
                }
            });
            let group = stream.group(b"g").unwrap();
            let found: Vec<_> = group
                .pending_from(StreamId::MIN)
                .map(|(id, pending)| (id, group.consumer(pending.consumer).name()[0] - b'a'))
                .collect();
            prop_assert_eq!(found, model.iter().map(|(id, by)| (*id, *by)).collect::<Vec<_>>());
            for consumer in group.consumers() {
                let by = consumer.name()[0] - b'a';
                let ids: Vec<_> = consumer.pending_from(StreamId::MIN).collect();
                let expected: Vec<_> = model.iter().filter(|(_, b)| **b == by).map(|(id, _)| *id).collect();
                prop_assert_eq!(ids, expected);
            }
            prop_assert_eq!(stream.memory_usage(), counted(&stream));
        }
    }
}

#[test]
fn nodes_are_bounded_in_bytes_and_entries() {
    let limits = Limits { stream_node_max_entries: 3, ..Limits::default() };
    let mut log = Log::default();
    (1..=7).for_each(|n| log.append(id(n, 0), &[b"a", b"1"], &limits));
    assert_eq!(log.nodes().len(), 3);
    // Deleted entries count: they are there still.
    log.delete(id(7, 0));
    log.append(id(8, 0), &[b"a", b"1"], &limits);
    assert_eq!(log.nodes().len(), 3);
    let big = vec![b'x'; 5000];
    log.append(id(9, 0), &[b"a", &big], &limits);
    log.append(id(10, 0), &[b"a", b"1"], &limits);
    assert_eq!(log.nodes().len(), 5);
}

/// The figures are those of Valkey 9.1 after the same commands.
#[test]
fn what_a_group_has_still_to_read_is_told_as_by_valkey() {
    let limits = Limits::default();
    let mut stream = Stream::new();
    (1..=5).for_each(|n| stream.log_mut().append(id(n, 0), &[b"a", b"1"], &limits));
    for (name, last, read) in [
        (b"g1", 0, None),
        (b"g2", 3, None),
        (b"g3", 5, None),
        (b"g4", 9, None),
        (b"g5", 1, None),
        (b"g6", 0, Some(1)),
    ] {
        stream.add_group(name, Group::new(id(last, 0), read));
    }
    let read = |stream: &mut Stream, name: &[u8], most: usize| {
        stream.change_group(name, |log, group| {
            let ids: Vec<_> = log
                .range(group.last_id.next().unwrap(), StreamId::MAX, false)
                .take(most)
                .map(|entry| entry.id)
                .collect();
            ids.into_iter().for_each(|id| assert!(group.advance(log, id)));
        });
    };
    read(&mut stream, b"g1", 9);
    read(&mut stream, b"g2", 1);
    let lags = |stream: &Stream| -> Vec<(Option<u64>, Option<i64>)> {
        stream.groups().map(|(_, group)| (group.entries_read, stream.log().lag(group))).collect()
    };
    stream.log_mut().delete(id(3, 0));
    stream.log_mut().trim(Trim { to: TrimTo::Len(1), approximate: false, limit: 0 });
    stream.log_mut().append(id(6, 0), &[b"a", b"1"], &limits);
    stream.log_mut().delete(id(5, 0));
    stream.log_mut().delete(id(6, 0));
    let empty = [
        (Some(5), Some(1)),
        (None, Some(0)),
        (None, Some(0)),
        (None, None),
        (None, Some(0)),
        (Some(1), Some(5)),
    ];
    assert_eq!(lags(&stream), empty);
    stream.log_mut().append(id(7, 0), &[b"a", b"1"], &limits);
    let one = [
        (Some(5), None),
        (None, None),
        (None, None),
        (None, None),
        (None, None),
        (Some(1), Some(1)),
    ];
    assert_eq!(lags(&stream), one);
}
