//! redis.conf's lines: words with quotes, comments on lines of their own, `include`.

use std::path::{Path, PathBuf};

/// Includes inside includes.
const DEPTH_MAX: usize = 16;

/// One line with something to say, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    pub number: usize,
    pub text: String,
    pub words: Vec<String>,
}

/// Why a file is refused, in the form that launchers look for.
pub fn fatal(number: usize, text: &str, reason: &str) -> String {
    format!("Reading the configuration file, at line {number}\n>>> '{text}'\n{reason}")
}

/// The lines of a text, includes read in where they stand.
pub fn lines(text: &str, base: &Path, depth: usize) -> Result<Vec<Line>, String> {
    let mut found = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let (number, line) = (at + 1, line.trim_matches([' ', '\t', '\r', '\n']));
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let words = split_words(line)
            .ok_or_else(|| fatal(number, line, "Unbalanced quotes in configuration line"))?;
        match words.first() {
            None => {}
            Some(name) if name.eq_ignore_ascii_case("include") => {
                let [_, path] = words.as_slice() else {
                    return Err(fatal(number, line, "wrong number of arguments"));
                };
                let nested = read(&base.join(path), depth + 1)
                    .map_err(|reason| fatal(number, line, &reason))?;
                found.extend(nested);
            }
            Some(_) => found.push(Line { number, text: line.to_string(), words }),
        }
    }
    Ok(found)
}

/// The lines of a file.
pub fn read(path: &Path, depth: usize) -> Result<Vec<Line>, String> {
    if depth > DEPTH_MAX {
        return Err("too many files included by each other".into());
    }
    let text = std::fs::read_to_string(path)
        .map_err(|e| format!("Can't open config file '{}': {e}", path.display()))?;
    let base = path.parent().map(PathBuf::from).unwrap_or_default();
    lines(&text, &base, depth)
}

/// Words as the protocol family splits them: `"..."` with escapes, `'...'` with `\'`; `None`: unbalanced.
pub fn split_words(line: &str) -> Option<Vec<String>> {
    let bytes = line.as_bytes();
    let mut words = Vec::new();
    let mut i = 0;
    loop {
        while bytes.get(i).is_some_and(u8::is_ascii_whitespace) {
            i += 1;
        }
        if i == bytes.len() {
            return Some(words);
        }
        let mut word = Vec::new();
        while let Some(&byte) = bytes.get(i).filter(|b| !b.is_ascii_whitespace()) {
            i += 1;
            match byte {
                b'"' | b'\'' => i = quoted(bytes, i, byte, &mut word)?,
                _ => word.push(byte),
            }
        }
        words.push(String::from_utf8(word).ok()?);
    }
}

/// Reads up to the closing quote, behind which a space or the end must come; gives where to go on.
fn quoted(bytes: &[u8], mut i: usize, quote: u8, word: &mut Vec<u8>) -> Option<usize> {
    loop {
        let byte = *bytes.get(i)?;
        i += 1;
        if byte == quote {
            let end = bytes.get(i).is_none_or(u8::is_ascii_whitespace);
            return end.then_some(i);
        }
        if byte != b'\\' {
            word.push(byte);
            continue;
        }
        let next = *bytes.get(i)?;
        if quote == b'\'' {
            if next == b'\'' {
                i += 1;
                word.push(next);
            } else {
                word.push(byte);
            }
            continue;
        }
        i += 1;
        let hex = |at: usize| bytes.get(at).and_then(|b| char::from(*b).to_digit(16));
        word.push(match next {
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'b' => 8,
            b'a' => 7,
            b'x' => match (hex(i), hex(i + 1)) {
                (Some(high), Some(low)) => {
                    i += 2;
                    (high * 16 + low) as u8
                }
                _ => b'x',
            },
            other => other,
        });
    }
}

/// A word as it must be written to be read back the same.
pub fn quote(word: &str) -> String {
    let plain = !word.is_empty()
        && !word.starts_with('#')
        && word.bytes().all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\'' && b != b'\\');
    if plain {
        return word.to_string();
    }
    let mut text = String::from("\"");
    for c in word.chars() {
        match c {
            '"' | '\\' => text.extend(['\\', c]),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\t' => text.push_str("\\t"),
            c if c.is_ascii_control() => text.push_str(&format!("\\x{:02x}", c as u32)),
            c => text.push(c),
        }
    }
    text.push('"');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_split_as_the_family_does() {
        for (line, words) in [
            ("a b  c", Some(vec!["a", "b", "c"])),
            ("save \"\"", Some(vec!["save", ""])),
            (r#"x "a b\x41\n" 'it\'s'"#, Some(vec!["x", "a bA\n", "it's"])),
            (r#"x "unbalanced"#, None),
            (r#"x "a"b"#, None),
        ] {
            let got = split_words(line);
            let words = words.map(|w| w.into_iter().map(String::from).collect());
            assert_eq!(got, words, "{line}");
        }
    }

    #[test]
    fn a_quoted_word_reads_back_the_same() {
        for word in ["", "plain", "with space", "q\"uo\\te", "tab\tnl\n", "#hash", "\u{e9}"] {
            assert_eq!(split_words(&quote(word)), Some(vec![word.to_string()]));
        }
    }
}
