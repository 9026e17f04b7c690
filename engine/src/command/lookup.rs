//! From a name in any case to its row, in one probe for nearly all names.

use std::sync::OnceLock;

use super::{Command, all};

const BITS: u32 = 11;
const NAME_BYTES_MAX: usize = 32;

/// A name under which a command is reached, and its row.
type Named = (&'static str, &'static Command);
/// Open addressing over the whole table; names are compared without case.
type Index = Box<[Option<Named>; 1 << BITS]>;

#[inline]
fn place(name: &[u8]) -> usize {
    // The first eight bytes with the case bit set, the last byte and the length tell names well apart.
    let mut word = [0u8; 8];
    let n = name.len().min(8);
    word[..n].copy_from_slice(&name[..n]);
    let x = u64::from_le_bytes(word) | 0x2020_2020_2020_2020;
    let last = u64::from(name.last().copied().unwrap_or(0) | 0x20);
    let mixed = (x ^ last << 56 ^ (name.len() as u64) << 48).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> (64 - BITS)) as usize
}

fn make(names: impl Iterator<Item = Named>) -> Index {
    let mut index: Index = Box::new([None; 1 << BITS]);
    for (name, command) in names {
        let mut at = place(name.as_bytes());
        while index[at].is_some() {
            at = (at + 1) % (1 << BITS);
        }
        index[at] = Some((name, command));
    }
    index
}

#[inline]
fn look(index: &Index, name: &[u8]) -> Option<&'static Command> {
    if name.len() > NAME_BYTES_MAX {
        return None;
    }
    let mut at = place(name);
    while let Some((known, command)) = index[at] {
        if known.as_bytes().eq_ignore_ascii_case(name) {
            return Some(command);
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
#[inline]
pub fn find(name: &[u8]) -> Option<&'static Command> {
    look(INDEX.get_or_init(|| make(all().map(|c| (c.name, c)))), name)
}

/// The row of a name as the journal writes it: renamed commands are found by either name.
pub fn find_canonical(name: &[u8]) -> Option<&'static Command> {
    static CANONICAL: OnceLock<Index> = OnceLock::new();
    find(name).or_else(|| look(CANONICAL.get_or_init(|| make(all().map(|c| (c.name, c)))), name))
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
        assert!(find(b"").is_none());
    }
}
