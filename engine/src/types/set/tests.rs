use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn limits() -> Limits {
    Limits {
        set_max_intset_entries: 6,
        set_max_listpack_entries: 8,
        set_max_listpack_value: 20,
        ..Limits::default()
    }
}

#[test]
fn encoding_follows_the_limits() {
    let mut set = Set::new();
    for n in 0..6 {
        assert!(set.add(n.to_string().as_bytes(), &limits()));
    }
    assert_eq!(set.encoding(), "intset");
    let mut table = set.clone();
    table.add(b"6", &limits());
    assert_eq!(table.encoding(), "hashtable");
    set.add(b"text", &limits());
    assert_eq!(set.encoding(), "listpack");
    assert!(set.contains(b"3") && set.contains(b"text"));
    set.add(&[b'x'; 21], &limits());
    assert_eq!(set.encoding(), "hashtable");
    assert_eq!(set.len(), 8);
}

#[test]
fn short_members_of_a_large_set_take_less_than_forty_bytes_each() {
    let mut set = Set::new();
    for n in 0..200_000 {
        set.add(format!("member:{n}").as_bytes(), &Limits::default());
    }
    assert!(set.memory_usage() / 200_000 < 40, "{}", set.memory_usage() / 200_000);
}

proptest! {
    #[test]
    fn behaves_as_a_set(ops in prop::collection::vec((any::<bool>(), prop_oneof![3 => "[0-9]{1,2}", 1 => "[a-c]{0,30}"]), 0..120)) {
        let (mut set, mut model) = (Set::new(), BTreeSet::new());
        for (add, member) in ops {
            let member = member.into_bytes();
            if add {
                prop_assert_eq!(set.add(&member, &limits()), model.insert(member.clone()));
            } else {
                prop_assert_eq!(set.remove(&member), model.remove(&member));
            }
            prop_assert_eq!(set.contains(&member), model.contains(&member));
            prop_assert_eq!(set.len(), model.len());
        }
        prop_assert_eq!(set.iter().map(Item::to_vec).collect::<BTreeSet<_>>(), model.clone());
        let mut seen = BTreeSet::new();
        let mut cursor = 0;
        loop {
            cursor = set.scan(cursor, 3, |member| {
                seen.insert(member.to_vec());
            });
            if cursor == 0 {
                break;
            }
        }
        prop_assert_eq!(&seen, &model);
        if let Held::Table(table) = set.0.held() {
            prop_assert_eq!(table.member_bytes, table.dict.iter().map(Text::heap_size).sum::<usize>());
        }
        let mut state = 1u64;
        let mut entropy = || { state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1); state };
        while let Some(member) = set.pop_random(&mut entropy) {
            prop_assert!(model.remove(&member));
        }
        prop_assert!(model.is_empty());
    }
}
