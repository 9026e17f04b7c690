//! Strings that are compared or set together: DELIFEQ, DELEX, DIGEST, MSETEX.

use smallvec::SmallVec;

use super::expiry_args::{Expiry, expiry_option};
use super::{Command, Ctx, Group, Keys, flag, strings};
use crate::keyspace::WrongType;
use crate::number::parse_i64;

#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    Command::new("delifeq", 3, flag::WRITE | flag::FAST, Keys::FIRST, Group::String, "9.0.0", "Deletes a key whose value is this one.", delifeq),
    Command::new("delex", -2, flag::WRITE | flag::FAST, Keys::FIRST, Group::String, "8.4.0", "Deletes a key, if its value or digest is, or is not, the one given.", delex),
    Command::new("digest", 2, flag::READONLY | flag::FAST, Keys::FIRST, Group::String, "8.4.0", "Returns the digest of a value.", digest),
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

/// What a value is compared with.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Compared<'a> {
    Value(&'a [u8]),
    /// The text of its digest.
    Digest(&'a [u8]),
}

impl<'a> Compared<'a> {
    /// `IFEQ`, `IFNE`, `IFDEQ` or `IFDNE` with what to compare with, and whether that is to be equal.
    pub(super) fn parse(word: &[u8], with: &'a [u8]) -> Option<(Self, bool)> {
        Some(match word.to_ascii_lowercase().as_slice() {
            b"ifeq" => (Self::Value(with), true),
            b"ifne" => (Self::Value(with), false),
            b"ifdeq" => (Self::Digest(with), true),
            b"ifdne" => (Self::Digest(with), false),
            _ => return None,
        })
    }

    /// Whether a value is equal; nothing when there is no such digest.
    pub(super) fn is(self, value: &[u8]) -> Option<bool> {
        match self {
            Self::Value(wanted) => Some(value == wanted),
            Self::Digest(text) => {
                let is_digest = text.len() == 16 && text.iter().all(u8::is_ascii_hexdigit);
                is_digest.then(|| digest_of(value).as_bytes().eq_ignore_ascii_case(text))
            }
        }
    }
}

pub(super) const BAD_DIGEST: &str = "ERR must be exactly 16 hexadecimal characters";

/// XXH3 of 64 bits, as Redis has it.
fn digest_of(value: &[u8]) -> String {
    format!("{:016x}", xxhash_rust::xxh3::xxh3_64(value))
}

fn digest(ctx: &mut Ctx<'_, '_>) {
    match ctx.db.string(ctx.args[1]) {
        Err(WrongType) => ctx.reply.wrong_type(),
        Ok(None) => ctx.reply.null(),
        Ok(Some(value)) => ctx.reply.bulk(digest_of(value).as_bytes()),
    }
}

/// `DELEX key [IFEQ value | IFNE value | IFDEQ digest | IFDNE digest]`
fn delex(ctx: &mut Ctx<'_, '_>) {
    let key = ctx.args[1];
    if !ctx.db.exists(key) {
        return ctx.reply.int(0);
    }
    let wanted = match ctx.args.len() {
        2 => true,
        4 => {
            let Some((compared, equal)) = Compared::parse(ctx.args[2], ctx.args[3]) else {
                let text = "ERR Invalid condition. Use IFEQ, IFNE, IFDEQ, or IFDNE";
                return ctx.reply.error(text);
            };
            let Ok(value) = ctx.db.string(key) else {
                let text = "ERR Key should be of string type if conditions are specified";
                return ctx.reply.error(text);
            };
            match compared.is(value.unwrap_or_default()) {
                Some(is) => is == equal,
                None => return ctx.reply.error(BAD_DIGEST),
            }
        }
        _ => return ctx.wrong_arity(),
    };
    if wanted {
        ctx.db.remove(key);
        ctx.propagate(&[b"DEL", key]);
        ctx.modified(key);
    }
    ctx.reply.int(i64::from(wanted));
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
