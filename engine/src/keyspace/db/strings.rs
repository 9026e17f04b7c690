//! Strings, and what a Memcached client keeps beside them.

use super::access::{fresh_access, touch};
use super::{Db, Ttl, WrongType};
use crate::keyspace::{Entry, Item};
use crate::number::parse_i64;

/// Why nothing was added to a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotAdded {
    WrongType,
    NotAnInteger,
    Overflow,
}

impl Db<'_> {
    /// The bytes of a string for a read.
    #[inline]
    pub fn string(&mut self, key: &[u8]) -> Result<Option<&[u8]>, WrongType> {
        match self.get(key) {
            None => Ok(None),
            Some(entry) => entry.as_string().map(Some).ok_or(WrongType),
        }
    }

    /// Sets a string.
    #[inline]
    pub fn set(&mut self, key: &[u8], value: &[u8], ttl: Ttl) {
        let (hash, slot) = self.locate(key);
        let access = self.access_over(key, hash, slot);
        let keeps = ttl == Ttl::Keep;
        if (keeps || ttl == Ttl::Clear) && self.preimages.is_none() {
            // The common case: the same key with a value that fits where the old one is.
            let (index, now_ms) = (self.index, self.env.now_ms);
            if let Some(entry) = self.locked.table(index, slot).get_mut(hash, key)
                && !(keeps && entry.ttl().is_some_and(|at| at <= now_ms))
                && entry.overwrite_string(value, access, keeps)
            {
                return;
            }
        }
        let item = self.kept_item(key, ttl);
        let ttl = self.resolve(key, ttl);
        self.put(key, Entry::string_item(key, value, ttl, access, false, item));
    }

    /// Adds to the integer that a string is (0 where there is none) and gives the sum. The key is looked up once, where the
    /// sum fits in the place of the old number.
    pub fn add_integer(&mut self, key: &[u8], by: i64) -> Result<i64, NotAdded> {
        let (hash, slot) = self.locate(key);
        let is_over = self.drop_if_expired(key, hash, slot);
        let env = self.env;
        let entry = match is_over {
            true => None,
            false => self.locked.table(self.index, slot).get_mut(hash, key),
        };
        let mut digits = itoa::Buffer::new();
        let Some(entry) = entry else {
            self.note_miss(key);
            self.set(key, digits.format(by).as_bytes(), Ttl::Keep);
            return Ok(by);
        };
        self.hits += 1;
        touch(entry, env);
        let old = entry.as_string().ok_or(NotAdded::WrongType)?;
        let old = parse_i64(old).ok_or(NotAdded::NotAnInteger)?;
        let sum = old.checked_add(by).ok_or(NotAdded::Overflow)?;
        let text = digits.format(sum).as_bytes();
        // A write is a use of the key, whatever CLIENT NO-TOUCH says of reads.
        let access = if env.no_touch && !env.lfu { fresh_access(env) } else { entry.access() };
        // A running snapshot wants the old value: `set` sees to that.
        if self.preimages.is_some() || !entry.overwrite_string(text, access, true) {
            self.set(key, text, Ttl::Keep);
        }
        Ok(sum)
    }

    /// Sets a string with what a Memcached client keeps beside it.
    pub fn set_item(&mut self, key: &[u8], value: &[u8], ttl: Ttl, item: Item) {
        if item.is_plain() && ttl != Ttl::Keep {
            return self.set(key, value, ttl);
        }
        self.put_string(key, value, ttl, false, item);
    }

    fn put_string(&mut self, key: &[u8], value: &[u8], ttl: Ttl, raw: bool, item: Item) {
        let ttl = self.resolve(key, ttl);
        let (hash, slot) = self.locate(key);
        let access = self.access_over(key, hash, slot);
        self.put(key, Entry::string_item(key, value, ttl, access, raw, item));
    }

    /// A value that keeps its expiry time keeps its client's flags; which version it is and what was said of
    /// the old one go with that.
    fn kept_item(&mut self, key: &[u8], ttl: Ttl) -> Item {
        let old = if ttl == Ttl::Keep { self.peek(key) } else { None };
        old.map_or(Item::default(), |entry| entry.item().changed())
    }

    /// Changes what Memcached clients keep beside a string; its bytes stay. `false` when it is not there.
    pub fn mark_item(&mut self, key: &[u8], change: impl FnOnce(&mut Item)) -> bool {
        let (hash, slot) = self.locate(key);
        if self.drop_if_expired(key, hash, slot) {
            return false;
        }
        self.before_change(key, hash, slot);
        let table = self.locked.table(self.index, slot);
        let Some(entry) = table.get_mut(hash, key).filter(|e| e.is_string()) else { return false };
        let was = entry.item();
        let mut item = was;
        change(&mut item);
        if item == was || entry.set_item_in_place(item) {
            return true;
        }
        self.remake(key, hash, slot, |entry| entry.with_item(item))
    }

    /// Notes that a Memcached client has fetched a value.
    pub fn mark_fetched(&mut self, key: &[u8]) {
        let (hash, slot) = self.locate(key);
        if let Some(entry) = self.table(slot).get_mut(hash, key).filter(|e| !e.is_fetched()) {
            entry.set_fetched();
        }
    }

    /// Sets a string that a command changed in place (APPEND, SETRANGE, SETBIT): OBJECT ENCODING says raw.
    pub fn set_changed(&mut self, key: &[u8], value: &[u8]) {
        let item = self.kept_item(key, Ttl::Keep);
        self.put_string(key, value, Ttl::Keep, true, item);
    }

    /// Changes the bytes of a string without changing its length; `None` when it is not there.
    pub fn update_string<R>(
        &mut self,
        key: &[u8],
        change: impl FnOnce(&mut [u8]) -> R,
    ) -> Result<Option<R>, WrongType> {
        let (hash, slot) = self.locate(key);
        if self.drop_if_expired(key, hash, slot) {
            return Ok(None);
        }
        self.before_change(key, hash, slot);
        match self.table(slot).get_mut(hash, key) {
            None => Ok(None),
            Some(entry) => {
                let item = entry.item().changed();
                entry.set_item_in_place(item);
                entry.as_string_mut().map(change).map(Some).ok_or(WrongType)
            }
        }
    }
}
