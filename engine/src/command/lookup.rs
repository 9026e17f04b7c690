//! From a name in any case to its row, in one probe for nearly all names.

use std::sync::OnceLock;

use super::{Command, all};

const BITS: u32 = 11;
const NAME_BYTES_MAX: usize = 32;

/// Open addressing over the whole table; names are compared without case.
type Index = Box<[Option<&'static Command>; 1 << BITS]>;

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

fn index() -> &'static Index {
    static INDEX: OnceLock<Index> = OnceLock::new();
    INDEX.get_or_init(|| {
        let mut index: Index = Box::new([None; 1 << BITS]);
        for command in all() {
            let mut at = place(command.name.as_bytes());
            while index[at].is_some() {
                at = (at + 1) % (1 << BITS);
            }
            index[at] = Some(command);
        }
        index
    })
}

/// The row of a name, whatever its case.
#[inline]
pub fn find(name: &[u8]) -> Option<&'static Command> {
    if name.len() > NAME_BYTES_MAX {
        return None;
    }
    let index = index();
    let mut at = place(name);
    while let Some(command) = index[at] {
        if command.name.as_bytes().eq_ignore_ascii_case(name) {
            return Some(command);
        }
        at = (at + 1) % (1 << BITS);
    }
    None
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
