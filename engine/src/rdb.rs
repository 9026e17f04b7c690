//! The snapshot format of the ecosystem: RDB files, full syncs, DUMP payloads.
//!
//! ```text
//! REDIS0010  aux*  ( SELECTDB n  RESIZEDB keys expires  ( [expiry] [idle | freq] type key value )* )*  EOF  crc64
//! ```
//!
//! Every length is a varint of 1, 2, 5 or 9 bytes; a string may also be an integer or LZF-compressed. Collections come
//! as their small forms (one string that is a listpack or an intset) or element by element.
//!
//! **Written** is the oldest version that holds what we have, 10 by default, so that Redis 7.0 and every Valkey read it;
//! 11 adds small sets as listpacks and when consumers of streams were active, 9 spells every collection out for Redis 5.
//! A data set with expiring fields is written as Valkey's 80 (`VALKEY080`); 12 has them as Redis 7.4 and later read them. Asked
//! for an older version, a writer leaves the times out.
//! **Read** is all that Redis (to 14) and Valkey (80, 81) write, without modules and what is theirs alone: those are
//! refused by name. Types from 22 on are numbered by each product for itself, and told apart by the version.
//!
//! What is read is never trusted. Memory is set aside as bytes arrive, not because a length says so; a compressed string
//! may only claim what its format can expand to; every listpack, ziplist and intset is walked before it is used; and
//! each error says at which offset. Nothing here panics on any input (see: `tests::hostile`).
//!
//! Modules in reading order: `lzf`, `input` (bytes to lengths and strings), `ziplist` (old small forms), `value`,
//! `stream`, `reader`, `writer`, `payload`.
mod input;
mod lzf;
mod payload;
mod reader;
mod stream;
mod value;
mod writer;
mod ziplist;

use std::{fmt, io};

pub use payload::{dump_functions, dump_payload, restore_functions, restore_payload};
pub use reader::Reader;
pub use writer::{Access, WriteOptions, Writer, encode_aux, encode_entry};

use crate::types::{Collection, CollectionRef};

/// What is written when nobody asks for another version.
pub const VERSION: u32 = 10;
/// The oldest version that can be written.
pub const VERSION_MIN: u32 = 9;
/// The newest version of Redis that can be written, by which fields of hashes have times.
pub const VERSION_MAX: u32 = 12;
/// The version of Valkey that is written where fields of hashes have times.
pub const VERSION_FIELDS: u32 = 80;
/// The newest version of Redis that is read; types that are new in it and not known here are refused by name.
const REDIS_READ_MAX: u32 = 14;
/// The versions that Valkey writes under its own magic.
const VALKEY_READ: std::ops::RangeInclusive<u32> = 80..=81;

/// A value that was read.
#[derive(Clone, Debug)]
pub enum Value {
    /// A string.
    String(Vec<u8>),
    /// Anything else; never empty.
    Collection(Collection),
}

/// A value to be written.
#[derive(Clone, Copy, Debug)]
pub enum ValueRef<'a> {
    /// A string.
    String(&'a [u8]),
    /// A string that is an integer.
    Int(i64),
    /// Anything else; not empty.
    Collection(CollectionRef<'a>),
}

impl Value {
    /// The value, to be written.
    pub fn as_ref(&self) -> ValueRef<'_> {
        match self {
            Value::String(bytes) => ValueRef::String(bytes),
            Value::Collection(collection) => ValueRef::Collection(collection.as_ref()),
        }
    }
}

/// What a [`Reader`] meets, in the order of the file.
#[derive(Clone, Debug)]
pub enum Event {
    /// A remark about the file, such as `repl-id`; unknown ones are to be ignored.
    Aux(Vec<u8>, Vec<u8>),
    /// The keys that follow belong to this database.
    Db(u64),
    /// How many keys the database holds, and how many of them expire: a hint.
    Resize {
        /// All keys.
        keys: u64,
        /// Those with an expiry.
        expires: u64,
    },
    /// A library of functions, as source text.
    Function(Vec<u8>),
    /// A key.
    Key {
        /// Its name.
        key: Vec<u8>,
        /// Its value.
        value: Value,
        /// When it expires, in milliseconds since 1970.
        expire_at_ms: Option<i64>,
        /// For how many seconds nobody had asked for it.
        idle: Option<u64>,
        /// How often it was asked for, as the LFU counter.
        freq: Option<u8>,
    },
    /// The end; the checksum was right, or absent.
    End,
}

