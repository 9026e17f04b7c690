//! A stream: entries in the order of their IDs, and the groups of consumers that read it.
//!
//! ```text
//! Stream -+- Log     ordered index: first ID -> node (one listpack of entries, see `node`)
//!         +- groups  by name: last ID delivered, pending entries, consumers (see `group`)
//! ```
//!
//! What an entry is is never changed: it is appended at the end, and later marked as deleted or dropped with its node.
//! A stream may be empty and is kept all the same, for its last ID and its groups.

mod group;
mod id;
mod lag;
mod node;
mod refs;

pub use group::{Consumer, ConsumerId, Group, Pending};
pub use id::{ParseId, StreamId};
pub use node::{EntryRef, Fields};
pub use refs::{Dropped, Refs};

use std::collections::{BTreeMap, btree_map};

use super::{Limits, Listpack, size_class};
use node::{Cursor, Node};

/// What a node costs beside its listpack: its place in an ordered index that is about half full.
const NODE_COST: usize = 56;
/// No entry takes more bytes of fields and values.
pub const ENTRY_BYTES_MAX: usize = 1 << 30;

/// The entries of a stream, and what is known of those that are gone.
#[derive(Clone, Debug, Default)]
pub struct Log {
    /// By the ID of the first entry that was ever in the node. Each has at least one entry that is not deleted.
    nodes: BTreeMap<StreamId, Node>,
    len: u64,
    /// Bytes of the nodes.
    bytes: usize,
    /// The highest ID ever given.
    pub last_id: StreamId,
    /// The first entry's; zero when there is none.
    first_id: StreamId,
    /// The highest ID that XDEL has deleted.
    pub max_deleted_id: StreamId,
    /// How many entries were ever added.
    pub entries_added: u64,
}

/// A stream. Cloning is deep.
#[derive(Clone, Debug, Default)]
pub struct Stream {
    log: Log,
    groups: BTreeMap<Box<[u8]>, Group>,
    /// Bytes of the groups.
    group_bytes: usize,
}

/// How far a stream is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrimTo {
    /// To so many entries.
    Len(u64),
    /// To the entries from this ID on.
    Id(StreamId),
}

/// How a stream is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trim {
    /// What stays.
    pub to: TrimTo,
    /// Only whole nodes go.
    pub approximate: bool,
    /// At most so many entries go; 0: no limit.
    pub limit: u64,
}

impl Stream {
    /// An empty stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// A stream of parts that were read.
    pub fn from_parts(log: Log, groups: impl IntoIterator<Item = (Box<[u8]>, Group)>) -> Self {
        let groups: BTreeMap<_, _> = groups.into_iter().collect();
        let group_bytes = groups.iter().map(|(name, group)| group.memory_usage(name)).sum();
        Self { log, groups, group_bytes }
    }

    /// The entries.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// The entries, to be changed.
    pub fn log_mut(&mut self) -> &mut Log {
        &mut self.log
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.log.len()
    }

    /// Whether there are none. Such a stream is kept.
    pub fn is_empty(&self) -> bool {
        self.log.len == 0
    }

    /// All that freeing it has to walk: nodes and what is pending.
    pub fn parts(&self) -> usize {
        self.log.nodes.len() + self.groups.values().map(Group::pending_len).sum::<usize>()
    }

    /// What OBJECT ENCODING prints.
    pub fn encoding(&self) -> &'static str {
        "stream"
    }

    /// What it takes from the allocator.
    pub fn memory_usage(&self) -> usize {
        self.log.bytes + self.group_bytes
    }

    /// The groups in the order of their names.
    pub fn groups(&self) -> impl ExactSizeIterator<Item = (&[u8], &Group)> {
        self.groups.iter().map(|(name, group)| (&**name, group))
    }

    /// A group by its name.
    pub fn group(&self, name: &[u8]) -> Option<&Group> {
        self.groups.get(name)
    }

    /// Adds a group; `false` when there is one of that name.
    pub fn add_group(&mut self, name: &[u8], group: Group) -> bool {
        if self.groups.contains_key(name) {
            return false;
        }
        self.group_bytes += group.memory_usage(name);
        self.groups.insert(name.into(), group);
        true
    }

    /// Removes a group; `false` when there is none of that name.
    pub fn remove_group(&mut self, name: &[u8]) -> bool {
        match self.groups.remove(name) {
            Some(group) => {
                self.group_bytes -= group.memory_usage(name);
                true
            }
            None => false,
        }
    }

    /// Changes a group beside the log that it reads; `None` when there is none of that name.
    pub fn change_group<R>(
        &mut self,
        name: &[u8],
        change: impl FnOnce(&Log, &mut Group) -> R,
    ) -> Option<R> {
        let group = self.groups.get_mut(name)?;
        let before = group.memory_usage(name);
        let result = change(&self.log, group);
        self.group_bytes = self.group_bytes - before + group.memory_usage(name);
        Some(result)
    }
}

