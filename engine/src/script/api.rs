//! What `redis.*` does, as far as it is not Lua (see `prelude.lua`), and how host functions fail.

use std::rc::Rc;

use mlua::{Function, Lua, MultiValue, Result, Table, Value};

use super::format::general;
use super::interpreter::{Answer, State, ask_call, ask_may};
use super::pattern::Budget;
use super::reply;
use crate::command::info::{LARDER_VERSION, REDIS_VERSION};

/// Chunk name of the prelude: its frames are passed over when a place is told.
pub(super) const PRELUDE: &str = "=larder";

/// What a host function raises. It travels through the interpreter as an object of the host's, and becomes what
/// scripts know of errors where it is caught (`unwrap`).
#[derive(Debug)]
enum Raised {
    Text(String),
    /// The text of an error table, its code first.
    Table(Vec<u8>),
}

impl std::fmt::Display for Raised {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Raised::Text(text) => f.write_str(text),
            Raised::Table(text) => f.write_str(&String::from_utf8_lossy(text)),
        }
    }
}

impl std::error::Error for Raised {}

/// A text, to be raised as it is.
pub(super) fn raise_text(text: String) -> mlua::Error {
    mlua::Error::external(Raised::Text(text))
}

/// An error table, to be raised.
pub(super) fn raise(text: impl Into<Vec<u8>>) -> mlua::Error {
    mlua::Error::external(Raised::Table(text.into()))
}

/// Why a library's function failed.
pub(super) enum Fail {
    /// Text for the script; the place of its call is put in front.
    Text(String),
    Lua(mlua::Error),
}

/// What a library's function gives.
pub(super) type Outcome<T> = std::result::Result<T, Fail>;

impl From<mlua::Error> for Fail {
    fn from(error: mlua::Error) -> Fail {
        Fail::Lua(error)
    }
}

impl From<String> for Fail {
    fn from(text: String) -> Fail {
        Fail::Text(text)
    }
}

impl From<&str> for Fail {
    fn from(text: &str) -> Fail {
        Fail::Text(text.into())
    }
}

/// Frames that are looked at for a place: a call in a tail's position counts as one although it left none, and there
/// may be any number of those.
const LEVELS_MAX: usize = 64;

/// Source and line of the script's innermost frame.
pub(super) fn place(lua: &Lua) -> Option<(String, usize)> {
    for level in 1..LEVELS_MAX {
        let found = lua.inspect_stack(level, |frame| {
            let source = frame.source();
            let name = source.source.as_deref().unwrap_or_default().to_string();
            (source.what != "C" && name != PRELUDE).then_some((name, frame.current_line()))
        })?;
        if let Some((source, Some(line))) = found {
            return Some((source, line));
        }
    }
    None
}

/// The place as the language puts it in front of errors.
fn place_prefix(lua: &Lua) -> String {
    place(lua).map_or(String::new(), |(source, line)| {
        format!("{}:{line}: ", source.trim_start_matches(['@', '=']))
    })
}

/// A library's function: what it fails with is raised as text with its place, as the language's own do.
pub(super) fn fallible(
    lua: &Lua,
    f: impl Fn(&Lua, MultiValue) -> Outcome<MultiValue> + 'static,
) -> Result<Function> {
    lua.create_function(move |lua, args: MultiValue| {
        f(lua, args).map_err(|failed| match failed {
            Fail::Text(text) => {
                mlua::Error::external(Raised::Text(format!("{}{text}", place_prefix(lua))))
            }
            Fail::Lua(error) => error,
        })
    })
}

/// A type's name as errors say it.
pub(super) fn type_name(value: Option<&Value>) -> &'static str {
    match value {
        None => "no value",
        Some(value) => match value {
            Value::Nil => "nil",
            Value::Boolean(_) => "boolean",
            Value::LightUserData(_) => "light userdata",
            Value::Integer(_) | Value::Number(_) => "number",
            Value::String(_) => "string",
            Value::Table(_) => "table",
            Value::Function(_) => "function",
            Value::Thread(_) => "thread",
            _ => "userdata",
        },
    }
}

/// A number, or a string that reads as one.
pub(super) fn as_number(lua_value: &Value) -> Option<f64> {
    match lua_value {
        Value::Integer(n) => Some(*n as f64),
        Value::Number(n) => Some(*n),
        Value::String(text) => lua_number(&text.as_bytes()),
        _ => None,
    }
}

/// Text as a number by the language's rules: decimal or hexadecimal, blanks around it.
fn lua_number(text: &[u8]) -> Option<f64> {
    let text =
        std::str::from_utf8(text).ok()?.trim_matches([' ', '\t', '\n', '\r', '\x0b', '\x0c']);
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let value = match digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        Some(hex) => u64::from_str_radix(hex, 16).ok()? as f64,
        None if digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') => {
            digits.parse().ok()?
        }
        None => match digits.to_ascii_lowercase().as_str() {
            "inf" | "infinity" => f64::INFINITY,
            "nan" => f64::NAN,
            _ => return None,
        },
    };
    Some(if negative { -value } else { value })
}

