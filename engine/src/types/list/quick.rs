//! A long list: nodes in a deque. No node is empty.
//!
//! The first node grows at its front without moving what is in it, as long as elements come there; before it is changed in any
//! other way but by taking its first element, it is made a listpack like the others.
//!
//! How many elements each node has stands beside them, in a deque of its own: whoever looks for an index adds up numbers that
//! lie next to each other, and touches no node but the one that has it.

use std::{collections::VecDeque, ops::Range};

use super::node::{self, Capacity, Node, NodeRef};
use crate::types::{Item, Listpack, size_class, steps::step};

/// Counts that are added up before it is known whether the index is among them.
const AT_ONCE: usize = 16;

/// A list of so many times what its first node holds keeps that one's buffer: what is free in it is little beside the rest.
const KEEPS_BUFFER: usize = 16;

/// Elements of a node: its bytes are bounded, and each has two at least.
fn count(node: &Node) -> u32 {
    u32::try_from(node.len()).unwrap_or(u32::MAX)
}

fn total(counts: &[u32]) -> usize {
    counts.iter().map(|count| *count as usize).sum()
}

#[derive(Debug, Default)]
pub(super) struct Quick {
    nodes: VecDeque<Node>,
    /// Elements of each node.
    counts: VecDeque<u32>,
    len: usize,
    /// What the nodes own.
    node_bytes: usize,
    /// What the two deques take.
    frame_bytes: usize,
}

impl Clone for Quick {
    fn clone(&self) -> Self {
        let (nodes, counts) = (self.nodes.clone(), self.counts.clone());
        // A copy has no room to spare where the original may have.
        let node_bytes = nodes.iter().map(Node::memory_usage).sum();
        let mut quick = Self { nodes, counts, len: self.len, node_bytes, frame_bytes: 0 };
        quick.measure_frame();
        quick
    }
}

impl Quick {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    #[inline]
    pub(super) fn memory_usage(&self) -> usize {
        size_class(size_of::<Self>()) + self.frame_bytes + self.node_bytes
    }

    fn measure_frame(&mut self) {
        self.frame_bytes = size_class(self.nodes.capacity() * size_of::<Node>())
            + size_class(self.counts.capacity() * size_of::<u32>());
    }

