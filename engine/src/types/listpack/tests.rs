use proptest::prelude::*;

use super::*;

fn texts(listpack: &Listpack) -> Vec<Vec<u8>> {
    listpack.iter().map(Item::to_vec).collect()
}

#[test]
fn bytes_are_those_of_the_ecosystem() {
    let mut listpack = Listpack::new();
    listpack.push_back(b"a");
    listpack.push_back(b"1");
    listpack.push_back(b"-1");
    listpack.push_back(b"4096");
    assert_eq!(
        listpack.as_bytes(),
        [20, 0, 0, 0, 4, 0, 0x81, b'a', 2, 1, 1, 0xdf, 0xff, 2, 0xf1, 0x00, 0x10, 3, 0xff]
            .iter()
            .copied()
            .enumerate()
            .map(|(i, byte)| if i == 0 { 19 } else { byte })
            .collect::<Vec<u8>>()
    );
}

#[test]
fn every_width_of_integer_and_length_survives() {
    let mut listpack = Listpack::new();
    let mut model = Vec::new();
    for shift in 0..64 {
        for value in
            [1i64 << shift, (1i64 << shift).wrapping_sub(1), (1i64 << shift).wrapping_neg()]
        {
            model.push(value.to_string().into_bytes());
        }
    }
    for len in [0, 1, 63, 64, 125, 126, 127, 4095, 4096, 16_380, 16_384, 2_097_200] {
        model.push(vec![b'x'; len]);
    }
    for element in &model {
        listpack.push_back(element);
    }
    assert_eq!(texts(&listpack), model);
    assert_eq!(validate(listpack.as_bytes()), Some(model.len()));
    let mut back: Vec<_> = listpack.iter().rev().map(Item::to_vec).collect();
    back.reverse();
    assert_eq!(back, model);
}

#[test]
fn more_elements_than_the_header_counts_are_counted() {
    let mut listpack = Listpack::new();
    for _ in 0..70_000 {
        listpack.push_back(b"1");
    }
    assert_eq!(listpack.len(), 70_000);
    assert_eq!(validate(listpack.as_bytes()), Some(70_000));
    listpack.remove(HEADER, 69_999);
    assert_eq!(listpack.len(), 1);
}

#[test]
fn a_backlen_that_lies_is_refused() {
    let mut listpack = Listpack::new();
    listpack.push_back(b"hello");
    listpack.push_back(b"world");
    let good = listpack.as_bytes().to_vec();
    for at in [HEADER + 6, good.len() - 2] {
        let mut bad = good.clone();
        bad[at] += 1;
        assert!(Listpack::from_bytes(&bad).is_none());
    }
    let mut wrong_count = good.clone();
    wrong_count[4] = 3;
    assert!(Listpack::from_bytes(&wrong_count).is_none());
    for cut in 0..good.len() {
        assert!(Listpack::from_bytes(&good[..cut]).is_none());
    }
}

fn element() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        any::<i64>().prop_map(|n| n.to_string().into_bytes()),
        (-200i64..200).prop_map(|n| n.to_string().into_bytes()),
        prop::collection::vec(any::<u8>(), 0..200),
        "[0-9]{1,3}".prop_map(String::into_bytes),
    ]
}

#[derive(Clone, Debug)]
enum Op {
    Insert(usize, Vec<u8>),
    Replace(usize, Vec<u8>),
    Remove(usize, usize),
    Split(usize),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (any::<usize>(), element()).prop_map(|(at, e)| Op::Insert(at, e)),
        2 => (any::<usize>(), element()).prop_map(|(at, e)| Op::Replace(at, e)),
        1 => (any::<usize>(), 0usize..4).prop_map(|(at, n)| Op::Remove(at, n)),
        1 => any::<usize>().prop_map(Op::Split),
    ]
}

proptest! {
    #[test]
    fn behaves_as_a_vector_of_strings(ops in prop::collection::vec(op(), 0..60)) {
        let mut listpack = Listpack::new();
        let mut model: Vec<Vec<u8>> = Vec::new();
        for op in ops {
            match op {
                Op::Insert(at, element) => {
                    let at = at % (model.len() + 1);
                    let position = listpack.seek(at).unwrap_or(listpack.end());
                    listpack.insert(position, &element);
                    model.insert(at, element);
                }
                Op::Replace(at, element) if !model.is_empty() => {
                    let at = at % model.len();
                    listpack.replace(listpack.seek(at).unwrap(), &element);
                    model[at] = element;
                }
                Op::Remove(at, count) if !model.is_empty() => {
                    let at = at % model.len();
                    listpack.remove(listpack.seek(at).unwrap(), count);
                    model.drain(at..(at + count).min(model.len()));
                }
                Op::Split(at) if !model.is_empty() => {
                    let at = at % model.len();
                    let tail = listpack.split_off(listpack.seek(at).unwrap());
                    prop_assert_eq!(texts(&tail), model[at..].to_vec());
                    prop_assert_eq!(validate(tail.as_bytes()), Some(model.len() - at));
                    listpack.append(&tail);
                }
                _ => {}
            }
            prop_assert_eq!(validate(listpack.as_bytes()), Some(model.len()));
            prop_assert_eq!(texts(&listpack), model.clone());
        }
        for (index, element) in model.iter().enumerate() {
            let found = listpack.find(HEADER, element, 1).unwrap();
            let first = model.iter().position(|other| other == element).unwrap();
            prop_assert_eq!(Some(found), listpack.seek(first));
            prop_assert_eq!(listpack.get(listpack.seek(index).unwrap()).to_vec(), element.clone());
        }
        prop_assert!(listpack.find(HEADER, b"no such element", 1).is_none());
    }

    #[test]
    fn a_flipped_bit_is_refused_or_still_well_formed(
        elements in prop::collection::vec(element(), 1..20), at: usize, bit in 0u8..8,
    ) {
        let mut listpack = Listpack::new();
        for element in &elements {
            listpack.push_back(element);
        }
        let mut bytes = listpack.as_bytes().to_vec();
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        if let Some(other) = Listpack::from_bytes(&bytes) {
            let forward = texts(&other);
            let mut back: Vec<_> = other.iter().rev().map(Item::to_vec).collect();
            back.reverse();
            prop_assert_eq!(forward, back);
        }
    }
}
