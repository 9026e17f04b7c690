//! Fields and their values: a listpack of alternating fields and values while small, then a table.
//!
//! ```text
//! Pack         listpack                              no field of these two ever goes by itself
//! Table        table of pairs
//! TimedPack    listpack + a time for each field      some field goes when its time comes
//! TimedTable   table of pairs, some with a time + a heap of the times
//! ```
//!
//! A hash is timed only while one of its fields has a time: all others have the bytes that they have without. What is
//! asked of a [`Hash`] itself knows no clock, and sees fields whose time is over until they are taken out by
//! [`Hash::take_due`]; who serves clients looks through [`Hash::at`].

mod table;
mod times;
mod view;

use super::word::{Large, one_word};
use super::{Item, Limits, Listpack, below, listpack, text::Pair};
use table::{Table, as_items};
use times::{TimedPack, TimedTable};

pub use super::text::NEVER;
pub use view::View;

/// A hash.
#[derive(Clone, Debug)]
pub struct Hash(Repr);

one_word! {
    Pack(Listpack),
    Table(Large<Table, 1>),
    TimedPack(Large<TimedPack, 2>),
    TimedTable(Large<TimedTable, 3>),
}

/// The two forms, whether timed or not.
enum Form<'a> {
    Pack(&'a Listpack),
    Table(&'a Table),
}

impl Default for Hash {
    fn default() -> Self {
        Self::new()
    }
}

impl Hash {
    /// An empty hash.
    pub fn new() -> Self {
        Self(Listpack::new().into())
    }

    /// Takes a well-formed listpack from outside: an even number of elements, no field twice.
    pub fn from_listpack(pack: Listpack, limits: &Limits) -> Option<Self> {
        if !pack.len().is_multiple_of(2) || !all_distinct(pack.iter().step_by(2)) {
            return None;
        }
        let widest = pack.iter().map(Item::len).max().unwrap_or(0);
        let fits = pack.len() / 2 <= limits.hash_max_listpack_entries
            && widest <= limits.hash_max_listpack_value;
        let mut hash = Self(pack.into());
        if !fits {
            hash.convert(limits);
        }
        Some(hash)
    }

    fn form(&self) -> Form<'_> {
        match self.0.held() {
            Held::Pack(pack) => Form::Pack(pack),
            Held::Table(table) => Form::Table(table),
            Held::TimedPack(timed) => Form::Pack(timed.pack()),
            Held::TimedTable(timed) => Form::Table(timed.table()),
        }
    }

    /// The whole value as a listpack, while it is one and nothing more.
    pub fn as_listpack(&self) -> Option<&Listpack> {
        match self.0.held() {
            Held::Pack(pack) => Some(pack),
            _ => None,
        }
    }

    /// What OBJECT ENCODING prints.
    pub fn encoding(&self) -> &'static str {
        match self.0.held() {
            Held::Pack(_) => "listpack",
            Held::TimedPack(_) => "listpackex",
            Held::Table(_) | Held::TimedTable(_) => "hashtable",
        }
    }

    /// What it takes from the allocator, besides `self`.
    #[inline]
    pub fn memory_usage(&self) -> usize {
        match self.0.held() {
            Held::Pack(pack) => pack.memory_usage(),
            Held::Table(table) => super::size_class(size_of::<Table>()) + table.memory_usage(),
            Held::TimedPack(timed) => timed.memory_usage(),
            Held::TimedTable(timed) => timed.memory_usage(),
        }
    }

    /// How many fields there are.
    pub fn len(&self) -> usize {
        match self.form() {
            Form::Pack(pack) => pack.len() / 2,
            Form::Table(table) => table.dict.len(),
        }
    }

    /// Whether there are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        match self.form() {
            Form::Pack(pack) => pack.is_empty(),
            Form::Table(table) => table.dict.len() == 0,
        }
    }

    /// The value of a field.
    pub fn get(&self, field: &[u8]) -> Option<Item<'_>> {
        match self.form() {
            Form::Pack(pack) => {
                let at = pack.find(pack.first()?, field, 2)?;
                Some(pack.get(pack.next(at)?))
            }
            Form::Table(table) => table.find(field).map(|pair| Item::Bytes(pair.value())),
        }
    }

    /// Whether the field is there.
    pub fn contains(&self, field: &[u8]) -> bool {
        self.get(field).is_some()
    }

    /// Brings a field nearer, ahead of its use.
    #[inline]
    pub fn prefetch(&self, field: &[u8]) {
        if let Form::Table(table) = self.form() {
            table.dict.prefetch(field, Pair::prefetch);
        }
    }

    /// The hash as it is at a time: fields that have gone by then are not seen.
    #[inline]
    pub fn at(&self, now_ms: i64) -> View<'_> {
        View::new(self, now_ms)
    }

    /// Some field has a time.
    #[inline]
    pub fn is_timed(&self) -> bool {
        matches!(self.0.held(), Held::TimedPack(_) | Held::TimedTable(_))
    }

    /// No field goes before this time (a lower bound); [`NEVER`] without times.
    #[inline]
    pub fn next_due(&self) -> i64 {
        match self.0.held() {
            Held::Pack(_) | Held::Table(_) => NEVER,
            Held::TimedPack(timed) => timed.next_due(),
            Held::TimedTable(timed) => timed.next_due(),
        }
    }

    /// When a field goes: [`NEVER`] when it has no time; nothing when it is not there.
    pub fn time(&self, field: &[u8]) -> Option<i64> {
        match self.0.held() {
            Held::TimedPack(timed) => timed.time(field),
            Held::TimedTable(timed) => timed.table().find(field).map(Pair::time),
            Held::Pack(_) | Held::Table(_) => self.contains(field).then_some(NEVER),
        }
    }

    /// Sets a field, which has no time from then on; says whether it is new.
    pub fn set(&mut self, field: &[u8], value: &[u8], limits: &Limits) -> bool {
        self.put(field, value, Some(NEVER), limits)
    }

    /// Sets a field, which keeps the time that it has; says whether it is new.
    pub fn set_value(&mut self, field: &[u8], value: &[u8], limits: &Limits) -> bool {
        self.put(field, value, None, limits)
    }

    /// Sets a field that goes at a time; says whether it is new.
    pub fn set_until(&mut self, field: &[u8], value: &[u8], time: i64, limits: &Limits) -> bool {
        self.put(field, value, Some(time), limits)
    }

    /// Changes when a field goes, if it is there; [`NEVER`]: it stays.
    pub fn set_time(&mut self, field: &[u8], time: i64) -> bool {
        if time != NEVER && !self.is_timed() && self.contains(field) {
            self.begin_times();
        }
        let found = match self.0.held_mut() {
            HeldMut::TimedPack(timed) => timed.set_time(field, time),
            HeldMut::TimedTable(timed) => timed.set_time(field, time),
            HeldMut::Pack(_) | HeldMut::Table(_) => return self.contains(field),
        };
        self.end_times();
        found
    }

    fn put(&mut self, field: &[u8], value: &[u8], time: Option<i64>, limits: &Limits) -> bool {
        if time.is_some_and(|time| time != NEVER) && !self.is_timed() {
            self.begin_times();
        }
        let widest = field.len().max(value.len());
        let fits = |pack: &Listpack| {
            widest <= limits.hash_max_listpack_value
                && pack.has_room(field.len() + value.len() + 20)
        };
        let most = limits.hash_max_listpack_entries;
        let done = match self.0.held_mut() {
            HeldMut::Pack(pack) if fits(pack) => put_packed(pack, field, value, most),
            HeldMut::TimedPack(timed) if fits(timed.pack()) => timed.put(field, value, time, most),
            HeldMut::Pack(_) | HeldMut::TimedPack(_) => None,
            HeldMut::Table(table) => Some(table.set(field, value, NEVER).is_none()),
            HeldMut::TimedTable(timed) => Some(timed.put(field, value, time)),
        };
        let Some(new) = done else {
            self.convert(limits);
            return self.put(field, value, time, limits);
        };
        if time == Some(NEVER) {
            self.end_times();
        }
        new
    }

    /// Removes a field; says whether it was there.
    pub fn remove(&mut self, field: &[u8]) -> bool {
        let found = match self.0.held_mut() {
            HeldMut::Pack(pack) => {
                let found = pack.first().and_then(|first| pack.find(first, field, 2));
                if let Some(at) = found {
                    pack.remove(at, 2);
                }
                return found.is_some();
            }
            HeldMut::Table(table) => return table.remove(field).is_some(),
            HeldMut::TimedPack(timed) => timed.remove(field),
            HeldMut::TimedTable(timed) => timed.remove(field),
        };
        self.end_times();
        found
    }

    /// Takes out fields whose time is over, at most `limit`; there are more while `next_due` says so.
    pub fn take_due(&mut self, now_ms: i64, limit: usize) -> Vec<Vec<u8>> {
        let taken = match self.0.held_mut() {
            HeldMut::Pack(_) | HeldMut::Table(_) => return Vec::new(),
            HeldMut::TimedPack(timed) => timed.take_due(now_ms, limit),
            HeldMut::TimedTable(timed) => timed.take_due(now_ms, limit),
        };
        self.end_times();
        taken
    }

    /// All fields with their values, in no particular order.
    pub fn iter(&self) -> Iter<'_> {
        Iter(match self.form() {
            Form::Pack(pack) => IterRepr::Pack(pack.iter()),
            Form::Table(table) => IterRepr::Table(Box::new(table.dict.iter())),
        })
    }

    /// All fields with their values and times.
    pub fn iter_timed(&self) -> impl Iterator<Item = (Item<'_>, Item<'_>, i64)> {
        let (pairs, times) = match self.0.held() {
            Held::TimedTable(timed) => {
                let pairs = timed.table().dict.iter();
                let pairs = pairs.map(|pair| {
                    (Item::Bytes(pair.field()), Item::Bytes(pair.value()), pair.time())
                });
                let pairs: Box<dyn Iterator<Item = _>> = Box::new(pairs);
                return pairs;
            }
            Held::TimedPack(timed) => (self.iter(), timed.times()),
            Held::Pack(_) | Held::Table(_) => (self.iter(), &[][..]),
        };
        let times = times.iter().copied().chain(std::iter::repeat(NEVER));
        Box::new(pairs.zip(times).map(|((field, value), time)| (field, value, time)))
    }

    /// Visits about `count` fields from `cursor` on and gives the next cursor, 0 at the end. A small hash is visited
    /// whole. A field that stays is visited exactly once in a whole scan.
    pub fn scan<'a>(
        &'a self,
        cursor: u64,
        count: usize,
        mut visit: impl FnMut(Item<'a>, Item<'a>),
    ) -> u64 {
        match self.form() {
            Form::Pack(_) => {
                self.iter().for_each(|(field, value)| visit(field, value));
                0
            }
            Form::Table(table) => table.scan(cursor, count, |pair| {
                visit(Item::Bytes(pair.field()), Item::Bytes(pair.value()));
            }),
        }
    }

    /// A field, each with the same chance.
    pub fn random(&self, entropy: &mut dyn FnMut() -> u64) -> Option<(Item<'_>, Item<'_>)> {
        match self.form() {
            Form::Pack(pack) => {
                let at = pack.seek(2 * below(entropy, self.len()))?;
                Some((pack.get(at), pack.get(pack.next(at)?)))
            }
            Form::Table(table) => table.dict.random(entropy).map(as_items),
        }
    }

    /// Visits `count` distinct fields chosen at random (all, if there are not more).
    pub fn random_distinct<'a>(
        &'a self,
        count: usize,
        entropy: &mut dyn FnMut() -> u64,
        mut visit: impl FnMut(Item<'a>, Item<'a>),
    ) {
        match self.form() {
            Form::Pack(_) => {
                super::sample_pass(self.iter(), self.len(), count, entropy, |(f, v)| {
                    visit(f, v);
                })
            }
            Form::Table(table) => table.dict.sample(count, entropy, |pair| {
                visit(Item::Bytes(pair.field()), Item::Bytes(pair.value()));
            }),
        }
    }

    /// From a listpack to a table.
    fn convert(&mut self, limits: &Limits) {
        let mut table = Table::new(limits.seed);
        let (mut f, mut v) = (super::Digits::new(), super::Digits::new());
        for (field, value, time) in self.iter_timed() {
            table.set(field.bytes(&mut f), value.bytes(&mut v), time);
        }
        self.0 = if self.is_timed() {
            Large::new(TimedTable::new(table)).into()
        } else {
            Large::new(table).into()
        };
    }

    /// A field is about to get a time.
    fn begin_times(&mut self) {
        self.0 = match self.0.held_mut() {
            HeldMut::Pack(pack) => Large::new(TimedPack::new(std::mem::take(pack))).into(),
            HeldMut::Table(table) => Large::new(TimedTable::new(table.take())).into(),
            HeldMut::TimedPack(_) | HeldMut::TimedTable(_) => return,
        };
    }

    /// The last time may have gone.
    fn end_times(&mut self) {
        self.0 = match self.0.held_mut() {
            HeldMut::TimedPack(timed) if !timed.has_times() => timed.take_pack().into(),
            HeldMut::TimedTable(timed) if !timed.has_times() => {
                Large::new(timed.take_table()).into()
            }
            _ => return,
        };
    }
}

