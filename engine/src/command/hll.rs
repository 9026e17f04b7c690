//! HyperLogLog commands: PFADD, PFCOUNT, PFMERGE and the tools to look inside.

use super::{Command, Ctx, Group, Keys, exec::printable, flag};
use crate::keyspace::WrongType;
use crate::types::hll::{self, Corrupt, REGISTERS, Run};

#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    Command::new("pfadd", -2, flag::WRITE | flag::DENYOOM | flag::FAST, Keys::FIRST, Group::HyperLogLog, "2.8.9", "Adds elements to a HyperLogLog.", pfadd),
    Command::new("pfcount", -2, flag::READONLY, Keys::ALL, Group::HyperLogLog, "2.8.9", "Estimates how many different elements were added.", pfcount),
    Command::new("pfmerge", -2, flag::WRITE | flag::DENYOOM, Keys::ALL, Group::HyperLogLog, "2.8.9", "Merges HyperLogLogs.", pfmerge),
    Command::new("pfdebug", 3, flag::WRITE | flag::DENYOOM | flag::ADMIN, Keys::Range { first: 2, last: 2, step: 1 }, Group::HyperLogLog, "2.8.9", "Shows the inside of a HyperLogLog.", pfdebug),
    Command::new("pfselftest", 1, flag::ADMIN, Keys::None, Group::HyperLogLog, "2.8.9", "Tests the estimator.", pfselftest),
];

const NOT_ONE: &str = "WRONGTYPE Key is not a valid HyperLogLog string value.";
const CORRUPT: &str = "INVALIDOBJ Corrupted HLL object detected";

/// The bytes of a HyperLogLog; `Err`: an error has been replied.
fn bytes<'a>(ctx: &'a mut Ctx<'_, '_>, key: &[u8]) -> Result<Option<&'a [u8]>, ()> {
    match ctx.db.string(key) {
        Err(WrongType) => {
            ctx.reply.wrong_type();
            Err(())
        }
        Ok(Some(value)) if !hll::is_hll(value) => {
            ctx.reply.error(NOT_ONE);
            Err(())
        }
        Ok(value) => Ok(value),
    }
}

fn sparse_max(ctx: &Ctx<'_, '_>) -> usize {
    ctx.shared.config.hot().hll_sparse_max_bytes
}

fn pfadd(ctx: &mut Ctx<'_, '_>) {
    let (key, args) = (ctx.args[1], ctx.args);
    let Ok(old) = bytes(ctx, key) else { return };
    let is_new = old.is_none();
    if old.is_some_and(hll::is_dense) {
        // Spelled out it is as long as before: changed where it is.
        let changed = ctx.db.update_string(key, |value| {
            let raised = args[2..].iter().filter(|element| {
                let (register, run) = hll::place(element);
                hll::dense_raise(value, register, run)
            });
            let changed = raised.count() > 0;
            if changed {
                hll::invalidate(value);
            }
            changed
        });
        let changed = changed.ok().flatten().unwrap_or(false);
        if changed {
            ctx.modified(key);
        }
        return ctx.reply.int(i64::from(changed));
    }
    let mut value = old.map_or_else(hll::empty, <[u8]>::to_vec);
    let most = sparse_max(ctx);
    let mut changed = is_new;
    for element in &args[2..] {
        let (register, run) = hll::place(element);
        match hll::raise(&mut value, register, run, most) {
            Ok(raised) => changed |= raised,
            Err(Corrupt) => return ctx.reply.error(CORRUPT),
        }
    }
    if changed {
        hll::invalidate(&mut value);
        ctx.db.set_changed(key, &value);
        ctx.modified(key);
    }
    ctx.reply.int(i64::from(changed));
}

fn pfcount(ctx: &mut Ctx<'_, '_>) {
    if ctx.args.len() > 2 {
        if let Some((registers, _)) = merged(ctx, 1) {
            ctx.reply.int(hll::count_registers(&registers) as i64);
        }
        return;
    }
    let key = ctx.args[1];
    let (cached, counted) = match bytes(ctx, key) {
        Err(()) => return,
        Ok(None) => return ctx.reply.int(0),
        Ok(Some(value)) => match hll::cached(value) {
            Some(count) => (true, Ok(count)),
            None => (false, hll::count(value)),
        },
    };
    let Ok(count) = counted else { return ctx.reply.error(CORRUPT) };
    // What was counted is kept in the value, where this member may change it.
    if !cached && (ctx.session.from_primary || ctx.shared.state.refuses_write().is_none()) {
        let _ = ctx.db.update_string(key, |value| hll::cache(value, count));
        ctx.modified(key);
    }
    ctx.reply.int(count as i64);
}

