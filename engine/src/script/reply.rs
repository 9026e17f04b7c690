//! Values to and from the wire: what a command replied as Lua values, and what a script returns as a reply.
//!
//! | wire | Lua | | Lua | wire |
//! |---|---|-|---|---|
//! | integer | number | | number | integer, its fraction cut off |
//! | bulk string | string | | string | bulk string |
//! | null | false; nil in RESP3 | | false | null; a boolean in RESP3 |
//! | status | `{ok = text}` | | true | 1; a boolean in RESP3 |
//! | error | `{err = text}` | | `{ok = }`, `{err = }` | status, error |
//! | array | table | | table | array, up to the first nil |
//! | map, set | `{map = }`, `{set = }` | | the same | the same |
//! | double, big number, verbatim | `{double = }`, `{big_number = }`, `{verbatim_string = }` | | the same | the same |

use mlua::{Lua, LuaString, Result, Table, Value};

use super::pattern::Budget;
use crate::resp::Reply;

/// Tables within tables that a script may return; deeper ones are an error where they stand.
const DEPTH_MAX: usize = 500;

/// One reply as a Lua value. Replies are ours, and whole.
pub(super) fn to_lua(lua: &Lua, bytes: &[u8]) -> Result<Value> {
    Reader { lua, rest: bytes }.value()
}

/// The table that an error is. `message` has its code first.
pub(super) fn error_table(lua: &Lua, message: &[u8]) -> Result<Table> {
    let table = lua.create_table_with_capacity(0, 2)?;
    table.raw_set("err", lua.create_string(message)?)?;
    table.raw_set("ignore_error_stats_update", true)?;
    Ok(table)
}

struct Reader<'b> {
    lua: &'b Lua,
    rest: &'b [u8],
}

impl<'b> Reader<'b> {
    fn line(&mut self) -> &'b [u8] {
        let end = memchr::memmem::find(self.rest, b"\r\n").unwrap_or(self.rest.len());
        let (line, rest) = self.rest.split_at(end);
        self.rest = rest.get(2..).unwrap_or_default();
        line
    }

    fn bytes(&mut self, len: usize) -> &'b [u8] {
        let (bytes, rest) = self.rest.split_at(len.min(self.rest.len()));
        self.rest = rest.get(2..).unwrap_or_default();
        bytes
    }

    fn field(&self, name: &str, value: Value) -> Result<Value> {
        let table = self.lua.create_table_with_capacity(0, 1)?;
        table.raw_set(name, value)?;
        Ok(Value::Table(table))
    }

    fn string(&self, bytes: &[u8]) -> Result<Value> {
        Ok(Value::String(self.lua.create_string(bytes)?))
    }

    fn value(&mut self) -> Result<Value> {
        let line = self.line();
        let Some((kind, text)) = line.split_first() else { return Ok(Value::Nil) };
        let number = || crate::number::parse_i64(text).unwrap_or(0);
        let len = || usize::try_from(number()).ok();
        Ok(match kind {
            b'+' => {
                let text = self.string(text)?;
                self.field("ok", text)?
            }
            b'-' => Value::Table(error_table(self.lua, text)?),
            b':' => Value::Number(number() as f64),
            b'$' => match len() {
                Some(len) => {
                    let bytes = self.bytes(len);
                    self.string(bytes)?
                }
                None => Value::Boolean(false),
            },
            b'*' | b'>' => match len() {
                Some(len) => {
                    let table = self.lua.create_table_with_capacity(len, 0)?;
                    for at in 1..=len {
                        table.raw_set(at, self.value()?)?;
                    }
                    Value::Table(table)
                }
                None => Value::Boolean(false),
            },
            b'%' => {
                let table = self.lua.create_table_with_capacity(0, len().unwrap_or(0))?;
                for _ in 0..len().unwrap_or(0) {
                    let key = self.value()?;
                    let value = self.value()?;
                    table.raw_set(key, value)?;
                }
                self.field("map", Value::Table(table))?
            }
            b'~' => {
                let table = self.lua.create_table_with_capacity(0, len().unwrap_or(0))?;
                for _ in 0..len().unwrap_or(0) {
                    table.raw_set(self.value()?, true)?;
                }
                self.field("set", Value::Table(table))?
            }
            b'#' => Value::Boolean(text == b"t"),
            b',' => {
                let value = crate::number::parse_bound(text)
                    .or_else(|| crate::number::parse_f64(text))
                    .unwrap_or(f64::NAN);
                self.field("double", Value::Number(value))?
            }
            b'(' => {
                let text = self.string(text)?;
                self.field("big_number", text)?
            }
            b'=' => {
                let body = self.bytes(len().unwrap_or(0));
                let table = self.lua.create_table_with_capacity(0, 2)?;
                table.raw_set("format", self.string(body.get(..3).unwrap_or_default())?)?;
                table.raw_set("string", self.string(body.get(4..).unwrap_or_default())?)?;
                self.field("verbatim_string", Value::Table(table))?
            }
            _ => Value::Nil,
        })
    }
}

/// A number as an integer, its fraction cut off; what does not fit is the smallest one, as the processor of
/// most servers has it.
pub(super) fn truncated(number: f64) -> i64 {
    let fits = number > -9.3e18 && number < 9_223_372_036_854_775_807.0;
    if fits { number as i64 } else { i64::MIN }
}

/// What a script returned, as a reply. `resp3`: the script speaks RESP3 (`redis.setresp`). `false`: the budget has ended.
pub(super) fn from_lua(reply: &mut Reply, value: &Value, resp3: bool, budget: &dyn Budget) -> bool {
    let mut writer = Writer { reply, resp3, budget, is_over: false };
    writer.write(value, 0);
    !writer.is_over
}

