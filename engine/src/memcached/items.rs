//! What becomes of an item under its slot's lock, and what the journal is told of it.
//!
//! The journal is told in requests that every member knows: SET, APPEND, PEXPIREAT, PERSIST, DEL, and
//! `LARDER.ITEM` where there are flags or marks to keep.

use super::ITEM_OVERHEAD;
use super::ops::{
    Count1, Counted, Delete, Deleted, Expire, Get, Mode, Refusal, Seen, Store, Stored, left_s,
};
use crate::command::Ctx;
use crate::keyspace::db::{lfu_minutes, lru_clock};
use crate::keyspace::{Item, Ttl};

/// Seconds since an access field was set.
fn idle_s(ctx: &Ctx<'_, '_>, access: u32) -> u32 {
    let now = ctx.db.now_ms();
    if ctx.db.env.lfu {
        (lfu_minutes(now).wrapping_sub(access >> 8) & 0xffff) * 60
    } else {
        lru_clock(now).wrapping_sub(access) & 0x00ff_ffff
    }
}

pub(super) fn read(
    ctx: &mut Ctx<'_, '_>,
    key: &[u8],
    how: Get,
    show: impl FnOnce(&mut Vec<u8>, &Seen<'_>),
) -> bool {
    let now_ms = ctx.db.now_ms();
    let access = match ctx.db.peek(key) {
        Some(entry) if !entry.is_string() => {
            ctx.db.misses += 1;
            return false;
        }
        Some(entry) if how.cas && entry.item().cas == 0 => {
            let access = entry.access();
            let cas = ctx.shared.memcached.next_cas(now_ms);
            ctx.db.mark_item(key, |item| item.cas = cas);
            access
        }
        Some(entry) => entry.access(),
        None => 0,
    };
    let idle_s = idle_s(ctx, access);
    let Some(entry) = ctx.db.get(key) else { return false };
    let (item, mut ttl) = (entry.item(), entry.ttl());
    let is_leased = item.state & Item::TOKEN_SENT != 0;
    let is_stale = item.state & Item::STALE != 0;
    let is_late = how.recache_s.is_some_and(|s| ttl.is_some() && left_s(ttl, now_ms) < s);
    let won = how.leases && !is_leased && (is_stale || is_late);
    match how.expire {
        Some(Expire::Never) => ttl = None,
        Some(Expire::At(at)) => ttl = Some(at),
        Some(Expire::Gone) => ttl = Some(now_ms),
        None => {}
    }
    let fetched = entry.is_fetched();
    let value = entry.as_string().unwrap_or_default();
    let seen = Seen { value, item, ttl, fetched, idle_s, now_ms, won };
    show(&mut ctx.reply.out, &seen);
    if !fetched {
        ctx.db.mark_fetched(key);
    }
    if won {
        // Not for the journal: a lease that is forgotten is given a second time, which costs one more refill.
        ctx.db.mark_item(key, |item| item.state |= Item::TOKEN_SENT);
    }
    if let Some(expire) = how.expire {
        set_expiry(ctx, key, expire);
    }
    true
}

/// The expiry time of a key that is there.
pub(super) fn set_expiry(ctx: &mut Ctx<'_, '_>, key: &[u8], expire: Expire) {
    match expire {
        Expire::Gone => {
            remove(ctx, key);
        }
        Expire::At(at) => {
            ctx.db.expire(key, Some(at));
            ctx.propagate(&[b"PEXPIREAT", key, at.to_string().as_bytes()]);
            ctx.modified(key);
        }
        Expire::Never => {
            if ctx.db.peek(key).is_some_and(|entry| entry.ttl().is_some()) {
                ctx.db.expire(key, None);
                ctx.propagate(&[b"PERSIST", key]);
                ctx.modified(key);
            }
        }
    }
}

pub(super) fn remove(ctx: &mut Ctx<'_, '_>, key: &[u8]) -> bool {
    let was = ctx.db.remove(key);
    if was {
        ctx.propagate(&[b"DEL", key]);
        ctx.modified(key);
    }
    was
}

/// What an item is told apart by: `None` when it is not there.
fn current(ctx: &mut Ctx<'_, '_>, key: &[u8]) -> Option<(bool, Item, Option<i64>)> {
    ctx.db.peek(key).map(|entry| (entry.is_string(), entry.item(), entry.ttl()))
}

pub(super) fn put(ctx: &mut Ctx<'_, '_>, store: &Store<'_>, max: usize) -> Result<Stored, Refusal> {
    let key = store.key;
    let old = current(ctx, key);
    let mut state = store.state;
    let mut expire = store.expire;
    if let Some(cas) = store.cas {
        match &old {
            None => return Ok(Stored::NotFound),
            Some((_, item, ttl)) if item.cas != cas => {
                if !store.invalidate || cas > item.cas {
                    return Ok(Stored::Exists);
                }
                // Older than what is there: served as stale, until whoever has the lease brings a newer one.
                state |= Item::STALE | item.state & Item::TOKEN_SENT;
                expire = ttl.map_or(Expire::Never, Expire::At);
            }
            Some(_) => {}
        }
    }
    match (store.mode, &old) {
        (Mode::Add, Some(_)) | (Mode::Replace, None) => return Ok(Stored::NotStored),
        (Mode::Append | Mode::Prepend, None) => match store.vivify {
            Some(at) => expire = at,
            None => return Ok(Stored::NotStored),
        },
        (Mode::Append | Mode::Prepend, Some(_)) => return extend(ctx, store, max),
        _ => {}
    }
    write(ctx, key, store.value, expire, Item { flags: store.flags, state, cas: 0 }, store.new_cas);
    Ok(Stored::Stored(cas_of(ctx, key, store.want_cas)))
}

/// Sets a value, and writes to the journal what has to be kept of it.
fn write(
    ctx: &mut Ctx<'_, '_>,
    key: &[u8],
    value: &[u8],
    expire: Expire,
    item: Item,
    new_cas: Option<u64>,
) {
    if expire == Expire::Gone {
        // Born expired: what is left of it is that the old value is gone.
        remove(ctx, key);
        return;
    }
    let item = Item { cas: new_cas.unwrap_or(0), ..item };
    ctx.db.set_item(key, value, expire.ttl(), item);
    let at = match expire {
        Expire::At(at) => at,
        Expire::Never | Expire::Gone => 0,
    };
    match (item.is_plain(), at) {
        (true, 0) => ctx.propagate(&[b"SET", key, value]),
        (true, at) => ctx.propagate(&[b"SET", key, value, b"PXAT", at.to_string().as_bytes()]),
        (false, at) => {
            let [flags, state, cas] =
                [u64::from(item.flags), u64::from(item.state), item.cas].map(|n| n.to_string());
            ctx.propagate(&[
                b"LARDER.ITEM",
                key,
                flags.as_bytes(),
                state.as_bytes(),
                cas.as_bytes(),
                value,
                at.to_string().as_bytes(),
            ]);
        }
    }
    ctx.modified(key);
}

/// The CAS of the value that a key has now, drawn if need be.
fn cas_of(ctx: &mut Ctx<'_, '_>, key: &[u8], wanted: bool) -> u64 {
    if !wanted {
        return 0;
    }
    let fresh = ctx.shared.memcached.next_cas(ctx.db.now_ms());
    let mut cas = fresh;
    ctx.db.mark_item(key, |item| {
        if item.cas == 0 {
            item.cas = fresh;
        }
        cas = item.cas;
    });
    cas
}

fn extend(ctx: &mut Ctx<'_, '_>, store: &Store<'_>, max: usize) -> Result<Stored, Refusal> {
    const WRONG_TYPE: &str = "WRONGTYPE Operation against a key holding the wrong kind of value";
    let key = store.key;
    let old = match ctx.db.string(key) {
        Ok(old) => old.unwrap_or_default(),
        Err(_) => return Err(Refusal::Error(WRONG_TYPE.into())),
    };
    if key.len() + old.len() + store.value.len() + ITEM_OVERHEAD > max {
        return Ok(Stored::TooLarge);
    }
    if store.mode == Mode::Append {
        let value = [old, store.value].concat();
        ctx.db.set_changed(key, &value);
        ctx.propagate(&[b"APPEND", key, store.value]);
    } else {
        let value = [store.value, old].concat();
        ctx.db.set(key, &value, Ttl::Keep);
        ctx.propagate(&[b"SET", key, &value, b"KEEPTTL"]);
    }
    note_cas(ctx, key, store.new_cas);
    ctx.modified(key);
    Ok(Stored::Stored(cas_of(ctx, key, store.want_cas)))
}

/// Gives a value the CAS that its client chose.
fn note_cas(ctx: &mut Ctx<'_, '_>, key: &[u8], new_cas: Option<u64>) {
    let Some(cas) = new_cas else { return };
    ctx.db.mark_item(key, |item| item.cas = cas);
    mark(ctx, key);
}

/// Writes to the journal what is beside a value, the value staying as it is.
fn mark(ctx: &mut Ctx<'_, '_>, key: &[u8]) {
    let Some((_, item, _)) = current(ctx, key) else { return };
    let [flags, state, cas] =
        [u64::from(item.flags), u64::from(item.state), item.cas].map(|n| n.to_string());
    ctx.propagate(&[b"LARDER.ITEM", key, flags.as_bytes(), state.as_bytes(), cas.as_bytes()]);
}

/// A number as memcached reads it: of at most 20 bytes, with spaces around it.
fn number(value: &[u8]) -> Option<u64> {
    let digits = value.trim_ascii();
    if value.len() > 20 || digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

pub(super) fn calculate(ctx: &mut Ctx<'_, '_>, count: &Count1<'_>) -> Result<Counted, Refusal> {
    let key = count.key;
    let Some((is_string, item, ttl)) = current(ctx, key) else {
        let Some((initial, expire)) = count.initial else { return Ok(Counted::NotFound) };
        let mut digits = itoa::Buffer::new();
        let value = digits.format(initial).as_bytes();
        write(ctx, key, value, expire, Item::default(), count.new_cas);
        let ttl = if let Expire::At(at) = expire { Some(at) } else { None };
        let cas = cas_of(ctx, key, count.want_cas);
        return Ok(Counted::Number { value: initial, cas, ttl });
    };
    if count.cas.is_some_and(|cas| cas != item.cas) {
        return Ok(Counted::Exists);
    }
    let old = match ctx.db.string(key) {
        Ok(Some(value)) if is_string => value,
        _ => return Ok(Counted::NotANumber),
    };
    let Some(n) = number(old) else { return Ok(Counted::NotANumber) };
    let new = if count.down { n.saturating_sub(count.delta) } else { n.wrapping_add(count.delta) };
    let mut digits = itoa::Buffer::new();
    let mut value = digits.format(new).as_bytes().to_vec();
    // A number that gets shorter keeps its length: clients of old read as much as they wrote.
    value.resize(value.len().max(old.len()), b' ');
    ctx.db.set(key, &value, Ttl::Keep);
    ctx.propagate(&[b"SET", key, &value, b"KEEPTTL"]);
    ctx.modified(key);
    note_cas(ctx, key, count.new_cas);
    let cas = cas_of(ctx, key, count.want_cas);
    let ttl = match count.expire {
        Some(expire) => {
            set_expiry(ctx, key, expire);
            if let Expire::At(at) = expire { Some(at) } else { None }
        }
        None => ttl,
    };
    Ok(Counted::Number { value: new, cas, ttl })
}

pub(super) fn unmake(ctx: &mut Ctx<'_, '_>, key: &[u8], how: Delete) -> Deleted {
    let Some((is_string, item, ttl)) = current(ctx, key) else { return Deleted::NotFound };
    if how.cas.is_some_and(|cas| cas != item.cas) {
        return Deleted::Exists;
    }
    if !is_string || !(how.invalidate || how.value_only) {
        remove(ctx, key);
        return Deleted::Deleted;
    }
    if how.value_only {
        let expire = ttl.map_or(Expire::Never, Expire::At);
        write(ctx, key, b"", expire, Item { flags: 0, ..item }, None);
    }
    if how.invalidate {
        // Whoever asks next wins anew; and the version changes, so that a store by the old CAS is refused.
        let cas = how.new_cas.unwrap_or_else(|| ctx.shared.memcached.next_cas(ctx.db.now_ms()));
        ctx.db.mark_item(key, |item| {
            item.state = (item.state | Item::STALE) & !Item::TOKEN_SENT;
            item.cas = cas;
        });
        mark(ctx, key);
        ctx.modified(key);
    }
    if let Some(expire) = how.expire {
        set_expiry(ctx, key, expire);
    }
    Deleted::Deleted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_has_at_most_twenty_bytes_and_nothing_but_digits() {
        for (value, expected) in [
            (&b"0"[..], Some(0)),
            (b"12 ", Some(12)),
            (b" 12", Some(12)),
            (b"18446744073709551615", Some(u64::MAX)),
            (b"18446744073709551616", None),
            (b"184467440737095516159", None),
            (b"", None),
            (b" ", None),
            (b"-5", None),
            (b"1a", None),
            (b"1 2", None),
        ] {
            assert_eq!(number(value), expected, "{}", value.escape_ascii());
        }
    }
}
