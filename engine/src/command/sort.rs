//! SORT and SORT_RO: the elements of a list, set or sorted set in order, by themselves or by other keys.

use smallvec::SmallVec;

use super::zsets::compare_scores;
use super::{Command, Ctx, Group, Keys, flag};
use crate::keyspace::{Db, Ttl, ValueRef};
use crate::number::parse_f64;
use crate::types::{Collection, CollectionRef, Digits, List};

/// Patterns name keys that nobody can tell beforehand: everything is locked when there are some.
const FLAGS: u32 = flag::LOCK_ALL | flag::MOVABLE_KEYS;

#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    Command::new("sort", -2, FLAGS | flag::WRITE | flag::DENYOOM, Keys::Custom(sort_keys), Group::Generic, "1.0.0", "Sorts the elements of a list, set or sorted set.", sort),
    Command::new("sort_ro", -2, FLAGS | flag::READONLY, Keys::FIRST, Group::Generic, "7.0.0", "Sorts without STORE.", sort),
];

/// The key, and the last STORE's.
fn sort_keys(args: &[&[u8]]) -> SmallVec<[usize; 8]> {
    let mut found: SmallVec<[usize; 8]> = SmallVec::new();
    found.push(1);
    let mut i = 2;
    let mut store = None;
    while i < args.len() {
        let is = |word: &str| args[i].eq_ignore_ascii_case(word.as_bytes());
        if is("store") && i + 1 < args.len() {
            store = Some(i + 1);
            i += 1;
        } else if is("limit") {
            i += 2;
        } else if is("get") || is("by") {
            i += 1;
        }
        i += 1;
    }
    found.extend(store);
    found.retain(|at| *at < args.len());
    found
}

/// A BY or GET pattern may name other keys than those of `sort_keys`.
pub(super) fn reads_elsewhere(args: &[&[u8]]) -> bool {
    args.windows(2).skip(2).any(|pair| {
        let takes_pattern =
            pair[0].eq_ignore_ascii_case(b"by") || pair[0].eq_ignore_ascii_case(b"get");
        takes_pattern && pair[1].contains(&b'*')
    })
}

#[derive(Default)]
struct Options<'a> {
    by: Option<&'a [u8]>,
    get: Vec<&'a [u8]>,
    limit: Option<(i64, i64)>,
    descending: bool,
    alpha: bool,
    store: Option<&'a [u8]>,
}

fn options<'a>(ctx: &mut Ctx<'a, '_>) -> Option<Options<'a>> {
    let mut o = Options::default();
    let n = ctx.args.len();
    let mut i = 2;
    while i < n {
        if ctx.is_word(i, "asc") {
            o.descending = false;
        } else if ctx.is_word(i, "desc") {
            o.descending = true;
        } else if ctx.is_word(i, "alpha") {
            o.alpha = true;
        } else if ctx.is_word(i, "limit") && i + 2 < n {
            o.limit = Some((ctx.int_arg(i + 1)?, ctx.int_arg(i + 2)?));
            i += 2;
        } else if ctx.is_word(i, "by") && i + 1 < n {
            o.by = Some(ctx.arg(i + 1));
            i += 1;
        } else if ctx.is_word(i, "get") && i + 1 < n {
            o.get.push(ctx.arg(i + 1));
            i += 1;
        } else if ctx.is_word(i, "store") && i + 1 < n && ctx.command.is(flag::WRITE) {
            o.store = Some(ctx.arg(i + 1));
            i += 1;
        } else {
            ctx.reply.syntax_error();
            return None;
        }
        i += 1;
    }
    if ctx.session.rights.restricted
        && let Some(user) = &ctx.session.rights.user
        && !user.reads_all_keys(ctx.command, ctx.args, ctx.db.index)
    {
        // Which keys the patterns name is not known before.
        let by = o.by.is_some_and(|by| by.contains(&b'*'));
        if by || !o.get.is_empty() {
            let option = if by { "BY" } else { "GET" };
            ctx.reply.error(&format!(
                "ERR {option} option of SORT denied due to insufficient ACL permissions."
            ));
            return None;
        }
    }
    let foreign = |p: &&[u8]| **p != b"#"[..] && p.contains(&b'*');
    let elsewhere = o.by.iter().chain(o.get.iter()).any(foreign);
    if elsewhere && ctx.shared.cluster.is_enabled() {
        ctx.reply.error("ERR BY and GET options of SORT are denied in cluster mode");
        return None;
    }
    Some(o)
}

/// The value that a pattern names for an element: `key*`, `hash*->field`, or `#`, the element itself.
fn look_up(db: &mut Db<'_>, pattern: &[u8], element: &[u8]) -> Option<Vec<u8>> {
    if pattern == b"#" {
        return Some(element.to_vec());
    }
    let star = pattern.iter().position(|b| *b == b'*')?;
    let arrow = pattern[star..].windows(2).position(|w| w == b"->").map(|at| star + at);
    let (key_end, field) = match arrow {
        Some(at) if at + 2 < pattern.len() => (at, Some(&pattern[at + 2..])),
        _ => (pattern.len(), None),
    };
    let key = [&pattern[..star], element, &pattern[star + 1..key_end]].concat();
    match field {
        None => db.string(&key).ok().flatten().map(<[u8]>::to_vec),
        Some(field) => {
            super::hashes::view(db, &key).ok().flatten()?.get(field).map(|item| item.to_vec())
        }
    }
}

