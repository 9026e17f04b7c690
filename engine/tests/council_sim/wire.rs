//! The wires between members: what is lost, doubled, late or cut off on its way.

use std::collections::BTreeMap;

use engine::council::rng::Rng;

/// The longest delay of most messages in good weather, microseconds.
const GOOD_DELAY_US: u64 = 2_000;

/// How bad all wires are, and which of them are cut in which direction until when.
pub(crate) struct Wires {
    loss_permille: u64,
    duplicate_permille: u64,
    delay_max_us: u64,
    cuts: BTreeMap<(usize, usize), u64>,
}

impl Wires {
    pub(crate) fn good() -> Self {
        Self::bad(0, 0, GOOD_DELAY_US)
    }

    pub(crate) fn bad(loss_permille: u64, duplicate_permille: u64, delay_max_us: u64) -> Self {
        Self { loss_permille, duplicate_permille, delay_max_us, cuts: BTreeMap::new() }
    }

    pub(crate) fn doubles(&self, rng: &mut Rng) -> bool {
        rng.chance(self.duplicate_permille, 1000)
    }

    pub(crate) fn loses(&self, rng: &mut Rng) -> bool {
        rng.chance(self.loss_permille, 1000)
    }

    pub(crate) fn delay_us(&self, rng: &mut Rng) -> u64 {
        let slow = rng.chance(1, 50);
        100 + rng.below(if slow { self.delay_max_us * 4 } else { self.delay_max_us })
    }

    /// Nothing gets from one to the other until then.
    pub(crate) fn cut(&mut self, from: usize, to: usize, until_us: u64) {
        let entry = self.cuts.entry((from, to)).or_default();
        *entry = (*entry).max(until_us);
    }

    pub(crate) fn is_cut(&self, from: usize, to: usize, now_us: u64) -> bool {
        self.cuts.get(&(from, to)).is_some_and(|until| *until > now_us)
    }
}