/// Counts steps that a library's function takes: a script that takes too long is ended in it, too.
pub(super) fn spend(lua: &Lua, state: &State, steps: usize) -> Outcome<()> {
    if state.spend(steps) {
        return Ok(());
    }
    state.stop(lua)?;
    Err("the script is being ended".into())
}

pub(super) fn bad_argument(at: usize, name: &str, wanted: &str, got: Option<&Value>) -> Fail {
    let got = type_name(got);
    Fail::Text(format!("bad argument #{} to '{name}' ({wanted} expected, got {got})", at + 1))
}

/// What is wrong with an argument.
pub(super) fn argument_error(at: usize, name: &str, what: &str) -> Fail {
    Fail::Text(format!("bad argument #{} to '{name}' ({what})", at + 1))
}

/// An argument as a number.
pub(super) fn number_arg(args: &MultiValue, at: usize, name: &str) -> Outcome<f64> {
    let value = args.get(at);
    value.and_then(as_number).ok_or_else(|| bad_argument(at, name, "number", value))
}

/// An argument as a string; numbers read as text.
pub(super) fn string_arg(args: &MultiValue, at: usize, name: &str) -> Outcome<Vec<u8>> {
    let value = args.get(at);
    value.and_then(text).ok_or_else(|| bad_argument(at, name, "string", value))
}

/// A string, or a number as the language prints it.
pub(super) fn text(value: &Value) -> Option<Vec<u8>> {
    match value {
        Value::String(text) => Some(text.as_bytes().to_vec()),
        Value::Integer(n) => Some(general(*n as f64, 14).into_bytes()),
        Value::Number(n) => Some(general(*n, 14).into_bytes()),
        _ => None,
    }
}

/// Words of a command that a script calls; `None`: not all of them are strings or numbers.
fn words(args: &MultiValue) -> Option<Vec<Vec<u8>>> {
    let word = |value: &Value| match value {
        Value::String(text) => Some(text.as_bytes().to_vec()),
        Value::Integer(n) => Some(n.to_string().into_bytes()),
        Value::Number(n) => Some(general(*n, 17).into_bytes()),
        _ => None,
    };
    args.iter().map(word).collect()
}

/// `redis.call` and `redis.pcall`: the reply of a command.
fn call(lua: &Lua, state: &State, args: &MultiValue, raises: bool) -> Result<Value> {
    let failed = |message: &str| -> Result<Value> {
        if raises {
            return Err(raise(message));
        }
        Ok(Value::Table(reply::error_table(lua, message.as_bytes())?))
    };
    if args.is_empty() {
        return failed("ERR Please specify at least one argument for this redis lib call");
    }
    let Some(request) = words(args) else {
        return failed("ERR Lua redis lib command arguments must be strings or integers");
    };
    let (resp3, journals) = (state.resp3.get(), state.journals.get());
    match ask_call(&request, resp3, journals) {
        Answer::Reply(bytes) => match bytes.strip_prefix(b"-") {
            Some(error) if raises => Err(raise(error.strip_suffix(b"\r\n").unwrap_or(error))),
            _ => reply::to_lua(lua, &bytes),
        },
        Answer::Stop => {
            state.stop(lua)?;
            Err(raise("ERR the script is being ended"))
        }
        Answer::Go => Ok(Value::Boolean(false)),
    }
}

fn log(args: &MultiValue) -> Result<()> {
    if args.len() < 2 {
        return Err(raise("ERR redis.log() requires two arguments or more."));
    }
    let Some(Value::Number(_) | Value::Integer(_)) = args.front() else {
        return Err(raise("ERR First argument must be a number (log level)."));
    };
    let level = args.front().and_then(as_number).unwrap_or(-1.0);
    let parts: Vec<String> = args
        .iter()
        .skip(1)
        .filter_map(text)
        .map(|t| {
            String::from_utf8_lossy(&t)
                .chars()
                .map(|c| if c.is_control() { ' ' } else { c })
                .collect()
        })
        .collect();
    let message = parts.join(" ");
    let message = message.get(..message.floor_char_boundary(LOG_BYTES_MAX)).unwrap_or_default();
    match level {
        0.0 | 1.0 => tracing::debug!(target: "script", "{message}"),
        2.0 => tracing::info!(target: "script", "{message}"),
        3.0 => tracing::warn!(target: "script", "{message}"),
        _ => return Err(raise("ERR Invalid debug level.")),
    }
    Ok(())
}

/// Longest line that a script may put into the log, bytes.
const LOG_BYTES_MAX: usize = 1024;

