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

/// A borrowed collection.
#[derive(Clone, Copy, Debug)]
pub enum CollectionRef<'a> {
    /// A list.
    List(&'a List),
    /// A hash.
    Hash(&'a Hash),
    /// A set.
    Set(&'a Set),
    /// A sorted set.
    ZSet(&'a ZSet),
    /// A stream.
    Stream(&'a Stream),
}

/// A collection that is borrowed to be changed.
#[derive(Debug)]
pub enum CollectionMut<'a> {
    /// A list.
    List(&'a mut List),
    /// A hash.
    Hash(&'a mut Hash),
    /// A set.
    Set(&'a mut Set),
    /// A sorted set.
    ZSet(&'a mut ZSet),
    /// A stream.
    Stream(&'a mut Stream),
}

impl CollectionRef<'_> {
    /// Brings a member, or a field, nearer, where finding it takes more than one miss.
    #[inline]
    pub fn prefetch(self, member: &[u8]) {
        match self {
            Self::Hash(hash) => hash.prefetch(member),
            Self::Set(set) => set.prefetch(member),
            Self::ZSet(zset) => zset.prefetch(member),
            Self::List(_) | Self::Stream(_) => {}
        }
    }
}

impl Collection {
    /// The collection, borrowed.
    #[inline]
    pub fn as_ref(&self) -> CollectionRef<'_> {
        match self {
            Collection::List(list) => CollectionRef::List(list),
            Collection::Hash(hash) => CollectionRef::Hash(hash),
            Collection::Set(set) => CollectionRef::Set(set),
            Collection::ZSet(zset) => CollectionRef::ZSet(zset),
            Collection::Stream(stream) => CollectionRef::Stream(stream),
        }
    }

    /// Whether it holds nothing and its key is deleted.
    pub fn is_empty(&self) -> bool {
        self.as_ref().is_empty()
    }
}

impl CollectionMut<'_> {
    /// The collection, to be looked at.
    #[inline]
    pub fn as_ref(&self) -> CollectionRef<'_> {
        match self {
            CollectionMut::List(list) => CollectionRef::List(list),
            CollectionMut::Hash(hash) => CollectionRef::Hash(hash),
            CollectionMut::Set(set) => CollectionRef::Set(set),
            CollectionMut::ZSet(zset) => CollectionRef::ZSet(zset),
            CollectionMut::Stream(stream) => CollectionRef::Stream(stream),
        }
    }
}

impl CollectionRef<'_> {
    /// What TYPE prints.
    pub fn type_name(self) -> &'static str {
        match self {
            CollectionRef::List(_) => "list",
            CollectionRef::Hash(_) => "hash",
            CollectionRef::Set(_) => "set",
            CollectionRef::ZSet(_) => "zset",
            CollectionRef::Stream(_) => "stream",
        }
    }

    /// What OBJECT ENCODING prints.
    pub fn encoding_name(self) -> &'static str {
        match self {
            CollectionRef::List(list) => list.encoding(),
            CollectionRef::Hash(hash) => hash.encoding(),
            CollectionRef::Set(set) => set.encoding(),
            CollectionRef::ZSet(zset) => zset.encoding(),
            CollectionRef::Stream(stream) => stream.encoding(),
        }
    }

    /// How many elements it holds.
    pub fn len(self) -> usize {
        match self {
            CollectionRef::List(list) => list.len(),
            CollectionRef::Hash(hash) => hash.len(),
            CollectionRef::Set(set) => set.len(),
            CollectionRef::ZSet(zset) => zset.len(),
            CollectionRef::Stream(stream) => stream.len(),
        }
    }

    /// Whether it holds nothing and its key is deleted. A stream's is kept, for what the stream knows of the past.
    #[inline(always)]
    pub fn is_empty(self) -> bool {
        match self {
            CollectionRef::List(list) => list.is_empty(),
            CollectionRef::Hash(hash) => hash.is_empty(),
            CollectionRef::Set(set) => set.is_empty(),
            CollectionRef::ZSet(zset) => zset.is_empty(),
            CollectionRef::Stream(_) => false,
        }
    }

    /// Some of its elements expire by themselves: fields of hashes.
    #[inline(always)]
    pub fn is_timed(self) -> bool {
        matches!(self, CollectionRef::Hash(hash) if hash.is_timed())
    }

    /// No element expires before this time (a lower bound), unix milliseconds.
    #[inline(always)]
    pub fn next_due(self) -> i64 {
        if let CollectionRef::Hash(hash) = self { hash.next_due() } else { super::hash::NEVER }
    }

    /// How many parts freeing it has to walk, about.
    pub fn parts(self) -> usize {
        match self {
            CollectionRef::Stream(stream) => stream.parts(),
            other => other.len(),
        }
    }

    /// What it takes from the allocator, besides the word that it is. Takes constant time.
    #[inline(always)]
    pub fn memory_usage(self) -> usize {
        match self {
            CollectionRef::List(list) => list.memory_usage(),
            CollectionRef::Hash(hash) => hash.memory_usage(),
            CollectionRef::Set(set) => set.memory_usage(),
            CollectionRef::ZSet(zset) => zset.memory_usage(),
            CollectionRef::Stream(stream) => {
                super::size_class(size_of::<Stream>()) + stream.memory_usage()
            }
        }
    }

    /// A deep copy.
    pub fn to_collection(self) -> Collection {
        match self {
            CollectionRef::List(list) => list.clone().into(),
            CollectionRef::Hash(hash) => hash.clone().into(),
            CollectionRef::Set(set) => set.clone().into(),
            CollectionRef::ZSet(zset) => zset.clone().into(),
            CollectionRef::Stream(stream) => stream.clone().into(),
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
