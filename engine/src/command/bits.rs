//! Strings as arrays of bits: SETBIT, GETBIT, BITCOUNT, BITPOS, BITOP.

use smallvec::SmallVec;

use super::strings::{TOO_LONG, clamp_range, value_bytes_max};
use super::{Command, Ctx, Group, Keys, flag};
use crate::keyspace::{Ttl, WrongType};
use crate::number::parse_i64;

const R: u32 = flag::READONLY;
const WM: u32 = flag::WRITE | flag::DENYOOM;

#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    Command::new("setbit", 4, WM, Keys::FIRST, Group::String, "2.2.0", "Sets one bit of a value.", setbit),
    Command::new("getbit", 3, R | flag::FAST, Keys::FIRST, Group::String, "2.2.0", "Returns one bit of a value.", getbit),
    Command::new("bitcount", -2, R, Keys::FIRST, Group::String, "2.6.0", "Counts the set bits of a value.", bitcount),
    Command::new("bitpos", -3, R, Keys::FIRST, Group::String, "2.8.7", "Finds the first bit that is set, or not.", bitpos),
    Command::new("bitop", -4, WM, Keys::Range { first: 2, last: -1, step: 1 }, Group::String, "2.6.0", "Combines values bit by bit.", bitop),
];

const BAD_OFFSET: &str = "ERR bit offset is not an integer or out of range";

/// A bit's place in a value that may be as long as it may be.
fn offset(ctx: &mut Ctx<'_, '_>) -> Option<usize> {
    let bits = value_bytes_max(ctx) as i64 * 8;
    let found = parse_i64(ctx.args[2]).filter(|n| (0..bits).contains(n));
    if found.is_none() {
        ctx.reply.error(BAD_OFFSET);
    }
    found.map(|n| n as usize)
}

fn mask(bit: usize) -> u8 {
    0x80 >> (bit % 8)
}

fn setbit(ctx: &mut Ctx<'_, '_>) {
    let key = ctx.args[1];
    let Some(bit) = offset(ctx) else { return };
    let on = match ctx.args[3] {
        b"0" => false,
        b"1" => true,
        _ => return ctx.reply.error("ERR bit is not an integer or out of range"),
    };
    let at = bit / 8;
    let change = |byte: &mut u8| {
        let was = *byte & mask(bit) != 0;
        *byte = if on { *byte | mask(bit) } else { *byte & !mask(bit) };
        was
    };
    let old = match ctx.db.string(key) {
        Err(WrongType) => return ctx.reply.wrong_type(),
        Ok(old) => old.unwrap_or_default(),
    };
    let was = if at < old.len() && ctx.db.peek(key).is_some_and(|e| e.is_raw()) {
        // Long bitmaps are changed where they are.
        let done = ctx.db.update_string(key, |value| value.get_mut(at).map(change));
        done.ok().flatten().flatten().unwrap_or(false)
    } else {
        let old = match ctx.db.string(key) {
            Ok(old) => old.unwrap_or_default(),
            Err(WrongType) => return ctx.reply.wrong_type(),
        };
        let mut value = Vec::with_capacity(old.len().max(at + 1));
        value.extend_from_slice(old);
        value.resize(old.len().max(at + 1), 0);
        let was = change(&mut value[at]);
        ctx.db.set_changed(key, &value);
        was
    };
    ctx.modified(key);
    ctx.reply.int(i64::from(was));
}

fn getbit(ctx: &mut Ctx<'_, '_>) {
    let Some(bit) = offset(ctx) else { return };
    match ctx.db.string(ctx.args[1]) {
        Err(WrongType) => ctx.reply.wrong_type(),
        Ok(value) => {
            let byte = value.unwrap_or_default().get(bit / 8).copied().unwrap_or(0);
            ctx.reply.int(i64::from(byte & mask(bit) != 0));
        }
    }
}

/// `start end [BYTE|BIT]` from argument `i` on: the range in bits of a value of `len` bytes.
fn bit_range(args: (i64, i64), in_bits: bool, len: usize) -> std::ops::Range<usize> {
    if in_bits {
        return clamp_range(args.0, args.1, len * 8);
    }
    let bytes = clamp_range(args.0, args.1, len);
    bytes.start * 8..bytes.end * 8
}

/// Whether the unit at argument `i` is BIT; an error has been replied when it is neither.
fn in_bits(ctx: &mut Ctx<'_, '_>, i: usize) -> Option<bool> {
    if i >= ctx.args.len() || ctx.is_word(i, "byte") {
        return Some(false);
    }
    if ctx.is_word(i, "bit") {
        return Some(true);
    }
    ctx.reply.syntax_error();
    None
}

fn count_bits(value: &[u8], range: std::ops::Range<usize>) -> u64 {
    let (first, last) = (range.start / 8, range.end / 8);
    if range.is_empty() {
        return 0;
    }
    let head = 0xff_u8 >> (range.start % 8);
    let tail = !(0xff_u8 >> (range.end % 8));
    if first == last {
        return u64::from((value[first] & head & tail).count_ones());
    }
    let mut n = u64::from((value[first] & head).count_ones());
    n += value[first + 1..last].iter().map(|b| u64::from(b.count_ones())).sum::<u64>();
    if !range.end.is_multiple_of(8) {
        n += u64::from((value[last] & tail).count_ones());
    }
    n
}

