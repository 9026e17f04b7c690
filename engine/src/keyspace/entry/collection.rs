//! Collections in entries: each is one word, behind the key at the next multiple of eight, and which type it is stands where
//! a string has its length.

use super::{Entry, Item, Value};
use crate::types::{Collection, CollectionMut, CollectionRef, Hash, List, Set, Stream, ZSet};

/// Bytes of any collection in its entry, and what they are aligned to.
pub(super) const WORD: usize = 8;

const LIST: usize = 0;
const HASH: usize = 1;
const SET: usize = 2;
const ZSET: usize = 3;
const STREAM: usize = 4;

const fn is_word<T>() -> bool {
    size_of::<T>() == WORD && align_of::<T>() == WORD
}
const _: () = assert!(is_word::<List>() && is_word::<Hash>() && is_word::<Set>());
const _: () = assert!(is_word::<ZSet>() && is_word::<Box<Stream>>());

impl Entry {
    /// An entry that owns a collection.
    pub fn collection(key: &[u8], value: Collection, ttl: Option<i64>, access: u32) -> Entry {
        let kind = match &value {
            Collection::List(_) => LIST,
            Collection::Hash(_) => HASH,
            Collection::Set(_) => SET,
            Collection::ZSet(_) => ZSET,
            Collection::Stream(_) => STREAM,
        };
        let entry = Entry::allocate(key, Value::Word(kind), ttl, access, Item::default());
        let Some((_, word)) = entry.word() else { unreachable!("made for a collection") };
        // SAFETY: `allocate` reserved an aligned word there, as large as each of the types; the entry owns the value from
        // here on.
        unsafe {
            match value {
                Collection::List(list) => word.cast::<List>().write(list),
                Collection::Hash(hash) => word.cast::<Hash>().write(hash),
                Collection::Set(set) => word.cast::<Set>().write(set),
                Collection::ZSet(zset) => word.cast::<ZSet>().write(zset),
                Collection::Stream(stream) => word.cast::<Box<Stream>>().write(stream),
            }
        }
        entry
    }

    /// The collection of a collection entry; `None` for a string.
    #[inline]
    pub fn as_collection(&self) -> Option<CollectionRef<'_>> {
        let (kind, word) = self.word()?;
        // SAFETY: the word holds a live value of the type that the entry states, borrowed as long as the entry is.
        Some(unsafe {
            match kind {
                LIST => CollectionRef::List(&*word.cast()),
                HASH => CollectionRef::Hash(&*word.cast()),
                SET => CollectionRef::Set(&*word.cast()),
                ZSET => CollectionRef::ZSet(&*word.cast()),
                STREAM => CollectionRef::Stream(&*word.cast::<Box<Stream>>()),
                _ => unreachable!("an entry of no type"),
            }
        })
    }

    /// The same, to be changed.
    #[inline]
    pub fn as_collection_mut(&mut self) -> Option<CollectionMut<'_>> {
        let (kind, word) = self.word()?;
        // SAFETY: as above, exclusive by `&mut self`.
        Some(unsafe {
            match kind {
                LIST => CollectionMut::List(&mut *word.cast()),
                HASH => CollectionMut::Hash(&mut *word.cast()),
                SET => CollectionMut::Set(&mut *word.cast()),
                ZSET => CollectionMut::ZSet(&mut *word.cast()),
                STREAM => CollectionMut::Stream(&mut *word.cast::<Box<Stream>>()),
                _ => unreachable!("an entry of no type"),
            }
        })
    }

    /// The collection of a collection entry, owned (to be freed elsewhere); `None` for a string.
    pub fn into_collection(mut self) -> Option<Collection> {
        self.take_collection()
    }

    /// Takes the collection out; what is left is a string of a few bytes, to be dropped.
    pub(super) fn take_collection(&mut self) -> Option<Collection> {
        let (kind, word) = self.word()?;
        self.forget_word();
        // SAFETY: the word held a value of this type, and the entry no longer owns it.
        Some(unsafe {
            match kind {
                LIST => Collection::List(word.cast::<List>().read()),
                HASH => Collection::Hash(word.cast::<Hash>().read()),
                SET => Collection::Set(word.cast::<Set>().read()),
                ZSET => Collection::ZSet(word.cast::<ZSet>().read()),
                STREAM => Collection::Stream(word.cast::<Box<Stream>>().read()),
                _ => unreachable!("an entry of no type"),
            }
        })
    }

    /// Which type the collection of a collection entry has, and where its word is.
    #[inline]
    fn word(&self) -> Option<(usize, *mut u8)> {
        if self.is_string() {
            return None;
        }
        let parts = self.parts();
        // SAFETY: `allocate` reserved it there.
        let word = unsafe { self.0.as_ptr().add(word_at(parts.value)) };
        Some((parts.value_len, word))
    }
}

/// Where the word lies, given where the key ends.
#[inline]
pub(super) fn word_at(key_end: usize) -> usize {
    (key_end + (WORD - 1)) & !(WORD - 1)
}
