//! The manifest of the log: which files it is made of, in the order in which they are loaded.
//!
//! ```text
//! file appendonly.aof.2.base.rdb seq 2 type b
//! file appendonly.aof.1.incr.aof seq 1 type h
//! file appendonly.aof.3.incr.aof seq 3 type i
//! ```

/// Of a line, as it was read and as it would be written.
const LINE_BYTES_MAX: usize = 1024;
/// More than this no manifest can honestly hold, bytes.
pub const BYTES_MAX: u64 = 1 << 20;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    pub name: String,
    pub seq: u64,
    /// Pairs behind the known ones, kept as they were.
    pub more: Vec<String>,
}

impl Part {
    fn line(&self, kind: &str) -> String {
        let mut line = format!("file {} seq {} type {kind}", quoted(&self.name), self.seq);
        for word in &self.more {
            line.push(' ');
            line.push_str(&quoted(word));
        }
        line
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    pub base: Option<Part>,
    /// Superseded files that may still be there.
    pub history: Vec<Part>,
    pub incr: Vec<Part>,
}

impl Manifest {
    /// Reads a manifest; the error says in which line what is wrong.
    pub fn parse(text: &str) -> Result<Manifest, String> {
        let mut manifest = Manifest::default();
        for (n, line) in text.lines().enumerate() {
            let wrong = |what: &str| Err(format!("line {} of the AOF manifest: {what}", n + 1));
            if line.len() > LINE_BYTES_MAX {
                return wrong("too long");
            }
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let Some(words) = words(line) else { return wrong("unbalanced quotes") };
            if words.len() < 6 || words.len() % 2 != 0 {
                return wrong("not pairs of a name and a value");
            }
            let (mut name, mut seq, mut kind, mut more) = (None, None, None, Vec::new());
            for pair in words.chunks_exact(2) {
                match pair[0].to_ascii_lowercase().as_str() {
                    "file" => name = Some(pair[1].clone()),
                    "seq" => seq = pair[1].parse().ok(),
                    "type" => kind = Some(pair[1].clone()),
                    _ => more.extend_from_slice(pair),
                }
            }
            let (Some(name), Some(seq), Some(kind)) = (name, seq, kind) else {
                return wrong("file, seq or type is missing");
            };
            if name.is_empty() || name.contains('/') || name == "." || name == ".." {
                return wrong("not the name of a file in the log's own folder");
            }
            let part = Part { name, seq, more };
            if part.line(&kind).len() > LINE_BYTES_MAX {
                // Said now, and not by the next start, that would find a line which it refuses.
                return wrong(
                    "too long once its words are in quotes: give the file a shorter name",
                );
            }
            match kind.as_str() {
                "b" if manifest.base.is_some() => return wrong("a second base file"),
                "b" => manifest.base = Some(part),
                "h" => manifest.history.push(part),
                "i" if manifest.incr.last().is_some_and(|last| last.seq >= part.seq) => {
                    return wrong("the numbers of the incr files do not rise");
                }
                "i" => manifest.incr.push(part),
                _ => return wrong("an unknown type of file"),
            }
        }
        Ok(manifest)
    }

    pub fn text(&self) -> String {
        let mut text = String::new();
        let mut line = |part: &Part, kind: &str| {
            text.push_str(&part.line(kind));
            text.push('\n');
        };
        self.base.iter().for_each(|p| line(p, "b"));
        self.history.iter().for_each(|p| line(p, "h"));
        self.incr.iter().for_each(|p| line(p, "i"));
        text
    }

    /// Highest number in use, of all kinds of files.
    pub fn last_seq(&self) -> u64 {
        let parts = self.base.iter().chain(&self.history).chain(&self.incr);
        parts.map(|p| p.seq).max().unwrap_or(0)
    }
}

/// Words of a line; double quotes with backslash escapes hold what has spaces.
fn words(line: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut chars = line.chars().peekable();
    loop {
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        let Some(first) = chars.peek().copied() else { return Some(words) };
        let mut word = String::new();
        if first == '"' {
            chars.next();
            loop {
                match chars.next()? {
                    '"' => break,
                    '\\' => word.push(chars.next()?),
                    c => word.push(c),
                }
            }
        } else {
            while let Some(c) = chars.next_if(|c| !c.is_whitespace()) {
                word.push(c);
            }
        }
        words.push(word);
    }
}

fn quoted(word: &str) -> String {
    let is_special = |c: char| c.is_whitespace() || matches!(c, '"' | '\\' | '\'');
    if word.is_empty() || word.contains(is_special) {
        format!("\"{}\"", word.replace('\\', "\\\\").replace('"', "\\\""))
    } else {
        word.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_is_read_as_it_was_written() {
        let text = "file a.aof.2.base.rdb seq 2 type b\nfile a.aof.1.incr.aof seq 1 type h\n\
                    file \"a b.aof.3.incr.aof\" seq 3 type i startoffset 17\n";
        let manifest = Manifest::parse(text).unwrap();
        assert_eq!(manifest.text(), text);
        assert_eq!(manifest.last_seq(), 3);
        assert_eq!(manifest.incr[0].more, ["startoffset", "17"]);
        let commented = format!("# made by hand\n\n{text}");
        assert_eq!(Manifest::parse(&commented), Ok(manifest));
    }

    /// Only blanks and tabs were quoted: a name with any other space, as a manifest of somebody else's may have it, was
    /// written so that the next start found a line that makes no sense, and no log.
    #[test]
    fn names_with_any_kind_of_space_are_read_back() {
        for space in [' ', '\t', '\r', '\x0b', '\u{85}', '\u{a0}', '\u{2003}'] {
            let text = format!("file \"a{space}b\" seq 1 type i key \"{space}\"\n");
            let manifest = Manifest::parse(&text).unwrap();
            assert_eq!(manifest.incr[0].name, format!("a{space}b"));
            assert_eq!(Manifest::parse(&manifest.text()), Ok(manifest));
        }
    }

    /// What was read with bare quotes and backslashes is written with two bytes for each.
    #[test]
    fn a_line_that_is_too_long_once_quoted_is_refused_when_it_is_read() {
        let text = |marks: usize| format!("file a seq 1 type i key k{}", "\"".repeat(marks));
        let most = (LINE_BYTES_MAX - text(0).len() - 2) / 2;
        let manifest = Manifest::parse(&text(most)).unwrap();
        assert_eq!(Manifest::parse(&manifest.text()), Ok(manifest));
        let told = Manifest::parse(&text(most + 1)).unwrap_err();
        assert!(told.starts_with("line 1 of the AOF manifest: too long once"), "{told}");
    }

    #[test]
    fn a_manifest_that_makes_no_sense_is_refused() {
        for text in [
            "file a seq 1 type x",
            "file a seq 1",
            "file a seq one type b",
            "file ../a seq 1 type b",
            "file .. seq 1 type b",
            "file a seq 1 type b\nfile b seq 2 type b",
            "file a seq 2 type i\nfile b seq 2 type i",
            "file \"a seq 1 type b",
            "file a seq 1 type b extra",
        ] {
            assert!(Manifest::parse(text).is_err(), "{text:?}");
        }
        assert!(Manifest::parse(&format!("file {} seq 1 type b", "a".repeat(2000))).is_err());
    }
}
