//! Freeing what is large on a thread of its own, so that no client waits for it.

use std::sync::OnceLock;
use std::sync::mpsc::{Sender, channel};

use crate::keyspace::{Entry, MemoryCounters, Table};
use crate::types::Collection;

/// Parts of a collection up to which it is freed on the spot.
const SMALL: usize = 64;

/// Things to be freed. Memory of tables is still counted as used until they are.
enum Garbage {
    Collection(Collection),
    Tables(MemoryCounters, Vec<Table>),
}

fn sender() -> Option<&'static Sender<Garbage>> {
    static SENDER: OnceLock<Option<Sender<Garbage>>> = OnceLock::new();
    SENDER
        .get_or_init(|| {
            let (sender, receiver) = channel::<Garbage>();
            let work = move || {
                for garbage in receiver {
                    match garbage {
                        Garbage::Collection(collection) => drop(collection),
                        Garbage::Tables(counters, tables) => free_tables(&counters, tables),
                    }
                }
            };
            std::thread::Builder::new().name("lazy-free".into()).spawn(work).ok().map(|_| sender)
        })
        .as_ref()
}

/// Frees an entry that was taken out of its table.
#[inline]
pub fn free(entry: Entry) {
    if entry.as_collection().is_some_and(|c| c.parts() > SMALL) {
        free_aside(entry);
    }
}

#[cold]
fn free_aside(entry: Entry) {
    if let (Some(collection), Some(sender)) = (entry.into_collection(), sender()) {
        // When the thread is gone the value comes back in the error and is freed here.
        drop(sender.send(Garbage::Collection(collection)));
    }
}

/// Frees the tables of emptied databases and takes their bytes off the count.
pub fn free_databases(counters: MemoryCounters, tables: Vec<Table>) {
    if tables.iter().map(Table::len).sum::<usize>() <= SMALL {
        return free_tables(&counters, tables);
    }
    match sender() {
        Some(sender) => drop(sender.send(Garbage::Tables(counters, tables))),
        None => free_tables(&counters, tables),
    }
}

fn free_tables(counters: &MemoryCounters, tables: Vec<Table>) {
    for table in tables {
        let mut bytes = table.memory();
        table.each(|entry| bytes += entry.memory());
        drop(table);
        counters.freed(bytes);
    }
}

#[cfg(test)]
mod tests {
    use tikv_jemalloc_ctl::thread::{allocatedp, deallocatedp};

    use super::*;
    use crate::types::{Hash, Limits, List, Set, Stream, StreamId, ZSet};

    fn entry(value: impl Into<Collection>) -> Entry {
        Entry::collection(b"key", value.into(), None, 0)
    }

    /// Bytes that this thread gives back meanwhile.
    fn freed_here(work: impl FnOnce()) -> u64 {
        let freed = deallocatedp::read().unwrap();
        let before = freed.get();
        work();
        freed.get() - before
    }

    #[test]
    fn what_is_large_is_freed_by_another_thread_and_what_is_small_by_this_one() {
        const MEMBERS: u32 = 100_000;
        let limits = Limits::default();
        let (mut list, mut set, mut zset) = (List::new(), Set::new(), ZSet::new());
        let (mut hash, mut stream) = (Hash::new(), Stream::default());
        for n in 0..MEMBERS {
            let name = format!("member:{n}").into_bytes();
            list.push_back(&name, &limits);
            set.add(&name, &limits);
            zset.insert(&name, f64::from(n), &limits);
            hash.set(&name, b"value", &limits);
            let id = StreamId { ms: u64::from(n) + 1, seq: 0 };
            stream.log_mut().append(id, &[b"field", &name], &limits);
        }
        for large in [entry(list), entry(set), entry(zset), entry(hash), entry(stream)] {
            let (bytes, what) = (large.memory(), large.as_collection().unwrap().type_name());
            assert!(bytes > 500_000, "{what}: {bytes}");
            let here = freed_here(|| free(large));
            assert!(here < 1_000, "{what}: {here} of {bytes} bytes are freed by who deletes it");
        }
        let mut small = Hash::new();
        small.set(b"field", &[b'v'; 1000], &limits);
        let small = entry(small);
        assert!(freed_here(|| free(small)) >= 1_000);
    }

    #[test]
    fn a_hash_of_a_million_fields_grows_in_slices() {
        let limits = Limits::default();
        let (mut hash, mut most) = (Hash::new(), 0);
        let allocated = allocatedp::read().unwrap();
        for n in 0..1_000_000 {
            let field = format!("field:{n}").into_bytes();
            let before = allocated.get();
            assert!(hash.set(&field, b"value", &limits));
            most = most.max(allocated.get() - before);
        }
        // A table that moves as a whole makes itself anew; here no field pays for more than a list of segments.
        let whole = hash.memory_usage() as u64;
        assert!(most < whole / 20, "a field took {most} of {whole} bytes");
        let hash = entry(hash);
        assert!(freed_here(|| free(hash)) < 1_000);
    }
}
