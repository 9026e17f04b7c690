//! Writes a snapshot, key by key.

use std::io::{self, Write};

use crc_fast::{CrcAlgorithm, Digest};

use super::{VERSION, VERSION_FIELDS, VERSION_MAX, VERSION_MIN, ValueRef, lzf, opcodes, types};
use crate::{
    number,
    types::{CollectionRef, Digits, Hash, Item, List, Set, ZSet, hash::NEVER, list::NodeRef},
};

const BUFFER: usize = 64 << 10;
/// Shorter strings are not worth compressing.
const COMPRESS_MIN: usize = 21;

/// How a snapshot is written.
#[derive(Clone, Copy, Debug)]
pub struct WriteOptions {
    /// [`VERSION_MIN`] to [`VERSION_MAX`], or [`VERSION_FIELDS`].
    pub version: u32,
    /// Whether strings are compressed (`rdbcompression`).
    pub compress: bool,
    /// Whether the file ends with its checksum (`rdbchecksum`), or with zero.
    pub checksum: bool,
}

impl Default for WriteOptions {
    fn default() -> Self {
        Self { version: VERSION, compress: true, checksum: true }
    }
}

/// What is known of a key's use; at most one of the two is worth keeping.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Access {
    /// Nothing.
    #[default]
    Unknown,
    /// Seconds since it was last asked for.
    Idle(u64),
    /// The LFU counter.
    Freq(u8),
}

/// Writes a snapshot: `header`, `aux`, then per database `select_db`, `resize_db`, `entry`..., at last `end`.
pub struct Writer<W> {
    out: W,
    buffer: Vec<u8>,
    digest: Digest,
    options: WriteOptions,
}

impl<W: Write> Writer<W> {
    /// A writer; nothing is written yet. A version out of range is taken to the nearest that can be written.
    pub fn new(out: W, mut options: WriteOptions) -> Self {
        if options.version != VERSION_FIELDS {
            options.version = options.version.clamp(VERSION_MIN, VERSION_MAX);
        }
        let digest = Digest::new(CrcAlgorithm::Crc64Redis);
        Self { out, buffer: Vec::with_capacity(BUFFER), digest, options }
    }

    /// The magic and the version.
    pub fn header(&mut self) -> io::Result<()> {
        let magic = match self.options.version {
            VERSION_FIELDS => format!("VALKEY{VERSION_FIELDS:03}"),
            version => format!("REDIS{version:04}"),
        };
        self.buffer.extend_from_slice(magic.as_bytes());
        Ok(())
    }

    /// A remark about the file.
    pub fn aux(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        self.buffer.push(opcodes::AUX);
        write_string(&mut self.buffer, key, false);
        write_string(&mut self.buffer, value, false);
        self.flush_if_full()
    }

    /// The keys that follow belong to this database.
    pub fn select_db(&mut self, db: u64) -> io::Result<()> {
        self.buffer.push(opcodes::SELECT_DB);
        write_length(&mut self.buffer, db);
        self.flush_if_full()
    }

    /// How many keys the database holds, and how many of them expire.
    pub fn resize_db(&mut self, keys: u64, expires: u64) -> io::Result<()> {
        self.buffer.push(opcodes::RESIZE_DB);
        write_length(&mut self.buffer, keys);
        write_length(&mut self.buffer, expires);
        self.flush_if_full()
    }

    /// A library of functions.
    pub fn function(&mut self, source: &[u8]) -> io::Result<()> {
        write_function(&mut self.buffer, source, self.options.compress);
        self.flush_if_full()
    }

    /// A key with its value.
    pub fn entry(
        &mut self,
        key: &[u8],
        value: ValueRef<'_>,
        expire_at_ms: Option<i64>,
        access: Access,
    ) -> io::Result<()> {
        let Self { out, buffer, digest, options } = self;
        write_head(buffer, key, value, expire_at_ms, access, options);
        write_value(buffer, value, options, &mut |buffer| drain(out, buffer, digest))
    }

    /// Entries that [`encode_entry`] made with the same options.
    pub fn encoded(&mut self, entries: &[u8]) -> io::Result<()> {
        self.buffer.extend_from_slice(entries);
        self.flush_if_full()
    }

