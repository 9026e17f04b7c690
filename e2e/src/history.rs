//! Is what clients saw of a key possible for one register that does one thing at a time?
//!
//! A history is linearizable if each operation can be given a moment between its begin and its end such that every read
//! gives what the last write before it wrote. Where each write has a value of its own that is decided without a search
//! (Gibbons and Korach, "Testing Shared Memories", 1997): take a write together with the reads of its value. Let `f` be the first
//! end among them and `s` the last begin. If `f < s`, the register must have held the value all the time from `f` to `s` (a forward
//! zone); otherwise some moment between `s` and `f` is enough (a backward zone):
//!
//! ```text
//!   write a  |-----|                          read a     |---|        forward:  f --------- s
//!   write b              |------|   read b  |------------------|      backward:        s --- f
//! ```
//!
//! The history is linearizable if and only if no two forward zones overlap, no backward zone lies inside a forward one,
//! and no read ends before its write begins. A write of which nobody knows whether it happened ends at no time, and counts only if
//! somebody read it.

use std::collections::BTreeMap;

/// What a client asked for, and what it was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Each value is written once in a history.
    Write(String),
    /// What was read; nothing, if the key was not there.
    Read(Option<String>),
}

/// One operation on one key. Times are microseconds on one clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    pub key: String,
    pub action: Action,
    pub begin: u64,
    /// Nothing: the client does not know whether it happened. A read without an end tells nothing.
    pub end: Option<u64>,
}

/// The operations on one value: its write and its reads.
#[derive(Default)]
struct Value {
    write: Option<(u64, u64)>,
    reads: Vec<(u64, u64)>,
}

/// From when to when a register has held a value for sure (forward), or has held it at some moment (backward).
#[derive(Clone, Copy)]
struct Zone<'a> {
    from: u64,
    to: u64,
    value: Option<&'a str>,
}

/// Checks each key by itself. The error names a key and what of it cannot be.
pub fn check(history: &[Operation]) -> Result<(), String> {
    let mut keys: BTreeMap<&str, Vec<&Operation>> = BTreeMap::new();
    for operation in history {
        keys.entry(&operation.key).or_default().push(operation);
    }
    for (key, operations) in keys {
        register(&operations).map_err(|why| format!("{key}: {why}"))?;
    }
    Ok(())
}

fn register(operations: &[&Operation]) -> Result<(), String> {
    let (mut forward, mut backward) = (Vec::new(), Vec::new());
    for (value, seen) in values(operations)? {
        let Some(write) = seen.write else {
            return Err(format!("{} was read and never written", shown(value)));
        };
        let all = || seen.reads.iter().copied().chain([write]);
        if write.1 == u64::MAX && seen.reads.is_empty() {
            continue;
        }
        if let Some(read) = seen.reads.iter().find(|read| read.1 < write.0) {
            return Err(format!(
                "{} was read at {} and written from {}",
                shown(value),
                read.1,
                write.0
            ));
        }
        let first_end = all().map(|(_, end)| end).min().unwrap_or(u64::MAX);
        let last_begin = all().map(|(begin, _)| begin).max().unwrap_or(0);
        if first_end < last_begin {
            forward.push(Zone { from: first_end, to: last_begin, value });
        } else {
            backward.push(Zone { from: last_begin, to: first_end, value });
        }
    }
    forward.sort_by_key(|zone| zone.from);
    for pair in forward.windows(2) {
        if pair[0].to > pair[1].from {
            return Err(format!("both were there: {} and {}", told(&pair[0]), told(&pair[1])));
        }
    }
    for zone in &backward {
        // Forward zones do not overlap here, so only the last that begins before this one can hold it.
        let before = forward.partition_point(|other| other.from < zone.from);
        let around = before.checked_sub(1).and_then(|index| forward.get(index));
        if let Some(around) = around.filter(|around| zone.to < around.to) {
            return Err(format!("{} while all the time {}", told(zone), told(around)));
        }
    }
    Ok(())
}

/// The operations by value. Before everything the key is not there, as if that had been written.
fn values<'a>(operations: &[&'a Operation]) -> Result<BTreeMap<Option<&'a str>, Value>, String> {
    let mut values: BTreeMap<Option<&str>, Value> = BTreeMap::new();
    values.entry(None).or_default().write = Some((0, 0));
    for operation in operations {
        match (&operation.action, operation.end) {
            (Action::Write(value), end) => {
                let write = (operation.begin, end.unwrap_or(u64::MAX));
                let slot = &mut values.entry(Some(value)).or_default().write;
                if slot.replace(write).is_some() {
                    return Err(format!("{value} was written twice: this cannot be checked"));
                }
            }
            (Action::Read(value), Some(end)) => {
                values.entry(value.as_deref()).or_default().reads.push((operation.begin, end));
            }
            (Action::Read(_), None) => {}
        }
    }
    Ok(values)
}

