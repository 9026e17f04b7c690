//! A group of consumers: how far it has read, and which entries are delivered and not yet acknowledged.
//!
//! Invariant: each pending entry belongs to exactly one consumer, and stands in that consumer's own set too.

use std::collections::{BTreeMap, BTreeSet, btree_map::Entry};

use super::{StreamId, named};

/// A group's place in the stream's map, itself included.
const GROUP_COST: usize = 224;
/// A consumer's place, itself included.
const CONSUMER_COST: usize = 96;
/// A pending entry's places in two ordered sets that are about half full.
const PENDING_COST: usize = 104;

/// A consumer's place in its group; stays the same while the consumer is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConsumerId(u32);

/// An entry that was delivered and not acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pending {
    /// When it was last delivered, unix milliseconds.
    pub delivered_ms: i64,
    /// How often.
    pub count: u64,
    /// To whom.
    pub consumer: ConsumerId,
}

/// One of those who share the reading.
#[derive(Clone, Debug)]
pub struct Consumer {
    name: Box<[u8]>,
    /// When it last asked, unix milliseconds.
    pub seen_ms: i64,
    /// When it last got something, unix milliseconds; -1: never.
    pub active_ms: i64,
    pending: BTreeSet<StreamId>,
}

/// A group.
#[derive(Clone, Debug)]
pub struct Group {
    /// The last ID that was delivered.
    pub last_id: StreamId,
    /// How many entries were read up to there, if that is known.
    pub entries_read: Option<u64>,
    pending: BTreeMap<StreamId, Pending>,
    consumers: Vec<Option<Consumer>>,
    /// Places of the consumers in the order of their names.
    order: Vec<u32>,
    name_bytes: usize,
}

impl Consumer {
    /// Its name.
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    /// How many entries are pending.
    pub fn pending_len(&self) -> usize {
        self.pending.len()
    }

    /// Its pending entries from an ID on.
    pub fn pending_from(&self, start: StreamId) -> impl Iterator<Item = StreamId> {
        self.pending.range(start..).copied()
    }
}

impl Group {
    /// A group that has read up to an ID.
    pub fn new(last_id: StreamId, entries_read: Option<u64>) -> Self {
        Self {
            last_id,
            entries_read,
            pending: BTreeMap::new(),
            consumers: Vec::new(),
            order: Vec::new(),
            name_bytes: 0,
        }
    }

    pub(super) fn memory_usage(&self, name: &[u8]) -> usize {
        named(name, GROUP_COST)
            + self.name_bytes
            + self.order.len() * CONSUMER_COST
            + self.pending.len() * PENDING_COST
    }

    /// How many entries are pending.
    pub fn pending_len(&self) -> usize {
        self.pending.len()
    }

    /// A pending entry.
    pub fn pending(&self, id: StreamId) -> Option<&Pending> {
        self.pending.get(&id)
    }

    /// The pending entries from an ID on.
    pub fn pending_from(&self, start: StreamId) -> impl Iterator<Item = (StreamId, &Pending)> {
        self.pending.range(start..).map(|(id, pending)| (*id, pending))
    }

    /// The last pending ID.
    pub fn last_pending(&self) -> Option<StreamId> {
        self.pending.last_key_value().map(|(id, _)| *id)
    }

    /// The consumers in the order of their names.
    pub fn consumers(&self) -> impl ExactSizeIterator<Item = &Consumer> {
        self.order.iter().map(|at| self.at(*at))
    }

    fn at(&self, at: u32) -> &Consumer {
        match self.consumers.get(at as usize) {
            Some(Some(consumer)) => consumer,
            _ => unreachable!("a consumer goes with all that names it"),
        }
    }

    /// A consumer by its place.
    pub fn consumer(&self, id: ConsumerId) -> &Consumer {
        self.at(id.0)
    }

    /// A consumer by its place, to be changed.
    pub fn consumer_mut(&mut self, id: ConsumerId) -> &mut Consumer {
        match self.consumers.get_mut(id.0 as usize) {
            Some(Some(consumer)) => consumer,
            _ => unreachable!("a consumer goes with all that names it"),
        }
    }

    fn place(&self, name: &[u8]) -> Result<usize, usize> {
        self.order.binary_search_by(|at| (*self.at(*at).name).cmp(name))
    }

    /// A consumer by its name.
    pub fn find(&self, name: &[u8]) -> Option<ConsumerId> {
        self.place(name).ok().map(|at| ConsumerId(self.order[at]))
    }

    /// A consumer by its name, made if it is not there; the flag says whether it was made.
    pub fn find_or_add(&mut self, name: &[u8], now_ms: i64) -> (ConsumerId, bool) {
        let place = match self.place(name) {
            Ok(at) => return (ConsumerId(self.order[at]), false),
            Err(place) => place,
        };
        let full = self.order.len() == self.consumers.len();
        let free = if full { None } else { self.consumers.iter().position(Option::is_none) };
        let at = free.unwrap_or(self.consumers.len());
        let consumer = Consumer {
            name: name.into(),
            seen_ms: now_ms,
            active_ms: -1,
            pending: BTreeSet::new(),
        };
        match self.consumers.get_mut(at) {
            Some(place) => *place = Some(consumer),
            None => self.consumers.push(Some(consumer)),
        }
        self.order.insert(place, at as u32);
        self.name_bytes += named(name, 0);
        (ConsumerId(at as u32), true)
    }

    /// The same for one that speaks now.
    pub fn hear(&mut self, name: &[u8], now_ms: i64) -> (ConsumerId, bool) {
        let (consumer, added) = self.find_or_add(name, now_ms);
        self.consumer_mut(consumer).seen_ms = now_ms;
        (consumer, added)
    }

    /// Removes a consumer with all that is pending for it; gives how many entries that were.
    pub fn remove_consumer(&mut self, name: &[u8]) -> Option<usize> {
        let place = self.place(name).ok()?;
        let at = self.order.remove(place);
        let consumer = self.consumers[at as usize].take()?;
        for id in &consumer.pending {
            self.pending.remove(id);
        }
        self.name_bytes -= named(name, 0);
        Some(consumer.pending.len())
    }

    /// Makes an entry pending for a consumer, taking it from whoever has it.
    pub fn assign(&mut self, id: StreamId, delivered_ms: i64, count: u64, consumer: ConsumerId) {
        let pending = Pending { delivered_ms, count, consumer };
        let before = match self.pending.entry(id) {
            Entry::Vacant(place) => {
                place.insert(pending);
                None
            }
            Entry::Occupied(mut place) => Some(place.insert(pending).consumer),
        };
        if before == Some(consumer) {
            return;
        }
        if let Some(before) = before {
            self.consumer_mut(before).pending.remove(&id);
        }
        self.consumer_mut(consumer).pending.insert(id);
    }

    /// Forgets a pending entry; `false` when it is not there.
    pub fn acknowledge(&mut self, id: StreamId) -> bool {
        match self.pending.remove(&id) {
            Some(pending) => {
                self.consumer_mut(pending.consumer).pending.remove(&id);
                true
            }
            None => false,
        }
    }
}