fn elements(ctx: &mut Ctx<'_, '_>) -> Option<(Vec<Vec<u8>>, bool)> {
    let Some(entry) = ctx.db.get(ctx.args[1]) else { return Some((Vec::new(), false)) };
    let mut digits = Digits::new();
    Some(match entry.value() {
        ValueRef::Collection(CollectionRef::List(list)) => {
            (list.iter().map(|item| item.bytes(&mut digits).to_vec()).collect(), false)
        }
        ValueRef::Collection(CollectionRef::Set(set)) => {
            (set.iter().map(|item| item.bytes(&mut digits).to_vec()).collect(), true)
        }
        ValueRef::Collection(CollectionRef::ZSet(zset)) => {
            (zset.iter().map(|(item, _)| item.bytes(&mut digits).to_vec()).collect(), false)
        }
        _ => {
            ctx.reply.wrong_type();
            return None;
        }
    })
}

fn sort(ctx: &mut Ctx<'_, '_>) {
    let Some(o) = options(ctx) else { return };
    let Some((found, is_set)) = elements(ctx) else { return };
    // A BY without a star means: as they come. What a set stores is sorted all the same, so that
    // replicas store the same.
    let unsorted = o.by.is_some_and(|by| !by.contains(&b'*'));
    let by = o.by.filter(|_| !unsorted);
    let alpha = o.alpha || (unsorted && is_set && o.store.is_some());
    let sorted = if unsorted && !(is_set && o.store.is_some()) {
        let mut found = found;
        if o.descending {
            found.reverse();
        }
        found
    } else {
        match in_order(ctx, found, by, alpha, o.descending) {
            Some(sorted) => sorted,
            None => return,
        }
    };
    let (start, count) = o.limit.unwrap_or((0, -1));
    let start = start.clamp(0, sorted.len() as i64) as usize;
    let count = if count < 0 { sorted.len() } else { count as usize };
    let chosen = &sorted[start..sorted.len().min(start.saturating_add(count))];
    let mut out: Vec<Option<Vec<u8>>> = Vec::new();
    for element in chosen {
        if o.get.is_empty() {
            out.push(Some(element.clone()));
        }
        out.extend(o.get.iter().map(|pattern| look_up(ctx.db, pattern, element)));
    }
    match o.store {
        None => {
            ctx.reply.array(out.len());
            for value in &out {
                match value {
                    Some(value) => ctx.reply.bulk(value),
                    None => ctx.reply.null(),
                }
            }
        }
        Some(target) => store(ctx, target, &out),
    }
}

/// Sorts by the elements or by what a pattern names for each. `None`: an error has been replied.
fn in_order(
    ctx: &mut Ctx<'_, '_>,
    found: Vec<Vec<u8>>,
    by: Option<&[u8]>,
    alpha: bool,
    descending: bool,
) -> Option<Vec<Vec<u8>>> {
    let mut weighed: Vec<(f64, Vec<u8>, Vec<u8>)> = Vec::with_capacity(found.len());
    for element in found {
        let weight = match by {
            None => Some(element.clone()),
            Some(pattern) => look_up(ctx.db, pattern, &element),
        };
        let number = match &weight {
            _ if alpha => 0.0,
            None => 0.0,
            Some(text) => match parse_f64(text) {
                Some(n) => n,
                None => {
                    ctx.reply.error("ERR One or more scores can't be converted into double");
                    return None;
                }
            },
        };
        weighed.push((
            number,
            if alpha { weight.unwrap_or_default() } else { Vec::new() },
            element,
        ));
    }
    weighed.sort_by(|a, b| {
        let order =
            compare_scores(a.0, b.0).then_with(|| a.1.cmp(&b.1)).then_with(|| a.2.cmp(&b.2));
        if descending { order.reverse() } else { order }
    });
    Some(weighed.into_iter().map(|(_, _, element)| element).collect())
}

fn store(ctx: &mut Ctx<'_, '_>, target: &[u8], values: &[Option<Vec<u8>>]) {
    if values.is_empty() {
        if ctx.db.remove(target) {
            ctx.propagate(&[b"DEL", target]);
            ctx.modified(target);
        }
        return ctx.reply.int(0);
    }
    let mut list = List::new();
    let limits = ctx.db.env.limits;
    for value in values {
        list.push_back(value.as_deref().unwrap_or_default(), &limits);
    }
    ctx.db.set_collection(target, Collection::List(list), Ttl::Clear);
    ctx.modified(target);
    ctx.reply.int(values.len() as i64);
}
