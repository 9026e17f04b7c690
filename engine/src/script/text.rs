//! Functions of `string` that may take long or much: find, match, gmatch, gsub, rep.
//!
//! They are the language's own to scripts, errors included; here they count what they do (`Budget`). `gmatch` and a
//! `gsub` that asks a function or a table for each match are loops in `prelude.lua` over `scan`: what is called there is
//! called by the interpreter.

use std::rc::Rc;

use mlua::{BorrowedBytes, Function, Lua, MultiValue, Result, Table, Value};

use super::api::{PRELUDE, as_number, raise_text, text, type_name};
use super::interpreter::State;
use super::pattern::{Budget, Captured, Fault, Matcher, anchored};
use super::reply::truncated;

/// Bytes that cost one step when they are copied.
const BYTES_PER_STEP: usize = 256;

enum Fail {
    /// What is wrong with an argument, counted from one.
    Argument(usize, String),
    Text(&'static str),
    Ended,
    Lua(mlua::Error),
}

type Outcome<T> = std::result::Result<T, Fail>;

impl From<Fault> for Fail {
    fn from(fault: Fault) -> Fail {
        match fault {
            Fault::Text(text) => Fail::Text(text),
            Fault::Ended => Fail::Ended,
        }
    }
}

impl From<mlua::Error> for Fail {
    fn from(error: mlua::Error) -> Fail {
        Fail::Lua(error)
    }
}

/// How a function was called: by which name, and from where.
#[derive(Default)]
struct Site {
    name: String,
    is_method: bool,
    prefix: String,
}

/// `level`: 0, or 1 for a function within one of the prelude, which is what the script has called.
fn site(lua: &Lua, level: usize) -> Site {
    let mut site = Site::default();
    lua.inspect_stack(level, |frame| {
        let names = frame.names();
        site.is_method = names.name_what == Some("method");
        site.name = names.name.as_deref().unwrap_or("?").to_string();
    });
    lua.inspect_stack(level + 1, |frame| {
        let source = frame.source();
        let is_prelude = source.source.as_deref() == Some(PRELUDE);
        if let (Some(line), Some(source), false) =
            (frame.current_line(), source.short_src, is_prelude)
        {
            site.prefix = format!("{source}:{line}: ");
        }
    });
    site
}

fn argument_text(site: &Site, at: usize, what: &str) -> String {
    let name = &site.name;
    match at - usize::from(site.is_method) {
        0 => format!("calling '{name}' on bad self ({what})"),
        at => format!("bad argument #{at} to '{name}' ({what})"),
    }
}

/// A host function that fails as the language's own do. `level`: see `site`.
fn native(
    lua: &Lua,
    state: &Rc<State>,
    level: usize,
    f: impl Fn(&Lua, &State, &MultiValue) -> Outcome<MultiValue> + 'static,
) -> Result<Function> {
    let state = state.clone();
    lua.create_function(move |lua, args: MultiValue| {
        f(lua, &state, &args).map_err(|fail| match fail {
            Fail::Lua(error) => error,
            Fail::Ended => match state.stop(lua) {
                Ok(()) => raise_text("the script is being ended".into()),
                Err(error) => error,
            },
            Fail::Text(text) => raise_text(format!("{}{text}", site(lua, level).prefix)),
            Fail::Argument(at, what) => {
                let site = site(lua, level);
                raise_text(format!("{}{}", site.prefix, argument_text(&site, at, &what)))
            }
        })
    })
}

/// A string, or a number as the language prints it.
enum Word {
    Lua(BorrowedBytes),
    Number(Vec<u8>),
}

impl std::ops::Deref for Word {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Word::Lua(bytes) => bytes,
            Word::Number(bytes) => bytes,
        }
    }
}

fn wrong(args: &MultiValue, at: usize, wanted: &str) -> Fail {
    Fail::Argument(at + 1, format!("{wanted} expected, got {}", type_name(args.get(at))))
}

fn word(args: &MultiValue, at: usize) -> Outcome<Word> {
    match args.get(at) {
        Some(Value::String(text)) => Ok(Word::Lua(text.as_bytes())),
        other => {
            let text = other.and_then(text).ok_or_else(|| wrong(args, at, "string"))?;
            Ok(Word::Number(text))
        }
    }
}

/// A whole number; its fraction is cut off.
fn integer(args: &MultiValue, at: usize) -> Outcome<i64> {
    let number = args.get(at).and_then(as_number).ok_or_else(|| wrong(args, at, "number"))?;
    Ok(truncated(number))
}

fn integer_or(args: &MultiValue, at: usize, default: i64) -> Outcome<i64> {
    match args.get(at) {
        None | Some(Value::Nil) => Ok(default),
        Some(_) => integer(args, at),
    }
}