impl Log {
    /// Adds a node that was read behind all others; nothing if it is not well formed or its entries are out of order.
    /// What else is known of the stream is set by the caller, when all nodes are there.
    pub fn add_node(&mut self, master: StreamId, pack: Listpack) -> Option<()> {
        let before = (self.len > 0).then_some(self.last_id);
        if before.is_some_and(|id| id >= master) {
            return None;
        }
        let (node, last) = Node::from_listpack(master, pack, before)?;
        // Nothing in it but deleted entries is as good as no node.
        if let Some(last) = last {
            self.len += node.live();
            self.bytes += NODE_COST + node.memory_usage();
            self.nodes.insert(master, node);
            self.last_id = last;
            if before.is_none() {
                self.find_first();
            }
        }
        Some(())
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The first entry's ID; zero when there is none.
    pub fn first_id(&self) -> StreamId {
        self.first_id
    }

    /// The last entry's ID.
    pub fn last_live(&self) -> Option<StreamId> {
        self.range(StreamId::MIN, StreamId::MAX, true).next().map(|entry| entry.id)
    }

    /// The nodes as RDB writes them.
    pub fn nodes(&self) -> impl ExactSizeIterator<Item = (StreamId, &Listpack)> {
        self.nodes.iter().map(|(master, node)| (*master, node.listpack()))
    }

    /// Appends an entry; the caller has checked that its ID is behind the last one. `pairs` are fields and values in turn.
    pub fn append(&mut self, id: StreamId, pairs: &[&[u8]], limits: &Limits) {
        let bytes = pairs.iter().map(|part| part.len()).sum();
        match self.nodes.last_entry() {
            Some(mut last) if last.get().has_room(bytes, limits) => {
                let master = *last.key();
                let before = last.get().memory_usage();
                last.get_mut().append(master, id, pairs);
                self.bytes = self.bytes - before + last.get().memory_usage();
            }
            _ => {
                let node = Node::new(id, pairs);
                self.bytes += NODE_COST + node.memory_usage();
                self.nodes.insert(id, node);
            }
        }
        self.len += 1;
        self.entries_added = self.entries_added.saturating_add(1);
        self.last_id = id;
        if self.len == 1 {
            self.first_id = id;
        }
    }

    /// The entries from one ID to another, both included; backwards if wanted.
    pub fn range(&self, start: StreamId, end: StreamId, backwards: bool) -> Range<'_> {
        let nodes = if start > end {
            self.nodes.range(StreamId::MAX..StreamId::MAX)
        } else {
            let holder = self.nodes.range(..=start).next_back();
            self.nodes.range(holder.map_or(start, |(master, _)| *master)..=end)
        };
        Range { nodes, cursor: None, start, end, backwards }
    }

