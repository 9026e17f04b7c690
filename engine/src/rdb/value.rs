//! Values of each type, read into their final form.

use std::io::Read;

use super::{Error, ErrorKind, Value, input::Input, stream, types, ziplist};
use crate::{
    number,
    types::{
        Collection, Digits, Hash, Intset, Item, Limits, List, Listpack, Set, ZSet, hash::NEVER,
    },
};

/// Reads a value; nothing for a collection without elements, which older versions could write.
pub(super) fn read<R: Read>(
    input: &mut Input<R>,
    kind: u8,
    version: u32,
    limits: &Limits,
) -> Result<Option<Value>, Error> {
    if !types::is_known(kind, version) {
        return Err(input.error(ErrorKind::Unsupported(types::name(kind))));
    }
    let collection: Collection = match kind {
        types::STRING => return Ok(Some(Value::String(input.string()?))),
        types::LIST => list(input, limits)?.into(),
        types::LIST_ZIPLIST => list_of_ziplists(input, 1, limits)?.into(),
        types::LIST_QUICKLIST => {
            let nodes = input.length()?;
            list_of_ziplists(input, nodes, limits)?.into()
        }
        types::LIST_QUICKLIST_2 => list_of_listpacks(input, limits)?.into(),
        types::SET => set(input, limits)?.into(),
        types::SET_INTSET => match Intset::from_bytes(&input.string()?) {
            Some(ints) => Set::from_intset(ints, limits).into(),
            None => return input.corrupt("an intset that is not sorted or not whole"),
        },
        types::SET_LISTPACK => {
            let pack = listpack(input)?;
            checked(input, Set::from_listpack(pack, limits), "a set with a repeated member")?.into()
        }
        types::HASH => hash(input, limits)?.into(),
        types::HASH_ZIPMAP => hash_of_zipmap(input, limits)?.into(),
        types::HASH_ZIPLIST => hash_of_ziplist(input, limits)?.into(),
        types::HASH_LISTPACK => {
            let pack = listpack(input)?;
            checked(input, Hash::from_listpack(pack, limits), REPEATED_FIELD)?.into()
        }
        types::HASH_2 => hash_with_times(input, limits)?.into(),
        types::HASH_METADATA => hash_with_delays(input, limits)?.into(),
        types::HASH_LISTPACK_EX => hash_of_listpack_with_times(input, limits)?.into(),
        types::ZSET | types::ZSET_2 => zset(input, kind, limits)?.into(),
        types::ZSET_ZIPLIST => zset_of_ziplist(input, limits)?.into(),
        types::ZSET_LISTPACK => {
            let pack = listpack(input)?;
            checked(input, ZSet::from_listpack(pack, limits), BAD_ZSET)?.into()
        }
        types::STREAM | types::STREAM_2 | types::STREAM_3 => stream::read(input, kind)?.into(),
        other => return Err(input.error(ErrorKind::Unsupported(types::name(other)))),
    };
    Ok((!collection.is_empty()).then(|| Value::Collection(collection)))
}

const REPEATED_FIELD: &str = "a hash with a repeated field or a field without value";
const BAD_ZSET: &str =
    "a sorted set with a repeated member, a wrong order or a score that is no number";
const BAD_ZIPLIST: &str = "a ziplist that is not well formed";

fn checked<R: Read, T>(input: &Input<R>, value: Option<T>, what: &'static str) -> Result<T, Error> {
    value.ok_or_else(|| input.error(ErrorKind::Corrupt(what)))
}

pub(super) fn listpack<R: Read>(input: &mut Input<R>) -> Result<Listpack, Error> {
    let bytes = input.string()?;
    checked(input, Listpack::from_bytes(&bytes), "a listpack that is not well formed")
}

fn list<R: Read>(input: &mut Input<R>, limits: &Limits) -> Result<List, Error> {
    let mut list = List::new();
    for _ in 0..input.length()? {
        list.push_back(&input.string()?, limits);
    }
    Ok(list)
}

fn list_of_ziplists<R: Read>(
    input: &mut Input<R>,
    nodes: u64,
    limits: &Limits,
) -> Result<List, Error> {
    let mut list = List::new();
    for _ in 0..nodes {
        let bytes = input.string()?;
        for item in checked(input, ziplist::elements(&bytes), BAD_ZIPLIST)? {
            list.push_back(item.bytes(&mut Digits::new()), limits);
        }
    }
    Ok(list)
}

fn list_of_listpacks<R: Read>(input: &mut Input<R>, limits: &Limits) -> Result<List, Error> {
    let mut list = List::new();
    for _ in 0..input.length()? {
        match input.length()? {
            1 => list.push_back(&input.string()?, limits),
            2 => list.push_listpack(listpack(input)?, limits),
            _ => return input.corrupt("a list node that is neither plain nor packed"),
        }
    }
    Ok(list)
}

fn set<R: Read>(input: &mut Input<R>, limits: &Limits) -> Result<Set, Error> {
    let mut set = Set::new();
    for _ in 0..input.length()? {
        if !set.add(&input.string()?, limits) {
            return input.corrupt("a set with a repeated member");
        }
    }
    Ok(set)
}

