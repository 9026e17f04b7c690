//! List commands, the blocking ones included.

use super::collections::{counted_keys, index_range};
use super::{Command, Ctx, Group, Keys, flag};
use crate::keyspace::WrongType;
use crate::notify::class;
use crate::number::parse_i64;
use crate::types::{Limits, List};
use crate::waiters::OnTimeout;

const fn row(
    name: &'static str,
    arity: i16,
    flags: u32,
    keys: Keys,
    since: &'static str,
    summary: &'static str,
    run: super::Handler,
) -> Command {
    Command::new(name, arity, flags, keys, Group::List, since, summary, run)
}

const READ: u32 = flag::READONLY;
const WRITE: u32 = flag::WRITE;
const WRITE_FAST: u32 = flag::WRITE | flag::FAST;
const GROW_FAST: u32 = flag::WRITE | flag::DENYOOM | flag::FAST;
const BLOCK: u32 = flag::WRITE | flag::BLOCKING | flag::NOSCRIPT;
const ONE: Keys = Keys::FIRST;
const BUT_LAST: Keys = Keys::Range { first: 1, last: -2, step: 1 };

pub const COMMANDS: &[Command] = &[
    row("lpush", -3, GROW_FAST, ONE, "1.0.0", "Adds elements at the front.", push),
    row("rpush", -3, GROW_FAST, ONE, "1.0.0", "Adds elements at the back.", push),
    row("lpushx", -3, GROW_FAST, ONE, "2.2.0", "Adds at the front of a list that is there.", push),
    row("rpushx", -3, GROW_FAST, ONE, "2.2.0", "Adds at the back of a list that is there.", push),
    row("lpop", -2, WRITE_FAST, ONE, "1.0.0", "Takes elements from the front.", pop),
    row("rpop", -2, WRITE_FAST, ONE, "1.0.0", "Takes elements from the back.", pop),
    row("llen", 2, READ | flag::FAST, ONE, "1.0.0", "Returns the length.", llen),
    row("lindex", 3, READ, ONE, "1.0.0", "Returns an element by its index.", lindex),
    row("lrange", 4, READ, ONE, "1.0.0", "Returns a range of elements.", lrange),
    row("lset", 4, WRITE | flag::DENYOOM, ONE, "1.0.0", "Replaces an element.", lset),
    row("linsert", 5, WRITE | flag::DENYOOM, ONE, "2.2.0", "Adds beside an element.", linsert),
    row("lrem", 4, WRITE, ONE, "1.0.0", "Removes elements by value.", lrem),
    row("ltrim", 4, WRITE, ONE, "1.0.0", "Keeps a range of elements.", ltrim),
    row("lpos", -3, READ, ONE, "6.0.6", "Returns the indexes of an element.", lpos),
    row("lmove", 5, WRITE | flag::DENYOOM, Keys::TWO, "6.2.0", "Moves an element.", lmove),
    row(
        "rpoplpush",
        3,
        WRITE | flag::DENYOOM,
        Keys::TWO,
        "1.2.0",
        "Moves the last element.",
        lmove,
    ),
    row(
        "lmpop",
        -4,
        WRITE | flag::MOVABLE_KEYS,
        Keys::Counted { at: 1, also: 0 },
        "7.0.0",
        "Takes elements from the first list that has some.",
        lmpop,
    ),
    row("blpop", -3, BLOCK, BUT_LAST, "2.0.0", "Takes the first element, or waits.", bpop),
    row("brpop", -3, BLOCK, BUT_LAST, "2.0.0", "Takes the last element, or waits.", bpop),
    row("blmove", 6, BLOCK | flag::DENYOOM, Keys::TWO, "6.2.0", "Moves, or waits.", lmove),
    row("brpoplpush", 4, BLOCK | flag::DENYOOM, Keys::TWO, "2.2.0", "Moves, or waits.", lmove),
    row(
        "blmpop",
        -5,
        flag::WRITE | flag::BLOCKING | flag::MOVABLE_KEYS,
        Keys::Counted { at: 2, also: 0 },
        "7.0.0",
        "Takes elements from the first list that has some, or waits.",
        lmpop,
    ),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Front,
    Back,
}