    /// An entry by its ID.
    pub fn get(&self, id: StreamId) -> Option<EntryRef<'_>> {
        self.range(id, id, false).next()
    }

    /// Deletes an entry; `false` when it is not there.
    pub fn delete(&mut self, id: StreamId) -> bool {
        let Some((&master, node)) = self.nodes.range_mut(..=id).next_back() else { return false };
        let Some(at) = node.find(master, id) else { return false };
        let before = node.memory_usage();
        node.mark_deleted(at);
        let left = node.live();
        self.bytes = self.bytes - before + node.memory_usage();
        if left == 0 {
            self.drop_node(master);
        }
        self.len -= 1;
        self.max_deleted_id = self.max_deleted_id.max(id);
        if id == self.first_id {
            self.find_first();
        }
        true
    }

    /// Cuts the front off; gives how many entries went.
    pub fn trim(&mut self, trim: Trim) -> u64 {
        self.cut(trim, None)
    }

    /// The same; each entry that goes is shown.
    pub fn trim_seen(&mut self, trim: Trim, mut see: impl FnMut(StreamId)) -> u64 {
        self.cut(trim, Some(&mut see))
    }

    fn cut(&mut self, trim: Trim, mut see: Option<&mut dyn FnMut(StreamId)>) -> u64 {
        let mut gone = 0;
        while let Some((&master, node)) = self.nodes.iter().next() {
            let whole = match trim.to {
                TrimTo::Len(len) if self.len <= len => break,
                TrimTo::Len(len) => self.len - node.live() >= len,
                TrimTo::Id(id) => node.last_id(master) < id,
            };
            let live = node.live();
            if trim.limit > 0 && gone + live > trim.limit {
                break;
            }
            if whole {
                if let Some(see) = &mut see {
                    let mut cursor = node.cursor(master, false);
                    while let Some(entry) = cursor.step() {
                        if !entry.deleted {
                            see(entry.id);
                        }
                    }
                }
                self.drop_node(master);
                self.len -= live;
                gone += live;
                continue;
            }
            if !trim.approximate {
                gone += self.trim_first_node(master, trim.to, &mut see);
            }
            break;
        }
        if gone > 0 {
            self.find_first();
        }
        gone
    }

    fn trim_first_node(
        &mut self,
        master: StreamId,
        to: TrimTo,
        see: &mut Option<&mut dyn FnMut(StreamId)>,
    ) -> u64 {
        let Some(node) = self.nodes.get_mut(&master) else { return 0 };
        let before = node.memory_usage();
        let len = self.len;
        let gone = node.mark_front(master, |id, gone| {
            let stays = match to {
                TrimTo::Len(kept) => len - gone <= kept,
                TrimTo::Id(kept) => id >= kept,
            };
            if let (false, Some(see)) = (stays, see.as_mut()) {
                see(id);
            }
            stays
        });
        self.bytes = self.bytes - before + node.memory_usage();
        self.len -= gone;
        if node.live() == 0 {
            self.drop_node(master);
        }
        gone
    }

    fn drop_node(&mut self, master: StreamId) {
        if let Some(node) = self.nodes.remove(&master) {
            self.bytes -= NODE_COST + node.memory_usage();
        }
    }

    fn find_first(&mut self) {
        let first = self.range(StreamId::MIN, StreamId::MAX, false).next().map(|entry| entry.id);
        self.first_id = first.unwrap_or_default();
    }
}

/// Entries between two IDs.
pub struct Range<'a> {
    nodes: btree_map::Range<'a, StreamId, Node>,
    cursor: Option<Cursor<'a>>,
    start: StreamId,
    end: StreamId,
    backwards: bool,
}

impl<'a> Iterator for Range<'a> {
    type Item = EntryRef<'a>;

    fn next(&mut self) -> Option<EntryRef<'a>> {
        loop {
            if let Some(cursor) = &mut self.cursor {
                let step = if self.backwards { cursor.step_back() } else { cursor.step() };
                match step {
                    None => self.cursor = None,
                    // A deleted entry says nothing about the order of the others.
                    Some(entry) if entry.deleted => {}
                    Some(entry) if entry.id < self.start && self.backwards => return None,
                    Some(entry) if entry.id > self.end && !self.backwards => return None,
                    Some(entry) if entry.id < self.start || entry.id > self.end => {}
                    Some(entry) => return Some(entry),
                }
                continue;
            }
            let (master, node) =
                if self.backwards { self.nodes.next_back()? } else { self.nodes.next()? };
            self.cursor = Some(node.cursor(*master, self.backwards));
        }
    }
}

/// What a name and the structure it names take.
fn named(name: &[u8], cost: usize) -> usize {
    cost + size_class(name.len())
}

#[cfg(test)]
mod tests;
