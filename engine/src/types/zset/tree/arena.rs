//! Nodes named by number; a number is used again after its node is gone.

use std::ops::{Index, IndexMut};

use crate::types::{size_class, steps::step};

pub(super) struct Arena<T> {
    nodes: Vec<Option<Box<T>>>,
    free: Vec<u32>,
    /// What the nodes take, and the lists of them and of what is free.
    bytes: usize,
}

impl<T> Default for Arena<T> {
    fn default() -> Self {
        Self { nodes: Vec::new(), free: Vec::new(), bytes: 0 }
    }
}

impl<T: Clone> Clone for Arena<T> {
    fn clone(&self) -> Self {
        let mut arena = Self { nodes: self.nodes.clone(), free: self.free.clone(), bytes: 0 };
        arena.measure();
        arena
    }
}

impl<T> Arena<T> {
    pub(super) fn insert(&mut self, node: T) -> u32 {
        let node = Some(Box::new(node));
        let id = match self.free.pop() {
            Some(id) => {
                self.nodes[id as usize] = node;
                id
            }
            None => {
                self.nodes.push(node);
                (self.nodes.len() - 1) as u32
            }
        };
        self.measure();
        id
    }

    pub(super) fn remove(&mut self, id: u32) {
        self.nodes[id as usize] = None;
        self.free.push(id);
        self.measure();
    }

    #[inline]
    pub(super) fn memory_usage(&self) -> usize {
        self.bytes
    }

    fn measure(&mut self) {
        self.bytes = (self.nodes.len() - self.free.len()) * size_class(size_of::<T>())
            + size_class(self.nodes.capacity() * size_of::<Option<Box<T>>>())
            + size_class(self.free.capacity() * size_of::<u32>());
    }
}

impl<T> Index<u32> for Arena<T> {
    type Output = T;

    fn index(&self, id: u32) -> &T {
        step();
        self.nodes[id as usize].as_deref().expect("nodes name live nodes only")
    }
}

impl<T> IndexMut<u32> for Arena<T> {
    fn index_mut(&mut self, id: u32) -> &mut T {
        step();
        self.nodes[id as usize].as_deref_mut().expect("nodes name live nodes only")
    }
}