    /// The end mark and the checksum; gives the sink back, flushed.
    pub fn end(mut self) -> io::Result<W> {
        self.buffer.push(opcodes::EOF);
        self.flush()?;
        let sum = if self.options.checksum { self.digest.finalize() } else { 0 };
        self.out.write_all(&sum.to_le_bytes())?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn flush_if_full(&mut self) -> io::Result<()> {
        if self.buffer.len() < BUFFER { Ok(()) } else { self.flush() }
    }

    fn flush(&mut self) -> io::Result<()> {
        drain(&mut self.out, &mut self.buffer, &mut self.digest)
    }
}

/// Appends a library of functions.
pub(super) fn write_function(out: &mut Vec<u8>, source: &[u8], compress: bool) {
    out.push(opcodes::FUNCTION_2);
    write_string(out, source, compress);
}

/// Appends a key with its value as [`Writer::entry`] writes it, to be handed to [`Writer::encoded`] later.
pub fn encode_entry(
    out: &mut Vec<u8>,
    key: &[u8],
    value: ValueRef<'_>,
    expire_at_ms: Option<i64>,
    access: Access,
    options: &WriteOptions,
) {
    write_head(out, key, value, expire_at_ms, access, options);
    // Nothing is drained, so that nothing can fail.
    let written = write_value(out, value, options, &mut |_| Ok(()));
    debug_assert!(written.is_ok());
}

/// Appends a remark, to be handed to [`Writer::encoded`] later.
pub fn encode_aux(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    out.push(opcodes::AUX);
    write_string(out, key, false);
    write_string(out, value, false);
}

/// All of an entry that stands before its value.
fn write_head(
    out: &mut Vec<u8>,
    key: &[u8],
    value: ValueRef<'_>,
    expire_at_ms: Option<i64>,
    access: Access,
    options: &WriteOptions,
) {
    if let Some(at) = expire_at_ms {
        out.push(opcodes::EXPIRE_MS);
        out.extend_from_slice(&at.to_le_bytes());
    }
    match access {
        Access::Unknown => {}
        Access::Idle(seconds) => {
            out.push(opcodes::IDLE);
            write_length(out, seconds);
        }
        Access::Freq(counter) => out.extend_from_slice(&[opcodes::FREQ, counter]),
    }
    out.push(type_of(value, options.version));
    write_string(out, key, options.compress);
}

fn drain<W: Write>(out: &mut W, buffer: &mut Vec<u8>, digest: &mut Digest) -> io::Result<()> {
    digest.update(buffer);
    out.write_all(buffer)?;
    buffer.clear();
    Ok(())
}

/// The type byte under which a value is written.
pub(super) fn type_of(value: ValueRef<'_>, version: u32) -> u8 {
    let collection = match value {
        ValueRef::String(_) | ValueRef::Int(_) => return types::STRING,
        ValueRef::Collection(collection) => collection,
    };
    let packed = version >= 10;
    match collection {
        CollectionRef::List(_) if packed => types::LIST_QUICKLIST_2,
        CollectionRef::List(_) => types::LIST,
        CollectionRef::Set(set) if set.as_intset().is_some() => types::SET_INTSET,
        CollectionRef::Set(set) if set.as_listpack().is_some() && version >= 11 => {
            types::SET_LISTPACK
        }
        CollectionRef::Set(_) => types::SET,
        CollectionRef::Hash(hash) if hash.is_timed() && version >= VERSION_FIELDS => types::HASH_2,
        CollectionRef::Hash(hash) if hash.is_timed() && version >= 12 => types::HASH_METADATA,
        CollectionRef::Hash(hash) if hash.as_listpack().is_some() && packed => types::HASH_LISTPACK,
        CollectionRef::Hash(_) => types::HASH,
        CollectionRef::ZSet(zset) if zset.as_listpack().is_some() && packed => types::ZSET_LISTPACK,
        CollectionRef::ZSet(_) => types::ZSET_2,
        CollectionRef::Stream(_) if version >= 11 => types::STREAM_3,
        CollectionRef::Stream(_) if packed => types::STREAM_2,
        CollectionRef::Stream(_) => types::STREAM,
    }
}

/// Writes the body of a value, handing the buffer on whenever it is full.
pub(super) fn write_value(
    buffer: &mut Vec<u8>,
    value: ValueRef<'_>,
    options: &WriteOptions,
    drain: &mut dyn FnMut(&mut Vec<u8>) -> io::Result<()>,
) -> io::Result<()> {
    let mut sink = Sink { buffer, compress: options.compress, drain };
    match value {
        ValueRef::String(bytes) => sink.string(bytes),
        ValueRef::Int(value) => sink.item(Item::Int(value)),
        ValueRef::Collection(collection) => match (collection, type_of(value, options.version)) {
            (CollectionRef::List(list), types::LIST_QUICKLIST_2) => sink.nodes(list),
            (CollectionRef::List(list), _) => sink.list(list),
            (CollectionRef::Set(set), _) => sink.set(set, options.version),
            (CollectionRef::Hash(hash), types::HASH) => sink.hash(hash),
            (CollectionRef::Hash(hash), types::HASH_2) => sink.timed_hash(hash),
            (CollectionRef::Hash(hash), types::HASH_METADATA) => sink.delayed_hash(hash),
            (CollectionRef::Hash(hash), _) => sink.block(hash.as_listpack().map(|p| p.as_bytes())),
            (CollectionRef::ZSet(zset), types::ZSET_2) => sink.zset(zset),
            (CollectionRef::ZSet(zset), _) => sink.block(zset.as_listpack().map(|p| p.as_bytes())),
            (CollectionRef::Stream(stream), kind) => sink.stream(stream, kind),
        },
    }
}

pub(super) struct Sink<'a> {
    buffer: &'a mut Vec<u8>,
    compress: bool,
    drain: &'a mut dyn FnMut(&mut Vec<u8>) -> io::Result<()>,
}