fn shown(value: Option<&str>) -> &str {
    value.unwrap_or("(nothing)")
}

fn told(zone: &Zone) -> String {
    format!("{} from {} to {}", shown(zone.value), zone.from, zone.to)
}

#[cfg(test)]
mod unit {
    use super::*;

    fn write(value: &str, begin: u64, end: u64) -> Operation {
        let end = (end != u64::MAX).then_some(end);
        Operation { key: "k".into(), action: Action::Write(value.into()), begin, end }
    }

    fn read(value: &str, begin: u64, end: u64) -> Operation {
        let value = (!value.is_empty()).then(|| value.to_owned());
        Operation { key: "k".into(), action: Action::Read(value), begin, end: Some(end) }
    }

    #[test]
    fn one_after_the_other_is_possible() {
        check(&[
            read("", 1, 2),
            write("a", 3, 4),
            read("a", 5, 6),
            write("b", 7, 8),
            read("b", 9, 10),
        ])
        .unwrap();
    }

    #[test]
    fn a_lost_write_is_seen() {
        check(&[write("a", 1, 2), read("", 3, 4)]).unwrap_err();
        check(&[write("a", 1, 2), write("b", 3, 4), read("a", 5, 6)]).unwrap_err();
    }

    #[test]
    fn a_stale_read_is_seen() {
        check(&[write("a", 1, 2), write("b", 3, 9), read("b", 4, 5), read("a", 6, 7)]).unwrap_err();
        check(&[write("a", 1, 2), write("b", 3, 9), read("a", 4, 5), read("b", 6, 7)]).unwrap();
    }

    #[test]
    fn a_write_of_unknown_end_may_have_happened_or_not() {
        let unknown = write("b", 3, u64::MAX);
        check(&[write("a", 1, 2), unknown.clone(), read("a", 50, 60)]).unwrap();
        check(&[write("a", 1, 2), unknown.clone(), read("b", 50, 60)]).unwrap();
        check(&[write("a", 1, 2), unknown, read("b", 50, 60), read("a", 70, 80)]).unwrap_err();
    }

    #[test]
    fn what_nobody_wrote_is_seen() {
        check(&[read("a", 1, 2)]).unwrap_err();
        check(&[read("a", 1, 2), write("a", 3, 4)]).unwrap_err();
    }

    /// The same by trying every order: what the rule above must agree with.
    fn by_search(left: &[Operation], now: Option<&str>) -> bool {
        let sure = |o: &Operation| o.end.is_some();
        if !left.iter().any(sure) {
            return true;
        }
        (0..left.len()).any(|index| {
            let next = &left[index];
            // Nothing may go first that begins after another has ended.
            if left.iter().any(|other| other.end.is_some_and(|end| end < next.begin)) {
                return false;
            }
            let mut rest = left.to_vec();
            rest.remove(index);
            match &next.action {
                Action::Write(value) => by_search(&rest, Some(value)),
                Action::Read(value) => value.as_deref() == now && by_search(&rest, now),
            }
        })
    }

    #[test]
    fn the_rule_agrees_with_a_search_through_all_orders() {
        let mut state = 7u64;
        let mut random = move |below: u64| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        let (mut possible, mut impossible) = (0, 0);
        for _ in 0..20_000 {
            let mut times: Vec<u64> = (1..=12).collect();
            let mut history = Vec::new();
            let writes = 1 + random(3);
            for number in 0..writes + random(4) {
                let mut pick =
                    || times.remove(usize::try_from(random(times.len() as u64)).unwrap());
                let (one, other) = (pick(), pick());
                let (begin, end) = (one.min(other), one.max(other));
                history.push(if number < writes {
                    write(&number.to_string(), begin, if random(5) == 0 { u64::MAX } else { end })
                } else {
                    let value = random(writes + 1);
                    let value = if value == writes { String::new() } else { value.to_string() };
                    read(&value, begin, end)
                });
            }
            let expected = by_search(&history, None);
            assert_eq!(check(&history).is_ok(), expected, "{history:#?}");
            if expected { possible += 1 } else { impossible += 1 }
        }
        assert!(possible > 1000 && impossible > 1000, "{possible} and {impossible}");
    }
}
