//! Numbers as clients write them and as replies print them.
//!
//! The rules are those of the protocol's family, and programs depend on each: an integer is only the text that
//! printing it would give back (`007`, `+7` and ` 7` are strings, not numbers), a float never has spaces around it and
//! is never NaN, and a float reply is the shortest text that reads back as the same double.
mod decimal;

pub use decimal::{DecimalError, add_decimal};

/// The integer whose canonical text this is: no sign but `-`, no leading zero, no space.
pub fn parse_i64(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, text),
    };
    if digits == b"0" && !negative {
        return Some(0);
    }
    if digits.is_empty() || digits.len() > 19 || !matches!(digits[0], b'1'..=b'9') {
        return None;
    }
    let mut value: u64 = 0;
    for &digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        // Nineteen digits fit: 9_999_999_999_999_999_999 < 2^64.
        value = value * 10 + u64::from(digit - b'0');
    }
    if negative {
        if value > i64::MIN.unsigned_abs() { None } else { Some((value as i64).wrapping_neg()) }
    } else {
        i64::try_from(value).ok()
    }
}

/// A SCAN cursor: an unsigned number in any spelling, so that what a client made of ours is taken back.
/// No digits are 0, and a minus counts from the end, as everywhere in the family.
pub fn parse_cursor(text: &[u8]) -> Option<u64> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    };
    if digits.is_empty() {
        return text.is_empty().then_some(0);
    }
    let value = digits.iter().try_fold(0u64, |value, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        value.checked_mul(10)?.checked_add(digit)
    })?;
    Some(if negative { value.wrapping_neg() } else { value })
}

/// Appends the decimal text of an integer.
pub fn write_i64(out: &mut Vec<u8>, value: i64) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// How many bytes the decimal text of an integer takes.
pub fn len_i64(value: i64) -> usize {
    let digits = value.unsigned_abs().checked_ilog10().map_or(1, |log| log as usize + 1);
    digits + usize::from(value < 0)
}

/// So many digits make a number that a double holds exactly.
const EXACT_DIGITS_MAX: usize = 15;

/// What most scores are: a few digits and nothing else.
#[inline]
fn parse_digits(text: &[u8]) -> Option<f64> {
    if text.is_empty() || text.len() > EXACT_DIGITS_MAX {
        return None;
    }
    let (mut value, rest) = match text.split_first_chunk() {
        Some((chunk, rest)) => (eight_digits(u64::from_le_bytes(*chunk))?, rest),
        None => (0, text),
    };
    for byte in rest {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value * 10 + u64::from(digit);
    }
    Some(value as f64)
}

/// The number that eight bytes are the digits of, the first of them in the lowest byte.
#[inline]
fn eight_digits(bytes: u64) -> Option<u64> {
    const EACH: u64 = 0x0101_0101_0101_0101;
    let (high, zeros) = (EACH * 0xf0, EACH * b'0' as u64);
    // A digit keeps its upper half when 6 is added, and only a digit does.
    if bytes & high != zeros || bytes.wrapping_add(EACH * 6) & high != zeros {
        return None;
    }
    // Neighbours are put together: digits to pairs, pairs to fours, fours to all.
    let digits = bytes - zeros;
    let pairs = digits.wrapping_mul(10).wrapping_add(digits >> 8) & 0x00ff_00ff_00ff_00ff;
    let fours = pairs.wrapping_mul(100).wrapping_add(pairs >> 16) & 0x0000_ffff_0000_ffff;
    Some(fours.wrapping_mul(10_000).wrapping_add(fours >> 32) & 0xffff_ffff)
}

/// A float as a command argument: what `strtod` accepts without spaces, and neither NaN nor a number beyond a double.
pub fn parse_f64(text: &[u8]) -> Option<f64> {
    parse_digits(text).or_else(|| parse_any_f64(text))
}

fn parse_any_f64(text: &[u8]) -> Option<f64> {
    // Longer than any useful float; keeps the work bounded.
    if text.is_empty() || text.len() > 5 * 1024 {
        return None;
    }
    let (negative, body) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    };
    let magnitude = if body.len() > 2 && body[0] == b'0' && matches!(body[1], b'x' | b'X') {
        parse_hex_float(&body[2..])?
    } else if matches!(body.first(), Some(b'i' | b'I')) {
        if !body.eq_ignore_ascii_case(b"inf") && !body.eq_ignore_ascii_case(b"infinity") {
            return None;
        }
        f64::INFINITY
    } else {
        if !matches!(body.first(), Some(b'0'..=b'9' | b'.')) {
            return None;
        }
        let value: f64 = std::str::from_utf8(body).ok()?.parse().ok()?;
        let vanished =
            || value == 0.0 && mantissa(body).iter().any(|digit| matches!(digit, b'1'..=b'9'));
        if value.is_infinite() || vanished() {
            return None;
        }
        value
    };
    Some(if negative { -magnitude } else { magnitude })
}

/// A bound of a range of scores, which the family reads more freely: blanks may come first, nothing at all is 0, and
/// what is beyond a double is infinite or 0.
pub fn parse_bound(text: &[u8]) -> Option<f64> {
    if text.is_empty() {
        return Some(0.0);
    }
    let text = text.trim_ascii_start();
    parse_f64(text).or_else(|| {
        let (negative, body) = match text {
            [b'-', rest @ ..] => (true, rest),
            [b'+', rest @ ..] => (false, rest),
            _ => (false, text),
        };
        if body.len() > 5 * 1024 || !matches!(body.first(), Some(b'0'..=b'9' | b'.')) {
            return None;
        }
        let value: f64 = std::str::from_utf8(body).ok()?.parse().ok()?;
        Some(if negative { -value } else { value })
    })
}