fn bitcount(ctx: &mut Ctx<'_, '_>) {
    let (mut range, mut unit) = ((0, -1), false);
    match ctx.args.len() {
        2 => {}
        4 | 5 => {
            let Some(start) = ctx.int_arg(2) else { return };
            let Some(end) = ctx.int_arg(3) else { return };
            let Some(bits) = in_bits(ctx, 4) else { return };
            (range, unit) = ((start, end), bits);
        }
        _ => return ctx.reply.syntax_error(),
    }
    match ctx.db.string(ctx.args[1]) {
        Err(WrongType) => ctx.reply.wrong_type(),
        Ok(value) => {
            let value = value.unwrap_or_default();
            ctx.reply.int(count_bits(value, bit_range(range, unit, value.len())) as i64);
        }
    }
}

fn bitpos(ctx: &mut Ctx<'_, '_>) {
    let wanted = match ctx.args[2] {
        b"0" => false,
        b"1" => true,
        other if parse_i64(other).is_none() => return ctx.reply.not_an_integer(),
        _ => return ctx.reply.error("ERR The bit argument must be 1 or 0."),
    };
    let n = ctx.args.len();
    if n > 6 {
        return ctx.reply.syntax_error();
    }
    let mut range = (0, -1);
    if n > 3 {
        let Some(start) = ctx.int_arg(3) else { return };
        range.0 = start;
    }
    if n > 4 {
        let Some(end) = ctx.int_arg(4) else { return };
        range.1 = end;
    }
    let Some(unit) = in_bits(ctx, 5) else { return };
    let value = match ctx.db.string(ctx.args[1]) {
        Err(WrongType) => return ctx.reply.wrong_type(),
        Ok(None) => return ctx.reply.int(if wanted { -1 } else { 0 }),
        Ok(Some(value)) => value,
    };
    let bits = bit_range(range, unit, value.len());
    let found = find_bit(value, bits.clone(), wanted);
    ctx.reply.int(match found {
        Some(at) => at as i64,
        // Behind a value of ones there are zeros without end, unless an end was named.
        None if !wanted && n <= 4 && !bits.is_empty() => value.len() as i64 * 8,
        None => -1,
    });
}

fn find_bit(value: &[u8], bits: std::ops::Range<usize>, wanted: bool) -> Option<usize> {
    let none = if wanted { 0 } else { 0xff };
    let mut bit = bits.start;
    while bit < bits.end {
        let byte = value[bit / 8];
        if bit.is_multiple_of(8) && byte == none {
            bit += 8;
            continue;
        }
        if (byte & mask(bit) != 0) == wanted {
            return Some(bit);
        }
        bit += 1;
    }
    None
}

fn bitop(ctx: &mut Ctx<'_, '_>) {
    let (target, sources) = (ctx.args[2], &ctx.args[3..]);
    let op: fn(u8, u8) -> u8 = match ctx.args[1].to_ascii_lowercase().as_slice() {
        b"and" => |a, b| a & b,
        b"or" => |a, b| a | b,
        b"xor" => |a, b| a ^ b,
        b"not" if sources.len() != 1 => {
            return ctx.reply.error("ERR BITOP NOT must be called with a single source key.");
        }
        b"not" => |a, _| !a,
        _ => return ctx.reply.syntax_error(),
    };
    let is_not = ctx.is_word(1, "not");
    let mut values: SmallVec<[Vec<u8>; 4]> = SmallVec::new();
    for key in sources {
        match ctx.db.string(key) {
            Err(WrongType) => return ctx.reply.wrong_type(),
            Ok(value) => values.push(value.unwrap_or_default().to_vec()),
        }
    }
    let len = values.iter().map(Vec::len).max().unwrap_or(0);
    if len > value_bytes_max(ctx) {
        return ctx.reply.error(TOO_LONG);
    }
    let mut out = std::mem::take(&mut values[0]);
    out.resize(len, 0);
    if is_not {
        out.iter_mut().for_each(|byte| *byte = op(*byte, 0));
    }
    for value in &values[1..] {
        for (i, byte) in out.iter_mut().enumerate() {
            *byte = op(*byte, value.get(i).copied().unwrap_or(0));
        }
    }
    if out.is_empty() {
        if ctx.db.remove(target) {
            ctx.modified(target);
        }
    } else {
        ctx.db.set(target, &out, Ttl::Clear);
        ctx.modified(target);
    }
    ctx.reply.int(len as i64);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_counted_and_found_at_every_border() {
        let value = [0b1010_1010, 0xff, 0x00, 0b0000_0001];
        for start in 0..32 {
            for end in start..=32 {
                let bit = |i: usize| value[i / 8] & mask(i) != 0;
                let expected = (start..end).filter(|i| bit(*i)).count() as u64;
                assert_eq!(count_bits(&value, start..end), expected, "{start}..{end}");
                for wanted in [false, true] {
                    let expected = (start..end).find(|i| bit(*i) == wanted);
                    assert_eq!(find_bit(&value, start..end, wanted), expected, "{start}..{end}");
                }
            }
        }
    }
}
