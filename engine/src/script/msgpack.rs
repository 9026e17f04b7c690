//! `cmsgpack`: MessagePack as lua-cmsgpack 0.4 reads and writes it.
//!
//! Whole numbers are written in as few bytes as hold them, others as float where it holds them, else as double. Tables
//! within 16 tables are written as nil. A table whose keys are 1 to n is an array, also an empty one.

use std::rc::Rc;

use mlua::{Lua, MultiValue, Result, Table, Value};

use super::api::{Fail, Outcome, argument_error, fallible, number_arg, spend, string_arg};
use super::interpreter::State;

/// Tables within tables that are written.
const NESTING_MAX: usize = 16;
/// Arrays and maps within each other that are read.
const DEPTH_MAX: usize = 1000;
/// Longest text, bytes.
const TEXT_BYTES_MAX: usize = 64 << 20;
/// Steps that a value counts as.
const STEPS_PER_VALUE: usize = 10;

/// What a value is read or written for.
struct Job<'j> {
    lua: &'j Lua,
    state: &'j State,
}

impl Job<'_> {
    /// A value more: tables within each other twice and again make many of a few of them.
    fn spend(&self) -> Outcome<()> {
        spend(self.lua, self.state, STEPS_PER_VALUE)
    }
}

pub(super) fn library(lua: &Lua, state: &Rc<State>) -> Result<Table> {
    let table = lua.create_table()?;
    let with_state = |f: fn(&Job<'_>, &MultiValue) -> Outcome<MultiValue>| {
        let state = state.clone();
        fallible(lua, move |lua, args| f(&Job { lua, state: &state }, &args))
    };
    table.raw_set("pack", with_state(pack)?)?;
    table.raw_set("unpack", with_state(|job, args| unpack(job, args, "unpack", None, 0))?)?;
    let one = with_state(|job, args| {
        let offset = optional(args, 1, "unpack_one")?;
        unpack(job, args, "unpack_one", Some(1), offset)
    })?;
    table.raw_set("unpack_one", one)?;
    let limit = with_state(|job, args| {
        let limit = number_arg(args, 1, "unpack_limit")? as i64;
        unpack(job, args, "unpack_limit", Some(limit), optional(args, 2, "unpack_limit")?)
    })?;
    table.raw_set("unpack_limit", limit)?;
    table.raw_set("_NAME", "cmsgpack")?;
    table.raw_set("_VERSION", "lua-cmsgpack 0.4.0")?;
    table.raw_set("_DESCRIPTION", "MessagePack C implementation for Lua")?;
    Ok(table)
}

fn optional(args: &MultiValue, at: usize, name: &str) -> Outcome<i64> {
    match args.get(at) {
        None | Some(Value::Nil) => Ok(0),
        Some(_) => Ok(number_arg(args, at, name)? as i64),
    }
}

fn pack(job: &Job<'_>, args: &MultiValue) -> Outcome<MultiValue> {
    if args.is_empty() {
        return Err("bad argument #0 to 'pack' (MessagePack pack needs input.)".into());
    }
    let mut out = Vec::new();
    for value in args {
        write(job, &mut out, value, 0)?;
    }
    Ok(MultiValue::from_iter([Value::String(job.lua.create_string(out)?)]))
}

fn write(job: &Job<'_>, out: &mut Vec<u8>, value: &Value, level: usize) -> Outcome<()> {
    job.spend()?;
    if out.len() > TEXT_BYTES_MAX {
        return Err("not enough memory".into());
    }
    match value {
        Value::String(text) => {
            let text = text.as_bytes();
            head(out, text.len(), (0xa0, 31), &[0xd9, 0xda, 0xdb]);
            out.extend_from_slice(&text);
        }
        Value::Boolean(yes) => out.push(if *yes { 0xc3 } else { 0xc2 }),
        Value::Integer(n) => write_integer(out, *n),
        Value::Number(n) => write_number(out, *n),
        Value::Table(table) if level < NESTING_MAX => return write_table(job, out, table, level),
        _ => out.push(0xc0),
    }
    Ok(())
}

