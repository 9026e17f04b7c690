//! Walking a database slot by slot, whether the command holds all locks (in EXEC) or takes each in turn.

use crate::keyspace::{Db, Table};
use crate::server::Shared;

/// Looks into the table of one slot; nothing when the database was never written to.
pub(super) fn with_slot<R>(
    shared: &Shared,
    db: &mut Db<'_>,
    index: u16,
    slot: u16,
    look: impl FnOnce(&mut Table) -> R,
) -> Option<R> {
    if !shared.keyspace.is_made(index) {
        return None;
    }
    if db.locked().holds_all() {
        return Some(look(db.locked().table(index, slot)));
    }
    Some(look(shared.keyspace.lock_slot(slot).table(index, slot)))
}

/// Sums a number over the tables of a database.
pub(super) fn sum(
    shared: &Shared,
    db: &mut Db<'_>,
    index: u16,
    count: impl Fn(&Table) -> usize,
) -> usize {
    let slots = 0..crate::topology::SLOTS;
    slots.map(|slot| with_slot(shared, db, index, slot, |t| count(t)).unwrap_or(0)).sum()
}
