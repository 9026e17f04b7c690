//! `lru_crawler metadump` and `mgdump`: all keys, piece by piece, so that no reply grows with the data set.
//!
//! The line stays in the connection's buffer until the last piece is out. The connection gets its turns as one with
//! a deep pipeline does, and waits like that while its client does not read.

use super::answer::line;
use super::client::Client;
use super::stats;
use super::text::Crawl;
use crate::keyspace::Entry;
use crate::topology::SLOTS;

/// Keys, and slots, that one piece looks at.
const PIECE_KEYS: usize = 256;
const PIECE_SLOTS: usize = 256;

/// How far a dump is.
pub(super) struct Dump {
    what: Crawl,
    slot: u16,
    /// Where in the slot's table.
    cursor: u64,
}

impl Dump {
    pub(super) fn new(what: Crawl) -> Dump {
        Dump { what, slot: 0, cursor: 0 }
    }

    /// Writes a piece; `true`: it was the last. Keys that are there all the time are shown at least once.
    pub(super) fn piece(&mut self, client: &mut Client<'_, '_>) -> bool {
        let shared = client.executor.shared;
        if !shared.config.is_yes("memcached-dump-keys") {
            line(client, "CLIENT_ERROR metadump not allowed");
            return true;
        }
        let (what, now_ms) = (self.what, client.now_ms());
        let (mut keys, mut slots) = (0, 0);
        while self.slot < SLOTS && keys < PIECE_KEYS && slots < PIECE_SLOTS {
            slots += 1;
            if let Some(mut locked) = shared.keyspace.lock_table(0, self.slot) {
                let out = &mut client.reply.out;
                loop {
                    let table = locked.table(0, self.slot);
                    self.cursor = table.scan(self.cursor, |entry| {
                        keys += 1;
                        show(out, entry, what, now_ms);
                    });
                    if self.cursor == 0 || keys >= PIECE_KEYS {
                        break;
                    }
                }
            } else {
                self.cursor = 0;
            }
            if self.cursor == 0 {
                self.slot += 1;
            }
        }
        if self.slot < SLOTS {
            return false;
        }
        line(client, if what == Crawl::Metadump { "END" } else { "EN" });
        true
    }
}

fn show(out: &mut Vec<u8>, entry: &Entry, what: Crawl, now_ms: i64) {
    if !entry.is_string() || entry.ttl().is_some_and(|at| at <= now_ms) {
        return;
    }
    let mut text = String::from(if what == Crawl::Metadump { "key=" } else { "mg " });
    stats::uri_encode(&mut text, entry.key());
    if what == Crawl::Metadump {
        let exp = entry.ttl().map_or(-1, |at| at / 1000);
        let fetch = if entry.is_fetched() { "yes" } else { "no" };
        let (cas, size) = (entry.item().cas, entry.memory());
        text.push_str(&format!(" exp={exp} la={} cas={cas} fetch={fetch}", now_ms / 1000));
        text.push_str(&format!(" cls=1 size={size}\n"));
    } else {
        text.push_str("\r\n");
    }
    out.extend_from_slice(text.as_bytes());
}