    pub(super) fn nodes(&self) -> impl Iterator<Item = NodeRef<'_>> {
        self.nodes.iter().map(|node| match node {
            Node::Packed(pack) => NodeRef::Packed(pack.as_bytes()),
            Node::Front(front) => NodeRef::Packed(front.as_bytes()),
            Node::Plain(bytes) => NodeRef::Plain(bytes),
        })
    }

    pub(super) fn get(&self, index: usize) -> Option<Item<'_>> {
        let (node, within) = self.locate(index)?;
        self.nodes[node].get(within)
    }

    /// The elements from the start of the range to the end of its last node, and how many too many those are.
    pub(super) fn range(&self, range: Range<usize>) -> (Iter<'_>, usize) {
        let ends = (self.locate(range.start), range.end.checked_sub(1));
        let (Some((first, skip)), Some((last, upto))) =
            (ends.0, ends.1.and_then(|last| self.locate(last)))
        else {
            return (Iter::default(), 0);
        };
        let behind = self.nodes[last].len() - 1 - upto;
        let mut front = self.nodes[first].iter();
        if let Some(before) = skip.checked_sub(1) {
            front.nth(before);
        }
        let middle = self.nodes.range(first + 1..last + 1);
        (Iter { front: Some(front), middle: Some(middle), back: None }, behind)
    }

    pub(super) fn push_back(&mut self, element: &[u8], capacity: &Capacity) {
        self.len += 1;
        if let Some(last) = self.nodes.len().checked_sub(1)
            && let Node::Packed(pack) = &mut self.nodes[last]
            && capacity.admits_more(pack, element)
        {
            self.node_bytes -= pack.memory_usage();
            pack.push_back(element);
            self.node_bytes += pack.memory_usage();
            self.counts[last] += 1;
            return;
        }
        self.insert_node(self.nodes.len(), Node::of(element, capacity));
    }

    pub(super) fn push_front(&mut self, element: &[u8], capacity: &Capacity) {
        self.len += 1;
        match self.nodes.front_mut() {
            Some(Node::Front(front))
                if capacity.admits_beside(front.as_bytes().len(), front.count(), element) =>
            {
                let before = front.memory_usage();
                front.push(element);
                self.node_bytes += front.memory_usage() - before;
                self.counts[0] += 1;
                return;
            }
            Some(Node::Front(front)) => {
                if self.len > KEEPS_BUFFER * front.count() && !capacity.is_big(element) {
                    // Its buffer serves the next node.
                    let (full, before) = (front.to_listpack(), front.memory_usage());
                    front.begin(element);
                    self.node_bytes += front.memory_usage() - before;
                    self.counts[0] = 1;
                    return self.insert_node(1, Node::Packed(full));
                }
                self.settle(0);
            }
            Some(node) => {
                self.node_bytes -= node.memory_usage();
                let done = node.try_insert(0, element, capacity);
                self.node_bytes += node.memory_usage();
                if done {
                    self.counts[0] += 1;
                    return;
                }
            }
            None => {}
        }
        self.insert_node(0, Node::front(element, capacity));
    }

    /// Makes a node one that can be changed anywhere.
    fn settle(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        if let Node::Front(_) = node {
            self.node_bytes -= node.memory_usage();
            node.settle();
            self.node_bytes += node.memory_usage();
        }
    }

    pub(super) fn push_listpack(&mut self, pack: Listpack) {
        self.len += pack.len();
        self.insert_node(self.nodes.len(), Node::Packed(pack));
    }

    pub(super) fn pop_front(&mut self) -> Option<Vec<u8>> {
        let element = self.nodes.front()?.get(0)?.to_vec();
        self.remove_at(0, 0);
        Some(element)
    }

    pub(super) fn pop_back(&mut self) -> Option<Vec<u8>> {
        let last = self.nodes.len().checked_sub(1)?;
        let within = self.nodes[last].len() - 1;
        let element = self.nodes[last].get(within)?.to_vec();
        self.remove_at(last, within);
        Some(element)
    }

    pub(super) fn set(&mut self, index: usize, element: &[u8], capacity: &Capacity) {
        let Some((at, within)) = self.locate(index) else { return };
        self.settle(at);
        if let Node::Packed(pack) = &mut self.nodes[at]
            && let Some(position) = pack.seek(within)
            && capacity.admits_more(pack, element)
        {
            self.node_bytes -= pack.memory_usage();
            pack.replace(position, element);
            self.node_bytes += pack.memory_usage();
            return;
        }
        self.remove_at(at, within);
        self.insert(index, element, capacity);
    }

    /// Puts an element at an index, which is at most the length.
    pub(super) fn insert(&mut self, index: usize, element: &[u8], capacity: &Capacity) {
        if index == 0 {
            return self.push_front(element, capacity);
        }
        let Some((at, within)) = self.locate(index) else {
            return self.push_back(element, capacity);
        };
        self.len += 1;
        if self.change(at, |node| node.try_insert(within, element, capacity)) {
            return;
        }
        if within == 0 {
            // Between two nodes: the one before may have room.
            let before = at.checked_sub(1);
            let fits = before.is_some_and(|before| {
                let end = self.nodes[before].len();
                self.change(before, |node| node.try_insert(end, element, capacity))
            });
            if !fits {
                self.insert_node(at, Node::of(element, capacity));
            }
            return;
        }
        let mut tail = None;
        self.change(at, |node| {
            if let Node::Packed(pack) = node {
                tail = pack.seek(within).map(|position| pack.split_off(position));
            }
            true
        });
        if let Some(tail) = tail {
            self.insert_node(at + 1, Node::Packed(tail));
        }
        if !self.change(at, |node| node.try_insert(within, element, capacity)) {
            self.insert_node(at + 1, Node::of(element, capacity));
        }
    }

    pub(super) fn remove_equal(
        &mut self,
        wanted: Item<'_>,
        limit: usize,
        from_back: bool,
    ) -> usize {
        let mut removed = 0;
        let mut at = if from_back { self.nodes.len() } else { 0 };
        while removed < limit {
            if from_back {
                if at == 0 {
                    break;
                }
                at -= 1;
            } else if at == self.nodes.len() {
                break;
            }
            let mut here = 0;
            self.change(at, |node| {
                here = match node {
                    Node::Packed(pack) => {
                        node::remove_equal(pack, wanted, limit - removed, from_back)
                    }
                    Node::Plain(bytes) => usize::from(wanted.is(bytes)),
                    Node::Front(_) => unreachable!("settled by `change`"),
                };
                true
            });
            let emptied = match &self.nodes[at] {
                Node::Packed(pack) => pack.is_empty(),
                Node::Plain(_) | Node::Front(_) => here > 0,
            };
            removed += here;
            if emptied {
                self.remove_node(at);
            } else if !from_back {
                at += 1;
            }
        }
        self.len -= removed;
        removed
    }

    pub(super) fn drop_front(&mut self, mut count: usize) {
        while let Some(len) = self.nodes.front().map(Node::len)
            && count > 0
        {
            let here = count.min(len);
            count -= here;
            self.len -= here;
            if here == len {
                self.remove_node(0);
            } else {
                self.drop_within(0, 0, here);
            }
        }
    }

    pub(super) fn drop_back(&mut self, mut count: usize) {
        while let Some(len) = self.nodes.back().map(Node::len)
            && count > 0
        {
            let (here, last) = (count.min(len), self.nodes.len() - 1);
            count -= here;
            self.len -= here;
            if here == len {
                self.remove_node(last);
            } else {
                self.drop_within(last, len - here, here);
            }
        }
    }

    /// The node that holds an index, and the index within it; walks from the nearer end.
    fn locate(&self, index: usize) -> Option<(usize, usize)> {
        if index >= self.len {
            return None;
        }
        let (front, back) = self.counts.as_slices();
        let (mut left, mut at) = (index, 0);
        if index <= self.len / 2 {
            for part in front.chunks(AT_ONCE).chain(back.chunks(AT_ONCE)) {
                step();
                let sum = total(part);
                if left >= sum {
                    (left, at) = (left - sum, at + part.len());
                    continue;
                }
                for count in part {
                    let Some(rest) = left.checked_sub(*count as usize) else {
                        return Some((at, left));
                    };
                    (left, at) = (rest, at + 1);
                }
            }
            return None;
        }
        // Behind it, itself included.
        (left, at) = (self.len - index, self.nodes.len());
        for part in back.rchunks(AT_ONCE).chain(front.rchunks(AT_ONCE)) {
            step();
            let sum = total(part);
            if left > sum {
                (left, at) = (left - sum, at - part.len());
                continue;
            }
            for count in part.iter().rev() {
                at -= 1;
                let count = *count as usize;
                if left <= count {
                    return Some((at, count - left));
                }
                left -= count;
            }
        }
        None
    }

    fn change(&mut self, at: usize, change: impl FnOnce(&mut Node) -> bool) -> bool {
        self.settle(at);
        let node = &mut self.nodes[at];
        self.node_bytes -= node.memory_usage();
        let done = change(node);
        self.node_bytes += node.memory_usage();
        self.counts[at] = count(node);
        done
    }

    fn insert_node(&mut self, at: usize, node: Node) {
        self.node_bytes += node.memory_usage();
        self.counts.insert(at, count(&node));
        self.nodes.insert(at, node);
        self.measure_frame();
    }

    fn remove_node(&mut self, at: usize) {
        if let Some(node) = self.nodes.remove(at) {
            self.node_bytes -= node.memory_usage();
        }
        self.counts.remove(at);
        if self.nodes.len() * 4 < self.nodes.capacity() {
            self.nodes.shrink_to(self.nodes.len() * 2);
            self.counts.shrink_to(self.nodes.len() * 2);
            self.measure_frame();
        }
    }

    fn remove_at(&mut self, at: usize, within: usize) {
        self.len -= 1;
        match &mut self.nodes[at] {
            node if node.len() == 1 => self.remove_node(at),
            Node::Front(front) if within == 0 => {
                front.drop_first();
                self.counts[at] -= 1;
            }
            _ => self.drop_within(at, within, 1),
        }
    }

    fn drop_within(&mut self, at: usize, from: usize, count: usize) {
        self.change(at, |node| {
            if let Node::Packed(pack) = node
                && let Some(position) = pack.seek(from)
            {
                pack.remove(position, count);
            }
            true
        });
    }
}

