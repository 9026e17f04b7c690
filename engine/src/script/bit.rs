//! `bit`: operations on numbers as 32-bit words, as Lua BitOp 1.0 defines them.
//!
//! A number is taken modulo 2^32, halves to even; results are signed.

use mlua::{Lua, MultiValue, Result, Table, Value};

use super::api::{Fail, fallible, number_arg};

/// 2^52 + 2^51: added to a double, its low word is the double modulo 2^32, rounded as the processor rounds.
const BIAS: f64 = 6_755_399_441_055_744.0;

fn word(args: &MultiValue, at: usize, name: &str) -> std::result::Result<u32, Fail> {
    Ok((number_arg(args, at, name)? + BIAS).to_bits() as u32)
}

fn signed(word: u32) -> MultiValue {
    MultiValue::from_iter([Value::Number(f64::from(word as i32))])
}

type Pair = fn(u32, u32) -> u32;
type Single = fn(u32) -> u32;

pub(super) fn library(lua: &Lua) -> Result<Table> {
    let table = lua.create_table()?;
    let folds: [(&'static str, Pair); 3] =
        [("band", |a, b| a & b), ("bor", |a, b| a | b), ("bxor", |a, b| a ^ b)];
    for (name, fold) in folds {
        let f = fallible(lua, move |_, args| {
            let mut result = word(&args, 0, name)?;
            for at in 1..args.len() {
                result = fold(result, word(&args, at, name)?);
            }
            Ok(signed(result))
        })?;
        table.raw_set(name, f)?;
    }
    let shifts: [(&'static str, Pair); 5] = [
        ("lshift", |a, n| a << (n & 31)),
        ("rshift", |a, n| a >> (n & 31)),
        ("arshift", |a, n| ((a as i32) >> (n & 31)) as u32),
        ("rol", |a, n| a.rotate_left(n & 31)),
        ("ror", |a, n| a.rotate_right(n & 31)),
    ];
    for (name, shift) in shifts {
        let f = fallible(lua, move |_, args| {
            Ok(signed(shift(word(&args, 0, name)?, word(&args, 1, name)?)))
        })?;
        table.raw_set(name, f)?;
    }
    let singles: [(&'static str, Single); 3] =
        [("tobit", |a| a), ("bnot", |a| !a), ("bswap", u32::swap_bytes)];
    for (name, single) in singles {
        let f = fallible(lua, move |_, args| Ok(signed(single(word(&args, 0, name)?))))?;
        table.raw_set(name, f)?;
    }
    table.raw_set("tohex", fallible(lua, |lua, args| tohex(lua, &args))?)?;
    Ok(table)
}

/// The last digits of a word; a negative count asks for capitals.
fn tohex(lua: &Lua, args: &MultiValue) -> std::result::Result<MultiValue, Fail> {
    let value = word(args, 0, "tohex")?;
    let digits = if args.len() < 2 { 8 } else { word(args, 1, "tohex")? as i32 };
    let many = digits.unsigned_abs().min(8) as usize;
    let text = if digits < 0 { format!("{value:08X}") } else { format!("{value:08x}") };
    let text = lua.create_string(&text[8 - many..])?;
    Ok(MultiValue::from_iter([Value::String(text)]))
}