impl End {
    fn of_name(name: &str) -> End {
        match name.as_bytes() {
            [b'l', ..] | [b'b', b'l', ..] => End::Front,
            _ => End::Back,
        }
    }

    fn parse(ctx: &Ctx<'_, '_>, i: usize) -> Option<End> {
        if ctx.is_word(i, "left") {
            Some(End::Front)
        } else {
            ctx.is_word(i, "right").then_some(End::Back)
        }
    }

    fn push(self, list: &mut List, element: &[u8], limits: &Limits) {
        match self {
            End::Front => list.push_front(element, limits),
            End::Back => list.push_back(element, limits),
        }
    }

    fn pop(self, list: &mut List) -> Option<Vec<u8>> {
        match self {
            End::Front => list.pop_front(),
            End::Back => list.pop_back(),
        }
    }

    /// What a push or pop at this end is called.
    fn event(self, is_push: bool) -> &'static str {
        match (self, is_push) {
            (End::Front, true) => "lpush",
            (End::Back, true) => "rpush",
            (End::Front, false) => "lpop",
            (End::Back, false) => "rpop",
        }
    }

    fn pop_name(self) -> &'static [u8] {
        match self {
            End::Front => b"LPOP",
            End::Back => b"RPOP",
        }
    }

    fn word(self) -> &'static [u8] {
        match self {
            End::Front => b"LEFT",
            End::Back => b"RIGHT",
        }
    }
}

fn push(ctx: &mut Ctx<'_, '_>) {
    let (key, elements, name) = (ctx.args[1], &ctx.args[2..], ctx.command.name);
    let end = End::of_name(name);
    let add = |list: &mut List, limits: &Limits| {
        elements.iter().for_each(|e| end.push(list, e, limits));
        list.len()
    };
    let len = if name.ends_with('x') {
        ctx.db.update::<List, _>(key, add).map(Option::unwrap_or_default)
    } else {
        ctx.db.upsert::<List, _>(key, add)
    };
    match len {
        Err(WrongType) => ctx.reply.wrong_type(),
        Ok(len) => {
            if len > 0 {
                ctx.modified(key);
            }
            ctx.reply.int(len as i64);
        }
    }
}

fn pop(ctx: &mut Ctx<'_, '_>) {
    let (key, end) = (ctx.args[1], End::of_name(ctx.command.name));
    if ctx.args.len() > 3 {
        return ctx.wrong_arity();
    }
    let count = match ctx.args.get(2).map(|n| parse_i64(n)) {
        None => None,
        Some(Some(n)) if n >= 0 => Some(n as usize),
        Some(_) => return ctx.reply.error("ERR value is out of range, must be positive"),
    };
    let popped = ctx.db.update::<List, _>(key, |list, _| {
        let n = count.unwrap_or(1).min(list.len());
        (0..n).filter_map(|_| end.pop(list)).collect::<Vec<_>>()
    });
    match (popped, count) {
        (Err(WrongType), _) => ctx.reply.wrong_type(),
        (Ok(None), None) => ctx.reply.null(),
        (Ok(None), Some(_)) => ctx.reply.null_array(),
        (Ok(Some(popped)), _) => {
            if !popped.is_empty() {
                ctx.modified(key);
            }
            if count.is_some() {
                ctx.reply.array(popped.len());
            }
            popped.iter().for_each(|element| ctx.reply.bulk(element));
        }
    }
}

fn llen(ctx: &mut Ctx<'_, '_>) {
    match ctx.db.read::<List>(ctx.args[1]) {
        Err(WrongType) => ctx.reply.wrong_type(),
        Ok(list) => ctx.reply.int(list.map_or(0, List::len) as i64),
    }
}

