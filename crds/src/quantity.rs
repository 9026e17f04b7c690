//! The two small grammars of the manifest: quantities of bytes (`512Mi`) and durations (`1s`, `1500ms`).

/// Bytes of a Kubernetes quantity, rounded up; `None` when it is none, negative, or beyond `u64`.
///
/// The grammar is a decimal number and one of the suffixes `m, k, M, G, T, P, E, Ki, Mi, Gi, Ti, Pi, Ei`
/// or an exponent `e3`, `E3`.
pub fn bytes(text: &str) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') || fraction.len() > 18 {
        return None;
    }
    let digits: u128 = format!("{whole}{fraction}").parse().ok()?;
    let tens = 10u128.pow(u32::try_from(fraction.len()).ok()?);
    let (multiplier, divisor) = match suffix {
        "" => (1, 1),
        "m" => (1, 1000),
        "k" => (1000, 1),
        "M" => (1000u128.pow(2), 1),
        "G" => (1000u128.pow(3), 1),
        "T" => (1000u128.pow(4), 1),
        "P" => (1000u128.pow(5), 1),
        "E" => (1000u128.pow(6), 1),
        "Ki" => (1 << 10, 1),
        "Mi" => (1 << 20, 1),
        "Gi" => (1 << 30, 1),
        "Ti" => (1 << 40, 1),
        "Pi" => (1 << 50, 1),
        "Ei" => (1 << 60, 1),
        _ => {
            let exponent = suffix.strip_prefix(['e', 'E'])?;
            let exponent: u32 = exponent.strip_prefix('+').unwrap_or(exponent).parse().ok()?;
            (10u128.checked_pow(exponent)?, 1)
        }
    };
    let scaled = digits.checked_mul(multiplier)?;
    u64::try_from(scaled.div_ceil(tens * divisor)).ok()
}

/// Hundredths of a percent of a share such as `1%` or `0.25%`; `None` when it is none, or more than all.
pub fn basis_points(text: &str) -> Option<u32> {
    let (whole, fraction) = {
        let number = text.strip_suffix('%')?;
        number.split_once('.').unwrap_or((number, "0"))
    };
    let digits = |text: &str, most: usize| {
        let fits = (1..=most).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
        text.parse::<u32>().ok().filter(|_| fits)
    };
    let tens = if fraction.len() == 1 { 10 } else { 1 };
    let points = digits(whole, 3)? * 100 + digits(fraction, 2)? * tens;
    (points <= 10_000).then_some(points)
}

/// Milliseconds of a duration such as `500ms`, `1s`, `15m`, `1h30m`; `None` when it is none.
pub fn duration_ms(text: &str) -> Option<u64> {
    let mut rest = text;
    let mut total = 0u64;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest[..end].parse().ok()?;
        rest = &rest[end..];
        let end = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let unit = match &rest[..end] {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return None,
        };
        rest = &rest[end..];
        total = total.checked_add(number.checked_mul(unit)?)?;
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_as_kubernetes_reads_them() {
        let cases = [
            ("512Mi", Some(512 << 20)),
            ("1Gi", Some(1 << 30)),
            ("1.5Gi", Some(3 << 29)),
            ("1G", Some(1_000_000_000)),
            ("128974848", Some(128_974_848)),
            ("129e6", Some(129_000_000)),
            ("1E3", Some(1000)),
            ("128974848000m", Some(128_974_848)),
            ("0.1", Some(1)),
            ("2Ei", Some(2 << 60)),
            ("64Ei", None),
            ("", None),
            ("Mi", None),
            ("512MiB", None),
            ("-1Gi", None),
            ("1.2.3", None),
            ("512 Mi", None),
        ];
        for (text, want) in cases {
            assert_eq!(bytes(text), want, "{text}");
        }
    }

    #[test]
    fn durations_are_read_with_their_unit() {
        let cases = [
            ("1s", Some(1000)),
            ("900s", Some(900_000)),
            ("500ms", Some(500)),
            ("1h30m", Some(5_400_000)),
            ("0s", Some(0)),
            ("1", None),
            ("", None),
            ("s", None),
            ("1.5s", None),
            ("-1s", None),
            ("1d", None),
            ("99999999999999999999s", None),
        ];
        for (text, want) in cases {
            assert_eq!(duration_ms(text), want, "{text}");
        }
    }
}