/// Steps that a value counts as: tables within each other twice and again make many of a few of them.
const STEPS_PER_VALUE: usize = 10;

struct Writer<'w> {
    reply: &'w mut Reply,
    resp3: bool,
    budget: &'w dyn Budget,
    is_over: bool,
}

impl Writer<'_> {
    /// Nothing more is written: the reply is as long as it may be, or the script is being ended.
    fn ends(&self) -> bool {
        self.is_over || self.reply.over
    }

    fn write(&mut self, value: &Value, depth: usize) {
        if !self.budget.spend(STEPS_PER_VALUE) {
            self.is_over = true;
        }
        if self.ends() {
            return;
        }
        match value {
            Value::String(text) => self.reply.bulk(&text.as_bytes()),
            Value::Integer(n) => self.reply.int(*n),
            Value::Number(n) => self.reply.int(truncated(*n)),
            Value::Boolean(yes) if self.resp3 => self.reply.bool(*yes),
            Value::Boolean(true) => self.reply.int(1),
            Value::Table(_) if depth >= DEPTH_MAX => {
                self.reply.error("ERR reached lua stack limit")
            }
            Value::Table(table) => self.table(table, depth),
            _ => self.reply.null(),
        }
    }

    fn table(&mut self, table: &Table, depth: usize) {
        // Of the names that mean something the first that is there counts; most tables are arrays with none.
        let is_plain = !matches!(table.raw_get::<Value>(1), Ok(Value::Nil));
        if let Some(text) = text_of(table, "err") {
            return write_error(self.reply, &text.as_bytes());
        }
        if let Some(text) = text_of(table, "ok") {
            self.reply.out.push(b'+');
            self.reply.out.extend_from_slice(&one_line(&text));
            self.reply.out.extend_from_slice(b"\r\n");
            return;
        }
        if (!is_plain || table.raw_len() < 64) && self.typed(table, depth) {
            return;
        }
        let begin = self.reply.begin();
        let mut n = 0;
        while !self.ends() {
            match table.raw_get::<Value>(n + 1) {
                Ok(Value::Nil) | Err(_) => break,
                Ok(value) => self.write(&value, depth + 1),
            }
            n += 1;
        }
        self.reply.end_array(begin, n);
    }

    /// Writes a table that stands for a value of RESP3; `false` when it does not.
    fn typed(&mut self, table: &Table, depth: usize) -> bool {
        match table.raw_get::<Value>("double") {
            Ok(Value::Number(n)) => self.reply.double(n),
            Ok(Value::Integer(n)) => self.reply.double(n as f64),
            _ => return self.collected(table, depth),
        }
        true
    }

    fn collected(&mut self, table: &Table, depth: usize) -> bool {
        if let Some(map) = table_of(table, "map") {
            self.reply.map(map.pairs::<Value, Value>().count());
            for (key, value) in map.pairs::<Value, Value>().flatten() {
                self.write(&key, depth + 1);
                self.write(&value, depth + 1);
                if self.ends() {
                    break;
                }
            }
        } else if let Some(set) = table_of(table, "set") {
            self.reply.set(set.pairs::<Value, Value>().count());
            for (key, _) in set.pairs::<Value, Value>().flatten() {
                self.write(&key, depth + 1);
                if self.ends() {
                    break;
                }
            }
        } else if let Some(text) = text_of(table, "big_number") {
            write_big_number(self.reply, &one_line(&text));
        } else if let Some(inner) = table_of(table, "verbatim_string")
            && let (Some(text), Some(form)) = (text_of(&inner, "string"), text_of(&inner, "format"))
        {
            write_verbatim(self.reply, &form.as_bytes(), &text.as_bytes());
        } else {
            return false;
        }
        true
    }
}

fn text_of(table: &Table, name: &str) -> Option<LuaString> {
    match table.raw_get::<Value>(name) {
        Ok(Value::String(text)) => Some(text),
        _ => None,
    }
}

fn table_of(table: &Table, name: &str) -> Option<Table> {
    match table.raw_get::<Value>(name) {
        Ok(Value::Table(inner)) => Some(inner),
        _ => None,
    }
}

/// Text as one line of the wire: nothing in it ends the line.
fn one_line(text: &LuaString) -> Vec<u8> {
    let line = |b: &u8| if *b == b'\r' || *b == b'\n' { b' ' } else { *b };
    text.as_bytes().iter().map(line).collect()
}

/// An error line as a script gives it; control bytes that would end the line become blanks.
pub(super) fn write_error(reply: &mut Reply, text: &[u8]) {
    reply.errors += 1;
    reply.out.push(b'-');
    reply.out.extend(text.iter().map(|b| if *b == b'\r' || *b == b'\n' { b' ' } else { *b }));
    reply.out.extend_from_slice(b"\r\n");
}

fn write_big_number(reply: &mut Reply, digits: &[u8]) {
    if !reply.resp3 {
        return reply.bulk(digits);
    }
    reply.out.push(b'(');
    reply.out.extend_from_slice(digits);
    reply.out.extend_from_slice(b"\r\n");
}

fn write_verbatim(reply: &mut Reply, form: &[u8], text: &[u8]) {
    if !reply.resp3 {
        return reply.bulk(text);
    }
    let mut three = [b' '; 3];
    form.iter().take(3).zip(&mut three).for_each(|(from, to)| *to = *from);
    reply.out.extend_from_slice(format!("={}\r\n", text.len() + 4).as_bytes());
    reply.out.extend_from_slice(&three);
    reply.out.push(b':');
    reply.out.extend_from_slice(text);
    reply.out.extend_from_slice(b"\r\n");
}