/// An index, negative from the end, as a position; `None` when it is outside.
fn position(index: i64, len: usize) -> Option<usize> {
    let at = if index < 0 { (len as i64).saturating_add(index) } else { index };
    (0..len as i64).contains(&at).then_some(at as usize)
}

fn lindex(ctx: &mut Ctx<'_, '_>) {
    let index = parse_i64(ctx.args[2]);
    match (ctx.db.read::<List>(ctx.args[1]), index) {
        (Err(WrongType), _) => ctx.reply.wrong_type(),
        (Ok(None), _) => ctx.reply.null(),
        (Ok(Some(_)), None) => ctx.reply.not_an_integer(),
        (Ok(Some(list)), Some(index)) => {
            match position(index, list.len()).and_then(|at| list.get(at)) {
                Some(item) => ctx.reply.item(item),
                None => ctx.reply.null(),
            }
        }
    }
}

fn lrange(ctx: &mut Ctx<'_, '_>) {
    let Some(start) = ctx.int_arg(2) else { return };
    let Some(stop) = ctx.int_arg(3) else { return };
    match ctx.db.read::<List>(ctx.args[1]) {
        Err(WrongType) => ctx.reply.wrong_type(),
        Ok(None) => ctx.reply.array(0),
        Ok(Some(list)) => {
            let range = index_range(start, stop, list.len());
            ctx.reply.array(range.len());
            list.range(range).for_each(|item| ctx.reply.item(item));
        }
    }
}

fn lset(ctx: &mut Ctx<'_, '_>) {
    let (key, element) = (ctx.args[1], ctx.args[3]);
    let index = parse_i64(ctx.args[2]);
    let set = ctx.db.update::<List, _>(key, |list, limits| {
        index.map(|index| {
            position(index, list.len()).is_some_and(|at| list.set(at, element, limits))
        })
    });
    match set {
        Err(WrongType) => ctx.reply.wrong_type(),
        Ok(None) => ctx.reply.error("ERR no such key"),
        Ok(Some(None)) => ctx.reply.not_an_integer(),
        Ok(Some(Some(false))) => ctx.reply.error("ERR index out of range"),
        Ok(Some(Some(true))) => {
            ctx.modified(key);
            ctx.reply.ok();
        }
    }
}

fn linsert(ctx: &mut Ctx<'_, '_>) {
    let (key, pivot, element) = (ctx.args[1], ctx.args[3], ctx.args[4]);
    let behind = ctx.is_word(2, "after");
    if !behind && !ctx.is_word(2, "before") {
        return ctx.reply.syntax_error();
    }
    let done = ctx.db.update::<List, _>(key, |list, limits| {
        list.insert(pivot, behind, element, limits).then_some(list.len())
    });
    match done {
        Err(WrongType) => ctx.reply.wrong_type(),
        Ok(None) => ctx.reply.int(0),
        Ok(Some(None)) => ctx.reply.int(-1),
        Ok(Some(Some(len))) => {
            ctx.modified(key);
            ctx.reply.int(len as i64);
        }
    }
}

fn lrem(ctx: &mut Ctx<'_, '_>) {
    let (key, element) = (ctx.args[1], ctx.args[3]);
    let Some(count) = ctx.int_arg(2) else { return };
    match ctx.db.update::<List, _>(key, |list, _| list.remove(count, element)) {
        Err(WrongType) => ctx.reply.wrong_type(),
        Ok(gone) => {
            let gone = gone.unwrap_or(0);
            if gone > 0 {
                ctx.modified(key);
            }
            ctx.reply.int(gone as i64);
        }
    }
}

fn ltrim(ctx: &mut Ctx<'_, '_>) {
    let key = ctx.args[1];
    let Some(start) = ctx.int_arg(2) else { return };
    let Some(stop) = ctx.int_arg(3) else { return };
    let trimmed =
        ctx.db.update::<List, _>(key, |list, _| list.trim(index_range(start, stop, list.len())));
    match trimmed {
        Err(WrongType) => ctx.reply.wrong_type(),
        Ok(done) => {
            if done.is_some() {
                ctx.modified(key);
            }
            ctx.reply.ok();
        }
    }
}

