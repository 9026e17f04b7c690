//! Text as values: tokens, and what they make up.

use mlua::{Lua, MultiValue, Value};

use super::number::{c_number, is_invalid_number};
use super::settings::Settings;
use super::{DEPTH_MAX, STEPS_PER_VALUE, one};
use crate::script::api::{Fail, Outcome, argument_error, spend, string_arg};
use crate::script::interpreter::State;

pub(super) fn decode(
    lua: &Lua,
    state: &State,
    settings: &Settings,
    args: &MultiValue,
) -> Outcome<MultiValue> {
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
