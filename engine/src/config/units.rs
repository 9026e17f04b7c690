//! Sizes as people write them.

/// `1gb`, `64mb`, `100k`, `12`: bytes. `k` is a thousand, `kb` 1024, and so on; case does not matter.
pub fn parse_memory(text: &str) -> Option<i64> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(split);
    let factor: i64 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" => 1000,
        "kb" => 1 << 10,
        "m" => 1_000_000,
        "mb" => 1 << 20,
        "g" => 1_000_000_000,
        "gb" => 1 << 30,
        "t" => 1_000_000_000_000,
        "tb" => 1 << 40,
        _ => return None,
    };
    digits.parse::<i64>().ok()?.checked_mul(factor)
}

/// Bytes as INFO prints them: `1.50M`.
pub fn human(bytes: u64) -> String {
    let n = bytes as f64;
    for (unit, suffix) in [(1u64 << 40, "T"), (1 << 30, "G"), (1 << 20, "M"), (1 << 10, "K")] {
        if bytes >= unit {
            return format!("{:.2}{suffix}", n / unit as f64);
        }
    }
    format!("{bytes}B")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_their_units() {
        for (text, bytes) in [
            ("0", Some(0)),
            ("2gb", Some(2_147_483_648)),
            ("2GB", Some(2_147_483_648)),
            ("100k", Some(100_000)),
            ("64mb", Some(64 << 20)),
            ("1t", Some(1_000_000_000_000)),
            ("", None),
            ("gb", None),
            ("-1", None),
            ("1.5gb", None),
            ("99999999999999999999", None),
            ("9223372036854775807kb", None),
        ] {
            assert_eq!(parse_memory(text), bytes, "{text}");
        }
        assert_eq!(human(2 << 30), "2.00G");
        assert_eq!(human(1_572_864), "1.50M");
        assert_eq!(human(512), "512B");
    }
}