/// The highest registers of all keys from an argument on, and whether one of them is dense. The error is already replied
/// when there are none.
fn merged(ctx: &mut Ctx<'_, '_>, from: usize) -> Option<(Box<[u8; REGISTERS]>, bool)> {
    let mut registers = Box::new([0; REGISTERS]);
    let mut dense = false;
    for &key in &ctx.args[from..] {
        let merged = match bytes(ctx, key) {
            Err(()) => return None,
            Ok(None) => continue,
            Ok(Some(value)) => {
                dense |= hll::is_dense(value);
                hll::merge(&mut registers, value)
            }
        };
        if merged == Err(Corrupt) {
            ctx.reply.error(CORRUPT);
            return None;
        }
    }
    Some((registers, dense))
}

fn pfmerge(ctx: &mut Ctx<'_, '_>) {
    let key = ctx.args[1];
    let Some((registers, dense)) = merged(ctx, 1) else { return };
    // Looked up again: that it is missing has been told.
    ctx.db.tells_misses = false;
    let Ok(old) = bytes(ctx, key) else { return };
    let mut value = old.map_or_else(hll::empty, <[u8]>::to_vec);
    let most = sparse_max(ctx);
    let mut done = if dense { hll::to_dense(&mut value) } else { Ok(()) };
    for (register, run) in registers.iter().enumerate().filter(|(_, run)| **run > 0) {
        done = done.and_then(|()| hll::raise(&mut value, register, *run, most).map(|_| ()));
    }
    if done == Err(Corrupt) {
        return ctx.reply.error(CORRUPT);
    }
    hll::invalidate(&mut value);
    ctx.db.set_changed(key, &value);
    ctx.modified(key);
    ctx.reply.ok();
}

fn pfdebug(ctx: &mut Ctx<'_, '_>) {
    let key = ctx.args[2];
    let word = ctx.args[1].to_ascii_lowercase();
    let mut value = match bytes(ctx, key) {
        Err(()) => return,
        Ok(None) => return ctx.reply.error("ERR The specified key does not exist"),
        Ok(Some(value)) => value.to_vec(),
    };
    let dense = hll::is_dense(&value);
    match word.as_slice() {
        b"encoding" => ctx.reply.simple(if dense { "dense" } else { "sparse" }),
        b"decode" if dense => ctx.reply.error("ERR HLL encoding is not sparse"),
        b"decode" => {
            let words: Vec<String> = hll::runs(&value).map(show).collect();
            ctx.reply.bulk(words.join(" ").as_bytes());
        }
        b"getreg" | b"todense" => {
            if hll::to_dense(&mut value) == Err(Corrupt) {
                return ctx.reply.error(CORRUPT);
            }
            if !dense {
                ctx.db.set_changed(key, &value);
                ctx.modified(key);
            }
            if word == b"todense" {
                return ctx.reply.int(i64::from(!dense));
            }
            let mut registers = Box::new([0; REGISTERS]);
            let _ = hll::merge(&mut registers, &value);
            ctx.reply.array(REGISTERS);
            registers.iter().for_each(|value| ctx.reply.int(i64::from(*value)));
        }
        _ => {
            let name = printable(ctx.args[1]);
            ctx.reply.error(&format!("ERR Unknown PFDEBUG subcommand '{name}'"));
        }
    }
}

fn show(run: Run) -> String {
    match run {
        Run::Zero(len) => format!("z:{len}"),
        Run::LongZero(len) => format!("Z:{len}"),
        Run::Value(value, len) => format!("v:{value},{len}"),
    }
}

/// Counts known numbers of elements, and fails when an estimate is far off.
fn pfselftest(ctx: &mut Ctx<'_, '_>) {
    let mut value = hll::empty();
    let mut expected = 0u64;
    for power in 0..6u32 {
        let until = 10u64.pow(power);
        for n in expected..until {
            let (register, run) = hll::place(&n.to_le_bytes());
            if hll::raise(&mut value, register, run, 3000).is_err() {
                return ctx.reply.error(CORRUPT);
            }
        }
        expected = until;
        let found = hll::count(&value).unwrap_or(0);
        // Six times the standard error of 0.81 %.
        if found.abs_diff(expected) > expected / 20 + 1 {
            let error = format!("ERR TESTFAILED {expected} elements are estimated as {found}");
            return ctx.reply.error(&error);
        }
    }
    ctx.reply.ok();
}
