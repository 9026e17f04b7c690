//! What Memcached clients ask for, and what came of it, in words of its own: the same for the three protocols.

use crate::keyspace::{Item, Ttl};

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

    pub(super) fn ttl(self) -> Ttl {
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
    /// Another member has the key, or will soon: the request is to be put there.
    Elsewhere(Box<Elsewhere>),
}

#[derive(Debug, PartialEq, Eq)]
pub struct Elsewhere {
    pub key: Vec<u8>,
    /// What a RESP client would be told.
    pub error: String,
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
}
