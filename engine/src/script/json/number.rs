//! Numbers in a text: more of them than JSON has, as C reads them.

/// Written as JSON does not allow, though C reads it.
pub(super) fn is_invalid_number(text: &[u8]) -> bool {
    if text.first() == Some(&b'+') {
        return true;
    }
    let text = text.strip_prefix(b"-").unwrap_or(text);
    match text {
        [b'0', next, ..] => matches!(next, b'x' | b'X' | b'0'..=b'9'),
        [first, ..] if *first <= b'9' => false,
        _ => {
            let word = text.get(..3).unwrap_or_default().to_ascii_lowercase();
            word == b"inf" || word == b"nan"
        }
    }
}

/// The longest number at the beginning of a text, by C's rules, and its length.
pub(super) fn c_number(text: &[u8]) -> Option<(f64, usize)> {
    let sign = usize::from(matches!(text.first(), Some(b'-' | b'+')));
    let body = &text[sign..];
    let lower: Vec<u8> = body.iter().take(8).map(u8::to_ascii_lowercase).collect();
    let signed = |value: f64| if text[0] == b'-' { -value } else { value };
    if lower.starts_with(b"inf") {
        let len = if lower.starts_with(b"infinity") { 8 } else { 3 };
        return Some((signed(f64::INFINITY), sign + len));
    }
    if lower.starts_with(b"nan") {
        return Some((signed(f64::NAN), sign + 3));
    }
    let digits =
        |from: usize, is: fn(&u8) -> bool| body[from..].iter().take_while(|b| is(b)).count();
    if lower.starts_with(b"0x") {
        let many = digits(2, u8::is_ascii_hexdigit);
        let hex = body[2..2 + many].iter();
        let value =
            hex.fold(0.0, |n, b| n * 16.0 + f64::from(char::from(*b).to_digit(16).unwrap_or(0)));
        return Some((signed(value), sign + if many == 0 { 1 } else { 2 + many }));
    }
    let mut len = digits(0, u8::is_ascii_digit);
    let mut seen = len;
    if body.get(len) == Some(&b'.') {
        let more = digits(len + 1, u8::is_ascii_digit);
        seen += more;
        len += 1 + more;
    }
    if seen == 0 {
        return None;
    }
    if matches!(body.get(len), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(body.get(len + 1), Some(b'-' | b'+')));
        let many =
            body.get(len + 1 + sign..).map_or(0, |_| digits(len + 1 + sign, u8::is_ascii_digit));
        if many > 0 {
            len += 1 + sign + many;
        }
    }
    let value = std::str::from_utf8(&body[..len]).ok()?.parse().ok()?;
    Some((signed(value), sign + len))
}
