use super::*;

impl Tree {
    /// Walks the whole tree: counts, lowest entries, links and order all agree. Gives the entries.
    fn check(&self) -> Vec<Entry> {
        let mut leaves = Vec::new();
        self.check_node(self.root, self.height, &mut leaves);
        let mut entries = Vec::new();
        for (index, &id) in leaves.iter().enumerate() {
            let leaf = &self.leaves[id];
            assert_eq!(leaf.prev, index.checked_sub(1).map_or(NONE, |before| leaves[before]));
            assert_eq!(leaf.next, leaves.get(index + 1).copied().unwrap_or(NONE));
            entries.extend((0..leaf.len()).map(|at| leaf.get(at)));
        }
        entries
    }

    fn check_node(&self, id: u32, level: usize, leaves: &mut Vec<u32>) -> (Entry, u32) {
        if level == 0 {
            leaves.push(id);
            let leaf = &self.leaves[id];
            assert!(leaf.len() > 0 || self.height == 0);
            return (leaf.get(0), leaf.len() as u32);
        }
        let inner = &self.inners[id];
        for at in 0..inner.len() {
            let (first, count) = self.check_node(inner.child(at), level - 1, leaves);
            assert_eq!((inner.entry(at), inner.count(at)), (first, count));
        }
        (inner.first(), inner.total())
    }
}

/// A small generator, so that each run is the same.
fn numbers(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed;
    move || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 33
    }
}

#[test]
fn random_changes_keep_every_invariant_and_agree_with_an_ordered_set() {
    for seed in 0..4 {
        let mut next = numbers(seed);
        let mut slab = Slab::default();
        let mut tree = Tree::build(&[]);
        let mut model: indexset::BTreeSet<(u64, Vec<u8>, u32)> = indexset::BTreeSet::new();
        // Grows to some thousands, then shrinks to nothing, with few or many equal scores.
        let spread = [1, 10, 1000, u64::MAX][seed as usize];
        for round in 0..24_000u64 {
            let growing = if round < 12_000 { next() % 10 < 8 } else { next() % 10 < 2 };
            if growing {
                let score = next() % spread;
                let member = format!("m{}", next()).into_bytes();
                let id = slab.insert(&member, score as f64);
                tree.insert((score as f64, id), &slab);
                model.insert((score, member, id));
            } else if !model.is_empty() {
                let rank = next() as usize % model.len();
                let (score, member, id) = model.pop_index(rank);
                let cursor = tree.seek(rank).unwrap();
                assert_eq!(tree.get(cursor), Some((score as f64, id)));
                let rank_of = tree
                    .rank_where(|other| compare_entries(other, (score as f64, id), &slab).is_lt());
                assert_eq!(rank_of, rank, "{member:?}");
                tree.remove((score as f64, id), &slab);
                slab.remove(id);
            }
            if round % 1000 == 999 {
                let expected: Vec<Entry> =
                    model.iter().map(|(score, _, id)| (*score as f64, *id)).collect();
                assert_eq!(tree.check(), expected);
            }
        }
    }
}

#[test]
fn entries_in_order_fill_their_leaves_either_way_round() {
    let mut slab = Slab::default();
    let mut tree = Tree::build(&[]);
    for n in 0..20_000 {
        let id = slab.insert(b"x", f64::from(n));
        tree.insert((f64::from(n), id), &slab);
    }
    assert_eq!(tree.check().len(), 20_000);
    assert!(tree.memory_usage() < 20_000 * 14, "{}", tree.memory_usage());
    let mut falling = Tree::build(&[]);
    for n in (0..20_000).rev() {
        falling.insert((f64::from(n), n as u32), &slab);
    }
    assert_eq!(falling.check().len(), 20_000);
    for n in 0..20_000 {
        falling.remove((f64::from(n), n as u32), &slab);
    }
    assert!(falling.check().is_empty());
}

#[test]
fn a_tree_built_at_once_is_sound_and_walks_both_ways() {
    for count in [0, 1, 63, 64, 5000, 50_000] {
        let entries: Vec<Entry> = (0..count).map(|n| (f64::from(n), n as u32)).collect();
        let tree = Tree::build(&entries);
        assert_eq!(tree.check(), entries);
        let mut at = tree.seek(0);
        let mut forward = Vec::new();
        while let Some(cursor) = at {
            forward.extend(tree.get(cursor));
            at = tree.after(cursor);
        }
        assert_eq!(forward, entries);
        let mut at = entries.len().checked_sub(1).and_then(|last| tree.seek(last));
        for entry in entries.iter().rev() {
            assert_eq!(tree.get(at.unwrap()), Some(*entry));
            at = tree.before(at.unwrap());
        }
        assert!(at.is_none());
        assert!(tree.seek(entries.len()).is_none());
    }
}
