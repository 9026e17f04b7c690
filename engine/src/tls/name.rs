//! The common name in a certificate.

/// The subject's common name of a DER certificate.
///
/// `Certificate { tbs { [0] version?, serial, algorithm, issuer, validity, subject, .. }, .. }`, and
/// the subject is a sequence of sets of (OID, string).
pub fn common_name(certificate: &[u8]) -> Option<&[u8]> {
    const SEQUENCE: u8 = 0x30;
    const SET: u8 = 0x31;
    const COMMON_NAME: &[u8] = &[0x06, 0x03, 0x55, 0x04, 0x03];
    let (_, mut subject, _) = der(fields(certificate)?[SUBJECT])?;
    while let Some((tag, mut set, rest)) = der(subject) {
        subject = rest;
        while let Some((inner, pair, more)) = der(set) {
            set = more;
            if tag == SET
                && inner == SEQUENCE
                && let Some(value) = pair.strip_prefix(COMMON_NAME)
            {
                return der(value).map(|(_, text, _)| text);
            }
        }
    }
    None
}

/// The name of the user that a client's certificate stands for: a common name without control characters.
/// A NUL in it would show one name to who reads it as text, and another one to us.
pub fn user_name(certificate: &[u8]) -> Result<Option<&str>, &'static str> {
    let Some(name) = common_name(certificate) else { return Ok(None) };
    if name.iter().any(u8::is_ascii_control) {
        return Err("its common name has control characters");
    }
    match std::str::from_utf8(name) {
        Ok(name) if !name.is_empty() => Ok(Some(name)),
        Ok(_) => Ok(None),
        Err(_) => Err("its common name is not UTF-8"),
    }
}

/// Serial number in hexadecimal digits, as INFO shows it.
pub fn serial(certificate: &[u8]) -> Option<String> {
    let (_, digits, _) = der(fields(certificate)?[SERIAL])?;
    let digits = digits.strip_prefix(&[0]).filter(|rest| !rest.is_empty()).unwrap_or(digits);
    Some(digits.iter().map(|b| format!("{b:02X}")).collect())
}

/// Unix seconds at which the certificate ends: the second of its two times, `YYMMDDhhmmssZ` or with four digits of the year.
pub fn not_after(certificate: &[u8]) -> Option<i64> {
    const UTC_TIME: u8 = 0x17;
    let (_, validity, _) = der(fields(certificate)?[VALIDITY])?;
    let (tag, text, _) = der(der(validity)?.2)?;
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    let (year, rest) = text.split_at_checked(if tag == UTC_TIME { 2 } else { 4 })?;
    let year: i64 = year.parse().ok()?;
    let year = match tag {
        UTC_TIME if year < 50 => 2000 + year,
        UTC_TIME => 1900 + year,
        _ => year,
    };
    if rest.len() != 10 || !rest.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let part = |at: usize| rest[at..at + 2].parse::<i64>().ok();
    let (month, day) = (part(0)?, part(2)?);
    let seconds = part(4)? * 3600 + part(6)? * 60 + part(8)?;
    Some(days_since_1970(year, month, day) * 86_400 + seconds)
}

/// Days of the Gregorian calendar, counted in years that begin in March, so that the leap day is the last.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    365 * year + leap_days + (153 * month + 2) / 5 + day - 1 - 719_468
}

/// Places of the fields below.
const SERIAL: usize = 0;
const VALIDITY: usize = 3;
const SUBJECT: usize = 4;

/// Serial number, algorithm, issuer, validity, subject; each with what follows it.
fn fields(certificate: &[u8]) -> Option<[&[u8]; 5]> {
    let (_, outer, _) = der(certificate)?;
    let (_, mut tbs, _) = der(outer)?;
    if tbs.first() == Some(&0xa0) {
        tbs = der(tbs)?.2;
    }
    let mut found = [tbs; 5];
    for at in 1..5 {
        found[at] = der(found[at - 1])?.2;
    }
    Some(found)
}

/// One DER element: its tag, its content and what follows it.
fn der(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&short, mut rest) = rest.split_first()?;
    let mut len = usize::from(short);
    if short & 0x80 != 0 {
        let count = usize::from(short & 0x7f);
        if count == 0 || count > 4 {
            return None;
        }
        let (digits, after) = rest.split_at_checked(count)?;
        len = digits.iter().fold(0usize, |n, b| n << 8 | usize::from(*b));
        rest = after;
    }
    let (content, after) = rest.split_at_checked(len)?;
    Some((tag, content, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(name: &str) -> Vec<u8> {
        let mut params = rcgen::CertificateParams::new(vec![]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::OrganizationName, "other");
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.serial_number = Some(vec![0x0a, 0xbc].into());
        params.not_after = rcgen::date_time_ymd(2024, 2, 29);
        let key = rcgen::KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn a_certificate_tells_its_name_its_number_and_its_end() {
        let cert = certificate("alice");
        assert_eq!(user_name(&cert), Ok(Some("alice")));
        assert_eq!(serial(&cert).as_deref(), Some("0ABC"));
        assert_eq!(not_after(&cert), Some(1_709_164_800));
    }

    #[test]
    fn a_name_that_reads_as_another_one_is_refused() {
        for name in ["alice\0.evil", "\0", "al\nice"] {
            assert!(user_name(&certificate(name)).is_err(), "{name:?}");
        }
    }

    #[test]
    fn a_mangled_certificate_has_no_name_and_does_no_harm() {
        let cert = certificate("alice");
        for cut in 0..cert.len() {
            let part = &cert[..cut];
            let _ = (common_name(part), serial(part), not_after(part));
        }
        for at in 0..cert.len() {
            let mut cert = cert.clone();
            cert[at] ^= 0x81;
            let _ = (common_name(&cert), serial(&cert), not_after(&cert));
        }
    }
}
