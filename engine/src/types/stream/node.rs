//! A node: entries that follow each other in one listpack, as the ecosystem's files hold them.
//!
//! ```text
//! head   live  deleted  n  field 1 .. field n  0
//! entry  flags  ms  seq  [n  field value ..  |  value ..]  count
//! ```
//!
//! The head's fields are those of the first entry; an entry with the very same ones (flag 2) leaves them out. `ms` and
//! `seq` are differences to the node's first ID. `count` is the number of elements of the entry before it, so that the
//! node can be walked backwards. A deleted entry (flag 1) stays until its node goes.

use super::super::{Item, Limits, Listpack, listpack::BYTES_MAX};
use super::StreamId;

const DELETED: i64 = 1;
const SAME_FIELDS: i64 = 2;

/// One listpack of entries.
#[derive(Clone, Debug)]
pub(super) struct Node(Listpack);

/// Where the parts of a node's head lie.
#[derive(Clone, Copy)]
struct Head {
    fields: usize,
    fields_at: usize,
    /// The position of the first entry.
    end: usize,
}

/// An entry where it stands.
#[derive(Clone, Copy)]
pub struct EntryRef<'a> {
    /// Its ID.
    pub id: StreamId,
    pub(super) deleted: bool,
    at: usize,
    node: &'a Node,
    /// How many fields, where their names begin, and where the values (or the pairs) begin.
    len: usize,
    names_at: Option<usize>,
    values_at: usize,
}

impl Node {
    /// A node of one entry.
    pub(super) fn new(id: StreamId, pairs: &[&[u8]]) -> Self {
        let mut pack = Listpack::new();
        push_int(&mut pack, 0);
        push_int(&mut pack, 0);
        push_int(&mut pack, (pairs.len() / 2) as i64);
        pairs.iter().step_by(2).for_each(|field| pack.push_back(field));
        push_int(&mut pack, 0);
        let mut node = Self(pack);
        node.append(id, id, pairs);
        node
    }

    /// A node that was read, and the ID of its last entry that is not deleted; nothing if it is not well formed or an
    /// entry is not behind the one before it.
    pub(super) fn from_listpack(
        master: StreamId,
        pack: Listpack,
        mut last: Option<StreamId>,
    ) -> Option<(Self, Option<StreamId>)> {
        let node = Self(pack);
        let live_at = node.0.first()?;
        let deleted_at = node.0.next(live_at)?;
        let stated = (node.checked_int(live_at)?, node.checked_int(deleted_at)?);
        let head = node.checked_head(deleted_at)?;
        let (mut at, mut counted, mut last_here) = (head.end, (0, 0), None);
        while at < node.0.end() {
            let (entry, next) = node.checked_entry(master, &head, at)?;
            if entry.deleted {
                counted.1 += 1;
            } else {
                if last.is_some_and(|last| entry.id <= last) || entry.id < master {
                    return None;
                }
                counted.0 += 1;
                last = Some(entry.id);
                last_here = last;
            }
            at = next;
        }
        (stated == counted).then_some((node, last_here))
    }

    /// The head of a node that was read.
    fn checked_head(&self, deleted_at: usize) -> Option<Head> {
        let at = self.0.next(deleted_at)?;
        let fields = usize::try_from(self.checked_int(at)?).ok()?;
        let fields_at = self.0.next(at)?;
        let mut at = fields_at;
        for _ in 0..fields {
            at = self.0.next(at)?;
        }
        (self.checked_int(at)? == 0).then(|| Head { fields, fields_at, end: self.after(at) })
    }

    /// An entry that was read, and the position behind it.
    fn checked_entry(
        &self,
        master: StreamId,
        head: &Head,
        flags_at: usize,
    ) -> Option<(EntryRef<'_>, usize)> {
        let flags = self.checked_int(flags_at)?;
        let ms_at = self.0.next(flags_at)?;
        let seq_at = self.0.next(ms_at)?;
        let mut at = self.0.next(seq_at)?;
        self.checked_int(ms_at).and(self.checked_int(seq_at))?;
        let (parts, before) = if flags & SAME_FIELDS == 0 {
            let stated = usize::try_from(self.checked_int(at)?).ok()?;
            at = self.0.next(at)?;
            (stated.checked_mul(2)?, 4)
        } else {
            (head.fields, 3)
        };
        for _ in 0..parts {
            at = self.0.next(at)?;
        }
        let counted = self.checked_int(at)? == parts as i64 + before;
        counted.then(|| (self.entry(master, head, flags_at), self.after(at)))
    }

