use proptest::prelude::*;

use super::*;

#[test]
fn only_canonical_text_is_an_integer() {
    for (text, value) in [
        ("0", Some(0)),
        ("-1", Some(-1)),
        ("9223372036854775807", Some(i64::MAX)),
        ("-9223372036854775808", Some(i64::MIN)),
        ("9223372036854775808", None),
        ("-9223372036854775809", None),
        ("99999999999999999999", None),
        ("-0", None),
        ("+1", None),
        ("01", None),
        (" 1", None),
        ("1 ", None),
        ("", None),
        ("-", None),
        ("1.0", None),
        ("0x1", None),
    ] {
        assert_eq!(parse_i64(text.as_bytes()), value, "{text:?}");
    }
}

#[test]
fn cursors_are_unsigned_in_any_spelling() {
    for (text, value) in [
        ("0", Some(0)),
        ("", Some(0)),
        ("007", Some(7)),
        ("+7", Some(7)),
        ("-1", Some(u64::MAX)),
        ("18446744073709551615", Some(u64::MAX)),
        ("18446744073709551616", None),
        ("-", None),
        (" 1", None),
        ("1 ", None),
        ("1.5", None),
        ("abc", None),
    ] {
        assert_eq!(parse_cursor(text.as_bytes()), value, "{text:?}");
    }
}

#[test]
fn bounds_of_scores_are_read_freely() {
    for (text, value) in [
        ("", Some(0.0)),
        (" 1", Some(1.0)),
        ("-1e400", Some(f64::NEG_INFINITY)),
        ("1e-400", Some(0.0)),
        ("+inf", Some(f64::INFINITY)),
        (" ", None),
        ("1 ", None),
        ("nan", None),
        ("abc", None),
        ("--1", None),
    ] {
        assert_eq!(parse_bound(text.as_bytes()), value, "{text:?}");
    }
}

#[test]
fn floats_are_read_as_strtod_reads_them_without_spaces_and_nan() {
    for (text, value) in [
        ("1", Some(1.0)),
        ("-1.5e3", Some(-1500.0)),
        ("+.5", Some(0.5)),
        ("5.", Some(5.0)),
        ("inf", Some(f64::INFINITY)),
        ("+inf", Some(f64::INFINITY)),
        ("-Infinity", Some(f64::NEG_INFINITY)),
        ("0x10", Some(16.0)),
        ("0x.8p1", Some(1.0)),
        ("0e-999", Some(0.0)),
        ("nan", None),
        ("-nan", None),
        ("1e400", None),
        ("1e-400", None),
        (" 1", None),
        ("1 ", None),
        ("1a", None),
        ("", None),
        (".", None),
        ("0x", None),
        ("++1", None),
        ("-+1", None),
        ("infinite", None),
    ] {
        assert_eq!(parse_f64(text.as_bytes()), value, "{text:?}");
    }
}

#[test]
fn floats_are_printed_as_replies_print_them() {
    for (value, text) in [
        (0.0, "0"),
        (-0.0, "-0"),
        (3.0, "3"),
        (-17.5, "-17.5"),
        (0.1, "0.1"),
        (1e20, "1e+20"),
        (1.5e300, "1.5e+300"),
        (1e8, "100000000"),
        (123_456_789_012.5, "123456789012.5"),
        (0.000_001, "0.000001"),
        (1e-7, "1e-7"),
        (1.234e-10, "1.234e-10"),
        (f64::INFINITY, "inf"),
        (f64::NEG_INFINITY, "-inf"),
        (4_503_599_627_370_496.0, "4503599627370496"),
        (12_345_678_901_234_567_890.0, "12345678901234567000"),
        (f64::MAX, "1.7976931348623157e+308"),
    ] {
        assert_eq!(String::from_utf8(format_f64(value)).unwrap(), text);
    }
}

#[test]
fn decimal_sums_are_exact_and_trimmed() {
    let sum = |a: &str, b: &str| {
        add_decimal(a.as_bytes(), b.as_bytes()).map(|text| String::from_utf8(text).unwrap())
    };
    for (a, b, text) in [
        ("0.1", "0.2", "0.3"),
        ("10.50", "0.1", "10.6"),
        ("5.0e3", "2.0e2", "5200"),
        ("3", "-3", "0"),
        ("-1", "0.5", "-0.5"),
        ("17179869184", "1.5", "17179869185.5"),
        ("0", "0.024390243902439025", "0.02439024390243902"),
        ("0.02439024390243902", "-0.024390243902439025", "0"),
        ("1e17", "1", "100000000000000001"),
        ("999", "1", "1000"),
        ("1e-300", "1", "1"),
        ("0.99999999999999999", "0.00000000000000001", "1"),
        ("0.999999999999999999", "0", "1"),
        ("0x10", "0.5", "16.5"),
        ("-0", "-0", "0"),
    ] {
        assert_eq!(sum(a, b).as_deref(), Ok(text), "{a} + {b}");
    }
    assert_eq!(sum("x", "1"), Err(DecimalError::NotAFloat));
    assert_eq!(sum("1", "inf"), Err(DecimalError::OutOfRange));
    assert_eq!(sum("1.7e308", "1.7e308"), Err(DecimalError::OutOfRange));
}

proptest! {
    #[test]
    fn integer_text_reads_back(value: i64) {
        let mut text = Vec::new();
        write_i64(&mut text, value);
        prop_assert_eq!(text.len(), len_i64(value));
        prop_assert_eq!(parse_i64(&text), Some(value));
    }

    #[test]
    fn float_text_reads_back(bits: u64) {
        let value = f64::from_bits(bits);
        prop_assume!(!value.is_nan());
        prop_assert_eq!(parse_f64(&format_f64(value)), Some(value));
    }

    #[test]
    fn digits_alone_are_read_as_any_float_is(text in "[0-9]{1,18}|[0-9]{1,8}[.][0-9]{1,8}") {
        prop_assert_eq!(parse_f64(text.as_bytes()), text.parse().ok());
    }

    #[test]
    fn a_float_is_shown_as_it_is_printed(bits: u64, integer: i32, halves: i32) {
        for value in [f64::from_bits(bits), f64::from(integer), f64::from(halves) / 2.0, -0.0, 1e17, -1e19] {
            with_f64(value, |text| assert_eq!(text, format_f64(value), "{value}"));
        }
    }

    #[test]
    fn any_bytes_are_judged_without_panic(text: Vec<u8>) {
        parse_i64(&text);
        parse_f64(&text);
        let _ = add_decimal(&text, b"1.5");
    }

    #[test]
    fn small_decimal_sums_agree_with_integers(a in -1_000_000i64..1_000_000, b in -1_000_000i64..1_000_000) {
        let text = |n: i64| format!("{}{}.{:03}", if n < 0 { "-" } else { "" }, n.abs() / 1000, n.abs() % 1000);
        let sum = add_decimal(text(a).as_bytes(), text(b).as_bytes()).unwrap();
        let expected = text(a + b);
        let expected = expected.trim_end_matches('0').trim_end_matches('.');
        prop_assert_eq!(String::from_utf8(sum).unwrap(), if expected.is_empty() || expected == "-" { "0" } else { expected });
    }
}