fn lpos(ctx: &mut Ctx<'_, '_>) {
    let element = ctx.args[2];
    let (mut rank, mut count, mut most) = (1i64, None, 0usize);
    let mut i = 3;
    while i < ctx.args.len() {
        if i + 1 >= ctx.args.len() {
            return ctx.reply.syntax_error();
        }
        if !["rank", "count", "maxlen"].iter().any(|word| ctx.is_word(i, word)) {
            return ctx.reply.syntax_error();
        }
        let n = parse_i64(ctx.args[i + 1]);
        let n = match n {
            None if ctx.is_word(i, "count") => -1,
            None if ctx.is_word(i, "maxlen") => -1,
            None => return ctx.reply.not_an_integer(),
            Some(n) => n,
        };
        if ctx.is_word(i, "rank") {
            if n == 0 {
                return ctx.reply.error(
                    "ERR RANK can't be zero: use 1 to start from the first match, 2 from the second \
                     ... or use negative to start from the end of the list",
                );
            }
            if n == i64::MIN {
                return ctx.reply.error("ERR value is out of range, value must between -9223372036854775807 and 9223372036854775807");
            }
            rank = n;
        } else if ctx.is_word(i, "count") {
            if n < 0 {
                return ctx.reply.error("ERR COUNT can't be negative");
            }
            count = Some(n as usize);
        } else {
            if n < 0 {
                return ctx.reply.error("ERR MAXLEN can't be negative");
            }
            most = n as usize;
        }
        i += 2;
    }
    let list = match ctx.db.read::<List>(ctx.args[1]) {
        Err(WrongType) => return ctx.reply.wrong_type(),
        Ok(list) => list,
    };
    let mut found: Vec<i64> = Vec::new();
    if let Some(list) = list {
        let len = list.len();
        let compared = if most == 0 { len } else { most.min(len) };
        let wanted = match count {
            None => 1,
            Some(0) => usize::MAX,
            Some(n) => n,
        };
        let skip = rank.unsigned_abs() as usize - 1;
        let at = |i: usize| (if rank > 0 { i } else { len - 1 - i }) as i64;
        if rank > 0 {
            let hits = list.iter().take(compared).enumerate().filter(|(_, e)| e.is(element));
            found.extend(hits.skip(skip).take(wanted).map(|(i, _)| at(i)));
        } else {
            let hits = list.iter().rev().take(compared).enumerate().filter(|(_, e)| e.is(element));
            found.extend(hits.skip(skip).take(wanted).map(|(i, _)| at(i)));
        }
    }
    match (count, found.first()) {
        (None, None) => ctx.reply.null(),
        (None, Some(i)) => ctx.reply.int(*i),
        (Some(_), _) => {
            ctx.reply.array(found.len());
            found.iter().for_each(|i| ctx.reply.int(*i));
        }
    }
}

