//! Inputs in a file, a line of printable ASCII for each, as a failure shows them: `\r`, `\n`, `\t`, `\\`, `\"`, `\'`, `\x00`.

#![allow(dead_code, reason = "who searches writes them, who tests reads them")]

use std::io::{Error, ErrorKind, Result};
use std::path::Path;

/// What a file holds; nothing where there is none.
pub(crate) fn read(file: &Path) -> Result<Vec<Vec<u8>>> {
    let text = match std::fs::read_to_string(file) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        text => text?,
    };
    let wrong = |number: usize| {
        let text = format!("{}:{}: no input as it is shown", file.display(), number + 1);
        Error::new(ErrorKind::InvalidData, text)
    };
    let lines = text.lines().enumerate();
    lines.map(|(number, line)| unescape(line.as_bytes()).ok_or_else(|| wrong(number))).collect()
}

/// A file that holds these.
pub(crate) fn write(file: &Path, inputs: &[Vec<u8>]) -> Result<()> {
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let text: String = inputs.iter().map(|input| format!("{}\n", input.escape_ascii())).collect();
    std::fs::write(file, text)
}

/// `None`: the line is not what `escape_ascii` gives.
fn unescape(line: &[u8]) -> Option<Vec<u8>> {
    let (mut out, mut rest) = (Vec::new(), line);
    while let Some((first, more)) = rest.split_first() {
        if *first != b'\\' {
            out.push(*first);
            rest = more;
            continue;
        }
        let (kind, more) = more.split_first()?;
        rest = more;
        out.push(match kind {
            b'r' => b'\r',
            b'n' => b'\n',
            b't' => b'\t',
            b'\\' | b'"' | b'\'' => *kind,
            b'x' => {
                let digits = std::str::from_utf8(more.get(..2)?).ok()?;
                rest = &more[2..];
                u8::from_str_radix(digits, 16).ok()?
            }
            _ => return None,
        });
    }
    Some(out)
}

#[test]
fn inputs_are_read_as_they_were_written() {
    let all: Vec<u8> = (0..=255).collect();
    let line = all.escape_ascii().to_string();
    assert_eq!(unescape(line.as_bytes()), Some(all));
    assert_eq!(unescape(b"\\"), None);
    assert_eq!(unescape(b"\\x0"), None);
    assert_eq!(unescape(b"\\q"), None);
}
