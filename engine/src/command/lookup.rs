//! From a name in any case to its row, in one probe for nearly all names.

use std::sync::OnceLock;

use super::{Command, all};

const BITS: u32 = 11;
const NAME_BYTES_MAX: usize = 32;

/// A name under which a command is reached, as a word too, and its row.
#[derive(Clone, Copy)]
struct Named {
    word: u64,
    /// The word says it all about the name: eight letters at most.
    is_word: bool,
    name: &'static str,
    command: &'static Command,
}

/// Open addressing over the whole table; names are compared without case.
type Index = Box<[Option<Named>; 1 << BITS]>;

/// Bit that tells lower from upper case, in each byte.
const CASE: u64 = 0x2020_2020_2020_2020;

/// Up to the first eight bytes of a name, in lower case. Two names of one length below nine that consist
/// of letters are the same, but for case, when their words are.
#[inline]
fn word(name: &[u8]) -> u64 {
    let word = match *name {
        [] => 0,
        [a] => u64::from(a),
        [a, b] => u64::from(a) | u64::from(b) << 8,
        [a, b, c] => u64::from(a) | u64::from(b) << 8 | u64::from(c) << 16,
        _ => match name.first_chunk::<8>() {
            Some(bytes) => u64::from_le_bytes(*bytes),
            None => {
                // Two halves that overlap: four to seven bytes.
                let half = |chunk: Option<&[u8; 4]>| {
                    u64::from(u32::from_le_bytes(chunk.copied().unwrap_or_default()))
                };
                half(name.first_chunk()) | half(name.last_chunk()) << (8 * (name.len() - 4))
            }
        },
    };
    word | CASE
}

/// Word, last byte and length tell names well apart.
#[inline]
fn place(word: u64, name: &[u8]) -> usize {
    let last = u64::from(name.last().copied().unwrap_or(0) | 0x20);
    let mixed = (word ^ last << 56 ^ (name.len() as u64) << 48).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> (64 - BITS)) as usize
}

fn make(names: impl Iterator<Item = (&'static str, &'static Command)>) -> Index {
    let mut index: Index = Box::new([None; 1 << BITS]);
    for (name, command) in names {
        let word = word(name.as_bytes());
        let mut at = place(word, name.as_bytes());
        while index[at].is_some() {
            at = (at + 1) % (1 << BITS);
        }
        let is_word = name.len() <= 8 && name.bytes().all(|b| b.is_ascii_alphabetic());
        index[at] = Some(Named { word, is_word, name, command });
    }
    index
}

impl Named {
    /// It is that name, whose word is this.
    #[inline]
    fn is(&self, word: u64, name: &[u8]) -> bool {
        self.word == word
            && self.name.len() == name.len()
            && (self.is_word || self.name.as_bytes().eq_ignore_ascii_case(name))
    }
}

fn look<'i>(index: &'i Index, word: u64, name: &[u8]) -> Option<&'i Named> {
    if name.len() > NAME_BYTES_MAX {
        return None;
    }
    let mut at = place(word, name);
    while let Some(known) = &index[at] {
        if known.is(word, name) {
            return Some(known);
        }
        at = (at + 1) % (1 << BITS);
    }
    None
}

static INDEX: OnceLock<Index> = OnceLock::new();

/// Puts the `rename-command` lines in force; before the first look-up of the process.
/// An empty new name takes the command away.
pub fn set_renames(renames: &[(String, String)]) {
    if renames.is_empty() {
        return;
    }
    let new_name = |command: &'static Command| -> Option<&'static str> {
        match renames.iter().find(|(from, _)| from == command.name) {
            None => Some(command.name),
            Some((_, to)) if to.is_empty() => None,
            // The table of a process is made once and lives as long as it.
            Some((_, to)) => Some(Box::leak(to.clone().into_boxed_str())),
        }
    };
    let names = all().filter_map(|command| new_name(command).map(|name| (name, command)));
    let _ = INDEX.set(make(names));
}

/// The row of a name, whatever its case.
pub fn find(name: &[u8]) -> Option<&'static Command> {
    find_named(word(name), name).map(|known| known.command)
}

fn find_named(word: u64, name: &[u8]) -> Option<&'static Named> {
    look(INDEX.get_or_init(|| make(all().map(|c| (c.name, c)))), word, name)
}

/// Finds rows for one client, most of whose requests are of the same kind as the one before.
#[derive(Default)]
pub struct Finder(Option<&'static Named>);

impl Finder {
    /// The row of a name, whatever its case.
    #[inline]
    pub fn find(&mut self, name: &[u8]) -> Option<&'static Command> {
        let word = word(name);
        if !self.0.is_some_and(|last| last.is(word, name)) {
            self.0 = find_named(word, name);
        }
        self.0.map(|known| known.command)
    }
}

/// The row of a name as the journal writes it: renamed commands are found by either name.
pub fn find_canonical(name: &[u8]) -> Option<&'static Command> {
    static CANONICAL: OnceLock<Index> = OnceLock::new();
    find(name).or_else(|| {
        let index = CANONICAL.get_or_init(|| make(all().map(|c| (c.name, c))));
        look(index, word(name), name).map(|known| known.command)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_finds_its_row_in_any_case() {
        for command in all() {
            assert_eq!(command.name, command.name.to_ascii_lowercase());
            for name in [command.name.to_string(), command.name.to_ascii_uppercase()] {
                let found = find(name.as_bytes()).map(|c| c.name);
                assert_eq!(found, Some(command.name));
            }
        }
        assert!(find(b"nosuchcommand").is_none());
        let mut finder = Finder::default();
        for name in ["get", "GET", "gex", "get", "set", "cluster", "clustersc", "clusterscan"] {
            let found = finder.find(name.as_bytes()).map(|c| c.name);
            assert_eq!(found, find(name.as_bytes()).map(|c| c.name), "{name}");
        }
        assert!(find(b"ge\x14").is_none() && find(b"ge").is_none() && find(b"getx").is_none());
        assert!(find(b"").is_none());
    }
}