/// LMOVE, RPOPLPUSH and their blocking forms.
fn lmove(ctx: &mut Ctx<'_, '_>) {
    let (from, to) = (ctx.args[1], ctx.args[2]);
    let ends = if ctx.command.name.ends_with("lmove") {
        End::parse(ctx, 3).zip(End::parse(ctx, 4))
    } else {
        Some((End::Back, End::Front))
    };
    let Some((take, put)) = ends else { return ctx.reply.syntax_error() };
    let blocks = ctx.command.is(flag::BLOCKING);
    let deadline = if blocks {
        match ctx.deadline_arg(ctx.args.len() - 1) {
            Some(deadline) => deadline,
            None => return,
        }
    } else {
        0
    };
    match ctx.db.read::<List>(from) {
        // A key of another type has woken the client for nothing.
        Err(WrongType) if ctx.retry => return,
        Err(WrongType) => return ctx.reply.wrong_type(),
        // In a transaction the answer is that of LMOVE; a wait that is over answers as BLPOP.
        Ok(None) if blocks && !ctx.in_exec => {
            return ctx.block(&[from], deadline, OnTimeout::NullArray);
        }
        Ok(None) => return ctx.reply.null(),
        Ok(Some(_)) => {}
    }
    if let Err(WrongType) = ctx.db.read::<List>(to) {
        return ctx.reply.wrong_type();
    }
    let moved = if from == to {
        ctx.db.update::<List, _>(from, |list, limits| {
            let element = take.pop(list);
            if let Some(element) = &element {
                put.push(list, element, limits);
            }
            element
        })
    } else {
        ctx.db.update::<List, _>(from, |list, _| take.pop(list))
    };
    let Ok(Some(Some(element))) = moved else { return ctx.reply.null() };
    if from != to {
        // Its type was checked above, under the same locks.
        let _ = ctx.db.upsert::<List, _>(to, |list, limits| put.push(list, &element, limits));
    }
    ctx.modified_to(to, class::LIST, put.event(true));
    ctx.modified_as(from, class::LIST, take.event(false));
    ctx.propagate(&[b"LMOVE", from, to, take.word(), put.word()]);
    ctx.reply.bulk(&element);
}

/// LMPOP and BLMPOP.
fn lmpop(ctx: &mut Ctx<'_, '_>) {
    let blocks = ctx.command.is(flag::BLOCKING);
    let at = if blocks { 2 } else { 1 };
    let Some((keys, next)) = counted_keys(ctx, at, "ERR numkeys should be greater than 0") else {
        return;
    };
    let Some(end) = End::parse(ctx, next) else { return ctx.reply.syntax_error() };
    let count = match ctx.args.len() - next {
        1 => 1,
        3 if ctx.is_word(next + 1, "count") => match super::hashes::positive(ctx.args[next + 2]) {
            Some(n) => n,
            None => return ctx.reply.error("ERR count should be greater than 0"),
        },
        _ => return ctx.reply.syntax_error(),
    };
    let deadline = if blocks {
        match ctx.deadline_arg(1) {
            Some(deadline) => deadline,
            None => return,
        }
    } else {
        0
    };
    for &key in keys {
        let popped = ctx.db.update::<List, _>(key, |list, _| {
            (0..count.min(list.len())).filter_map(|_| end.pop(list)).collect::<Vec<_>>()
        });
        match popped {
            // A key of another type has woken the client for nothing.
            Err(WrongType) if ctx.retry => {}
            Err(WrongType) => return ctx.reply.wrong_type(),
            Ok(None) => {}
            Ok(Some(popped)) => {
                ctx.modified_as(key, class::LIST, end.event(false));
                let n = popped.len().to_string();
                ctx.propagate(&[end.pop_name(), key, n.as_bytes()]);
                ctx.reply.array(2);
                ctx.reply.bulk(key);
                ctx.reply.array(popped.len());
                popped.iter().for_each(|element| ctx.reply.bulk(element));
                return;
            }
        }
    }
    if blocks {
        ctx.block(keys, deadline, OnTimeout::NullArray);
    } else {
        ctx.reply.null_array();
    }
}

/// BLPOP and BRPOP.
fn bpop(ctx: &mut Ctx<'_, '_>) {
    let end = End::of_name(ctx.command.name);
    let last = ctx.args.len() - 1;
    let Some(deadline) = ctx.deadline_arg(last) else { return };
    let keys = &ctx.args[1..last];
    for &key in keys {
        match ctx.db.update::<List, _>(key, |list, _| end.pop(list)) {
            // A key of another type has woken the client for nothing.
            Err(WrongType) if ctx.retry => {}
            Err(WrongType) => return ctx.reply.wrong_type(),
            Ok(Some(Some(element))) => {
                ctx.modified(key);
                ctx.propagate(&[end.pop_name(), key]);
                ctx.reply.array(2);
                ctx.reply.bulk(key);
                ctx.reply.bulk(&element);
                return;
            }
            Ok(_) => {}
        }
    }
    ctx.block(keys, deadline, OnTimeout::NullArray);
}