/// Why bytes are refused, and where.
#[derive(Debug)]
pub struct Error {
    /// How many bytes had been read.
    pub offset: u64,
    /// Why.
    pub kind: ErrorKind,
}

/// Why bytes are refused.
#[derive(Debug)]
pub enum ErrorKind {
    /// Reading failed.
    Io(io::Error),
    /// The input ends too early.
    Truncated,
    /// The bytes contradict the format.
    Corrupt(&'static str),
    /// Something that is well formed and not supported.
    Unsupported(&'static str),
    /// A version that is not known.
    Version(String),
    /// The bytes were changed on their way.
    Checksum,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at offset {}: ", self.offset)?;
        match &self.kind {
            ErrorKind::Io(error) => write!(f, "cannot read: {error}"),
            ErrorKind::Truncated => f.write_str("the data ends too early"),
            ErrorKind::Corrupt(what) => write!(f, "corrupt: {what}"),
            ErrorKind::Unsupported(what) => write!(f, "not supported: {what}"),
            ErrorKind::Version(magic) => write!(f, "unknown version or magic {magic:?}"),
            ErrorKind::Checksum => f.write_str("wrong checksum"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.kind {
            ErrorKind::Io(error) => Some(error),
            _ => None,
        }
    }
}

mod types {
    //! The type bytes that are read or written.
    pub(super) const STRING: u8 = 0;
    pub(super) const LIST: u8 = 1;
    pub(super) const SET: u8 = 2;
    pub(super) const ZSET: u8 = 3;
    pub(super) const HASH: u8 = 4;
    pub(super) const ZSET_2: u8 = 5;
    pub(super) const HASH_ZIPMAP: u8 = 9;
    pub(super) const LIST_ZIPLIST: u8 = 10;
    pub(super) const SET_INTSET: u8 = 11;
    pub(super) const ZSET_ZIPLIST: u8 = 12;
    pub(super) const HASH_ZIPLIST: u8 = 13;
    pub(super) const LIST_QUICKLIST: u8 = 14;
    pub(super) const HASH_LISTPACK: u8 = 16;
    pub(super) const ZSET_LISTPACK: u8 = 17;
    pub(super) const LIST_QUICKLIST_2: u8 = 18;
    pub(super) const STREAM: u8 = 15;
    pub(super) const STREAM_2: u8 = 19;
    pub(super) const SET_LISTPACK: u8 = 20;
    pub(super) const STREAM_3: u8 = 21;
    /// Valkey's: field, value, time (-1: none).
    pub(super) const HASH_2: u8 = 22;
    /// Redis's: the earliest time, then for each field its time behind that, plus one (0: none), field, value.
    pub(super) const HASH_METADATA: u8 = 24;
    /// Redis's: the earliest time, then a listpack of field, value, time (0: none).
    pub(super) const HASH_LISTPACK_EX: u8 = 25;

    /// What a type of this number means in a file of this version. Files of 80 and more are Valkey's, and up to 11 no
    /// type was beyond `STREAM_3`.
    pub(super) fn is_known(kind: u8, version: u32) -> bool {
        match kind {
            HASH_2 => version >= 80,
            HASH_METADATA | HASH_LISTPACK_EX => (12..80).contains(&version),
            _ => true,
        }
    }

    /// What an unsupported type is called.
    pub(super) fn name(kind: u8) -> &'static str {
        match kind {
            6 | 7 => "a module's value (type 6 or 7)",
            26 | 27 => "a stream of a later version of Redis (type 26 or 27)",
            22 | 23 => "a hash with expiring fields of a release candidate (type 22 or 23)",
            _ => "a value of an unknown type",
        }
    }
}

mod opcodes {
    //! The bytes that stand where a type could.
    pub(super) const SLOT_INFO: u8 = 244;
    pub(super) const FUNCTION_2: u8 = 245;
    pub(super) const FUNCTION_PRE_GA: u8 = 246;
    pub(super) const MODULE_AUX: u8 = 247;
    pub(super) const IDLE: u8 = 248;
    pub(super) const FREQ: u8 = 249;
    pub(super) const AUX: u8 = 250;
    pub(super) const RESIZE_DB: u8 = 251;
    pub(super) const EXPIRE_MS: u8 = 252;
    pub(super) const EXPIRE: u8 = 253;
    pub(super) const SELECT_DB: u8 = 254;
    pub(super) const EOF: u8 = 255;
}

#[cfg(test)]
mod tests;