fn sha1hex(args: &MultiValue) -> Result<String> {
    if args.len() != 1 {
        return Err(raise("ERR wrong number of arguments"));
    }
    let bytes = args.front().and_then(text).unwrap_or_default();
    Ok(super::cache::hex(&super::cache::hash_of(&bytes)))
}

fn setresp(state: &State, args: &MultiValue) -> Result<()> {
    if args.len() != 1 {
        return Err(raise("ERR redis.setresp() requires one argument."));
    }
    match args.front().and_then(as_number) {
        Some(n) if n == 2.0 || n == 3.0 => {
            state.resp3.set(n == 3.0);
            Ok(())
        }
        _ => Err(raise("ERR RESP version must be 2 or 3.")),
    }
}

fn set_repl(state: &State, args: &MultiValue) -> Result<()> {
    if args.len() != 1 {
        return Err(raise("ERR redis.set_repl() requires two arguments."));
    }
    let flags = args.front().and_then(as_number).unwrap_or(-1.0);
    if !(0.0..=3.0).contains(&flags) {
        return Err(raise(
            "ERR Invalid replication flags. Use REPL_AOF, REPL_REPLICA, REPL_ALL or REPL_NONE.",
        ));
    }
    // There is one journal: log and replicas get the same.
    state.journals.set(flags >= 1.0);
    Ok(())
}

fn acl_check_cmd(args: &MultiValue) -> Result<bool> {
    if args.is_empty() {
        return Err(raise("ERR Please specify at least one argument for this redis lib call"));
    }
    let Some(request) = words(args) else {
        return Err(raise("ERR Lua redis lib command arguments must be strings or integers"));
    };
    if request.first().is_none_or(|name| crate::command::find(name).is_none()) {
        return Err(raise("ERR Invalid command passed to redis.acl_check_cmd()"));
    }
    Ok(ask_may(&request))
}

fn random(state: &State, args: &MultiValue) -> Outcome<f64> {
    let unit = state.random.borrow_mut().unit();
    let bound = |at: usize| number_arg(args, at, "random").map(f64::trunc);
    match args.len() {
        0 => Ok(unit),
        1 => {
            let high = bound(0)?;
            if high < 1.0 {
                return Err("bad argument #1 to 'random' (interval is empty)".into());
            }
            Ok((unit * high).floor() + 1.0)
        }
        2 => {
            let (low, high) = (bound(0)?, bound(1)?);
            if low > high {
                return Err("bad argument #2 to 'random' (interval is empty)".into());
            }
            Ok((unit * (high - low + 1.0)).floor() + low)
        }
        _ => Err("wrong number of arguments".into()),
    }
}

/// An error of the host's as scripts know errors: a text, or a table.
fn unwrap(lua: &Lua, error: Value) -> Result<Value> {
    let Value::Error(error) = error else { return Ok(error) };
    let mut error = &*error;
    while let mlua::Error::CallbackError { cause, .. } = error {
        error = cause;
    }
    match error.downcast_ref::<Raised>() {
        Some(Raised::Table(text)) => Ok(Value::Table(reply::error_table(lua, text)?)),
        Some(Raised::Text(text)) => Ok(Value::String(lua.create_string(text)?)),
        None => Ok(Value::String(lua.create_string(error_text(error))?)),
    }
}

/// What xpcall makes of an error: a table with the text and the place.
fn trace(lua: &Lua, error: Value) -> Result<Table> {
    let table = match unwrap(lua, error)? {
        Value::Table(table) => table,
        other => {
            let text = match &other {
                Value::Nil => "nil".into(),
                Value::Boolean(yes) => yes.to_string(),
                other => text(other).map_or_else(
                    || type_name(Some(other)).into(),
                    |t| String::from_utf8_lossy(&t).into(),
                ),
            };
            let table = lua.create_table()?;
            let bytes = match &other {
                Value::String(text) => [b"ERR ".as_slice(), &text.as_bytes()].concat(),
                _ => format!("ERR {text}").into_bytes(),
            };
            table.raw_set("err", lua.create_string(bytes)?)?;
            table
        }
    };
    if let Some((source, line)) = place(lua) {
        table.raw_set("source", source)?;
        table.raw_set("line", line)?;
    }
    Ok(table)
}

/// What a script may know of an error of the host's.
fn error_text(error: &mlua::Error) -> String {
    match error {
        mlua::Error::CallbackError { cause, .. } => error_text(cause),
        mlua::Error::MemoryError(_) => "not enough memory".into(),
        mlua::Error::RuntimeError(text) => text.clone(),
        other => other.to_string().lines().next().unwrap_or_default().to_string(),
    }
}

