//! Fields and their values: a listpack of alternating fields and values while small, then a table.

use super::{Item, Limits, Listpack, below, dict::Dict, listpack, text::Pair};

/// A hash.
#[derive(Clone, Debug)]
pub struct Hash(Repr);

#[derive(Clone, Debug)]
enum Repr {
    Pack(Listpack),
    Table(Box<Table>),
}

#[derive(Clone)]
struct Table {
    dict: Dict<Pair>,
    /// What the pairs own.
    pair_bytes: usize,
}

impl Default for Hash {
    fn default() -> Self {
        Self::new()
    }
}

impl Hash {
    /// An empty hash.
    pub fn new() -> Self {
        Self(Repr::Pack(Listpack::new()))
    }

    /// Takes a well-formed listpack from outside: an even number of elements, no field twice.
    pub fn from_listpack(pack: Listpack, limits: &Limits) -> Option<Self> {
        if !pack.len().is_multiple_of(2) || !all_distinct(pack.iter().step_by(2)) {
            return None;
        }
        let widest = pack.iter().map(Item::len).max().unwrap_or(0);
        let fits = pack.len() / 2 <= limits.hash_max_listpack_entries
            && widest <= limits.hash_max_listpack_value;
        let mut hash = Self(Repr::Pack(pack));
        if !fits {
            hash.convert(limits);
        }
        Some(hash)
    }

    /// The whole value as a listpack, while it is one.
    pub fn as_listpack(&self) -> Option<&Listpack> {
        match &self.0 {
            Repr::Pack(pack) => Some(pack),
            Repr::Table(_) => None,
        }
    }

    /// What OBJECT ENCODING prints.
    pub fn encoding(&self) -> &'static str {
        match self.0 {
            Repr::Pack(_) => "listpack",
            Repr::Table(_) => "hashtable",
        }
    }

    /// What it takes from the allocator, besides `self`.
    pub fn memory_usage(&self) -> usize {
        match &self.0 {
            Repr::Pack(pack) => pack.memory_usage(),
            Repr::Table(table) => {
                super::size_class(size_of::<Table>()) + table.dict.memory_usage() + table.pair_bytes
            }
        }
    }

    /// How many fields there are.
    pub fn len(&self) -> usize {
        match &self.0 {
            Repr::Pack(pack) => pack.len() / 2,
            Repr::Table(table) => table.dict.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The value of a field.
    pub fn get(&self, field: &[u8]) -> Option<Item<'_>> {
        match &self.0 {
            Repr::Pack(pack) => {
                let at = pack.find(pack.first()?, field, 2)?;
                Some(pack.get(pack.next(at)?))
            }
            Repr::Table(table) => table.find(field).map(|pair| Item::Bytes(pair.value())),
        }
    }

    /// Whether the field is there.
    pub fn contains(&self, field: &[u8]) -> bool {
        self.get(field).is_some()
    }

    /// Sets a field; says whether it is new.
    pub fn set(&mut self, field: &[u8], value: &[u8], limits: &Limits) -> bool {
        if let Repr::Pack(pack) = &mut self.0 {
            let widest = field.len().max(value.len());
            let fits = widest <= limits.hash_max_listpack_value
                && pack.has_room(field.len() + value.len() + 20);
            if fits {
                let found = pack.first().and_then(|first| pack.find(first, field, 2));
                if let Some(at) = found.and_then(|at| pack.next(at)) {
                    pack.replace(at, value);
                    return false;
                }
                if pack.len() / 2 < limits.hash_max_listpack_entries {
                    pack.push_back(field);
                    pack.push_back(value);
                    return true;
                }
            }
            self.convert(limits);
        }
        match &mut self.0 {
            Repr::Table(table) => table.set(field, value),
            Repr::Pack(_) => unreachable!("converted above"),
        }
    }

    /// Removes a field; says whether it was there.
    pub fn remove(&mut self, field: &[u8]) -> bool {
        match &mut self.0 {
            Repr::Pack(pack) => {
                let found = pack.first().and_then(|first| pack.find(first, field, 2));
                if let Some(at) = found {
                    pack.remove(at, 2);
                }
                found.is_some()
            }
            Repr::Table(table) => table.remove(field),
        }
    }

    /// All fields with their values, in no particular order.
    pub fn iter(&self) -> Iter<'_> {
        Iter(match &self.0 {
            Repr::Pack(pack) => IterRepr::Pack(pack.iter()),
            Repr::Table(table) => IterRepr::Table(Box::new(table.dict.iter())),
        })
    }

    /// Visits about `count` fields from `cursor` on and gives the next cursor, 0 at the end. A small hash is visited
    /// whole. A field that stays is visited exactly once in a whole scan.
    pub fn scan<'a>(
        &'a self,
        cursor: u64,
        count: usize,
        mut visit: impl FnMut(Item<'a>, Item<'a>),
    ) -> u64 {
        match &self.0 {
            Repr::Pack(_) => {
                self.iter().for_each(|(field, value)| visit(field, value));
                0
            }
            Repr::Table(table) => table.dict.scan(cursor, count, hash_of(&table.dict), |pair| {
                visit(Item::Bytes(pair.field()), Item::Bytes(pair.value()));
            }),
        }
    }

    /// A field, each with the same chance.
    pub fn random(&self, entropy: &mut dyn FnMut() -> u64) -> Option<(Item<'_>, Item<'_>)> {
        match &self.0 {
            Repr::Pack(pack) => {
                let at = pack.seek(2 * below(entropy, self.len()))?;
                Some((pack.get(at), pack.get(pack.next(at)?)))
            }
            Repr::Table(table) => table.dict.random(entropy).map(as_items),
        }
    }

    /// Visits `count` distinct fields chosen at random (all, if there are not more).
    pub fn random_distinct<'a>(
        &'a self,
        count: usize,
        entropy: &mut dyn FnMut() -> u64,
        mut visit: impl FnMut(Item<'a>, Item<'a>),
    ) {
        match &self.0 {
            Repr::Pack(_) => {
                super::sample_pass(self.iter(), self.len(), count, entropy, |(f, v)| {
                    visit(f, v);
                })
            }
            Repr::Table(table) => table.dict.sample(count, entropy, |pair| {
                visit(Item::Bytes(pair.field()), Item::Bytes(pair.value()));
            }),
        }
    }

    fn convert(&mut self, limits: &Limits) {
        let mut table = Table { dict: Dict::new(limits.seed), pair_bytes: 0 };
        let (mut f, mut v) = (super::Digits::new(), super::Digits::new());
        for (field, value) in self.iter() {
            table.set(field.bytes(&mut f), value.bytes(&mut v));
        }
        self.0 = Repr::Table(Box::new(table));
    }
}