fn is_true(value: Option<&Value>) -> bool {
    !matches!(value, None | Some(Value::Nil | Value::Boolean(false)))
}

fn number(at: usize) -> Value {
    Value::Number(at as f64)
}

fn value_of(lua: &Lua, captured: Captured<'_>) -> Outcome<Value> {
    Ok(match captured {
        Captured::Bytes(bytes) => Value::String(lua.create_string(bytes)?),
        Captured::Position(at) => number(at),
    })
}

/// Adds the captures of a match.
fn add_captures(
    lua: &Lua,
    state: &State,
    matcher: &Matcher<'_>,
    found: (usize, usize),
    or_whole: bool,
    results: &mut MultiValue,
) -> Outcome<()> {
    for index in 0..matcher.capture_count(or_whole) {
        let captured = matcher.capture(index, found.0, found.1)?;
        if let Captured::Bytes(bytes) = captured
            && !state.spend(bytes.len() / BYTES_PER_STEP)
        {
            return Err(Fail::Ended);
        }
        results.push_back(value_of(lua, captured)?);
    }
    Ok(())
}

/// `find` and `match`.
fn search(lua: &Lua, state: &State, args: &MultiValue, finds: bool) -> Outcome<MultiValue> {
    let (text, pattern) = (word(args, 0)?, word(args, 1)?);
    let from = integer_or(args, 2, 1)?;
    let from = if from < 0 { from.saturating_add(text.len() as i64 + 1) } else { from };
    let from = usize::try_from(from.max(1) - 1).unwrap_or(usize::MAX).min(text.len());
    if finds && (is_true(args.get(3)) || is_plain(&pattern)) {
        if !state.spend((text.len() - from) / BYTES_PER_STEP) {
            return Err(Fail::Ended);
        }
        let found = memchr::memmem::find(&text[from..], &pattern).map(|at| from + at);
        return Ok(match found {
            Some(at) => MultiValue::from_iter([number(at + 1), number(at + pattern.len())]),
            None => MultiValue::from_iter([Value::Nil]),
        });
    }
    let (body, is_anchored) = anchored(&pattern);
    let mut matcher = Matcher::new(&text, body, state);
    let Some(found) = matcher.find(from, is_anchored)? else {
        return Ok(MultiValue::from_iter([Value::Nil]));
    };
    let mut results = MultiValue::new();
    if finds {
        results.extend([number(found.0 + 1), number(found.1)]);
    }
    add_captures(lua, state, &matcher, found, !finds, &mut results)?;
    Ok(results)
}

/// Nothing in a pattern means anything but itself.
fn is_plain(pattern: &[u8]) -> bool {
    let end = memchr::memchr(0, pattern).unwrap_or(pattern.len());
    !pattern[..end].iter().any(|byte| b"^$*+?.([%-".contains(byte))
}

/// `scan(text, pattern, from, only_there, only_one)`: where the next match begins and ends, and its captures, or the first
/// of them.
fn scan(lua: &Lua, state: &State, args: &MultiValue) -> Outcome<MultiValue> {
    let (text, pattern) = (word(args, 0)?, word(args, 1)?);
    let from = usize::try_from(integer(args, 2)?).unwrap_or(0);
    let mut matcher = Matcher::new(&text, &pattern, state);
    let Some(found) = matcher.find(from, is_true(args.get(3)))? else {
        return Ok(MultiValue::new());
    };
    let mut results = MultiValue::from_iter([number(found.0), number(found.1)]);
    if is_true(args.get(4)) {
        results.push_back(value_of(lua, matcher.capture(0, found.0, found.1)?)?);
    } else {
        add_captures(lua, state, &matcher, found, true, &mut results)?;
    }
    Ok(results)
}

/// The two strings that `gmatch` is given.
fn text_and_pattern(lua: &Lua, args: &MultiValue) -> Outcome<MultiValue> {
    let words = [word(args, 0)?, word(args, 1)?];
    let strings = words.map(|word| lua.create_string(&*word).map(Value::String));
    Ok(strings.into_iter().collect::<Result<MultiValue>>()?)
}

/// How often `gsub` replaces at most; checks its third argument behind the fourth, as the language does.
fn limit(args: &MultiValue, text: &[u8]) -> Outcome<i32> {
    let most = integer_or(args, 3, text.len() as i64 + 1)? as i32;
    match args.get(2) {
        Some(
            Value::Integer(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Function(_)
            | Value::Table(_),
        ) => Ok(most),
        _ => Err(Fail::Argument(3, "string/function/table expected".into())),
    }
}

/// What the loop of `gsub` in the prelude begins with: text, pattern, how often at most, whether at its beginning only.
fn gsub_terms(lua: &Lua, args: &MultiValue) -> Outcome<MultiValue> {
    let (text, pattern) = (word(args, 0)?, word(args, 1)?);
    let most = limit(args, &text)?;
    let (body, is_anchored) = anchored(&pattern);
    Ok(MultiValue::from_iter([
        Value::String(lua.create_string(&*text)?),
        Value::String(lua.create_string(body)?),
        Value::Number(f64::from(most)),
        Value::Boolean(is_anchored),
    ]))
}

/// A text that grows as far as the interpreter's memory would let it.
struct Out<'s> {
    bytes: Vec<u8>,
    max: usize,
    state: &'s State,
}

