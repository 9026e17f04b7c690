//! Libraries of functions: what FUNCTION LOAD takes in and FCALL finds.
//!
//! A library is its source. Each thread's interpreter runs it when one of its functions is called there for the first
//! time; what it registers is known from FUNCTION LOAD, which ran it too. What a library's functions share besides keys
//! (local variables that they change) is therefore each thread's own. Libraries change under all locks, and are called
//! under some: a call sees all of a change or nothing.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use mlua::{Function, Lua, MultiValue, Result, Table, Value};

use super::cache::{Breadth, Flags};
use super::interpreter::State;
use crate::resp::split_words;

/// One function of a library, as it was registered.
pub(super) struct Registered {
    pub(super) name: Vec<u8>,
    pub(super) callback: Function,
    pub(super) description: Option<Vec<u8>>,
    pub(super) flags: Flags,
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

/// The first line of a library, `#!lua name=...`: its name.
pub(crate) fn parse_name(source: &[u8]) -> std::result::Result<Vec<u8>, String> {
    if !source.starts_with(b"#!") {
        return Err("Missing library metadata".into());
    }
    let end = memchr::memchr(b'\n', source).ok_or("Invalid library metadata")?;
    let words = split_words(&source[..end]).ok_or("Invalid library metadata")?;
    let Some((engine, rest)) = words.split_first() else {
        return Err("Invalid library metadata".into());
    };
    let mut name = None;
    for word in rest {
        let is_name = word.get(..5).is_some_and(|w| w.eq_ignore_ascii_case(b"name="));
        if !is_name {
            return Err(format!("Invalid metadata value given: {}", shown(word)));
        }
        if name.replace(word[5..].to_vec()).is_some() {
            return Err("Invalid metadata value, name argument was given multiple times".into());
        }
    }
    let name = name.ok_or("Library name was not given")?;
    if !is_name(&name) {
        return Err(BAD_NAME.into());
    }
    if !engine[2..].eq_ignore_ascii_case(b"lua") {
        return Err(format!("Engine '{}' not found", shown(&engine[2..])));
    }
    Ok(name)
}

const BAD_NAME: &str = "Library names can only contain letters, numbers, or underscores(_) and must be at least one \
                        character long";

fn shown(text: &[u8]) -> String {
    String::from_utf8_lossy(text).into_owned()
}

/// Names of libraries and functions: letters, digits and underscores.
fn is_name(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'_')
}

/// Libraries by their names, and whose each function is: functions are called in any case.
#[derive(Default, Clone)]
pub struct Libraries {
    all: BTreeMap<Vec<u8>, Arc<Library>>,
    /// By the name in small letters: the library, and the name as it was registered.
    functions: HashMap<Vec<u8>, (Arc<Library>, Vec<u8>)>,
}

impl Libraries {
    /// All of them, in the order of their names.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Library>> {
        self.all.values()
    }

    pub fn count(&self) -> usize {
        self.all.len()
    }

    pub fn function_count(&self) -> usize {
        self.functions.len()
    }

    pub fn contains(&self, name: &[u8]) -> bool {
        self.all.contains_key(name)
    }

    /// Bytes of the sources, and of what is known of them.
    pub fn bytes(&self) -> usize {
        let of = |l: &Arc<Library>| l.source.len() + ENTRY_BYTES * (1 + l.functions.len());
        self.all.values().map(of).sum()
    }

    /// The library that has a function of that name, and the name as it was registered.
    pub fn with_function(&self, name: &[u8]) -> Option<(Arc<Library>, Vec<u8>)> {
        self.functions.get(&name.to_ascii_lowercase()).cloned()
    }

    /// Takes a library in, in place of one of its name where it may; an error changes nothing.
    pub fn add(
        &mut self,
        library: Arc<Library>,
        replaces: bool,
    ) -> std::result::Result<(), String> {
        if !replaces && self.contains(&library.name) {
            return Err(format!("Library '{}' already exists", shown(&library.name)));
        }
        for name in library.functions.keys() {
            let other = self.with_function(name);
            if other.is_some_and(|(other, _)| other.name != library.name) {
                return Err(format!("Function {} already exists", shown(name)));
            }
        }
        self.remove(&library.name);
        for name in library.functions.keys() {
            self.functions.insert(name.to_ascii_lowercase(), (library.clone(), name.clone()));
        }
        self.all.insert(library.name.clone(), library);
        Ok(())
    }

    /// Takes all of them in; an error changes nothing.
    pub fn join(&mut self, others: &Libraries, replaces: bool) -> std::result::Result<(), String> {
        let mut joined = self.clone();
        if let Some(name) = others.all.keys().find(|name| !replaces && self.contains(name)) {
            return Err(format!("Library {} already exists", shown(name)));
        }
        others.all.keys().for_each(|name| drop(joined.remove(name)));
        for library in others.all() {
            joined.add(library.clone(), false)?;
        }
        *self = joined;
        Ok(())
    }

    pub fn remove(&mut self, name: &[u8]) -> Option<Arc<Library>> {
        let library = self.all.remove(name)?;
        for function in library.functions.keys() {
            self.functions.remove(&function.to_ascii_lowercase());
        }
        Some(library)
    }
}