fn as_items(pair: &Pair) -> (Item<'_>, Item<'_>) {
    (Item::Bytes(pair.field()), Item::Bytes(pair.value()))
}

fn hash_of(dict: &Dict<Pair>) -> impl Fn(&Pair) -> u64 + use<> {
    let seed = dict.seed();
    move |pair| super::dict::hash_key(seed, pair.field())
}

/// Whether no element occurs twice.
pub(super) fn all_distinct<'a>(items: impl Iterator<Item = Item<'a>>) -> bool {
    let mut seen = hashbrown::HashSet::new();
    let mut items = items;
    items.all(|item| seen.insert(item.to_vec()))
}

impl Table {
    fn find(&self, field: &[u8]) -> Option<&Pair> {
        self.dict.find(self.dict.hash(field), |pair| pair.field() == field)
    }

    fn set(&mut self, field: &[u8], value: &[u8]) -> bool {
        let hash = self.dict.hash(field);
        let pair = Pair::new(field, value);
        self.pair_bytes += pair.heap_size();
        if let Some(old) = self.dict.find_mut(hash, |pair| pair.field() == field) {
            self.pair_bytes -= old.heap_size();
            *old = pair;
            return false;
        }
        let hash_of = hash_of(&self.dict);
        self.dict.insert(hash, pair, hash_of);
        true
    }

    fn remove(&mut self, field: &[u8]) -> bool {
        let hash_of = hash_of(&self.dict);
        let hash = self.dict.hash(field);
        let removed = self.dict.remove(hash, |pair| pair.field() == field, hash_of);
        self.pair_bytes -= removed.as_ref().map_or(0, Pair::heap_size);
        removed.is_some()
    }
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map().entries(self.dict.iter().map(as_items)).finish()
    }
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
