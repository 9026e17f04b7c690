//! Collections: read, changed where they are, made when they are missing.

use super::access::touch;
use super::{Db, Ttl, WrongType};
use crate::keyspace::Entry;
use crate::types::{
    Collection, CollectionMut, CollectionRef, Hash, Limits, List, Set, Stream, ZSet,
};

/// The collections, so that `Db::read` and `Db::update` know which one is meant.
pub trait Typed: Sized {
    fn of(value: CollectionRef<'_>) -> Option<&Self>;
    fn of_mut<'a>(value: &'a mut CollectionMut<'_>) -> Option<&'a mut Self>;
    /// As the collection that it is, to be looked at.
    fn held(&self) -> CollectionRef<'_>;
    fn create() -> Collection;
}

macro_rules! typed {
    ($($name:ident),*) => {$(
        impl Typed for $name {
            #[inline]
            fn of(value: CollectionRef<'_>) -> Option<&Self> {
                if let CollectionRef::$name(v) = value { Some(v) } else { None }
            }
            #[inline]
            fn of_mut<'a>(value: &'a mut CollectionMut<'_>) -> Option<&'a mut Self> {
                if let CollectionMut::$name(v) = value { Some(v) } else { None }
            }
            #[inline(always)]
            fn held(&self) -> CollectionRef<'_> {
                CollectionRef::$name(self)
            }
            fn create() -> Collection {
                $name::new().into()
            }
        }
    )*};
}
typed!(List, Hash, Set, ZSet, Stream);

impl Db<'_> {
    /// A collection for a read.
    pub fn read<T: Typed>(&mut self, key: &[u8]) -> Result<Option<&T>, WrongType> {
        match self.get(key) {
            None => Ok(None),
            Some(entry) => entry.as_collection().and_then(T::of).map(Some).ok_or(WrongType),
        }
    }

    /// Changes a collection; `None` when the key is not there. An emptied collection is deleted.
    /// The caller says afterwards, by `Ctx::modified`, whether anything changed.
    pub fn update<T: Typed, R>(
        &mut self,
        key: &[u8],
        change: impl FnOnce(&mut T, &Limits) -> R,
    ) -> Result<Option<R>, WrongType> {
        let (hash, slot) = self.locate(key);
        if self.drop_if_expired(key, hash, slot) {
            return Ok(None);
        }
        Ok(self.try_update(key, hash, slot, change)?.ok())
    }

    /// The same with a key that has not expired; gives `change` back where it is not there.
    fn try_update<T: Typed, R, F: FnOnce(&mut T, &Limits) -> R>(
        &mut self,
        key: &[u8],
        hash: u64,
        slot: u16,
        change: F,
    ) -> Result<Result<R, F>, WrongType> {
        self.before_change(key, hash, slot);
        let env = self.env;
        let Some(entry) = self.locked.table(self.index, slot).get_mut(hash, key) else {
            return Ok(Err(change));
        };
        let mut value = entry.as_collection_mut();
        let Some(value) = value.as_mut().and_then(T::of_mut) else { return Err(WrongType) };
        // The compiler knows which collection it is, and asks no more than that one of it.
        let was = Was::of(value.held());
        let result = change(value, &env.limits);
        let left = was.left(value.held());
        touch(entry, env);
        self.note_left(key, hash, slot, left);
        Ok(Ok(result))
    }

    /// Changes a collection where it is, not on behalf of a client: its access time stays. One that is emptied is deleted.
    #[inline]
    pub(super) fn change_located<R>(
        &mut self,
        key: &[u8],
        hash: u64,
        slot: u16,
        change: impl FnOnce(&mut CollectionMut<'_>) -> R,
    ) -> Option<R> {
        self.before_change(key, hash, slot);
        let entry = self.locked.table(self.index, slot).get_mut(hash, key)?;
        let (result, left) = change_entry(entry, change)?;
        self.note_left(key, hash, slot, left);
        Some(result)
    }

    /// Counts a change of a collection, and deletes what is empty.
    #[inline(always)]
    fn note_left(&mut self, key: &[u8], hash: u64, slot: u16, left: Left) {
        self.used_delta += left.grown;
        if left.was_timed || left.is_timed {
            self.note_times(slot, &left);
        }
        if left.is_empty {
            self.delete_located(key, hash, slot);
        }
    }

    fn note_times(&mut self, slot: u16, left: &Left) {
        self.locked.table(self.index, slot).note_due(left.due);
        self.locked.keyspace().note_timed(self.index, left.was_timed, left.is_timed);
    }

    /// Changes a collection, making it first when the key is not there.
    pub fn upsert<T: Typed, R>(
        &mut self,
        key: &[u8],
        change: impl FnOnce(&mut T, &Limits) -> R,
    ) -> Result<R, WrongType> {
        let (hash, slot) = self.locate(key);
        let change = if self.drop_if_expired(key, hash, slot) {
            change
        } else {
            match self.try_update(key, hash, slot, change)? {
                Ok(result) => return Ok(result),
                Err(change) => change,
            }
        };
        self.put(key, Entry::collection(key, T::create(), None, self.access()));
        match self.try_update(key, hash, slot, change)? {
            Ok(result) => Ok(result),
            Err(_) => unreachable!("the key was made under the same lock"),
        }
    }

    /// Puts a whole collection in place of whatever the key held; an empty one deletes the key.
    pub fn set_collection(&mut self, key: &[u8], value: Collection, ttl: Ttl) {
        if value.is_empty() {
            self.remove(key);
            return;
        }
        let ttl = self.resolve(key, ttl);
        let (hash, slot) = self.locate(key);
        let access = self.access_over(key, hash, slot);
        self.put(key, Entry::collection(key, value, ttl, access));
    }
}

/// What a change has left of a collection.
struct Left {
    /// Bytes more than before.
    grown: i64,
    was_timed: bool,
    is_timed: bool,
    /// When the first field of it expires, if any does.
    due: i64,
    is_empty: bool,
}

/// What is known of a collection before it is changed.
struct Was {
    bytes: usize,
    is_timed: bool,
}

impl Was {
    #[inline(always)]
    fn of(value: CollectionRef<'_>) -> Was {
        Was { bytes: value.memory_usage(), is_timed: value.is_timed() }
    }

    #[inline(always)]
    fn left(self, is: CollectionRef<'_>) -> Left {
        Left {
            grown: is.memory_usage() as i64 - self.bytes as i64,
            was_timed: self.is_timed,
            is_timed: is.is_timed(),
            due: is.next_due(),
            is_empty: is.is_empty(),
        }
    }
}

/// Changes the collection of an entry; `None` for a string.
#[inline]
fn change_entry<R>(
    entry: &mut Entry,
    change: impl FnOnce(&mut CollectionMut<'_>) -> R,
) -> Option<(R, Left)> {
    let mut collection = entry.as_collection_mut()?;
    let was = Was::of(collection.as_ref());
    let result = change(&mut collection);
    let left = was.left(collection.as_ref());
    Some((result, left))
}
