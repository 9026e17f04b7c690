//! Libraries of functions: FUNCTION LOAD and what FCALL finds.

use std::collections::BTreeMap;
use std::sync::Arc;

use mlua::{Function, Lua, MultiValue, Result, Table, Value};

use super::cache::{Breadth, Flags};
use super::interpreter::State;

/// One function of a library, as it was registered.
#[expect(dead_code, reason = "FUNCTION, which shows them, has no commands yet")]
pub(super) struct Registered {
    pub(super) name: Vec<u8>,
    pub(super) callback: Function,
    pub(super) description: Option<Vec<u8>>,
    pub(super) flags: Vec<String>,
}

/// What is known of a function without an interpreter.
pub struct FunctionInfo {
    pub description: Option<Vec<u8>>,
    pub flags: Flags,
    pub breadth: Breadth,
}

/// One library.
pub struct Library {
    pub name: Vec<u8>,
    pub source: Vec<u8>,
    pub functions: BTreeMap<Vec<u8>, FunctionInfo>,
}

/// All libraries of this server.
#[derive(Default)]
pub struct Libraries {
    pub all: BTreeMap<Vec<u8>, Arc<Library>>,
}

impl Libraries {
    /// The library that has a function of that name.
    pub fn with_function(&self, name: &[u8]) -> Option<&Arc<Library>> {
        self.all.values().find(|l| l.functions.contains_key(name))
    }
}

/// Names of libraries and functions: letters, digits and underscores.
pub(super) fn is_name(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'_')
}

/// `redis.register_function(name, callback)` or with one table of named arguments.
pub(super) fn register(_: &Lua, state: &State, args: MultiValue) -> Result<()> {
    let mut registering = state.registering.borrow_mut();
    let made = match &mut *registering {
        None => {
            Err("redis.register_function can only be called on FUNCTION LOAD command".to_string())
        }
        Some(all) => parse(&args).and_then(|made| {
            if !is_name(&made.name) {
                return Err(
                    "Library names can only contain letters, numbers, or underscores(_) and must \
                            be at least one character long"
                        .into(),
                );
            }
            if all.iter().any(|r| r.name == made.name) {
                return Err("Function already exists in the library".into());
            }
            all.push(made);
            Ok(())
        }),
    };
    made.map_err(|text| super::api::raise(format!("ERR {text}")))
}

fn parse(args: &MultiValue) -> std::result::Result<Registered, String> {
    match (args.len(), args.front(), args.get(1)) {
        (2, Some(Value::String(name)), Some(Value::Function(callback))) => Ok(Registered {
            name: name.as_bytes().to_vec(),
            callback: callback.clone(),
            description: None,
            flags: Vec::new(),
        }),
        (2, Some(Value::String(_)), _) => {
            Err("second argument to redis.register_function must be a function".into())
        }
        (2, ..) => Err("first argument to redis.register_function must be a string".into()),
        (1, Some(Value::Table(table)), _) => parse_named(table),
        (1, ..) => {
            Err("calling redis.register_function with a single argument is only applicable to Lua \
                        table (representing named arguments)."
                .into())
        }
        _ => Err("wrong number of arguments to redis.register_function".into()),
    }
}

fn parse_named(table: &Table) -> std::result::Result<Registered, String> {
    let (mut name, mut callback, mut description, mut flags) = (None, None, None, Vec::new());
    for pair in table.pairs::<Value, Value>() {
        let (key, value) = pair.map_err(|_| "invalid argument given to redis.register_function")?;
        let Value::String(key) = key else {
            return Err(
                "named argument key given to redis.register_function is not a string".into()
            );
        };
        match (key.as_bytes().as_ref(), value) {
            (b"function_name", Value::String(text)) => name = Some(text.as_bytes().to_vec()),
            (b"function_name", _) => {
                return Err(
                    "function_name argument given to redis.register_function must be a string"
                        .into(),
                );
            }
            (b"description", Value::String(text)) => description = Some(text.as_bytes().to_vec()),
            (b"description", _) => {
                return Err(
                    "description argument given to redis.register_function must be a string".into(),
                );
            }
            (b"callback", Value::Function(function)) => callback = Some(function),
            (b"callback", _) => {
                return Err(
                    "callback argument given to redis.register_function must be a function".into(),
                );
            }
            (b"flags", Value::Table(list)) => flags = parse_flags(&list)?,
            (b"flags", _) => {
                return Err(
                    "flags argument to redis.register_function must be a table representing \
                            function flags"
                        .into(),
                );
            }
            _ => return Err("unknown argument given to redis.register_function".into()),
        }
    }
    let name = name.ok_or("redis.register_function must get a function name argument")?;
    let callback = callback.ok_or("redis.register_function must get a callback argument")?;
    Ok(Registered { name, callback, description, flags })
}

fn parse_flags(list: &Table) -> std::result::Result<Vec<String>, String> {
    let mut found = Vec::new();
    for value in list.sequence_values::<Value>() {
        let name = match value {
            Ok(Value::String(name)) => name.to_string_lossy(),
            _ => return Err("unknown flag given".into()),
        };
        if !Flags::default().set(&name) {
            return Err("unknown flag given".into());
        }
        found.push(name);
    }
    Ok(found)
}
