//! What Memcached clients do with keys: one implementation for the three protocols.
//!
//! Each operation runs by `Executor::keyed` as a row of the command table, and says to the journal what it did
//! in requests that every member knows: SET, APPEND, PEXPIREAT, PERSIST, DEL, and `LARDER.ITEM` where there are
//! flags or marks to keep.

use super::stats::Count;
use super::{ITEM_OVERHEAD, rows};
use crate::command::exec::Executor;
use crate::command::{Command, Ctx};
use crate::keyspace::db::{lfu_minutes, lru_clock};
use crate::keyspace::{Item, Ttl};
use crate::resp::Reply;
use crate::session::Session;

/// Exptimes up to this many seconds, 30 days, count from now; larger ones are unix time.
const RELATIVE_MAX_S: i64 = 60 * 60 * 24 * 30;

/// When an item expires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expire {
    Never,
    /// Unix milliseconds.
    At(i64),
    /// At once: a negative exptime, or a time that is past.
    Gone,
}

impl Expire {
    pub fn of(exptime: i64, now_ms: i64) -> Expire {
        let at = match exptime {
            0 => return Expire::Never,
            n if n < 0 => return Expire::Gone,
            n if n <= RELATIVE_MAX_S => now_ms.saturating_add(n * 1000),
            n => n.saturating_mul(1000),
        };
        if at <= now_ms { Expire::Gone } else { Expire::At(at) }
    }

    fn ttl(self) -> Ttl {
        match self {
            Expire::At(ms) => Ttl::At(ms),
            Expire::Never | Expire::Gone => Ttl::Clear,
        }
    }
}

/// Why nothing was done.
#[derive(Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Clients are held back at the moment: to be tried again later.
    Held,
    /// The error line that a RESP client would get.
    Error(String),
}

/// An item as a read found it, before the read changed anything.
pub struct Seen<'a> {
    pub value: &'a [u8],
    pub item: Item,
    /// Unix milliseconds.
    pub ttl: Option<i64>,
    pub fetched: bool,
    /// Seconds since somebody asked for it.
    pub idle_s: u32,
    pub now_ms: i64,
    /// This client is to put a new value in its place.
    pub won: bool,
}

impl Seen<'_> {
    /// Seconds that are left, a begun one for a whole; -1: it does not expire.
    pub fn left_s(&self) -> i64 {
        left_s(self.ttl, self.now_ms)
    }
}

pub fn left_s(ttl: Option<i64>, now_ms: i64) -> i64 {
    ttl.map_or(-1, |at| (at - now_ms).max(0).saturating_add(999) / 1000)
}

/// How a value is read.
#[derive(Clone, Copy, Default)]
pub struct Get {
    /// The CAS is asked for: it is drawn where there is none.
    pub cas: bool,
    /// A new expiry time.
    pub expire: Option<Expire>,
    /// Wins the right to refill when fewer seconds are left.
    pub recache_s: Option<i64>,
    /// Marks and lease bits are dealt in: only the meta commands know them.
    pub leases: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Set,
    Add,
    Replace,
    Append,
    Prepend,
}

/// A value to be stored.
#[derive(Clone, Copy)]
pub struct Store<'a> {
    pub key: &'a [u8],
    pub value: &'a [u8],
    pub mode: Mode,
    pub flags: u32,
    pub expire: Expire,
    /// Only over the version that has this CAS.
    pub cas: Option<u64>,
    /// The CAS to give, in place of one that is drawn.
    pub new_cas: Option<u64>,
    /// Over a newer version too, which the value then makes stale.
    pub invalidate: bool,
    /// Append and prepend make an item that is not there, with this expiry.
    pub vivify: Option<Expire>,
    /// Marks that the new item has from the start.
    pub state: u32,
    /// The new CAS is asked for.
    pub want_cas: bool,
}

