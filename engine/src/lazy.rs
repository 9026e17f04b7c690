//! Freeing what is large on a thread of its own, so that no client waits for it.

use std::sync::OnceLock;
use std::sync::mpsc::{Sender, channel};

use crate::keyspace::{Entry, MemoryCounters, Table};
use crate::types::Collection;

/// Parts of a collection up to which it is freed on the spot.
const SMALL: usize = 64;

/// Things to be freed. Memory of tables is still counted as used until they are.
enum Garbage {
    Collection(Box<Collection>),
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
