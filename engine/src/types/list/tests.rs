use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;
use crate::types::steps;

fn texts(list: &List) -> Vec<Vec<u8>> {
    list.iter().map(Item::to_vec).collect()
}

#[test]
fn encoding_follows_the_limit() {
    let limits = Limits { list_max_listpack_size: 3, ..Limits::default() };
    let mut list = List::new();
    for n in 0..3 {
        list.push_back(&[b'a' + n], &limits);
        assert_eq!(list.encoding(), "listpack");
    }
    list.push_front(b"z", &limits);
    assert_eq!(list.encoding(), "quicklist");
    let mut big = List::new();
    big.push_back(&vec![b'x'; 10_000], &Limits::default());
    assert_eq!(big.encoding(), "quicklist");
    assert!(matches!(big.nodes().next(), Some(NodeRef::Plain(_))));
}

#[test]
fn a_queue_of_a_million_elements_empties_in_order_and_gives_memory_back() {
    let limits = Limits::default();
    let mut list = List::new();
    for n in 0..1_000_000u32 {
        list.push_back(n.to_string().as_bytes(), &limits);
    }
    assert_eq!(list.len(), 1_000_000);
    assert_eq!(list.get(765_432).unwrap().as_i64(), Some(765_432));
    assert!(list.memory_usage() < 7_000_000, "{}", list.memory_usage());
    for n in 0..1_000_000u32 {
        assert_eq!(list.pop_front(), Some(n.to_string().into_bytes()));
    }
    assert!(list.is_empty());
    assert!(list.memory_usage() < 1000, "{}", list.memory_usage());
}

#[test]
fn a_long_list_takes_the_same_memory_whichever_end_it_grew_at() {
    let limits = Limits::default();
    for (len, count) in [(3usize, 100_000usize), (64, 20_000), (700, 2_000)] {
        let (mut front, mut back) = (List::new(), List::new());
        for n in 0..count {
            let element = format!("{n:0len$}");
            front.push_front(element.as_bytes(), &limits);
            back.push_back(element.as_bytes(), &limits);
        }
        // The first node's buffer may be empty yet, and is no longer than a node may be.
        let (front, back) = (front.memory_usage(), back.memory_usage());
        assert!(front.abs_diff(back) <= 8192 + back / 500, "{front} {back}");
    }
}

#[test]
fn a_list_of_a_few_nodes_takes_little_more_than_its_elements_where_it_grows_at_its_front() {
    let limits = Limits::default();
    let (mut list, mut bytes) = (List::new(), 0);
    for _ in 0..1000 {
        list.push_front(&[b'x'; 64], &limits);
        bytes += 67;
        assert!(list.memory_usage() <= 2 * bytes + 1100, "{} for {bytes}", list.memory_usage());
    }
}

/// The most steps that any of many pushes and pops takes, at each end of a list of so many elements.
fn most_steps(len: u32) -> [usize; 4] {
    let limits = Limits::default();
    let mut list = List::new();
    (0..len).for_each(|n| list.push_back(n.to_string().as_bytes(), &limits));
    let mut most = [0; 4];
    // Over the borders of several nodes, back and forth.
    for n in 0..20_000u32 {
        let element = n.to_string().into_bytes();
        let taken = [
            steps::of(|| list.push_front(&element, &limits)),
            steps::of(|| list.push_back(&element, &limits)),
        ];
        most = [most[0].max(taken[0]), most[1].max(taken[1]), most[2], most[3]];
    }
    for _ in 0..20_000u32 {
        let taken = [steps::of(|| list.pop_front()), steps::of(|| list.pop_back())];
        most = [most[0], most[1], most[2].max(taken[0]), most[3].max(taken[1])];
    }
    assert_eq!(list.len(), len as usize);
    most
}

#[test]
fn both_ends_take_no_more_steps_at_a_million_elements_than_at_ten() {
    let many = most_steps(1_000_000);
    assert_eq!(many, most_steps(10));
    assert!(many.iter().all(|steps| *steps <= 8), "{many:?}");
}

#[derive(Clone, Debug)]
enum Op {
    PushFront(Vec<u8>),
    PushBack(Vec<u8>),
    PopFront,
    PopBack,
    Set(usize, Vec<u8>),
    Insert(Vec<u8>, bool, Vec<u8>),
    InsertAt(usize, Vec<u8>),
    Remove(i64, Vec<u8>),
    Trim(usize, usize),
}