/// The elements between two places.
#[derive(Default)]
pub(super) struct Iter<'a> {
    front: Option<node::Iter<'a>>,
    middle: Option<std::collections::vec_deque::Iter<'a, Node>>,
    back: Option<node::Iter<'a>>,
}

impl<'a> Iterator for Iter<'a> {
    type Item = Item<'a>;

    fn next(&mut self) -> Option<Item<'a>> {
        loop {
            if let Some(item) = self.front.as_mut().and_then(Iterator::next) {
                return Some(item);
            }
            match self.middle.as_mut().and_then(Iterator::next) {
                Some(node) => self.front = Some(node.iter()),
                None => return self.back.as_mut()?.next(),
            }
        }
    }
}

impl DoubleEndedIterator for Iter<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(item) = self.back.as_mut().and_then(DoubleEndedIterator::next_back) {
                return Some(item);
            }
            match self.middle.as_mut().and_then(DoubleEndedIterator::next_back) {
                Some(node) => self.back = Some(node.iter()),
                None => return self.front.as_mut()?.next_back(),
            }
        }
    }
}

#[cfg(test)]
impl Quick {
    /// Whether the counters agree with the nodes.
    pub(super) fn is_consistent(&self) -> bool {
        self.len == self.nodes.iter().map(Node::len).sum::<usize>()
            && self.node_bytes == self.nodes.iter().map(Node::memory_usage).sum::<usize>()
            && self.nodes.iter().map(count).eq(self.counts.iter().copied())
            && self.nodes.iter().all(|node| node.len() > 0)
            && self.nodes.iter().skip(1).all(|node| !matches!(node, Node::Front(_)))
            && self.frame_bytes
                == size_class(self.nodes.capacity() * size_of::<Node>())
                    + size_class(self.counts.capacity() * size_of::<u32>())
    }
}
