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
    fn create() -> Collection;
}

macro_rules! typed {
    ($($name:ident),*) => {$(
        impl Typed for $name {
            fn of(value: CollectionRef<'_>) -> Option<&Self> {
                if let CollectionRef::$name(v) = value { Some(v) } else { None }
            }
            fn of_mut<'a>(value: &'a mut CollectionMut<'_>) -> Option<&'a mut Self> {
                if let CollectionMut::$name(v) = value { Some(v) } else { None }
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
        match self.locked.table(self.index, slot).get(hash, key) {
            None => return Ok(None),
            Some(entry) if entry.as_collection().and_then(T::of).is_none() => {
                return Err(WrongType);
            }
            Some(_) => {}
        }
        let limits = &self.env.limits;
        let change =
            |value: &mut CollectionMut<'_>| T::of_mut(value).map(|typed| change(typed, limits));
        match self.change_located(key, hash, slot, true, change) {
            None => Ok(None),
            Some(result) => result.map(Some).ok_or(WrongType),
        }
    }

    /// Changes a collection where it is; one that is emptied is deleted. Only who serves clients touches the access time.
    #[inline]
    pub(super) fn change_located<R>(
        &mut self,
        key: &[u8],
        hash: u64,
        slot: u16,
        touches: bool,
        change: impl FnOnce(&mut CollectionMut<'_>) -> R,
    ) -> Option<R> {
        self.before_change(key, hash, slot);
        let env = self.env;
        let entry = self.locked.table(self.index, slot).get_mut(hash, key)?;
        if touches {
            touch(entry, env);
        }
        let mut collection = entry.as_collection_mut()?;
        let was = collection.as_ref();
        let (before, was_timed) = (was.memory_usage(), was.is_timed());
        let result = change(&mut collection);
        let is = collection.as_ref();
        let (after, is_timed) = (is.memory_usage(), is.is_timed());
        let (empty, due) = (is.is_empty(), is.next_due());
        self.used_delta += after as i64 - before as i64;
        if was_timed || is_timed {
            self.locked.table(self.index, slot).note_due(due);
            self.locked.keyspace().note_timed(self.index, was_timed, is_timed);
        }
        if empty {
            self.delete_located(key, hash, slot);
        }
        Some(result)
    }

    /// Changes a collection, making it first when the key is not there.
    pub fn upsert<T: Typed, R>(
        &mut self,
        key: &[u8],
        change: impl FnOnce(&mut T, &Limits) -> R,
    ) -> Result<R, WrongType> {
        if self.peek(key).is_none() {
            self.put(key, Entry::collection(key, T::create(), None, self.access()));
        }
        match self.update::<T, R>(key, change)? {
            Some(result) => Ok(result),
            None => unreachable!("the key was made under the same lock"),
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