fn element() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        6 => (0u8..5).prop_map(|n| n.to_string().into_bytes()),
        2 => "[a-c]{0,40}".prop_map(String::into_bytes),
        1 => (4000usize..10_000).prop_map(|len| vec![b'x'; len]),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => element().prop_map(Op::PushFront),
        4 => element().prop_map(Op::PushBack),
        1 => Just(Op::PopFront),
        1 => Just(Op::PopBack),
        2 => (any::<usize>(), element()).prop_map(|(at, e)| Op::Set(at, e)),
        2 => (element(), any::<bool>(), element()).prop_map(|(p, b, e)| Op::Insert(p, b, e)),
        3 => (any::<usize>(), element()).prop_map(|(at, e)| Op::InsertAt(at, e)),
        1 => (-3i64..4, element()).prop_map(|(n, e)| Op::Remove(n, e)),
        1 => (0usize..4, 0usize..60).prop_map(|(a, b)| Op::Trim(a, b)),
    ]
}

fn apply_to_model(model: &mut VecDeque<Vec<u8>>, op: Op) {
    match op {
        Op::PushFront(element) => model.push_front(element),
        Op::PushBack(element) => model.push_back(element),
        Op::PopFront => drop(model.pop_front()),
        Op::PopBack => drop(model.pop_back()),
        Op::Set(at, element) => {
            if let Some(slot) = model.get_mut(at) {
                *slot = element;
            }
        }
        Op::Insert(pivot, behind, element) => {
            if let Some(at) = model.iter().position(|other| *other == pivot) {
                model.insert(at + usize::from(behind), element);
            }
        }
        Op::InsertAt(at, element) => model.insert(at, element),
        Op::Remove(count, element) => {
            let limit = if count == 0 { usize::MAX } else { count.unsigned_abs() as usize };
            let hits = model.iter().enumerate().filter(|(_, e)| **e == element).map(|(at, _)| at);
            let mut hits: Vec<usize> = hits.collect();
            if count < 0 {
                hits.reverse();
            }
            hits.truncate(limit);
            hits.sort_unstable();
            for at in hits.into_iter().rev() {
                model.remove(at);
            }
        }
        Op::Trim(from, to) => {
            let to = to.min(model.len());
            let from = from.min(to);
            *model = model.range(from..to).cloned().collect();
        }
    }
}

proptest! {
    #[test]
    fn behaves_as_a_deque(
        size in prop_oneof![Just(-2), Just(-1), Just(4), Just(1)],
        ops in prop::collection::vec(op(), 0..80),
    ) {
        let limits = Limits { list_max_listpack_size: size, ..Limits::default() };
        let (mut list, mut model) = (List::new(), VecDeque::new());
        for op in ops {
            let op = match op {
                Op::Set(at, e) => Op::Set(at % (model.len() + 1), e),
                Op::InsertAt(at, e) => Op::InsertAt(at % (model.len() + 1), e),
                other => other,
            };
            let before = model.len();
            apply_to_model(&mut model, op.clone());
            match op {
                Op::PushFront(e) => list.push_front(&e, &limits),
                Op::PushBack(e) => list.push_back(&e, &limits),
                Op::PopFront => prop_assert_eq!(list.pop_front().is_some(), before > 0),
                Op::PopBack => prop_assert_eq!(list.pop_back().is_some(), before > 0),
                Op::Set(at, e) => prop_assert_eq!(list.set(at, &e, &limits), at < before),
                Op::Insert(p, behind, e) => {
                    prop_assert_eq!(list.insert(&p, behind, &e, &limits), model.len() > before);
                }
                Op::InsertAt(at, e) => list.insert_at(at, &e, &limits),
                Op::Remove(n, e) => prop_assert_eq!(list.remove(n, &e), before - model.len()),
                Op::Trim(from, to) => list.trim(from..to),
            }
            prop_assert_eq!(list.len(), model.len());
            prop_assert_eq!(&texts(&list), &Vec::from(model.clone()));
            if let Held::Quick(quick) = list.0.held() {
                prop_assert!(quick.is_consistent());
                prop_assert!(quick.clone().is_consistent());
            }
        }
        for from in 0..model.len() {
            prop_assert_eq!(list.get(from).unwrap().to_vec(), model[from].clone());
            let range = from..(from + 7);
            let expected: Vec<_> = model.iter().skip(from).take(7).cloned().collect();
            let forward: Vec<_> = list.range(range.clone()).map(Item::to_vec).collect();
            let mut backward: Vec<_> = list.range(range).rev().map(Item::to_vec).collect();
            backward.reverse();
            prop_assert_eq!(&forward, &expected);
            prop_assert_eq!(&backward, &expected);
        }
    }
}
