//! One value as bytes, as DUMP gives it and RESTORE and MIGRATE take it; and libraries of functions, as FUNCTION DUMP does.
//!
//! Type byte, body, version (2 bytes), checksum (8 bytes); no magic. Of libraries there may be any number, each an opcode
//! and its source as a string.

use crc_fast::{CrcAlgorithm, checksum};

use super::{
    Error, ErrorKind, REDIS_READ_MAX, VALKEY_READ, VERSION_FIELDS, Value, ValueRef, WriteOptions,
    input::Input,
    opcodes, value,
    writer::{type_of, write_function, write_value},
};
use crate::types::Limits;

const FOOTER: usize = 10;

/// The payload of a value, readable by every server of that version and later. A hash with expiring fields is one of
/// `VERSION_FIELDS`.
pub fn dump_payload(value: ValueRef<'_>, version: u32) -> Vec<u8> {
    let timed = matches!(value, ValueRef::Collection(collection) if collection.is_timed());
    let version =
        if timed { VERSION_FIELDS } else { version.clamp(super::VERSION_MIN, super::VERSION_MAX) };
    let options = WriteOptions { version, ..WriteOptions::default() };
    let mut payload = vec![type_of(value, version)];
    // Nothing is drained, so that nothing can fail.
    let written = write_value(&mut payload, value, &options, &mut |_| Ok(()));
    debug_assert!(written.is_ok());
    end(payload, version)
}

/// Version and checksum behind a body.
fn end(mut payload: Vec<u8>, version: u32) -> Vec<u8> {
    payload.extend_from_slice(&(version as u16).to_le_bytes());
    payload.extend_from_slice(&checksum(CrcAlgorithm::Crc64Redis, &payload).to_le_bytes());
    payload
}

/// The body of a payload whose version is known and whose checksum is right, and that version.
fn body(payload: &[u8]) -> Result<(&[u8], u32), Error> {
    let refuse = |offset: usize, kind| Err(Error { offset: offset as u64, kind });
    let Some((body, footer)) = payload.len().checked_sub(FOOTER).map(|at| payload.split_at(at))
    else {
        // There is no room for a checksum: what is there cannot be one.
        return refuse(payload.len(), ErrorKind::Checksum);
    };
    let version = u32::from(u16::from_le_bytes([footer[0], footer[1]]));
    if !(1..=REDIS_READ_MAX).contains(&version) && !VALKEY_READ.contains(&version) {
        return refuse(body.len(), ErrorKind::Version(version.to_string()));
    }
    let summed = checksum(CrcAlgorithm::Crc64Redis, &payload[..payload.len() - 8]);
    if footer[2..] != summed.to_le_bytes() {
        return refuse(payload.len(), ErrorKind::Checksum);
    }
    Ok((body, version))
}

/// The payload of libraries, in this order.
pub fn dump_functions<'s>(sources: impl Iterator<Item = &'s [u8]>) -> Vec<u8> {
    let mut payload = Vec::new();
    sources.for_each(|source| write_function(&mut payload, source, true));
    end(payload, super::VERSION)
}

/// Sources of the libraries of a payload; the error is what clients know.
pub fn restore_functions(payload: &[u8]) -> Result<Vec<Vec<u8>>, String> {
    let (body, _) = body(payload).map_err(|_| "DUMP payload version or checksum are wrong")?;
    let mut input = Input::new(body);
    let mut sources = Vec::new();
    while !input.is_at_end().map_err(|_| "can not read data type")? {
        match input.byte().map_err(|_| "can not read data type")? {
            opcodes::FUNCTION_2 => {
                let source = input.string().map_err(|_| "Failed loading library code")?;
                sources.push(source);
            }
            opcodes::FUNCTION_PRE_GA => return Err("Pre-GA function format not supported".into()),
            _ => return Err("given type is not a function".into()),
        }
    }
    Ok(sources)
}

/// The value of a payload. Nothing is believed but the checksum, and that only keeps accidents out.
pub fn restore_payload(payload: &[u8], limits: &Limits) -> Result<Value, Error> {
    let (body, version) = body(payload)?;
    let mut input = Input::new(body);
    let kind = input.byte()?;
    let value = value::read(&mut input, kind, version, limits)?;
    if !input.is_at_end()? {
        return input.corrupt("bytes behind the value");
    }
    match value {
        Some(value) => Ok(value),
        None => input.corrupt("a collection without elements"),
    }
}