    /// An element that must be an integer, and must be held as one.
    fn checked_int(&self, at: usize) -> Option<i64> {
        match self.0.get(at) {
            Item::Int(value) => Some(value),
            Item::Bytes(_) => None,
        }
    }

    pub(super) fn listpack(&self) -> &Listpack {
        &self.0
    }

    pub(super) fn memory_usage(&self) -> usize {
        self.0.memory_usage()
    }

    fn int(&self, at: usize) -> i64 {
        self.0.get(at).as_i64().unwrap_or(0)
    }

    /// The position behind an element, the node's end behind the last.
    fn after(&self, at: usize) -> usize {
        self.0.next(at).unwrap_or_else(|| self.0.end())
    }

    fn live_at(&self) -> usize {
        self.0.first().unwrap_or_default()
    }

    /// How many entries are not deleted.
    pub(super) fn live(&self) -> u64 {
        self.int(self.live_at()).max(0) as u64
    }

    fn deleted(&self) -> u64 {
        self.int(self.after(self.live_at())).max(0) as u64
    }

    fn set_counts(&mut self, live: u64, deleted: u64) {
        let at = self.live_at();
        replace_int(&mut self.0, at, live as i64);
        let at = self.after(at);
        replace_int(&mut self.0, at, deleted as i64);
    }

    fn fields_count_at(&self) -> usize {
        self.after(self.after(self.live_at()))
    }

    fn fields_at(&self) -> usize {
        self.after(self.fields_count_at())
    }

    fn head(&self) -> Head {
        let fields = self.int(self.fields_count_at()).max(0) as usize;
        let fields_at = self.fields_at();
        let end = (0..=fields).fold(fields_at, |at, _| self.after(at));
        Head { fields, fields_at, end }
    }

    /// Whether one more entry belongs here, of so many bytes of fields and values.
    pub(super) fn has_room(&self, bytes: usize, limits: &Limits) -> bool {
        let most = match limits.stream_node_max_bytes {
            0 => BYTES_MAX,
            bytes => bytes.min(BYTES_MAX),
        };
        let entries = limits.stream_node_max_entries as u64;
        self.0.as_bytes().len() + bytes < most
            && (entries == 0 || self.live() + self.deleted() < entries)
    }

    pub(super) fn append(&mut self, master: StreamId, id: StreamId, pairs: &[&[u8]]) {
        let fields_at = self.fields_at();
        // The names are looked at only where there are as many.
        let same = self.int(self.fields_count_at()) as usize * 2 == pairs.len() && {
            let mut names = self.0.iter_from(fields_at);
            pairs.iter().step_by(2).all(|field| names.next().is_some_and(|name| name.is(field)))
        };
        let (at, live) = (self.live_at(), self.live());
        replace_int(&mut self.0, at, live as i64 + 1);
        let pack = &mut self.0;
        push_int(pack, if same { SAME_FIELDS } else { 0 });
        push_int(pack, id.ms.wrapping_sub(master.ms) as i64);
        push_int(pack, id.seq.wrapping_sub(master.seq) as i64);
        let elements = if same {
            pairs.iter().skip(1).step_by(2).for_each(|value| pack.push_back(value));
            pairs.len() / 2 + 3
        } else {
            push_int(pack, (pairs.len() / 2) as i64);
            pairs.iter().for_each(|part| pack.push_back(part));
            pairs.len() + 4
        };
        push_int(pack, elements as i64);
    }

