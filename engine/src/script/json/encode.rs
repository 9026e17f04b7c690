//! Values as text.

use mlua::{Lua, MultiValue, Table, Value};

use super::settings::{Invalid, Settings};
use super::{DEPTH_MAX, STEPS_PER_VALUE, one};
use crate::script::api::{Fail, Outcome, argument_error, as_number, spend, type_name};
use crate::script::format::general;
use crate::script::interpreter::State;

/// Longest text, bytes.
const TEXT_BYTES_MAX: usize = 64 << 20;

pub(super) fn encode(
    lua: &Lua,
    state: &State,
    settings: &Settings,
    args: &MultiValue,
) -> Outcome<MultiValue> {
    let (1, Some(value)) = (args.len(), args.front()) else {
        return Err(argument_error(0, "encode", "expected 1 argument"));
    };
    let mut writer = Writer { lua, state, settings, out: Vec::new() };
    writer.value(value, 0)?;
    Ok(one(Value::String(lua.create_string(writer.out)?)))
}

struct Writer<'s> {
    lua: &'s Lua,
    state: &'s State,
    settings: &'s Settings,
    out: Vec<u8>,
}

impl Writer<'_> {
    fn value(&mut self, value: &Value, depth: usize) -> Outcome<()> {
        if self.out.len() > TEXT_BYTES_MAX {
            return Err("not enough memory".into());
        }
        // Tables within each other twice and again make a long text of a few of them.
        spend(self.lua, self.state, STEPS_PER_VALUE)?;
        match value {
            Value::String(text) => self.string(&text.as_bytes()),
            Value::Integer(n) => self.number(*n as f64)?,
            Value::Number(n) => self.number(*n)?,
            Value::Boolean(yes) => {
                self.out.extend_from_slice(if *yes { b"true" } else { b"false" })
            }
            Value::Nil => self.out.extend_from_slice(b"null"),
            Value::LightUserData(at) if at.0.is_null() => self.out.extend_from_slice(b"null"),
            Value::Table(table) => self.table(table, depth + 1)?,
            other => return Err(refused(Some(other), "type not supported")),
        }
        Ok(())
    }

    fn table(&mut self, table: &Table, depth: usize) -> Outcome<()> {
        if depth as i64 > self.settings.encode_depth || depth > DEPTH_MAX {
            return Err(format!("Cannot serialise, excessive nesting ({depth})").into());
        }
        match self.array_len(table)? {
            Some(len) if len > 0 => {
                self.out.push(b'[');
                for at in 1..=len {
                    if at > 1 {
                        self.out.push(b',');
                    }
                    self.value(&table.raw_get(at)?, depth)?;
                }
                self.out.push(b']');
            }
            _ => {
                self.out.push(b'{');
                let mut is_first = true;
                for pair in table.pairs::<Value, Value>() {
                    let (key, value) = pair?;
                    if !std::mem::replace(&mut is_first, false) {
                        self.out.push(b',');
                    }
                    match &key {
                        Value::String(text) => self.string(&text.as_bytes()),
                        Value::Integer(_) | Value::Number(_) => {
                            self.out.push(b'"');
                            self.number(as_number(&key).unwrap_or_default())?;
                            self.out.push(b'"');
                        }
                        _ => {
                            return Err(refused(
                                Some(&key),
                                "table key must be a number or string",
                            ));
                        }
                    }
                    self.out.push(b':');
                    self.value(&value, depth)?;
                }
                self.out.push(b'}');
            }
        }
        Ok(())
    }

    /// Length of a table as an array; nothing when it is an object.
    fn array_len(&self, table: &Table) -> Outcome<Option<i64>> {
        let (mut max, mut items) = (0i64, 0i64);
        for pair in table.pairs::<Value, Value>() {
            let key = match pair?.0 {
                Value::Integer(n) => n as f64,
                Value::Number(n) => n,
                _ => return Ok(None),
            };
            if key < 1.0 || key.floor() != key || key > 9e15 {
                return Ok(None);
            }
            max = max.max(key as i64);
            items += 1;
        }
        let s = &self.settings;
        if s.sparse_ratio > 0 && max > items.saturating_mul(s.sparse_ratio) && max > s.sparse_safe {
            if !s.sparse_convert {
                return Err("Cannot serialise table: excessively sparse array".into());
            }
            return Ok(None);
        }
        Ok(Some(max))
    }

    fn number(&mut self, number: f64) -> Outcome<()> {
        if !number.is_finite() {
            match self.settings.encode_invalid {
                Invalid::Null => {
                    self.out.extend_from_slice(b"null");
                    return Ok(());
                }
                Invalid::Off => {
                    let value = Value::Number(number);
                    return Err(refused(Some(&value), "must not be NaN or Inf"));
                }
                Invalid::On => {}
            }
        }
        let text = general(number, self.settings.precision as usize);
        self.out.extend_from_slice(text.as_bytes());
        Ok(())
    }

    fn string(&mut self, text: &[u8]) {
        self.out.push(b'"');
        for byte in text {
            let escape: &[u8] = match byte {
                b'"' => b"\\\"",
                b'\\' => b"\\\\",
                b'/' => b"\\/",
                8 => b"\\b",
                9 => b"\\t",
                10 => b"\\n",
                12 => b"\\f",
                13 => b"\\r",
                0..32 | 127 => {
                    self.out.extend_from_slice(format!("\\u{byte:04x}").as_bytes());
                    continue;
                }
                _ => {
                    self.out.push(*byte);
                    continue;
                }
            };
            self.out.extend_from_slice(escape);
        }
        self.out.push(b'"');
    }
}

fn refused(value: Option<&Value>, why: &str) -> Fail {
    format!("Cannot serialise {}: {why}", type_name(value)).into()
}