/// Sets a field of a listpack: whether it is new, or nothing when it is one field too many.
fn put_packed(pack: &mut Listpack, field: &[u8], value: &[u8], most: usize) -> Option<bool> {
    let found = pack.first().and_then(|first| pack.find(first, field, 2));
    if let Some(at) = found.and_then(|at| pack.next(at)) {
        pack.replace(at, value);
        return Some(false);
    }
    if pack.len() / 2 >= most {
        return None;
    }
    pack.push_back(field);
    pack.push_back(value);
    Some(true)
}

/// Whether no element occurs twice.
pub(super) fn all_distinct<'a>(items: impl Iterator<Item = Item<'a>>) -> bool {
    let mut seen = hashbrown::HashSet::new();
    let mut items = items;
    items.all(|item| seen.insert(item.to_vec()))
}

/// Fields with their values.
pub struct Iter<'a>(IterRepr<'a>);

enum IterRepr<'a> {
    Pack(listpack::Iter<'a>),
    Table(Box<dyn Iterator<Item = &'a Pair> + 'a>),
}

impl<'a> Iterator for Iter<'a> {
    type Item = (Item<'a>, Item<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.0 {
            IterRepr::Pack(items) => Some((items.next()?, items.next()?)),
            IterRepr::Table(pairs) => pairs.next().map(as_items),
        }
    }
}

#[cfg(test)]
mod tests;
