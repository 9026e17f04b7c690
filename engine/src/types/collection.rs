//! Any collection, and the limits of the small encodings.

use super::{Hash, List, Set, Stream, ZSet};

/// Where the small encodings end, and the seed of the tables behind them. The names are those of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Negative: bytes per node, -1 (4 KiB) to -5 (64 KiB); positive: elements per node.
    pub list_max_listpack_size: i32,
    /// Fields.
    pub hash_max_listpack_entries: usize,
    /// Bytes of a field or a value.
    pub hash_max_listpack_value: usize,
    /// Members.
    pub set_max_intset_entries: usize,
    /// Members.
    pub set_max_listpack_entries: usize,
    /// Bytes of a member.
    pub set_max_listpack_value: usize,
    /// Members.
    pub zset_max_listpack_entries: usize,
    /// Bytes of a member.
    pub zset_max_listpack_value: usize,
    /// Bytes of a stream's node; 0: no limit but the format's.
    pub stream_node_max_bytes: usize,
    /// Entries of a stream's node; 0: no limit.
    pub stream_node_max_entries: usize,
    /// What tables are hashed under; random per process, so that clients cannot choose colliding keys.
    pub seed: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            list_max_listpack_size: -2,
            hash_max_listpack_entries: 512,
            hash_max_listpack_value: 64,
            set_max_intset_entries: 512,
            set_max_listpack_entries: 128,
            set_max_listpack_value: 64,
            zset_max_listpack_entries: 128,
            zset_max_listpack_value: 64,
            stream_node_max_bytes: 4096,
            stream_node_max_entries: 100,
            seed: 0,
        }
    }
}

/// A value that holds other values. Cloning is deep.
#[derive(Clone, Debug)]
pub enum Collection {
    /// A list.
    List(List),
    /// A hash.
    Hash(Hash),
    /// A set.
    Set(Set),
    /// A sorted set.
    ZSet(ZSet),
    /// A stream.
    Stream(Box<Stream>),
}

// Every key that is no string pays for the largest of them: streams, which are few, stand apart.
const _: () = assert!(size_of::<Collection>() <= 32);

impl Collection {
    /// What TYPE prints.
    pub fn type_name(&self) -> &'static str {
        match self {
            Collection::List(_) => "list",
            Collection::Hash(_) => "hash",
            Collection::Set(_) => "set",
            Collection::ZSet(_) => "zset",
            Collection::Stream(_) => "stream",
        }
    }

    /// What OBJECT ENCODING prints.
    pub fn encoding_name(&self) -> &'static str {
        match self {
            Collection::List(list) => list.encoding(),
            Collection::Hash(hash) => hash.encoding(),
            Collection::Set(set) => set.encoding(),
            Collection::ZSet(zset) => zset.encoding(),
            Collection::Stream(stream) => stream.encoding(),
        }
    }

    /// How many elements it holds.
    pub fn len(&self) -> usize {
        match self {
            Collection::List(list) => list.len(),
            Collection::Hash(hash) => hash.len(),
            Collection::Set(set) => set.len(),
            Collection::ZSet(zset) => zset.len(),
            Collection::Stream(stream) => stream.len(),
        }
    }

    /// Whether it holds nothing and its key is deleted. A stream's is kept, for what the stream knows of the past.
    pub fn is_empty(&self) -> bool {
        self.len() == 0 && !matches!(self, Collection::Stream(_))
    }

    /// Some of its elements expire by themselves: fields of hashes.
    #[inline]
    pub fn is_timed(&self) -> bool {
        matches!(self, Collection::Hash(hash) if hash.is_timed())
    }

    /// No element expires before this time (a lower bound), unix milliseconds.
    #[inline]
    pub fn next_due(&self) -> i64 {
        if let Collection::Hash(hash) = self { hash.next_due() } else { super::hash::NEVER }
    }

    /// How many parts freeing it has to walk, about.
    pub fn parts(&self) -> usize {
        match self {
            Collection::Stream(stream) => stream.parts(),
            other => other.len(),
        }
    }

    /// What a boxed collection takes from the allocator, its box included. Takes constant time.
    pub fn memory_usage(&self) -> usize {
        super::size_class(size_of::<Self>())
            + match self {
                Collection::List(list) => list.memory_usage(),
                Collection::Hash(hash) => hash.memory_usage(),
                Collection::Set(set) => set.memory_usage(),
                Collection::ZSet(zset) => zset.memory_usage(),
                Collection::Stream(stream) => {
                    super::size_class(size_of::<Stream>()) + stream.memory_usage()
                }
            }
    }
}

impl From<List> for Collection {
    fn from(list: List) -> Self {
        Collection::List(list)
    }
}

impl From<Hash> for Collection {
    fn from(hash: Hash) -> Self {
        Collection::Hash(hash)
    }
}

impl From<Set> for Collection {
    fn from(set: Set) -> Self {
        Collection::Set(set)
    }
}

impl From<ZSet> for Collection {
    fn from(zset: ZSet) -> Self {
        Collection::ZSet(zset)
    }
}

impl From<Stream> for Collection {
    fn from(stream: Stream) -> Self {
        Collection::Stream(Box::new(stream))
    }
}
