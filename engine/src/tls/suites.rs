//! OpenSSL's names of versions and cipher suites, as redis.conf has them.

use rustls::crypto::aws_lc_rs::{DEFAULT_CIPHER_SUITES, cipher_suite as s};
use rustls::{SupportedCipherSuite, SupportedProtocolVersion, version};

/// Suites of TLS 1.2 by OpenSSL's names, of TLS 1.3 by the standard's.
const NAMES: &[(&str, SupportedCipherSuite)] = &[
    ("ECDHE-ECDSA-AES256-GCM-SHA384", s::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384),
    ("ECDHE-ECDSA-AES128-GCM-SHA256", s::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256),
    ("ECDHE-ECDSA-CHACHA20-POLY1305", s::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256),
    ("ECDHE-RSA-AES256-GCM-SHA384", s::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384),
    ("ECDHE-RSA-AES128-GCM-SHA256", s::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256),
    ("ECDHE-RSA-CHACHA20-POLY1305", s::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256),
    ("TLS_AES_256_GCM_SHA384", s::TLS13_AES_256_GCM_SHA384),
    ("TLS_AES_128_GCM_SHA256", s::TLS13_AES_128_GCM_SHA256),
    ("TLS_CHACHA20_POLY1305_SHA256", s::TLS13_CHACHA20_POLY1305_SHA256),
];

fn is_of_1_3(suite: SupportedCipherSuite) -> bool {
    suite.tls13().is_some()
}

/// tls-protocols: words with spaces between; none: 1.2 and 1.3.
pub(super) fn versions(text: &str) -> Result<Vec<&'static SupportedProtocolVersion>, String> {
    let one = |word: &str| match word.to_ascii_lowercase().as_str() {
        "tlsv1.2" => Ok(&version::TLS12),
        "tlsv1.3" => Ok(&version::TLS13),
        "tlsv1" | "tlsv1.1" => Err(format!("{word} is not supported: TLSv1.2 and TLSv1.3 are")),
        _ => Err(format!("{word} is no version of TLS: TLSv1.2 and TLSv1.3 are")),
    };
    if text.trim().is_empty() {
        return Ok(vec![&version::TLS13, &version::TLS12]);
    }
    text.split_ascii_whitespace().map(one).collect()
}

/// tls-ciphersuites and tls-ciphers: names with colons between, in the order of preference; none: all.
pub(super) fn suites(of_1_3: &str, of_1_2: &str) -> Result<Vec<SupportedCipherSuite>, String> {
    let mut all = chosen("tls-ciphersuites", of_1_3, true)?;
    all.extend(chosen("tls-ciphers", of_1_2, false)?);
    Ok(all)
}

fn chosen(what: &str, text: &str, of_1_3: bool) -> Result<Vec<SupportedCipherSuite>, String> {
    let fits = |suite: &SupportedCipherSuite| is_of_1_3(*suite) == of_1_3;
    if text.is_empty() || text == "DEFAULT" {
        return Ok(DEFAULT_CIPHER_SUITES.iter().copied().filter(fits).collect());
    }
    let one = |name: &str| {
        let row = NAMES.iter().find(|(n, s)| n.eq_ignore_ascii_case(name) && fits(s));
        row.map(|(_, suite)| *suite).ok_or_else(|| {
            let known: Vec<&str> = NAMES.iter().filter(|(_, s)| fits(s)).map(|(n, _)| *n).collect();
            format!("{what}: {name} is not supported; those that are: {}", known.join(":"))
        })
    };
    text.split([':', ',', ' ']).filter(|name| !name.is_empty()).map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suites_are_chosen_by_name_and_what_is_not_there_is_refused_with_those_that_are() {
        let all = suites("", "DEFAULT").unwrap();
        assert_eq!(all.len(), NAMES.len());
        let two = suites("TLS_AES_128_GCM_SHA256", "ECDHE-RSA-AES128-GCM-SHA256").unwrap();
        assert_eq!(two.len(), 2);
        for (of_1_3, of_1_2) in [("", "HIGH:!aNULL"), ("ECDHE-RSA-AES128-GCM-SHA256", "")] {
            let error = suites(of_1_3, of_1_2).unwrap_err();
            assert!(error.contains("is not supported; those that are"), "{error}");
        }
    }

    #[test]
    fn old_versions_are_refused_with_a_word() {
        assert_eq!(versions("").unwrap().len(), 2);
        assert_eq!(versions("TLSv1.3").unwrap().len(), 1);
        assert!(versions("TLSv1.1 TLSv1.2").unwrap_err().contains("TLSv1.1 is not supported"));
        assert!(versions("SSLv3").is_err());
    }
}
