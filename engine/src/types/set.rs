//! Distinct members: sorted integers or a listpack while small, then a table.

use super::word::{Large, one_word};
use super::{Digits, Intset, Item, Limits, Listpack, below, dict::Dict, listpack, text::Text};
use crate::number;

/// A set.
#[derive(Clone, Debug)]
pub struct Set(Repr);

one_word! {
    Pack(Listpack),
    Table(Large<Table, 1>),
    Ints(Intset),
}

#[derive(Clone)]
struct Table {
    dict: Dict<Text>,
    /// What the members own.
    member_bytes: usize,
}

impl Default for Set {
    fn default() -> Self {
        Self::new()
    }
}

impl Set {
    /// An empty set.
    pub fn new() -> Self {
        Self(Intset::new().into())
    }

    /// Takes an intset from outside.
    pub fn from_intset(ints: Intset, limits: &Limits) -> Self {
        let fits = ints.len() <= limits.set_max_intset_entries;
        let mut set = Self(ints.into());
        if !fits {
            set.convert(limits);
        }
        set
    }

    /// Takes a well-formed listpack from outside, if no member is there twice.
    pub fn from_listpack(pack: Listpack, limits: &Limits) -> Option<Self> {
        if !super::hash::all_distinct(pack.iter()) {
            return None;
        }
        let widest = pack.iter().map(Item::len).max().unwrap_or(0);
        let fits = pack.len() <= limits.set_max_listpack_entries
            && widest <= limits.set_max_listpack_value;
        let mut set = Self(pack.into());
        if !fits {
            set.convert(limits);
        }
        Some(set)
    }

    /// The whole value as an intset, while it is one.
    pub fn as_intset(&self) -> Option<&Intset> {
        match self.0.held() {
            Held::Ints(ints) => Some(ints),
            _ => None,
        }
    }

    /// The whole value as a listpack, while it is one.
    pub fn as_listpack(&self) -> Option<&Listpack> {
        match self.0.held() {
            Held::Pack(pack) => Some(pack),
            _ => None,
        }
    }

