//! The settings, and the functions that change and tell them.

use mlua::{Lua, MultiValue, Value};

use super::one;
use crate::script::api::{Outcome, argument_error, number_arg, string_arg};

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Invalid {
    Off,
    On,
    Null,
}

#[derive(Clone)]
pub(super) struct Settings {
    pub(super) sparse_convert: bool,
    pub(super) sparse_ratio: i64,
    pub(super) sparse_safe: i64,
    pub(super) encode_depth: i64,
    pub(super) decode_depth: i64,
    pub(super) precision: i64,
    pub(super) keep_buffer: bool,
    pub(super) encode_invalid: Invalid,
    pub(super) decode_invalid: bool,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            sparse_convert: false,
            sparse_ratio: 2,
            sparse_safe: 10,
            encode_depth: 1000,
            decode_depth: 1000,
            precision: 14,
            keep_buffer: true,
            encode_invalid: Invalid::Off,
            decode_invalid: true,
        }
    }
}

fn at_most(args: &MultiValue, many: usize, name: &str) -> Outcome<()> {
    if args.len() > many {
        return Err(argument_error(many, name, "found too many arguments"));
    }
    Ok(())
}

fn given(args: &MultiValue, at: usize) -> Option<&Value> {
    args.get(at).filter(|value| !value.is_nil())
}

fn integer_at(
    args: &MultiValue,
    at: usize,
    name: &str,
    to: &mut i64,
    range: (i64, i64),
) -> Outcome<()> {
    if given(args, at).is_some() {
        let value = number_arg(args, at, name)? as i64;
        if !(range.0..=range.1).contains(&value) {
            let text = format!("expected integer between {} and {}", range.0, range.1);
            return Err(argument_error(at, name, &text));
        }
        *to = value;
    }
    Ok(())
}

pub(super) fn integer(
    args: &MultiValue,
    name: &str,
    to: &mut i64,
    max: i64,
) -> Outcome<MultiValue> {
    at_most(args, 1, name)?;
    integer_at(args, 0, name, to, (1, max))?;
    Ok(one(Value::Number(*to as f64)))
}

/// A boolean, or one of the words that stand for both.
fn switch(args: &MultiValue, at: usize, name: &str) -> Outcome<Option<Vec<u8>>> {
    match given(args, at) {
        None => Ok(None),
        Some(Value::Boolean(yes)) => Ok(Some(if *yes { b"on".to_vec() } else { b"off".to_vec() })),
        Some(_) => string_arg(args, at, name).map(Some),
    }
}

fn on_or_off(args: &MultiValue, at: usize, name: &str, to: &mut bool) -> Outcome<()> {
    match switch(args, at, name)?.as_deref() {
        None => {}
        Some(b"on") => *to = true,
        Some(b"off") => *to = false,
        Some(other) => {
            let text = format!("invalid option '{}'", String::from_utf8_lossy(other));
            return Err(argument_error(at, name, &text));
        }
    }
    Ok(())
}

pub(super) fn encode_sparse_array(
    _: &Lua,
    s: &mut Settings,
    args: &MultiValue,
) -> Outcome<MultiValue> {
    let (name, max) = ("encode_sparse_array", i64::from(i32::MAX));
    at_most(args, 3, name)?;
    on_or_off(args, 0, name, &mut s.sparse_convert)?;
    integer_at(args, 1, name, &mut s.sparse_ratio, (0, max))?;
    integer_at(args, 2, name, &mut s.sparse_safe, (0, max))?;
    let numbers = [s.sparse_ratio, s.sparse_safe].map(|n| Value::Number(n as f64));
    Ok(std::iter::once(Value::Boolean(s.sparse_convert)).chain(numbers).collect())
}

pub(super) fn encode_keep_buffer(
    _: &Lua,
    s: &mut Settings,
    args: &MultiValue,
) -> Outcome<MultiValue> {
    at_most(args, 1, "encode_keep_buffer")?;
    on_or_off(args, 0, "encode_keep_buffer", &mut s.keep_buffer)?;
    Ok(one(Value::Boolean(s.keep_buffer)))
}

pub(super) fn decode_invalid_numbers(
    _: &Lua,
    s: &mut Settings,
    args: &MultiValue,
) -> Outcome<MultiValue> {
    at_most(args, 1, "decode_invalid_numbers")?;
    on_or_off(args, 0, "decode_invalid_numbers", &mut s.decode_invalid)?;
    Ok(one(Value::Boolean(s.decode_invalid)))
}

pub(super) fn encode_invalid_numbers(
    lua: &Lua,
    s: &mut Settings,
    args: &MultiValue,
) -> Outcome<MultiValue> {
    let name = "encode_invalid_numbers";
    at_most(args, 1, name)?;
    if switch(args, 0, name)?.as_deref() == Some(b"null") {
        s.encode_invalid = Invalid::Null;
    } else {
        let mut is_on = s.encode_invalid == Invalid::On;
        on_or_off(args, 0, name, &mut is_on)?;
        if given(args, 0).is_some() {
            s.encode_invalid = if is_on { Invalid::On } else { Invalid::Off };
        }
    }
    Ok(one(match s.encode_invalid {
        Invalid::Null => Value::String(lua.create_string("null")?),
        other => Value::Boolean(other == Invalid::On),
    }))
}
