//! INCREX: adds to a number within bounds, and says when its key expires.

use super::expiry_args::{Expiry, parse_expiry};
use super::{Command, Ctx, Group, Keys, flag, strings};
use crate::keyspace::{Entry, WrongType};
use crate::number::{DecimalError, add_decimal, parse_f64, parse_i64};

#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    Command::new("increx", -2, flag::WRITE | flag::DENYOOM | flag::FAST, Keys::FIRST, Group::String, "8.8.0", "Adds to a number within bounds and sets when its key expires.", increx),
];

/// What is added, as text that is known to be a number of its kind.
#[derive(Clone, Copy)]
enum By<'a> {
    Int(i64),
    Float(&'a [u8]),
}

struct Options<'a> {
    by: By<'a>,
    low: Option<&'a [u8]>,
    high: Option<&'a [u8]>,
    saturates: bool,
    expiry: Expiry,
    persists: bool,
    /// Only a key that does not expire yet gets the expiry time.
    if_none: bool,
}

impl<'a> Options<'a> {
    /// `[BYINT n | BYFLOAT x] [LBOUND low] [UBOUND high] [SATURATE] [EX s | PX ms | EXAT s | PXAT ms | PERSIST] [ENX]`; an
    /// error has been replied when that makes no sense.
    fn parse(ctx: &mut Ctx<'a, '_>) -> Option<Self> {
        let mut options = Self {
            by: By::Int(1),
            low: None,
            high: None,
            saturates: false,
            expiry: Expiry::None,
            persists: false,
            if_none: false,
        };
        let (mut told, mut i) = (false, 2);
        while i < ctx.args.len() {
            let next = ctx.args.get(i + 1).copied();
            match (ctx.args[i].to_ascii_lowercase().as_slice(), next) {
                (b"byint", Some(_)) if !told => {
                    options.by = By::Int(ctx.int_arg(i + 1)?);
                    (told, i) = (true, i + 1);
                }
                (b"byfloat", Some(text)) if !told => {
                    if ctx.float_arg(i + 1)?.is_infinite() {
                        ctx.reply.error("ERR BYFLOAT increment cannot be Infinity");
                        return None;
                    }
                    options.by = By::Float(text);
                    (told, i) = (true, i + 1);
                }
                (b"lbound", Some(text)) => (options.low, i) = (Some(text), i + 1),
                (b"ubound", Some(text)) => (options.high, i) = (Some(text), i + 1),
                (b"saturate", _) => options.saturates = true,
                (b"enx", _) if !options.persists => options.if_none = true,
                (b"persist", _) if options.expiry == Expiry::None && !options.if_none => {
                    options.persists = true;
                }
                (_, Some(_)) if options.expiry == Expiry::None && !options.persists => {
                    match parse_expiry(ctx, i) {
                        Some(expiry) => (options.expiry, i) = (expiry.ok()?, i + 1),
                        None => return refused(ctx),
                    }
                }
                _ => return refused(ctx),
            }
            i += 1;
        }
        if options.if_none && options.expiry == Expiry::None {
            ctx.reply.error("ERR ENX flag requires an expiration");
            return None;
        }
        Some(options)
    }
}

fn refused<T>(ctx: &mut Ctx<'_, '_>) -> Option<T> {
    ctx.reply.syntax_error();
    None
}

/// A sum, and what was added to make it; or what there was, where it stays as it is.
enum Outcome {
    Stays(Vec<u8>),
    Becomes(Vec<u8>, Vec<u8>),
}

const BOUNDS: &str = "ERR LBOUND can't be greater than UBOUND";
const TOO_FAR: &str = "ERR applied increment would overflow";

