//! Strings that are compared or set together: DELIFEQ, MSETEX.

use smallvec::SmallVec;

use super::expiry_args::{Expiry, expiry_option};
use super::{Command, Ctx, Group, Keys, flag, strings};
use crate::keyspace::WrongType;
use crate::number::parse_i64;

#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    Command::new("delifeq", 3, flag::WRITE | flag::FAST, Keys::FIRST, Group::String, "9.0.0", "Deletes a key whose value is this one.", delifeq),
    Command::new("msetex", -4, flag::WRITE | flag::DENYOOM | flag::MOVABLE_KEYS, Keys::Custom(pairs), Group::String, "8.4.0", "Sets keys, all at once, with one condition and expiry time for all.", msetex),
];

fn delifeq(ctx: &mut Ctx<'_, '_>) {
    let (key, wanted) = (ctx.args[1], ctx.args[2]);
    let equal = match ctx.db.string(key) {
        Err(WrongType) => return ctx.reply.wrong_type(),
        Ok(value) => value.is_some_and(|value| value == wanted),
    };
    if equal {
        ctx.db.remove(key);
        ctx.propagate(&[b"DEL", key]);
        ctx.modified(key);
    }
    ctx.reply.int(i64::from(equal));
}

/// How many pairs `MSETEX numkeys key value ...` has, when they are there.
fn count(args: &[&[u8]]) -> Option<usize> {
    let n = parse_i64(args.get(1)?).and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0)?;
    (n <= (args.len() - 2) / 2).then_some(n)
}

/// The keys: none, when there are fewer arguments than the count says.
fn pairs(args: &[&[u8]]) -> SmallVec<[usize; 8]> {
    (0..count(args).unwrap_or(0)).map(|i| 2 + 2 * i).collect()
}

fn msetex(ctx: &mut Ctx<'_, '_>) {
    let is_count = |n: i64| (1..=i64::from(i32::MAX)).contains(&n);
    if !parse_i64(ctx.args[1]).is_some_and(is_count) {
        return ctx.reply.error("ERR invalid numkeys value or out of range");
    }
    let Some(n) = count(ctx.args) else { return ctx.reply.syntax_error() };
    let (mut must_exist, mut expiry) = (None, Expiry::None);
    let mut i = 2 + 2 * n;
    while i < ctx.args.len() {
        if ctx.is_word(i, "nx") && must_exist != Some(true) {
            must_exist = Some(false);
        } else if ctx.is_word(i, "xx") && must_exist != Some(false) {
            must_exist = Some(true);
        } else {
            match expiry_option(ctx, i, &mut expiry) {
                Some(more) => i += more,
                None => return,
            }
        }
        i += 1;
    }
    let args = ctx.args;
    let pairs = || args[2..2 + 2 * n].chunks_exact(2);
    if let Some(wanted) = must_exist
        && pairs().any(|pair| ctx.db.exists(pair[0]) != wanted)
    {
        return ctx.reply.int(0);
    }
    for pair in pairs() {
        strings::store(ctx, pair[0], pair[1], expiry);
    }
    ctx.reply.int(1);
}
