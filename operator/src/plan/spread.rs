//! Where primaries are to be: spread over nodes, then over zones, with the fewest handovers.
//!
//! The measure of a placement is the sum of the squares of the primaries on each node, then the same of each
//! zone. A placement that has the least measure of all, and of those one that the fewest handovers lead to, is a
//! cheapest flow: each shard sends one unit to a node that has a member of it, each node to its zone, each zone
//! to the sink. The n-th unit through a node or zone costs 2n - 1 shares, so that n of them cost its square, and
//! a shard that changes its node costs one. Shards are added one after the other, each along the cheapest path,
//! which may lead back through what was placed before (successive shortest paths; Ahuja, Magnanti and Orlin,
//! "Network Flows", 9.7): that keeps the flow the cheapest one at every step.
//!
//! So each handover that is carried out makes the number of those that are left smaller by one, whatever else
//! it does to the measure on the way, and with none left there is nothing to do: nothing goes to and fro.

use std::collections::{BTreeMap, VecDeque};

/// A place that a primary may have.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) node: String,
    /// Empty: not known.
    pub(super) zone: String,
}

/// Where a shard's primary is, and where else it could be.
#[derive(Clone, Debug)]
pub(super) struct Choice {
    pub(super) now: Place,
    pub(super) others: Vec<Place>,
}

impl Choice {
    /// Each place once, in their order.
    fn places(&self) -> Vec<&Place> {
        let mut places: Vec<&Place> = self.others.iter().chain([&self.now]).collect();
        places.sort_unstable();
        places.dedup();
        places
    }
}

/// The measure of a placement: the less, the better spread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Measure {
    nodes: u64,
    zones: u64,
}

impl Measure {
    pub(super) fn of<'a>(primaries: impl Iterator<Item = &'a Place> + Clone) -> Self {
        fn squares<'a>(of: impl Iterator<Item = &'a str>) -> u64 {
            let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
            of.for_each(|name| *counts.entry(name).or_default() += 1);
            counts.values().map(|n| n * n).sum()
        }
        let nodes = squares(primaries.clone().map(|p| p.node.as_str()));
        Self { nodes, zones: squares(primaries.map(|p| p.zone.as_str())) }
    }
}

/// The handovers that lead to a placement of the least measure, in the order in which they are best made: the
/// shard, and where its primary goes.
pub(super) fn handovers(choices: &[Choice]) -> Vec<(usize, Place)> {
    let target = target(choices);
    let mut placed: Vec<&Place> = choices.iter().map(|c| &c.now).collect();
    let mut left: Vec<usize> = (0..choices.len()).filter(|s| placed[*s] != &target[*s]).collect();
    let mut out = Vec::with_capacity(left.len());
    while !left.is_empty() {
        let after = |shard: usize| {
            let place = |at: usize| if at == shard { &target[at] } else { placed[at] };
            let primaries: Vec<&Place> = (0..placed.len()).map(place).collect();
            Measure::of(primaries.iter().copied())
        };
        // Only the first one is carried out before all is looked at anew.
        let best =
            if out.is_empty() { (0..left.len()).min_by_key(|at| after(left[*at])) } else { None };
        let shard = left.remove(best.unwrap_or(0));
        placed[shard] = &target[shard];
        out.push((shard, target[shard].clone()));
    }
    out
}

/// The place of each shard's primary in the placement that is to be reached.
fn target(choices: &[Choice]) -> Vec<Place> {
    let mut flow = Flow::of(choices);
    for shard in 0..choices.len() {
        flow.add(shard);
    }
    let place = |(shard, choice): (usize, &Choice)| {
        let sent = flow.arcs_of[shard].iter().map(|arc| &flow.arcs[*arc]).find(|a| a.left == 0);
        let node = sent.and_then(|arc| flow.nodes.get(arc.to - choices.len()));
        node.cloned().unwrap_or_else(|| choice.now.clone())
    };
    choices.iter().enumerate().map(place).collect()
}

