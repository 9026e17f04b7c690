//! `struct`: values to and from packed bytes, as the library struct 0.2 for Lua 5.1 does it.
//!
//! ```text
//! <  >       little, big endian        ! or !n   alignment up to n      x   a zero byte
//! b B h H l L T  1, 1, 2, 2, 8, 8, 8 bytes, capitals without a sign      i In  so many bytes
//! f d        float, double             s  text up to a zero byte         c cn c0  text of a length
//! ```

use mlua::{Lua, MultiValue, Result, Table, Value};

use super::api::{Outcome, argument_error, fallible, number_arg, string_arg};

/// Largest size of a whole number, bytes.
const INTEGER_BYTES_MAX: usize = 32;
/// Alignment of `!` without a number.
const ALIGNMENT: usize = 8;
/// Results of one call, as many as the interpreter's stack takes.
const RESULTS_MAX: usize = 7000;

pub(super) fn library(lua: &Lua) -> Result<Table> {
    let table = lua.create_table()?;
    table.raw_set("pack", fallible(lua, |lua, args| pack(lua, &args))?)?;
    table.raw_set("unpack", fallible(lua, |lua, args| unpack(lua, &args))?)?;
    table.raw_set("size", fallible(lua, |_, args| size(&args))?)?;
    Ok(table)
}

/// A format, as far as it was not read yet.
struct Format<'f> {
    rest: &'f [u8],
    is_little: bool,
    align: usize,
}

