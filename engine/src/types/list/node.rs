//! One node of a long list, and how much fits in it.

use crate::types::listpack::{self, Front};
use crate::types::{Item, Limits, Listpack, size_class};

/// A node: many small elements, or a big one alone.
#[derive(Clone, Debug)]
pub(super) enum Node {
    Packed(Listpack),
    /// The first node of a list, while elements are pushed there.
    Front(Box<Front>),
    Plain(Box<Box<[u8]>>),
}

const _: () = assert!(size_of::<Node>() == 16);

/// A node as it is written to RDB.
#[derive(Clone, Copy, Debug)]
pub enum NodeRef<'a> {
    /// Many elements: a listpack.
    Packed(&'a [u8]),
    /// One element.
    Plain(&'a [u8]),
}

/// How much a node may hold.
pub(super) struct Capacity {
    bytes: usize,
    count: usize,
}

impl Capacity {
    pub(super) fn of(limits: &Limits) -> Self {
        match limits.list_max_listpack_size {
            size @ ..0 => {
                Self { bytes: 4096 << (size.unsigned_abs().min(5) - 1), count: usize::MAX }
            }
            // A count alone would let nodes grow with their elements.
            count => Self { bytes: 8192, count: count.max(1) as usize },
        }
    }

    pub(super) fn admits(&self, bytes: usize, count: usize) -> bool {
        bytes <= self.bytes && count <= self.count
    }

    #[inline]
    pub(super) fn admits_more(&self, pack: &Listpack, element: &[u8]) -> bool {
        self.admits_beside(pack.as_bytes().len(), pack.len(), element)
    }

    /// Whether so many elements of so many bytes leave room for one more.
    #[inline]
    pub(super) fn admits_beside(&self, bytes: usize, count: usize, element: &[u8]) -> bool {
        // Without measuring it, an element takes at most eleven bytes more than its text.
        self.admits(bytes + element.len() + 11, count + 1)
    }

    /// Whether an element is too big for any node.
    pub(super) fn is_big(&self, element: &[u8]) -> bool {
        element.len() + 18 > self.bytes
    }
}

impl Node {
    /// The first node of a list.
    pub(super) fn front(element: &[u8], capacity: &Capacity) -> Self {
        if capacity.is_big(element) {
            return Node::of(element, capacity);
        }
        Node::Front(Box::new(Front::of(element)))
    }

    /// Makes a plain listpack of one that grew at its front.
    pub(super) fn settle(&mut self) {
        if let Node::Front(front) = self {
            *self = Node::Packed(front.to_listpack());
        }
    }

    pub(super) fn of(element: &[u8], capacity: &Capacity) -> Self {
        if capacity.is_big(element) {
            return Node::Plain(Box::new(element.into()));
        }
        let mut pack = Listpack::new();
        pack.push_back(element);
        Node::Packed(pack)
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Node::Packed(pack) => pack.len(),
            Node::Front(front) => front.count(),
            Node::Plain(_) => 1,
        }
    }

    pub(super) fn memory_usage(&self) -> usize {
        match self {
            Node::Packed(pack) => pack.memory_usage(),
            Node::Front(front) => size_class(size_of::<Front>()) + front.memory_usage(),
            Node::Plain(bytes) => size_class(size_of::<Box<[u8]>>()) + size_class(bytes.len()),
        }
    }

    pub(super) fn get(&self, index: usize) -> Option<Item<'_>> {
        match self {
            Node::Packed(pack) => pack.seek(index).map(|at| pack.get(at)),
            Node::Front(front) => front.get(index),
            Node::Plain(bytes) => Some(Item::Bytes(bytes)),
        }
    }

    pub(super) fn iter(&self) -> Iter<'_> {
        match self {
            Node::Packed(pack) => Iter::Packed(pack.iter()),
            Node::Front(front) => Iter::Packed(front.iter()),
            Node::Plain(bytes) => Iter::Plain(Some(bytes)),
        }
    }

    /// Adds an element at an index, if the node has room.
    pub(super) fn try_insert(&mut self, at: usize, element: &[u8], capacity: &Capacity) -> bool {
        let Node::Packed(pack) = self else { return false };
        if !capacity.admits_more(pack, element) {
            return false;
        }
        let position = pack.seek(at).unwrap_or(pack.end());
        pack.insert(position, element);
        true
    }
}

/// Removes up to `limit` elements equal to `wanted`, from the front or from the back.
pub(super) fn remove_equal(
    pack: &mut Listpack,
    wanted: Item<'_>,
    limit: usize,
    from_back: bool,
) -> usize {
    let mut removed = 0;
    let mut at = if from_back { pack.last() } else { pack.first() };
    while let Some(position) = at {
        if removed == limit {
            break;
        }
        let hit = pack.get(position) == wanted;
        at = if from_back { pack.prev(position) } else { pack.next(position) };
        if hit {
            pack.remove(position, 1);
            removed += 1;
            if !from_back {
                at = (position < pack.end()).then_some(position);
            }
        }
    }
    removed
}

/// The elements of a node.
pub(super) enum Iter<'a> {
    Packed(listpack::Iter<'a>),
    Plain(Option<&'a [u8]>),
}

impl<'a> Iterator for Iter<'a> {
    type Item = Item<'a>;

    fn next(&mut self) -> Option<Item<'a>> {
        match self {
            Iter::Packed(items) => items.next(),
            Iter::Plain(bytes) => bytes.take().map(Item::Bytes),
        }
    }
}

impl DoubleEndedIterator for Iter<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        match self {
            Iter::Packed(items) => items.next_back(),
            Iter::Plain(bytes) => bytes.take().map(Item::Bytes),
        }
    }
}
