//! `cjson`: JSON as lua-cjson 2.1 reads and writes it, which is what scripts rely on.
//!
//! A table is an array when all its keys are whole numbers above 0, else an object; an empty one is an object. Very sparse
//! arrays are refused. Numbers have 14 digits. Settings are the instance's, and stay for later scripts, as there.

mod decode;
mod encode;
mod number;
mod settings;

use std::cell::RefCell;
use std::rc::Rc;

use mlua::{Lua, MultiValue, Result, Table, Value};

use super::api::{Outcome, fallible};
use super::interpreter::State;
use decode::decode;
use encode::encode;
use settings::{
    Settings, decode_invalid_numbers, encode_invalid_numbers, encode_keep_buffer,
    encode_sparse_array, integer,
};

/// Depth beyond which settings are of no use: values are read and written recursively.
const DEPTH_MAX: usize = 2000;
/// Steps that a value counts as.
const STEPS_PER_VALUE: usize = 10;

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