/// What an entry takes besides a source, bytes.
const ENTRY_BYTES: usize = 200;

/// `redis.register_function(name, callback)` or with one table of named arguments.
pub(super) fn register(_: &Lua, state: &State, args: MultiValue) -> Result<()> {
    let mut registering = state.registering.borrow_mut();
    let made = match &mut *registering {
        None => {
            Err("redis.register_function can only be called on FUNCTION LOAD command".to_string())
        }
        Some(all) => parse(&args).and_then(|made| {
            if !is_name(&made.name) {
                return Err(BAD_NAME.into());
            }
            if all.iter().any(|r| r.name.eq_ignore_ascii_case(&made.name)) {
                return Err("Function already exists in the library".into());
            }
            all.push(made);
            Ok(())
        }),
    };
    made.map_err(|text| super::api::raise(format!("ERR {text}")))
}

/// Text, or a number, as an argument.
fn text(value: &Value) -> Option<Vec<u8>> {
    super::api::text(value)
}

fn parse(args: &MultiValue) -> std::result::Result<Registered, String> {
    match (args.len(), args.front(), args.get(1)) {
        (2, Some(name), callback) => {
            let name = text(name)
                .ok_or("first argument to redis.register_function must be a string")?;
            let Some(Value::Function(callback)) = callback else {
                return Err(
                    "second argument to redis.register_function must be a function".into()
                );
            };
            let callback = callback.clone();
            Ok(Registered { name, callback, description: None, flags: Flags::default() })
        }
        (1, Some(Value::Table(table)), _) => parse_named(table),
        (1, ..) => Err("calling redis.register_function with a single argument is only applicable to Lua table \
                        (representing named arguments)."
            .into()),
        _ => Err("wrong number of arguments to redis.register_function".into()),
    }
}

fn parse_named(table: &Table) -> std::result::Result<Registered, String> {
    let (mut name, mut callback, mut description) = (None, None, None);
    let mut flags = Flags::default();
    let word = |value: &Value, what: &str| {
        text(value).ok_or_else(|| {
            format!("{what} argument given to redis.register_function must be a string")
        })
    };
    for pair in table.pairs::<Value, Value>() {
        let (key, value) = pair.map_err(|_| "invalid argument given to redis.register_function")?;
        let key = text(&key)
            .ok_or("named argument key given to redis.register_function is not a string")?;
        match key.to_ascii_lowercase().as_slice() {
            b"function_name" => name = Some(word(&value, "function_name")?),
            b"description" => description = Some(word(&value, "description")?),
            b"callback" => match value {
                Value::Function(function) => callback = Some(function),
                _ => {
                    return Err(
                        "callback argument given to redis.register_function must be a function"
                            .into(),
                    );
                }
            },
            b"flags" => match value {
                Value::Table(list) => flags = parse_flags(&list)?,
                _ => {
                    return Err("flags argument to redis.register_function must be a table representing function flags"
                        .into());
                }
            },
            _ => return Err("unknown argument given to redis.register_function".into()),
        }
    }
    let name = name.ok_or("redis.register_function must get a function name argument")?;
    let callback = callback.ok_or("redis.register_function must get a callback argument")?;
    Ok(Registered { name, callback, description, flags })
}

fn parse_flags(list: &Table) -> std::result::Result<Flags, String> {
    let mut flags = Flags::default();
    for value in list.sequence_values::<Value>() {
        let name = value.ok().as_ref().and_then(text).ok_or("unknown flag given")?;
        if !flags.set(&shown(&name).to_ascii_lowercase()) {
            return Err("unknown flag given".into());
        }
    }
    Ok(flags)
}