/// A length: in the first byte up to a limit, else behind a byte for each of its sizes (1, 2, 4 bytes; the last two).
fn head(out: &mut Vec<u8>, len: usize, short: (u8, usize), long: &[u8]) {
    let (two, four) = (long[long.len() - 2], long[long.len() - 1]);
    if len <= short.1 {
        out.push(short.0 | len as u8);
    } else if long.len() == 3 && len <= 0xff {
        out.extend_from_slice(&[long[0], len as u8]);
    } else if len <= 0xffff {
        out.push(two);
        out.extend_from_slice(&(len as u16).to_be_bytes());
    } else {
        out.push(four);
        out.extend_from_slice(&(len as u32).to_be_bytes());
    }
}

fn write_number(out: &mut Vec<u8>, n: f64) {
    let is_whole = n.trunc() == n && (-TWO_63..TWO_63).contains(&n);
    if is_whole {
        return write_integer(out, n as i64);
    }
    let short = n as f32;
    if f64::from(short) == n {
        out.push(0xca);
        out.extend_from_slice(&short.to_be_bytes());
    } else {
        out.push(0xcb);
        out.extend_from_slice(&n.to_be_bytes());
    }
}

fn write_integer(out: &mut Vec<u8>, n: i64) {
    let mut put = |code: u8, bytes: &[u8]| {
        out.push(code);
        out.extend_from_slice(bytes);
    };
    match n {
        0..=0x7f => put(n as u8, &[]),
        0x80..=0xff => put(0xcc, &[n as u8]),
        0x100..=0xffff => put(0xcd, &(n as u16).to_be_bytes()),
        0x1_0000..=0xffff_ffff => put(0xce, &(n as u32).to_be_bytes()),
        0x1_0000_0000.. => put(0xcf, &n.to_be_bytes()),
        -32..0 => put(n as u8, &[]),
        -0x80..-32 => put(0xd0, &[n as u8]),
        -0x8000..-0x80 => put(0xd1, &(n as i16).to_be_bytes()),
        -0x8000_0000..-0x8000 => put(0xd2, &(n as i32).to_be_bytes()),
        _ => put(0xd3, &n.to_be_bytes()),
    }
}

fn write_table(job: &Job<'_>, out: &mut Vec<u8>, table: &Table, level: usize) -> Outcome<()> {
    let (mut max, mut count, mut is_array) = (0.0, 0usize, true);
    for pair in table.pairs::<Value, Value>() {
        count += 1;
        job.spend()?;
        match pair?.0 {
            Value::Integer(n) if n > 0 => max = f64::max(max, n as f64),
            Value::Number(n) if n > 0.0 && n.trunc() == n => max = f64::max(max, n),
            _ => is_array = false,
        }
    }
    if is_array && max == count as f64 {
        head(out, count, (0x90, 15), &[0xdc, 0xdd]);
        for at in 1..=count {
            write(job, out, &table.raw_get(at)?, level + 1)?;
        }
        return Ok(());
    }
    head(out, count, (0x80, 15), &[0xde, 0xdf]);
    for pair in table.pairs::<Value, Value>() {
        let (key, value) = pair?;
        write(job, out, &key, level + 1)?;
        write(job, out, &value, level + 1)?;
    }
    Ok(())
}

/// The first double that is no integer of 64 bits.
const TWO_63: f64 = 9_223_372_036_854_775_808.0;

const MISSING: &str = "Missing bytes in input.";
const BAD: &str = "Bad data format in input.";

/// `unpack` gives every value; with a limit they are so many at most, behind the offset of the next one.
fn unpack(
    job: &Job<'_>,
    args: &MultiValue,
    name: &str,
    limit: Option<i64>,
    offset: i64,
) -> Outcome<MultiValue> {
    let text = string_arg(args, 0, name)?;
    let most = limit.unwrap_or(0);
    if most < 0 || offset < 0 {
        return Err(format!(
            "Invalid request to unpack with offset of {offset} and limit of {}.",
            text.len()
        )
        .into());
    }
    if offset > text.len() as i64 {
        return Err(
            format!("Start offset {offset} greater than input length {}.", text.len()).into()
        );
    }
    let is_all = most == 0 && offset == 0;
    let most = if is_all { i64::MAX } else { most };
    let mut reader = Reader { job, rest: &text[offset as usize..] };
    let mut values = Vec::new();
    while !reader.rest.is_empty() && (values.len() as i64) < most {
        values.push(reader.value(0)?);
        if values.len() > RESULTS_MAX {
            return Err(argument_error(
                0,
                name,
                "too many return values at once; use unpack_one or unpack_limit instead.",
            ));
        }
    }
    if !is_all {
        let next = text.len() - reader.rest.len();
        let next = if reader.rest.is_empty() { -1.0 } else { next as f64 };
        values.insert(0, Value::Number(next));
    }
    Ok(values.into_iter().collect())
}