/// One way of an arc; the way back is its neighbour (index xor 1).
struct Arc {
    to: usize,
    left: u8,
    cost: i64,
}

/// Vertices are the shards, then the nodes, then the zones, then the sink.
struct Flow {
    arcs: Vec<Arc>,
    arcs_of: Vec<Vec<usize>>,
    nodes: Vec<Place>,
}

impl Flow {
    fn of(choices: &[Choice]) -> Self {
        let mut nodes: BTreeMap<&Place, i64> = BTreeMap::new();
        let mut zones: BTreeMap<&str, i64> = BTreeMap::new();
        for choice in choices {
            let places = choice.places();
            for place in &places {
                *nodes.entry(place).or_default() += 1;
            }
            places.iter().for_each(|p| *zones.entry(&p.zone).or_default() += 1);
        }
        let (shards, first_zone) = (choices.len(), choices.len() + nodes.len());
        let sink = first_zone + zones.len();
        let mut flow = Self {
            arcs: Vec::new(),
            arcs_of: (0..=sink).map(|_| Vec::new()).collect(),
            nodes: nodes.keys().map(|p| (*p).clone()).collect(),
        };
        let number = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        // All handovers together weigh less than one step of a zone's measure, and all zones' less than a node's.
        let of_zone = number(shards) + 1;
        let of_node = of_zone * (number(shards) * number(shards) + 1);
        for (shard, choice) in choices.iter().enumerate() {
            for place in choice.places() {
                let at = flow.nodes.binary_search(place).unwrap_or_default();
                flow.arc(shard, shards + at, i64::from(*place != choice.now));
            }
        }
        for (at, (place, most)) in nodes.iter().enumerate() {
            let zone = zones.keys().position(|z| *z == place.zone).unwrap_or_default();
            (0..*most)
                .for_each(|n| flow.arc(shards + at, first_zone + zone, (2 * n + 1) * of_node));
        }
        for (at, most) in zones.values().enumerate() {
            (0..*most).for_each(|n| flow.arc(first_zone + at, sink, (2 * n + 1) * of_zone));
        }
        flow
    }

    fn arc(&mut self, from: usize, to: usize, cost: i64) {
        let at = self.arcs.len();
        self.arcs.push(Arc { to, left: 1, cost });
        self.arcs.push(Arc { to: from, left: 0, cost: -cost });
        self.arcs_of[from].push(at);
        self.arcs_of[to].push(at + 1);
    }