impl<'f> Format<'f> {
    fn new(text: &'f [u8]) -> Format<'f> {
        // It ends at a zero byte, as in C.
        let end = memchr::memchr(0, text).unwrap_or(text.len());
        Format { rest: &text[..end], is_little: true, align: 1 }
    }

    fn number(&mut self, default: usize) -> Outcome<usize> {
        if !self.rest.first().is_some_and(u8::is_ascii_digit) {
            return Ok(default);
        }
        let mut number = 0usize;
        while let Some((digit @ b'0'..=b'9', rest)) = self.rest.split_first() {
            number = number * 10 + usize::from(digit - b'0');
            if number > i32::MAX as usize {
                return Err("integral size overflow".into());
            }
            self.rest = rest;
        }
        Ok(number)
    }

    /// The next option and its size; what only controls how others are read has none.
    fn next(&mut self) -> Outcome<Option<(u8, usize)>> {
        let Some((option, rest)) = self.rest.split_first() else { return Ok(None) };
        self.rest = rest;
        let size = match option {
            b'b' | b'B' | b'x' => 1,
            b'h' | b'H' => 2,
            b'l' | b'L' | b'T' | b'd' => 8,
            b'f' => 4,
            b'c' => self.number(1)?,
            b'i' | b'I' => {
                let size = self.number(4)?;
                if size > INTEGER_BYTES_MAX {
                    return Err(format!(
                        "integral size {size} is larger than limit of {INTEGER_BYTES_MAX}"
                    )
                    .into());
                }
                size
            }
            _ => 0,
        };
        Ok(Some((*option, size)))
    }

    fn padding(&self, at: usize, option: u8, size: usize) -> usize {
        if size == 0 || option == b'c' {
            return 0;
        }
        let size = size.min(self.align);
        size.wrapping_sub(at & (size - 1)) & (size - 1)
    }

    fn control(&mut self, option: u8, name: &str) -> Outcome<()> {
        match option {
            b' ' => {}
            b'<' => self.is_little = true,
            b'>' => self.is_little = false,
            b'!' => {
                let align = self.number(ALIGNMENT)?;
                if !align.is_power_of_two() {
                    return Err(format!("alignment {align} is not a power of 2").into());
                }
                self.align = align;
            }
            other => {
                let what = format!("invalid format option '{}'", char::from(other));
                return Err(argument_error(0, name, &what));
            }
        }
        Ok(())
    }

    fn put(&self, out: &mut Vec<u8>, mut little: Vec<u8>) {
        if !self.is_little {
            little.reverse();
        }
        out.extend_from_slice(&little);
    }

    /// Bytes, the lowest first.
    fn ordered(&self, bytes: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        if !self.is_little {
            bytes.reverse();
        }
        bytes
    }
}

fn pack(lua: &Lua, args: &MultiValue) -> Outcome<MultiValue> {
    let text = string_arg(args, 0, "pack")?;
    // What is missing is told as nil, as there.
    let args = &args.iter().cloned().chain([Value::Nil]).collect::<MultiValue>();
    let mut format = Format::new(&text);
    let (mut out, mut arg) = (Vec::new(), 1);
    while let Some((option, size)) = format.next()? {
        let padding = format.padding(out.len(), option, size);
        out.resize(out.len() + padding, 0);
        match option {
            b'b' | b'B' | b'h' | b'H' | b'l' | b'L' | b'T' | b'i' | b'I' => {
                let number = number_arg(args, arg, "pack")?;
                let word = if number < 0.0 { number as i64 as u64 } else { number as u64 };
                let bytes = (0..size).map(|i| if i < 8 { (word >> (8 * i)) as u8 } else { 0 });
                format.put(&mut out, bytes.collect());
            }
            b'f' => {
                let number = number_arg(args, arg, "pack")? as f32;
                format.put(&mut out, number.to_le_bytes().to_vec());
            }
            b'd' => {
                let number = number_arg(args, arg, "pack")?;
                format.put(&mut out, number.to_le_bytes().to_vec());
            }
            b'c' | b's' => {
                let text = string_arg(args, arg, "pack")?;
                let size = if size == 0 { text.len() } else { size };
                let part = text
                    .get(..size)
                    .ok_or_else(|| argument_error(arg + 1, "pack", "string too short"))?;
                out.extend_from_slice(part);
                if option == b's' {
                    out.push(0);
                }
            }
            b'x' => {
                out.push(0);
                continue;
            }
            other => {
                format.control(other, "pack")?;
                continue;
            }
        }
        arg += 1;
    }
    Ok(MultiValue::from_iter([Value::String(lua.create_string(out)?)]))
}

fn whole(bytes: &[u8], is_signed: bool) -> f64 {
    let word =
        bytes.iter().take(8).enumerate().fold(0u64, |n, (i, b)| n | u64::from(*b) << (8 * i));
    if !is_signed {
        return word as f64;
    }
    let shift = 64 - 8 * bytes.len().clamp(1, 8) as u32;
    ((word << shift) as i64 >> shift) as f64
}

fn unpack(lua: &Lua, args: &MultiValue) -> Outcome<MultiValue> {
    let text = string_arg(args, 0, "unpack")?;
    let data = string_arg(args, 1, "unpack")?;
    let from = match args.get(2) {
        None | Some(Value::Nil) => 1.0,
        Some(_) => number_arg(args, 2, "unpack")?,
    };
    if (0.0..1.0).contains(&from) {
        return Err(argument_error(2, "unpack", "offset must be 1 or greater"));
    }
    let first = if from < 0.0 { usize::MAX } else { from as usize - 1 };
    let short = || argument_error(1, "unpack", "data string too short");
    let mut format = Format::new(&text);
    let (mut at, mut values) = (first, Vec::<Value>::new());
    while let Some((option, size)) = format.next()? {
        at = at.saturating_add(format.padding(at, option, size));
        let end = at.checked_add(size).filter(|end| *end <= data.len()).ok_or_else(short)?;
        let bytes = &data[at..end];
        if values.len() >= RESULTS_MAX {
            return Err("stack overflow (too many results)".into());
        }
        at = end;
        match option {
            b'b' | b'B' | b'h' | b'H' | b'l' | b'L' | b'T' | b'i' | b'I' => {
                let bytes = format.ordered(bytes);
                values.push(Value::Number(whole(&bytes, option.is_ascii_lowercase())));
            }
            b'f' => {
                let bits = whole(&format.ordered(bytes), false) as u32;
                values.push(Value::Number(f64::from(f32::from_bits(bits))));
            }
            b'd' => {
                let bytes = <[u8; 8]>::try_from(format.ordered(bytes)).unwrap_or_default();
                values.push(Value::Number(f64::from_le_bytes(bytes)));
            }
            b'c' if size == 0 => {
                let Some(len) = values.pop().as_ref().and_then(super::api::as_number) else {
                    return Err("format 'c0' needs a previous size".into());
                };
                let len = if len >= 0.0 { len as usize } else { usize::MAX };
                let end = at.checked_add(len).filter(|end| *end <= data.len()).ok_or_else(short)?;
                values.push(Value::String(lua.create_string(&data[at..end])?));
                at = end;
            }
            b'c' => values.push(Value::String(lua.create_string(bytes)?)),
            b's' => {
                let Some(len) = memchr::memchr(0, &data[at..]) else {
                    return Err("unfinished string in data".into());
                };
                values.push(Value::String(lua.create_string(&data[at..at + len])?));
                at += len + 1;
            }
            b'x' => {}
            other => format.control(other, "unpack")?,
        }
    }
    values.push(Value::Number(at.wrapping_add(1) as f64));
    Ok(values.into_iter().collect())
}

fn size(args: &MultiValue) -> Outcome<MultiValue> {
    let text = string_arg(args, 0, "size")?;
    let mut format = Format::new(&text);
    let mut at = 0usize;
    while let Some((option, size)) = format.next()? {
        at = at.saturating_add(format.padding(at, option, size)).saturating_add(size);
        match option {
            b's' => return Err(argument_error(0, "size", "option 's' has no fixed size")),
            b'c' if size == 0 => {
                return Err(argument_error(0, "size", "option 'c0' has no fixed size"));
            }
            option if option.is_ascii_alphanumeric() => {}
            other => format.control(other, "size")?,
        }
    }
    Ok(MultiValue::from_iter([Value::Number(at as f64)]))
}
