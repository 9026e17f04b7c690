//! Exact decimal addition, for INCRBYFLOAT and HINCRBYFLOAT.
//!
//! Clients see decimal text, add decimal text and expect `0.1 + 0.2` to be `0.3`. Engines in C get that by computing
//! in the platform's `long double` and printing 17 digits after the point, so that their answer depends on the
//! processor. Here the sum is exact, then rounded half to even at the same 17 digits: the same text on every machine,
//! and the same text as theirs wherever their `long double` holds the sum.

const FRACTION_DIGITS: i64 = 17;
/// A double ends near 1.8e308; nothing beyond is accepted, so no text is longer than this many digits before the point.
const WHOLE_DIGITS_MAX: i64 = 309;

/// Why a sum is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecimalError {
    /// An operand is not a float.
    NotAFloat,
    /// The result would be infinite or not a number.
    OutOfRange,
}

/// Digits, most significant first, of `value = digits * 10^exponent`.
struct Decimal {
    negative: bool,
    digits: Vec<u8>,
    exponent: i64,
}

/// The sum of two floats given as text, as text: at most 17 digits after the point, no trailing zeros, no exponent.
pub fn add_decimal(left: &[u8], right: &[u8]) -> Result<Vec<u8>, DecimalError> {
    let (left, right) = (parse(left)?, parse(right)?);
    // Both are finite and short text, so that the span of digits is a few thousand at most.
    let exponent = left.exponent.min(right.exponent);
    let top = (left.exponent + left.digits.len() as i64)
        .max(right.exponent + right.digits.len() as i64)
        + 1;
    let (a, b) = (spread(&left, exponent, top), spread(&right, exponent, top));
    let (negative, digits) = if left.negative == right.negative {
        (left.negative, add(&a, &b))
    } else if a >= b {
        (left.negative, subtract(&a, &b))
    } else {
        (right.negative, subtract(&b, &a))
    };
    print(negative, digits, exponent)
}

fn parse(text: &[u8]) -> Result<Decimal, DecimalError> {
    let value = super::parse_f64(text).ok_or(DecimalError::NotAFloat)?;
    if value.is_infinite() {
        return Err(DecimalError::OutOfRange);
    }
    let shortest;
    let is_hex = text.iter().any(|byte| matches!(byte, b'x' | b'X'));
    let text = if is_hex {
        shortest = super::format_f64(value);
        &shortest
    } else {
        text
    };
    let body = super::mantissa(text);
    let mut exponent: i64 = std::str::from_utf8(text.get(body.len() + 1..).unwrap_or(b"0"))
        .ok()
        .and_then(|exponent| exponent.parse().ok())
        .unwrap_or(0);
    let mut digits = Vec::with_capacity(body.len());
    let mut after_point = false;
    for &byte in body {
        match byte {
            b'.' => after_point = true,
            b'0'..=b'9' => {
                exponent -= i64::from(after_point);
                if !digits.is_empty() || byte != b'0' {
                    digits.push(byte - b'0');
                }
            }
            _ => {}
        }
    }
    while digits.last() == Some(&0) {
        digits.pop();
        exponent += 1;
    }
    if digits.is_empty() {
        exponent = 0;
    }
    Ok(Decimal { negative: value.is_sign_negative(), digits, exponent })
}

/// The digits of a number written from `10^top` down to `10^exponent`.
fn spread(number: &Decimal, exponent: i64, top: i64) -> Vec<u8> {
    let mut digits = vec![0; (top - exponent) as usize];
    let end = digits.len() - (number.exponent - exponent) as usize;
    digits[end - number.digits.len()..end].copy_from_slice(&number.digits);
    digits
}

fn add(a: &[u8], b: &[u8]) -> Vec<u8> {
    let mut carry = 0;
    let mut sum: Vec<u8> = a
        .iter()
        .zip(b)
        .rev()
        .map(|(x, y)| {
            let digit = x + y + carry;
            carry = digit / 10;
            digit % 10
        })
        .collect();
    sum.reverse();
    sum
}

/// `a - b` where `a >= b`.
fn subtract(a: &[u8], b: &[u8]) -> Vec<u8> {
    let mut borrow = 0;
    let mut difference: Vec<u8> = a
        .iter()
        .zip(b)
        .rev()
        .map(|(x, y)| {
            let digit = 10 + x - y - borrow;
            borrow = u8::from(digit < 10);
            digit % 10
        })
        .collect();
    difference.reverse();
    difference
}

fn print(negative: bool, digits: Vec<u8>, exponent: i64) -> Result<Vec<u8>, DecimalError> {
    let (mut digits, mut exponent) = (digits, exponent);
    if exponent < -FRACTION_DIGITS {
        let dropped = (-FRACTION_DIGITS - exponent) as usize;
        let keep = digits.len().saturating_sub(dropped);
        let mut tail = vec![0; dropped.saturating_sub(digits.len())];
        tail.extend(digits.drain(keep..));
        let odd = digits.last().is_some_and(|digit| digit % 2 == 1);
        let above_half = tail[0] > 5 || (tail[0] == 5 && tail[1..].iter().any(|&digit| digit > 0));
        digits.insert(0, 0);
        if above_half || (tail[0] == 5 && odd) {
            let mut one = vec![0; digits.len()];
            one[digits.len() - 1] = 1;
            digits = add(&digits, &one);
        }
        exponent = -FRACTION_DIGITS;
    }
    digits.resize(digits.len() + exponent.max(0) as usize, 0);
    let fraction = (-exponent).max(0) as usize;
    if digits.len() < fraction {
        digits.splice(0..0, vec![0; fraction - digits.len()]);
    }
    let (whole, fraction) = digits.split_at(digits.len() - fraction);
    let whole = &whole[whole.iter().position(|&digit| digit > 0).unwrap_or(whole.len())..];
    let kept = fraction.iter().rposition(|&digit| digit > 0).map_or(0, |last| last + 1);
    let fraction = &fraction[..kept];
    if whole.len() as i64 > WHOLE_DIGITS_MAX {
        return Err(DecimalError::OutOfRange);
    }
    let mut text = Vec::with_capacity(whole.len() + fraction.len() + 3);
    if negative && !(whole.is_empty() && fraction.is_empty()) {
        text.push(b'-');
    }
    if whole.is_empty() {
        text.push(b'0');
    }
    text.extend(whole.iter().map(|digit| digit + b'0'));
    if !fraction.is_empty() {
        text.push(b'.');
        text.extend(fraction.iter().map(|digit| digit + b'0'));
    }
    // What is printed must be readable again as a float.
    if super::parse_f64(&text).is_none() { Err(DecimalError::OutOfRange) } else { Ok(text) }
}
