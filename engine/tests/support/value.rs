//! A reply as it came: each wire type is its own variant, so that `$-1` and `*-1` differ.

use std::fmt;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Value {
    Simple(Vec<u8>),
    Error(Vec<u8>),
    Int(i64),
    Bulk(Vec<u8>),
    NilBulk,
    NilArray,
    Null,
    /// As printed: a test of equal replies wants the digits and not the number.
    Double(Vec<u8>),
    Bool(bool),
    BigNumber(Vec<u8>),
    Verbatim(Vec<u8>),
    Array(Vec<Value>),
    Set(Vec<Value>),
    Push(Vec<Value>),
    Map(Vec<(Value, Value)>),
}

impl Value {
    /// The first value of `bytes` and its length; None while it is incomplete.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>, String> {
        let Some(end) = bytes.windows(2).position(|pair| pair == b"\r\n") else { return Ok(None) };
        let (kind, text, at) = (bytes[0], &bytes[1..end], end + 2);
        let line = || text.to_vec();
        let number = || -> Result<i64, String> {
            let text = String::from_utf8_lossy(text);
            text.parse().map_err(|_| format!("not a number: {text:?}"))
        };
        let value = match kind {
            b'+' => Self::Simple(line()),
            b'-' => Self::Error(line()),
            b':' => Self::Int(number()?),
            b',' => Self::Double(line()),
            b'(' => Self::BigNumber(line()),
            b'#' => Self::Bool(text == b"t"),
            b'_' => Self::Null,
            b'$' | b'=' => {
                let length = number()?;
                if length < 0 {
                    return Ok(Some((Self::NilBulk, at)));
                }
                let end = at + usize::try_from(length).map_err(|error| error.to_string())?;
                if bytes.len() < end + 2 {
                    return Ok(None);
                }
                if &bytes[end..end + 2] != b"\r\n" {
                    return Err("a bulk string does not end in CRLF".into());
                }
                let body = bytes[at..end].to_vec();
                let value = if kind == b'$' { Self::Bulk(body) } else { Self::Verbatim(body) };
                return Ok(Some((value, end + 2)));
            }
            b'*' | b'~' | b'>' | b'%' => return Self::parse_many(bytes, kind, number()?, at),
            other => return Err(format!("reply type {:?}", char::from(other))),
        };
        Ok(Some((value, at)))
    }

    fn parse_many(
        bytes: &[u8],
        kind: u8,
        count: i64,
        mut at: usize,
    ) -> Result<Option<(Self, usize)>, String> {
        if count < 0 {
            return Ok(Some((Self::NilArray, at)));
        }
        let mut items = Vec::new();
        for _ in 0..count * if kind == b'%' { 2 } else { 1 } {
            let Some((item, used)) = Self::parse(&bytes[at..])? else { return Ok(None) };
            items.push(item);
            at += used;
        }
        let value = match kind {
            b'*' => Self::Array(items),
            b'~' => Self::Set(items),
            b'>' => Self::Push(items),
            _ => {
                Self::Map(items.chunks(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect())
            }
        };
        Ok(Some((value, at)))
    }

    /// The same with its elements in order, for replies whose order means nothing; `pairs` keeps
    /// the two halves of a flat map together.
    pub(crate) fn sorted(self, pairs: bool) -> Self {
        match self {
            Self::Array(items) if pairs && items.len() % 2 == 0 => {
                let mut chunks: Vec<Vec<Self>> = items.chunks(2).map(<[Self]>::to_vec).collect();
                chunks.sort();
                Self::Array(chunks.concat())
            }
            Self::Array(mut items) => {
                items.sort();
                Self::Array(items)
            }
            Self::Set(mut items) => {
                items.sort();
                Self::Set(items)
            }
            Self::Map(mut items) => {
                items.sort();
                Self::Map(items)
            }
            other => other,
        }
    }

    /// The type and the size, for replies that are random or depend on the clock.
    pub(crate) fn shape(&self) -> String {
        match self {
            Self::Array(items) => format!("array of {}", items.len()),
            Self::Set(items) => format!("set of {}", items.len()),
            Self::Push(items) => format!("push of {}", items.len()),
            Self::Map(items) => format!("map of {}", items.len()),
            Self::Int(_) => "integer".into(),
            Self::Bulk(_) => "bulk string".into(),
            other => other.to_string(),
        }
    }

    pub(crate) fn items(self) -> Vec<Self> {
        match self {
            Self::Array(items) | Self::Set(items) | Self::Push(items) => items,
            other => panic!("not an array: {other}"),
        }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::Bulk(bytes) | Self::Simple(bytes) | Self::Error(bytes) => bytes,
            other => panic!("not a string: {other}"),
        }
    }

    pub(crate) fn is_error(&self) -> bool {
        matches!(self, Self::Error(_))
    }
}

/// A string, a number or an error as its text.
pub(crate) fn text(value: &Value) -> String {
    match value {
        Value::Bulk(bytes)
        | Value::Simple(bytes)
        | Value::Error(bytes)
        | Value::Verbatim(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Value::Int(n) => n.to_string(),
        other => format!("{other:?}"),
    }
}

impl fmt::Display for Value {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |out: &mut fmt::Formatter<'_>, name: &str, items: &[Self]| {
            let items: Vec<String> = items.iter().map(Self::to_string).collect();
            write!(out, "{name}[{}]", items.join(", "))
        };
        match self {
            Self::Simple(text) => write!(out, "+{}", text.escape_ascii()),
            Self::Error(text) => write!(out, "-{}", text.escape_ascii()),
            Self::Int(number) => write!(out, ":{number}"),
            Self::Bulk(bytes) => write!(out, "\"{}\"", bytes.escape_ascii()),
            Self::Verbatim(bytes) => write!(out, "=\"{}\"", bytes.escape_ascii()),
            Self::Double(text) => write!(out, ",{}", text.escape_ascii()),
            Self::BigNumber(text) => write!(out, "({}", text.escape_ascii()),
            Self::Bool(value) => write!(out, "#{value}"),
            Self::NilBulk => write!(out, "$-1"),
            Self::NilArray => write!(out, "*-1"),
            Self::Null => write!(out, "_"),
            Self::Array(items) => list(out, "", items),
            Self::Set(items) => list(out, "~", items),
            Self::Push(items) => list(out, ">", items),
            Self::Map(items) => {
                let items: Vec<String> =
                    items.iter().map(|(key, value)| format!("{key}: {value}")).collect();
                write!(out, "%[{}]", items.join(", "))
            }
        }
    }
}