    /// What OBJECT ENCODING prints.
    pub fn encoding(&self) -> &'static str {
        match self.0.held() {
            Held::Ints(_) => "intset",
            Held::Pack(_) => "listpack",
            Held::Table(_) => "hashtable",
        }
    }

    /// What it takes from the allocator, besides `self`.
    #[inline]
    pub fn memory_usage(&self) -> usize {
        match self.0.held() {
            Held::Ints(ints) => ints.memory_usage(),
            Held::Pack(pack) => pack.memory_usage(),
            Held::Table(table) => {
                super::size_class(size_of::<Table>())
                    + table.dict.memory_usage()
                    + table.member_bytes
            }
        }
    }

    /// How many members there are.
    pub fn len(&self) -> usize {
        match self.0.held() {
            Held::Ints(ints) => ints.len(),
            Held::Pack(pack) => pack.len(),
            Held::Table(table) => table.dict.len(),
        }
    }

    /// Whether there are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        match self.0.held() {
            Held::Ints(ints) => ints.len() == 0,
            Held::Pack(pack) => pack.is_empty(),
            Held::Table(table) => table.dict.len() == 0,
        }
    }

    /// Brings a member nearer, ahead of its use.
    #[inline]
    pub fn prefetch(&self, member: &[u8]) {
        if let Held::Table(table) = self.0.held() {
            table.dict.prefetch(member, Text::prefetch);
        }
    }

    /// Whether the member is there.
    pub fn contains(&self, member: &[u8]) -> bool {
        match self.0.held() {
            Held::Ints(ints) => number::parse_i64(member).is_some_and(|value| ints.contains(value)),
            Held::Pack(pack) => {
                pack.first().and_then(|first| pack.find(first, member, 1)).is_some()
            }
            Held::Table(table) => table.contains(member),
        }
    }

    /// Adds a member; says whether it is new.
    pub fn add(&mut self, member: &[u8], limits: &Limits) -> bool {
        match self.0.held_mut() {
            HeldMut::Ints(ints) => match number::parse_i64(member) {
                Some(value) => {
                    let new = ints.add(value);
                    if new && ints.len() > limits.set_max_intset_entries {
                        self.convert(limits);
                    }
                    return new;
                }
                None => self.leave_intset(member, limits),
            },
            HeldMut::Pack(pack) => {
                if pack.first().and_then(|first| pack.find(first, member, 1)).is_some() {
                    return false;
                }
                let fits = pack.len() < limits.set_max_listpack_entries
                    && member.len() <= limits.set_max_listpack_value
                    && pack.has_room(member.len() + 10);
                if !fits {
                    self.convert(limits);
                }
            }
            HeldMut::Table(_) => {}
        }
        match self.0.held_mut() {
            HeldMut::Table(table) => table.add(member),
            HeldMut::Pack(pack) => {
                pack.push_back(member);
                true
            }
            HeldMut::Ints(_) => unreachable!("left above"),
        }
    }

    /// Removes a member; says whether it was there.
    pub fn remove(&mut self, member: &[u8]) -> bool {
        match self.0.held_mut() {
            HeldMut::Ints(ints) => {
                number::parse_i64(member).is_some_and(|value| ints.remove(value))
            }
            HeldMut::Pack(pack) => {
                let found = pack.first().and_then(|first| pack.find(first, member, 1));
                if let Some(at) = found {
                    pack.remove(at, 1);
                }
                found.is_some()
            }
            HeldMut::Table(table) => table.remove(member),
        }
    }

    /// All members; integers in ascending order while the encoding is `intset`, else in no particular order.
    pub fn iter(&self) -> Iter<'_> {
        Iter(match self.0.held() {
            Held::Ints(ints) => IterRepr::Ints(ints, 0),
            Held::Pack(pack) => IterRepr::Pack(pack.iter()),
            Held::Table(table) => IterRepr::Table(Box::new(table.dict.iter())),
        })
    }

    /// Visits about `count` members from `cursor` on and gives the next cursor, 0 at the end. A small set is visited
    /// whole. A member that stays is visited exactly once in a whole scan.
    pub fn scan<'a>(&'a self, cursor: u64, count: usize, mut visit: impl FnMut(Item<'a>)) -> u64 {
        match self.0.held() {
            Held::Table(table) => table.dict.scan(cursor, count, hash_of(&table.dict), |member| {
                visit(Item::Bytes(member.as_bytes()));
            }),
            _ => {
                self.iter().for_each(visit);
                0
            }
        }
    }

    /// A member, each with the same chance.
    pub fn random(&self, entropy: &mut dyn FnMut() -> u64) -> Option<Item<'_>> {
        match self.0.held() {
            Held::Ints(ints) => ints.get(below(entropy, ints.len())).map(Item::Int),
            Held::Pack(pack) => pack.seek(below(entropy, pack.len())).map(|at| pack.get(at)),
            Held::Table(table) => {
                table.dict.random(entropy).map(|member| Item::Bytes(member.as_bytes()))
            }
        }
    }

    /// Visits `count` distinct members chosen at random (all, if there are not more).
    pub fn random_distinct<'a>(
        &'a self,
        count: usize,
        entropy: &mut dyn FnMut() -> u64,
        mut visit: impl FnMut(Item<'a>),
    ) {
        match self.0.held() {
            Held::Table(table) => {
                table.dict.sample(count, entropy, |member| visit(Item::Bytes(member.as_bytes())))
            }
            _ => super::sample_pass(self.iter(), self.len(), count, entropy, visit),
        }
    }

    /// Removes a member chosen at random.
    pub fn pop_random(&mut self, entropy: &mut dyn FnMut() -> u64) -> Option<Vec<u8>> {
        let member = self.random(entropy)?.to_vec();
        self.remove(&member);
        Some(member)
    }

    /// An integer set meets text: a listpack if it is small enough, else a table.
    fn leave_intset(&mut self, member: &[u8], limits: &Limits) {
        let fits = self.len() < limits.set_max_listpack_entries
            && member.len() <= limits.set_max_listpack_value
            && self.iter().all(|item| item.len() <= limits.set_max_listpack_value);
        if !fits {
            return self.convert(limits);
        }
        let mut pack = Listpack::new();
        let mut digits = Digits::new();
        for item in self.iter() {
            pack.push_back(item.bytes(&mut digits));
        }
        self.0 = pack.into();
    }

    fn convert(&mut self, limits: &Limits) {
        let mut table = Table { dict: Dict::new(limits.seed), member_bytes: 0 };
        let mut digits = Digits::new();
        for item in self.iter() {
            table.add(item.bytes(&mut digits));
        }
        self.0 = Large::new(table).into();
    }
}

fn hash_of(dict: &Dict<Text>) -> impl Fn(&Text) -> u64 + use<> {
    let seed = dict.seed();
    move |member| super::dict::hash_key(seed, member.as_bytes())
}

impl Table {
    fn contains(&self, member: &[u8]) -> bool {
        self.dict.find(self.dict.hash(member), |other| other.as_bytes() == member).is_some()
    }

    fn add(&mut self, member: &[u8]) -> bool {
        let hash = self.dict.hash(member);
        if self.dict.find(hash, |other| other.as_bytes() == member).is_some() {
            return false;
        }
        let text = Text::new(member);
        self.member_bytes += text.heap_size();
        let hash_of = hash_of(&self.dict);
        self.dict.insert(hash, text, hash_of);
        true
    }

    fn remove(&mut self, member: &[u8]) -> bool {
        let hash = self.dict.hash(member);
        let hash_of = hash_of(&self.dict);
        let removed = self.dict.remove(hash, |other| other.as_bytes() == member, hash_of);
        self.member_bytes -= removed.as_ref().map_or(0, Text::heap_size);
        removed.is_some()
    }
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.dict.iter().map(|text| Item::Bytes(text.as_bytes()))).finish()
    }
}

/// Members.
pub struct Iter<'a>(IterRepr<'a>);

enum IterRepr<'a> {
    Ints(&'a Intset, usize),
    Pack(listpack::Iter<'a>),
    Table(Box<dyn Iterator<Item = &'a Text> + 'a>),
}

impl<'a> Iterator for Iter<'a> {
    type Item = Item<'a>;

    fn next(&mut self) -> Option<Item<'a>> {
        match &mut self.0 {
            IterRepr::Ints(ints, index) => {
                *index += 1;
                ints.get(*index - 1).map(Item::Int)
            }
            IterRepr::Pack(items) => items.next(),
            IterRepr::Table(members) => members.next().map(|text| Item::Bytes(text.as_bytes())),
        }
    }
}

#[cfg(test)]
mod tests;