impl Sink<'_> {
    pub(super) fn string(&mut self, bytes: &[u8]) -> io::Result<()> {
        write_string(self.buffer, bytes, self.compress);
        self.drain_if_full()
    }

    fn item(&mut self, item: Item<'_>) -> io::Result<()> {
        self.string(item.bytes(&mut Digits::new()))
    }

    /// A small form, as one string.
    fn block(&mut self, bytes: Option<&[u8]>) -> io::Result<()> {
        bytes.map_or(Ok(()), |bytes| self.string(bytes))
    }

    /// Bytes whose number the format knows.
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.buffer.extend_from_slice(bytes);
        self.drain_if_full()
    }

    pub(super) fn length(&mut self, len: usize) {
        self.number(len as u64);
    }

    pub(super) fn number(&mut self, number: u64) {
        write_length(self.buffer, number);
    }

    fn drain_if_full(&mut self) -> io::Result<()> {
        if self.buffer.len() < BUFFER { Ok(()) } else { (self.drain)(self.buffer) }
    }

    fn nodes(&mut self, list: &List) -> io::Result<()> {
        self.length(list.nodes().count());
        for node in list.nodes() {
            match node {
                NodeRef::Plain(bytes) => {
                    self.length(1);
                    self.string(bytes)?;
                }
                NodeRef::Packed(bytes) => {
                    self.length(2);
                    self.string(bytes)?;
                }
            }
        }
        Ok(())
    }

    fn list(&mut self, list: &List) -> io::Result<()> {
        self.length(list.len());
        list.iter().try_for_each(|item| self.item(item))
    }

    fn set(&mut self, set: &Set, version: u32) -> io::Result<()> {
        if let Some(ints) = set.as_intset() {
            return self.string(&ints.to_bytes());
        }
        if let Some(pack) = set.as_listpack().filter(|_| version >= 11) {
            return self.string(pack.as_bytes());
        }
        self.length(set.len());
        set.iter().try_for_each(|item| self.item(item))
    }

    fn hash(&mut self, hash: &Hash) -> io::Result<()> {
        self.length(hash.len());
        hash.iter().try_for_each(|(field, value)| {
            self.item(field)?;
            self.item(value)
        })
    }

    fn timed_hash(&mut self, hash: &Hash) -> io::Result<()> {
        self.length(hash.len());
        hash.iter_timed().try_for_each(|(field, value, time)| {
            self.item(field)?;
            self.item(value)?;
            let time = if time == NEVER { -1 } else { time };
            self.buffer.extend_from_slice(&time.to_le_bytes());
            Ok(())
        })
    }

    /// The earliest time, and each field with how much later it goes.
    fn delayed_hash(&mut self, hash: &Hash) -> io::Result<()> {
        let first = hash.iter_timed().map(|(.., time)| time).min().unwrap_or(NEVER);
        self.buffer.extend_from_slice(&first.to_le_bytes());
        self.length(hash.len());
        hash.iter_timed().try_for_each(|(field, value, time)| {
            self.number(if time == NEVER { 0 } else { time.abs_diff(first).saturating_add(1) });
            self.item(field)?;
            self.item(value)
        })
    }

    /// Highest score first: readers that insert at the head of a list do least work that way.
    fn zset(&mut self, zset: &ZSet) -> io::Result<()> {
        self.length(zset.len());
        zset.iter().rev().try_for_each(|(member, score)| {
            self.item(member)?;
            self.buffer.extend_from_slice(&score.to_le_bytes());
            Ok(())
        })
    }
}

fn write_length(out: &mut Vec<u8>, len: u64) {
    match len {
        0..0x40 => out.push(len as u8),
        0x40..0x4000 => out.extend_from_slice(&[0x40 | (len >> 8) as u8, len as u8]),
        0x4000..=0xffff_ffff => {
            out.push(0x80);
            out.extend_from_slice(&(len as u32).to_be_bytes());
        }
        _ => {
            out.push(0x81);
            out.extend_from_slice(&len.to_be_bytes());
        }
    }
}

/// An integer, compressed, or as it is: whichever the format has that is shortest.
fn write_string(out: &mut Vec<u8>, bytes: &[u8], compress: bool) {
    if bytes.len() <= 11
        && let Some(value) = number::parse_i64(bytes).and_then(|value| i32::try_from(value).ok())
    {
        let le = value.to_le_bytes();
        return match value {
            -0x80..=0x7f => out.extend_from_slice(&[0xc0, le[0]]),
            -0x8000..=0x7fff => out.extend_from_slice(&[0xc1, le[0], le[1]]),
            _ => out.extend_from_slice(&[0xc2, le[0], le[1], le[2], le[3]]),
        };
    }
    if compress
        && bytes.len() >= COMPRESS_MIN
        && let Some(small) = lzf::compress(bytes)
    {
        out.push(0xc3);
        write_length(out, small.len() as u64);
        write_length(out, bytes.len() as u64);
        out.extend_from_slice(&small);
        return;
    }
    write_length(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}