fn constants(lua: &Lua) -> Result<Table> {
    let table = lua.create_table()?;
    for (name, value) in
        [("LOG_DEBUG", 0), ("LOG_VERBOSE", 1), ("LOG_NOTICE", 2), ("LOG_WARNING", 3)]
    {
        table.raw_set(name, value)?;
    }
    for (name, value) in
        [("REPL_NONE", 0), ("REPL_AOF", 1), ("REPL_SLAVE", 2), ("REPL_REPLICA", 2), ("REPL_ALL", 3)]
    {
        table.raw_set(name, value)?;
    }
    for (prefix, version) in [("REDIS", REDIS_VERSION), ("SERVER", LARDER_VERSION)] {
        let number =
            version.split('.').fold(0i64, |n, part| n << 8 | part.parse::<i64>().unwrap_or(0));
        table.raw_set(format!("{prefix}_VERSION"), version)?;
        table.raw_set(format!("{prefix}_VERSION_NUM"), number)?;
    }
    table.raw_set("SERVER_NAME", "larder")?;
    Ok(table)
}

/// A host function over the interpreter's state.
fn with<A, R>(
    lua: &Lua,
    state: &Rc<State>,
    f: impl Fn(&Lua, &State, A) -> Result<R> + 'static,
) -> Result<Function>
where
    A: mlua::FromLuaMulti,
    R: mlua::IntoLuaMulti,
{
    let state = state.clone();
    lua.create_function(move |lua, args: A| f(lua, &state, args))
}

/// The table of host functions that the prelude is given.
pub(super) fn host(lua: &Lua, state: &Rc<State>) -> Result<Table> {
    let host = lua.create_table()?;
    host.raw_set("call", with(lua, state, |lua, s, args: MultiValue| call(lua, s, &args, true))?)?;
    host.raw_set(
        "pcall",
        with(lua, state, |lua, s, args: MultiValue| call(lua, s, &args, false))?,
    )?;
    host.raw_set("setresp", with(lua, state, |_, s, args: MultiValue| setresp(s, &args))?)?;
    host.raw_set("set_repl", with(lua, state, |_, s, args: MultiValue| set_repl(s, &args))?)?;
    host.raw_set("log", lua.create_function(|_, args: MultiValue| log(&args))?)?;
    host.raw_set("sha1hex", lua.create_function(|_, args: MultiValue| sha1hex(&args))?)?;
    let check = lua.create_function(|_, args: MultiValue| acl_check_cmd(&args))?;
    host.raw_set("acl_check_cmd", check)?;
    let error_table = lua.create_function(|lua, message: mlua::LuaString| {
        reply::error_table(lua, &coded(&message.as_bytes()))
    })?;
    host.raw_set("error_table", error_table)?;
    host.raw_set("unwrap", lua.create_function(unwrap)?)?;
    let with_random = state.clone();
    let random = fallible(lua, move |_, args| {
        Ok(MultiValue::from_iter([Value::Number(random(&with_random, &args)?)]))
    })?;
    host.raw_set("random", random)?;
    let with_random = state.clone();
    let seed = fallible(lua, move |_, args| {
        let seed = reply::truncated(number_arg(&args, 0, "randomseed")?) as i32;
        *with_random.random.borrow_mut() = super::random::Generator::new(seed);
        Ok(MultiValue::new())
    })?;
    host.raw_set("randomseed", seed)?;
    let clock = lua.create_function(|_, ()| Ok(crate::clock::monotonic_us() as f64 / 1e6))?;
    host.raw_set("clock", clock)?;
    host.raw_set("trace", lua.create_function(trace)?)?;
    host.raw_set("constants", constants(lua)?)?;
    host.raw_set("register_function", with(lua, state, super::library::register)?)?;
    let collected = state.clone();
    let collected = lua.create_function(move |lua, ()| collected.on_collected(lua))?;
    host.raw_set("collected", collected)?;
    super::text::add_to(&host, lua, state)?;
    host.raw_set("bit", super::bit::library(lua)?)?;
    host.raw_set("cjson", super::json::library(lua, state)?)?;
    host.raw_set("cmsgpack", super::msgpack::library(lua, state)?)?;
    host.raw_set("struct", super::structs::library(lua)?)?;
    Ok(host)
}

/// An error's text with its code first: `-CODE text` has one, any other gets `ERR`.
fn coded(message: &[u8]) -> Vec<u8> {
    let (code, text) = match message.strip_prefix(b"-") {
        Some(rest) => match memchr::memchr(b' ', rest) {
            Some(at) => (&rest[..at], &rest[at + 1..]),
            None => (b"ERR".as_slice(), rest),
        },
        None => (b"ERR".as_slice(), message),
    };
    let is_end = |b: &u8| *b == b'\r' || *b == b'\n';
    let from = text.iter().position(|b| !is_end(b)).unwrap_or(text.len());
    let to = text.iter().rposition(|b| !is_end(b)).map_or(from, |at| at + 1);
    [code, b" ", &text[from..to]].concat()
}
