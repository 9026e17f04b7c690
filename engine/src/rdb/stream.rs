//! Streams, read and written.
//!
//! ```text
//! n ( first-id listpack )*n   length   last-id   [first-id   max-deleted-id   entries-added]
//! n ( group name   last-id   [entries-read]
//!     n ( id   delivered-ms   count )*n                 what is pending, for whomever
//!     n ( consumer name   seen-ms   [active-ms]   n id*n )*n )*n
//! ```
//!
//! In brackets: from type 19 on, and `active-ms` in type 21 only. A key's or a pending ID is 16 bytes, big-endian; other
//! IDs are two lengths; times are 8 bytes, little-endian.

use std::collections::BTreeMap;
use std::io::{self, Read};

use super::{Error, input::Input, types, value::listpack, writer::Sink};
use crate::types::stream::{Group, Log, Stream, StreamId};

const BAD_NODE: &str = "a stream whose entries are not well formed or out of order";
const BAD_COUNTS: &str = "a stream that contradicts its own entries";
const BAD_GROUP: &str = "a stream with a repeated group or consumer";
const BAD_PENDING: &str = "a stream with entries pending for nobody, or twice";

pub(super) fn read<R: Read>(input: &mut Input<R>, kind: u8) -> Result<Stream, Error> {
    let mut log = Log::default();
    for _ in 0..input.length()? {
        let Ok(master) = <[u8; 16]>::try_from(input.string()?) else {
            return input.corrupt(BAD_NODE);
        };
        let pack = listpack(input)?;
        if log.add_node(StreamId::from_bytes(master), pack).is_none() {
            return input.corrupt(BAD_NODE);
        }
    }
    let (len, last_id) = (input.length()?, id(input)?);
    if len != log.len() as u64 || last_id < log.last_id {
        return input.corrupt(BAD_COUNTS);
    }
    log.last_id = last_id;
    log.entries_added = len;
    if kind != types::STREAM {
        // The first ID is known from the entries.
        id(input)?;
        log.max_deleted_id = id(input)?;
        log.entries_added = input.length()?;
    }
    let mut groups = BTreeMap::new();
    for _ in 0..input.length()? {
        let (name, group) = (input.string()?.into_boxed_slice(), group(input, kind, &log)?);
        if groups.insert(name, group).is_some() {
            return input.corrupt(BAD_GROUP);
        }
    }
    Ok(Stream::from_parts(log, groups))
}

fn id<R: Read>(input: &mut Input<R>) -> Result<StreamId, Error> {
    Ok(StreamId { ms: input.length()?, seq: input.length()? })
}

fn group<R: Read>(input: &mut Input<R>, kind: u8, log: &Log) -> Result<Group, Error> {
    let last_id = id(input)?;
    let entries_read = if kind == types::STREAM {
        log.entries_up_to(last_id)
    } else {
        // A negative number stands for "unknown".
        Some(input.length()?).filter(|read| i64::try_from(*read).is_ok())
    };
    let mut group = Group::new(last_id, entries_read);
    let mut pending = BTreeMap::new();
    for _ in 0..input.length()? {
        let id = StreamId::from_bytes(input.array()?);
        let delivered_ms = i64::from_le_bytes(input.array()?);
        if pending.insert(id, (delivered_ms, input.length()?)).is_some() {
            return input.corrupt(BAD_PENDING);
        }
    }
    for _ in 0..input.length()? {
        let name = input.string()?;
        let seen_ms = i64::from_le_bytes(input.array()?);
        let (consumer, added) = group.find_or_add(&name, seen_ms);
        if !added {
            return input.corrupt(BAD_GROUP);
        }
        // Before it was kept apart, having asked was being active.
        let active_ms = match kind {
            types::STREAM_3 => i64::from_le_bytes(input.array()?),
            _ => seen_ms,
        };
        group.consumer_mut(consumer).active_ms = active_ms;
        for _ in 0..input.length()? {
            let id = StreamId::from_bytes(input.array()?);
            let Some((delivered_ms, count)) = pending.remove(&id) else {
                return input.corrupt(BAD_PENDING);
            };
            group.assign(id, delivered_ms, count, consumer);
        }
    }
    if pending.is_empty() { Ok(group) } else { input.corrupt(BAD_PENDING) }
}

impl Sink<'_> {
    pub(super) fn stream(&mut self, stream: &Stream, kind: u8) -> io::Result<()> {
        let log = stream.log();
        self.length(log.nodes().len());
        for (master, pack) in log.nodes() {
            self.string(&master.to_bytes())?;
            self.string(pack.as_bytes())?;
        }
        self.length(log.len());
        self.id(log.last_id);
        if kind != types::STREAM {
            self.id(log.first_id());
            self.id(log.max_deleted_id);
            self.number(log.entries_added);
        }
        self.length(stream.groups().len());
        for (name, group) in stream.groups() {
            self.string(name)?;
            self.id(group.last_id);
            if kind != types::STREAM {
                self.number(group.entries_read.unwrap_or(u64::MAX));
            }
            self.group(group, kind)?;
        }
        Ok(())
    }

    fn group(&mut self, group: &Group, kind: u8) -> io::Result<()> {
        self.length(group.pending_len());
        for (id, pending) in group.pending_from(StreamId::MIN) {
            self.bytes(&id.to_bytes())?;
            self.bytes(&pending.delivered_ms.to_le_bytes())?;
            self.number(pending.count);
        }
        self.length(group.consumers().len());
        for consumer in group.consumers() {
            self.string(consumer.name())?;
            self.bytes(&consumer.seen_ms.to_le_bytes())?;
            if kind == types::STREAM_3 {
                self.bytes(&consumer.active_ms.to_le_bytes())?;
            }
            self.length(consumer.pending_len());
            for id in consumer.pending_from(StreamId::MIN) {
                self.bytes(&id.to_bytes())?;
            }
        }
        Ok(())
    }

    fn id(&mut self, id: StreamId) {
        self.number(id.ms);
        self.number(id.seq);
    }
}