fn mantissa(body: &[u8]) -> &[u8] {
    let end = body.iter().position(|byte| matches!(byte, b'e' | b'E')).unwrap_or(body.len());
    &body[..end]
}

/// `1f.8p-3` without its `0x`; exact while the mantissa fits 60 bits, which is more than a double holds.
fn parse_hex_float(body: &[u8]) -> Option<f64> {
    let split = body.iter().position(|byte| matches!(byte, b'p' | b'P'));
    let (digits, exponent) = match split {
        None => (body, 0),
        Some(at) => {
            let text = std::str::from_utf8(&body[at + 1..]).ok()?;
            (&body[..at], text.parse::<i32>().ok()?.clamp(-100_000, 100_000))
        }
    };
    let (mut value, mut scale, mut seen, mut point) = (0u64, exponent, false, false);
    for &byte in digits {
        if byte == b'.' && !point {
            point = true;
            continue;
        }
        let digit = char::from(byte).to_digit(16)?;
        seen = true;
        if value >> 56 == 0 {
            value = value << 4 | u64::from(digit);
            scale -= if point { 4 } else { 0 };
        } else {
            // A sticky bit keeps the rounding right.
            value |= u64::from(digit != 0);
            scale += if point { 0 } else { 4 };
        }
    }
    let result = value as f64 * 2f64.powi(scale / 2) * 2f64.powi(scale - scale / 2);
    (seen && result.is_finite() && (value == 0) == (result == 0.0)).then_some(result)
}

/// Appends a double as a reply prints it: an integer without a point, else the shortest digits that read back as the
/// same double, with an exponent (`1e+20`) only where plain digits would be long.
pub fn write_f64(out: &mut Vec<u8>, value: f64) {
    if value.is_nan() {
        out.extend_from_slice(b"nan");
    } else if value.is_infinite() {
        out.extend_from_slice(if value > 0.0 { b"inf" } else { b"-inf" });
    } else if value == 0.0 {
        out.extend_from_slice(if value.is_sign_negative() { b"-0" } else { b"0" });
    } else if let Some(integer) = as_integer(value) {
        write_i64(out, integer);
    } else {
        write_shortest(out, value);
    }
}

/// A double as reply text.
pub fn format_f64(value: f64) -> Vec<u8> {
    let mut out = Vec::with_capacity(24);
    write_f64(&mut out, value);
    out
}

/// Shows a double as a reply prints it, without an allocation where it is an integer.
pub fn with_f64<R>(value: f64, show: impl FnOnce(&[u8]) -> R) -> R {
    match as_integer(value) {
        Some(integer) => show(itoa::Buffer::new().format(integer).as_bytes()),
        None => show(&format_f64(value)),
    }
}

/// The integer that a double is exactly, within half the range of an i64 (beyond it the exponent form is printed).
pub fn as_integer(value: f64) -> Option<i64> {
    let bound = (i64::MAX / 2) as f64;
    let negative_zero = value == 0.0 && value.is_sign_negative();
    if value.abs() >= bound || value.fract() != 0.0 || negative_zero {
        return None;
    }
    Some(value as i64)
}

/// Splits the shortest text into digits and a power of ten, then lays them out by the family's rules.
fn write_shortest(out: &mut Vec<u8>, value: f64) {
    let mut buffer = zmij::Buffer::new();
    let text = buffer.format_finite(value).as_bytes();
    let text = match text {
        [b'-', rest @ ..] => {
            out.push(b'-');
            rest
        }
        _ => text,
    };
    let body = mantissa(text);
    let mut power: i32 = text
        .get(body.len() + 1..)
        .and_then(|exponent| std::str::from_utf8(exponent).ok())
        .and_then(|exponent| exponent.parse().ok())
        .unwrap_or(0);
    let mut digits = [0u8; 32];
    let mut count = 0;
    let mut after_point = false;
    for &byte in body {
        if byte == b'.' {
            after_point = true;
            continue;
        }
        power -= i32::from(after_point);
        // Leading zeros carry no value.
        if (count > 0 || byte != b'0') && count < digits.len() {
            digits[count] = byte;
            count += 1;
        }
    }
    while count > 1 && digits[count - 1] == b'0' {
        count -= 1;
        power += 1;
    }
    lay_out(out, &digits[..count], power);
}

/// `digits * 10^power` as text.
fn lay_out(out: &mut Vec<u8>, digits: &[u8], power: i32) {
    let count = digits.len() as i32;
    let exponent = power + count - 1;
    if power >= 0 && exponent < count + 7 {
        out.extend_from_slice(digits);
        out.resize(out.len() + power as usize, b'0');
    } else if power < 0 && (power > -7 || exponent.abs() < 4) {
        let whole = count + power;
        if whole <= 0 {
            out.extend_from_slice(b"0.");
            out.resize(out.len() + whole.unsigned_abs() as usize, b'0');
            out.extend_from_slice(digits);
        } else {
            let (integer, fraction) = digits.split_at(whole as usize);
            out.extend_from_slice(integer);
            out.push(b'.');
            out.extend_from_slice(fraction);
        }
    } else {
        out.push(digits[0]);
        if count > 1 {
            out.push(b'.');
            out.extend_from_slice(&digits[1..]);
        }
        out.extend_from_slice(if exponent < 0 { b"e-" } else { b"e+" });
        write_i64(out, i64::from(exponent.abs()));
    }
}

#[cfg(test)]
mod tests;
