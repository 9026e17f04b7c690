//! A sequence of elements: one listpack while small, then a deque of listpacks.
//!
//! Both ends take constant time however long the list is; an index walks over nodes (about 8 KiB each by default), not
//! over elements. An element too big for a node stands alone in one.

use std::ops::Range;

use super::word::{Large, one_word};
use super::{Item, Limits, Listpack, listpack};

mod node;
mod quick;

use node::Capacity;
use quick::Quick;

pub use node::NodeRef;

/// A list.
#[derive(Clone, Debug)]
pub struct List(Repr);

one_word! {
    Pack(Listpack),
    Quick(Large<Quick, 1>),
}

impl Default for List {
    fn default() -> Self {
        Self::new()
    }
}

impl List {
    /// An empty list.
    pub fn new() -> Self {
        Self(Listpack::new().into())
    }

    /// What OBJECT ENCODING prints.
    pub fn encoding(&self) -> &'static str {
        match self.0.held() {
            Held::Pack(_) => "listpack",
            Held::Quick(_) => "quicklist",
        }
    }

    /// What it takes from the allocator, besides `self`.
    #[inline]
    pub fn memory_usage(&self) -> usize {
        match self.0.held() {
            Held::Pack(pack) => pack.memory_usage(),
            Held::Quick(quick) => quick.memory_usage(),
        }
    }

    /// How many elements there are.
    pub fn len(&self) -> usize {
        match self.0.held() {
            Held::Pack(pack) => pack.len(),
            Held::Quick(quick) => quick.len(),
        }
    }

    /// Whether there are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        match self.0.held() {
            Held::Pack(pack) => pack.is_empty(),
            Held::Quick(quick) => quick.len() == 0,
        }
    }

    /// The element at an index from the front.
    pub fn get(&self, index: usize) -> Option<Item<'_>> {
        match self.0.held() {
            Held::Pack(pack) => pack.seek(index).map(|at| pack.get(at)),
            Held::Quick(quick) => quick.get(index),
        }
    }

    /// All elements, front to back; reversible.
    pub fn iter(&self) -> Iter<'_> {
        self.range(0..usize::MAX)
    }

    /// The elements of a range of indexes (what lies beyond the end is ignored); reversible.
    pub fn range(&self, range: Range<usize>) -> Iter<'_> {
        let end = range.end.min(self.len());
        let start = range.start.min(end);
        let (items, behind) = match self.0.held() {
            Held::Pack(pack) => {
                let from = pack.seek(start).unwrap_or(pack.end());
                (IterRepr::Pack(pack.iter_from(from)), pack.len() - end)
            }
            Held::Quick(quick) => {
                let (items, behind) = quick.range(start..end);
                (IterRepr::Quick(items), behind)
            }
        };
        Iter { items, left: end - start, behind }
    }

    /// The index of the first element equal to `element`.
    pub fn position(&self, element: &[u8]) -> Option<usize> {
        let wanted = Item::compact(element);
        self.iter().position(|item| item == wanted)
    }

    /// Adds an element at the front.
    pub fn push_front(&mut self, element: &[u8], limits: &Limits) {
        match self.room_for(element, limits).held_mut() {
            HeldMut::Pack(pack) => pack.push_front(element),
            HeldMut::Quick(quick) => quick.push_front(element, &Capacity::of(limits)),
        }
    }

    /// Adds an element at the back.
    pub fn push_back(&mut self, element: &[u8], limits: &Limits) {
        match self.room_for(element, limits).held_mut() {
            HeldMut::Pack(pack) => pack.push_back(element),
            HeldMut::Quick(quick) => quick.push_back(element, &Capacity::of(limits)),
        }
    }

    /// Takes the first element.
    pub fn pop_front(&mut self) -> Option<Vec<u8>> {
        match self.0.held_mut() {
            HeldMut::Pack(pack) => {
                let at = pack.first()?;
                let element = pack.get(at).to_vec();
                pack.remove(at, 1);
                Some(element)
            }
            HeldMut::Quick(quick) => quick.pop_front(),
        }
    }

    /// Takes the last element.
    pub fn pop_back(&mut self) -> Option<Vec<u8>> {
        match self.0.held_mut() {
            HeldMut::Pack(pack) => {
                let at = pack.last()?;
                let element = pack.get(at).to_vec();
                pack.remove(at, 1);
                Some(element)
            }
            HeldMut::Quick(quick) => quick.pop_back(),
        }
    }

    /// Replaces the element at an index; says whether there is one.
    pub fn set(&mut self, index: usize, element: &[u8], limits: &Limits) -> bool {
        if index >= self.len() {
            return false;
        }
        match self.room_for(element, limits).held_mut() {
            HeldMut::Pack(pack) => {
                if let Some(at) = pack.seek(index) {
                    pack.replace(at, element);
                }
            }
            HeldMut::Quick(quick) => quick.set(index, element, &Capacity::of(limits)),
        }
        true
    }

    /// Puts an element before or behind the first one equal to `pivot`; says whether there is one.
    pub fn insert(&mut self, pivot: &[u8], behind: bool, element: &[u8], limits: &Limits) -> bool {
        let Some(index) = self.position(pivot) else { return false };
        self.insert_at(index + usize::from(behind), element, limits);
        true
    }

    /// Puts an element at an index, which is at most the length; what was there moves back.
    pub fn insert_at(&mut self, index: usize, element: &[u8], limits: &Limits) {
        match self.room_for(element, limits).held_mut() {
            HeldMut::Pack(pack) => {
                let at = pack.seek(index).unwrap_or(pack.end());
                pack.insert(at, element);
            }
            HeldMut::Quick(quick) => quick.insert(index, element, &Capacity::of(limits)),
        }
    }

    /// Removes elements equal to `element`: from the front the first `count`, from the back the last `-count`, or all
    /// of them for 0. Gives how many were removed.
    pub fn remove(&mut self, count: i64, element: &[u8]) -> usize {
        let wanted = Item::compact(element);
        let limit = match count {
            0 => usize::MAX,
            _ => usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX),
        };
        match self.0.held_mut() {
            HeldMut::Pack(pack) => node::remove_equal(pack, wanted, limit, count < 0),
            HeldMut::Quick(quick) => quick.remove_equal(wanted, limit, count < 0),
        }
    }

    /// Keeps the elements of a range of indexes only.
    pub fn trim(&mut self, range: Range<usize>) {
        let len = self.len();
        let end = range.end.min(len);
        let start = range.start.min(end);
        match self.0.held_mut() {
            HeldMut::Pack(pack) => {
                if let Some(at) = pack.seek(end) {
                    pack.remove(at, len - end);
                }
                if let Some(at) = pack.first() {
                    pack.remove(at, start);
                }
            }
            HeldMut::Quick(quick) => {
                quick.drop_back(len - end);
                quick.drop_front(start);
            }
        }
    }

    /// The blocks that hold the elements, as RDB writes them.
    pub fn nodes(&self) -> impl Iterator<Item = NodeRef<'_>> {
        let (pack, quick) = match self.0.held() {
            Held::Pack(pack) => (Some(NodeRef::Packed(pack.as_bytes())), None),
            Held::Quick(quick) => (None, Some(quick.nodes())),
        };
        pack.into_iter().chain(quick.into_iter().flatten())
    }

    /// Adds a listpack from outside at the back as it is.
    pub fn push_listpack(&mut self, pack: Listpack, limits: &Limits) {
        if pack.is_empty() {
            return;
        }
        let capacity = Capacity::of(limits);
        if self.is_empty() && capacity.admits(pack.as_bytes().len(), pack.len()) {
            self.0 = pack.into();
            return;
        }
        self.make_quick().push_listpack(pack);
    }

    /// Makes sure that the representation can take one more element: beyond a node's capacity it is a deque.
    fn room_for(&mut self, element: &[u8], limits: &Limits) -> &mut Repr {
        if let Held::Pack(pack) = self.0.held()
            && !Capacity::of(limits).admits_more(pack, element)
        {
            self.make_quick();
        }
        &mut self.0
    }

    fn make_quick(&mut self) -> &mut Quick {
        if let HeldMut::Pack(pack) = self.0.held_mut() {
            let mut quick = Quick::default();
            let pack = std::mem::take(pack);
            if !pack.is_empty() {
                quick.push_listpack(pack);
            }
            self.0 = Large::new(quick).into();
        }
        match self.0.held_mut() {
            HeldMut::Quick(quick) => quick,
            HeldMut::Pack(_) => unreachable!("converted above"),
        }
    }
}

/// Elements in order.
pub struct Iter<'a> {
    items: IterRepr<'a>,
    left: usize,
    /// What stands in `items` behind the range; skipped only if someone asks from the back.
    behind: usize,
}

enum IterRepr<'a> {
    Pack(listpack::Iter<'a>),
    Quick(quick::Iter<'a>),
}

impl<'a> Iterator for Iter<'a> {
    type Item = Item<'a>;

    fn next(&mut self) -> Option<Item<'a>> {
        self.left = self.left.checked_sub(1)?;
        match &mut self.items {
            IterRepr::Pack(items) => items.next(),
            IterRepr::Quick(items) => items.next(),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl DoubleEndedIterator for Iter<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let skip = std::mem::take(&mut self.behind);
        match &mut self.items {
            IterRepr::Pack(items) => items.nth_back(skip),
            IterRepr::Quick(items) => items.nth_back(skip),
        }
    }
}

impl ExactSizeIterator for Iter<'_> {}

#[cfg(test)]
mod tests;