impl Out<'_> {
    fn add(&mut self, bytes: &[u8]) -> Outcome<()> {
        if self.bytes.len() + bytes.len() > self.max {
            return Err(too_long());
        }
        if !self.state.spend(bytes.len() / BYTES_PER_STEP) {
            return Err(Fail::Ended);
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }
}

fn too_long() -> Fail {
    Fail::Lua(mlua::Error::MemoryError("not enough memory".into()))
}

/// `gsub` with a text, in which `%1` and its like stand for captures.
fn substitute(lua: &Lua, state: &State, args: &MultiValue) -> Outcome<MultiValue> {
    let (text, pattern) = (word(args, 0)?, word(args, 1)?);
    let most = limit(args, &text)?;
    let with = word(args, 2)?;
    let (body, is_anchored) = anchored(&pattern);
    let mut matcher = Matcher::new(&text, body, state);
    let mut out = Out { bytes: Vec::new(), max: state.room(lua), state };
    let (mut at, mut count) = (0, 0);
    while count < most {
        let Some((from, to)) = matcher.find(at, is_anchored)? else { break };
        count += 1;
        out.add(&text[at..from])?;
        add_replacement(&mut out, &matcher, &with, (from, to), &text)?;
        if to > from {
            at = to;
        } else if from < text.len() {
            out.add(&text[from..=from])?;
            at = from + 1;
        } else {
            at = from;
            break;
        }
        if is_anchored {
            break;
        }
    }
    out.add(&text[at..])?;
    let result = Value::String(lua.create_string(&out.bytes)?);
    Ok(MultiValue::from_iter([result, Value::Number(f64::from(count))]))
}

fn add_replacement(
    out: &mut Out<'_>,
    matcher: &Matcher<'_>,
    with: &[u8],
    (from, to): (usize, usize),
    text: &[u8],
) -> Outcome<()> {
    let mut rest = with;
    while let Some(sign) = memchr::memchr(b'%', rest) {
        out.add(&rest[..sign])?;
        // A sign at the end stands for the zero byte that ends a text in C.
        let what = rest.get(sign + 1).copied().unwrap_or(0);
        rest = rest.get(sign + 2..).unwrap_or_default();
        match what {
            b'0' => out.add(&text[from..to])?,
            b'1'..=b'9' => match matcher.capture(usize::from(what - b'1'), from, to)? {
                Captured::Bytes(bytes) => out.add(bytes)?,
                Captured::Position(at) => out.add(at.to_string().as_bytes())?,
            },
            other => out.add(&[other])?,
        }
    }
    out.add(rest)
}

fn repeat(lua: &Lua, state: &State, args: &MultiValue) -> Outcome<MultiValue> {
    let unit = word(args, 0)?;
    let count = usize::try_from(integer(args, 1)? as i32).unwrap_or(0);
    let bytes = unit.len().checked_mul(count).filter(|bytes| *bytes <= state.room(lua));
    let bytes = bytes.ok_or_else(too_long)?;
    if !state.spend(bytes / BYTES_PER_STEP) {
        return Err(Fail::Ended);
    }
    let text = if bytes == 0 { Vec::new() } else { unit.repeat(count) };
    Ok(MultiValue::from_iter([Value::String(lua.create_string(text)?)]))
}

/// Puts the functions into the table that the prelude is given.
pub(super) fn add_to(host: &Table, lua: &Lua, state: &Rc<State>) -> Result<()> {
    let find = native(lua, state, 0, |lua, state, args| search(lua, state, args, true))?;
    host.raw_set("find", find)?;
    let matches = native(lua, state, 0, |lua, state, args| search(lua, state, args, false))?;
    host.raw_set("match", matches)?;
    host.raw_set("rep", native(lua, state, 0, repeat)?)?;
    host.raw_set("scan", native(lua, state, 1, scan)?)?;
    let both = native(lua, state, 1, |lua, _, args| text_and_pattern(lua, args))?;
    host.raw_set("text_and_pattern", both)?;
    host.raw_set("gsub_terms", native(lua, state, 1, |lua, _, args| gsub_terms(lua, args))?)?;
    host.raw_set("substitute", native(lua, state, 1, substitute)?)
}
