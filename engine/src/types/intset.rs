//! A sorted run of distinct integers.
//!
//! ```text
//! in memory            len u32le (a block's) | width u32le | integers in ascending order, little endian
//! the ecosystem's      width u32le | count u32le | the same
//! ```
//!
//! The width (2, 4 or 8) is that of the widest integer ever added.

use super::{block::Block, word::Tagged};

/// Of either form.
const HEADER: usize = 8;
/// Where the width stands behind the block's length, and the integers behind that.
const WIDTH: usize = 0;
const BODY: usize = 4;

/// A sorted run of distinct integers.
#[derive(Clone, PartialEq, Eq)]
#[repr(transparent)]
pub struct Intset(Bytes);

type Bytes = Block<2>;

// SAFETY: it is its block, and nothing else.
#[expect(unsafe_code, reason = "a block under another name")]
unsafe impl Tagged for Intset {
    const TAG: usize = Bytes::TAG;
}

impl Default for Intset {
    fn default() -> Self {
        Self::new()
    }
}

fn width_of(value: i64) -> usize {
    if i16::try_from(value).is_ok() {
        2
    } else if i32::try_from(value).is_ok() {
        4
    } else {
        8
    }
}

impl Intset {
    /// An empty set.
    pub fn new() -> Self {
        Self::with(2, &[])
    }

    fn with(width: usize, body: &[u8]) -> Self {
        let mut block = Block::new(HEADER + body.len());
        block.rest_mut()[WIDTH] = width as u8;
        block.rest_mut()[BODY..].copy_from_slice(body);
        Self(block)
    }

    /// Takes bytes of the ecosystem's format, if they are sorted, distinct, and as many as they say.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (header, body) = bytes.split_at_checked(HEADER)?;
        let width = u32::from_le_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let count = u32::from_le_bytes([header[4], header[5], header[6], header[7]]) as usize;
        if !matches!(width, 2 | 4 | 8) || count.checked_mul(width) != Some(body.len()) {
            return None;
        }
        let set = Self::with(width, body);
        let sorted = (1..count).all(|index| set.at(index - 1) < set.at(index));
        sorted.then_some(set)
    }

    /// The ecosystem's format, as RDB writes it.
    pub fn to_bytes(&self) -> Vec<u8> {
        let (width, count) = (self.width() as u32, self.len() as u32);
        [&width.to_le_bytes(), &count.to_le_bytes(), &self.0.as_bytes()[HEADER..]].concat()
    }

    /// How many integers there are.
    pub fn len(&self) -> usize {
        (self.0.len() - HEADER) / self.width()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.len() == HEADER
    }

    /// What the block takes from the allocator.
    pub fn memory_usage(&self) -> usize {
        self.0.capacity()
    }

    /// Whether the integer is in the set.
    pub fn contains(&self, value: i64) -> bool {
        self.search(value).is_ok()
    }

    /// The integer at an index, in ascending order.
    pub fn get(&self, index: usize) -> Option<i64> {
        (index < self.len()).then(|| self.at(index))
    }

    /// All integers in ascending order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = i64> + DoubleEndedIterator + '_ {
        (0..self.len()).map(|index| self.at(index))
    }

    /// Adds an integer; says whether it is new.
    pub fn add(&mut self, value: i64) -> bool {
        let Err(index) = self.search(value) else { return false };
        if width_of(value) > self.width() {
            self.widen(width_of(value));
        }
        let width = self.width();
        let place = self.0.splice(HEADER + index * width, 0, width);
        place.copy_from_slice(&value.to_le_bytes()[..width]);
        true
    }

    /// Removes an integer; says whether it was there.
    pub fn remove(&mut self, value: i64) -> bool {
        let Ok(index) = self.search(value) else { return false };
        let width = self.width();
        self.0.splice(HEADER + index * width, width, 0);
        true
    }

    fn width(&self) -> usize {
        usize::from(self.0.as_bytes()[HEADER - BODY])
    }

    fn at(&self, index: usize) -> i64 {
        let (bytes, width) = (self.0.as_bytes(), self.width());
        let data = &bytes[HEADER + index * width..HEADER + (index + 1) * width];
        match *data {
            [a, b] => i64::from(i16::from_le_bytes([a, b])),
            [a, b, c, d] => i64::from(i32::from_le_bytes([a, b, c, d])),
            _ => data.try_into().map(i64::from_le_bytes).unwrap_or_default(),
        }
    }

    fn search(&self, value: i64) -> Result<usize, usize> {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low.midpoint(high);
            match self.at(middle).cmp(&value) {
                std::cmp::Ordering::Equal => return Ok(middle),
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        Err(low)
    }

    fn widen(&mut self, width: usize) {
        let wide = self.iter().flat_map(|value| value.to_le_bytes().into_iter().take(width));
        *self = Self::with(width, &wide.collect::<Vec<u8>>());
    }
}

impl std::fmt::Debug for Intset {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bytes_are_those_of_the_ecosystem() {
        let mut set = Intset::new();
        set.add(5);
        set.add(-2);
        assert_eq!(set.to_bytes(), [2, 0, 0, 0, 2, 0, 0, 0, 0xfe, 0xff, 5, 0]);
        set.add(70_000);
        assert_eq!(set.to_bytes()[..8], [4, 0, 0, 0, 3, 0, 0, 0]);
    }

    #[test]
    fn unsorted_or_repeated_integers_are_refused() {
        for body in [[5, 0, 1, 0], [5, 0, 5, 0]] {
            let bytes = [&[2, 0, 0, 0, 2, 0, 0, 0], &body[..]].concat();
            assert!(Intset::from_bytes(&bytes).is_none());
        }
        assert!(Intset::from_bytes(&[2, 0, 0, 0, 255, 255, 255, 255, 1, 0]).is_none());
        assert!(Intset::from_bytes(&[3, 0, 0, 0, 0, 0, 0, 0]).is_none());
        assert!(Intset::from_bytes(&[2, 1, 0, 0, 0, 0, 0, 0]).is_none());
    }

    proptest! {
        #[test]
        fn behaves_as_an_ordered_set(
            values in prop::collection::vec(prop_oneof![-20i64..20, -40_000i64..40_000, any::<i64>()], 0..100),
            removed in prop::collection::vec(-20i64..20, 0..40),
        ) {
            let (mut set, mut model) = (Intset::new(), BTreeSet::new());
            for value in values {
                prop_assert_eq!(set.add(value), model.insert(value));
            }
            for value in removed {
                prop_assert_eq!(set.remove(value), model.remove(&value));
            }
            prop_assert_eq!(set.iter().collect::<Vec<_>>(), model.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!(Intset::from_bytes(&set.to_bytes()), Some(set));
        }
    }
}
