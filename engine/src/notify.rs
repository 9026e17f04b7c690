//! Keyspace notifications: the classes of events, and how an event is published.
//!
//! Commands note events on the `Db` that they work on, while they hold the locks of their keys, and they are published
//! before the locks are let go: subscribers hear of a key in the order in which it changed. Nobody else is told: each
//! member publishes what it applies itself.
//!
//! ```text
//! __keyspace@<db>__:<key>     message: the event     if the setting has K
//! __keyevent@<db>__:<event>   message: the key       if the setting has E
//! ```

use crate::server::Shared;

/// Classes of events, as bits of `notify-keyspace-events`.
pub mod class {
    pub const KEYSPACE: u32 = 1;
    pub const KEYEVENT: u32 = 1 << 1;
    pub const GENERIC: u32 = 1 << 2;
    pub const STRING: u32 = 1 << 3;
    pub const LIST: u32 = 1 << 4;
    pub const SET: u32 = 1 << 5;
    pub const HASH: u32 = 1 << 6;
    pub const ZSET: u32 = 1 << 7;
    pub const EXPIRED: u32 = 1 << 8;
    pub const EVICTED: u32 = 1 << 9;
    pub const STREAM: u32 = 1 << 10;
    /// Events of loaded modules: there are none.
    pub const MODULE: u32 = 1 << 11;
    pub const KEY_MISS: u32 = 1 << 12;
    pub const NEW: u32 = 1 << 13;
}

/// Letters in the order in which they are shown; those up to `d` are what `A` stands for.
const LETTERS: &[(char, u32)] = &[
    ('g', class::GENERIC),
    ('$', class::STRING),
    ('l', class::LIST),
    ('s', class::SET),
    ('h', class::HASH),
    ('z', class::ZSET),
    ('x', class::EXPIRED),
    ('e', class::EVICTED),
    ('t', class::STREAM),
    ('d', class::MODULE),
    ('n', class::NEW),
    ('K', class::KEYSPACE),
    ('E', class::KEYEVENT),
    ('m', class::KEY_MISS),
];

const ALL: u32 = class::NEW - 1 - class::KEYSPACE - class::KEYEVENT - class::KEY_MISS;

/// The bits of some letters; `None` when one of them stands for nothing.
pub fn parse(letters: &str) -> Option<u32> {
    letters.chars().try_fold(0, |mask, letter| {
        let found = LETTERS.iter().find(|(l, _)| *l == letter).map(|(_, bit)| *bit);
        Some(mask | found.or((letter == 'A').then_some(ALL))?)
    })
}

/// The letters of some bits, as CONFIG GET shows them.
pub fn show(mask: u32) -> String {
    let mut text = String::new();
    let all = mask & ALL == ALL;
    if all {
        text.push('A');
    }
    let shown = LETTERS.iter().filter(|(_, bit)| mask & bit != 0 && !(all && ALL & bit != 0));
    text.extend(shown.map(|(letter, _)| *letter));
    text
}

/// The events that are told: none where they go to no channel.
pub fn told(letters: &str) -> u32 {
    let mask = parse(letters).unwrap_or(0);
    if mask & (class::KEYSPACE | class::KEYEVENT) == 0 { 0 } else { mask }
}

/// Something that happened to a key.
#[derive(Debug, PartialEq, Eq)]
pub struct Event {
    pub name: &'static str,
    pub db: u16,
    pub key: Vec<u8>,
}

impl Shared {
    /// Tells the subscribers of what happened; the caller holds the locks of the keys.
    #[cold]
    pub fn publish_events(&self, events: &[Event], mask: u32) {
        for Event { name, db, key } in events {
            if mask & class::KEYSPACE != 0 {
                let channel = [format!("__keyspace@{db}__:").as_bytes(), key].concat();
                self.publish(&channel, name.as_bytes());
            }
            if mask & class::KEYEVENT != 0 {
                self.publish(format!("__keyevent@{db}__:{name}").as_bytes(), key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_shown_as_redis_shows_them() {
        for (given, shown) in [
            ("KEA", "AKE"),
            ("AKEm", "AKEm"),
            ("A", "A"),
            ("", ""),
            ("Kg", "gK"),
            ("g$lshzxetd", "A"),
            ("g$lshzxe", "g$lshzxe"),
            ("nKE", "nKE"),
            ("nmKE", "nKEm"),
        ] {
            assert_eq!(parse(given).map(show).as_deref(), Some(shown), "{given}");
        }
        assert_eq!(parse("q"), None);
    }

    #[test]
    fn events_that_go_nowhere_are_not_told() {
        assert_eq!(told("A"), 0);
        assert_eq!(told("m"), 0);
        assert_eq!(told("Kx"), class::KEYSPACE | class::EXPIRED);
    }
}