/// Results of one call, as many as the interpreter's stack takes.
const RESULTS_MAX: usize = 7000;

/// An error of the interpreter's own, which does not tell its place.
fn place_less(text: &str) -> Fail {
    Fail::Lua(mlua::Error::RuntimeError(text.into()))
}

struct Reader<'r> {
    job: &'r Job<'r>,
    rest: &'r [u8],
}

impl<'r> Reader<'r> {
    fn bytes(&mut self, len: usize) -> Outcome<&'r [u8]> {
        let (bytes, rest) = self.rest.split_at_checked(len).ok_or(MISSING)?;
        self.rest = rest;
        Ok(bytes)
    }

    fn unsigned(&mut self, len: usize) -> Outcome<u64> {
        Ok(self.bytes(len)?.iter().fold(0, |n, byte| n << 8 | u64::from(*byte)))
    }

    /// A number of so many bytes, with its sign.
    fn signed(&mut self, len: usize) -> Outcome<Value> {
        let shift = 64 - 8 * len as u32;
        Ok(Value::Number(((self.unsigned(len)? << shift) as i64 >> shift) as f64))
    }

    fn string(&mut self, len: u64) -> Outcome<Value> {
        let len = usize::try_from(len).map_err(|_| MISSING)?;
        Ok(Value::String(self.job.lua.create_string(self.bytes(len)?)?))
    }

    fn value(&mut self, depth: usize) -> Outcome<Value> {
        if depth > DEPTH_MAX {
            return Err("stack overflow (too many nested values)".into());
        }
        self.job.spend()?;
        let code = self.bytes(1)?[0];
        Ok(match code {
            0x00..=0x7f => Value::Number(f64::from(code)),
            0xe0..=0xff => Value::Number(f64::from(code as i8)),
            0xc0 => Value::Nil,
            0xc2 => Value::Boolean(false),
            0xc3 => Value::Boolean(true),
            0xca => Value::Number(f64::from(f32::from_bits(self.unsigned(4)? as u32))),
            0xcb => Value::Number(f64::from_bits(self.unsigned(8)?)),
            // The largest read as negative numbers, as there.
            0xcc..=0xcf => Value::Number(self.unsigned(1 << (code - 0xcc))? as i64 as f64),
            0xd0..=0xd3 => self.signed(1 << (code - 0xd0))?,
            0xa0..=0xbf => self.string(u64::from(code & 31))?,
            0xd9..=0xdb => {
                let len = self.unsigned(1 << (code - 0xd9))?;
                self.string(len)?
            }
            0x90..=0x9f => self.array(u64::from(code & 15), depth)?,
            0xdc | 0xdd => {
                let len = self.unsigned(2 << (code - 0xdc))?;
                self.array(len, depth)?
            }
            0x80..=0x8f => self.map(u64::from(code & 15), depth)?,
            0xde | 0xdf => {
                let len = self.unsigned(2 << (code - 0xde))?;
                self.map(len, depth)?
            }
            _ => return Err(BAD.into()),
        })
    }

    fn array(&mut self, len: u64, depth: usize) -> Outcome<Value> {
        let table = self.job.lua.create_table()?;
        for at in 1..=len {
            table.raw_set(at, self.value(depth + 1)?)?;
        }
        Ok(Value::Table(table))
    }

    fn map(&mut self, len: u64, depth: usize) -> Outcome<Value> {
        let table = self.job.lua.create_table()?;
        for _ in 0..len {
            let key = self.value(depth + 1)?;
            let value = self.value(depth + 1)?;
            match key {
                Value::Nil => return Err(place_less("table index is nil")),
                Value::Number(n) if n.is_nan() => return Err(place_less("table index is NaN")),
                key => table.raw_set(key, value)?,
            }
        }
        Ok(Value::Table(table))
    }
}