fn hash<R: Read>(input: &mut Input<R>, limits: &Limits) -> Result<Hash, Error> {
    let mut hash = Hash::new();
    for _ in 0..input.length()? {
        let (field, value) = (input.string()?, input.string()?);
        if !hash.set(&field, &value, limits) {
            return input.corrupt(REPEATED_FIELD);
        }
    }
    Ok(hash)
}

/// Sets a field that goes at a time; one that is there already is refused.
fn set_until<R: Read>(
    input: &Input<R>,
    hash: &mut Hash,
    pair: (&[u8], &[u8]),
    time: i64,
    limits: &Limits,
) -> Result<(), Error> {
    // A time before all time is over as the first one is.
    if !hash.set_until(pair.0, pair.1, time.max(0), limits) {
        return input.corrupt(REPEATED_FIELD);
    }
    Ok(())
}

fn hash_with_times<R: Read>(input: &mut Input<R>, limits: &Limits) -> Result<Hash, Error> {
    let mut hash = Hash::new();
    for _ in 0..input.length()? {
        let (field, value) = (input.string()?, input.string()?);
        let time = i64::from_le_bytes(input.array()?);
        let time = if time == -1 { NEVER } else { time };
        set_until(input, &mut hash, (&field, &value), time, limits)?;
    }
    Ok(hash)
}

fn hash_with_delays<R: Read>(input: &mut Input<R>, limits: &Limits) -> Result<Hash, Error> {
    let first = i64::from_le_bytes(input.array()?);
    let mut hash = Hash::new();
    for _ in 0..input.length()? {
        let delay = i64::try_from(input.length()?).unwrap_or(i64::MAX);
        let (field, value) = (input.string()?, input.string()?);
        let time = if delay == 0 { NEVER } else { first.saturating_add(delay - 1) };
        set_until(input, &mut hash, (&field, &value), time, limits)?;
    }
    Ok(hash)
}

fn hash_of_listpack_with_times<R: Read>(
    input: &mut Input<R>,
    limits: &Limits,
) -> Result<Hash, Error> {
    let _first: [u8; 8] = input.array()?;
    let pack = listpack(input)?;
    let mut hash = Hash::new();
    let (mut f, mut v) = (Digits::new(), Digits::new());
    let mut items = pack.iter();
    while let Some(field) = items.next() {
        let (Some(value), Some(time)) = (items.next(), items.next().and_then(Item::as_i64)) else {
            return input.corrupt(REPEATED_FIELD);
        };
        let time = if time == 0 { NEVER } else { time };
        set_until(input, &mut hash, (field.bytes(&mut f), value.bytes(&mut v)), time, limits)?;
    }
    Ok(hash)
}

fn hash_of_zipmap<R: Read>(input: &mut Input<R>, limits: &Limits) -> Result<Hash, Error> {
    let bytes = input.string()?;
    let items = checked(input, ziplist::zipmap(&bytes), "a zipmap that is not well formed")?;
    let mut hash = Hash::new();
    for pair in items.chunks_exact(2) {
        if !hash.set(pair[0], pair[1], limits) {
            return input.corrupt(REPEATED_FIELD);
        }
    }
    Ok(hash)
}

fn hash_of_ziplist<R: Read>(input: &mut Input<R>, limits: &Limits) -> Result<Hash, Error> {
    let bytes = input.string()?;
    let items = checked(input, ziplist::elements(&bytes), BAD_ZIPLIST)?;
    let mut hash = Hash::new();
    let (mut f, mut v) = (Digits::new(), Digits::new());
    for pair in items.chunks(2) {
        let [field, value] = pair else { return input.corrupt(REPEATED_FIELD) };
        if !hash.set(field.bytes(&mut f), value.bytes(&mut v), limits) {
            return input.corrupt(REPEATED_FIELD);
        }
    }
    Ok(hash)
}

fn zset<R: Read>(input: &mut Input<R>, kind: u8, limits: &Limits) -> Result<ZSet, Error> {
    let count = input.length()?;
    let mut pairs = Vec::with_capacity(count.min(1024) as usize);
    for _ in 0..count {
        let member = input.string()?;
        let score = if kind == types::ZSET_2 {
            f64::from_le_bytes(input.array()?)
        } else {
            score_text(input)?
        };
        pairs.push((member, score));
    }
    checked(input, ZSet::from_pairs(pairs, limits), BAD_ZSET)
}

/// A score as text, with three lengths set apart for what text could not say.
fn score_text<R: Read>(input: &mut Input<R>) -> Result<f64, Error> {
    let text = match input.byte()? {
        253 => return input.corrupt(BAD_ZSET),
        254 => return Ok(f64::INFINITY),
        255 => return Ok(f64::NEG_INFINITY),
        len => input.bytes(u64::from(len))?,
    };
    checked(input, number::parse_f64(&text), BAD_ZSET)
}

fn zset_of_ziplist<R: Read>(input: &mut Input<R>, limits: &Limits) -> Result<ZSet, Error> {
    let bytes = input.string()?;
    let items = checked(input, ziplist::elements(&bytes), BAD_ZIPLIST)?;
    let mut pairs = Vec::with_capacity(items.len() / 2);
    for pair in items.chunks(2) {
        let [member, score] = pair else { return input.corrupt(BAD_ZSET) };
        let score = checked(input, score.as_f64(), BAD_ZSET)?;
        pairs.push((member.to_vec(), score));
    }
    checked(input, ZSet::from_pairs(pairs, limits), BAD_ZSET)
}