impl<'a> Store<'a> {
    pub fn new(key: &'a [u8], value: &'a [u8], mode: Mode) -> Store<'a> {
        Store {
            key,
            value,
            mode,
            flags: 0,
            expire: Expire::Never,
            cas: None,
            new_cas: None,
            invalidate: false,
            vivify: None,
            state: 0,
            want_cas: false,
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
pub enum Stored {
    /// With its CAS, or 0 where nobody asked.
    Stored(u64),
    NotStored,
    Exists,
    NotFound,
    TooLarge,
}

/// A number to be counted up or down.
#[derive(Clone, Copy)]
pub struct Count1<'a> {
    pub key: &'a [u8],
    pub down: bool,
    pub delta: u64,
    /// What a missing item is made with.
    pub initial: Option<(u64, Expire)>,
    pub cas: Option<u64>,
    pub new_cas: Option<u64>,
    pub expire: Option<Expire>,
    pub want_cas: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Counted {
    Number { value: u64, cas: u64, ttl: Option<i64> },
    NotFound,
    NotANumber,
    Exists,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Deleted {
    Deleted,
    NotFound,
    Exists,
}

/// What a delete leaves.
#[derive(Clone, Copy, Default)]
pub struct Delete {
    pub cas: Option<u64>,
    /// The item stays, marked as stale.
    pub invalidate: bool,
    /// The item stays without its value and flags.
    pub value_only: bool,
    pub expire: Option<Expire>,
    pub new_cas: Option<u64>,
}

/// One connection's hands on the keyspace.
pub struct Client<'c, 's> {
    pub executor: &'c mut Executor<'s>,
    pub session: &'c mut Session,
    pub reply: &'c mut Reply,
    /// Requests like this are held back at the moment.
    pub holds: &'c dyn Fn(&'static Command, &[u8]) -> bool,
    pub item_size_max: usize,
}

impl Client<'_, '_> {
    pub fn now_ms(&self) -> i64 {
        self.executor.env.now_ms
    }

    pub fn count(&self, what: Count) {
        self.executor.shared.memcached.count(self.executor.env.thread, what);
    }

    fn keyed<T>(
        &mut self,
        row: &'static Command,
        key: &[u8],
        act: impl FnOnce(&mut Ctx<'_, '_>) -> T,
    ) -> Result<T, Refusal> {
        if (self.holds)(row, key) {
            return Err(Refusal::Held);
        }
        let args = [row.name.as_bytes(), key];
        self.executor.keyed(self.session, self.reply, row, &args, act).map_err(Refusal::Error)
    }

    /// Reads an item: `show` writes it out. `false`: it is not there, or no string.
    pub fn get(
        &mut self,
        key: &[u8],
        how: Get,
        show: impl FnOnce(&mut Vec<u8>, &Seen<'_>),
    ) -> Result<bool, Refusal> {
        let row = if how.expire.is_some() { rows().getex } else { rows().get };
        let found = self.keyed(row, key, |ctx| read(ctx, key, how, show))?;
        self.count(Count::CmdGet);
        self.count(if found { Count::GetHits } else { Count::GetMisses });
        if how.expire.is_some() {
            self.count(Count::CmdTouch);
            self.count(if found { Count::TouchHits } else { Count::TouchMisses });
        }
        Ok(found)
    }

    /// Stores a value.
    pub fn store(&mut self, store: &Store<'_>) -> Result<Stored, Refusal> {
        self.count(Count::CmdSet);
        if !self.fits(store.key, store.value.len()) {
            self.drop_unstored(store)?;
            return Ok(Stored::TooLarge);
        }
        let row = if store.mode == Mode::Append { rows().append } else { rows().set };
        let max = self.item_size_max;
        let done = self.keyed(row, store.key, |ctx| put(ctx, store, max));
        let done = match done {
            Ok(done) => done?,
            Err(Refusal::Error(error)) if error.starts_with("OOM ") => {
                self.drop_unstored(store)?;
                return Err(Refusal::Error(error));
            }
            Err(refusal) => return Err(refusal),
        };
        if matches!(done, Stored::Stored(_)) {
            self.count(Count::TotalItems);
        }
        if store.cas.is_some() {
            match done {
                Stored::Stored(_) => self.count(Count::CasHits),
                Stored::Exists => self.count(Count::CasBadval),
                Stored::NotFound => self.count(Count::CasMisses),
                Stored::NotStored | Stored::TooLarge => {}
            }
        }
        Ok(done)
    }

    /// An item of this value may be stored.
    pub fn fits(&self, key: &[u8], value_bytes: usize) -> bool {
        key.len() + value_bytes + ITEM_OVERHEAD <= self.item_size_max
    }

    /// What a client believes to have overwritten must not be read any more.
    pub fn drop_unstored(&mut self, store: &Store<'_>) -> Result<(), Refusal> {
        if store.mode == Mode::Set && store.cas.is_none() {
            self.keyed(rows().del, store.key, |ctx| remove(ctx, store.key))?;
        }
        Ok(())
    }

    /// Counts a number up or down.
    pub fn add(&mut self, count: &Count1<'_>) -> Result<Counted, Refusal> {
        let row = if count.down { rows().decrby } else { rows().incrby };
        let done = self.keyed(row, count.key, |ctx| calculate(ctx, count))??;
        match (&done, count.down) {
            (Counted::Number { .. }, false) => self.count(Count::IncrHits),
            (Counted::Number { .. }, true) => self.count(Count::DecrHits),
            (Counted::NotFound, false) => self.count(Count::IncrMisses),
            (Counted::NotFound, true) => self.count(Count::DecrMisses),
            _ => {}
        }
        Ok(done)
    }

    /// Gives an item another expiry time; `false`: it is not there.
    pub fn touch(&mut self, key: &[u8], expire: Expire) -> Result<bool, Refusal> {
        let found = self.keyed(rows().pexpireat, key, |ctx| {
            let found = ctx.db.exists(key);
            if found {
                set_expiry(ctx, key, expire);
            }
            found
        })?;
        self.count(Count::CmdTouch);
        self.count(if found { Count::TouchHits } else { Count::TouchMisses });
        Ok(found)
    }

    /// Deletes an item, or what is asked of it.
    pub fn delete(&mut self, key: &[u8], how: Delete) -> Result<Deleted, Refusal> {
        let done = self.keyed(rows().del, key, |ctx| unmake(ctx, key, how))?;
        match done {
            Deleted::Deleted => self.count(Count::DeleteHits),
            Deleted::NotFound => self.count(Count::DeleteMisses),
            Deleted::Exists => {}
        }
        Ok(done)
    }

    /// Empties database 0, now or later.
    pub fn flush(&mut self, delay_s: i64) -> Result<(), Refusal> {
        let row = rows().flushdb;
        if (self.holds)(row, b"") {
            return Err(Refusal::Held);
        }
        self.count(Count::CmdFlush);
        let memcached = &self.executor.shared.memcached;
        match Expire::of(delay_s, self.executor.env.now_ms) {
            Expire::At(at) => {
                memcached.set_flush(at);
                Ok(())
            }
            Expire::Never | Expire::Gone => {
                memcached.set_flush(0);
                flush_now(self.executor, self.session).map_err(Refusal::Error)
            }
        }
    }
}

/// Runs FLUSHDB for database 0.
pub fn flush_now(executor: &mut Executor<'_>, session: &mut Session) -> Result<(), String> {
    let mut reply = Reply::new(Vec::new(), false);
    executor.run(session, &mut reply, Some(rows().flushdb), &[b"FLUSHDB"], None);
    match reply.out.strip_prefix(b"-") {
        Some(error) => Err(String::from_utf8_lossy(error.trim_ascii_end()).into_owned()),
        None => Ok(()),
    }
}

/// Seconds since an access field was set.
fn idle_s(ctx: &Ctx<'_, '_>, access: u32) -> u32 {
    let now = ctx.db.now_ms();
    if ctx.db.env.lfu {
        (lfu_minutes(now).wrapping_sub(access >> 8) & 0xffff) * 60
    } else {
        lru_clock(now).wrapping_sub(access) & 0x00ff_ffff
    }
}

fn read(
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
fn set_expiry(ctx: &mut Ctx<'_, '_>, key: &[u8], expire: Expire) {
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

fn remove(ctx: &mut Ctx<'_, '_>, key: &[u8]) -> bool {
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

fn put(ctx: &mut Ctx<'_, '_>, store: &Store<'_>, max: usize) -> Result<Stored, Refusal> {
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

fn calculate(ctx: &mut Ctx<'_, '_>, count: &Count1<'_>) -> Result<Counted, Refusal> {
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

fn unmake(ctx: &mut Ctx<'_, '_>, key: &[u8], how: Delete) -> Deleted {
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
    fn an_exptime_is_relative_up_to_thirty_days() {
        let now = 1_700_000_000_000;
        for (exptime, expected) in [
            (0, Expire::Never),
            (-1, Expire::Gone),
            (1, Expire::At(now + 1000)),
            (2_592_000, Expire::At(now + 2_592_000_000)),
            (2_592_001, Expire::Gone),
            (1_700_000_000, Expire::Gone),
            (1_700_000_001, Expire::At(now + 1000)),
            (i64::MIN, Expire::Gone),
            (i64::MAX, Expire::At(i64::MAX)),
        ] {
            assert_eq!(Expire::of(exptime, now), expected, "{exptime}");
        }
    }

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
