//! `cjson`: JSON as lua-cjson 2.1 reads and writes it, which is what scripts rely on.
//!
//! A table is an array when all its keys are whole numbers above 0, else an object; an empty one is an object. Very sparse
//! arrays are refused. Numbers have 14 digits. Settings are the instance's, and stay for later scripts, as there.

use std::cell::RefCell;
use std::rc::Rc;

use mlua::{Lua, MultiValue, Result, Table, Value};

use super::api::{Fail, argument_error, fallible, number_arg, string_arg, type_name};
use super::format::general;
use super::interpreter::State;
use super::pattern::Budget;

/// Depth beyond which settings are of no use: values are read and written recursively.
const DEPTH_MAX: usize = 2000;
/// Steps that a value counts as.
const STEPS_PER_VALUE: usize = 10;
/// Longest text, bytes.
const TEXT_BYTES_MAX: usize = 64 << 20;

type Outcome<T> = std::result::Result<T, Fail>;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Invalid {
    Off,
    On,
    Null,
}

#[derive(Clone)]
struct Settings {
    sparse_convert: bool,
    sparse_ratio: i64,
    sparse_safe: i64,
    encode_depth: i64,
    decode_depth: i64,
    precision: i64,
    keep_buffer: bool,
    encode_invalid: Invalid,
    decode_invalid: bool,
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

pub(super) fn library(lua: &Lua, state: &Rc<State>) -> Result<Table> {
    let table = lua.create_table()?;
    let settings = Rc::new(RefCell::new(Settings::default()));
    let with = |f: fn(&Lua, &mut Settings, &MultiValue) -> Outcome<MultiValue>| {
        let settings = settings.clone();
        fallible(lua, move |lua, args| f(lua, &mut settings.borrow_mut(), &args))
    };
    let with_state = |f: fn(&Lua, &State, &Settings, &MultiValue) -> Outcome<MultiValue>| {
        let (state, settings) = (state.clone(), settings.clone());
        fallible(lua, move |lua, args| f(lua, &state, &settings.borrow(), &args))
    };
    table.raw_set("encode", with_state(encode)?)?;
    table.raw_set("decode", with_state(decode)?)?;
    table.raw_set("encode_sparse_array", with(encode_sparse_array)?)?;
    table.raw_set(
        "encode_max_depth",
        with(|_, s, args| {
            integer(args, "encode_max_depth", &mut s.encode_depth, i64::from(i32::MAX))
        })?,
    )?;
    table.raw_set(
        "decode_max_depth",
        with(|_, s, args| {
            integer(args, "decode_max_depth", &mut s.decode_depth, i64::from(i32::MAX))
        })?,
    )?;
    table.raw_set(
        "encode_number_precision",
        with(|_, s, args| integer(args, "encode_number_precision", &mut s.precision, 14))?,
    )?;
    table.raw_set("encode_keep_buffer", with(encode_keep_buffer)?)?;
    table.raw_set("encode_invalid_numbers", with(encode_invalid_numbers)?)?;
    table.raw_set("decode_invalid_numbers", with(decode_invalid_numbers)?)?;
    let state = state.clone();
    table.raw_set("new", lua.create_function(move |lua, ()| library(lua, &state))?)?;
    table.raw_set("null", Value::NULL)?;
    table.raw_set("_NAME", "cjson")?;
    table.raw_set("_VERSION", "2.1.0")?;
    Ok(table)
}

fn one(value: Value) -> MultiValue {
    MultiValue::from_iter([value])
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

fn integer(args: &MultiValue, name: &str, to: &mut i64, max: i64) -> Outcome<MultiValue> {
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

fn encode_sparse_array(_: &Lua, s: &mut Settings, args: &MultiValue) -> Outcome<MultiValue> {
    let (name, max) = ("encode_sparse_array", i64::from(i32::MAX));
    at_most(args, 3, name)?;
    on_or_off(args, 0, name, &mut s.sparse_convert)?;
    integer_at(args, 1, name, &mut s.sparse_ratio, (0, max))?;
    integer_at(args, 2, name, &mut s.sparse_safe, (0, max))?;
    let numbers = [s.sparse_ratio, s.sparse_safe].map(|n| Value::Number(n as f64));
    Ok(std::iter::once(Value::Boolean(s.sparse_convert)).chain(numbers).collect())
}

fn encode_keep_buffer(_: &Lua, s: &mut Settings, args: &MultiValue) -> Outcome<MultiValue> {
    at_most(args, 1, "encode_keep_buffer")?;
    on_or_off(args, 0, "encode_keep_buffer", &mut s.keep_buffer)?;
    Ok(one(Value::Boolean(s.keep_buffer)))
}

fn decode_invalid_numbers(_: &Lua, s: &mut Settings, args: &MultiValue) -> Outcome<MultiValue> {
    at_most(args, 1, "decode_invalid_numbers")?;
    on_or_off(args, 0, "decode_invalid_numbers", &mut s.decode_invalid)?;
    Ok(one(Value::Boolean(s.decode_invalid)))
}

fn encode_invalid_numbers(lua: &Lua, s: &mut Settings, args: &MultiValue) -> Outcome<MultiValue> {
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

fn encode(lua: &Lua, state: &State, settings: &Settings, args: &MultiValue) -> Outcome<MultiValue> {
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

/// Counts a value, or some bytes more.
fn spend(lua: &Lua, state: &State, steps: usize) -> Outcome<()> {
    if state.spend(steps) {
        return Ok(());
    }
    state.stop(lua)?;
    Err("the script is being ended".into())
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
                            self.number(super::api::as_number(&key).unwrap_or_default())?;
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

fn decode(lua: &Lua, state: &State, settings: &Settings, args: &MultiValue) -> Outcome<MultiValue> {
    if args.len() != 1 {
        return Err(argument_error(0, "decode", "expected 1 argument"));
    }
    let text = string_arg(args, 0, "decode")?;
    if text.len() >= 2 && (text[0] == 0 || text[1] == 0) {
        return Err("JSON parser does not support UTF-16 or UTF-32".into());
    }
    let mut reader = Reader { lua, state, settings, text: &text, at: 0, depth: 0 };
    let first = reader.token();
    let value = reader.value(first)?;
    let last = reader.token();
    if !matches!(last.kind, Kind::End) {
        return Err(last.unexpected("the end"));
    }
    Ok(one(value))
}

enum Kind {
    ObjectBegin,
    ObjectEnd,
    ArrayBegin,
    ArrayEnd,
    String(Vec<u8>),
    Number(f64),
    Boolean(bool),
    Null,
    Colon,
    Comma,
    End,
    Error(&'static str),
}

struct Token {
    kind: Kind,
    at: usize,
}

impl Token {
    fn unexpected(&self, wanted: &str) -> Fail {
        let found = match self.kind {
            Kind::ObjectBegin => "T_OBJ_BEGIN",
            Kind::ObjectEnd => "T_OBJ_END",
            Kind::ArrayBegin => "T_ARR_BEGIN",
            Kind::ArrayEnd => "T_ARR_END",
            Kind::String(_) => "T_STRING",
            Kind::Number(_) => "T_NUMBER",
            Kind::Boolean(_) => "T_BOOLEAN",
            Kind::Null => "T_NULL",
            Kind::Colon => "T_COLON",
            Kind::Comma => "T_COMMA",
            Kind::End => "T_END",
            Kind::Error(text) => text,
        };
        format!("Expected {wanted} but found {found} at character {}", self.at + 1).into()
    }
}

struct Reader<'r> {
    lua: &'r Lua,
    state: &'r State,
    settings: &'r Settings,
    text: &'r [u8],
    at: usize,
    depth: usize,
}

impl Reader<'_> {
    /// The byte `ahead` of here; 0 at the end, as a zero byte is one.
    fn peek(&self, ahead: usize) -> u8 {
        self.text.get(self.at + ahead).copied().unwrap_or(0)
    }

    fn token(&mut self) -> Token {
        while matches!(self.peek(0), b' ' | b'\t' | b'\n' | b'\r') {
            self.at += 1;
        }
        let at = self.at;
        let simple = match self.peek(0) {
            b'{' => Kind::ObjectBegin,
            b'}' => Kind::ObjectEnd,
            b'[' => Kind::ArrayBegin,
            b']' => Kind::ArrayEnd,
            b':' => Kind::Colon,
            b',' => Kind::Comma,
            0 => return Token { kind: Kind::End, at },
            _ => return self.long_token(at),
        };
        self.at += 1;
        Token { kind: simple, at }
    }

    fn long_token(&mut self, at: usize) -> Token {
        let rest = &self.text[at..];
        let words: [(&[u8], Kind); 3] = [
            (b"true", Kind::Boolean(true)),
            (b"false", Kind::Boolean(false)),
            (b"null", Kind::Null),
        ];
        let first = self.peek(0);
        if first == b'"' {
            return match self.string() {
                Ok(text) => Token { kind: Kind::String(text), at },
                Err(error) => Token { kind: Kind::Error(error), at: self.at },
            };
        }
        if first == b'-' || first.is_ascii_digit() {
            if !self.settings.decode_invalid && is_invalid_number(rest) {
                return Token { kind: Kind::Error("invalid number"), at };
            }
            return self.number(at);
        }
        for (word, kind) in words {
            if rest.starts_with(word) {
                self.at += word.len();
                return Token { kind, at };
            }
        }
        if matches!(first, b'+' | b'i' | b'I' | b'n' | b'N')
            && self.settings.decode_invalid
            && is_invalid_number(rest)
        {
            return self.number(at);
        }
        Token { kind: Kind::Error("invalid token"), at }
    }

    fn number(&mut self, at: usize) -> Token {
        match c_number(&self.text[at..]) {
            Some((value, len)) => {
                self.at += len;
                Token { kind: Kind::Number(value), at }
            }
            None => Token { kind: Kind::Error("invalid number"), at },
        }
    }

    fn string(&mut self) -> std::result::Result<Vec<u8>, &'static str> {
        let mut out = Vec::new();
        self.at += 1;
        loop {
            match self.peek(0) {
                b'"' => break,
                0 => return Err("unexpected end of string"),
                b'\\' => {
                    let plain = match self.peek(1) {
                        byte @ (b'"' | b'\\' | b'/') => byte,
                        b'b' => 8,
                        b't' => b'\t',
                        b'n' => b'\n',
                        b'f' => 12,
                        b'r' => b'\r',
                        b'u' => {
                            let Some((c, len)) = self.unicode() else {
                                return Err("invalid unicode escape code");
                            };
                            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                            self.at += len;
                            continue;
                        }
                        _ => return Err("invalid escape code"),
                    };
                    out.push(plain);
                    self.at += 2;
                }
                byte => {
                    out.push(byte);
                    self.at += 1;
                }
            }
        }
        self.at += 1;
        Ok(out)
    }

    fn hex4(&self, ahead: usize) -> Option<u32> {
        (0..4).try_fold(0, |n, i| Some(n << 4 | char::from(self.peek(ahead + i)).to_digit(16)?))
    }

    /// The character of `\uXXXX`, or of a pair of them, and its length here.
    fn unicode(&self) -> Option<(char, usize)> {
        let code = self.hex4(2)?;
        if code & 0xf800 != 0xd800 {
            return Some((char::from_u32(code)?, 6));
        }
        if code & 0x400 != 0 || self.peek(6) != b'\\' || self.peek(7) != b'u' {
            return None;
        }
        let low = self.hex4(8)?;
        if low & 0xfc00 != 0xdc00 {
            return None;
        }
        let code = ((code & 0x3ff) << 10 | low & 0x3ff) + 0x10000;
        Some((char::from_u32(code)?, 12))
    }

    fn descend(&mut self) -> Outcome<()> {
        self.depth += 1;
        if self.depth as i64 > self.settings.decode_depth || self.depth > DEPTH_MAX {
            let (depth, at) = (self.depth, self.at);
            return Err(format!(
                "Found too many nested data structures ({depth}) at character {at}"
            )
            .into());
        }
        Ok(())
    }

    fn value(&mut self, token: Token) -> Outcome<Value> {
        spend(self.lua, self.state, STEPS_PER_VALUE)?;
        Ok(match token.kind {
            Kind::String(text) => Value::String(self.lua.create_string(text)?),
            Kind::Number(n) => Value::Number(n),
            Kind::Boolean(yes) => Value::Boolean(yes),
            Kind::Null => Value::NULL,
            Kind::ObjectBegin => {
                self.descend()?;
                let value = self.object()?;
                self.depth -= 1;
                value
            }
            Kind::ArrayBegin => {
                self.descend()?;
                let value = self.array()?;
                self.depth -= 1;
                value
            }
            _ => return Err(token.unexpected("value")),
        })
    }

    fn object(&mut self) -> Outcome<Value> {
        let table = self.lua.create_table()?;
        let mut token = self.token();
        if matches!(token.kind, Kind::ObjectEnd) {
            return Ok(Value::Table(table));
        }
        loop {
            let Kind::String(key) = token.kind else {
                return Err(token.unexpected("object key string"));
            };
            let colon = self.token();
            if !matches!(colon.kind, Kind::Colon) {
                return Err(colon.unexpected("colon"));
            }
            let first = self.token();
            let value = self.value(first)?;
            table.raw_set(self.lua.create_string(key)?, value)?;
            let next = self.token();
            match next.kind {
                Kind::ObjectEnd => return Ok(Value::Table(table)),
                Kind::Comma => token = self.token(),
                _ => return Err(next.unexpected("comma or object end")),
            }
        }
    }

    fn array(&mut self) -> Outcome<Value> {
        let table = self.lua.create_table()?;
        let mut token = self.token();
        if matches!(token.kind, Kind::ArrayEnd) {
            return Ok(Value::Table(table));
        }
        for at in 1.. {
            let value = self.value(token)?;
            table.raw_set(at, value)?;
            let next = self.token();
            match next.kind {
                Kind::ArrayEnd => break,
                Kind::Comma => token = self.token(),
                _ => return Err(next.unexpected("comma or array end")),
            }
        }
        Ok(Value::Table(table))
    }
}

/// Written as JSON does not allow, though C reads it.
fn is_invalid_number(text: &[u8]) -> bool {
    if text.first() == Some(&b'+') {
        return true;
    }
    let text = text.strip_prefix(b"-").unwrap_or(text);
    match text {
        [b'0', next, ..] => matches!(next, b'x' | b'X' | b'0'..=b'9'),
        [first, ..] if *first <= b'9' => false,
        _ => {
            let word = text.get(..3).unwrap_or_default().to_ascii_lowercase();
            word == b"inf" || word == b"nan"
        }
    }
}

/// The longest number at the beginning of a text, by C's rules, and its length.
fn c_number(text: &[u8]) -> Option<(f64, usize)> {
    let sign = usize::from(matches!(text.first(), Some(b'-' | b'+')));
    let body = &text[sign..];
    let lower: Vec<u8> = body.iter().take(8).map(u8::to_ascii_lowercase).collect();
    let signed = |value: f64| if text[0] == b'-' { -value } else { value };
    if lower.starts_with(b"inf") {
        let len = if lower.starts_with(b"infinity") { 8 } else { 3 };
        return Some((signed(f64::INFINITY), sign + len));
    }
    if lower.starts_with(b"nan") {
        return Some((signed(f64::NAN), sign + 3));
    }
    let digits =
        |from: usize, is: fn(&u8) -> bool| body[from..].iter().take_while(|b| is(b)).count();
    if lower.starts_with(b"0x") {
        let many = digits(2, u8::is_ascii_hexdigit);
        let hex = body[2..2 + many].iter();
        let value =
            hex.fold(0.0, |n, b| n * 16.0 + f64::from(char::from(*b).to_digit(16).unwrap_or(0)));
        return Some((signed(value), sign + if many == 0 { 1 } else { 2 + many }));
    }
    let mut len = digits(0, u8::is_ascii_digit);
    let mut seen = len;
    if body.get(len) == Some(&b'.') {
        let more = digits(len + 1, u8::is_ascii_digit);
        seen += more;
        len += 1 + more;
    }
    if seen == 0 {
        return None;
    }
    if matches!(body.get(len), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(body.get(len + 1), Some(b'-' | b'+')));
        let many =
            body.get(len + 1 + sign..).map_or(0, |_| digits(len + 1 + sign, u8::is_ascii_digit));
        if many > 0 {
            len += 1 + sign + many;
        }
    }
    let value = std::str::from_utf8(&body[..len]).ok()?.parse().ok()?;
    Some((signed(value), sign + len))
}