fn increx(ctx: &mut Ctx<'_, '_>) {
    let key = ctx.args[1];
    let Some(options) = Options::parse(ctx) else { return };
    let old = match ctx.db.string(key) {
        Err(WrongType) => return ctx.reply.wrong_type(),
        Ok(value) => value.map_or_else(|| b"0".to_vec(), <[u8]>::to_vec),
    };
    let outcome = match options.by {
        By::Int(by) => add_int(&options, &old, by),
        By::Float(by) => add_float(&options, &old, by),
    };
    match outcome {
        Err(error) => ctx.reply.error(error),
        Ok(Outcome::Stays(value)) => answer(ctx, options.by, &value, b"0"),
        Ok(Outcome::Becomes(value, added)) => {
            let has = ctx.db.peek(key).and_then(Entry::ttl).is_some();
            let expiry = match options.expiry {
                _ if options.persists => Expiry::None,
                Expiry::At(at) if !(options.if_none && has) => Expiry::At(at),
                _ => Expiry::Keep,
            };
            strings::store(ctx, key, &value, expiry);
            answer(ctx, options.by, &value, &added);
        }
    }
}

fn answer(ctx: &mut Ctx<'_, '_>, by: By<'_>, value: &[u8], added: &[u8]) {
    ctx.reply.array(2);
    for text in [value, added] {
        match by {
            By::Int(_) => ctx.reply.int(parse_i64(text).unwrap_or_default()),
            By::Float(_) => ctx.reply.double_text(&String::from_utf8_lossy(text)),
        }
    }
}

fn add_int(options: &Options<'_>, old: &[u8], by: i64) -> Result<Outcome, &'static str> {
    const NOT_INT: &str = "ERR value is not an integer or out of range";
    let bound = |text: Option<&[u8]>, none| text.map_or(Some(none), parse_i64).ok_or(NOT_INT);
    let (low, high) = (bound(options.low, i64::MIN)?, bound(options.high, i64::MAX)?);
    if low > high {
        return Err(BOUNDS);
    }
    let was = parse_i64(old).ok_or(NOT_INT)?;
    let sum = i128::from(was) + i128::from(by);
    let within = sum.clamp(i128::from(low), i128::from(high));
    if within != sum && !options.saturates {
        return Ok(Outcome::Stays(old.to_vec()));
    }
    let added = i64::try_from(within - i128::from(was)).map_err(|_| TOO_FAR)?;
    Ok(Outcome::Becomes(within.to_string().into_bytes(), added.to_string().into_bytes()))
}

fn add_float(options: &Options<'_>, old: &[u8], by: &[u8]) -> Result<Outcome, &'static str> {
    const NOT_FLOAT: &str = "ERR value is not a valid float";
    let bound = |text: Option<&[u8]>, none| text.map_or(Some(none), parse_f64).ok_or(NOT_FLOAT);
    let (low, high) = (bound(options.low, f64::MIN)?, bound(options.high, f64::MAX)?);
    if low > high {
        return Err(BOUNDS);
    }
    let plain = |text: &[u8]| {
        add_decimal(b"0", text).map_err(|error| match error {
            DecimalError::OutOfRange => "ERR value cannot be Infinity",
            DecimalError::NotAFloat => NOT_FLOAT,
        })
    };
    let (was, by) = (plain(old)?, plain(by)?);
    let sum = add_decimal(&was, &by);
    let place = match &sum {
        Ok(text) => parse_f64(text).unwrap_or_default(),
        Err(_) if by.starts_with(b"-") => f64::NEG_INFINITY,
        Err(_) => f64::INFINITY,
    };
    if (low..=high).contains(&place)
        && let Ok(sum) = sum
    {
        return Ok(Outcome::Becomes(sum, by));
    }
    if !options.saturates {
        return Ok(Outcome::Stays(was));
    }
    let (end, text) = if place < low { (low, options.low) } else { (high, options.high) };
    let ended = plain(text.unwrap_or(&crate::number::format_f64(end)))?;
    let minus = match was.strip_prefix(b"-") {
        Some(rest) => rest.to_vec(),
        None => [b"-", was.as_slice()].concat(),
    };
    let added = add_decimal(&ended, &minus).map_err(|_| TOO_FAR)?;
    Ok(Outcome::Becomes(ended, added))
}