    /// The entry whose flags are at a position.
    fn entry(&self, master: StreamId, head: &Head, at: usize) -> EntryRef<'_> {
        let flags = self.int(at);
        let ms_at = self.after(at);
        let seq_at = self.after(ms_at);
        let id = StreamId {
            ms: master.ms.wrapping_add(self.int(ms_at) as u64),
            seq: master.seq.wrapping_add(self.int(seq_at) as u64),
        };
        let behind = self.after(seq_at);
        let (len, names_at, values_at) = if flags & SAME_FIELDS == 0 {
            (self.int(behind).max(0) as usize, None, self.after(behind))
        } else {
            (head.fields, Some(head.fields_at), behind)
        };
        let deleted = flags & DELETED != 0;
        EntryRef { id, deleted, at, node: self, len, names_at, values_at }
    }

    pub(super) fn cursor(&self, master: StreamId, from_end: bool) -> Cursor<'_> {
        let head = self.head();
        let at = if from_end { self.0.end() } else { head.end };
        Cursor { node: self, master, head, at }
    }

    /// The position of an entry that is not deleted.
    pub(super) fn find(&self, master: StreamId, id: StreamId) -> Option<usize> {
        let mut cursor = self.cursor(master, false);
        while let Some(entry) = cursor.step() {
            if !entry.deleted && entry.id >= id {
                return (entry.id == id).then_some(entry.at);
            }
        }
        None
    }

    /// The ID of the last entry, deleted or not.
    pub(super) fn last_id(&self, master: StreamId) -> StreamId {
        self.cursor(master, true).step_back().map_or(master, |entry| entry.id)
    }

    /// Marks the entry whose flags are at a position, and counts it.
    pub(super) fn mark_deleted(&mut self, at: usize) {
        self.mark_all(&[at]);
    }

    /// Marks entries from the front on until one is to stay, and counts them.
    pub(super) fn mark_front(
        &mut self,
        master: StreamId,
        mut stays: impl FnMut(StreamId, u64) -> bool,
    ) -> u64 {
        let mut gone = Vec::new();
        let mut cursor = self.cursor(master, false);
        while let Some(entry) = cursor.step() {
            if entry.deleted {
                continue;
            }
            if stays(entry.id, gone.len() as u64) {
                break;
            }
            gone.push(entry.at);
        }
        self.mark_all(&gone);
        gone.len() as u64
    }

    fn mark_all(&mut self, positions: &[usize]) {
        for &at in positions {
            // As long as before, so that the positions behind it hold.
            let flags = self.int(at) | DELETED;
            replace_int(&mut self.0, at, flags);
        }
        let (live, deleted, gone) = (self.live(), self.deleted(), positions.len() as u64);
        self.set_counts(live.saturating_sub(gone), deleted + gone);
    }
}

/// A walk over the entries of a node.
pub(super) struct Cursor<'a> {
    node: &'a Node,
    master: StreamId,
    head: Head,
    /// Forwards: where the next entry begins. Backwards: where the last one that was met began.
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn step(&mut self) -> Option<EntryRef<'a>> {
        if self.at >= self.node.0.end() {
            return None;
        }
        let entry = self.node.entry(self.master, &self.head, self.at);
        let elements = if entry.names_at.is_some() { entry.len } else { entry.len * 2 };
        // The values or pairs, and the count behind them.
        self.at = (0..=elements).fold(entry.values_at, |at, _| self.node.after(at));
        Some(entry)
    }

    pub(super) fn step_back(&mut self) -> Option<EntryRef<'a>> {
        if self.at <= self.head.end {
            return None;
        }
        let count_at = self.node.0.prev(self.at)?;
        let elements = self.node.int(count_at).max(0);
        let mut at = count_at;
        for _ in 0..elements {
            at = self.node.0.prev(at)?;
        }
        self.at = at;
        Some(self.node.entry(self.master, &self.head, at))
    }
}

impl<'a> EntryRef<'a> {
    /// How many fields it has.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has none, which no client can write.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Fields and values in order.
    pub fn fields(&self) -> Fields<'a> {
        Fields {
            node: self.node,
            left: self.len,
            names_at: self.names_at,
            values_at: self.values_at,
        }
    }
}

/// The fields of an entry with their values.
pub struct Fields<'a> {
    node: &'a Node,
    left: usize,
    names_at: Option<usize>,
    values_at: usize,
}

impl<'a> Iterator for Fields<'a> {
    type Item = (Item<'a>, Item<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let pack = &self.node.0;
        let name_at = match &mut self.names_at {
            Some(names_at) => {
                let at = *names_at;
                *names_at = self.node.after(at);
                at
            }
            None => {
                let at = self.values_at;
                self.values_at = self.node.after(at);
                at
            }
        };
        let value = pack.get(self.values_at);
        self.values_at = self.node.after(self.values_at);
        Some((pack.get(name_at), value))
    }
}

fn push_int(pack: &mut Listpack, value: i64) {
    pack.push_back(itoa::Buffer::new().format(value).as_bytes());
}

fn replace_int(pack: &mut Listpack, at: usize, value: i64) {
    pack.replace(at, itoa::Buffer::new().format(value).as_bytes());
}