    /// Sends the unit of one more shard along the cheapest path (Bellman and Ford, with a queue: ways back cost less
    /// than nothing).
    fn add(&mut self, shard: usize) {
        let size = self.arcs_of.len();
        let mut cost = vec![i64::MAX; size];
        let mut by: Vec<Option<usize>> = vec![None; size];
        let mut waits = vec![false; size];
        let mut queue = VecDeque::from([shard]);
        cost[shard] = 0;
        while let Some(vertex) = queue.pop_front() {
            waits[vertex] = false;
            for at in &self.arcs_of[vertex] {
                let arc = &self.arcs[*at];
                let through = cost[vertex] + arc.cost;
                if arc.left > 0 && through < cost[arc.to] {
                    cost[arc.to] = through;
                    by[arc.to] = Some(*at);
                    if !std::mem::replace(&mut waits[arc.to], true) {
                        queue.push_back(arc.to);
                    }
                }
            }
        }
        let mut vertex = size - 1;
        while let Some(at) = by[vertex] {
            self.arcs[at].left -= 1;
            self.arcs[at ^ 1].left += 1;
            vertex = self.arcs[at ^ 1].to;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn place(node: u8) -> Place {
        Place { node: format!("n{node}"), zone: format!("z{}", node % 3) }
    }

    fn choice(places: &[u8]) -> Choice {
        let others = places[1..].iter().map(|n| place(*n)).collect();
        Choice { now: place(places[0]), others }
    }

    fn measure(choices: &[Choice]) -> Measure {
        let primaries: Vec<&Place> = choices.iter().map(|c| &c.now).collect();
        Measure::of(primaries.iter().copied())
    }

    /// What becomes of a shard whose primary is handed over to this place.
    fn hand_over(choice: &mut Choice, to: Place) {
        let at = choice.others.iter().position(|p| *p == to);
        choice.others[at.expect("only to where a replica is")] = choice.now.clone();
        choice.now = to;
    }

    /// The least measure, and the fewest handovers to it, by trying all placements.
    fn by_trying(choices: &[Choice]) -> (Measure, usize) {
        let mut placements: Vec<(Vec<&Place>, usize)> = vec![(Vec::new(), 0)];
        for choice in choices {
            let of = |(placed, moved): &(Vec<_>, usize)| {
                let all = [&choice.now].into_iter().chain(&choice.others);
                let add = |place| {
                    let placed: Vec<&Place> = placed.iter().copied().chain([place]).collect();
                    (placed, moved + usize::from(*place != choice.now))
                };
                all.map(add).collect::<Vec<_>>()
            };
            placements = placements.iter().flat_map(of).collect();
        }
        let rate =
            |(placed, moved): &(Vec<&Place>, usize)| (Measure::of(placed.iter().copied()), *moved);
        placements.iter().map(rate).min().unwrap()
    }

    /// Hands over the first one, looks anew, until nothing is left.
    fn carry_out(mut choices: Vec<Choice>) -> Result<(Vec<Choice>, usize), TestCaseError> {
        let mut done = 0;
        let mut left = handovers(&choices);
        while let Some((shard, to)) = left.first().cloned() {
            hand_over(&mut choices[shard], to);
            done += 1;
            let next = handovers(&choices);
            prop_assert_eq!(
                next.len() + 1,
                left.len(),
                "each makes those that are left fewer by one"
            );
            left = next;
        }
        Ok((choices, done))
    }

    proptest! {
        #[test]
        fn every_placement_comes_to_rest_at_the_best_one_by_the_fewest_handovers(
            places in proptest::collection::vec(proptest::collection::vec(0..6u8, 1..4), 0..7)
        ) {
            let choices: Vec<Choice> = places.iter().map(|p| choice(p)).collect();
            let (best, fewest) = by_trying(&choices);
            let (after, done) = carry_out(choices)?;
            prop_assert_eq!(measure(&after), best);
            prop_assert_eq!(done, fewest);
        }

        #[test]
        fn so_do_many_shards_with_several_members_to_a_node(
            places in proptest::collection::vec(proptest::collection::vec(0..9u8, 1..5), 30..40)
        ) {
            let choices: Vec<Choice> = places.iter().map(|p| choice(p)).collect();
            let before = measure(&choices);
            let (after, done) = carry_out(choices)?;
            prop_assert!(done <= after.len());
            prop_assert_eq!(done > 0, measure(&after) < before);
        }
    }

    #[test]
    fn a_chain_of_handovers_is_found_where_no_single_one_helps() {
        // Two on n0; its shards can only go to n1, whose own one can go to n2.
        let choices = [choice(&[0, 1]), choice(&[0, 1]), choice(&[1, 2])];
        let named: Vec<_> = handovers(&choices).into_iter().map(|(s, p)| (s, p.node)).collect();
        assert_eq!(named, [(1, "n1".to_string()), (2, "n2".to_string())]);
    }

    #[test]
    fn among_nodes_with_as_many_the_zone_with_fewer_is_taken() {
        // n0 and n3 are in one zone.
        let choices = [choice(&[0]), choice(&[3, 4])];
        assert_eq!(handovers(&choices), [(1, place(4))]);
    }

    #[test]
    fn five_hundred_shards_are_looked_at_in_a_moment() {
        let node = |n: usize| u8::try_from(n % 200).unwrap();
        let choices: Vec<Choice> =
            (0..500).map(|n| choice(&[node(n / 7), node(n * 3 + 1), node(n * 5 + 2)])).collect();
        let wanted = handovers(&choices);
        assert!(wanted.len() > 300, "{}", wanted.len());
    }
}
